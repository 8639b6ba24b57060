"""A signal at any moment: nothing stays mounted, attached or running."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RUNNER = Path(__file__).with_name("signal_runner.py")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "docs" / "examples")]),
    "PYTHONDONTWRITEBYTECODE": "1",
}

RANDOM_SIGNALS = int(os.environ.get("VOLUME_CONTROLLER_SIGNALS", "50"))
"""How many per backend. ``VOLUME_CONTROLLER_SIGNALS=200 pytest tests/examples`` is the long way."""

LONGEST = 3.0
"""Seconds: the random moments are in the time that a session takes when 32 run at once."""

DESIRED = """
nodes = ["n1", "n2"]
[faults]
destroyed_superblock = "b"
busy_mount_point = "a"
hanging_attach = "a"
[[volumes]]
name = "a"
size = "16Mi"
node = "n1"
[[volumes]]
name = "b"
size = "16Mi"
node = "n2"
[[phase]]
title = "up"
attach = "all"
[[phase]]
title = "down"
delete = ["b"]
detach = ["a"]
"""

Case = dict[str, Any]

BACKENDS = ["dir", pytest.param("loop", marks=pytest.mark.root), "fuse"]


@pytest.fixture
def needs(backend: str, loop_obstacle: str | None, fuse_obstacle: str | None) -> None:
    """Skip the test unless the backend works here."""
    obstacle = {"dir": None, "loop": loop_obstacle, "fuse": fuse_obstacle}[backend]
    if obstacle is not None:
        pytest.skip(f"{backend} {obstacle}")


class Bench:
    """Makes cases of one backend, and runs them."""

    def __init__(self, folder: Path, backend: str) -> None:
        self._folder = folder
        self._backend = backend
        self._made = 0
        (folder / "desired.toml").write_text(DESIRED)

    def case(self, **facts: Any) -> Case:
        self._made += 1
        work = str(self._folder / f"work-{self._made}.")
        arguments = [str(self._folder / "desired.toml"), "--work", work, "--backend", self._backend]
        return {"work": work, "arguments": arguments, **facts}

    def run(self, cases: list[Case]) -> list[Case]:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(RUNNER)],
            input="".join(f"{json.dumps(case)}\n" for case in cases),
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert (done.stderr, done.returncode) == ("", 0)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(cases)
        return answers

    def count(self) -> int:
        """How many commands there are, if nothing comes in between."""
        (answer,) = self.run([self.case()])
        assert answer["code"] == 0, answer["output"]
        assert answer["left"] == []
        seen: int = answer["seen"]
        return seen


@pytest.fixture
def bench(needs: None, tmp_path: Path, backend: str) -> Bench:
    return Bench(tmp_path, backend)


def check(answers: list[Case]) -> None:
    bad = [
        answer
        for answer in answers
        if answer["left"]
        or answer["code"] not in (0, 128 + answer["signal"])
        or "Traceback" in answer["output"]
        or "Warning" in answer["output"]
    ]
    assert not bad, json.dumps(bad[0], indent=1).replace("\\n", "\n")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_signal_around_each_command_leaves_nothing_behind(bench: Bench) -> None:
    """One before, one behind, and one before and behind each that follows: also in the clean-up."""
    cases = [
        bench.case(nth=nth, when=when, signal=[signal.SIGINT, signal.SIGTERM][nth % 2])
        for nth in range(1, bench.count() + 1)
        for when in ("before", "after", *(["storm"] if nth % 5 == 0 else []))
    ]
    answers = bench.run(cases)
    check(answers)
    print(f"{len(answers)} signals")
    stopped = [answer for answer in answers if answer["code"] != 0]
    assert len(stopped) > len(cases) * 0.8


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_signal_at_a_random_moment_leaves_nothing_behind(bench: Bench) -> None:
    """Also while it starts, and when it is over already."""
    seed = int(os.environ.get("VOLUME_CONTROLLER_SEED", "0")) or random.SystemRandom().getrandbits(
        32
    )
    print(f"VOLUME_CONTROLLER_SEED={seed}")
    chance = random.Random(seed)
    cases = [
        bench.case(
            delay=chance.uniform(0, LONGEST), signal=chance.choice([signal.SIGINT, signal.SIGTERM])
        )
        for _ in range(RANDOM_SIGNALS)
    ]
    check(bench.run(cases))
