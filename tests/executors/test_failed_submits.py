"""A pool whose `submit` raises has queued the job all the same: no name runs twice by that."""

import multiprocessing
import pathlib
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from namedtasks import AlreadyRunningError, State, ThreadTaskMap
from namedtasks._executors import _wake_manager, submit
from tests.executors.operation import LOOK_EVERY, SOON, Diary, operate
from tests.executors.pools import Ends, Gate
from tests.executors.worlds import RUNS, World

each_dialect = pytest.mark.parametrize("dialect", RUNS)

LOGGED = "a pool's submit() raised an error, and the pool runs the job all the same"


class Refusal:
    """The system refuses to start something, once, and until then starts it."""

    def __init__(self, error: Exception, start: Callable[[Any], None]) -> None:
        self.error = error
        self.is_next = False
        self.before: Callable[[], object] = int
        """Called before it refuses."""
        self._start = start

    def start(self, what: Any) -> None:
        if not self.is_next or "namedtasks" in what.name:
            self._start(what)
            return
        self.is_next = False
        self.before()
        raise self.error


def as_method(refusal: Refusal) -> Callable[[Any], None]:
    def start(what: Any) -> None:
        refusal.start(what)

    return start


@pytest.fixture
def thread_refusal(monkeypatch: pytest.MonkeyPatch) -> Refusal:
    refusal = Refusal(RuntimeError("can't start new thread"), threading.Thread.start)
    monkeypatch.setattr(threading.Thread, "start", as_method(refusal))
    return refusal


@pytest.fixture
def process_refusal(monkeypatch: pytest.MonkeyPatch) -> Refusal:
    refusal = Refusal(OSError("no more processes"), BaseProcess.start)
    monkeypatch.setattr(BaseProcess, "start", as_method(refusal))
    return refusal


@pytest.fixture
def processes() -> Generator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def wait_until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < limit
        time.sleep(LOOK_EVERY)


@each_dialect
def test_in_a_pool_of_threads_the_job_is_voided(dialect: str, thread_refusal: Refusal) -> None:
    """Its only thread is busy, and would have run it later."""
    gate, ran = Gate(), list[str]()

    async def use(world: World) -> None:
        first = world.start("first", gate)
        await world.until(gate.running.is_set)
        thread_refusal.is_next = True
        assert await world.start_error("a", ran.append, "voided") is thread_refusal.error
        assert "a" not in world.tasks
        world.tasks.forget("a")
        again = world.start("a", ran.append, "again")
        gate.go.set()
        await world.result(again)
        await world.result(first)

    with ThreadPoolExecutor(2) as pool:
        RUNS[dialect](use, pool)
    assert ran == ["again"]


@each_dialect
def test_a_job_that_has_begun_in_another_thread_keeps_its_name(
    dialect: str, thread_refusal: Refusal, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread got free between the queueing and the refusal. The job is the run's."""
    first_gate, gate = Gate(), Gate()

    def let_it_begin() -> None:
        first_gate.go.set()
        assert gate.running.wait(SOON)

    async def use(world: World) -> None:
        world.start("first", first_gate)
        await world.until(first_gate.running.is_set)
        thread_refusal.before = let_it_begin
        thread_refusal.is_next = True
        handle = world.start("a", gate, "result")
        await world.until(gate.running.is_set)
        assert world.tasks.state("a") is State.RUNNING
        with pytest.raises(AlreadyRunningError):
            world.start("a", print)
        gate.go.set()
        assert await world.result(handle) == "result"

    with ThreadPoolExecutor(2) as pool:
        RUNS[dialect](use, pool)
    assert [record.getMessage() for record in caplog.records] == [LOGGED]


def test_a_queued_start_whose_job_has_begun_keeps_its_name(
    thread_refusal: Refusal, caplog: pytest.LogCaptureFixture
) -> None:
    """As above, for a start that the map submits later."""
    other, first, gate = Gate(), Gate(), Gate()

    def let_it_begin() -> None:
        other.go.set()
        assert gate.running.wait(SOON)

    with ThreadPoolExecutor(3) as pool, ThreadTaskMap(executor=pool) as tasks:
        tasks.submit("other", other)
        tasks.submit("a", first)
        assert other.running.wait(SOON)
        assert first.running.wait(SOON)
        future = tasks.submit("a", gate, "result", if_busy="queue")
        thread_refusal.before = let_it_begin
        thread_refusal.is_next = True
        first.go.set()
        assert gate.running.wait(SOON)
        assert tasks.state("a") is State.RUNNING
        gate.go.set()
        assert future.result(SOON) == "result"
    assert [record.getMessage() for record in caplog.records] == [LOGGED]


def test_a_pool_of_threads_may_raise_when_it_likes() -> None:
    """The job does nothing any more, wherever the pool has put it."""

    class Raising(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            super().submit(fn, *args, **kwargs)
            raise ValueError("boom")

    gate, ran, ends = Gate(), list[int](), Ends()
    with Raising(1) as pool:
        ThreadPoolExecutor.submit(pool, gate)
        with pytest.raises(ValueError, match=r"^boom$"):
            submit(pool, ran.append, (1,), ends)
        gate.go.set()
    assert ran == []
    assert ends.futures == []


@each_dialect
def test_in_a_pool_of_processes_the_job_is_taken_back(
    dialect: str, processes: ProcessPoolExecutor, process_refusal: Refusal, tmp_path: pathlib.Path
) -> None:
    """There is no process yet. The next job starts one, which would run both."""
    diary = Diary(tmp_path, "a")

    async def use(world: World) -> None:
        process_refusal.is_next = True
        error = await world.start_error("a", operate, str(tmp_path), "a")
        assert error is process_refusal.error
        assert "a" not in world.tasks
        world.tasks.forget("a")
        diary.let_go()
        assert await world.result(world.start("a", operate, str(tmp_path), "a")) == "a"

    RUNS[dialect](use, processes)
    processes.shutdown()
    assert diary.what() == ["start", "end"]


@each_dialect
def test_a_job_that_a_process_has_keeps_its_name(
    dialect: str,
    processes: ProcessPoolExecutor,
    process_refusal: Refusal,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The pool's only process got free between the queueing and the refusal."""
    first, diary = Diary(tmp_path, "first"), Diary(tmp_path, "a")

    def let_it_begin() -> None:
        first.let_go()
        wait_until(diary.running)

    async def use(world: World) -> None:
        world.start("first", operate, str(tmp_path), "first")
        await world.until(first.running)
        process_refusal.before = let_it_begin
        process_refusal.is_next = True
        handle = world.start("a", operate, str(tmp_path), "a")
        await world.until(diary.running)
        assert world.tasks.state("a") is State.RUNNING
        with pytest.raises(AlreadyRunningError):
            world.start("a", print)
        diary.let_go()
        assert await world.result(handle) == "a"

    RUNS[dialect](use, processes)
    assert diary.what() == ["start", "end"]
    assert [record.getMessage() for record in caplog.records] == [LOGGED]


@each_dialect
def test_a_pool_whose_manager_thread_cannot_be_started_works_again(
    dialect: str, processes: ProcessPoolExecutor, thread_refusal: Refusal
) -> None:
    """It would take the thread for one that runs, and queue all later jobs for nothing."""

    async def use(world: World) -> None:
        thread_refusal.is_next = True
        assert await world.start_error("a", divmod, 7, 2) is thread_refusal.error
        assert "a" not in world.tasks
        world.tasks.forget("a")
        assert await world.result(world.start("a", divmod, 7, 2)) == (3, 1)

    RUNS[dialect](use, processes)


def test_in_loky_the_job_is_taken_back(
    loky_pool: Callable[[], Executor], process_refusal: Refusal, tmp_path: pathlib.Path
) -> None:
    loky_pool().shutdown()
    pool, ends = loky_pool(), Ends()
    process_refusal.is_next = True
    with pytest.raises(OSError, match=r"^no more processes$"):
        submit(pool, operate, (str(tmp_path), "a"), ends)
    Diary(tmp_path, "a").let_go()
    submit(pool, divmod, (7, 2), ends)
    assert ends.wait().result() == (3, 1)
    pool.shutdown()
    assert Diary(tmp_path, "a").what() == []


def test_a_manager_is_not_woken_while_another_submit_has_the_pools_lock() -> None:
    """That one wakes it, and a broken pool keeps the lock for long."""
    with ProcessPoolExecutor(1) as pool:
        locked: Any = pool
        with locked._shutdown_lock:
            _wake_manager(pool)  # it does not hang
