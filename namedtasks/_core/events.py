"""What instruments hear: one method for each event, each with one record.

The records are frozen and take their fields by keyword, so that fields can be
added. All times are seconds on the map's clock.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

import attrs

from namedtasks._core.errors import RefusedError


@attrs.frozen(kw_only=True)
class TaskEvent:
    """What every event tells.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import ManualClock, RecordingInstrument
        >>> clock, heard = ManualClock(), RecordingInstrument()
        >>> with ThreadTaskMap(clock=clock, instruments=[heard]) as tasks:
        ...     _ = tasks.submit("pvc-1", clock.advance, 5, operation="attach")
        >>> for event in heard.events:
        ...     print(f"{event.at:g} s: {event.hook} ({event.operation} {event.name})")
        0 s: task_started (attach pvc-1)
        5 s: task_succeeded (attach pvc-1)

    .. versionadded:: 0.1
    """

    hook: ClassVar[str]
    """The name of the method of `Instrument` that takes events of this type."""

    name: Hashable
    """The task's name."""
    operation: str | None
    """The operation that the start named, if any: a bounded label for metrics."""
    at: float
    """When it happened."""


@attrs.frozen(kw_only=True)
class TaskStarted(TaskEvent):
    """A run's body is about to begin.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import ManualClock, RecordingInstrument
        >>> def attach():
        ...     raise OSError("device busy")
        >>> clock, heard = ManualClock(), RecordingInstrument()
        >>> with ThreadTaskMap(clock=clock, instruments=[heard]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     clock.advance(0.5)
        ...     _ = tasks.submit("pvc-1", attach)
        >>> [(event.at, event.failures) for event in heard.of(TaskStarted)]
        [(0.0, 0), (0.5, 1)]

    .. versionadded:: 0.1
    """

    hook = "task_started"

    failures: int
    """How many runs of the name failed in a row before this one."""


@attrs.frozen(kw_only=True)
class TaskSucceeded(TaskEvent):
    """A run returned a value.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import ManualClock, RecordingInstrument
        >>> clock, heard = ManualClock(), RecordingInstrument()
        >>> with ThreadTaskMap(clock=clock, instruments=[heard]) as tasks:
        ...     _ = tasks.submit("pvc-1", clock.advance, 5)
        >>> heard.of(TaskSucceeded)
        [TaskSucceeded(name='pvc-1', operation=None, at=5.0, duration=5.0)]

    .. versionadded:: 0.1
    """

    hook = "task_succeeded"

    duration: float
    """Seconds since its body began."""


@attrs.frozen(kw_only=True)
class TaskFailed(TaskEvent):
    """A run ended by an error.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import RecordingInstrument
        >>> def attach():
        ...     raise OSError("device busy")
        >>> heard = RecordingInstrument()
        >>> with ThreadTaskMap(instruments=[heard]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach)
        >>> [(event.error, event.retry_in) for event in heard.of(TaskFailed)]
        [(OSError('device busy'), 0.5)]

    .. versionadded:: 0.1
    """

    hook = "task_failed"

    duration: float
    """Seconds since its body began."""
    error: BaseException
    """The original error, traceback and all. Who keeps it keeps its frames alive."""
    failures: int
    """How many runs failed in a row by now; this one counts unless it is exempt."""
    retry_at: float | None
    """When the name may start again; None if at once, `math.inf` if it gave up."""
    retry_in: float | None
    """How many seconds away that is; None if it is at once, `math.inf` if it gave up."""


@attrs.frozen(kw_only=True)
class TaskCancelled(TaskEvent):
    """A run was cancelled, and heeded it or had not begun.

    Example:
        >>> import trio
        >>> from namedtasks import open_task_map
        >>> from namedtasks.testing import RecordingInstrument
        >>> from trio.testing import MockClock
        >>> heard = RecordingInstrument()
        >>> async def main():
        ...     async with open_task_map(instruments=[heard]) as tasks:
        ...         tasks.start_soon("pvc-1", trio.sleep, 60)
        ...         await trio.sleep(5)
        ...         tasks.cancel("pvc-1", reason="the pod is gone")
        >>> trio.run(main, clock=MockClock(autojump_threshold=0))
        >>> [(event.duration, event.reason) for event in heard.of(TaskCancelled)]
        [(5.0, 'the pod is gone')]

    .. versionadded:: 0.1
    """

    hook = "task_cancelled"

    duration: float | None
    """Seconds since its body began; None if it never did."""
    reason: str | None
    """Why, in the words of who cancelled it."""


@attrs.frozen(kw_only=True)
class TaskRefused(TaskEvent):
    """A start was refused, or skipped.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import ManualClock, RecordingInstrument
        >>> def attach():
        ...     raise OSError("device busy")
        >>> heard = RecordingInstrument()
        >>> with ThreadTaskMap(clock=ManualClock(), instruments=[heard]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     _ = tasks.submit("pvc-1", attach, if_busy="skip")
        >>> [(type(event.error), event.skipped) for event in heard.of(TaskRefused)]
        [(<class 'namedtasks.BackoffError'>, True)]

    .. versionadded:: 0.1
    """

    hook = "task_refused"

    error: RefusedError
    """What the refusal is, whether it was raised or not."""
    skipped: bool
    """Whether the caller asked to skip, and got None in its place."""


@attrs.frozen(kw_only=True)
class TaskGaveUp(TaskEvent):
    """The policy gave a name up: its `TaskFailed` came just before.

    Example:
        >>> from namedtasks import Backoff, ThreadTaskMap
        >>> from namedtasks.testing import RecordingInstrument
        >>> def attach():
        ...     raise OSError("no such volume")
        >>> heard = RecordingInstrument()
        >>> with ThreadTaskMap(backoff=Backoff(give_up_after=1), instruments=[heard]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach)
        >>> [(event.failures, event.error) for event in heard.of(TaskGaveUp)]
        [(1, OSError('no such volume'))]

    .. versionadded:: 0.1
    """

    hook = "task_gave_up"

    failures: int
    """How many runs failed in a row."""
    error: BaseException
    """The last of their errors, the original."""


@attrs.frozen(kw_only=True)
class TaskOverdue(TaskEvent):
    """A run was asked to stop, or reached its deadline, and goes on regardless.

    It comes once for a run, ``overdue_after`` seconds after `asked_at`.

    Example:
        >>> import trio
        >>> from namedtasks import open_task_map
        >>> from namedtasks.testing import RecordingInstrument
        >>> from trio.testing import MockClock
        >>> async def detach():
        ...     with trio.CancelScope(shield=True):  # half of it would be worse
        ...         await trio.sleep(60)
        >>> heard = RecordingInstrument()
        >>> async def main():
        ...     async with open_task_map(instruments=[heard]) as tasks:
        ...         tasks.start_soon("pvc-1", detach, timeout=30)
        >>> trio.run(main, clock=MockClock(autojump_threshold=0))
        >>> heard.of(TaskOverdue)
        [TaskOverdue(name='pvc-1', operation=None, at=31.0, duration=31.0, asked_at=30.0)]

    .. versionadded:: 0.1
    """

    hook = "task_overdue"

    duration: float
    """Seconds since its body began."""
    asked_at: float
    """When it should have begun to stop: when it was cancelled, its deadline, or shortly after its
    pool lost a worker and asked the others to terminate."""


@attrs.frozen(kw_only=True)
class TaskForgotten(TaskEvent):
    """The failures of a name, or of one operation of it, were forgotten on request.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import RecordingInstrument
        >>> def attach():
        ...     raise OSError("device busy")
        >>> heard = RecordingInstrument()
        >>> with ThreadTaskMap(instruments=[heard]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach, operation="attach").exception()
        ...     _ = tasks.forget("pvc-1")
        >>> [(event.name, event.operation, event.failures) for event in heard.of(TaskForgotten)]
        [('pvc-1', 'attach', 1)]

    .. versionadded:: 0.1
    """

    hook = "task_forgotten"

    failures: int
    """How many they were."""


@attrs.frozen(kw_only=True)
class TaskQueued(TaskEvent):
    """A start was put off until its name is free: to replace a run, or to come after it.

    Example:
        >>> import threading
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import RecordingInstrument
        >>> synced, heard = threading.Event(), RecordingInstrument()
        >>> with ThreadTaskMap(instruments=[heard]) as tasks:
        ...     _ = tasks.submit("node-3", synced.wait)
        ...     _ = tasks.submit("node-3", synced.wait, if_busy="queue")
        ...     synced.set()
        >>> [(event.name, event.if_busy) for event in heard.of(TaskQueued)]
        [('node-3', 'queue')]

    .. versionadded:: 0.1
    """

    hook = "task_queued"

    if_busy: str
    """What the start asked for: ``"replace"`` or ``"queue"``."""


@attrs.frozen(kw_only=True)
class TaskSuperseded(TaskEvent):
    """A run that was put off will never begin: a newer start of its name took its place.

    Example:
        >>> import threading
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.testing import RecordingInstrument
        >>> done, heard = threading.Event(), RecordingInstrument()
        >>> with ThreadTaskMap(instruments=[heard]) as tasks:
        ...     for operation in ("attach", "detach", "resize"):
        ...         _ = tasks.submit("pvc-1", done.wait, if_busy="queue", operation=operation)
        ...     done.set()
        >>> [event.operation for event in heard.of(TaskSuperseded)]
        ['detach']

    .. versionadded:: 0.1
    """

    hook = "task_superseded"


class Instrument:
    """Hears what happens in a map. Override what you want to hear; the rest costs nothing.

    The methods are plain functions, called in the map's own thread while it
    waits: they must be quick. A `ThreadTaskMap` calls them in many threads at
    once. One that raises is logged, and its instrument hears nothing more from
    that map.

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

    def task_started(self, event: TaskStarted, /) -> None:
        """A run's body is about to begin."""

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """A run returned a value."""

    def task_failed(self, event: TaskFailed, /) -> None:
        """A run ended by an error."""

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """A run was cancelled, and heeded it or had not begun."""

    def task_refused(self, event: TaskRefused, /) -> None:
        """A start was refused, or skipped."""

    def task_gave_up(self, event: TaskGaveUp, /) -> None:
        """The policy gave a name up."""

    def task_overdue(self, event: TaskOverdue, /) -> None:
        """A run was asked to stop and goes on regardless."""

    def task_forgotten(self, event: TaskForgotten, /) -> None:
        """The failures of a name were forgotten on request."""

    def task_queued(self, event: TaskQueued, /) -> None:
        """A start was put off until its name is free."""

    def task_superseded(self, event: TaskSuperseded, /) -> None:
        """A newer start took the place of one that was put off."""


EVENTS: tuple[type[TaskEvent], ...] = (
    TaskStarted,
    TaskSucceeded,
    TaskFailed,
    TaskCancelled,
    TaskRefused,
    TaskGaveUp,
    TaskOverdue,
    TaskForgotten,
    TaskQueued,
    TaskSuperseded,
)
"""Every event that there is."""
