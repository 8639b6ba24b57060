"""The volume controller as its users run it: in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"

COMMAND = (sys.executable, "-W", "error", "-m", "volume_controller")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(EXAMPLES)]),
    "PYTHONDONTWRITEBYTECODE": "1",
}

DESIRED = """
nodes = ["n1", "n2"]
[faults]
destroyed_superblock = "b"
""" + "".join(
    f'[[volumes]]\nname = "{name}"\nsize = "16Mi"\nnode = "{node}"\n'
    for name, node in [("a", "n1"), ("b", "n1"), ("c", "n2"), ("d", "n2")]
)

SUMMARY = re.compile(
    r"""summary:
  operations run: 3\d
  failed: [2-7]
  skipped because running: \d+
  skipped because waiting: [1-9]\d*
  highest number running at once: [1-6]
  overlapping runs of one volume in the operations' own log: 0
  left behind: 0
result: everything was reached \(exit code 0\)
"""
)
"""Four volumes with eight steps each, but no provision and no format of the damaged one,
which has one damage, one repair and two mounts that fail instead: 34. On a slow machine a
mount more may fail before the repair."""


@pytest.fixture
def desired(tmp_path: Path) -> Path:
    file = tmp_path / "desired.toml"
    file.write_text(DESIRED)
    return file


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "the work"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def events(output: str) -> list[str]:
    """The lines without their times, up to the summary."""
    lines = output[: output.index("summary:")].splitlines()
    return [line.split("  ", 1)[1] if line[0] != " " else line[9:] for line in lines]


def check_a_good_run(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    assert SUMMARY.fullmatch(done.stdout[done.stdout.index("summary:") :]), done.stdout
    told = events(done.stdout)
    of_b = [line.split()[1:3] for line in told if line.startswith("b: ")]
    assert of_b.count(["mount", "FAILED"]) >= 2
    assert of_b.index(["repair", "done"]) < of_b.index(["mount", "done"])
    return told


def test_everything_is_reached_with_files_and_folders(desired: Path, work: Path) -> None:
    """Up and down, one mount that fails twice, and nothing is left behind."""
    told = check_a_good_run(run(desired, "--backend", "dir", "--work", work))
    assert told[0] == "backend: dir, as asked for"
    assert [*work.glob("attachments/*"), *work.glob("nodes/*/*")] == []
    assert len([*work.glob("files/*/content.bin")]) == 4


@pytest.mark.root
def test_everything_is_reached_with_loop_devices(
    loop_works: None, desired: Path, work: Path
) -> None:
    """The same, on block devices with real file systems."""
    told = check_a_good_run(run(desired, "--work", work))
    assert told[0] == "backend: loop, because it works here"
    assert str(work) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    assert not any(str(work) in file.read_text(encoding="utf-8") for file in files)


def test_a_work_folder_can_be_used_again(desired: Path, work: Path) -> None:
    """What is there already is not done again."""
    check_a_good_run(run(desired, "--backend", "dir", "--work", work))
    again = run(desired, "--backend", "dir", "--work", work)
    assert again.returncode == 0, again.stdout
    assert not [line for line in events(again.stdout) if "provision" in line or "write" in line]


def test_the_temporary_folder_is_removed(desired: Path, tmp_path: Path) -> None:
    """Nobody asked to keep it."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [*COMMAND, desired, "--backend", "dir"],
        env={**ENVIRONMENT, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    assert f"work folder: {temporary}{os.sep}" in done.stdout
    assert list(temporary.iterdir()) == []


def make_unmountable(work: Path) -> None:
    """An image of volume *a* that is not blank and has no superblock at all."""
    image = work / "images" / "a.img"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"not a file system")


def test_what_cannot_be_reached_in_time_is_exit_code_1(desired: Path, work: Path) -> None:
    """What is attached by then is detached."""
    make_unmountable(work)
    done = run(desired, "--backend", "dir", "--work", work, "--timeout", "2")
    assert (done.stderr, done.returncode) == ("", 1)
    told = events(done.stdout)
    (last,) = [line for line in told if line.startswith("time is up")]
    assert re.match(r"^time is up after 2 s \(--timeout\), next would be: a \(mount\)", last)
    assert any(line.startswith("cleaning up ") for line in told)
    assert done.stdout.endswith(
        "left behind: 0\nresult: NOT everything was reached (exit code 1)\n"
    )
    assert [*work.glob("attachments/*"), *work.glob("nodes/*/*")] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_stops_it_and_it_cleans_up(
    desired: Path, work: Path, number: signal.Signals
) -> None:
    """The exit code is the shells' one."""
    make_unmountable(work)
    command = [*COMMAND, str(desired), "--backend", "dir", "--work", str(work)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "a: mount FAILED" in line:
                process.send_signal(number)
                break
        rest = process.stdout.read()
    assert 128 + number == process.returncode
    assert f"stopping because of {number.name}\n" in rest
    assert [*work.glob("attachments/*"), *work.glob("nodes/*/*")] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.toml"], "cannot read no.toml: No such file or directory; name a TOML file"),
        (["--backend", "nfs"], "unknown backend 'nfs': choose from loop, dir"),
        (["--timeout", "0"], "--timeout must be a number of seconds above 0, not '0'"),
        (["--timeout", "soon"], "--timeout must be a number of seconds above 0, not 'soon'"),
        (["--timeout", "inf"], "--timeout must be a number of seconds above 0, not 'inf'"),
        (["--colour"], "unrecognized arguments: --colour; see --help"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, work: Path
) -> None:
    """Nothing was done by then: there is no work folder."""
    done = run("--work", work, *arguments)
    assert (f"volume_controller: {message}\n", 2, "") == (
        done.stderr,
        done.returncode,
        done.stdout,
    )
    assert not work.exists()


def test_a_work_folder_that_cannot_be_made_is_bad_input(desired: Path) -> None:
    """The system's own words are in the message."""
    work = desired / "work"
    done = run(desired, "--backend", "dir", "--work", work)
    message = f"cannot write to the work folder {work}: Not a directory; choose another with --work"
    assert (f"volume_controller: {message}\n", 2) == (done.stderr, done.returncode)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere: run it as somebody else")
def test_a_work_folder_without_permission_is_bad_input(desired: Path, work: Path) -> None:
    """The system's own words are in the message."""
    work.mkdir(mode=0o500)
    done = run(desired, "--backend", "dir", "--work", work)
    message = (
        f"cannot write to the work folder {work}: Permission denied; choose another with --work"
    )
    assert (f"volume_controller: {message}\n", 2) == (done.stderr, done.returncode)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use loop devices: run it as somebody else")
def test_loop_devices_cannot_be_forced_without_root(desired: Path, work: Path) -> None:
    """The message says what is missing, and what else to do."""
    done = run(desired, "--backend", "loop", "--work", work)
    message = "backend loop cannot be used: it needs root; mend that, or use --backend dir"
    assert (f"volume_controller: {message}\n", 2) == (done.stderr, done.returncode)
    assert not work.exists()
