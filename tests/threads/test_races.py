"""Calls that come while a run ends: each interleaving is forced, not hoped for."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from namedtasks import AlreadyRunningError, Backoff, ClosedError, State, ThreadTaskMap
from namedtasks._core.engine import Engine
from namedtasks.testing import ManualClock
from tests.threads.helpers import HandPool, InThread, boom


class Meddling:
    """A policy that has something done in another thread while it judges."""

    def __init__(self, meddle: Any) -> None:
        self.meddle = meddle
        self.asked: list[int] = []

    def delay(self, failures: int, error: BaseException) -> float | None:
        self.asked.append(failures)
        InThread(self.meddle).result()
        return float(failures)


def test_a_verdict_on_failures_that_were_forgotten_meanwhile_is_asked_for_again() -> None:
    """The wait always belongs to the count on record."""
    clock = ManualClock()
    policy = Meddling(lambda: None)
    with ThreadTaskMap(backoff=policy, clock=clock, instruments=()) as tasks:
        for wait in (1, 2):
            tasks.submit("a", boom).exception()
            clock.advance(wait)
        policy.meddle = lambda: tasks.forget("a")
        tasks.submit("a", boom).exception()
        assert policy.asked == [1, 2, 3, 1]
        failure = tasks.failure("a")
        assert failure is not None
        assert (failure.failures, failure.retry_at) == (1, 4.0)


def test_a_cancel_while_a_failure_is_judged_is_too_late() -> None:
    with ThreadTaskMap(instruments=()) as tasks:
        tasks._shell.engine._policy = Meddling(lambda: tasks.cancel("a"))
        tasks.submit("a", boom).exception()
        assert tasks.state("a") is State.WAITING


def test_a_close_while_a_failure_is_judged_lets_it_end() -> None:
    with ThreadTaskMap(instruments=()) as tasks:
        tasks._shell.engine._policy = Meddling(tasks.close)
        assert isinstance(tasks.submit("a", boom).exception(), ValueError)
        assert len(tasks) == 0
        with pytest.raises(ClosedError):
            tasks.submit("b", int)


def test_a_cancel_that_finds_the_run_ended_says_so() -> None:
    """It found the run by its name; then the run was over."""
    pool = HandPool()
    with ThreadTaskMap(executor=pool) as tasks:
        future = tasks.submit("a", int)
        run = tasks._shell.running_now.get("a")
        assert run is not None
        pool.jobs[0].run()
        assert not tasks._shell.cancel(run, None)
        assert not future.cancel()
        tasks._shell._roll_back(run)
        assert future.result() == 0


def test_a_pools_future_that_ends_after_its_run_was_cancelled_changes_nothing() -> None:
    pool = HandPool()
    with ThreadTaskMap(executor=pool, limit=1) as tasks:
        first = tasks.submit("a", int)
        waits = tasks.submit("b", int)
        run = tasks._shell.running_now.get("b")
        assert run is not None
        assert waits.cancel()
        tasks._shell.places.end_by(run, int, first)
        tasks._shell.places.after_hand_over(run)
        assert waits.cancelled()
        pool.jobs[0].run()


def test_an_end_that_goes_wrong_frees_the_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is broken: the first invariant."""

    def broken(*args: object, **options: object) -> None:
        raise MemoryError

    with ThreadTaskMap(backoff=Backoff()) as tasks:
        monkeypatch.setattr(Engine, "judge", broken)
        future = tasks.submit("a", boom)
        assert isinstance(future.exception(), ValueError)
        assert tasks.state("a") is State.FREE
    assert "the end of task 'a' went wrong" in caplog.text


class Unlucky(ThreadPoolExecutor):
    """Its line takes the job, a thread begins it, and only then the pool cannot grow."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        super().submit(fn, *args, **kwargs)
        begun.wait()
        raise RuntimeError("can't start new thread")


begun = threading.Event()


def test_a_body_that_has_begun_all_the_same_keeps_its_name() -> None:
    """No second body of the name runs beside it."""
    begun.clear()
    going_on = threading.Event()

    def body() -> str:
        begun.set()
        going_on.wait()
        return "done"

    with Unlucky(1) as pool, ThreadTaskMap(executor=pool) as tasks:
        future = tasks.submit("a", body)
        with pytest.raises(AlreadyRunningError):
            tasks.submit("a", body)
        going_on.set()
        assert future.result() == "done"
        assert tasks.state("a") is State.FREE


class Late(ThreadPoolExecutor):
    """Its line takes the job, and a thread comes for it when the submitter has given up."""

    def __init__(self) -> None:
        super().__init__(1)
        self.kept: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.kept.append(lambda: fn(*args, **kwargs))
        raise RuntimeError("can't start new thread")


def test_a_body_whose_start_was_refused_never_begins() -> None:
    with Late() as pool, ThreadTaskMap(executor=pool) as tasks:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            tasks.submit("a", begun.set)
        begun.clear()
        pool.kept[0]()
        assert not begun.is_set()
        assert tasks.state("a") is State.FREE


class FailsOnce:
    fails = False

    def now(self) -> float:
        if self.fails:
            self.fails = False
            raise OSError("no time")
        return 0.0

    def wait(self, wake: threading.Lock, until: float) -> None:
        wake.acquire()


def test_a_clock_that_raises_as_memory_is_given_back_loses_no_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FailsOnce()
    with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        tasks.submit("failed", boom).exception()

        def body() -> str:
            clock.fails = True
            return "done"

        assert tasks.submit("a", body).result() == "done"
    for thread in threading.enumerate():
        if thread.name == "namedtasks":  # let go of at the end of the block
            thread.join()
    assert "the clock of a task map raised" in caplog.text
