"""How to run commands: the page's code leaves nothing of a process tree behind, in each dialect.

Real processes, in real time: each wait here is for one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from typing import Any
from unittest import mock

import pytest
import trio

import namedtasks
import namedtasks.asyncio
from tests.docs.pages import DIALECTS, ROOT, code_of, for_dialect

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups are of Unix")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

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
"""A process, its child and its grandchild: each writes its number, and some ignore SIGTERM."""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Generator[pathlib.Path]:
    """The folder for the numbers of a tree; what a failed test leaves of it is killed."""
    folder = tmp_path / "tree"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        if is_alive(int(path.name)):
            os.kill(int(path.name), signal.SIGKILL)


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    dialect: str = request.param
    return dialect


@pytest.fixture
def page(dialect: str, tmp_path: pathlib.Path) -> dict[str, Any]:
    """What the page defines for the dialect, with less patience."""
    path = tmp_path / "page.md"
    path.write_text(for_dialect(PAGE.read_text(encoding="utf-8"), dialect), encoding="utf-8")
    names: dict[str, Any] = {"__name__": "commands"}
    exec(code_of(path, "commands.py"), names)
    names["GRACE"] = 0.1
    return names


def is_alive(process: int) -> bool:
    """Return whether it runs; a zombie, which only its parent can reap, does not."""
    try:
        stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def tree(folder: pathlib.Path, stubborn: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", TREE, stubborn, str(folder))


def family_in(folder: pathlib.Path) -> set[int]:
    """Return the numbers of the three, or an empty set until all have begun."""
    family = {int(path.name) for path in folder.iterdir()}
    return family if len(family) == 3 else set()


def assert_alive(folder: pathlib.Path, expected: bool) -> None:
    assert {expected} == {is_alive(process) for process in family_in(folder)}


class Case:
    """A command whose run is cancelled once it is ready; the outcome is checked at its end."""

    def __init__(
        self,
        page: dict[str, Any],
        command: tuple[str, ...],
        is_ready: Callable[[], object],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.run_command = page["run_command"]
        self.command = command
        self.is_ready = is_ready
        self.check = check

    def cancel(self, dialect: str) -> None:
        """Cancel the run alone, and check when its name is free."""
        if dialect == "asyncio":
            asyncio.run(self._cancel_on_asyncio())
        elif dialect == "threads":
            self._cancel_in_threads()
        else:
            trio.run(self._cancel_on_trio)

    async def _cancel_on_asyncio(self) -> None:
        async with (
            asyncio.timeout(PATIENCE),
            namedtasks.asyncio.open_task_map(instruments=[]) as tasks,
        ):
            task = tasks.create_task("job", self.run_command, *self.command)
            while not self.is_ready():
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert "job" not in tasks
            self.check()

    def _cancel_in_threads(self) -> None:
        with namedtasks.ThreadTaskMap(instruments=[]) as tasks:
            future = tasks.submit("job", self.run_command, *self.command)
            self._wait_until_ready()
            tasks.cancel("job")
            with pytest.raises(namedtasks.TaskCancelledError):
                future.result(timeout=PATIENCE)
            assert "job" not in tasks
            self.check()

    async def _cancel_on_trio(self) -> None:
        with trio.fail_after(PATIENCE):
            async with namedtasks.open_task_map(instruments=[]) as tasks:
                handle = tasks.start_soon("job", self.run_command, *self.command)
                while not self.is_ready():
                    await trio.sleep(0.01)
                handle.cancel()
                with pytest.raises(namedtasks.TaskCancelledError):
                    await handle.wait()
                assert "job" not in tasks
                self.check()

    def cancel_the_map(self, dialect: str) -> None:
        """Leave the whole block by a cancellation or an exception, and check after that."""
        if dialect == "asyncio":
            asyncio.run(self._cancel_the_map_on_asyncio())
        elif dialect == "threads":
            self._leave_the_block_in_threads()
        else:
            trio.run(self._cancel_the_map_on_trio)
        self.check()

    async def _cancel_the_map_on_asyncio(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as scope:
                async with namedtasks.asyncio.open_task_map(instruments=[]) as tasks:
                    _ = tasks.create_task("job", self.run_command, *self.command)
                    while not self.is_ready():
                        await asyncio.sleep(0.01)
                    scope.reschedule(0)

    def _leave_the_block_in_threads(self) -> None:
        with (
            contextlib.suppress(KeyboardInterrupt),
            namedtasks.ThreadTaskMap(instruments=[]) as tasks,
        ):
            tasks.submit("job", self.run_command, *self.command)
            self._wait_until_ready()
            raise KeyboardInterrupt

    async def _cancel_the_map_on_trio(self) -> None:
        with trio.CancelScope() as scope:
            async with namedtasks.open_task_map(instruments=[]) as tasks:
                tasks.start_soon("job", self.run_command, *self.command)
                while not self.is_ready():
                    await trio.sleep(0.01)
                scope.cancel()

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + PATIENCE
        while not self.is_ready():
            assert time.monotonic() < give_up
            time.sleep(0.01)


@linux
@pytest.mark.parametrize("stubborn", ["none", "children", "all"])
def test_nothing_of_the_process_tree_is_left_once_the_name_is_free(
    dialect: str, page: dict[str, Any], folder: pathlib.Path, stubborn: str
) -> None:
    command = tree(folder, stubborn)
    Case(page, command, lambda: family_in(folder), lambda: assert_alive(folder, False)).cancel(
        dialect
    )


@linux
def test_nothing_of_it_is_left_when_the_whole_map_is_cancelled(
    dialect: str, page: dict[str, Any], folder: pathlib.Path
) -> None:
    command = tree(folder, "children")
    case = Case(page, command, lambda: family_in(folder), lambda: assert_alive(folder, False))
    case.cancel_the_map(dialect)


def test_the_clean_up_gives_up_at_its_limit(
    dialect: str, page: dict[str, Any], folder: pathlib.Path
) -> None:
    """It does not wait for ever for a group that is never gone, as one that hangs in the kernel."""
    really_signal = page["signal_group"]
    page["LIMIT"] = 0.1

    def signal_group(group: object, number: int) -> bool:
        really_signal(group, number)
        return True

    page["signal_group"] = signal_group
    begun = folder.with_name("begun")
    Case(page, ("sh", "-c", f"touch {begun}; sleep 60"), begun.exists).cancel(dialect)


@pytest.mark.parametrize("dialect", ["asyncio"], indirect=True)
@linux
def test_cancelling_asyncios_start_of_a_process_again_and_again_leaves_nothing(
    page: dict[str, Any], folder: pathlib.Path
) -> None:
    """asyncio kills a process whose start is cancelled, but not its children."""
    really_start = asyncio.create_subprocess_exec
    has_started = asyncio.Event()

    async def start_slowly(*command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await really_start(*command, **options)
        await has_started.wait()
        return process

    async def main() -> None:
        async with (
            asyncio.timeout(PATIENCE),
            namedtasks.asyncio.open_task_map(instruments=[]) as tasks,
        ):
            task = tasks.create_task("job", page["run_command"], *tree(folder, "children"))
            while not family_in(folder):
                await asyncio.sleep(0.01)
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0)
            has_started.set()
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            assert_alive(folder, False)

    with mock.patch("asyncio.create_subprocess_exec", start_slowly):
        asyncio.run(main())


@linux
@pytest.mark.parametrize("dialect", ["threads"], indirect=True)
@pytest.mark.parametrize("other", ["asyncio", "trio"])
def test_the_function_for_threads_works_in_the_other_dialects(
    page: dict[str, Any], folder: pathlib.Path, other: str
) -> None:
    async def on_asyncio() -> None:
        async with (
            asyncio.timeout(PATIENCE),
            namedtasks.asyncio.open_task_map(instruments=[]) as tasks,
        ):
            task = tasks.run_in_executor("job", page["run_command"], *tree(folder, "children"))
            while not family_in(folder):
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            assert_alive(folder, False)

    async def on_trio() -> None:
        with trio.fail_after(PATIENCE):
            async with namedtasks.open_task_map(instruments=[]) as tasks:
                command = tree(folder, "children")
                handle = tasks.start_thread_soon("job", page["run_command"], *command)
                while not family_in(folder):
                    await trio.sleep(0.01)
                handle.cancel()
                with pytest.raises(namedtasks.TaskCancelledError):
                    await handle.wait()
                assert_alive(folder, False)

    if other == "asyncio":
        asyncio.run(on_asyncio())
    else:
        trio.run(on_trio)


@linux
def test_children_in_the_background_that_hold_the_output_open(
    dialect: str, page: dict[str, Any], folder: pathlib.Path
) -> None:
    """The run waits for them; a cancellation ends them, except on trio."""
    script = f"sleep 60 & touch {folder}/$!"

    def has_ended_by_itself() -> bool:
        for path in folder.iterdir():
            return not is_alive(os.getsid(int(path.name)))  # the session has the command's number
        return False

    def check() -> None:
        (child,) = (int(path.name) for path in folder.iterdir())
        assert (dialect == "trio") == is_alive(child)

    Case(page, ("sh", "-c", script), has_ended_by_itself, check).cancel(dialect)


def test_the_exit_status_is_the_failure(dialect: str, page: dict[str, Any]) -> None:
    command = ("sh", "-c", "echo oh >&2; exit 3")

    async def on_asyncio() -> object:
        async with namedtasks.asyncio.open_task_map(instruments=[]) as tasks:
            task = tasks.create_task("exit", page["run_command"], *command)
            await asyncio.wait([task])
            return task.exception()

    async def on_trio() -> object:
        async with namedtasks.open_task_map(instruments=[]) as tasks:
            handle = tasks.start_soon("exit", page["run_command"], *command)
            with pytest.raises(namedtasks.TaskFailedError) as failed:
                await handle.wait()
            return failed.value.__cause__

    def in_threads() -> object:
        with namedtasks.ThreadTaskMap(instruments=[]) as tasks:
            return tasks.submit("exit", page["run_command"], *command).exception()

    error: object
    if dialect == "asyncio":
        error = asyncio.run(on_asyncio())
    else:
        error = trio.run(on_trio) if dialect == "trio" else in_threads()
    assert isinstance(error, subprocess.CalledProcessError)
    assert (3, b"oh\n") == (error.returncode, error.stderr)


def test_no_output_is_lost(dialect: str, page: dict[str, Any]) -> None:
    """Neither what does not fit into a pipe, nor what comes while a thread looks around."""
    command = ("sh", "-c", "for i in 1 2 3; do head -c 300000 /dev/zero; sleep 0.1; done")
    printed: list[str] = []

    async def run() -> None:
        printed.append(await page["run_command"](*command))

    if dialect == "asyncio":
        asyncio.run(run())
    elif dialect == "trio":
        trio.run(run)
    else:
        with namedtasks.ThreadTaskMap(instruments=[]) as tasks:
            printed.append(tasks.submit("job", page["run_command"], *command).result())
    assert [900_000] == [len(text) for text in printed]
