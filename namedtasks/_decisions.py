"""The decisions of a scheduler: conflicts of starts, and effects of changes.

Nothing in this module changes anything.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable
from typing import (
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    TypeAlias,
    TypedDict,
    TypeVar,
    Union,
    final,
)

from namedtasks._backoff import BackoffPolicy
from namedtasks._errors import (
    AlreadyRunningError,
    BackoffError,
    ClosedError,
    GaveUpError,
    RefusedError,
    StaleLookError,
    new_error,
)
from namedtasks._observations import Mark, Observation
from namedtasks._state import MAP_POLICY, FailureRecord, Run

RunT = TypeVar("RunT", bound=Run)

IfBusy = Literal["refuse", "skip", "join", "replace", "queue"]
"""The choices for a name that cannot start now: the type of ``if_busy``.

- ``"refuse"`` raises a `RefusedError`.
- ``"skip"`` returns None, at half of the cost or less.
- ``"join"`` returns the handle of the run in progress, also if that was asked to stop: all
  callers get one result. The function is not called, so one name should mean one type of
  result. On asyncio and in threads each caller gets its own future; cancelling the future, or a
  task that awaits it, does not affect the run.
- ``"replace"`` cancels the run in progress, and all other runs that overlap the name. The new
  run begins when all of them have really ended, and holds its name from now on. A function in a
  thread ends when it returns, so a replacement waits for that.
- ``"queue"`` starts one more run as soon as the name may start: after the run in progress, and
  after the wait if there is one.

A deferred run, which replaces or queues, is *pending*. A name has at most one pending run: a
newer one supersedes it: the older one is cancelled, with that as the reason.

A start with ``retry=True`` that waits for its next attempt is pending, too: ``"join"`` returns
its handle, and ``"queue"`` supersedes it. The choice is for the first attempt only.

A closed map refuses every start. With ``since=``, an old listing is refused with every value but
``"skip"``, which returns None. ``"join"`` and ``"queue"`` are refused if a run of another name
overlaps. ``"join"`` and ``"replace"`` are refused while the name waits after a failure. All but
``"skip"`` are refused if the name gave up.

Example:
    >>> def attach(tasks: TaskMap, volume: str, if_busy: IfBusy) -> TaskHandle[None] | None:
    ...     return tasks.start_soon(volume, trio.sleep, 5, if_busy=if_busy)
    >>> async with open_task_map() as tasks:
    ...     attach(tasks, "pvc-1", "skip")
    ...     attach(tasks, "pvc-1", "join") is tasks["pvc-1"]
    ...     attach(tasks, "pvc-1", "skip") is None
    <namedtasks.TaskHandle 'pvc-1' not begun>
    True
    True

.. versionadded:: 0.1
"""


# Conflicts: the reasons why a name cannot start


@final
class Closed(enum.Enum):
    """The conflict of a closed map."""

    CLOSED = enum.auto()
    FORKED = enum.auto()
    """In a forked child: the map was opened in the parent process."""


class Overlapping(NamedTuple, Generic[RunT]):
    """The conflict of runs under other names that overlap the name of the start."""

    runs: list[RunT]
    """The runs, or the first few of them: at least one."""


@final
class Stale(enum.Enum):
    """The conflict of a start that acts on an old listing."""

    ENDED = enum.auto()
    """A run has ended since the observation began."""
    UNKNOWN = enum.auto()
    """The observation has expired: a run may have ended."""


Conflict: TypeAlias = Union[  # noqa: UP007 - mypy
    RunT, FailureRecord, Closed, Stale, Overlapping[RunT]
]


class StartAction(enum.Enum):
    """The outcome of a start."""

    ADMIT = enum.auto()
    REFUSE = enum.auto()
    SKIP = enum.auto()
    JOIN = enum.auto()
    DEFER = enum.auto()


# A member of an enum is slower to look up than a global.
CLOSED: Final = Closed.CLOSED
ADMIT: Final = StartAction.ADMIT
REFUSE: Final = StartAction.REFUSE
SKIP: Final = StartAction.SKIP
JOIN: Final = StartAction.JOIN
DEFER: Final = StartAction.DEFER


def resolve_busy(conflict: Conflict[RunT] | None, if_busy: IfBusy) -> StartAction:
    """Return the outcome of a start that finds *conflict*: the table of ``if_busy``."""
    if conflict is None:
        return ADMIT
    if if_busy == "refuse" or isinstance(conflict, Closed):
        return REFUSE
    if if_busy == "skip":
        return SKIP
    if isinstance(conflict, Stale):
        return REFUSE
    if isinstance(conflict, FailureRecord):
        return DEFER if if_busy == "queue" and conflict.retry_at != math.inf else REFUSE
    if isinstance(conflict, Run):
        return JOIN if if_busy == "join" else DEFER
    return DEFER if if_busy == "replace" else REFUSE


def refusal(
    conflict: Conflict[RunT], name: Hashable, operation: str | None, now: float
) -> RefusedError:
    """Return the error of a start of *name* that finds *conflict*."""
    if isinstance(conflict, FailureRecord):
        retry_at, failures = conflict.retry_at, conflict.failures
        error: RefusedError
        if retry_at == math.inf:
            error = GaveUpError(name, operation, failures)
        else:
            error = new_error(BackoffError, name, operation, failures, retry_at, retry_at - now)
        error.__cause__ = conflict.error
        return error
    if isinstance(conflict, Closed):
        return ClosedError(name, operation, conflict is Closed.FORKED)
    if isinstance(conflict, Stale):
        return StaleLookError(name, operation, conflict is Stale.UNKNOWN)
    runs = conflict.runs if isinstance(conflict, Overlapping) else [conflict]
    holders = tuple([run.name for run in runs])
    return new_error(AlreadyRunningError, name, operation, runs[0].started_at, holders)


# Effects and decisions


class Effects(NamedTuple, Generic[RunT]):
    """The consequences of a change, for a backend to carry out."""

    begin: tuple[RunT, ...] = ()
    """Runs whose bodies begin now: they have their names and their slots."""
    dropped: tuple[RunT, ...] = ()
    """Runs that have ended before they began."""
    replaced: tuple[RunT, ...] = ()
    """Runs to cancel, because a newer start replaces them."""


NO_EFFECTS: Effects[Any] = Effects()
"""The usual consequences: none. No timer has changed, and no event was emitted. It is always this
object, so that an identity check is enough."""


def combine(*parts: Effects[RunT]) -> Effects[RunT]:
    """Return the consequences of several changes, in their order."""
    changes = [part for part in parts if part is not NO_EFFECTS]
    if len(changes) < 2:
        return changes[0] if changes else NO_EFFECTS
    begin, dropped, replaced = zip(*changes, strict=True)
    return Effects(sum(begin, ()), sum(dropped, ()), sum(replaced, ()))


StartPolicy: TypeAlias = BackoffPolicy | Literal["map"] | None
"""The type of a start's ``backoff``: a policy of its own, none, or the map's."""


class StartKeywords(TypedDict, total=False):
    """The keyword arguments for the options that few starts have.

    On CPython 3.11, three parameters with defaults instead would make a skipped start 10 to 15 %
    more expensive.
    """

    backoff: StartPolicy
    since: Observation | None
    retry: bool


class StartOptions(NamedTuple):
    """The options of a start that few starts have."""

    backoff: Any = MAP_POLICY
    """The policy for its failures; `MAP_POLICY` for the map's own."""
    since: Mark | None = None
    """The mark of the observation that began before the listing that the start acts on."""
    retry: bool = False
    """True if failures are followed by further attempts."""


class RetryDecision(NamedTuple):
    """The policy's decision on a failure; it is valid only while `before` is still right."""

    before: int
    """The failures in a row before this one."""
    failures: int
    """The failures in a row, this one included."""
    delay: float | None
    """The wait in seconds; infinite if the name gives up; None for no wait and no count."""
    recorded: BaseException | None
    """A copy of the error for the record; None if no record follows."""
