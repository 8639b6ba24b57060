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

    .. versionadded:: 0.1
    """

    hook = "task_started"

    failures: int
    """How many runs of the name failed in a row before this one."""


@attrs.frozen(kw_only=True)
class TaskSucceeded(TaskEvent):
    """A run returned a value.

    .. versionadded:: 0.1
    """

    hook = "task_succeeded"

    duration: float
    """Seconds since its body began."""


@attrs.frozen(kw_only=True)
class TaskFailed(TaskEvent):
    """A run ended by an error.

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
    """A run was cancelled, and heeded it.

    .. versionadded:: 0.1
    """

    hook = "task_cancelled"

    duration: float | None
    """Seconds since its body began; None if it never did."""
    reason: str | None
    """Why, in the words of who cancelled it."""


@attrs.frozen(kw_only=True)
class TaskRefused(TaskEvent):
    """A start was refused.

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

    .. versionadded:: 0.1
    """

    hook = "task_overdue"

    duration: float
    """Seconds since its body began."""
    asked_at: float
    """When it should have begun to stop: when it was cancelled, or its deadline."""


@attrs.frozen(kw_only=True)
class TaskForgotten(TaskEvent):
    """The failures of a name, or of one operation of it, were forgotten on request.

    .. versionadded:: 0.1
    """

    hook = "task_forgotten"

    failures: int
    """How many they were."""


@attrs.frozen(kw_only=True)
class TaskQueued(TaskEvent):
    """A start was put off until its name is free: to replace a run, or to come after it.

    .. versionadded:: 0.1
    """

    hook = "task_queued"

    if_busy: str
    """What the start asked for: ``"replace"`` or ``"queue"``."""


@attrs.frozen(kw_only=True)
class TaskSuperseded(TaskEvent):
    """A run that was put off will never begin: a newer start of its name took its place.

    .. versionadded:: 0.1
    """

    hook = "task_superseded"


class Instrument:
    """Hears what happens in a map. Override what you want to hear; the rest costs nothing.

    The methods are plain functions, called in the map's own thread while it
    waits: they must be quick. One that raises is logged, and its instrument
    hears nothing more from that map.

    .. versionadded:: 0.1
    """

    def task_started(self, event: TaskStarted, /) -> None:
        """A run's body is about to begin."""

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """A run returned a value."""

    def task_failed(self, event: TaskFailed, /) -> None:
        """A run ended by an error."""

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """A run was cancelled, and heeded it."""

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
