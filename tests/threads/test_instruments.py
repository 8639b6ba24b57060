"""Instruments in threads: what they may do, and what they cannot do to others."""

import gc
import threading
import weakref
from typing import Any

import pytest

from namedtasks import State, ThreadTaskMap
from namedtasks._base import run_due
from namedtasks.abc import AnyTaskMap
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskOverdue,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
)
from namedtasks.testing import ManualClock, RecordingInstrument
from tests.threads.helpers import PATIENCE, Gate, HandPool, InThread, boom, reach, wait_until


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyboardInterrupt()])
def test_an_instrument_that_raises_is_unplugged_and_the_map_goes_on(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            raise error

        def __repr__(self) -> str:
            return "Broken"

    heard = RecordingInstrument()
    with ThreadTaskMap(instruments=[Broken(), heard]) as tasks:
        assert tasks.submit("a", int).result() == 0
        assert tasks.submit("a", int).result() == 0
    assert caplog.text.count("instrument Broken raised in task_started() and was unplugged") == 1
    kinds: list[type[TaskEvent]] = [TaskStarted, TaskSucceeded]
    assert [type(event) for event in heard.events] == kinds * 2


def test_two_instruments_that_break_at_once_are_both_unplugged() -> None:
    """Whichever thread finds out first."""
    calls: list[str] = []

    class Broken(Instrument):
        def __init__(self, name: str) -> None:
            self.name = name

        def task_started(self, event: TaskStarted, /) -> None:
            if event.name != self.name:
                return
            calls.append(self.name)
            raise ValueError(self.name)

    a, b = Broken("a"), Broken("b")
    with ThreadTaskMap(instruments=[a, b]) as tasks:
        for future in [tasks.submit(name, int) for name in "ab"]:
            future.result()
        for future in [tasks.submit(name, int) for name in "ab"]:
            future.result()
    assert sorted(calls) == ["a", "b"]


def test_an_instrument_may_call_the_map() -> None:
    """Start, cancel and forget, of the very name that it hears of."""
    started: list[Any] = []
    failure_was_told = threading.Event()

    class Caller(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            # The event may be late: this thread delivers those of the name in their order.
            assert tasks.state(event.name) in (State.RUNNING, State.FREE, State.WAITING)
            if event.name == "holds the slot":
                assert tasks.submit(event.name, int, if_busy="skip") is None

        def task_failed(self, event: TaskFailed, /) -> None:
            assert tasks.forget(event.name)
            started.append(tasks.submit(event.name, int))
            failure_was_told.set()

        def task_refused(self, event: TaskRefused, /) -> None:
            if event.name == "waits" and len(started) == 1:
                started.append(tasks.submit("after a refusal", int))

        def task_cancelled(self, event: TaskCancelled, /) -> None:
            started.append(tasks.submit(event.name, int))

    gate = Gate()
    heard = RecordingInstrument()
    with ThreadTaskMap(limit=1, instruments=[Caller(), heard]) as tasks:
        tasks.submit("fails", boom)
        reach(failure_was_told)
        tasks.wait_idle()
        tasks.submit("holds the slot", gate)
        tasks.submit("waits", int)
        assert tasks.submit("waits", int, if_busy="skip") is None
        assert tasks["waits"].cancel()
        gate.open()
    assert [future.name for future in started] == ["fails", "after a refusal", "waits"]
    assert [future.result() for future in started] == [0, 0, 0]


def test_a_slow_instrument_holds_up_only_its_own_caller() -> None:
    """Others start and end meanwhile."""

    class Slow(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            if event.name == "slow":
                hears.set()
                reach(may_go)

    hears, may_go = threading.Event(), threading.Event()
    with ThreadTaskMap(instruments=[Slow()]) as tasks:
        slow = tasks.submit("slow", int)
        reach(hears)
        assert tasks.submit("quick", int).result(PATIENCE) == 0
        assert not slow.done()
        may_go.set()


class Ordered(Instrument):
    """Holds up who tells of a start until it is let go."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.hears, self.may_go = threading.Event(), threading.Event()

    def task_started(self, event: TaskStarted, /) -> None:
        self.hears.set()
        reach(self.may_go)
        self.heard.append("started")

    def task_overdue(self, event: TaskOverdue, /) -> None:
        self.heard.append("overdue")

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        self.heard.append("succeeded")


def test_the_events_of_a_run_in_a_pool_come_in_order() -> None:
    """Its end is not heard before its start, though another thread tells of that."""
    pool = HandPool()
    ordered = Ordered()
    with ThreadTaskMap(executor=pool, instruments=[ordered]) as tasks:
        submitter = InThread(tasks.submit, "a", int)
        reach(ordered.hears)
        pool.jobs[0].run()
        assert tasks.state("a") is State.FREE
        ordered.may_go.set()
        assert submitter.result().result() == 0
    assert ordered.heard == ["started", "succeeded"], "and all before the block was left"


def test_the_events_of_consecutive_runs_of_a_name_come_in_order() -> None:
    """Though another thread delivers the end of the first while the second begins and ends."""

    class Slow(Instrument):
        def __init__(self) -> None:
            self.order: list[str] = []

        def task_started(self, event: TaskStarted, /) -> None:
            self.order.append("started")

        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            if len(self.order) == 1:
                hears.set()
                reach(may_go)
            self.order.append("succeeded")

    hears, may_go, slow = threading.Event(), threading.Event(), Slow()
    with ThreadTaskMap(instruments=[slow]) as tasks:
        tasks.submit("a", int)
        reach(hears)
        assert tasks.submit("a", int).result(PATIENCE) == 0
        assert tasks.submit("a", int).result(PATIENCE) == 0
        assert slow.order == ["started"]
        may_go.set()
    assert slow.order == ["started", "succeeded"] * 3


def test_a_run_is_not_overdue_before_it_has_started() -> None:
    clock = ManualClock()
    ordered = Ordered()
    with ThreadTaskMap(clock=clock, overdue_after=0, instruments=[ordered]) as tasks:
        future = tasks.submit("a", int, timeout=0)
        reach(ordered.hears)
        run_due(tasks._backend)
        assert future.overdue
        ordered.may_go.set()
        assert future.result() == 0
    assert ordered.heard == ["started", "overdue", "succeeded"]


def test_an_instrument_that_ends_the_run_it_hears_of_hears_of_that_later() -> None:
    """In the same thread."""
    pool = HandPool()

    class Ender(Ordered):
        def task_started(self, event: TaskStarted, /) -> None:
            pool.jobs[0].run()
            tasks.forget("nobody")
            self.heard.append("started")

    ender = Ender()
    with ThreadTaskMap(executor=pool, instruments=[ender]) as tasks:
        assert tasks.submit("a", int).result() == 0
    assert ender.heard == ["started", "succeeded"]


class Ends(Instrument):
    """Notes whether a map is open."""

    def __init__(self) -> None:
        self.open: list[AnyTaskMap] = []
        self.closed = 0

    def map_opened(self, tasks: AnyTaskMap, /) -> None:
        assert not self.open
        self.open.append(tasks)

    def map_closed(self, tasks: AnyTaskMap, /) -> None:
        assert tasks is self.open.pop()
        self.closed += 1


def test_after_shutdown_the_last_call_has_been_made() -> None:
    """Whichever thread made it. So the next map may be opened at once."""
    ends = Ends()
    for _ in range(200):
        tasks = ThreadTaskMap(instruments=[ends])
        for name in range(3):
            tasks.submit(name, int)
        assert tasks.shutdown() == ()
        assert not ends.open
    assert ends.closed == 200


def test_after_the_block_the_last_call_has_been_made() -> None:
    ends = Ends()
    for _ in range(200):
        with ThreadTaskMap(instruments=[ends]) as tasks:
            for name in range(3):
                tasks.submit(name, int)
        assert not ends.open
    assert ends.closed == 200


def test_a_map_that_is_left_before_its_runs_have_ended_ends_with_them() -> None:
    ends, gate = Ends(), Gate()
    tasks = ThreadTaskMap(instruments=[ends], overdue_after=0.0)
    future = tasks.submit("a", gate)
    gate.wait_begun()
    assert tasks.shutdown(grace=0) == ("a",)
    assert ends.open == [tasks]
    gate.open()
    future.result(PATIENCE)
    wait_until(lambda: not ends.open)


def test_a_map_may_be_shut_down_by_an_instrument_and_by_a_callback() -> None:
    """The last call does not wait for itself."""

    class ShutsDown(Ends):
        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            assert tasks.shutdown() == ()

    ends = ShutsDown()
    tasks = ThreadTaskMap(instruments=[ends])
    tasks.submit("a", int).add_done_callback(lambda _: tasks.shutdown())
    wait_until(lambda: ends.closed == 1)


def test_a_map_that_is_dropped_is_not_kept_and_not_closed() -> None:
    ends = Ends()
    tasks = ThreadTaskMap(instruments=[ends])
    tasks.submit("a", int).result(PATIENCE)
    tasks.wait_idle()
    dropped = weakref.ref(tasks)
    del tasks
    ends.open.clear()
    gc.collect()
    assert dropped() is None
    assert ends.closed == 0


def test_a_map_that_is_closed_and_then_dropped_ends_with_its_last_run() -> None:
    class Counts(Instrument):
        def map_closed(self, tasks: AnyTaskMap, /) -> None:
            counts.append(tasks.statistics().running)

    counts: list[int] = []
    gate = Gate()
    tasks = ThreadTaskMap(instruments=[Counts()])
    tasks.submit("a", gate)
    gate.wait_begun()
    tasks.close()
    del tasks
    gc.collect()
    assert counts == []
    gate.open()
    wait_until(lambda: counts == [0])
