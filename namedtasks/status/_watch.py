"""The instrument of the page, which knows one map, and the log of recent events of all maps.

The maps add events in their threads, and the servers read them in theirs.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast, final

from namedtasks._any_task_map import AnyTaskMap
from namedtasks._base import Backend
from namedtasks._events import (
    Instrument,
    TaskCancelled,
    TaskEvent,
    TaskExpired,
    TaskFailed,
    TaskForgotten,
    TaskGaveUp,
    TaskOverdue,
    TaskQueued,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks._logging import log_error
from namedtasks.status._text import MOST_ERROR, error_of, plain, seconds_of

Key: TypeAlias = tuple[Hashable, str | None]
"""A name and an operation: what has a record of its own."""

MapStatus: TypeAlias = Literal["not opened", "open", "closing", "closed"]

_SPARE: Final = 1_000
"""Times of pending runs that are kept before old ones are dropped: some 100 KB. A guess."""


class RecentEvent(NamedTuple):
    """An event of one of the maps."""

    number: int
    """Its place among all events, from 1."""
    label: str
    """The map."""
    kind: str
    """The name of the method of `Instrument` without ``task_``, such as ``failed``."""
    name: Hashable
    operation: str | None
    at: float
    """The time of the event, in seconds since 1970."""
    details: dict[str, object]
    """More about it, ready for JSON."""
    notable: bool
    """False for routine: starts, successes and the like."""


@final
class EventLog:
    """The recent events of all maps: the last notable ones, and the last others.

    They are kept apart, so that many short runs that succeed do not displace a failure.
    """

    # An attribute of the class, because freezegun replaces that of the module.
    _wall_clock = staticmethod(time.time)

    def __init__(self, most: int) -> None:
        # A finalizer or a signal handler may use another map while its thread adds an event.
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._others: deque[RecentEvent] = deque(maxlen=most)
        self._notable: deque[RecentEvent] = deque(maxlen=most)

    def add(
        self, label: str, event: TaskEvent, now: float, details: dict[str, object], *, notable: bool
    ) -> None:
        """Add *event* of the map *label*, on whose clock it is *now*."""
        at = self._wall_clock() - (now - event.at)
        kind = event.hook.removeprefix("task_")
        with self._lock:
            number = next(self._numbers)
            recent = RecentEvent(
                number, label, kind, event.name, event.operation, at, details, notable
            )
            (self._notable if notable else self._others).append(recent)

    def recent(self) -> list[RecentEvent]:
        """Return the events that are kept, the oldest first."""
        with self._lock:
            return sorted([*self._notable, *self._others])


class FailureTimes(NamedTuple):
    """The times of the failures in a row of one name and operation."""

    first: float
    """The time of the first of them."""
    last: float
    """The time of the last of them."""


@final
class MapWatch(Instrument):
    """One map, and what only its events tell.

    It ignores refused starts: a reconcile loop causes thousands, and a map refuses faster if no
    instrument takes them.
    """

    # An attribute of the class, because freezegun replaces that of the module.
    _clock: Callable[[], float] = staticmethod(time.monotonic)
    """The clock of the map."""

    def __init__(self, label: str, log: EventLog) -> None:
        self.label: str = label
        self._log = log
        self._lock = threading.RLock()
        # Weak, because a ThreadTaskMap that is dropped without close() must not stay alive.
        self._tasks: weakref.ref[AnyTaskMap] | None = None
        self._has_ended = False
        self._time = 0.0
        self._has_logged = False
        self.failure_times: dict[Key, FailureTimes] = {}
        """An item for each failure on record in the map."""
        self.queued: dict[Hashable, float] = {}
        """The time at which a pending run was accepted, by name. Some have begun since."""

    # For the page

    def now(self) -> float:
        """Return the time on the map's clock; if it raises, the last one that it has shown."""
        try:
            self._time = float(self._clock())
        except Exception as error:
            if not self._has_logged:
                self._has_logged = True
                log_error(
                    f"the status page shows old times of the map {self.label!r}: its clock raises",
                    error,
                )
        return self._time

    def tasks(self) -> AnyTaskMap | None:
        """Return the map, if it is open or has not ended."""
        tasks = None if self._tasks is None else self._tasks()
        return None if self._has_ended else tasks

    def status(self) -> MapStatus:
        """Return the status of the map: only an open one accepts starts."""
        if self._tasks is None:
            return "not opened"
        tasks = self.tasks()
        if tasks is None:
            return "closed"
        scheduler = backend_of(tasks).scheduler
        if not scheduler.closed:
            return "open"
        return "closing" if scheduler.running or scheduler.pending else "closed"

    # For the map

    def map_opened(self, tasks: AnyTaskMap, /) -> None:
        """Show *tasks* from now on.

        Raises:
            ValueError: another map with this instrument is open, or has not ended.
        """
        with self._lock:
            status = self.status()
            if status not in ("not opened", "closed"):
                raise ValueError(
                    f"the status page already shows a map {self.label!r}, which is {status}: "
                    "give each map an instrument with a label of its own"
                )
            self._clock = backend_of(tasks).now
            self._has_logged = False
            self.failure_times, self.queued = {}, {}
            self._tasks = weakref.ref(tasks)
            self._has_ended = False

    def map_closed(self, tasks: AnyTaskMap, /) -> None:
        """Show *tasks* as closed."""
        with self._lock:
            if self._tasks is not None and self._tasks() is tasks:
                self._has_ended = True
                self.failure_times, self.queued = {}, {}

    def task_started(self, event: TaskStarted, /) -> None:
        """Note a start."""
        self._note(event, {"failures": event.failures} if event.failures else {})

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """Note a success, and the end of failures in a row."""
        before = self.failure_times.pop((event.name, event.operation), None)
        details: dict[str, object] = {"duration": seconds_of(event.duration)}
        if before is not None:
            details["failing_for"] = seconds_of(event.at - before.first)
        self._note(event, details, notable=before is not None)

    def task_failed(self, event: TaskFailed, /) -> None:
        """Note a failure, and the time of the first one in a row."""
        key = (event.name, event.operation)
        before = self.failure_times.get(key)
        if event.failures:
            is_first = before is None or event.failures == 1
            first = event.at if is_first or before is None else before.first
            self.failure_times[key] = FailureTimes(first, event.at)
        details: dict[str, object] = {
            "duration": seconds_of(event.duration),
            "failures": event.failures,
            "error": error_of(event.error),
        }
        if (retry_in := seconds_of(event.retry_in)) is not None:
            details["retry_in"] = retry_in
        if event.will_retry:
            details["will_retry"] = True
        self._note(event, details, notable=True)

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """Note a cancellation."""
        details: dict[str, object] = {}
        if event.duration is not None:
            details["duration"] = seconds_of(event.duration)
        if event.reason is not None:
            details["reason"] = plain(event.reason, MOST_ERROR)
        self._note(event, details, notable=True)

    def task_gave_up(self, event: TaskGaveUp, /) -> None:
        """Note that a name gave up. Its failure was noted before."""
        self._note(event, {"failures": event.failures}, notable=True)

    def task_overdue(self, event: TaskOverdue, /) -> None:
        """Note a run that does not stop."""
        details: dict[str, object] = {"asked_ago": seconds_of(event.at - event.asked_at)}
        self._note(event, details, notable=True)

    def task_forgotten(self, event: TaskForgotten, /) -> None:
        """Note that the failures of a name were forgotten."""
        self.failure_times.pop((event.name, event.operation), None)
        self._note(event, {"failures": event.failures}, notable=True)

    def task_expired(self, event: TaskExpired, /) -> None:
        """Note that the failures of a name expired."""
        self.failure_times.pop((event.name, event.operation), None)
        self._note(event, {"failures": event.failures}, notable=True)

    def task_queued(self, event: TaskQueued, /) -> None:
        """Note a pending run."""
        if len(self.queued) > _SPARE:
            self._drop_begun()
        self.queued[event.name] = event.at
        self._note(event, {"if_busy": event.if_busy})

    def task_superseded(self, event: TaskSuperseded, /) -> None:
        """Note a pending run that will not begin."""
        self._note(event, {})

    def _drop_begun(self) -> None:
        """Drop the times of runs that are no longer pending, if most of them are not."""
        tasks = self.tasks()
        if tasks is not None and len(self.queued) > _SPARE + 2 * len(
            backend_of(tasks).scheduler.pending
        ):
            pending = {run.name for run in tasks.pending()}
            self.queued = {name: at for name, at in self.queued.items() if name in pending}

    def _note(self, event: TaskEvent, details: dict[str, object], *, notable: bool = False) -> None:
        self._log.add(self.label, event, self.now(), details, notable=notable)

    def __repr__(self) -> str:
        return f"<instrument of the status page for the map {self.label!r}, {self.status()}>"


def backend_of(tasks: AnyTaskMap) -> Backend[Any]:
    """Return the part of *tasks* that has its clock and its runs.

    No public method gives the clock of a map, or the times of a Task of asyncio.
    """
    return cast("Any", tasks)._backend  # type: ignore[no-any-return] # noqa: SLF001
