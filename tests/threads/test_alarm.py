"""The map's timer when it has no thread, or a clock that fails: nothing that is due is lost."""

import concurrent.futures
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from namedtasks import Backoff, TaskFuture, ThreadTaskMap
from namedtasks._threads import alarm as alarm_module, waits
from namedtasks._threads.clock import MonotonicClock
from namedtasks.testing import ManualClock
from tests.threads.helpers import PATIENCE, Gate, InThread, WatchedClock, boom, reach

TIMER = "namedtasks: the map's timer"


@contextmanager
def no_timer(on_start: Callable[[], object] = lambda: None) -> Generator[None]:
    """No thread can be had for the map's timer; for anything else there are some."""

    def start(thread: threading.Thread, start: Any = threading.Thread.start) -> None:
        if thread.name == TIMER:
            on_start()
            raise RuntimeError("can't start new thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        yield


class LateClock:
    """A clock that stands still until it is told to go."""

    def __init__(self) -> None:
        self._real = MonotonicClock()
        self._began: float | None = None

    def go(self) -> None:
        self._began = self._real.now()

    def now(self) -> float:
        return 0.0 if self._began is None else self._real.now() - self._began

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        self._real.wait(wake, self._real.now() + until - self.now())


def queued(tasks: ThreadTaskMap) -> TaskFuture[str]:
    """A run that sits out the wait of a name that has just failed."""
    assert isinstance(tasks.submit("a", boom).exception(), ValueError)
    return tasks.submit("a", lambda: "began", if_busy="queue")


def soon() -> Backoff:
    return Backoff(initial=0.001, jitter=0)


WAITS: dict[str, Callable[[ThreadTaskMap, TaskFuture[str]], object]] = {
    "wait_idle()": lambda tasks, future: tasks.wait_idle(),
    "wait_empty()": lambda tasks, future: tasks.wait_empty(),
    "wait_free()": lambda tasks, future: tasks.wait_free("a"),
    "result()": lambda tasks, future: future.result(),
    "exception()": lambda tasks, future: future.exception(timeout=PATIENCE),
}


@pytest.mark.parametrize("wait", WAITS)
def test_who_waits_begins_what_is_queued_if_there_is_no_thread_for_it(
    wait: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so; nothing else is different."""
    clock = LateClock()
    tasks = ThreadTaskMap(instruments=(), clock=clock, backoff=soon())
    with no_timer():
        future = queued(tasks)
        clock.go()
        WAITS[wait](tasks, future)
        assert future.result() == "began"
    assert caplog.messages[0] == (
        "no thread can be started for a map's timer: until one can be had, queued runs begin, "
        "and overdue ones are told, only when the map is called"
    )


def open_when_overdue(future: TaskFuture[Any], gate: Gate) -> None:
    while not future.overdue:
        threading.Event().wait(0.0005)
    gate.open()


def test_the_end_of_the_block_begins_it_too() -> None:
    with no_timer(), ThreadTaskMap(instruments=(), overdue_after=0.001) as tasks:
        gate = Gate()
        future = tasks.submit("deaf", gate)
        gate.wait_begun()
        tasks.cancel("deaf")
        tell = threading.Thread(target=open_when_overdue, args=(future, gate))
        tell.start()
    tell.join()


def test_who_sleeps_already_takes_the_timers_place() -> None:
    """It slept for as long as it takes, and learns that now it must look at the time, too."""
    clock = WatchedClock()
    tasks = ThreadTaskMap(instruments=(), clock=clock, backoff=Backoff(initial=1, jitter=0))
    tasks.submit("a", boom).exception()
    may_go = threading.Event()
    running = tasks.submit("b", may_go.wait)
    waiter = InThread(tasks.wait_idle)
    clock.wait_for_sleepers()
    with no_timer():
        future = tasks.submit("a", int, if_busy="queue")
        clock.wait_for_sleepers()  # the same one, woken
        clock.advance(1)
        assert future.result() == 0
    may_go.set()
    assert waiter.result()
    assert running.result()


def test_who_comes_while_a_thread_is_asked_for_in_vain_takes_the_timers_place_too() -> None:
    """There is none until it runs."""
    clock = LateClock()
    tasks = ThreadTaskMap(instruments=(), clock=clock, backoff=soon())
    with no_timer():
        future = queued(tasks)
    clock.go()
    results: list[str] = []
    with no_timer(lambda: results.append(InThread(future.result, PATIENCE).result())):
        # Its thread asks for the timer's before the body begins. result() would not do here: its
        # caller could be faster to do what is due, and then no timer is needed.
        begun = threading.Event()
        tasks.submit("b", begun.set)
        assert begun.wait(PATIENCE)
    assert results == ["began"]


def test_who_waits_for_a_future_in_the_timers_place_sees_what_is_due_earlier_by_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It looks again every second; here sooner."""
    sleeps = threading.Event()

    def watched(*args: Any, wait: Any = concurrent.futures.wait) -> object:
        sleeps.set()
        return wait(*args)

    monkeypatch.setattr(waits, "wait", watched)
    monkeypatch.setattr(waits, "_LONGEST_STAND_IN", 0.001)
    tasks = ThreadTaskMap(
        instruments=(), backoff=Backoff(initial=PATIENCE, jitter=0), overdue_after=0.001
    )
    gate = Gate()
    with no_timer():
        waiter = InThread(queued(tasks).result)
        reach(sleeps)
        deaf = tasks.submit("deaf", gate)
        gate.wait_begun()
        tasks.cancel("deaf")
        open_when_overdue(deaf, gate)
        tasks.cancel("a")
        with pytest.raises(concurrent.futures.CancelledError):
            waiter.result()


def test_a_future_that_waits_for_no_longer_than_asked() -> None:
    """Also if the clock of the map stands still."""
    tasks = ThreadTaskMap(instruments=(), clock=ManualClock(), backoff=soon())
    with no_timer():
        future = queued(tasks)
        with pytest.raises(TimeoutError):
            future.result(timeout=0.01)
    tasks.cancel("a")


def test_a_thread_for_the_timer_is_asked_for_again() -> None:
    """Whatever changes what is due does so."""
    clock = LateClock()
    tasks = ThreadTaskMap(instruments=(), clock=clock, backoff=soon())
    with no_timer():
        future = queued(tasks)
    clock.go()
    tasks.submit("b", int).result()
    assert future.result() == "began"


class BadClock(WatchedClock):
    """One whose `wait` fails in the timer's thread, as long as it is told to."""

    fails = True

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        if self.fails and threading.current_thread().name == TIMER:
            raise OSError("bad clock")
        super().wait(wake, until)


def test_a_clock_that_fails_does_not_end_the_timer_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log says so, those who wait do what is due, and the next call begins it anew."""
    failed = threading.Event()
    complaints: list[tuple[str, BaseException]] = []

    def complain(text: str, error: BaseException) -> None:
        complaints.append((text, error))
        failed.set()

    monkeypatch.setattr(alarm_module, "complain", complain)
    clock = BadClock()
    tasks = ThreadTaskMap(instruments=(), clock=clock, backoff=Backoff(initial=1, jitter=0))
    first = queued(tasks)
    assert failed.wait(PATIENCE)
    (text, error), *_ = complaints
    assert text.startswith("a map's timer has failed: until one can be had, queued runs begin")
    assert isinstance(error, OSError)
    waiter = InThread(tasks.wait_idle)
    clock.wait_for_sleepers()
    clock.advance(1)
    assert waiter.result()
    assert first.result() == "began"

    failed.clear()
    second = queued(tasks)
    assert failed.wait(PATIENCE)
    clock.fails = False
    tasks.submit("b", int).result()
    clock.wait_for_sleepers()
    clock.advance(1)
    assert second.result() == "began"


def call_with_stack(left: int, fn: Callable[[], object]) -> None:
    """Call *fn* where so many frames are left before the stack ends."""
    depth = 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        frame, depth = frame.f_back, depth + 1

    def dig(more: int) -> None:
        if more:
            dig(more - 1)
        else:
            fn()

    dig(sys.getrecursionlimit() - depth - left)


def test_a_timer_whose_start_came_to_the_end_of_the_stack_is_started_later() -> None:
    """Wherever in the start that was."""
    failed = 0
    for left in range(2, 50):
        tasks = ThreadTaskMap(instruments=(), backoff=soon())
        gate = Gate()
        running = tasks.submit("b", gate)
        gate.wait_begun()
        try:
            call_with_stack(left, lambda: tasks.cancel("b"))  # noqa: B023
        except RecursionError:
            failed += 1
        assert queued(tasks).result(PATIENCE) == "began"
        gate.open()
        assert running.result() is None
    assert failed > 3
