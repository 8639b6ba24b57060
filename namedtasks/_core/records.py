"""What is remembered of failures, and for how long.

Theory of operation. A record is *kept* while its name waits, is ready to be
tried again, or was given up. A run takes the record of its name away and either
brings it back (cancelled), replaces it (failed) or drops it (succeeded), so
what is kept here never belongs to a name's current run.

A kept record lapses ``retention`` seconds after its wait ended. That is decided
on reading; sweeping only gives memory back. Beside the tables there is one
deque of the records that may lapse. A sweep looks at its head: a record that is
not kept any more or has lapsed goes, one that has time left moves to the end.
So each look costs the same at any number, nobody's long wait keeps the others'
memory, and a record that has lapsed is found after at most as many looks as
there are records.
"""

import math
from collections import deque
from collections.abc import Hashable
from typing import final

import attrs

from namedtasks._core.table import Table

_LOOKS = 4
"""Records that one sweep takes out at most: each end sweeps once, so memory comes back
faster than failures can take it."""

_LOOKS_WHEN_WAITING = 1_000
"""The same for who waits for the records to end: about 0.6 ms."""


@final
class Record:
    """The failures in a row of one (name, operation).

    A hand-written class, because there may be a million of them: 88 bytes, where
    an attrs class with the same slots takes 96, and one with a dict 136.
    """

    __slots__ = ("error", "failures", "kept", "listed", "name", "operation", "retry_at")

    def __init__(self, name: Hashable, operation: str | None) -> None:
        self.name: Hashable = name
        self.operation: str | None = operation
        self.failures: int = 0
        self.retry_at: float = 0.0
        self.error: BaseException | None = None
        self.kept: bool = False
        """Whether it is in its table."""
        self.listed: bool = False
        """Whether it is in the deque; it may outlive being kept there."""

    @property
    def gave_up(self) -> bool:
        """Whether its policy gave the name up."""
        return self.retry_at == math.inf


@attrs.frozen
class Failure:
    """What is on record of a name's failures.

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
    """The operation that failed, if the start named one."""
    failures: int
    """How many runs failed in a row."""
    error: BaseException
    """A stand-in for the last error: of the same type, with the same arguments,
    without traceback, cause and context; a `RecordedError` where that cannot be had."""
    retry_at: float
    """When the name may start again, in seconds on the map's clock; `math.inf` if it gave up."""

    @property
    def gave_up(self) -> bool:
        """Whether the name starts again only after it was forgotten."""
        return self.retry_at == math.inf


def failure_of(record: Record) -> Failure | None:
    """Return a *record* as its readers see it; None if another thread has dropped it."""
    error = record.error
    if error is None:
        return None
    return Failure(record.name, record.operation, record.failures, error, record.retry_at)


@final
class Records:
    """The failure records of one map."""

    __slots__ = ("gave_up", "order", "retention", "tables", "waiting")

    def __init__(self, retention: float) -> None:
        self.retention: float = retention
        self.waiting: int = 0
        """Kept records that may lapse, those included that have and were not swept yet."""
        self.gave_up: int = 0
        """Kept records that never lapse."""
        self.tables: dict[str | None, Table[Hashable, Record]] = {}
        """Kept records, by their operation and their name; no table is empty.

        Never assigned again: a conductor holds it.
        """
        self.order: deque[Record] = deque()
        """What there is to sweep."""

    def get(self, name: Hashable, operation: str | None, now: float) -> Record | None:
        """The record of exactly this *name* and *operation*, unless it has lapsed."""
        record = self.find(name, operation)
        return None if record is None or self.has_lapsed(record, now) else record

    def find(self, name: Hashable, operation: str | None) -> Record | None:
        """The record of exactly this *name* and *operation*, also if it has lapsed."""
        table = self.tables.get(operation)
        return None if table is None else table.get(name)

    def has_lapsed(self, record: Record, now: float) -> bool:
        """Whether *record* counts no more: decided on reading."""
        return now >= self._lapses_at(record)

    def put(self, record: Record) -> None:
        """Keep *record*; there is none of its name and operation.

        One whose name cannot be looked up any more is let go: nobody can ask for it.
        """
        try:
            before = self.find(record.name, record.operation)
            if before is not None:  # its name has become equal to this one since
                self.drop(before)
            found = self.tables.get(record.operation)
            table: Table[Hashable, Record] = Table() if found is None else found
            table[record.name] = record
        except BaseException:  # the name's own __hash__ or __eq__
            record.error = None
            return
        self.tables[record.operation] = table
        record.kept = True
        if record.gave_up:
            self.gave_up += 1
            return
        self.waiting += 1
        if not record.listed:
            self.order.append(record)
            record.listed = True

    def take(self, record: Record) -> None:
        """Stop keeping *record*; it stays whole."""
        table = self.tables[record.operation]
        table.discard(record.name, record)
        if not table:
            del self.tables[record.operation]
        record.kept = False
        if record.gave_up:
            self.gave_up -= 1
        else:
            self.waiting -= 1

    def drop(self, record: Record) -> None:
        """Forget *record*: the deque may hold it for a while yet, but not its error."""
        if record.kept:
            self.take(record)
        record.error = None

    def of(self, name: Hashable, now: float) -> list[Record]:
        """The records of *name*, whatever the operation, that have not lapsed."""
        found = [self.get(name, operation, now) for operation in self.tables]
        return [record for record in found if record is not None]

    def sweep(self, now: float) -> None:
        """Take out some of what has lapsed. Its cost does not grow with the number of records."""
        order = self.order
        if order:
            head = order[0]
            if head.kept and now < head.retry_at + self.retention < math.inf:
                order.rotate(-1)  # what mostly is so, without a call
            elif self._take_lapsed(now, _LOOKS):
                order.rotate(-1)

    def next_lapse(self, now: float) -> float | None:
        """When to call this again to see the records end; None once no record waits.

        Takes out some of what has lapsed.
        """
        if not self.waiting:
            return None
        head = self._take_lapsed(now, _LOOKS_WHEN_WAITING)
        if head is not None:
            return self._lapses_at(head)
        return now if self.waiting else None

    def _take_lapsed(self, now: float, looks: int) -> Record | None:
        """Take records off the head of the deque; give back the first that has time left."""
        for _ in range(min(looks, len(self.order))):
            record = self.order[0]
            if record.kept and not record.gave_up:
                if now < self._lapses_at(record):
                    return record
                self.take(record)
            self.order.popleft()
            record.listed = False
        return None

    def _lapses_at(self, record: Record) -> float:
        return record.retry_at + self.retention
