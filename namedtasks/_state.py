"""The data that the scheduler decides on: runs, failure records, timers and slots.

Nothing in this module decides or acts. All times are seconds on the map's clock.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any, Final, Generic, Literal, TypeVar, final

import attrs

from namedtasks._errors import TaskCancelledError
from namedtasks._validation import safe_repr
from namedtasks._version import publish

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
RunT = TypeVar("RunT", bound="Run")

SMALL: Final = 64
"""The size up to which a dict is never rebuilt: it uses under 10 KB."""


@final
class State(enum.Enum):
    """The state of a name, which decides about a start.

    Example:
        >>> async with open_task_map() as tasks:
        ...     _ = tasks.start_soon("pvc-1", trio.sleep, 60, timeout=10)
        ...     tasks.state("pvc-1")
        ...     await tasks.wait_idle()
        ...     tasks.state("pvc-1")
        ...     await tasks.wait_free("pvc-1")
        ...     tasks.state("pvc-1")
        <State.RUNNING: 'running'>
        <State.WAITING: 'waiting'>
        <State.READY: 'ready'>

    .. versionadded:: 0.1
    """

    FREE = "free"
    """No run and no failure is on record; the name may start."""
    RUNNING = "running"
    """A run holds the name."""
    WAITING = "waiting"
    """The last run failed, and the wait is not over."""
    READY = "ready"
    """The wait is over, and the failures still count; the name may start."""
    GAVE_UP = "gave up"
    """The policy gave up; the name may start after its failures were forgotten."""


@attrs.frozen
class Failure:
    """The failures in a row of one name and operation.

    Example:
        >>> async with open_task_map() as tasks:
        ...     _ = tasks.start_soon("pvc-1", trio.sleep, 60, timeout=10)
        ...     await tasks.wait_idle()
        ...     failure = tasks.failure("pvc-1")
        ...     print(failure.failures, failure.error)
        ...     failure.retry_at - trio.current_time(), failure.gave_up
        1 it took longer than its timeout of 10 s
        (0.5, False)

    .. versionadded:: 0.1
    """

    name: Hashable
    """The task's name."""
    operation: str | None
    """The operation of the runs that failed; None if their starts named none."""
    failures: int
    """The number of runs that failed in a row."""
    error: BaseException
    """A copy of the last error, of the same type and with the same arguments, without
    traceback, cause and context; a `RecordedError` if the error cannot be copied."""
    retry_at: float
    """The time at which the name may start again, in seconds on the map's clock;
    `math.inf` if the name gave up."""

    @property
    def gave_up(self) -> bool:
        """True if the name may start again only after its failures were forgotten."""
        return self.retry_at == math.inf


@attrs.frozen
class PendingRun:
    """A run that was accepted, and waits to take its name.

    Example:
        >>> async with open_task_map() as tasks:
        ...     _ = tasks.start_soon("pvc-1", trio.sleep, 60)
        ...     _ = tasks.start_soon("pvc-1", trio.sleep, 60, if_busy="queue", operation="resize")
        ...     for run in tasks.pending():
        ...         print(f"{run.operation} of {run.name} comes after {run.holder}")
        resize of pvc-1 comes after pvc-1

    .. versionadded:: 0.1
    """

    name: Hashable
    """The task's name."""
    operation: str | None
    """The operation that the start named, if any."""
    kind: Literal["replace", "queue", "retry"]
    """The purpose of the run: to replace a run, to follow it, or to try again after a failure."""
    holder: Hashable
    """The name of the run whose end it waits for; None if it waits for a time."""
    retry_at: float | None
    """The time at which the wait of its name ends, in seconds on the map's clock; None if it
    waits for a run."""


@attrs.frozen(kw_only=True)
class Outcome:
    """The last outcome of one name and operation.

    Example:
        >>> def attach(volume):
        ...     if volume == "pvc-2":
        ...         raise OSError("device busy")
        >>> with ThreadTaskMap(keep_outcomes=10, instruments=()) as tasks:
        ...     for volume in ("pvc-1", "pvc-2"):
        ...         _ = tasks.submit(volume, attach, volume).exception()
        ...     for outcome in tasks.outcomes():
        ...         print(outcome.name, outcome.status, outcome.error)
        pvc-1 succeeded None
        pvc-2 failed device busy

    .. versionadded:: 0.1
    """

    name: Hashable
    """The task's name."""
    operation: str | None
    """The operation that the start named, if any."""
    status: Literal["succeeded", "failed", "cancelled"]
    """The kind of end; a run that was stopped by its timeout has failed."""
    ended_at: float
    """The time of the end, in seconds on the map's clock."""
    duration: float
    """Seconds since the body began."""
    error: BaseException | None
    """A copy of the error of a failed run, as in `Failure.error`; None for other runs."""


@attrs.frozen(kw_only=True)
class TaskMapStatistics:
    """Counts of the runs and failures of a map at one moment.

    Their cost does not grow with the number of names, on average: the search for the oldest
    run looks at each run once.

    Example:
        >>> async with open_task_map(limit=1) as tasks:
        ...     for volume in ("pvc-1", "pvc-2", "pvc-3"):
        ...         _ = tasks.start_soon(volume, trio.sleep, 5)
        ...     counts = tasks.statistics()
        ...     print(f"{counts.running} run, {counts.waiting_for_slot} wait for a slot")
        3 run, 2 wait for a slot

    .. versionadded:: 0.1
    """

    running: int
    """The number of names that run, including those whose run waits for a slot."""
    pending: int
    """The number of pending runs: starts that replace or queue, and retries that wait."""
    waiting_for_slot: int
    """The number of runs that wait for a slot: with a limit, or beyond 1 000 threads."""
    overdue: int
    """The number of runs that are overdue: they were asked to stop, and did not stop in time."""
    waiting: int
    """The number of failures on record of names that do not run: waiting, or ready for the next
    start. It may include expired ones, because the map removes only a few at a time."""
    gave_up: int
    """The number of failures on record that stay until they are forgotten."""
    max_failures: int
    """The largest number of failures in a row of a name and operation, also while it runs."""
    failing: int
    """The number of names and operations with ``failure_threshold`` failures in a row or more."""
    oldest_run_age: float
    """Seconds since the body of the oldest run began; 0 if none has begun."""
    longest_slot_wait: float
    """Seconds for which the first run in the queue has waited for a slot; 0 if none waits."""
    limit: int | None
    """The number of bodies that may run at once; None for no limit."""


# Runs

MAP_POLICY: Final = "map"
"""The value of *backoff* that means the map's own policy."""


class RunStatus(enum.IntEnum):
    """The stages of a run, in order; `SUCCEEDED` and later mean that it has ended."""

    DEFERRED = 0
    """It does not hold its name yet: it waits for a run or for a backoff to end."""
    QUEUED = 1
    """It holds its name, and waits for a slot."""
    ADMITTED = 2
    """It holds its name and its slot; its body has not begun."""
    BEGUN = 3
    SUCCEEDED = 4
    FAILED = 5
    CANCELLED = 6


# A member of an enum is slower to look up than a global.
QUEUED: Final = RunStatus.QUEUED
ADMITTED: Final = RunStatus.ADMITTED
SUCCEEDED: Final = RunStatus.SUCCEEDED


_run_ids = itertools.count(1)


class Run:
    """One run of a name, as the scheduler needs it; each dialect has a subclass.

    A hand-written class, because one is made for each start. Most defaults are attributes of
    the class, so making a run writes ten attributes and not two dozen. The attributes that are
    read for each run are written, because reading a default from the class costs four times as
    much.
    """

    # Written by the scheduler.
    failures: int = 0
    """The number of runs that failed in a row before this one."""
    started_at: float | None = None
    """The time at which the body began; None until then."""
    deadline: float = math.inf
    """The time at which its timeout ends."""
    reason: str | None = None
    """The reason of its cancellation, if one was given."""
    overdue: bool = False
    """True if it still ran `overdue_after` seconds after it should have stopped."""
    deferred: Literal["replace", "queue", "retry"] | None = None
    """The kind of a deferred run; None after it took its name."""
    blocker: Run | None = None
    """The run whose end this deferred run waits for; None if it waits for a time."""
    position: int = 0
    """Its place in the queue for a slot."""
    queued_at: float = 0.0
    """The time at which it, or the run that it replaced, began to wait for a slot."""
    attempt: int = 0
    """The index of this attempt, from 0."""
    bodies_before: int = 0
    """The number of bodies that began in earlier attempts."""
    last_failure: BaseException | None = None
    """A copy of the error of the attempt before this one."""
    lost_worker: bool = False
    """True if it was asked to stop because its pool has lost a worker."""
    _id: int = 0

    # Given by the start.
    backoff: Any = MAP_POLICY
    """The policy for its failures; the map's own unless the start has another one."""
    retry: bool = False
    """True if a failure is followed by another attempt."""
    source: Any = None
    """The parts from which a dialect makes the body of another attempt."""

    # Written by the backends.
    error: BaseException | None = None
    """The error that the run failed with."""
    value: Any = None
    """The value that the body returned."""
    handle: Any = None
    """The handle, future or Task that the map returns while the run lasts."""

    def __init__(
        self,
        backend: Any,
        name: Hashable,
        operation: str | None,
        timeout: float,
        semaphore: Semaphore[Any] | None,
    ) -> None:
        self.backend: Any = backend
        self.name: Hashable = name
        self.operation: str | None = operation
        self.timeout: float = timeout
        self.semaphore: Semaphore[Any] | None = semaphore
        """The slots of which it needs one; None if there is no limit."""
        self.status: RunStatus = ADMITTED
        self.record: FailureRecord | None = None
        """The record of the failures before this run, which keeps it until its end."""
        self.cancelled_at: float | None = None
        """The time of the first request to cancel it; None if there was none."""
        self.followers: list[Any] | None = None
        """The deferred runs whose blocker this is."""
        self.waiters: Any = None
        """The wait queue of the callers that wait for its end; the first of them makes it."""

    @property
    def done(self) -> bool:
        """True if the run has ended and its name is released."""
        return self.status >= SUCCEEDED

    @property
    def id(self) -> int:
        """Its number, unique in the process. It is given on first use, under the lock."""
        if not self._id:
            self._id = next(_run_ids)
        return self._id

    @property
    def attempts(self) -> int:
        """The number of bodies that have begun."""
        return self.bodies_before + (self.started_at is not None)

    def is_cancel_requested(self) -> bool:
        """Return whether a caller has asked it to stop."""
        return self.cancelled_at is not None

    def end_attempt(self) -> None:
        """Reset the state of one attempt, because another one follows."""
        self.attempt += 1
        self.bodies_before += self.started_at is not None
        self.started_at = self.cancelled_at = self.reason = None
        self.deadline = math.inf
        self.overdue = self.lost_worker = False

    @property
    def asked_to_stop_at(self) -> float:
        """The time of its deadline or its first cancellation; infinite if there is neither."""
        if self.cancelled_at is None:
            return self.deadline
        return min(self.deadline, self.cancelled_at)

    def timed_out(self) -> bool:
        """Return whether the deadline came before any cancellation."""
        return self.cancelled_at is None or self.deadline <= self.cancelled_at

    def cancelled_error(self, message: str | None = None) -> TaskCancelledError:
        """Return a new error for a caller that waits for this cancelled run.

        The *message* is the reason if no other was given.
        """
        reason = message if self.reason is None else self.reason
        error = TaskCancelledError(self.name, self.operation, reason)
        if self.last_failure is not None:
            error.__cause__ = self.last_failure
        return error

    # For the body, through `current_run()`. Callable from any thread.

    def is_asked_to_stop(self) -> bool:
        """Return whether it was cancelled or its deadline has passed."""
        if self.cancelled_at is not None:
            return True
        return self.timeout != math.inf and self.backend.now() >= self.deadline

    def check_cancelled(self) -> None:
        """Raise an error if the body should stop.

        Raises:
            TaskCancelledError: the run was cancelled, or its deadline has passed.
        """
        if self.is_asked_to_stop():
            raise self.cancelled_error()

    def acknowledges_cancel(self, error: BaseException | None) -> bool:
        """Return whether *error* was raised by `check_cancelled` of this run."""
        return (
            type(error) is TaskCancelledError
            and error.name is self.name
            and self.is_asked_to_stop()
        )

    @property
    def overdue_after(self) -> float:
        """Seconds after which a run that was asked to stop is overdue."""
        seconds: float = self.backend.scheduler.overdue_after
        return seconds

    def note_lost_worker(self, attempt: int | None = None) -> None:
        """Ask the run to stop, because its pool has lost a worker, in this *attempt* if given."""
        self.backend.note_lost_worker(self, attempt)

    def __repr__(self) -> str:
        return f"{safe_repr(self.name)} {'done' if self.done else 'running'}"


# Failure records


@final
class FailureRecord:
    """The failures in a row of one name and operation.

    A hand-written class, because there may be a million of them: 56 bytes each.
    """

    __slots__ = ("error", "failures", "retry_at")

    def __init__(self, error: BaseException, failures: int, retry_at: float) -> None:
        self.error: BaseException = error
        self.failures: int = failures
        self.retry_at: float = retry_at


@final
class FailureTable:
    """The records of one operation, by name, with the order in which they are swept.

    The order may contain names that no longer have a record, and a name twice. It is rebuilt
    when it is twice as long as the table.
    """

    def __init__(self) -> None:
        self.records: ShrinkingDict[Hashable, FailureRecord] = ShrinkingDict()
        self.order: deque[Hashable] = deque()

    def pop(self, name: Hashable) -> FailureRecord:
        """Remove the record of *name*, and free memory."""
        records = self.records
        record = records.pop(name)
        if not len(records) % SMALL:
            self.records = records.shrunk()
            self.trim()
        return record

    def trim(self) -> None:
        """Drop the useless entries of the order, if there are many."""
        if len(self.order) > 2 * len(self.records) + SMALL:
            self.order = deque(self.records)


@final
class FailureRecords:
    """The failures on record of one map.

    A record is here while its name waits, is ready for the next start, or gave up. A run
    takes the record of its name, and at its end puts it back (cancelled), replaces it (failed)
    or drops it (succeeded). A record expires ``retention`` seconds after the end of its wait.
    Readers check that; sweeping only frees memory. Each sweep looks at the first few entries of
    one table's order, so its cost does not depend on the number of records.
    """

    _REMOVED_PER_SWEEP = 8
    """More than one, so that memory is freed faster than failures can use it."""
    _REMOVED_BY_A_WAIT = 1_000
    """The same for a caller that waits for the records to end: about 0.6 ms."""

    def __init__(self, retention: float) -> None:
        self.retention: float = retention
        self.waiting: int = 0
        """Records that can expire, including expired ones that were not swept yet."""
        self.gave_up: int = 0
        """Records that never expire."""
        self.tables: dict[str | None, FailureTable] = {}
        """Tables by operation; none is empty."""
        self.turn: deque[str | None] = deque()
        """The operations, in the order in which their tables are swept."""
        self.held: set[FailureRecord] = set()
        """Records that do not expire, because a retry waits for the end of their wait."""
        self.waits: TimerHeap[FailureRecord] | None = None
        """The records by the end of their wait; None before the first call of `next_retry_at`."""
        self.on_expired: Callable[[Hashable, str | None, FailureRecord, float], object] = _ignore
        """Called with name, operation, record and time when an expired record is removed."""

    def get(self, name: Hashable, operation: str | None, now: float) -> FailureRecord | None:
        """Return the record of *name* and *operation*, unless it has expired."""
        table = self.tables.get(operation)
        record = None if table is None else table.records.get(name)
        return None if record is None or self.has_expired(record, now) else record

    def has_expired(self, record: FailureRecord, now: float) -> bool:
        """Return whether *record* no longer counts."""
        return now >= record.retry_at + self.retention and record not in self.held

    def put(self, name: Hashable, operation: str | None, record: FailureRecord) -> None:
        """Add a record; there is none of its name and operation."""
        table = self.tables.get(operation)
        if table is None:
            table = self.tables[operation] = FailureTable()
            self.turn.append(operation)
        elif table.order:
            # Names with the same failure share one copy of the error.
            newest = table.records.get(table.order[-1])
            if newest is not None and _are_alike(newest.error, record.error):
                record.error = newest.error
        table.records[name] = record
        if record.retry_at == math.inf:
            self.gave_up += 1
            return
        self.waiting += 1
        table.order.append(name)
        table.trim()
        if self.waits is not None:
            self.waits.set(record, record.retry_at)

    def take(self, name: Hashable, operation: str | None) -> FailureRecord | None:
        """Remove and return the record of *name* and *operation*, also one that has expired."""
        table = self.tables.get(operation)
        if table is None or name not in table.records:
            return None
        record = table.pop(name)
        if record.retry_at == math.inf:
            self.gave_up -= 1
        else:
            self.waiting -= 1
            self.held.discard(record)
            if self.waits is not None:
                self.waits.discard(record)
        if not table.records:
            del self.tables[operation]
            self.turn.remove(operation)
        return record

    def operations_of(self, name: Hashable, now: float) -> list[str | None]:
        """Return the operations of *name* that have a record that has not expired."""
        return [operation for operation in self.tables if self.get(name, operation, now)]

    def snapshot(self) -> list[tuple[str | None, list[tuple[Hashable, FailureRecord]]]]:
        """Return all names and records by operation, including expired ones."""
        tables = list(self.tables.items())
        return [(operation, list(table.records.items())) for operation, table in tables]

    def next_retry_at(self, now: float) -> float | None:
        """Return the time at which the next wait ends; None if no name waits."""
        if self.waits is None:
            self.waits = TimerHeap()
            for table in self.tables.values():
                for record in table.records.values():
                    if now < record.retry_at < math.inf:
                        self.waits.set(record, record.retry_at)
        while self.waits.pop_due(now) is not None:
            pass
        return self.waits.next_due()

    def sweep(self, now: float) -> None:
        """Remove some of the records that have expired."""
        turn = self.turn
        if turn:
            operation = turn[0]
            turn.rotate(-1)
            if self._sweep_table(operation, now, self._REMOVED_PER_SWEEP) is not None:
                self.tables[operation].order.rotate(-1)

    def next_expiry(self, now: float) -> float | None:
        """Return the time at which to call this again; None once no record waits.

        Removes records that have expired.
        """
        if not self.waiting:
            return None
        for operation in list(self.turn):
            first = self._sweep_table(operation, now, self._REMOVED_BY_A_WAIT)
            if first is not None:
                return first.retry_at + self.retention
        return now if self.waiting else None

    def _sweep_table(self, operation: str | None, now: float, most: int) -> FailureRecord | None:
        """Remove expired records of the table of *operation* from the head of its order.

        Returns:
            The first record that has not expired, if one was reached.
        """
        for _ in range(most):
            table = self.tables.get(operation)
            if table is None or not table.order:
                return None
            name = table.order[0]
            record = table.records.get(name)
            if record is not None and record.retry_at != math.inf:
                if not self.has_expired(record, now):
                    return record
                self.take(name, operation)
                self.on_expired(name, operation, record, now)
            if table.order and table.order[0] is name:
                table.order.popleft()
        return None


def _ignore(*_: object) -> None:
    pass


def _are_alike(one: BaseException, other: BaseException) -> bool:
    """Return whether two copies are of one error: of the same type, with identical arguments.

    All errors without arguments share one empty tuple, so that does not identify an error.
    """
    return (
        type(one) is type(other)
        and bool(one.args)
        and one.args is other.args
        and not getattr(one, "__dict__", None)
        and not getattr(other, "__dict__", None)
        and not isinstance(one, OSError | BaseExceptionGroup)
    )


# Containers


def read_shared(read: Callable[[], T]) -> T:
    """Return the result of *read*, which iterates over data that another thread may change."""
    while True:
        try:
            return read()
        except (RuntimeError, KeyError):  # it was changed during the iteration
            continue


@final
class ShrinkingDict(dict[K, V]):
    """A dict that can be replaced by a smaller copy of itself.

    A dict never shrinks by deletion: after a million names it keeps 30 MB and more.
    Code that deletes entries calls `shrunk` when the size is a multiple of `SMALL`.
    """

    __slots__ = ("peak",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.peak: int = len(self)
        """The largest size that was seen."""

    def shrunk(self) -> ShrinkingDict[K, V]:
        """Return a copy if the dict is under an eighth of its largest size, else itself.

        So copying adds less than one insertion to the cost of each deletion. Another thread
        that reads the old dict meanwhile finds it complete.
        """
        size = len(self)
        if size > self.peak:
            self.peak = size
        elif size * 8 <= self.peak and self.peak > SMALL:
            return ShrinkingDict(self)
        return self


class _TimerEntry(Generic[T]):
    """An entry of the heap; its item is None once it was removed."""

    __slots__ = ("item", "when")

    def __init__(self, when: float, item: T) -> None:
        self.when = when
        self.item: T | None = item

    def __lt__(self, other: _TimerEntry[T]) -> bool:
        return self.when < other.when


@final
class TimerHeap(Generic[T]):
    """Items in the order in which they are due; each has one time at most.

    A removed item leaves an empty entry in the heap, which is removed when it is due, or when
    half of the entries are empty.
    """

    def __init__(self) -> None:
        self._heap: list[_TimerEntry[T]] = []
        self._entries: dict[T, _TimerEntry[T]] = {}
        self.changed: bool = False
        """True if an item was added or removed since the backend last looked."""

    def __len__(self) -> int:
        return len(self._entries)

    def set(self, item: T, when: float) -> None:
        """Add *item*, or move it, so that it is due at *when*."""
        self.discard(item)
        self.changed = True
        entry = self._entries[item] = _TimerEntry(when, item)
        heapq.heappush(self._heap, entry)

    def discard(self, item: T) -> None:
        """Remove *item*, if it is here."""
        entry = self._entries.pop(item, None)
        if entry is None:
            return
        self.changed = True
        entry.item = None
        if len(self._heap) > 2 * len(self._entries):
            self._entries = dict(self._entries)
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def next_due(self) -> float | None:
        """Return the time at which the next item is due; None if there is none."""
        while self._heap:
            head = self._heap[0]
            if head.item is not None:
                return head.when
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> T | None:
        """Remove and return one item that is due; None if none is."""
        due = self.next_due()
        if due is None or due > now:
            return None
        item = self._heap[0].item
        assert item is not None  # `next_due` has removed the empty entries
        self.discard(item)
        return item


@final
class Semaphore(Generic[RunT]):
    """At most *capacity* slots, assigned in the order of admission."""

    def __init__(self, capacity: int) -> None:
        self.capacity: int = capacity
        self.used: int = 0
        # An OrderedDict removes its first entry and any other at the same low cost. In a dict,
        # reaching the first entry costs more, the more entries were deleted before it.
        self._queue: OrderedDict[int, RunT] = OrderedDict()
        self._last = 0

    @property
    def queued(self) -> int:
        """The number of runs that wait for a slot."""
        return len(self._queue)

    def acquire(self, run: RunT) -> bool:
        """Give *run* a slot, or add it to the queue; return True if it has a slot."""
        if self.used < self.capacity:
            self.used += 1
            return True
        self._last += 1
        run.position = self._last
        self._queue[run.position] = run
        return False

    def first(self) -> RunT | None:
        """Return the run that has waited for a slot for longest. Callable from any thread."""
        return read_shared(lambda: next(iter(self._queue.values()), None))

    def release(self, run: RunT) -> RunT | None:
        """Take back the slot of *run*, or remove it from the queue.

        Returns:
            The run that has got the slot, if there is one.
        """
        first: RunT | None = None
        if run.status is RunStatus.QUEUED:
            del self._queue[run.position]
        elif self._queue:
            _, first = self._queue.popitem(last=False)
        else:
            self.used -= 1
            return None
        if not self._queue:
            self._queue = OrderedDict()  # the old one keeps the memory of its longest queue
        return first

    def transfer(self, run: RunT, heir: RunT) -> bool:
        """Give the slot of *run*, or its place in the queue, to *heir*; return True for a slot."""
        if run.status is not RunStatus.QUEUED:
            return True
        heir.position, heir.queued_at = run.position, run.queued_at
        self._queue[heir.position] = heir
        return False


publish(State, Failure, PendingRun, Outcome, TaskMapStatistics)
