"""The map's own threads."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import namedtasks.asyncio
from namedtasks import State, ThreadTaskMap, _thread_pool as pool_module
from namedtasks._thread_pool import Job, ThreadPool
from namedtasks.testing import ManualClock
from tests.threads.helpers import Gate, HandPool, reach


def unexpected(error: BaseException) -> None:
    raise AssertionError from error


def job(run: Callable[[], object]) -> Job:
    return Job(run, unexpected)


def somebody(pool: ThreadPool) -> Any:
    """Who is on the way there, as far as the pool knows."""
    return pool_module._Worker(pool)


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(60_000):
        if condition():
            return
        threading.Event().wait(0.0005)
    raise AssertionError("it never came about")


def test_a_thread_that_rests_takes_the_next_job() -> None:
    pool = ThreadPool("test")
    idents: list[int] = []
    for _ in range(3):
        pool.submit(job(lambda: idents.append(threading.get_ident())))
        wait_for(lambda: pool._idle and not pool._jobs)
    wait_for(lambda: len(idents) == 3)
    pool.close()
    assert len(set(idents)) == 1


def test_a_thread_that_has_rested_for_long_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_LINGERS", 0.0)
    pool = ThreadPool("test")
    threads: list[threading.Thread] = []
    pool.submit(job(lambda: threads.append(threading.current_thread())))
    wait_for(lambda: threads)
    threads[0].join(60)
    assert not threads[0].is_alive()
    assert not pool._idle


@pytest.mark.parametrize("closed", [False, True])
def test_a_thread_called_at_the_very_end_of_its_rest_comes(
    monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    """It has waited long enough, and somebody has just chosen it."""
    monkeypatch.setattr(pool_module, "_LINGERS", 0.0)
    done = threading.Event()

    class Idle(dict[Any, None]):
        def __delitem__(self, worker: Any) -> None:
            if not done.is_set():
                pool._closed = closed
                pool._jobs.append(job(done.set))
                pool._called[worker] = None
                worker.wake.release()
                raise KeyError(worker)
            super().__delitem__(worker)

    pool = ThreadPool("test")
    pool._idle = Idle()
    pool.submit(job(lambda: None))
    reach(done)


def test_a_burst_of_short_jobs_needs_few_threads_and_keeps_its_order() -> None:
    pool = ThreadPool("test")
    done: list[int] = []
    gate = threading.Event()
    pool.submit(job(lambda: reach(gate)))
    for number in range(500):
        pool.submit(job(partial(done.append, number)))
    wait_for(lambda: len(done) == 500)
    gate.set()
    assert sorted(done) == list(range(500))
    wait_for(lambda: not pool._called)
    assert len(pool._idle) < 100
    pool.close()


def test_no_job_waits_for_another_one_to_end() -> None:
    """All of them meet at a barrier, which opens only when all have begun."""
    pool = ThreadPool("test")
    barrier = threading.Barrier(101)
    for _ in range(100):
        pool.submit(job(lambda: barrier.wait(60)))
    barrier.wait(60)
    pool.close()


class Starter:
    """Starts threads as long as there are some."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self, thread: threading.Thread) -> None:
        if not self.left:
            raise RuntimeError("can't start new thread")
        self.left -= 1
        thread.start()


def test_who_submits_is_told_that_there_is_no_thread() -> None:
    pool = ThreadPool("test", Starter(0))
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.submit(job(lambda: None))
    assert not pool._jobs
    assert not pool._called


def test_and_so_are_those_who_have_counted_on_that_thread() -> None:
    refused: list[BaseException] = []

    def no_thread(thread: threading.Thread) -> None:
        pool.submit(Job(lambda: None, refused.append))  # in another thread, say
        raise RuntimeError("can't start new thread")

    pool = ThreadPool("test", no_thread)
    with pytest.raises(RuntimeError) as raised:
        pool.submit(job(lambda: None))
    assert refused == [raised.value]
    assert not pool._jobs


def test_a_job_that_somebody_runs_meanwhile_is_not_refused() -> None:
    ran: list[str] = []

    def no_thread(thread: threading.Thread) -> None:
        taken = pool.take()
        assert taken is not None
        taken.run()
        raise RuntimeError("can't start new thread")

    pool = ThreadPool("test", no_thread)
    pool.submit(job(lambda: ran.append("it")))
    assert ran == ["it"]


def test_jobs_are_not_refused_while_another_thread_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two have called at once, and only one of them has got a thread."""
    threads: list[threading.Thread] = []
    done = threading.Event()

    def one_thread(thread: threading.Thread) -> None:
        if threads:
            raise RuntimeError("can't start new thread")
        threads.append(thread)

    def call_at_once(pool: ThreadPool, call_one: Any = ThreadPool._call_one) -> None:
        monkeypatch.setattr(ThreadPool, "_call_one", call_one)
        pool.submit(job(done.set))  # in another thread, say
        call_one(pool)

    pool = ThreadPool("test", one_thread)
    monkeypatch.setattr(ThreadPool, "_call_one", call_at_once)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.submit(job(lambda: None))
    threads[0].start()
    reach(done)
    pool.close()


def test_jobs_in_line_behind_one_that_takes_long_are_refused_if_there_is_no_thread() -> None:
    refused: list[BaseException] = []
    began, gate = threading.Event(), threading.Event()
    pool = ThreadPool("test", Starter(1))

    def first() -> None:
        began.set()
        reach(gate)

    pool._jobs += [Job(first, unexpected), Job(lambda: None, refused.append)]
    pool.call_another()
    reach(began)
    assert [str(error) for error in refused] == ["can't start new thread"]
    gate.set()
    pool.close()


def test_a_run_that_no_thread_can_be_had_for_fails_in_the_map() -> None:
    """Its submitter has counted on a thread that somebody else was about to start."""
    with ThreadTaskMap(instruments=()) as tasks:
        shell: Any = tasks._shell
        pool = shell.places._own_threads
        pool._called[somebody(pool)] = None
        future = tasks.submit("a", int)
        pool._start = Starter(0)
        pool._called.clear()
        pool.call_another()
        assert isinstance(future.exception(), RuntimeError)
        assert tasks.state("a") is State.WAITING


def test_one_that_was_cancelled_meanwhile_does_not() -> None:
    with ThreadTaskMap(instruments=()) as tasks:
        shell: Any = tasks._shell
        pool = shell.places._own_threads
        pool._called[somebody(pool)] = None
        future = tasks.submit("a", int)
        assert future.cancel()
        pool._start = Starter(0)
        pool._called.clear()
        pool.call_another()
        assert future.cancelled()
        assert tasks.state("a") is State.FREE


def test_nor_does_a_thread_that_asyncio_has_counted_on() -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(instruments=()) as tasks:
            shell: Any = tasks._shell
            pool = shell.threads
            pool._called[somebody(pool)] = None
            task = tasks.run_in_executor("a", int)
            await asyncio.sleep(0)
            pool._start = Starter(0)
            pool._called.clear()
            pool.call_another()
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await task

    asyncio.run(main())


class Fickle:
    """A name that cannot be hashed the *at*-th time."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __hash__(self) -> int:
        self.left -= 1
        if self.left == 0:
            raise ValueError("not now")
        return 1


def test_a_name_whose_hash_fails_once_is_freed_all_the_same() -> None:
    refused = 0
    for at in range(1, 12):
        with ThreadTaskMap(instruments=()) as tasks:
            try:
                tasks.submit(Fickle(at), int)
            except ValueError:
                refused += 1
                continue
        assert len(tasks) == 0
    assert refused > 0


def test_the_timer_is_not_started_while_the_thread_is_inside_of_somebodys_pool() -> None:
    """To start a thread takes locks that this thread may hold: it is done a moment later."""
    pool, gate, clock = HandPool(), Gate(), ManualClock()
    with ThreadTaskMap(instruments=(), clock=clock, overdue_after=1.0) as tasks:
        future = tasks.submit("deaf", gate)
        gate.wait_begun()

        def cancel_and_run(job: Any) -> None:
            tasks.cancel("deaf")
            job.run()

        pool.on_submit = cancel_and_run
        tasks.submit("a", int, executor=pool)
        clock.advance(1.0)
        while not future.overdue:
            threading.Event().wait(0.0005)
        gate.open()


def test_a_run_with_a_timeout_keeps_the_timer_when_another_ends() -> None:
    gate = Gate()
    with ThreadTaskMap(instruments=()) as tasks:
        future = tasks.submit("slow", gate, "in time", timeout=1000)
        gate.wait_begun()
        assert tasks.submit("a", int).result() == 0
        gate.open()
        assert future.result() == "in time"


def test_a_manual_clock_tells_its_time() -> None:
    clock = ManualClock(2.5)
    assert repr(clock) == "<namedtasks.testing.ManualClock 2.5 s, 0 wait>"
