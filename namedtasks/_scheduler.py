"""The rules: which starts are admitted, and what follows from each change.

The scheduler decides and does nothing else. It gets the time as an argument, changes its own
tables, and answers with `Effects`, which a backend carries out. It runs no code of the user's
but ``__hash__`` and ``__eq__`` of names. A call that raises leaves everything as it was.
Where there are threads, every call is made under the map's lock.

===========  =======================================  ======================
state        kept here                                a start
===========  =======================================  ======================
free         nothing                                  admitted
running      ``running[name]``, which has its record  `AlreadyRunningError`
waiting      a record, ``now < retry_at``             `BackoffError`
ready        a record, ``now >= retry_at``            admitted, failures kept
gave up      a record, ``retry_at`` infinite          `GaveUpError`
===========  =======================================  ======================

A closed scheduler refuses all starts with `ClosedError`, before it looks further.

The life of a run: `find_conflict` finds nothing, `admit`, `begin`, `finish`. A start that finds
its name taken may be deferred with `defer`: the run is then *pending*. It holds no name and no
slot. It waits for the end of one run that is in its way, its *blocker*, or, if it queues, for
the end of its name's wait. Whenever that comes about, the scheduler looks again for what is in
its way: it is admitted, waits for the next thing, or is dropped. A name has at most one pending
run; a newer one supersedes it.
"""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar, Union, cast, final

from namedtasks._backoff import BackoffPolicy, compute_backoff, default_retention
from namedtasks._errors import (
    AlreadyRunningError,
    BackoffError,
    ClosedError,
    GaveUpError,
    RefusedError,
    new_error,
    snapshot_exception,
)
from namedtasks._events import EventBus, Instrument
from namedtasks._names import ANY, OverlapIndex, has_any, is_tuple, names_overlap
from namedtasks._state import (
    SMALL,
    Failure,
    FailureRecord,
    FailureRecords,
    Run,
    RunStatus,
    Semaphore,
    ShrinkingDict,
    State,
    TaskMapStatistics,
    TimerHeap,
)
from namedtasks._validation import check_callable, check_count, check_number, check_policy

RunT = TypeVar("RunT", bound=Run)

IfBusy = Literal["refuse", "skip", "join", "replace", "queue"]
"""The choices for a name that cannot start now: the type of ``if_busy``.

- ``"refuse"`` raises a `RefusedError`.
- ``"skip"`` returns None, at half of the cost or less.
- ``"join"`` returns the handle of the run in progress, also of one that was asked to stop: one
  result for all callers. The function is not called, so one name should mean one type of
  result. On asyncio and in threads each caller gets a future of its own; cancelling it, or a
  task that awaits it, does nothing to the run.
- ``"replace"`` cancels the run in progress, and all other runs that overlap the name, and starts
  when all of them have really ended, however they did. It holds the name from now on. A
  function in a thread ends when it returns: a replacement waits for that.
- ``"queue"`` starts one more run as soon as the name may start: after the run in progress, and
  after the wait if there is one.

A deferred run, which replaces or queues, is *pending*. A name has at most one pending run: a
newer one supersedes it, and its handle tells so.

A closed map refuses in all cases. ``"join"`` and ``"queue"`` are refused if another name
overlaps; ``"join"`` and ``"replace"`` are refused while the name waits after a failure; all but
``"skip"`` are refused once the name gave up.

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

_MAX_THREADS = 1_000
"""Threads that a map without a limit runs at once: far above what a machine has
use for, far below where it runs out of them."""

_HOLDERS_TOLD = 10
"""Holders that an error names at most: the cost of a refusal must not grow with them."""

_CLOSING = "the map is closing"
_GAVE_UP = "its name gave up"

# A member of an enum is slower to look up than a global.
_DEFERRED, _QUEUED, _ADMITTED, _BEGUN, _SUCCEEDED, _FAILED, _CANCELLED = RunStatus


# Conflicts: the reasons for which a name cannot start


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


Conflict: TypeAlias = Union[RunT, FailureRecord, Closed, Overlapping[RunT]]  # noqa: UP007 - mypy


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
    if isinstance(conflict, FailureRecord):
        return DEFER if if_busy == "queue" and conflict.retry_at != math.inf else REFUSE
    if isinstance(conflict, Run):
        return JOIN if if_busy == "join" else DEFER
    return DEFER if if_busy == "replace" else REFUSE


def refusal(
    conflict: Conflict[RunT], name: Hashable, operation: str | None, now: float
) -> RefusedError:
    """Return the error that tells what *conflict* means for a start of *name*."""
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
    runs = conflict.runs if isinstance(conflict, Overlapping) else [conflict]
    holders = tuple([run.name for run in runs])
    return new_error(AlreadyRunningError, name, operation, runs[0].started_at, holders)


# Effects and decisions


class Effects(NamedTuple, Generic[RunT]):
    """The consequences of a change, for a backend to carry out."""

    begin: tuple[RunT, ...] = ()
    """Runs whose bodies begin now: they have their names and their slots."""
    dropped: tuple[RunT, ...] = ()
    """Runs that have ended without having begun."""
    replaced: tuple[RunT, ...] = ()
    """Runs to cancel, because a newer start replaces them."""


NO_EFFECTS: Effects[Any] = Effects()
"""The usual consequences: none, and no timer has changed, and no event was emitted. Always this
object, so that an identity check is enough."""


def combine(*parts: Effects[RunT]) -> Effects[RunT]:
    """Return the consequences of several changes, in their order."""
    changes = [part for part in parts if part is not NO_EFFECTS]
    if len(changes) < 2:
        return changes[0] if changes else NO_EFFECTS
    begin, dropped, replaced = zip(*changes, strict=True)
    return Effects(sum(begin, ()), sum(dropped, ()), sum(replaced, ()))


class RetryDecision(NamedTuple):
    """The policy's decision on a failure; for it to count, `failures` must still be right."""

    failures: int
    """The failures in a row, this one included."""
    delay: float | None
    """The wait in seconds; infinite to give up; None for no wait, and no count."""
    recorded: BaseException | None
    """A copy of the error for the record; None if there will be no record."""


@final
class Scheduler(Generic[RunT]):
    """The state of one map, and the rules that change it; see the module's docstring."""

    def __init__(
        self,
        backoff: BackoffPolicy | None,
        retention: float | None,
        limit: int | None,
        overdue_after: float,
        instruments: Iterable[Instrument],
        random: Callable[[], float],
    ) -> None:
        """Make a scheduler with the settings of a map, as its user gave them.

        Raises:
            TypeError: a setting is of the wrong type.
            ValueError: a setting is out of its range.
        """
        check_policy(backoff)
        check_callable("random", random)
        self._policy = backoff
        self._random = random
        if retention is None:
            retention = default_retention(backoff)
        self.records: FailureRecords = FailureRecords(check_number("retention", retention))
        check_count("limit", limit, none_means="no limit")
        self.overdue_after: float = check_number("overdue_after", overdue_after)
        self.events: EventBus = EventBus(instruments)
        self.running: ShrinkingDict[Hashable, RunT] = ShrinkingDict()
        self.pending: ShrinkingDict[Hashable, RunT] = ShrinkingDict()
        self.on_running_changed: Callable[[], object] = tuple
        """Called when `running` is another dict, with less memory, and when the map is closed."""
        self.overlaps: OverlapIndex[RunT] = OverlapIndex()
        """The running names, and those of pending runs that replace others."""
        self.timers: TimerHeap[RunT] = TimerHeap()
        self.slots: Semaphore[RunT] | None = None if limit is None else Semaphore(limit)
        """The slots of all runs; None without a limit."""
        self.thread_slots: Semaphore[RunT] = self.slots or Semaphore(_MAX_THREADS)
        """The slots of runs in the map's own threads."""
        self.closed: bool = False
        self.forked: bool = False
        """True in a forked child of the process that opened the map."""
        self.draining: bool = False
        """True if pending runs that would have to sit out a wait are dropped."""
        self._overdue = 0

    # Looking

    def find_conflict(
        self, name: Hashable, operation: str | None, clock: Callable[[], float]
    ) -> Conflict[RunT] | None:
        """Return what stands in the way of a start; None if nothing does.

        The *clock* is read only if a failure is on record.
        """
        if self.closed:
            return Closed.FORKED if self.forked else Closed.CLOSED
        run = self.running.get(name)
        if run is not None:
            return run
        if isinstance(name, tuple) and (self.overlaps.in_use or ANY in name):
            holders = self.find_holders(cast("Hashable", name), _HOLDERS_TOLD)
            if holders:
                return Overlapping(holders)
        if not self.records.tables or (table := self.records.tables.get(operation)) is None:
            return None
        record = table.records.get(name)  # pyright: ignore[reportUnknownArgumentType]
        return record if record is not None and clock() < record.retry_at else None

    def wait_of(self, name: Hashable, operation: str | None, now: float) -> FailureRecord | None:
        """Return the record of *name* if it waits or was given up."""
        record = self.records.get(name, operation, now)
        return None if record is None or now >= record.retry_at else record

    def look_for_conflict(
        self, name: Hashable, operation: str | None, now: float
    ) -> Conflict[RunT] | None:
        """Return the result of `find_conflict`, and change nothing, not even the index of ANY.

        The caller may be in another thread than the one that changes the tables.
        """
        if self.closed:
            return Closed.FORKED if self.forked else Closed.CLOSED
        run = self.running.get(name)
        if run is not None:
            return run
        if is_tuple(name) and (self.overlaps.in_use or has_any(name)):
            try:
                runs = (
                    self.overlaps.find(name, _HOLDERS_TOLD) if self.overlaps.knows(name) else None
                )
            except RuntimeError:
                runs = None  # another thread has changed the index meanwhile
            if runs is None:
                # Each table is copied in one step, for the same reason.
                held = list(self.running.values())
                held += [one for one in list(self.pending.values()) if one.deferred == "replace"]
                runs = [one for one in held if names_overlap(one.name, name)]
            if runs:
                return Overlapping(runs[:_HOLDERS_TOLD])
        return self.wait_of(name, operation, now)

    def find_holders(self, name: Hashable, most: int = sys.maxsize) -> list[RunT]:
        """Return up to *most* runs that hold *name* or a name that overlaps it."""
        if is_tuple(name) and (self.overlaps.in_use or has_any(name)):
            if not self.overlaps.knows(name):
                replacing = [run for run in self.pending.values() if run.deferred == "replace"]
                self.overlaps.learn(name, [*self.running.values(), *replacing])
            return self.overlaps.find(name, most)
        run = self.running.get(name)
        return [] if run is None else [run]

    def state(self, name: Hashable, operation: str | None, now: float) -> State:
        """Return the state of *name*; its failures are those of exactly this *operation*."""
        if name in self.running:
            return State.RUNNING
        record = self.records.get(name, operation, now)
        if record is None:
            return State.FREE
        if record.retry_at == math.inf:
            return State.GAVE_UP
        return State.READY if now >= record.retry_at else State.WAITING

    def failure(self, name: Hashable, operation: str | None, now: float) -> Failure | None:
        """Return the failures on record of *name*; while it runs, those before the run."""
        run = self.running.get(name)
        record = None if run is None or run.operation != operation else run.record
        if record is None:
            record = self.records.get(name, operation, now)
        if record is None:
            return None
        return Failure(name, operation, record.failures, record.error, record.retry_at)

    def statistics(self) -> TaskMapStatistics:
        """Count. Failures that have expired count until they are swept."""
        return TaskMapStatistics(
            running=len(self.running),
            pending=len(self.pending),
            waiting_for_slot=self.thread_slots.queued,
            overdue=self._overdue,
            waiting=self.records.waiting,
            gave_up=self.records.gave_up,
            limit=None if self.slots is None else self.slots.capacity,
        )

    def is_idle(self) -> bool:
        """Return whether nothing runs and nothing is pending."""
        return not self.running and not self.pending

    # Starting

    def resolve(
        self,
        conflict: Conflict[RunT],
        name: Hashable,
        operation: str | None,
        if_busy: IfBusy,
        clock: Callable[[], float],
    ) -> tuple[StartAction, RefusedError | None]:
        """Return the outcome of a start that finds *conflict*, and the error of a refusal.

        Emits refusals and skips.
        """
        if if_busy == "replace" and isinstance(conflict, Overlapping):
            # Ending those would not be enough: a waiting name is refused anyway.
            conflict = self.wait_of(name, operation, clock()) or conflict
        action = resolve_busy(conflict, if_busy)
        listened = "task_refused" in self.events.listeners
        if action is not REFUSE and not (action is SKIP and listened):
            return action, None
        now = clock()
        error = refusal(conflict, name, operation, now)
        if listened:
            skipped = action is SKIP
            self.events.emit("task_refused", name, operation, now, error=error, skipped=skipped)
        return action, error

    def admit(self, run: RunT, clock: Callable[[], float], *, give_slot: bool = True) -> None:
        """Give *run* its name, and a slot or a place in the queue. There is no conflict.

        The *clock* is read only if a failure of the name is on record.
        """
        name = run.name
        if self.overlaps.in_use and run.deferred != "replace":  # that one is entered already
            self.overlaps.add(run)
        self.running[name] = run
        if self.records.tables:
            record = self.records.take(name, run.operation)
            if record is not None and not self.records.has_expired(record, clock()):
                run.record = record
                run.failures = record.failures
        semaphore = run.semaphore
        if semaphore is not None and give_slot and not semaphore.acquire(run):
            run.status = _QUEUED

    def defer(self, run: RunT, if_busy: IfBusy, now: float) -> Effects[RunT]:
        """Make *run* the pending run of its name; the one before it is superseded.

        Args:
            run: The run.
            if_busy: ``"replace"`` or ``"queue"``.
            now: The time.
        """
        how = cast("Literal['replace', 'queue']", if_busy)
        name = run.name
        before = self.pending.get(name)
        run.deferred = how
        run.status = _DEFERRED
        self.pending[name] = run
        self._emit("task_queued", run, now, if_busy=how)
        followers: list[RunT] = []
        if before is not None:
            before.reason = "superseded by a newer start of its name"
            followers = self._end_deferred(before)
            self._emit("task_superseded", before, now)
        if how == "replace" and self.overlaps.in_use:
            self.overlaps.add(run)
        effects = self._reconsider([run, *followers], now)
        superseded = NO_EFFECTS if before is None else Effects(dropped=(before,))
        holders = self.find_holders(name) if how == "replace" else []
        replaced = tuple([holder for holder in holders if holder is not run])
        return combine(superseded, effects, Effects(replaced=replaced) if replaced else NO_EFFECTS)

    def begin(self, run: RunT, now: float) -> bool:
        """Note that the body of *run* begins: its timeout counts from here.

        Returns:
            True if a timer was set or an event may have been emitted.
        """
        run.status = _BEGUN
        run.started_at = now
        listeners = self.events.listeners
        if run.timeout == math.inf and run.cancelled_at is None and not listeners:
            return False
        run.deadline = now + run.timeout
        self._watch(run)
        self._emit("task_started", run, now, failures=run.failures)
        return True

    # Stopping

    def request_cancel(self, run: RunT, reason: str | None, now: float) -> None:
        """Note that *run* was asked to stop; the first request gives the reason."""
        if run.cancelled_at is None and not run.done:
            run.cancelled_at = now
            run.reason = reason
            self._watch(run)

    def drop(self, run: RunT, reason: str | None, now: float) -> Effects[RunT]:
        """End *run*, whose body has not begun and never will."""
        run.reason = run.reason or reason
        if run.status is not _DEFERRED:
            run.cancelled_at = now
            return combine(Effects(dropped=(run,)), self.finish(run, _CANCELLED, lambda: now))
        followers = self._end_deferred(run)
        self._emit_cancelled(run, now)
        return combine(Effects(dropped=(run,)), self._reconsider(followers, now))

    def drain(self, now: float) -> Effects[RunT]:
        """Drop the pending runs that would have to sit out a wait, now and from now on."""
        self.draining = True
        effects: Effects[RunT] = NO_EFFECTS
        for run in list(self.pending.values()):
            if run.blocker is None and not run.done:  # another one's end may change that
                effects = combine(effects, self.drop(run, _CLOSING, now))
        return effects

    def run_due(self, now: float) -> Effects[RunT]:
        """Reconsider the pending runs whose wait is over, and mark overdue runs."""
        effects: Effects[RunT] = NO_EFFECTS
        while (run := self.timers.pop_due(now)) is not None:
            if run.status is _DEFERRED:
                effects = combine(effects, self._reconsider([run], now))
                continue
            run.overdue = True
            self._overdue += 1
            self._emit(
                "task_overdue",
                run,
                now,
                duration=_duration(run, now),
                asked_at=run.asked_to_stop_at,
            )
        return effects

    # Ending

    def decide_retry(self, run: RunT, error: BaseException) -> RetryDecision:
        """Ask the policy what follows from a failure of *run*, and copy the error.

        This runs code of the user's, and changes nothing: it is not called under a lock.
        """
        failures = run.failures + 1
        delay = compute_backoff(self._policy, failures, error, self._random)
        recorded = None if delay is None else snapshot_exception(error)
        return RetryDecision(failures, delay, recorded)

    def finish(  # noqa: C901 - the one path of all ends
        self,
        run: RunT,
        status: RunStatus,
        clock: Callable[[], float],
        error: BaseException | None = None,
        retry: RetryDecision | None = None,
        *,
        emit: bool = True,
    ) -> Effects[RunT]:
        """End *run*, which holds its name, and release the name.

        Args:
            run: The run.
            status: `SUCCEEDED`, `FAILED` or `CANCELLED`.
            clock: Gives the time. It is read only if something depends on it: for most runs
                nothing does.
            error: The error of a failure.
            retry: The decision on a failure that counts; None keeps the record as it was.
            emit: False if no event tells of the end.
        """
        running = self.running
        listeners = self.events.listeners
        tables = self.records.tables
        followers, record = run.followers, run.record
        is_timed = tables or listeners or followers or record or retry is not None
        now = clock() if is_timed else 0.0
        # The record comes first: so a look from another thread never finds a failed name free.
        if retry is not None and retry.delay is not None and retry.recorded is not None:
            record = FailureRecord(retry.recorded, retry.failures, now + retry.delay)
        if record is not None:
            run.record = None
            if status is not _SUCCEEDED:
                self.records.put(run.name, run.operation, record)
        del running[run.name]
        if not len(running) % SMALL and (running or running.peak):
            self.running = running.shrunk()
            if self.running is not running:
                self.on_running_changed()
        if self.overlaps.in_use:
            self.overlaps.discard(run)
        effects: Effects[RunT] = NO_EFFECTS
        if run.timeout != math.inf or run.cancelled_at is not None:
            self.timers.discard(run)
            effects = Effects()
            if run.overdue:
                self._overdue -= 1
        if followers is not None:
            run.followers = None
            effects = self._reconsider(followers, now, predecessor=run)
        elif run.semaphore is not None:
            following = run.semaphore.release(run)
            if following is not None:
                following.status = _ADMITTED
                effects = Effects((following,))
        run.status = status
        if listeners and emit:
            self._emit_end(run, now, error, retry)
            effects = combine(effects, Effects())
        if tables:
            self.records.sweep(now)
        return effects

    def roll_back(self, run: RunT, clock: Callable[[], float]) -> Effects[RunT]:
        """Undo the admission of *run*, which cannot be started after all. No event tells of it."""
        run.reason = "its start raised an error"
        return self.finish(run, _CANCELLED, clock, emit=False)

    def forget(self, name: Hashable, operation: str | None, now: float) -> Effects[RunT] | None:
        """Drop the failures of *name*, of all operations unless one is given.

        A run goes on; its earlier failures are no longer counted. A pending run that sits out
        their wait is reconsidered.

        Returns:
            None if there was nothing to forget.
        """
        run = self.running.get(name)
        wanted = self.records.operations_of(name, now)
        dropped: list[tuple[str | None, FailureRecord]] = []
        if run is not None and run.record is not None and operation in (None, run.operation):
            dropped.append((run.operation, run.record))
            run.record = None
            run.failures = 0
        for one in wanted:
            if operation in (None, one):
                record = self.records.take(name, one)
                assert record is not None
                dropped.append((one, record))
        for one, record in dropped:
            self.events.emit("task_forgotten", name, one, now, failures=record.failures)
        if not dropped:
            return None
        pending = self.pending.get(name)
        if pending is None or pending.blocker is not None:
            return NO_EFFECTS
        return self._reconsider([pending], now)

    def abandon(self) -> None:
        """Drop everything, in a forked child: no thread or loop runs the runs there."""
        self.closed = self.forked = True
        self.running, self.pending = ShrinkingDict(), ShrinkingDict()
        self.records = FailureRecords(self.records.retention)
        self.timers = TimerHeap()
        self.overlaps = OverlapIndex()
        if self.slots is not None:
            self.slots = Semaphore(self.slots.capacity)
        self.thread_slots = self.slots or Semaphore(_MAX_THREADS)
        self._overdue = 0
        self.events.after_fork()
        self.on_running_changed()

    # Pending runs

    def _end_deferred(self, run: RunT) -> list[RunT]:
        """Take the pending *run* out, and return the runs that wait for it."""
        self._stop_waiting(run)
        if self.pending.get(run.name) is run:
            self._remove_pending(run)
        if run.deferred == "replace" and self.overlaps.in_use:
            self.overlaps.discard(run)
        run.status = _CANCELLED
        followers, run.followers = run.followers or [], None
        return followers

    def _reconsider(
        self, pending: Iterable[RunT], now: float, *, predecessor: RunT | None = None
    ) -> Effects[RunT]:
        """Give the *pending* runs their names, in order, or let each wait for the next thing.

        The first that replaces its *predecessor* gets the slot straight from it.
        """
        admitted: list[RunT] = []
        dropped: list[RunT] = []
        for run in pending:
            self._stop_waiting(run)
            conflict = self._conflict_of(run, now)
            if conflict is None:
                self._remove_pending(run)
                self.admit(run, lambda: now, give_slot=False)
                admitted.append(run)
            elif not isinstance(conflict, FailureRecord):
                run.blocker = conflict
                if conflict.followers is None:
                    conflict.followers = []
                conflict.followers.append(run)
            elif conflict.retry_at == math.inf or self.draining:
                # It queues: so no other run waits for it.
                run.reason = _CLOSING if conflict.retry_at != math.inf else _GAVE_UP
                self._end_deferred(run)
                self._emit_cancelled(run, now)
                dropped.append(run)
            else:
                self.timers.set(run, conflict.retry_at)
        begin = self._give_slots(admitted, predecessor)
        return Effects(tuple(begin), tuple(dropped))

    def _conflict_of(self, run: RunT, now: float) -> RunT | FailureRecord | None:
        """Return a run or a record that is in the way of the pending *run* now."""
        if (
            run.deferred == "replace"
        ):  # only runs are, and it takes its name whatever became of them
            holders = self.find_holders(run.name, 2)
            return next((one for one in holders if one is not run), None)
        own = self.running.get(run.name)
        if own is not None:
            return own
        if is_tuple(run.name):
            holders = self.find_holders(run.name, 1)
            if holders:
                return holders[0]
        return self.wait_of(run.name, run.operation, now)

    def _give_slots(self, admitted: list[RunT], predecessor: RunT | None) -> list[RunT]:
        """Give the *admitted* runs their slots; return the runs that may begin."""
        begin: list[RunT] = []
        heir: RunT | None = None
        if predecessor is not None and predecessor.semaphore is not None:
            semaphore = predecessor.semaphore
            heir = next(
                (
                    run
                    for run in admitted
                    if run.deferred == "replace" and run.semaphore is semaphore
                ),
                None,
            )
            if heir is not None:
                heir.status = _ADMITTED if semaphore.transfer(predecessor, heir) else _QUEUED
            elif (following := semaphore.release(predecessor)) is not None:
                following.status = _ADMITTED
                begin.append(following)
        for run in admitted:
            run.deferred = None
            if run is not heir:
                has_slot = run.semaphore is None or run.semaphore.acquire(run)
                run.status = _ADMITTED if has_slot else _QUEUED
            if run.status is _ADMITTED:
                begin.append(run)
        return begin

    def _stop_waiting(self, run: RunT) -> None:
        self.timers.discard(run)
        blocker, run.blocker = run.blocker, None
        if blocker is not None and blocker.followers is not None and run in blocker.followers:
            blocker.followers.remove(run)

    def _remove_pending(self, run: RunT) -> None:
        del self.pending[run.name]
        if not len(self.pending) % SMALL:
            self.pending = self.pending.shrunk()

    # Inside

    def _watch(self, run: RunT) -> None:
        """Let *run* fall due some time after it was, or will be, asked to stop."""
        if run.asked_to_stop_at != math.inf and not run.overdue:
            self.timers.set(run, run.asked_to_stop_at + self.overdue_after)

    def _emit(self, hook: str, run: RunT, now: float, **fields: Any) -> None:
        self.events.emit(hook, run.name, run.operation, now, run, **fields)

    def _emit_end(
        self, run: RunT, now: float, error: BaseException | None, retry: RetryDecision | None
    ) -> None:
        if run.status is _SUCCEEDED:
            self._emit("task_succeeded", run, now, duration=_duration(run, now))
            return
        if run.status is _CANCELLED:
            self._emit_cancelled(run, now)
            return
        delay = None if retry is None else retry.delay
        failures = run.failures if retry is None or delay is None else retry.failures
        self._emit(
            "task_failed",
            run,
            now,
            duration=_duration(run, now),
            error=error,
            failures=failures,
            retry_at=None if delay is None else now + delay,
            retry_in=delay,
        )
        if delay == math.inf:
            self._emit("task_gave_up", run, now, failures=failures, error=error)

    def _emit_cancelled(self, run: RunT, now: float) -> None:
        duration = None if run.started_at is None else now - run.started_at
        self._emit("task_cancelled", run, now, duration=duration, reason=run.reason)


def _duration(run: Run, now: float) -> float:
    return 0.0 if run.started_at is None else now - run.started_at
