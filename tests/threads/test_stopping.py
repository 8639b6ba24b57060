"""Asking threads to stop: bodies that listen, and bodies that do not."""

import threading
from typing import Any

import pytest

from namedtasks import State, TaskCancelledError, ThreadTaskMap, current_run
from namedtasks._base import run_due
from namedtasks._threads import backend as backend_module
from namedtasks.abc import Instrument
from namedtasks.instruments import TaskCancelled, TaskFailed, TaskOverdue, TaskSucceeded
from namedtasks.testing import ManualClock, RecordingInstrument
from tests.threads.helpers import PATIENCE, Gate, HandPool, WatchedClock, reach, wait_until


def listens(gate: Gate) -> None:
    gate()
    current_run().check_cancelled()
    raise AssertionError("it was asked to stop")


def test_a_body_that_heeds_a_cancel_ends_as_cancelled() -> None:
    """Its future raises `TaskCancelledError` with the first reason given."""
    heard = RecordingInstrument()
    gate = Gate()
    with ThreadTaskMap(instruments=[heard]) as tasks:
        future = tasks.submit("a", listens, gate)
        gate.wait_begun()
        assert tasks.cancel("a", reason="enough")
        assert tasks.cancel("a", reason="too late to say")
        gate.open()
        with pytest.raises(TaskCancelledError) as caught:
            future.result()
        assert caught.value.reason == "enough"
        assert tasks.state("a") is State.FREE
    assert [event.reason for event in heard.of(TaskCancelled)] == ["enough"]


def test_a_body_that_does_not_listen_succeeds_late() -> None:
    gate = Gate()
    heard = RecordingInstrument()
    with ThreadTaskMap(instruments=[heard]) as tasks:
        future = tasks.submit("a", gate, "late")
        gate.wait_begun()
        assert tasks.cancel("a")
        assert tasks.state("a") is State.RUNNING
        gate.open()
        assert future.result() == "late"
    assert len(heard.of(TaskSucceeded)) == 1


def test_a_body_that_heeds_its_deadline_has_failed() -> None:
    clock = ManualClock()
    gate = Gate()
    with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        future = tasks.submit("a", listens, gate, timeout=2)
        gate.wait_begun()
        clock.advance(2)
        gate.open()
        with pytest.raises(TimeoutError, match=r"^it took longer than its timeout of 2 s$"):
            future.result()
        assert tasks.state("a") is State.WAITING


def test_a_timeout_counts_from_the_first_step() -> None:
    """Not from waiting for a slot."""
    clock = ManualClock()
    first, second = Gate(), Gate()
    with ThreadTaskMap(clock=clock, limit=1) as tasks:
        tasks.submit("first", first)
        future = tasks.submit("a", second, timeout=1)
        clock.advance(10)
        first.open()
        second.wait_begun()
        assert not future.overdue
        run = tasks["a"]
        assert run.started_at == 10
        second.open()


def test_who_does_not_stop_is_overdue_once() -> None:
    """One event, `overdue`, and a count in the statistics until it ends."""
    clock = WatchedClock()
    heard = RecordingInstrument()
    gate = Gate()
    with ThreadTaskMap(clock=clock, instruments=[heard], overdue_after=3) as tasks:
        future = tasks.submit("a", gate, "late", timeout=2)
        gate.wait_begun()
        clock.wait_for_sleepers()  # the timer
        clock.advance(2)
        assert not future.overdue
        clock.advance(3)
        while not heard.of(TaskOverdue):
            pass
        assert future.overdue
        assert tasks.statistics().overdue == 1
        assert tasks.cancel("a"), "that makes it no more overdue than it is"
        clock.advance(100)
        run_due(tasks._backend)
        gate.open()
        assert future.result() == "late"
        assert tasks.statistics().overdue == 0
    (event,) = heard.of(TaskOverdue)
    assert (event.asked_at, event.at, event.duration) == (2, 5, 5)


def test_the_timer_looks_at_who_is_due_first() -> None:
    """Whoever comes later and is due earlier is told first."""
    clock = WatchedClock()
    heard = RecordingInstrument()
    gates = [Gate() for _ in range(3)]
    with ThreadTaskMap(clock=clock, instruments=[heard], overdue_after=0) as tasks:
        tasks.submit("late", gates[0], timeout=9)
        clock.wait_for_sleepers()
        tasks.submit("early", gates[1], timeout=1)
        clock.wait_for_sleepers()
        tasks.submit("later", gates[2], timeout=20)
        for gate in gates:
            gate.wait_begun()
        clock.advance(1)
        clock.wait_for_sleepers()
        assert [event.name for event in heard.of(TaskOverdue)] == ["early"]
        clock.advance(8)
        clock.wait_for_sleepers()
        assert [event.name for event in heard.of(TaskOverdue)] == ["early", "late"]
        for gate in gates:
            gate.open()


def test_the_timer_goes_when_nobody_can_be_overdue_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend_module, "LINGERS", 0.001)
    clock = WatchedClock()
    with ThreadTaskMap(clock=clock) as tasks:
        for _ in range(2):
            gate = Gate()
            future = tasks.submit("a", gate, timeout=9)
            clock.wait_for_sleepers()
            gate.open()
            future.result()
            wait_until(lambda: not tasks._backend._has_timer)


@pytest.mark.parametrize("at_exit", [False, True])
def test_a_map_without_a_timer_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, at_exit: bool
) -> None:
    """If no thread can be started for it, that is logged, and tried again.

    At the interpreter's exit, when the main thread is over, that is as it must be.
    """
    clock = WatchedClock()
    gate = Gate()
    with ThreadTaskMap(clock=clock) as tasks:
        future = tasks.submit("a", gate)
        gate.wait_begun()

        def no_thread(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            patch.setattr(threading.main_thread(), "is_alive", lambda: not at_exit)
            tasks.cancel("a")
        complaint = "no thread can be started for a map's timer"
        assert (complaint in caplog.text) == (not at_exit)
        tasks.cancel("a")
        clock.wait_for_sleepers()
        gate.open()
        future.result()


def test_a_cancel_that_comes_while_a_pool_is_being_given_the_job_reaches_it() -> None:
    """It is too late to be cancelled unseen, and too early to be had from the pool."""
    pool = HandPool()
    answers: list[Any] = []

    def cancel(_: object) -> None:
        answers.append(InThreadCancel(tasks).answers)

    class InThreadCancel:
        def __init__(self, tasks: ThreadTaskMap) -> None:
            self.answers: list[bool] = []
            thread = threading.Thread(target=self.ask, args=(tasks,))
            thread.start()
            thread.join(PATIENCE)

        def ask(self, tasks: ThreadTaskMap) -> None:
            self.answers += [tasks["a"].cancel(), tasks.cancel("a", reason="early")]

    pool.on_submit = cancel
    with ThreadTaskMap(executor=pool) as tasks:
        future = tasks.submit("a", int)
        assert answers == [[False, True]]
        pool.jobs[0].run()
        assert future.result() == 0, "this pool cannot be believed, and the value counts"


def test_a_deadline_that_came_first_makes_a_cancelled_run_a_failure() -> None:
    clock = ManualClock()
    gate = Gate()
    heard = RecordingInstrument()
    with ThreadTaskMap(clock=clock, instruments=[heard]) as tasks:
        future = tasks.submit("a", listens, gate, timeout=1)
        gate.wait_begun()
        clock.advance(1)
        tasks.cancel("a")
        gate.open()
        assert isinstance(future.exception(), TimeoutError)
    assert len(heard.of(TaskFailed)) == 1


def test_somebody_elses_cancellation_is_a_failure() -> None:
    """Only the run's own, when it was asked to stop, is one."""

    def body() -> None:
        raise TaskCancelledError("other", None, None)

    with ThreadTaskMap(instruments=()) as tasks:
        future = tasks.submit("a", body)
        assert isinstance(future.exception(), TaskCancelledError)
        assert tasks.state("a") is State.WAITING


def test_a_body_may_ask_whether_it_should_stop() -> None:
    seen: list[bool] = []
    asked = threading.Event()

    def body() -> str:
        seen.append(current_run().cancel_requested)
        begun.set()
        reach(asked)
        seen.append(current_run().cancel_requested)
        return "tidy"

    begun = threading.Event()
    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", body)
        reach(begun)
        tasks.cancel("a")
        asked.set()
        assert future.result() == "tidy"
    assert seen == [False, True]


class SlowToHear(Instrument):
    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.has_heard = False

    def task_overdue(self, event: TaskOverdue, /) -> None:
        self.began.set()
        self.may_end.wait()
        self.has_heard = True


def test_shutdown_lets_another_thread_tell_what_it_has_begun_to_tell() -> None:
    """A program that ends after it would cut that thread short: it is a daemon."""
    slow = SlowToHear()
    gate = Gate()
    tasks = ThreadTaskMap(instruments=[slow], overdue_after=0.2)
    future = tasks.submit("deaf", gate, timeout=0.0)
    assert slow.began.wait(PATIENCE)
    later = threading.Timer(0.3, slow.may_end.set)
    later.start()
    assert tasks.shutdown(grace=0.0) == ("deaf",)
    assert slow.has_heard
    gate.open()
    future.exception()
    later.join()
