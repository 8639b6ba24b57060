"""Events and instruments: each event is a record, and the argument of a method of `Instrument`.

The records are frozen and take their fields by keyword, so that fields can be
added. All times are seconds on the map's clock.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

import attrs

from namedtasks._any_task_map import AnyTaskMap
from namedtasks._errors import RefusedError
from namedtasks._version import show_fields


@attrs.frozen(kw_only=True)
class TaskEvent:
    """The fields that all events have.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import ManualClock, RecordingInstrument
        >>> clock, recorder = ManualClock(), RecordingInstrument()
        >>> with ThreadTaskMap(clock=clock, instruments=[recorder]) as tasks:
        ...     _ = tasks.submit("pvc-1", clock.advance, 5, operation="attach")
        >>> for event in recorder.events:
        ...     print(f"{event.at:g} s: {event.hook} ({event.operation} {event.name})")
        0 s: task_started (attach pvc-1)
        5 s: task_succeeded (attach pvc-1)

    .. versionadded:: 0.1
    """

    hook: ClassVar[str]
    """The name of the method of `Instrument` for events of this type."""

    name: Hashable
    """The task's name."""
    operation: str | None
    """The operation that the start named, if any: a label for metrics, with few values."""
    at: float
    """The time of the event, in seconds on the map's clock."""
    run_id: int | None = attrs.field(default=None, eq=False, repr=False)
    """The number of the run that the event is about, the same in all events of a run and unique in
    the process; None if the event is about no run. It is in neither the repr nor comparisons."""
    attempts: int = attrs.field(default=0, eq=False, repr=False)
    """The number of bodies of that run that have begun: more than 1 only with ``retry=True``."""


@attrs.frozen(kw_only=True)
class TaskStarted(TaskEvent):
    """A run's body is about to begin.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import ManualClock, RecordingInstrument
        >>> def attach():
        ...     raise OSError("device busy")
        >>> clock, recorder = ManualClock(), RecordingInstrument()
        >>> with ThreadTaskMap(clock=clock, instruments=[recorder]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     clock.advance(0.5)
        ...     _ = tasks.submit("pvc-1", attach)
        >>> [(event.at, event.failures) for event in recorder.of(TaskStarted)]
        [(0.0, 0), (0.5, 1)]

    .. versionadded:: 0.1
    """

    hook = "task_started"

    failures: int
    """The number of runs of the name that failed in a row before this one."""


@attrs.frozen(kw_only=True)
class TaskSucceeded(TaskEvent):
    """A run returned a value.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import ManualClock, RecordingInstrument
        >>> clock, recorder = ManualClock(), RecordingInstrument()
        >>> with ThreadTaskMap(clock=clock, instruments=[recorder]) as tasks:
        ...     _ = tasks.submit("pvc-1", clock.advance, 5)
        >>> recorder.of(TaskSucceeded)
        [TaskSucceeded(name='pvc-1', operation=None, at=5.0, duration=5.0)]

    .. versionadded:: 0.1
    """

    hook = "task_succeeded"

    duration: float
    """Seconds since the body began."""


@attrs.frozen(kw_only=True)
class TaskFailed(TaskEvent):
    """A run ended with an error.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import RecordingInstrument
        >>> def attach():
        ...     raise OSError("device busy")
        >>> recorder = RecordingInstrument()
        >>> with ThreadTaskMap(instruments=[recorder]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach)
        >>> [(event.error, event.retry_in) for event in recorder.of(TaskFailed)]
        [(OSError('device busy'), 0.5)]

    .. versionadded:: 0.1
    """

    hook = "task_failed"

    duration: float
    """Seconds since the body began."""
    error: BaseException
    """The original error with its traceback; a reference to it keeps its frames alive."""
    failures: int
    """The number of runs of the name that failed in a row; this one counts unless it is exempt."""
    retry_at: float | None
    """The time at which the name may start again; None for at once, `math.inf` if it gave up."""
    retry_in: float | None
    """The seconds from the event to `retry_at`; None for at once, `math.inf` if it gave up."""
    will_retry: bool = False
    """True if another attempt of this run follows at `retry_at`."""


@attrs.frozen(kw_only=True)
class TaskCancelled(TaskEvent):
    """A run was cancelled, and ended because of that; its body may not have begun.

    Example:
        >>> import trio
        >>> from namedtasks import open_task_map
        >>> from namedtasks.testing import RecordingInstrument
        >>> from trio.testing import MockClock
        >>> recorder = RecordingInstrument()
        >>> async def main():
        ...     async with open_task_map(instruments=[recorder]) as tasks:
        ...         tasks.start_soon("pvc-1", trio.sleep, 60)
        ...         await trio.sleep(5)
        ...         tasks.cancel("pvc-1", reason="the pod is gone")
        >>> trio.run(main, clock=MockClock(autojump_threshold=0))
        >>> [(event.duration, event.reason) for event in recorder.of(TaskCancelled)]
        [(5.0, 'the pod is gone')]

    .. versionadded:: 0.1
    """

    hook = "task_cancelled"

    duration: float | None
    """Seconds since the body began; None if it never began."""
    reason: str | None
    """The reason of the cancellation, if one was given."""


@attrs.frozen(kw_only=True)
class TaskRefused(TaskEvent):
    """A start was refused or skipped.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import ManualClock, RecordingInstrument
        >>> def attach():
        ...     raise OSError("device busy")
        >>> recorder = RecordingInstrument()
        >>> with ThreadTaskMap(clock=ManualClock(), instruments=[recorder]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     _ = tasks.submit("pvc-1", attach, if_busy="skip")
        >>> [(type(event.error), event.skipped) for event in recorder.of(TaskRefused)]
        [(<class 'namedtasks.BackoffError'>, True)]

    .. versionadded:: 0.1
    """

    hook = "task_refused"

    error: RefusedError
    """The error of the refusal; it is not raised if the start is skipped."""
    skipped: bool
    """True if the start had ``if_busy="skip"``, and returned None in place of the error."""


@attrs.frozen(kw_only=True)
class TaskGaveUp(TaskEvent):
    """A name gave up; the event `TaskFailed` comes just before.

    Example:
        >>> from namedtasks import Backoff, ThreadTaskMap
        >>> from namedtasks.testing import RecordingInstrument
        >>> def attach():
        ...     raise OSError("no such volume")
        >>> recorder = RecordingInstrument()
        >>> with ThreadTaskMap(backoff=Backoff(give_up_after=1), instruments=[recorder]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach)
        >>> [(event.failures, event.error) for event in recorder.of(TaskGaveUp)]
        [(1, OSError('no such volume'))]

    .. versionadded:: 0.1
    """

    hook = "task_gave_up"

    failures: int
    """The number of runs of the name that failed in a row."""
    error: BaseException
    """The original error of the last of them."""


@attrs.frozen(kw_only=True)
class TaskOverdue(TaskEvent):
    """A run was asked to stop, or reached its deadline, and still runs.

    The event comes once for a run, ``overdue_after`` seconds after `asked_at`.

    Example:
        >>> import trio
        >>> from namedtasks import open_task_map
        >>> from namedtasks.testing import RecordingInstrument
        >>> from trio.testing import MockClock
        >>> async def detach():
        ...     with trio.CancelScope(shield=True):  # half of it would be worse
        ...         await trio.sleep(60)
        >>> recorder = RecordingInstrument()
        >>> async def main():
        ...     async with open_task_map(instruments=[recorder]) as tasks:
        ...         tasks.start_soon("pvc-1", detach, timeout=30)
        >>> trio.run(main, clock=MockClock(autojump_threshold=0))
        >>> recorder.of(TaskOverdue)
        [TaskOverdue(name='pvc-1', operation=None, at=31.0, duration=31.0, asked_at=30.0)]

    .. versionadded:: 0.1
    """

    hook = "task_overdue"

    duration: float
    """Seconds since the body began."""
    asked_at: float
    """The time at which the run was asked to stop.

    At that time it was cancelled, reached its deadline, or its pool had just lost a
    worker and asked the others to terminate.
    """


@attrs.frozen(kw_only=True)
class TaskForgotten(TaskEvent):
    """The failures of a name, or of one operation of it, were forgotten on request.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import RecordingInstrument
        >>> def attach():
        ...     raise OSError("device busy")
        >>> recorder = RecordingInstrument()
        >>> with ThreadTaskMap(instruments=[recorder]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach, operation="attach").exception()
        ...     _ = tasks.forget("pvc-1")
        >>> [(event.name, event.operation, event.failures) for event in recorder.of(TaskForgotten)]
        [('pvc-1', 'attach', 1)]

    .. versionadded:: 0.1
    """

    hook = "task_forgotten"

    failures: int
    """The number of failures that were forgotten."""


@attrs.frozen(kw_only=True)
class TaskExpired(TaskEvent):
    """The failures of a name and operation were dropped, because it was not started again.

    They have not counted since `expired_at`. The event may come much later: the map drops a few
    expired failures whenever a run ends, and has no background task for that.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import ManualClock, RecordingInstrument
        >>> def attach():
        ...     raise OSError("device busy")
        >>> clock, recorder = ManualClock(), RecordingInstrument()
        >>> with ThreadTaskMap(retention=60, clock=clock, instruments=[recorder]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     clock.advance(100)
        ...     _ = tasks.submit("pvc-2", len, "superblock").result()
        >>> [(event.name, event.failures, event.expired_at) for event in recorder.of(TaskExpired)]
        [('pvc-1', 1, 60.5)]

    .. versionadded:: 0.1
    """

    hook = "task_expired"

    failures: int
    """The number of failures in a row that were dropped."""
    expired_at: float
    """The time at which they expired, in seconds on the map's clock."""


@attrs.frozen(kw_only=True)
class TaskQueued(TaskEvent):
    """A start was deferred, to replace a run or to follow it.

    Example:
        >>> import threading
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import RecordingInstrument
        >>> synced, recorder = threading.Event(), RecordingInstrument()
        >>> with ThreadTaskMap(instruments=[recorder]) as tasks:
        ...     _ = tasks.submit("node-3", synced.wait)
        ...     _ = tasks.submit("node-3", synced.wait, if_busy="queue")
        ...     synced.set()
        >>> [(event.name, event.if_busy) for event in recorder.of(TaskQueued)]
        [('node-3', 'queue')]

    .. versionadded:: 0.1
    """

    hook = "task_queued"

    if_busy: str
    """The ``if_busy`` of the start: ``"replace"`` or ``"queue"``."""


@attrs.frozen(kw_only=True)
class TaskJoined(TaskEvent):
    """A start joined a run, of which the event has the number.

    The operation is that of the start.

    Example:
        >>> import threading
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import RecordingInstrument
        >>> loaded, recorder = threading.Event(), RecordingInstrument()
        >>> with ThreadTaskMap(instruments=[recorder]) as tasks:
        ...     _ = tasks.submit("avatar-7", loaded.wait, if_busy="join")
        ...     _ = tasks.submit("avatar-7", loaded.wait, if_busy="join")
        ...     loaded.set()
        >>> [(event.name, event.run_id is not None) for event in recorder.of(TaskJoined)]
        [('avatar-7', True)]

    .. versionadded:: 0.1
    """

    hook = "task_joined"


@attrs.frozen(kw_only=True)
class TaskSuperseded(TaskEvent):
    """A deferred run never begins, because a newer start of its name took its place.

    Example:
        >>> import threading
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import RecordingInstrument
        >>> done, recorder = threading.Event(), RecordingInstrument()
        >>> with ThreadTaskMap(instruments=[recorder]) as tasks:
        ...     for operation in ("attach", "detach", "resize"):
        ...         _ = tasks.submit("pvc-1", done.wait, if_busy="queue", operation=operation)
        ...     done.set()
        >>> [event.operation for event in recorder.of(TaskSuperseded)]
        ['detach']

    .. versionadded:: 0.1
    """

    hook = "task_superseded"


class Instrument:
    """The base class of instruments: a map calls one method for each event.

    Override the methods for the events that you want; the others cost nothing. The
    methods are plain functions. The map calls them in its own thread and waits for
    them, so they must be quick. A `ThreadTaskMap` calls them in any of the threads
    that use it, one at a time. If a method raises, the error is logged, and the map
    calls only `map_closed` of that instrument from then on.

    `map_opened` comes before all events of a map, and `map_closed` is its last
    call. An instrument that was given to several maps is called by each.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> class Pager(Instrument):
        ...     def task_failed(self, event):
        ...         print(f"{event.operation} of {event.name} failed: {event.error}")
        >>> def attach():
        ...     raise OSError("device busy")
        >>> with ThreadTaskMap(instruments=[Pager()]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach, operation="attach")
        attach of pvc-1 failed: device busy

    .. versionadded:: 0.1
    """

    in_context: ClassVar[bool] = False
    """True for an instrument that works with context variables, such as one for a tracer.

    Then `task_started` is called in the context of the run's body, in the step before the body's
    first: a context variable that it sets has that value in the body. `task_refused`,
    `task_joined` and `task_queued` are called in the context of the start's caller, before the
    start returns or raises. A `ThreadTaskMap` calls these four in many threads at once, and not in
    order with the events of other runs. All other methods are called as in any instrument.

    On asyncio, all attempts of a run with ``retry=True`` have one context, that of its Task.
    Elsewhere each attempt has a copy of the caller's.

    A pool other than a `concurrent.futures.ThreadPoolExecutor` gets only the function, and no
    context. For its runs a `ThreadTaskMap` calls `task_started` in order, in any thread, in a copy
    of the context of the start's caller.
    """

    def map_opened(self, tasks: AnyTaskMap, /) -> None:
        """Handle the opening of the map *tasks*, before anything can be started.

        Called once for each map, inside ``open_task_map`` or `ThreadTaskMap`. An error is raised to
        the caller that opens the map, and the map is closed. So an instrument may refuse a map. It
        may call the map's read-only methods, and keep the map: weakly, if that must not keep a
        `ThreadTaskMap` in memory that is dropped without being closed.
        """

    def map_closed(self, tasks: AnyTaskMap, /) -> None:
        """Handle the end of the map *tasks*: it was closed, and its last run has ended.

        Called once for each map whose `map_opened` has returned, before the map's block is left,
        and before ``shutdown()`` returns if nothing runs any more; also after another method has
        raised. An error is logged. The events of all runs came before, and nothing comes after:
        no refused start of the closed map is reported. The map's read-only methods still work.
        A `ThreadTaskMap` that is dropped without being closed does not call it, nor does a map in
        a forked child process.
        """

    def task_started(self, event: TaskStarted, /) -> None:
        """Handle the start of a run, just before its body begins."""

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """Handle the end of a run that returned a value."""

    def task_failed(self, event: TaskFailed, /) -> None:
        """Handle the end of a run that failed."""

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """Handle the end of a run that was cancelled, or its cancellation before it began."""

    def task_refused(self, event: TaskRefused, /) -> None:
        """Handle a start that was refused or skipped."""

    def task_gave_up(self, event: TaskGaveUp, /) -> None:
        """Handle a name that gave up."""

    def task_overdue(self, event: TaskOverdue, /) -> None:
        """Handle a run that was asked to stop and still runs."""

    def task_forgotten(self, event: TaskForgotten, /) -> None:
        """Handle a name whose failures were forgotten on request."""

    def task_expired(self, event: TaskExpired, /) -> None:
        """Handle failures that were dropped, because the name was not started again."""

    def task_queued(self, event: TaskQueued, /) -> None:
        """Handle a start that was deferred, to replace a run or to follow it."""

    def task_joined(self, event: TaskJoined, /) -> None:
        """Handle a start that joined a run."""

    def task_superseded(self, event: TaskSuperseded, /) -> None:
        """Handle a deferred run that a newer start of its name has replaced."""


_RECORDS = (TaskStarted, TaskSucceeded, TaskFailed, TaskCancelled, TaskRefused, TaskGaveUp)
_OTHERS = (TaskOverdue, TaskForgotten, TaskExpired, TaskQueued, TaskJoined, TaskSuperseded)
EVENTS: dict[str, type[TaskEvent]] = {event.hook: event for event in (*_RECORDS, *_OTHERS)}
"""All events, by the methods of `Instrument` that take them."""

show_fields(TaskEvent, *EVENTS.values())
