"""Events reach the instruments that listen, in order, and no instrument stops the others."""

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from namedtasks._any_task_map import AnyTaskMap
from namedtasks._event_bus import EventBus
from namedtasks._events import EVENTS, Instrument, TaskForgotten, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument


def started(name: str) -> TaskStarted:
    return TaskStarted(name=name, operation=None, at=0.0, failures=0)


def succeeded(name: str) -> TaskSucceeded:
    return TaskSucceeded(name=name, operation=None, at=0.0, duration=0.0)


def errors_in(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the message and the text of each error in the log."""
    return [(one.getMessage(), str(one.exc_info and one.exc_info[1])) for one in caplog.records]


def test_an_instrument_listens_only_with_overridden_methods() -> None:
    class Starts(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            pass

    starts = Starts()
    events = EventBus([starts, Instrument()])
    assert events.listeners == {"task_started": (starts,)}


def test_a_method_set_on_the_instance_is_overridden_too() -> None:
    heard: list[object] = []
    instrument = Instrument()
    instrument.task_started = heard.append  # type: ignore[method-assign]
    events = EventBus([instrument])
    events.queue(started("a"))
    events.deliver()
    assert heard == [started("a")]


def test_no_event_is_delivered_before_its_time_or_twice() -> None:
    recording = RecordingInstrument()
    events = EventBus([recording])
    events.queue(started("a"))
    assert recording.events == []
    events.deliver()
    events.deliver()
    assert recording.events == [started("a")]


def test_an_event_without_a_listener_is_not_kept() -> None:
    events = EventBus([])
    events.queue(started("a"))
    assert not events.queued


def test_an_instrument_that_raises_is_unplugged_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Instrument):
        calls = 0

        def task_started(self, event: TaskStarted, /) -> None:
            self.calls += 1
            raise ValueError("boom")

        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            raise AssertionError("an unplugged instrument was called")

        def __repr__(self) -> str:
            return "Broken"

    broken, recording = Broken(), RecordingInstrument()
    events = EventBus([broken, recording])
    some = [started("a"), started("b"), succeeded("a")]
    for event in some:
        events.queue(event)
    events.deliver()
    assert recording.events == some
    assert broken.calls == 1
    assert errors_in(caplog) == [
        ("instrument Broken raised in task_started() and was unplugged", "boom")
    ]
    assert events.listeners["task_started"] == (recording,)


def test_once_all_are_unplugged_there_is_no_listener() -> None:
    class Broken(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            raise ValueError("boom")

    events = EventBus([Broken()])
    events.queue(started("a"))
    events.deliver()
    assert events.listeners == {}


def test_events_that_an_instrument_causes_come_after_those_before() -> None:
    heard: list[str] = []

    class Causes(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            heard.append(f"started {event.name}")
            events.queue(succeeded(f"by {event.name}"))
            events.deliver()

        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            heard.append(f"succeeded {event.name}")

    events = EventBus([Causes()])
    events.queue(started("a"))
    events.queue(started("b"))
    events.deliver()
    assert heard == ["started a", "started b", "succeeded by a", "succeeded by b"]


def test_what_is_no_instrument_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^an instrument must be an Instrument, not 'print'$"):
        EventBus(cast("list[Instrument]", ["print"]))


def test_an_async_method_is_refused() -> None:
    async def asynchronous(self: Instrument, event: TaskForgotten, /) -> None: ...

    class Async(Instrument):
        task_forgotten = cast("Any", asynchronous)

        def __repr__(self) -> str:
            return "Async"

    with pytest.raises(
        TypeError, match=r"^task_forgotten\(\) of Async must be a plain function, not async$"
    ):
        EventBus([Async()])


@pytest.mark.parametrize("hook", ["map_opened", "map_closed"])
def test_an_async_method_for_the_map_is_refused(hook: str) -> None:
    async def asynchronous(*_: object) -> None: ...

    instrument = Instrument()
    setattr(instrument, hook, asynchronous)
    with pytest.raises(TypeError, match=rf"^{hook}\(\) of .* must be a plain function, not async$"):
        EventBus([instrument])


def test_the_base_instrument_takes_every_event_and_does_nothing() -> None:
    for hook in ("map_opened", "map_closed", *EVENTS):
        assert getattr(Instrument(), hook)(None) is None


def test_every_instrument_gets_the_events_in_order_also_those_that_another_causes() -> None:
    class Causes(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            events.queue(succeeded(f"by {event.name}"))
            events.deliver()

    recording = RecordingInstrument()
    events = EventBus([Causes(), recording])
    events.queue(started("a"))
    events.deliver()
    assert recording.events == [started("a"), succeeded("by a")]


def test_an_instrument_that_exits_is_unplugged_like_any_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Exits(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            raise SystemExit

    recording = RecordingInstrument()
    events = EventBus([Exits(), recording])
    events.queue(started("a"))
    events.deliver()
    assert recording.events == [started("a")]
    assert len(caplog.records) == 1


def test_an_event_that_must_wait_holds_back_all_later_ones() -> None:
    recording = RecordingInstrument()
    events = EventBus([recording])
    run = object()
    events.queue(started("a"), run)
    events.queue(started("b"))
    events.deliver(keep=lambda one: one is run)
    assert recording.events == []
    events.deliver(keep=lambda _: False)
    assert recording.events == [started("a"), started("b")]


def test_a_call_in_the_middle_of_a_call_loses_no_event() -> None:
    """A signal handler, or a finalizer, may call the map while it looks at an event."""
    recording = RecordingInstrument()
    events = EventBus([recording])
    events.queue(started("a"), object())
    events.queue(started("b"))

    def keep(_: object) -> bool:
        events.deliver()
        return False

    events.deliver(keep=keep)
    assert recording.events == [started("a"), started("b")]


def test_the_rest_is_left_to_the_next_caller() -> None:
    """So no caller delivers the events of all others for ever."""
    recording = RecordingInstrument()
    events = EventBus([recording])
    for name in "abcde":
        events.queue(started(name))
    events.deliver(most=2)
    assert recording.events == [started("a"), started("b")]
    events.deliver(most=2)
    assert len(recording.events) == 4
    events.deliver()
    assert len(recording.events) == 5


class Slow(Instrument):
    """An instrument that another thread can wait for."""

    def __init__(self) -> None:
        self.names: list[object] = []
        self.is_called = threading.Event()
        self.go_on = threading.Event()

    def task_started(self, event: TaskStarted, /) -> None:
        self.names.append(event.name)
        self.is_called.set()
        assert self.go_on.wait(30)


def test_a_thread_that_finds_another_one_delivering_leaves_its_event_to_that() -> None:
    """So the events come one at a time, and in order."""
    slow = Slow()
    events = EventBus([slow])
    events.queue(started("a"))
    thread = threading.Thread(target=events.deliver)
    thread.start()
    assert slow.is_called.wait(30)
    events.queue(started("b"))
    events.deliver()
    assert slow.names == ["a"]
    slow.go_on.set()
    thread.join()
    assert slow.names == ["a", "b"]


class WatchedLock:
    """A lock that calls a function before a thread waits for it."""

    def __init__(self, before_waiting: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._before_waiting = before_waiting
        self.release = self._lock.release

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking:
            self._before_waiting()
        return self._lock.acquire(blocking, timeout)


def test_join_delivers_and_waits_for_another_thread_that_does() -> None:
    slow = Slow()
    events = EventBus([slow])
    events._delivering = cast("Any", WatchedLock(slow.go_on.set))
    events.queue(started("a"))
    other = threading.Thread(target=events.deliver)
    other.start()
    assert slow.is_called.wait(30)
    events.queue(started("b"))
    events.join()
    assert slow.names == ["a", "b"]
    other.join()


def test_join_delivers_an_event_that_comes_just_before_its_end() -> None:
    recording = RecordingInstrument()
    events = EventBus([recording])
    late = [started("b"), started("c")]

    def emit_late() -> None:
        if late:
            events.queue(late.pop(0))

    events._delivering = cast("Any", WatchedLock(emit_late))
    events.queue(started("a"))
    events.join()
    assert [event.name for event in recording.events] == ["a", "b", "c"]


def test_join_looks_again_from_time_to_time() -> None:
    """So a signal that comes just before the wait is not kept from its handler for long."""
    timeouts: list[float] = []

    class BusyLock:
        """A lock that another thread holds for longer than a caller waits."""

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            if blocking:
                timeouts.append(timeout)
            return len(timeouts) > 1

        def release(self) -> None: ...

    events = EventBus([])
    events._delivering = cast("Any", BusyLock())
    events.join()
    assert timeouts == [0.1, 0.1]


def test_an_event_that_comes_just_before_the_delivery_ends_is_delivered() -> None:
    """Its emitter has found the delivery still going on."""
    recording = RecordingInstrument()
    events = EventBus([recording])

    class LateLock:
        """A lock whose release is late: another thread emits just before it."""

        def __init__(self) -> None:
            self.late = ["b"]
            self.acquire = inner.acquire
            self.locked = inner.locked

        def release(self) -> None:
            for name in self.late:
                events.queue(started(name))
                events.deliver()
            self.late = []
            inner.release()

    inner = threading.Lock()
    events._delivering = cast("Any", LateLock())
    events.queue(started("a"))
    events.deliver()
    assert recording.events == [started("a"), started("b")]


def test_no_event_is_lost_between_threads() -> None:
    recording = RecordingInstrument()
    events = EventBus([recording])

    def emit(thread: int) -> None:
        for number in range(2_000):
            events.queue(started(f"{thread} {number}"))
            events.deliver(most=10)

    threads = [threading.Thread(target=emit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events.deliver()
    assert len(recording.events) == 8_000
    for number in range(4):
        of_thread = [str(one.name) for one in recording.events if str(one.name)[0] == str(number)]
        assert of_thread == [f"{number} {index}" for index in range(2_000)]


def test_after_a_fork_the_events_and_the_lock_of_the_parent_are_gone() -> None:
    recording = RecordingInstrument()
    events = EventBus([recording])
    events.queue(started("of the parent"))
    events._delivering.acquire()  # by another thread, which the child does not have
    events.after_fork()
    events.queue(started("of the child"))
    events.deliver()
    assert recording.events == [started("of the child")]


class Ends(Instrument):
    """Notes the ends of its map."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def map_opened(self, tasks: AnyTaskMap, /) -> None:
        self.told.append(tasks)

    def map_closed(self, tasks: AnyTaskMap, /) -> None:
        self.told.append(f"closed {tasks}")


class Map:
    """In place of a map."""

    def __repr__(self) -> str:
        return "the map"


def test_the_last_call_comes_once_and_after_the_events() -> None:
    ends, tasks = Ends(), cast("Any", Map())
    events = EventBus([ends, Instrument()])
    events.open(tasks)
    assert events.closing == (ends,)
    assert events.listeners == {}
    events.keep_map()
    for _ in range(2):
        events.queue_closed()
        events.deliver()
    assert ends.told == [tasks, "closed the map"]


def test_a_map_is_kept_from_its_close_to_its_end_and_not_before() -> None:
    for is_closed in (True, False):
        ends, tasks = Ends(), Map()
        events = EventBus([ends])
        events.open(cast("Any", tasks))
        ends.told.clear()
        if is_closed:
            events.keep_map()
        del tasks
        events.queue_closed()
        events.deliver()
        assert ends.told == (["closed the map"] if is_closed else [])


def test_an_error_of_the_last_call_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Instrument):
        def map_closed(self, tasks: AnyTaskMap, /) -> None:
            raise ValueError("boom")

        def __repr__(self) -> str:
            return "Broken"

    ends, tasks = Ends(), cast("Any", Map())
    events = EventBus([Broken(), ends])
    events.open(tasks)
    events.queue_closed()
    events.deliver()
    assert ends.told == [tasks, "closed the map"]
    assert errors_in(caplog) == [
        ("instrument Broken raised in map_closed() and was unplugged", "boom")
    ]


def test_in_a_forked_child_no_map_is_closed() -> None:
    ends, tasks = Ends(), cast("Any", Map())
    events = EventBus([ends])
    events.open(tasks)
    events.keep_map()
    events.after_fork()
    events.queue_closed()
    events.deliver()
    assert ends.told == [tasks]
