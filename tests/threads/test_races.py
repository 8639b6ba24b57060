"""Calls that come while a run ends: each interleaving is forced, not hoped for."""

import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from typing import Any

import pytest

from namedtasks import AlreadyRunningError, ClosedError, State, ThreadTaskMap
from namedtasks._base import cancel_run
from namedtasks.abc import FailedRun
from namedtasks.testing import ManualClock
from tests.threads.helpers import PATIENCE, HandPool, InThread, boom


class Meddling:
    """A policy that has something done in another thread while it judges."""

    def __init__(self, meddle: Any) -> None:
        self.meddle = meddle
        self.asked: list[int] = []

    def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float | None:
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
        tasks._backend.scheduler._policy = Meddling(lambda: tasks.cancel("a"))
        tasks.submit("a", boom).exception()
        assert tasks.state("a") is State.WAITING


def test_a_close_while_a_failure_is_judged_lets_it_end() -> None:
    with ThreadTaskMap(instruments=()) as tasks:
        tasks._backend.scheduler._policy = Meddling(tasks.close)
        assert isinstance(tasks.submit("a", boom).exception(), ValueError)
        assert len(tasks) == 0
        with pytest.raises(ClosedError):
            tasks.submit("b", int)


def test_a_cancel_that_finds_the_run_ended_says_so() -> None:
    """It found the run by its name; then the run was over."""
    pool = HandPool()
    with ThreadTaskMap(executor=pool) as tasks:
        future = tasks.submit("a", int)
        run = tasks._backend.scheduler.running.get("a")
        assert run is not None
        pool.jobs[0].run()
        assert not cancel_run(tasks._backend, run, None)
        assert not future.cancel()
        assert future.result() == 0


def test_a_pools_future_that_ends_after_its_run_was_cancelled_changes_nothing() -> None:
    pool = HandPool()
    with ThreadTaskMap(executor=pool, limit=1) as tasks:
        first = tasks.submit("a", int)
        waits = tasks.submit("b", int)
        run = tasks._backend.scheduler.running.get("b")
        assert run is not None
        assert waits.cancel()
        tasks._backend._end_by(run, 0, int, first)
        assert waits.cancelled()
        pool.jobs[0].run()


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


@pytest.fixture
def tiny_switch_interval() -> Generator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("tiny_switch_interval")
@pytest.mark.timeout(120)
def test_waiting_for_many_futures_neither_hangs_nor_returns_early() -> None:
    """`concurrent.futures` looks at the state of a future twice, while runs end."""
    with ThreadTaskMap(instruments=()) as tasks:
        for number in range(3_000):
            futures = [tasks.submit((number, one), str, one) for one in range(3)]
            if number % 3 == 0:
                futures[1].cancel()
            if number % 2:
                done, not_done = wait(futures, PATIENCE)
                assert (len(done), len(not_done)) == (3, 0)
            else:
                assert set(as_completed(futures, PATIENCE)) == set(futures)
            assert all(future.done() for future in futures)
            assert futures[0].result(0) == "0"
            assert futures[2].result(0) == "2"


@pytest.mark.usefixtures("tiny_switch_interval")
@pytest.mark.timeout(120)
def test_callbacks_and_results_of_futures_that_just_end_are_not_lost() -> None:
    with ThreadTaskMap(instruments=()) as tasks:
        for number in range(1_000):
            called = threading.Event()
            future = tasks.submit("a", str, number)
            joined = tasks.submit("a", str, number, if_busy="join")
            future.add_done_callback(lambda _: called.set())  # noqa: B023
            assert joined.result(PATIENCE) == str(number)
            assert future.result(PATIENCE) == str(number)
            assert called.wait(PATIENCE)
            assert tasks.wait_free("a", PATIENCE)


def test_a_retried_run_that_is_cancelled_as_its_turn_comes_never_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has its slot, and is to begin outside the lock: a cancellation may come in between."""
    gate = threading.Event()
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", gate.wait, PATIENCE)
        in_line = tasks.submit("a", boom, retry=True)
        backend = tasks._backend
        spawn = backend.spawn

        def spawn_late(run: Any) -> BaseException | None:
            assert InThread(in_line.cancel).result()
            return spawn(run)

        monkeypatch.setattr(backend, "spawn", spawn_late)
        gate.set()
        assert wait([in_line], PATIENCE).done == {in_line}
        assert tasks.wait_idle(PATIENCE)
        monkeypatch.undo()
        assert tasks.submit("b", str, "the slot is free").result(PATIENCE) == "the slot is free"
        assert in_line.cancelled()
