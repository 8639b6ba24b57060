"""How to run commands: the page's code leaves nothing of a process tree behind.

Real processes, in real time: each wait here is for one of them.
"""

import os
import pathlib
import signal
import sys
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest
import trio

import namedtasks
from tests.docs.pages import ROOT, code_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups are of Unix")

PAGE = ROOT / "docs" / "how-to" / "commands.md"
PATIENCE = 30.0
"""Seconds until a process that should start or end is taken for stuck: nobody waits so long."""

TREE = """
import os, pathlib, signal, sys
stubborn, folder = sys.argv[1], pathlib.Path(sys.argv[2])
for generation in ["head", "child", "grandchild"]:
    if stubborn == "all" or stubborn == "children" and generation != "head":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / str(os.getpid())).touch()
    if generation == "grandchild" or os.fork():
        break
while True:
    signal.pause()
"""
"""A process, its child and its grandchild: each tells its number, and some ignore SIGTERM."""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Generator[pathlib.Path]:
    """Where the tree tells its numbers; what a failed test leaves of it is ended."""
    yield tmp_path
    for path in tmp_path.iterdir():
        if is_alive(int(path.name)):
            os.kill(int(path.name), signal.SIGKILL)


@pytest.fixture
def page() -> dict[str, Any]:
    """What the page defines, with less patience."""
    names: dict[str, Any] = {"__name__": "commands"}
    exec(code_of(PAGE, "commands.py"), names)
    names["GRACE"] = 0.1
    return names


@pytest.fixture
def run_command(page: dict[str, Any]) -> Callable[..., Awaitable[str]]:
    run: Callable[..., Awaitable[str]] = page["run_command"]
    return run


def is_alive(process: int) -> bool:
    """Whether it runs; a zombie, which only its parent can take away, does not."""
    try:
        stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def tree_in(folder: pathlib.Path) -> set[int]:
    """The numbers of the three, once all have begun."""
    with trio.fail_after(PATIENCE):
        while len(found := {int(path.name) for path in folder.iterdir()}) < 3:
            await trio.sleep(0.01)
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("stubborn", ["none", "children", "all"])
async def test_nothing_of_the_process_tree_is_left_once_the_name_is_free(
    run_command: Callable[..., Awaitable[str]], folder: pathlib.Path, stubborn: str
) -> None:
    command = (sys.executable, "-S", "-c", TREE, stubborn, str(folder))
    with trio.fail_after(PATIENCE):
        async with namedtasks.open_task_map(instruments=[]) as tasks:
            handle = tasks.start_soon("tree", run_command, *command)
            family = await tree_in(folder)
            assert {is_alive(process) for process in family} == {True}
            handle.cancel()
            with pytest.raises(namedtasks.TaskCancelledError):
                await handle.wait()
            assert "tree" not in tasks
            assert {is_alive(process) for process in family} == {False}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
async def test_nothing_of_it_is_left_when_the_whole_map_is_cancelled(
    run_command: Callable[..., Awaitable[str]], folder: pathlib.Path
) -> None:
    command = (sys.executable, "-S", "-c", TREE, "children", str(folder))
    family: set[int] = set()
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with namedtasks.open_task_map(instruments=[]) as tasks:
            tasks.start_soon("tree", run_command, *command)
            family = await tree_in(folder)
            scope.cancel()
    assert {is_alive(process) for process in family} == {False}


async def test_the_clean_up_gives_up_at_its_limit(
    page: dict[str, Any], run_command: Callable[..., Awaitable[str]]
) -> None:
    """A group that is never gone, such as one that hangs in the kernel, is let go of."""
    really_signal = page["signal_group"]
    page["LIMIT"] = 0.1

    def signal_group(group: int, number: int) -> bool:
        really_signal(group, number)
        return True

    page["signal_group"] = signal_group
    with trio.fail_after(PATIENCE):
        async with namedtasks.open_task_map(instruments=[]) as tasks:
            handle = tasks.start_soon("sleep", run_command, "sleep", "60")
            while handle.started_at is None:
                await trio.sleep(0.01)
            handle.cancel()
            with pytest.raises(namedtasks.TaskCancelledError):
                await handle.wait()


async def test_the_exit_status_is_the_failure(run_command: Callable[..., Awaitable[str]]) -> None:
    async with namedtasks.open_task_map(instruments=[]) as tasks:
        handle = tasks.start_soon("exit", run_command, "sh", "-c", "echo oh >&2; exit 3")
        with pytest.raises(namedtasks.TaskFailedError) as failed:
            await handle.wait()
    cause: Any = failed.value.__cause__
    assert (cause.returncode, cause.stderr) == (3, b"oh\n")
