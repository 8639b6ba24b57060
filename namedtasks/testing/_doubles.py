"""Test doubles: a clock that a test moves, and an instrument that keeps its events."""

from __future__ import annotations

import contextlib
import threading
from typing import TypeVar, final

from namedtasks._events import (
    Instrument,
    TaskCancelled,
    TaskEvent,
    TaskExpired,
    TaskFailed,
    TaskForgotten,
    TaskGaveUp,
    TaskJoined,
    TaskOverdue,
    TaskQueued,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks._validation import check_finite

EventT = TypeVar("EventT", bound=TaskEvent)


@final
class ManualClock:
    """A clock for the tests of a `ThreadTaskMap`, which only `advance` moves.

    Args:
        start: The first time, in seconds.

    Raises:
        TypeError: *start* is not a number.
        ValueError: it is negative, infinite or NaN.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> def attach():
        ...     raise OSError("device busy")
        >>> clock = ManualClock()
        >>> with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     tasks.state("pvc-1")
        ...     clock.advance(0.5)
        ...     tasks.state("pvc-1")
        <State.WAITING: 'waiting'>
        <State.READY: 'ready'>

    .. versionadded:: 0.1
    """

    def __init__(self, start: float = 0.0) -> None:
        """Start at *start* seconds."""
        self._now = check_finite("start", start)
        self._lock = threading.Lock()
        self._sleepers: dict[threading.Lock, float] = {}

    def now(self) -> float:
        """Return the time, in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the time forward by *seconds*, and wake the threads whose waits are over.

        They may wake a moment after this returns.

        Raises:
            TypeError: *seconds* is not a number.
            ValueError: it is negative, infinite or NaN.
        """
        seconds = check_finite("seconds", seconds)
        with self._lock:
            self._now += seconds
            due = [wake for wake, until in self._sleepers.items() if until <= self._now]
            for wake in due:
                del self._sleepers[wake]
                # The map may release it at the same moment.
                with contextlib.suppress(RuntimeError):
                    wake.release()

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        """Acquire *wake*, or return when the clock has been advanced to *until*."""
        with self._lock:
            if until <= self._now:
                return
            self._sleepers[wake] = until
        try:
            wake.acquire()
        finally:
            with self._lock:
                self._sleepers.pop(wake, None)

    def __repr__(self) -> str:
        return f"<namedtasks.testing.ManualClock {self._now:g} s, {len(self._sleepers)} wait>"


@final
class RecordingInstrument(Instrument):
    """An instrument that keeps every event for a test, in ``events``, the oldest first.

    The errors in the events keep their tracebacks and frames, so use it in tests only.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> from namedtasks.instruments import TaskFailed
        >>> def attach():
        ...     raise OSError("device busy")
        >>> recorder = RecordingInstrument()
        >>> with ThreadTaskMap(instruments=[recorder]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach)
        >>> [event.hook for event in recorder.events]
        ['task_started', 'task_failed']
        >>> [event.error for event in recorder.of(TaskFailed)]
        [OSError('device busy')]

    .. versionadded:: 0.1
    """

    def __init__(self) -> None:
        """Start with no events."""
        self.events: list[TaskEvent] = []
        """All events, the oldest first."""

    def of(self, kind: type[EventT]) -> list[EventT]:
        """Return the events of one *kind*, the oldest first."""
        return [event for event in self.events if isinstance(event, kind)]

    def task_started(self, event: TaskStarted, /) -> None:
        """Keep the event."""
        self.events.append(event)

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """Keep the event."""
        self.events.append(event)

    def task_failed(self, event: TaskFailed, /) -> None:
        """Keep the event."""
        self.events.append(event)

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """Keep the event."""
        self.events.append(event)

    def task_refused(self, event: TaskRefused, /) -> None:
        """Keep the event."""
        self.events.append(event)

    def task_gave_up(self, event: TaskGaveUp, /) -> None:
        """Keep the event."""
        self.events.append(event)

    def task_overdue(self, event: TaskOverdue, /) -> None:
        """Keep the event."""
        self.events.append(event)

    def task_forgotten(self, event: TaskForgotten, /) -> None:
        """Keep the event."""
        self.events.append(event)

    def task_expired(self, event: TaskExpired, /) -> None:
        """Keep the event."""
        self.events.append(event)

    def task_queued(self, event: TaskQueued, /) -> None:
        """Keep the event."""
        self.events.append(event)

    def task_joined(self, event: TaskJoined, /) -> None:
        """Keep the event."""
        self.events.append(event)

    def task_superseded(self, event: TaskSuperseded, /) -> None:
        """Keep the event."""
        self.events.append(event)
