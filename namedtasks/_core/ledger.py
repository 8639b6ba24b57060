"""The state table of names.

The two rules: a name has at most one run, and a name that failed starts again
only when its wait is over.

Theory of operation. What runs and what failed are kept apart. A name is in
``running`` from its admission until its run has really ended. Failures are
records of exactly one (name, operation). Admission takes the record into the
run's care; the run's end decides what becomes of it:

=================  =======================================  ======================
state of the name  kept here                                a start
=================  =======================================  ======================
free               nothing                                  admitted
running            ``running[name]``, its record taken      `AlreadyRunningError`
waiting            a record, ``now < retry_at``             `BackoffError`
ready              a record, ``now >= retry_at``            admitted, failures kept
gave up            a record, ``retry_at`` infinite          `GaveUpError`
=================  =======================================  ======================

A closed ledger refuses all starts with `ClosedError`, before it looks further.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import Generic, TypeVar, final

from namedtasks._core.names import ANY, Overlaps, has_any, is_tuple, overlap
from namedtasks._core.obstacles import Closed, Obstacle, Overlapping
from namedtasks._core.records import Failure, Record, Records, failure_of
from namedtasks._core.runs import Run
from namedtasks._core.table import Table

RunT = TypeVar("RunT", bound=Run)


@final
class State(enum.Enum):
    """What a name is doing: whether it could start, and if not, why not.

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
    """Nothing is known of it; it may start."""
    RUNNING = "running"
    """A run holds the name."""
    WAITING = "waiting"
    """Its last run failed, and the wait is not over."""
    READY = "ready"
    """The wait is over and the failures are still counted; it may start."""
    GAVE_UP = "gave up"
    """Its policy gave it up; it may start after it was forgotten."""


_HOLDERS_TOLD = 10
"""How many holders an error names at most: the price of a refusal must not grow with them."""


@final
class Ledger(Generic[RunT]):
    """Which names run, which wait, and until when."""

    __slots__ = ("closed", "overlaps", "pending", "records", "running")

    def __init__(self, retention: float) -> None:
        self.closed: bool = False
        self.running: Table[Hashable, RunT] = Table()
        self.pending: Table[Hashable, RunT] = Table()
        """Runs that were put off; see ``pending``."""
        self.overlaps: Overlaps[RunT] = Overlaps()
        self.records: Records = Records(retention)

    def is_unknown(self, name: Hashable, operation: str | None) -> bool:
        """Whether nothing is known of *name*, and nothing could overlap it.

        Then it is free, whatever the time is. Most starts are of such names:
        this is a short cut for them, which sends on to `obstacle` whatever is
        out of the ordinary.
        """
        if self.closed or self.pending or not (operation is None or type(operation) is str):
            return False
        if type(name) is not str:
            if name is ANY:
                return False
            if is_tuple(name) and (self.overlaps.in_use or has_any(name)):
                return False
        try:
            if name in self.running:
                return False
        except TypeError:
            return False
        table = self.records.tables.get(operation)
        return table is None or name not in table

    def obstacle(self, name: Hashable, operation: str | None, now: float) -> Obstacle[RunT] | None:
        """What stands in the way of a start; None if nothing does. `check_start` has been asked."""
        run = self.running.get(name)
        if self.closed:
            return Closed.CLOSED
        if run is not None:
            return run
        return self.obstacle_to_pending(name, operation, now)

    def look(self, name: Hashable, operation: str | None, now: float) -> Obstacle[RunT] | None:
        """Return what `obstacle` does, and change nothing: a start makes the index of ANY.

        The caller may be in another thread than the one that changes the tables.
        """
        run = self.running.get(name)
        if self.closed:
            return Closed.CLOSED
        if run is not None:
            return run
        holders = self._look_for_holders(name)
        if holders:
            return Overlapping(holders)
        record = self.wait_of(name, operation, now)
        return None if record is None or record.error is None else record  # dropped meanwhile

    def _look_for_holders(self, name: Hashable) -> list[RunT]:
        """Return what `holders` does for a name that does not run itself, and change nothing."""
        if self.overlaps.covers(name):
            try:
                return self.overlaps.holders(name, _HOLDERS_TOLD)
            except RuntimeError:
                pass  # another thread has changed the index meanwhile
        elif not self.overlaps.wants(name):
            return []
        # Copied in one step, for the same reason.
        found = [run for other, run in list(self.running.items()) if overlap(other, name)]
        return found[:_HOLDERS_TOLD]

    def obstacle_to_pending(
        self, name: Hashable, operation: str | None, now: float
    ) -> Overlapping[RunT] | Record | None:
        """The same for a name that does not run itself, whether closed or not."""
        if isinstance(name, tuple):
            holders = self.holders(name, _HOLDERS_TOLD)  # pyright: ignore[reportUnknownArgumentType]
            if holders:
                return Overlapping(holders)
        return self.wait_of(name, operation, now)  # pyright: ignore[reportUnknownArgumentType]

    def wait_of(self, name: Hashable, operation: str | None, now: float) -> Record | None:
        """The record of *name*, if it waits or was given up."""
        record = self.records.get(name, operation, now)
        return None if record is None or now >= record.retry_at else record

    def holders(self, name: Hashable, most: int) -> list[RunT]:
        """Up to *most* runs that hold *name* or one that overlaps it."""
        if self.overlaps.wants(name):
            replacing = [run for run in self.pending.values() if run.put_off == "replace"]
            self.overlaps.cover(name, [*self.running.values(), *replacing])
        if self.overlaps.covers(name):
            return self.overlaps.holders(name, most)
        run = self.running.get(name)
        return [] if run is None else [run]

    def admit(self, run: RunT, now: float) -> None:
        """Give the name to *run*, with the record that it has; nothing stands in the way."""
        record = self.records.find(run.name, run.operation)
        is_new = self.overlaps.covers(run.name) and run.put_off != "replace"
        if is_new:  # one that replaces others is there already
            self.overlaps.add(run)
        try:
            self.running[run.name] = run
        except BaseException:  # the name's own __hash__ or __eq__
            if is_new:
                self.overlaps.discard(run)
            raise
        if record is None:
            return
        self.records.take(record)
        if not self.records.has_lapsed(record, now):
            run.record = record
            run.failures = record.failures

    def succeed(self, run: RunT) -> None:
        """Free the name; its failures are forgotten."""
        self.release(run)
        self._drop_record(run)

    def fail(self, run: RunT, error: BaseException, delay: float, now: float) -> None:
        """Free the name to wait *delay* seconds; *error* is a stand-in."""
        self.release(run)
        record = run.record or Record(run.name, run.operation)
        run.record = None
        record.failures = run.failures + 1
        record.retry_at = now + delay
        record.error = error
        self.records.put(record)

    def restore(self, run: RunT) -> None:
        """Free the name; its record is as it was before the run."""
        self.release(run)
        record, run.record = run.record, None
        if record is not None:
            self.records.put(record)

    def forget(self, name: Hashable, operation: str | None, now: float) -> list[Record]:
        """Drop the failures of *name*, of all operations if *operation* is None.

        A run goes on; its earlier failures are no longer counted.

        Returns:
            The records that were dropped.
        """
        run = self.running.get(name)
        if operation is None:
            dropped = self.records.of(name, now)
        else:
            record = self.records.get(name, operation, now)
            dropped = [] if record is None else [record]
        if run is not None and run.record and operation in (None, run.operation):
            dropped.insert(0, run.record)
            run.record = None
            run.failures = 0
        for record in dropped:
            self.records.drop(record)
        return dropped

    def state(self, name: Hashable, operation: str | None, now: float) -> State:
        """What *name* is doing; its failures are those of exactly this *operation*."""
        if name in self.running:
            return State.RUNNING
        record = self.records.get(name, operation, now)
        if record is None:
            return State.FREE
        if record.gave_up:
            return State.GAVE_UP
        return State.READY if now >= record.retry_at else State.WAITING

    def failure(self, name: Hashable, operation: str | None, now: float) -> Failure | None:
        """What is on record of *name*; while it runs, what was before the run."""
        run = self.running.get(name)
        record = None if run is None or run.operation != operation else run.record
        if record is None:
            record = self.records.get(name, operation, now)
        return None if record is None else failure_of(record)

    def release(self, run: RunT) -> None:
        """Free the name, and nothing else."""
        self.running.discard(run.name, run)
        if self.overlaps.covers(run.name):
            self.overlaps.discard(run)

    def _drop_record(self, run: RunT) -> None:
        if run.record is not None:
            self.records.drop(run.record)
            run.record = None
