"""The waits: when they come back, whom they wake, and which are refused."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from namedtasks import Backoff, ClosedError, GaveUpError, State, ThreadTaskMap
from namedtasks.abc import FailedRun
from namedtasks.instruments import Instrument, TaskSucceeded
from tests.threads.helpers import PATIENCE, Gate, HandPool, InThread, WatchedClock, boom, reach


def test_a_wait_for_what_is_so_comes_back_at_once() -> None:
    with ThreadTaskMap() as tasks:
        assert tasks.wait_idle()
        assert tasks.wait_empty()
        assert tasks.wait_free("a")
        assert tasks.wait_idle(0)


def test_every_waiter_wakes() -> None:
    """For the run, for the whole map, for the name: one end wakes them all."""
    clock = WatchedClock()
    gate = Gate()
    with ThreadTaskMap(clock=clock) as tasks:
        tasks.submit("a", gate)
        calls = [tasks.wait_idle, tasks.wait_empty, lambda: tasks.wait_free("a")] * 3
        waiters = [InThread(call) for call in calls]
        clock.wait_for_sleepers(len(waiters))
        gate.open()
        assert all(waiter.result() for waiter in waiters)


def test_a_wait_that_takes_too_long_says_so() -> None:
    clock = WatchedClock()
    gate = Gate()
    with ThreadTaskMap(clock=clock) as tasks:
        tasks.submit("a", gate)
        assert not tasks.wait_idle(0)
        waiters = [
            InThread(tasks.wait_idle, 5),
            InThread(tasks.wait_empty, 5),
            InThread(tasks.wait_free, "a", 5),
        ]
        clock.wait_for_sleepers(3)
        clock.advance(5)
        assert [waiter.result() for waiter in waiters] == [False] * 3
        gate.open()


def test_wait_empty_waits_for_failures_to_lapse() -> None:
    clock = WatchedClock()
    with ThreadTaskMap(
        clock=clock, instruments=(), backoff=Backoff(initial=1), retention=2
    ) as tasks:
        tasks.submit("a", boom).exception()
        assert tasks.wait_idle()
        waiter = InThread(tasks.wait_empty)
        clock.wait_for_sleepers()
        clock.advance(1)
        assert tasks.state("a") is State.READY
        clock.advance(2)
        assert waiter.result()
        assert tasks.statistics().waiting == 0


def test_wait_empty_ends_when_a_failure_is_forgotten() -> None:
    clock = WatchedClock()
    with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        tasks.submit("a", boom).exception()
        waiter = InThread(tasks.wait_empty)
        clock.wait_for_sleepers()
        assert tasks.forget("a")
        assert waiter.result()


def test_wait_empty_sweeps_any_number_of_failures() -> None:
    """Some at a time, so that it holds nobody up."""
    clock = WatchedClock()
    with ThreadTaskMap(
        clock=clock, instruments=(), backoff=Backoff(initial=1), retention=0
    ) as tasks:
        for number in range(2_500):
            tasks.submit(number, boom).exception()
        clock.advance(5)
        assert tasks.wait_empty()


def test_wait_free_ends_with_the_names_wait_also_if_told_early() -> None:
    clock = WatchedClock()
    with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        tasks.submit("a", boom).exception()
        tasks.submit("b", boom).exception()
        waiters = [InThread(tasks.wait_free, "a") for _ in range(3)]
        forgotten = InThread(tasks.wait_free, "b")
        clock.wait_for_sleepers(4)
        assert tasks.forget("b")
        assert forgotten.result()
        clock.advance(0.5)
        assert all(waiter.result() for waiter in waiters)
        assert tasks._backend.waits.starters == {}, "the lots are gone"


def test_wait_free_waits_for_exactly_one_operation() -> None:
    clock = WatchedClock()
    with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        tasks.submit("a", boom, operation="attach").exception()
        assert tasks.wait_free("a", operation="detach")
        assert not tasks.wait_free("a", 0, operation="attach")
        assert tasks._backend.waits.starters == {}


def test_wait_free_tells_of_a_name_that_was_given_up_meanwhile() -> None:
    clock = WatchedClock()
    gate = Gate()
    with ThreadTaskMap(clock=clock, instruments=(), backoff=Backoff(give_up_after=1)) as tasks:
        tasks.submit("a", gate, ValueError())
        waiter = InThread(tasks.wait_free, "a")
        clock.wait_for_sleepers()
        gate.open()
        with pytest.raises(GaveUpError):
            waiter.result()


def test_close_wakes_who_waits_to_start_something() -> None:
    clock = WatchedClock()
    gate = Gate()
    with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        tasks.submit("fails", boom).exception()
        tasks.submit("runs", gate)
        waiters = [InThread(tasks.wait_free, name) for name in ("fails", "runs")]
        clock.wait_for_sleepers(2)
        tasks.close()
        for waiter in waiters:
            with pytest.raises(ClosedError):
                waiter.result()
        assert tasks._backend.waits.starters == {}
        gate.open()


def test_a_wait_whose_clock_raises_leaves_nothing() -> None:
    class Stopped(Exception):
        pass

    class BrokenClock(WatchedClock):
        def wait(self, wake: threading.Lock, until: float, /) -> None:
            raise Stopped

    with ThreadTaskMap(clock=BrokenClock(), instruments=()) as tasks:
        tasks.submit("a", boom).exception()
        with pytest.raises(Stopped):
            tasks.wait_free("a")
        with pytest.raises(Stopped):
            tasks.wait_empty()
        assert tasks._backend.waits.starters == {}
        assert len(tasks._backend.waits.idle) == 0


MAP_WAITS: dict[str, Callable[[ThreadTaskMap], object]] = {
    "wait_idle()": lambda tasks: tasks.wait_idle(),
    "wait_empty()": lambda tasks: tasks.wait_empty(0),
    "shutdown()": lambda tasks: tasks.shutdown(),
    "the end of the map's block": lambda tasks: tasks.__exit__(None, None, None),
}


def refused(what: str, tasks: ThreadTaskMap) -> None:
    with pytest.raises(RuntimeError) as caught:
        MAP_WAITS[what](tasks)
    assert str(caught.value) == (
        f"inside a task of the same map, {what} would wait for the task itself: "
        "call it outside the tasks of the map, or wait for single runs"
    )


@pytest.mark.parametrize("what", MAP_WAITS)
def test_a_task_cannot_wait_for_its_map(what: str) -> None:
    with ThreadTaskMap() as tasks:
        tasks.submit("a", refused, what, tasks).result()
        with ThreadPoolExecutor(1) as pool:
            tasks.submit("a", refused, what, tasks, executor=pool).result()
        assert tasks.submit("still open", int).result() == 0


def refused_block(tasks: ThreadTaskMap) -> None:
    for call in (tasks.__enter__, lambda: tasks.__exit__(None, None, None)):
        with pytest.raises(
            RuntimeError,
            match=r"^inside a callback of a future, or an instrument, of the same map, the end of "
            r"the map's block would wait for that call itself: leave the block elsewhere$",
        ):
            call()


def test_a_callback_cannot_have_a_block_of_its_map() -> None:
    """The end of the block waits until all callbacks are done."""
    seen: list[str] = []
    refused = threading.Event()

    def callback(_: Future[Any]) -> None:
        refused_block(tasks)
        with ThreadTaskMap() as other:
            seen.append(other.submit("a", str, "told").result())
        refused.set()

    gate = Gate()
    tasks = ThreadTaskMap()
    tasks.submit("a", gate).add_done_callback(callback)
    gate.open()
    reach(refused)
    with tasks:  # outside it is welcome
        pass
    assert seen == ["told"]


def test_a_callback_in_a_callback_leaves_the_outer_one_refused() -> None:
    seen: list[str] = []
    refused = threading.Event()

    def callback(_: Future[Any]) -> None:
        tasks.submit("b", inner)
        queued = tasks.submit("b", int, if_busy="queue")
        queued.add_done_callback(lambda _: seen.append("inner"))
        assert queued.cancel()
        refused_block(tasks)
        seen.append("outer")
        inner.open()
        refused.set()

    gate, inner = Gate(), Gate()
    tasks = ThreadTaskMap()
    tasks.submit("a", gate).add_done_callback(callback)
    gate.open()
    reach(refused)
    assert seen == ["inner", "outer"]


def test_an_instrument_cannot_have_a_block_of_its_map() -> None:
    """The end of the block waits until all instruments have heard."""
    refused = threading.Event()

    class Opens(Instrument):
        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            refused_block(tasks)
            refused.set()

    tasks = ThreadTaskMap(instruments=[Opens()])
    tasks.submit("a", int)
    reach(refused)


def test_a_task_cannot_wait_for_its_own_name() -> None:
    def body() -> None:
        with pytest.raises(
            RuntimeError,
            match=r"^inside task 'a', wait_free\(\) would wait for the task itself: "
            r"call it outside the task$",
        ):
            tasks.wait_free("a")
        assert tasks.wait_free("b")

    with ThreadTaskMap() as tasks:
        tasks.submit("a", body).result()


class InPlace(ThreadPoolExecutor):
    """A pool of threads without threads."""

    def submit(self, fn: Any, /, *args: Any, **options: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **options))
        return future


def test_a_task_inside_of_another_maps_task_waits_for_neither() -> None:
    """A pool may run a body in place, in the thread of another one."""

    def outer_body() -> None:
        inner.submit("b", inner_body, executor=InPlace()).result()

    def inner_body() -> None:
        refused("wait_idle()", inner)
        refused("wait_idle()", outer)
        assert unrelated.wait_idle()

    with ThreadTaskMap() as outer, ThreadTaskMap() as inner, ThreadTaskMap() as unrelated:
        outer.submit("a", outer_body).result()


def test_a_policy_or_an_instrument_cannot_wait_for_the_run_that_it_is_asked_about() -> None:
    """The run has its name still; who is called after its end may wait."""
    asked: list[str] = []

    class Policy:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> None:
            refused("wait_idle()", tasks)
            asked.append("policy")

    def callback(_: object) -> None:
        assert tasks.wait_idle(PATIENCE)
        asked.append("callback")

    pool = HandPool()
    with ThreadTaskMap(backoff=Policy(), instruments=()) as tasks:
        gate = Gate()
        future = tasks.submit("a", gate, ValueError())
        future.add_done_callback(callback)
        gate.open()
        future.exception()
        assert tasks.wait_idle()
        tasks.submit("a", boom, executor=pool)
        pool.jobs[0].run()
    assert asked == ["policy", "callback", "policy"]


def test_shutdown_waits_then_asks_then_tells_who_would_not_stop() -> None:
    clock = WatchedClock()
    gate = Gate()
    with ThreadTaskMap(clock=clock, overdue_after=2) as tasks:
        future = tasks.submit("a", gate)
        gate.wait_begun()
        end = InThread(tasks.shutdown, grace=1)
        clock.wait_for_sleepers()
        clock.advance(1)
        clock.wait_for_sleepers(2)  # the timer, too
        clock.advance(2)
        assert end.result() == ("a",)
        assert future.overdue
        assert tasks.statistics().overdue == 1
        gate.open()
        assert future.result() is None
        assert tasks.shutdown(grace=0) == ()


def test_shutdown_comes_back_when_what_was_asked_stops() -> None:
    clock = WatchedClock()
    first = Gate()
    with ThreadTaskMap(clock=clock, limit=1) as tasks:
        tasks.submit("a", first)
        waits = tasks.submit("b", int)
        end = InThread(tasks.shutdown, grace=0)
        clock.wait_for_sleepers()
        assert waits.cancelled()
        first.open()
        assert end.result() == ()
