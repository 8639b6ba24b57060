"""The map's timer: its thread is there when it is needed, and a start without one is refused."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from namedtasks import Backoff, State, TaskFuture, ThreadTaskMap
from namedtasks._thread_pool import MonotonicClock
from namedtasks._threads import backend as backend_module
from namedtasks.testing import ManualClock
from tests.threads.helpers import PATIENCE, Gate, WatchedClock, boom, wait_until

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


def timers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == TIMER}


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


@pytest.mark.parametrize("options", [{"timeout": 9}, {"if_busy": "queue"}])
def test_a_start_that_needs_a_timer_is_refused_without_one(options: Any) -> None:
    """Nothing was started then, and the next start tries again."""
    with ThreadTaskMap(instruments=()) as tasks:
        with no_timer(), pytest.raises(RuntimeError, match=r"^can't start new thread$"):
            tasks.submit("a", int, **options)
        assert tasks.check("a") is None
        future = tasks.submit("a", int, **options)
        assert future is not None
        assert future.result() == 0


def test_a_start_that_needs_no_timer_needs_no_thread_for_it() -> None:
    with no_timer(), ThreadTaskMap(instruments=()) as tasks:
        assert tasks.submit("a", int, if_busy="replace").result() == 0
        assert isinstance(tasks.submit("b", boom).exception(), ValueError)


WAITS: dict[str, Callable[[ThreadTaskMap, TaskFuture[str]], object]] = {
    "wait_idle()": lambda tasks, future: tasks.wait_idle(),
    "wait_empty()": lambda tasks, future: tasks.wait_empty(),
    "wait_free()": lambda tasks, future: tasks.wait_free("a"),
    "result()": lambda tasks, future: future.result(),
    "exception()": lambda tasks, future: future.exception(timeout=PATIENCE),
}


@pytest.mark.parametrize("wait", WAITS)
def test_the_timer_begins_what_is_queued(wait: str) -> None:
    clock = LateClock()
    tasks = ThreadTaskMap(instruments=(), clock=clock, backoff=soon())
    future = queued(tasks)
    clock.go()
    WAITS[wait](tasks, future)
    assert future.result() == "began"
    tasks.shutdown()


def test_a_thread_for_the_timer_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled run can be overdue: if no thread is to be had then, the next call tries again."""
    clock = WatchedClock()
    gate = Gate()
    with ThreadTaskMap(instruments=(), clock=clock, overdue_after=1) as tasks:
        future = tasks.submit("deaf", gate)
        gate.wait_begun()
        with no_timer():
            tasks.cancel("deaf")
        assert "no thread can be started for a map's timer" in caplog.text
        tasks.submit("b", int).result()
        clock.wait_for_sleepers()
        clock.advance(1)
        wait_until(lambda: future.overdue)
        gate.open()


def test_a_future_is_waited_for_no_longer_than_asked() -> None:
    """Also if the clock of the map stands still."""
    tasks = ThreadTaskMap(instruments=(), clock=ManualClock(), backoff=soon())
    future = queued(tasks)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)
    tasks.cancel("a")
    tasks.shutdown()


def test_one_timer_serves_many_runs() -> None:
    """Its thread stays for a while, and goes with the map."""
    before = timers()
    with ThreadTaskMap(instruments=()) as tasks:
        for number in range(20):
            assert tasks.submit("a", str, number, timeout=9).result() == str(number)
        assert len(timers() - before) == 1
    wait_until(lambda: not timers() - before)


def test_a_timer_that_leaves_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "LINGERS", 0.0)
    tasks = ThreadTaskMap(instruments=(), backoff=soon())
    for _ in range(20):
        assert queued(tasks).result(PATIENCE) == "began"
        assert tasks.state("a") is State.FREE
    wait_until(lambda: not tasks._backend._has_timer)


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
    """The failure is logged, and the next change of a timer starts it again."""
    failed = threading.Event()
    logged: list[tuple[str, BaseException]] = []

    def log_error(text: str, error: BaseException) -> None:
        logged.append((text, error))
        failed.set()

    monkeypatch.setattr(backend_module, "log_error", log_error)
    clock = BadClock()
    tasks = ThreadTaskMap(instruments=(), clock=clock, backoff=Backoff(initial=1, jitter=0))
    first = queued(tasks)
    assert failed.wait(PATIENCE)
    (text, error), *_ = logged
    assert text == "a map's timer has failed; the next change of a timer starts it again"
    assert isinstance(error, OSError)
    clock.fails = False
    second = tasks.submit("b", int, timeout=5)
    assert second.result() == 0
    clock.wait_for_sleepers()
    clock.advance(1)
    assert first.result(PATIENCE) == "began"
    tasks.shutdown()
