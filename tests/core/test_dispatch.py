"""Events reach who listens, and nobody else's fault stops them."""

from typing import Any, cast

import pytest

from namedtasks._core.dispatch import Dispatch
from namedtasks._core.events import (
    EVENTS,
    Instrument,
    TaskForgotten,
    TaskStarted,
    TaskSucceeded,
)
from namedtasks.testing import RecordingInstrument


def started(name: str) -> TaskStarted:
    return TaskStarted(name=name, operation=None, at=0.0, failures=0)


def succeeded(name: str) -> TaskSucceeded:
    return TaskSucceeded(name=name, operation=None, at=0.0, duration=0.0)


class Complaints(list[tuple[str, BaseException]]):
    def __call__(self, what: str, error: BaseException) -> None:
        self.append((what, error))


def test_only_overridden_methods_are_listened_with() -> None:
    class Starts(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            pass

    dispatch = Dispatch([Starts(), Instrument()], Complaints())
    assert [event for event in EVENTS if dispatch.wants(event)] == [TaskStarted]


def test_a_method_set_on_the_instance_is_overridden_too() -> None:
    heard: list[object] = []
    instrument = Instrument()
    instrument.task_started = heard.append  # type: ignore[method-assign]
    dispatch = Dispatch([instrument], Complaints())
    dispatch.note(started("a"))
    dispatch.deliver()
    assert heard == [started("a")]


def test_nothing_is_delivered_before_its_time() -> None:
    recording = RecordingInstrument()
    dispatch = Dispatch([recording], Complaints())
    dispatch.note(started("a"))
    assert recording.events == []
    dispatch.deliver()
    dispatch.deliver()
    assert recording.events == [started("a")]


def test_what_nobody_hears_is_not_kept() -> None:
    dispatch = Dispatch([], Complaints())
    dispatch.note(started("a"))
    assert not dispatch.take()


def test_what_was_taken_away_is_delivered_elsewhere_and_once() -> None:
    recording = RecordingInstrument()
    dispatch = Dispatch([recording], Complaints())
    assert not dispatch.take()
    dispatch.note(started("a"))
    taken = dispatch.take()
    dispatch.note(started("b"))
    dispatch.deliver(taken)
    assert recording.events == [started("a")]
    dispatch.deliver()
    assert recording.events == [started("a"), started("b")]
    assert not dispatch.take()


def test_one_that_raises_is_unplugged_and_the_others_hear_on() -> None:
    class Broken(Instrument):
        calls = 0

        def task_started(self, event: TaskStarted, /) -> None:
            self.calls += 1
            raise ValueError("boom")

        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            raise AssertionError("an unplugged instrument was called")

        def __repr__(self) -> str:
            return "Broken"

    broken, recording, complaints = Broken(), RecordingInstrument(), Complaints()
    dispatch = Dispatch([broken, recording], complaints)
    events = [started("a"), started("b"), succeeded("a")]
    for event in events:
        dispatch.note(event)
    dispatch.deliver()
    assert recording.events == events
    assert broken.calls == 1
    ((what, error),) = complaints
    assert what == "instrument Broken raised in task_started() and was unplugged"
    assert str(error) == "boom"


def test_once_all_are_unplugged_nobody_wants_events() -> None:
    class Broken(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            raise ValueError("boom")

    dispatch = Dispatch([Broken()], Complaints())
    dispatch.note(started("a"))
    dispatch.deliver()
    assert not dispatch.wants(TaskStarted)


def test_events_that_an_instrument_causes_come_after_those_before() -> None:
    heard: list[str] = []

    class Causes(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            heard.append(f"started {event.name}")
            dispatch.note(succeeded(f"by {event.name}"))
            dispatch.deliver()

        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            heard.append(f"succeeded {event.name}")

    dispatch = Dispatch([Causes()], Complaints())
    dispatch.note(started("a"))
    dispatch.note(started("b"))
    dispatch.deliver()
    assert heard == ["started a", "started b", "succeeded by a", "succeeded by b"]


def test_what_is_no_instrument_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^an instrument must be an Instrument, not 'print'$"):
        Dispatch(cast("list[Instrument]", ["print"]), Complaints())


def test_an_async_method_is_refused() -> None:
    async def asynchronous(self: Instrument, event: TaskForgotten, /) -> None: ...

    class Async(Instrument):
        task_forgotten = cast("Any", asynchronous)

        def __repr__(self) -> str:
            return "Async"

    with pytest.raises(
        TypeError, match=r"^task_forgotten\(\) of Async must be a plain function, not async$"
    ):
        Dispatch([Async()], Complaints())


def test_the_base_instrument_hears_everything_and_does_nothing() -> None:
    for event in EVENTS:
        assert getattr(Instrument(), event.hook)(None) is None


def test_every_instrument_hears_in_order_also_what_another_causes() -> None:
    class Causes(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            dispatch.note(succeeded(f"by {event.name}"))
            dispatch.deliver()

    recording = RecordingInstrument()
    dispatch = Dispatch([Causes(), recording], Complaints())
    dispatch.note(started("a"))
    dispatch.deliver()
    assert recording.events == [started("a"), succeeded("by a")]


def test_an_instrument_that_exits_is_unplugged_like_any_other() -> None:
    """One that raises stops nobody, whatever it raises."""

    class Exits(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            raise SystemExit

    recording, complaints = RecordingInstrument(), Complaints()
    dispatch = Dispatch([Exits(), recording], complaints)
    dispatch.note(started("a"))
    dispatch.deliver()
    assert recording.events == [started("a")]
    assert len(complaints) == 1


def test_an_event_that_must_wait_holds_back_all_later_ones() -> None:
    recording = RecordingInstrument()
    dispatch = Dispatch([recording], Complaints())
    run = cast("Any", object())
    dispatch.note(started("a"), run)
    dispatch.note(started("b"))
    dispatch.deliver(keep=lambda one: one is run)
    assert recording.events == []
    dispatch.deliver(keep=lambda _: False)
    assert recording.events == [started("a"), started("b")]


def test_a_call_in_the_middle_of_a_call_loses_no_event() -> None:
    """A signal handler, or a finalizer, may call the map while it looks at an event."""
    recording = RecordingInstrument()
    dispatch = Dispatch([recording], Complaints())
    dispatch.note(started("a"), cast("Any", object()))
    dispatch.note(started("b"))

    def keep(_: object) -> bool:
        dispatch.deliver()
        return False

    dispatch.deliver(keep=keep)
    assert {event.name for event in recording.events} == {"a", "b"}
    assert len(recording.events) == 2
