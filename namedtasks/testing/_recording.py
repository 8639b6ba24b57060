"""Keeps what an instrument hears."""

from __future__ import annotations

from typing import TypeVar, final

from namedtasks._core.events import (
    Instrument,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskForgotten,
    TaskGaveUp,
    TaskOverdue,
    TaskQueued,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)

EventT = TypeVar("EventT", bound=TaskEvent)


@final
class RecordingInstrument(Instrument):
    """Keeps every event, in order, for a test to look at.

    The errors that it keeps keep their tracebacks: it is for tests only.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.instruments import TaskFailed
        >>> def attach():
        ...     raise OSError("device busy")
        >>> heard = RecordingInstrument()
        >>> with ThreadTaskMap(instruments=[heard]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach)
        >>> [event.hook for event in heard.events]
        ['task_started', 'task_failed']
        >>> [event.error for event in heard.of(TaskFailed)]
        [OSError('device busy')]

    .. versionadded:: 0.1
    """

    def __init__(self) -> None:
        """Start with no events."""
        self.events: list[TaskEvent] = []
        """All that was heard, oldest first."""

    def of(self, kind: type[EventT]) -> list[EventT]:
        """The events of one *kind*, oldest first."""
        return [event for event in self.events if isinstance(event, kind)]

    def task_started(self, event: TaskStarted, /) -> None:
        """Keep it."""
        self.events.append(event)

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """Keep it."""
        self.events.append(event)

    def task_failed(self, event: TaskFailed, /) -> None:
        """Keep it."""
        self.events.append(event)

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """Keep it."""
        self.events.append(event)

    def task_refused(self, event: TaskRefused, /) -> None:
        """Keep it."""
        self.events.append(event)

    def task_gave_up(self, event: TaskGaveUp, /) -> None:
        """Keep it."""
        self.events.append(event)

    def task_overdue(self, event: TaskOverdue, /) -> None:
        """Keep it."""
        self.events.append(event)

    def task_forgotten(self, event: TaskForgotten, /) -> None:
        """Keep it."""
        self.events.append(event)

    def task_queued(self, event: TaskQueued, /) -> None:
        """Keep it."""
        self.events.append(event)

    def task_superseded(self, event: TaskSuperseded, /) -> None:
        """Keep it."""
        self.events.append(event)
