"""Worker processes that outlive their broken pool's SIGTERM keep all names, and are killed."""

import math
import multiprocessing
import os
import pathlib
import signal
import sys
import time
from collections.abc import Generator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import Any

import pytest

from namedtasks import State, _executors
from tests.executors.conftest import CURE
from tests.executors.operation import (
    LOOK_EVERY,
    SOON,
    Diary,
    is_alive,
    operate,
    operate_ignoring_sigterm,
)
from tests.executors.worlds import RUNS, World
from tests.threads.helpers import run_child

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

each_dialect = pytest.mark.parametrize("dialect", RUNS)


@pytest.fixture
def pool() -> Generator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    yield pool
    pool.shutdown()


class Two:
    """A run whose worker the test kills, and one in another worker, which ignores SIGTERM."""

    def __init__(self, world: World, folder: pathlib.Path) -> None:
        self.diaries = [Diary(folder, "victim"), Diary(folder, "sibling")]
        self.handles = [
            world.start("victim", operate, str(folder), "victim"),
            world.start("sibling", operate_ignoring_sigterm, str(folder), "sibling"),
        ]
        self.processes: list[int] = []

    async def run(self, world: World) -> None:
        await world.until(lambda: all(diary.running() for diary in self.diaries))
        self.processes = [diary.running()[0] for diary in self.diaries]

    def kill(self, number: int) -> None:
        os.kill(self.processes[number], signal.SIGKILL)

    def are_gone(self) -> bool:
        return not any(is_alive(process) for process in self.processes)


@each_dialect
def test_they_are_killed_and_then_the_runs_end(
    dialect: str, pool: ProcessPoolExecutor, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(world: World) -> None:
        two = Two(world, tmp_path)
        await two.run(world)
        two.kill(0)
        for handle in two.handles:
            assert isinstance(await world.error(handle), BrokenExecutor)
            assert two.are_gone()

    monkeypatch.setattr(_executors, "GRACE", 0.01)
    RUNS[dialect](use, pool, overdue_after=0.0)


@each_dialect
@pytest.mark.parametrize("shut_down", [False, True])
def test_until_they_are_gone_the_runs_are_overdue_and_keep_their_names(
    dialect: str,
    shut_down: bool,
    pool: ProcessPoolExecutor,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also of a pool that was shut down, and has forgotten its processes."""

    async def use(world: World) -> None:
        two = Two(world, tmp_path)
        await two.run(world)
        if shut_down:
            pool.shutdown(wait=False)
        two.kill(0)
        await world.until(lambda: world.tasks.statistics().overdue == 2)
        assert set(world.tasks) == {"victim", "sibling"}
        assert is_alive(two.processes[1])
        two.kill(1)
        for handle in two.handles:
            assert isinstance(await world.error(handle), BrokenExecutor)
        assert world.tasks.statistics().overdue == 0
        assert world.tasks.state("sibling") is State.WAITING

    monkeypatch.setattr(_executors, "GRACE", math.inf)
    RUNS[dialect](use, pool, overdue_after=0.0)


@each_dialect
def test_meanwhile_the_pool_refuses_jobs_at_once(
    dialect: str, pool: ProcessPoolExecutor, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.12 on its own `submit` would hold up the caller, and so a whole loop."""

    async def use(world: World) -> None:
        two = Two(world, tmp_path)
        await two.run(world)
        two.kill(0)
        await world.until(lambda: pool._broken)
        assert isinstance(await world.start_error("other", operate), BrokenExecutor)
        assert is_alive(two.processes[1])
        two.kill(1)

    monkeypatch.setattr(_executors, "GRACE", math.inf)
    RUNS[dialect](use, pool)


@each_dialect
@pytest.mark.skipif(sys.version_info < (3, 14), reason="these methods are new")
@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_workers_that_are_ended_with_their_pool_free_no_name_too_early(
    dialect: str,
    method: str,
    pool: ProcessPoolExecutor,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def use(world: World) -> None:
        two = Two(world, tmp_path)
        await two.run(world)
        getattr(pool, method)()
        for handle in two.handles:
            assert isinstance(await world.error(handle), BrokenExecutor)
            assert two.are_gone()

    monkeypatch.setattr(_executors, "GRACE", 0.01)
    RUNS[dialect](use, pool)


def test_they_are_killed_where_there_are_no_pidfds(
    pool: ProcessPoolExecutor, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example in a sandbox; other systems have no such function."""

    async def use(world: World) -> None:
        two = Two(world, tmp_path)
        await two.run(world)
        two.kill(0)
        for handle in two.handles:
            assert isinstance(await world.error(handle), BrokenExecutor)
        await world.until(two.are_gone)  # a process closes its files before it is gone

    def fail(_: int) -> int:
        raise PermissionError

    monkeypatch.setattr(_executors, "GRACE", 0.01)
    monkeypatch.setattr("os.pidfd_open", fail)
    RUNS["threads"](use, pool)


@pytest.mark.parametrize("pidfds", [True, False])
def test_when_no_thread_can_be_started_they_are_ended_in_the_pools(
    pidfds: bool,
    pool: ProcessPoolExecutor,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It would wait for them for ever. Their names stay taken."""
    ended: list[object] = []
    monkeypatch.setattr(_executors, "GRACE", 0.01)
    if not pidfds:
        monkeypatch.delattr("os.pidfd_open")
    for name, fn in (("victim", operate), ("sibling", operate_ignoring_sigterm)):
        _executors.submit(pool, fn, (str(tmp_path), name), ended.append)
    diaries = [Diary(tmp_path, "victim"), Diary(tmp_path, "sibling")]
    limit = time.monotonic() + SOON
    while not all(diary.running() for diary in diaries):
        assert time.monotonic() < limit
        time.sleep(LOOK_EVERY)
    processes = [diary.running()[0] for diary in diaries]
    monkeypatch.setattr(_executors, "_start_thread", no_thread)
    manager: Any = pool._executor_manager_thread
    os.kill(processes[0], signal.SIGKILL)
    manager.join(SOON)
    assert [is_alive(process) for process in processes] == [False, False]
    assert ended == []
    assert {record.name for record in caplog.records} == {"concurrent.futures"}
    _executors._broken_pools.clear()


def no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


IN_A_PROGRAM = """
    import math
    import os
    import signal
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context
    from namedtasks import ThreadTaskMap, _executors
    from tests.executors.operation import Diary, operate_ignoring_sigterm
    from tests.executors.worlds import RUNS
"""

INHERITED_HANDLER = (
    IN_A_PROGRAM
    + """
    async def use(world):
        print(type(await world.error(world.start("a", os._exit, 1))).__name__)

    _executors.GRACE = 0.01
    signal.signal(signal.SIGTERM, lambda *_: None)
    pool = ProcessPoolExecutor(2, mp_context=get_context("fork"))
    RUNS[{dialect!r}](use, pool)
"""
)


@each_dialect
def test_a_forked_worker_has_inherited_a_handler_for_sigterm(dialect: str) -> None:
    """As `docs/how-to/threads.md` advises to have one. The pool waited for it for ever."""
    child = run_child(INHERITED_HANDLER.format(dialect=dialect))
    assert (child.returncode, child.stdout) == (0, "BrokenProcessPool\n")


AT_EXIT = (
    IN_A_PROGRAM
    + """
    def lose_a_worker(folder):
        Diary(folder, "victim").wait_for_go()
        os._exit(1)

    _executors.GRACE = 0.01
    pool = ProcessPoolExecutor(2, mp_context=get_context("fork"))
    tasks = ThreadTaskMap(executor=pool, instruments=())
    tasks.submit("sibling", operate_ignoring_sigterm, {folder!r}, "sibling")
    tasks.submit("victim", lose_a_worker, {folder!r})
    diary = Diary({folder!r}, "sibling")
    while "start" not in diary.what():
        pass
    threading = __import__("threading")
    threading._register_atexit(Diary({folder!r}, "victim").let_go)
"""
)


def test_the_interpreters_exit_does_not_wait_for_them_for_ever(tmp_path: pathlib.Path) -> None:
    """From Python 3.12 on no thread can be started then."""
    child = run_child(AT_EXIT.format(folder=str(tmp_path)))
    assert child.returncode == 0


LOKY_WITHOUT_HELP = """
    import os
    import warnings
    import loky
    import loky.backend.utils
    from namedtasks import ThreadTaskMap, _executors
    from tests.executors.operation import is_alive, operate_ignoring_sigterm

    def main(folder):
        warnings.simplefilter("ignore")  # loky warns before it crashes
        _executors.GRACE = 0.01
        pool = loky.get_reusable_executor(2)
        pool.submit(int).result()
        loky.backend.utils.psutil = None
        os.environ["PATH"] = folder  # there is no pgrep
        with ThreadTaskMap(executor=pool, instruments=()) as tasks:
            processes = list(pool._processes)
            sibling = tasks.submit("sibling", operate_ignoring_sigterm, folder, "sibling")
            victim = tasks.submit("victim", os._exit, 1)
            for future in (victim, sibling):
                print(type(future.exception()).__name__, [is_alive(each) for each in processes])

    if __name__ == "__main__":
        main({folder!r})
"""


def test_a_manager_thread_that_crashes_frees_no_name_too_early(tmp_path: pathlib.Path) -> None:
    """loky's does so where it finds neither psutil nor pgrep, and leaves a worker alive."""
    pytest.importorskip("loky", reason=CURE)
    child = run_child(LOKY_WITHOUT_HELP.format(folder=str(tmp_path)))
    assert "has no attribute 'kill'" in child.stderr
    assert child.stdout.splitlines() == ["TerminatedWorkerError [False, False]"] * 2
