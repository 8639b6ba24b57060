"""The volume controller as its users run it: in a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from volume_controller import cleanup, kernel
from volume_controller.__main__ import _display, parse
from volume_controller.lines import JsonLines, PlainLines

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

DAY = """
nodes = ["n1", "n2"]
[faults]
busy_mount_point = "a"
destroyed_superblock = "b"
hanging_attach = "c"
[[phase]]
title = "up"
attach = "all"
[[phase]]
title = "elsewhere"
moves = { a = "n2", d = "n1" }
[[phase]]
title = "down"
detach = "all"
[[phase]]
title = "away"
delete = ["a", "c"]
""" + DESIRED[DESIRED.index("[[volumes]]") :]

SUMMARY = re.compile(
    r"""summary:
  operations run: 3\d
  failed: [2-7]
  skipped because running: \d+
  skipped because waiting: [1-9]\d*
  highest number running at once: [1-6]
  overlapping runs of one volume in the operations' own log: 0
  left behind: 0
  fault: b loses its superblock; .*: met and survived \(failures of mount: [2-7]\)
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
    assert kernel.loop_devices_below(work) == {}


def test_everything_is_reached_with_fuse(fuse_works: None, desired: Path, work: Path) -> None:
    """The same, with a process for each mount, and none of them is left."""
    told = check_a_good_run(run(desired, "--backend", "fuse", "--work", work))
    assert told[0] == "backend: fuse, as asked for"
    assert str(work) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert kernel.servers_below(work) == {}


def test_a_mount_that_fuse2fs_was_refused_is_told_with_its_reason(
    fuse_works: None, desired: Path, work: Path
) -> None:
    """It fails and waits, although the exit code of fuse2fs is 0."""
    left = work / "nodes" / "n1" / "a" / "left by somebody"
    left.parent.mkdir(parents=True)
    left.touch()
    command = [*COMMAND, str(desired), "--backend", "fuse", "--work", str(work)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = ""
        for line in process.stdout:
            told += line
            if "a: mount FAILED (failures in a row: 2), waits 0.4 s" in line:
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert "a: mount done" not in told
    reason = f"fuse2fs has not mounted {left.parent}: fuse: mountpoint is not empty\n"
    assert told.count(reason) >= 2
    assert cleanup.leftovers(work) == []


@pytest.fixture
def day(tmp_path: Path) -> Path:
    file = tmp_path / "day.toml"
    file.write_text(DAY)
    return file


@pytest.mark.parametrize("backend", ["dir", pytest.param("loop", marks=pytest.mark.root), "fuse"])
def test_a_day_with_three_faults_is_survived(
    loop_obstacle: str | None, fuse_obstacle: str | None, day: Path, work: Path, backend: str
) -> None:
    """Programs read it line by line; what is deleted is gone."""
    obstacle = {"loop": loop_obstacle, "fuse": fuse_obstacle}.get(backend)
    if obstacle is not None:
        pytest.skip(obstacle)
    done = run(day, "--backend", backend, "--work", work, "--json", "--volumes", "5")
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["title"] for event in told if event["event"] == "phase"] == [
        "up",
        "elsewhere",
        "down",
        "away",
    ]
    summary = told[-1]
    assert (summary["event"], summary["exit_code"], summary["leftovers"]) == ("summary", 0, [])
    assert (summary["reached"], summary["overlapping_runs"]) == (True, 0)
    faults = {fault["operation"]: fault for fault in summary["faults"]}
    assert all(fault["survived"] for fault in faults.values())
    assert {"mount": "b", "unmount": "a", "attach": "c"} == {
        operation: fault["volume"] for operation, fault in faults.items()
    }
    assert faults["mount"]["failures"] >= 2
    assert faults["unmount"]["failures"] >= 2
    assert faults["attach"]["failures"] == 1
    images = sorted(path.stem for path in work.glob("images/*.img"))
    assert images == ["b", "d", "extra-5"]
    failed = [event for event in told if event["event"] == "failed" and event["volume"] == "c"]
    assert [event["operation"] for event in failed] == ["attach"]
    assert 0.4 < failed[0]["duration"] < 5.0


@pytest.mark.parametrize("backend", ["dir", pytest.param("loop", marks=pytest.mark.root), "fuse"])
def test_a_volume_whose_node_changes_under_way_is_turned_back(
    loop_obstacle: str | None, fuse_obstacle: str | None, day: Path, work: Path, backend: str
) -> None:
    """What was on its way there has really ended before the volume goes anywhere else."""
    obstacle = {"loop": loop_obstacle, "fuse": fuse_obstacle}.get(backend)
    if obstacle is not None:
        pytest.skip(obstacle)
    day.write_text(day.read_text().replace('d = "n1"', 'd = ["n1", "n2"]'))
    ends = [("attach", "cancelled"), ("attach", "succeeded")]  # the latter if it does not stop
    turned: list[tuple[str | None, str]] = [(None, "never")]
    for _ in range(20):  # on a machine that is busy the attach may be over before anybody says so
        done = run(day, "--backend", backend, "--work", work, "--json")
        assert (done.stderr, done.returncode) == ("", 0), done.stdout
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert (told[-1]["reached"], told[-1]["overlapping_runs"]) == (True, 0)
        of_d = [
            (event.get("operation"), event["event"])
            for event in told
            if event.get("volume") == "d" or event["event"] == "change of mind"
        ]
        _, *turned = of_d[of_d.index((None, "change of mind")) :]
        if turned[0] in ends:
            break
    assert turned[0] in ends
    assert turned[1:3] == [("leave", "started"), ("leave", "succeeded")]
    assert [one for one in turned[3:] if one[1] == "succeeded"][:2] == [
        ("attach", "succeeded"),
        ("mount", "succeeded"),
    ]


def test_a_fault_that_was_not_survived_is_exit_code_1(day: Path, work: Path) -> None:
    """The summary says which."""
    done = run(day, "--backend", "dir", "--work", work, "--timeout", "0.3")
    assert done.returncode == 1
    assert re.search(r"fault: a is kept busy .*: NOT met \(failures of unmount: 0\)", done.stdout)


def test_a_terminal_gets_a_table(day: Path, work: Path) -> None:
    """With a row for each volume; at the end the summary in plain lines."""
    pytest.importorskip("rich")
    ours, theirs = pty.openpty()
    command = [*COMMAND, str(day), "--backend", "dir", "--work", str(work)]
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(command, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # how Linux tells that nobody is at the other end
            while more := os.read(ours, 65536):
                shown += more
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert process.returncode == 0, text
    for head in ("volume", "node", "state", "failures", "next try", "last error"):
        assert head in text
    assert re.search(r"│ b +│ n1 +│", text)
    assert re.search(r"│ a +│ +│ no image +│ +│ +│ +│", text)
    assert "result: everything was reached (exit code 0)" in text


@pytest.mark.parametrize("what", ["no rich", "--plain", "--json"])
def test_a_terminal_need_not_get_a_table(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Without rich there are plain lines, as there are for who wants them."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    if what == "no rich":
        monkeypatch.setitem(sys.modules, "rich.console", None)
    options = parse([] if what == "no rich" else [what])
    assert isinstance(_display(options), JsonLines if what == "--json" else PlainLines)


def test_a_work_folder_is_for_one_controller(day: Path, work: Path) -> None:
    """The second one does not even look at it."""
    work.mkdir()
    with (work / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = run(day, "--backend", "dir", "--work", work)
    message = (
        f"the work folder {work} is in use by another controller: "
        "wait for its end, or choose another with --work"
    )
    assert (f"volume_controller: {message}\n", 2, "") == (done.stderr, done.returncode, done.stdout)
    assert [path.name for path in work.iterdir()] == ["lock"]


def test_a_work_folder_is_for_one_backend(day: Path, work: Path) -> None:
    """Their images differ."""
    work.mkdir()
    (work / "backend").write_text("loop\n")
    done = run(day, "--backend", "dir", "--work", work)
    message = (
        f"the work folder {work} holds volumes of backend loop, not dir: "
        "use that one, or choose another folder with --work"
    )
    assert (f"volume_controller: {message}\n", 2) == (done.stderr, done.returncode)


def kill_when_mounted(day: Path, work: Path, backend: str) -> None:
    command = [*COMMAND, str(day), "--backend", backend, "--work", str(work)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "a: unmount FAILED" in line:
                process.kill()
        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("backend", "way"),
    [
        ("dir", "rerun"),
        ("dir", "clean"),
        pytest.param("loop", "rerun", marks=pytest.mark.root),
        pytest.param("loop", "clean", marks=pytest.mark.root),
        ("fuse", "rerun"),
    ],
)
def test_what_a_killed_controller_leaves_is_found(
    loop_obstacle: str | None,
    fuse_obstacle: str | None,
    day: Path,
    desired: Path,
    work: Path,
    backend: str,
    way: str,
) -> None:
    """By the work folder: mounts, attachments, and the process that keeps a mount point busy."""
    obstacle = {"loop": loop_obstacle, "fuse": fuse_obstacle}.get(backend)
    if obstacle is not None:
        pytest.skip(obstacle)
    kill_when_mounted(day, work, backend)
    assert not Path("/proc/self/environ").exists() or kernel.processes_of(work)
    if way == "rerun":
        desired.write_text(DESIRED.replace('destroyed_superblock = "b"', ""))
        done = run(desired, "--work", work)
        assert (done.stderr, done.returncode) == ("", 0), done.stdout
        told = events(done.stdout)
        assert re.match(r"^cleaning up after an earlier session: \d+ leftovers$", told[0])
        assert told[1] == f"backend: {backend}, as before in this work folder"
    else:
        done = run("--clean", work)
        assert ("", "", 0) == (done.stdout, done.stderr, done.returncode)
    assert cleanup.leftovers(work) == []
    assert not [path for path in work.glob("attachments/*") if path.is_symlink()]


def test_only_a_work_folder_is_cleaned(tmp_path: Path) -> None:
    """A typing mistake unmounts nothing."""
    done = run("--clean", tmp_path)
    message = f"{tmp_path} is no work folder: name one that a controller has used"
    assert (f"volume_controller: {message}\n", 2) == (done.stderr, done.returncode)


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
    assert done.stdout.endswith("result: NOT everything was reached (exit code 1)\n")
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
        (["--backend", "nfs"], "unknown backend 'nfs': choose from loop, fuse, dir"),
        (["--timeout", "0"], "--timeout must be a number of seconds above 0, not '0'"),
        (["--timeout", "soon"], "--timeout must be a number of seconds above 0, not 'soon'"),
        (["--volumes", "0"], "--volumes must be a number from 1 to 10000, not '0'"),
        (["--volumes", "many"], "--volumes must be a number from 1 to 10000, not 'many'"),
        (["--plain", "--json"], "argument --json: not allowed with argument --plain; see --help"),
        (["--timeout", "inf"], "--timeout must be a number of seconds above 0, not 'inf'"),
        (["--colour"], "unrecognized arguments: --colour; see --help"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, work: Path
) -> None:
    """Nothing was done by then: there is no work folder."""
    done = run("--work", work, *arguments)
    assert (f"volume_controller: {message}\n", 2, "") == (done.stderr, done.returncode, done.stdout)
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
    message = "backend loop cannot be used: it needs root; fix that, or use --backend fuse or dir"
    assert (f"volume_controller: {message}\n", 2) == (done.stderr, done.returncode)
    assert not work.exists()
