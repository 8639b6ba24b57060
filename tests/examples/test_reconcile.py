"""The shorter examples, as their users run them: each in a process of its own."""

from __future__ import annotations

import importlib
import inspect
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reconcile_common.volumes import NAMES, next_step
from volume_controller.backend import VolumeState

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(EXAMPLES)]),
    "PYTHONDONTWRITEBYTECODE": "1",
}

SHELLS = ["reconcile_threads", "reconcile_asyncio"]

PATIENCE = 60.0
"""Seconds until a process that should have ended is taken for stuck: nobody waits so long."""

ONE_PAGE = 40
"""Lines."""

SUMMARY = re.compile(
    r"""summary:
  operations run: [34]\d
  failed: [3-9]
  overlapping runs of one volume in the operations' own log: 0
  left behind: 0
result: everything was reached \(exit code 0\)
"""
)
"""Six volumes with five steps each, and three that fail: 33. A slow disk may have one fail more."""

SIGNALS = [signal.SIGINT, signal.SIGTERM]

each_shell = pytest.mark.parametrize("shell", SHELLS)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the work folder is, and is no more when all is over."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def start(shell: str, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (sys.executable, "-W", "error", "-m", shell),
        env={**ENVIRONMENT, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_held(shell: str, temporary: Path) -> subprocess.Popen[str]:
    """Start it with signals blocked, as its first step does: the interpreter starts before that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return start(shell, temporary)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@each_shell
def test_everything_is_reached_and_nothing_is_left(shell: str, temporary: Path) -> None:
    """Six volumes up and down again, with three failures on the way."""
    with start(shell, temporary) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert ("", 0) == (err, process.returncode), out
    assert SUMMARY.fullmatch(out[out.index("summary:") :]), out
    for name in NAMES:
        ends = [line.split()[2] for line in out.splitlines() if f"{name}: " in line]
        assert ["create", "attach", "write", "detach", "delete"] == list(dict.fromkeys(ends))
    assert out.count("vol-2: write FAILED") >= 2
    assert out.count("vol-3: attach FAILED (failures in a row: 1)") == 1
    assert "it took longer than its timeout of 1 s" in out
    assert [*temporary.iterdir()] == []


@each_shell
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize(
    "moment", ["6 volumes", "vol-2: write FAILED", "vol-3: attach FAILED", "vol-1: detach"]
)
def test_a_signal_stops_it_and_it_cleans_up(
    shell: str, temporary: Path, number: signal.Signals, moment: str
) -> None:
    """What runs is asked to stop, and what hangs does. The exit code is the shells' one."""
    with start(shell, temporary) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                process.send_signal(number)
                break
        out, err = process.communicate(timeout=PATIENCE)
    assert ("", 128 + number) == (err, process.returncode), out
    assert f"stopped, because {number.name} came\n" in out
    if moment == "vol-2: write FAILED":
        assert f"vol-3: attach cancelled, because {number.name} came\n" in out
    assert "  left behind: 0\n" in out
    assert [*temporary.iterdir()] == []


@each_shell
def test_a_signal_at_a_random_moment_leaves_nothing_behind(shell: str, temporary: Path) -> None:
    """Also while it starts, and when it is over already. More than one changes nothing."""
    seed = int(os.environ.get("RECONCILE_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"RECONCILE_SEED={seed}")
    chance = random.Random(seed)
    for _ in range(int(os.environ.get("RECONCILE_SIGNALS", "5"))):
        number = chance.choice(SIGNALS)
        with start_held(shell, temporary) as process:
            time.sleep(chance.uniform(0.0, 2.0))
            for _ in range(chance.randint(1, 3)):
                process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
        assert err == "", out
        assert process.returncode in (0, 128 + number), out
        assert [*temporary.iterdir()] == []


@each_shell
def test_the_reconcile_loop_fits_on_one_page(shell: str) -> None:
    """With what it starts: the page to copy."""
    controller = importlib.import_module(f"{shell}.controller")
    assert len(inspect.getsource(controller.reconcile).splitlines()) <= ONE_PAGE / 2
    assert len(inspect.getsource(controller).splitlines()) <= 2 * ONE_PAGE


@pytest.mark.parametrize(
    ("written", "deleted", "actual"),
    [
        ("create", None, VolumeState()),
        ("attach", "delete", VolumeState(provisioned=True)),
        ("write", "detach", VolumeState(provisioned=True, attached_to="here")),
        (None, "detach", VolumeState(provisioned=True, attached_to="here", written=True)),
    ],
)
def test_the_next_step_follows_from_what_is(
    written: str | None, deleted: str | None, actual: VolumeState
) -> None:
    """On the way up, and on the way down."""
    assert (written, deleted) == (next_step("written", actual), next_step("deleted", actual))
