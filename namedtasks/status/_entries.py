"""The names of a map as the page shows them: an entry for each name and operation.

A map has four tables: of runs, pending runs, failures and outcomes. An entry combines what they
hold for one name and operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, final

import attrs

from namedtasks._any_task_map import AnyTaskMap
from namedtasks._scheduler import Scheduler
from namedtasks._state import FailureRecord, Outcome, Run, RunStatus, TaskMapStatistics
from namedtasks.status._text import encoded, error_of, name_of, plain, seconds_of
from namedtasks.status._watch import Key, MapWatch, backend_of

T = TypeVar("T")

EntryState: TypeAlias = Literal[
    "running", "waiting_for_slot", "pending", "waiting", "ready", "gave_up", "ended"
]
STATES: Final[tuple[EntryState, ...]] = (
    "gave_up",
    "waiting",
    "ready",
    "pending",
    "waiting_for_slot",
    "running",
    "ended",
)
"""All states, the most urgent first."""

MOST_OPERATION: Final = 100
"""Characters of an operation, which is usually one word."""


class Facts(NamedTuple):
    """The contents of the tables for one name and operation; equal unless something changed."""

    state: EntryState
    since: float | None = None
    """The time at which the state began, where the map knows it."""
    failures: int = 0
    failing_since: float | None = None
    failed_at: float | None = None
    retry_at: float | None = None
    error: BaseException | None = None
    """A copy of the last error, without its traceback."""
    deadline: float | None = None
    stopping_at: float | None = None
    """The time at which the run was asked to stop."""
    overdue: bool = False
    pending: str | None = None
    """The kind of the pending run."""
    holder: object = None
    """The name of the run that the pending one waits for."""
    outcome: Outcome | None = None


TIMES: Final = ("since", "failing_since", "failed_at", "retry_at", "deadline", "stopping_at")
"""The fields that are times on the map's clock."""


@final
@attrs.define(eq=False)
class Entry:
    """One name and operation of one map, as the page shows it."""

    number: int
    """Its number among all entries so far."""
    label: str
    """The map."""
    name: str
    operation: str | None
    facts: Facts
    _json: bytes | None = None

    @classmethod
    def of(cls, number: int, label: str, key: Key, facts: Facts) -> Entry:
        """Return a new entry for *key*."""
        operation = None if key[1] is None else plain(key[1], MOST_OPERATION)
        return cls(number, label, name_of(key[0]), operation, facts)

    def show(self, facts: Facts) -> None:
        """Show *facts* from now on."""
        self.facts = facts
        self._json = None

    @property
    def json(self) -> bytes:
        """The entry in JSON. Times are seconds on the map's clock."""
        # Made when it is needed: with 10 000 names it is two thirds of the first look.
        if self._json is None:
            self._json = encoded(dict(self._fields()))
        return self._json

    def _fields(self) -> Iterator[tuple[str, object]]:
        facts = self.facts
        yield from (("id", self.number), ("map", self.label), ("name", self.name))
        if self.operation is not None:
            yield "operation", self.operation
        yield "state", facts.state
        for field in TIMES:
            if (moment := seconds_of(getattr(facts, field))) is not None:
                yield field, moment
        if facts.failures:
            yield "failures", facts.failures
        if facts.error is not None:
            yield "error", error_of(facts.error)
        if facts.overdue:
            yield "overdue", True
        if facts.pending is not None:
            yield "pending", facts.pending
        if facts.holder is not None:
            yield "holder", name_of(facts.holder)
        if facts.outcome is not None:
            yield "last", dict(_outcome_fields(facts.outcome, facts.error))

    @property
    def urgency(self) -> tuple[int, int, str, int]:
        """The place of the entry in a list that has the most urgent one first."""
        facts = self.facts
        if facts.state == "gave_up":
            rank = 0
        elif facts.overdue:
            rank = 1
        elif facts.failures:
            rank = 2
        else:
            rank = STATES.index(facts.state)  # 3 and more: the first three have failures
        return rank, -facts.failures, self.name, self.number

    @property
    def place(self) -> tuple[str, str, str, int]:
        """The place of the entry in a list that is sorted by maps and names."""
        return self.label, self.name, self.operation or "", self.number


def _outcome_fields(outcome: Outcome, error: BaseException | None) -> Iterator[tuple[str, object]]:
    """Yield the fields of *outcome*, and its error unless it is *error*."""
    yield "status", outcome.status
    yield "ended_at", seconds_of(outcome.ended_at)
    yield "duration", seconds_of(outcome.duration)
    if outcome.error is not None and outcome.error is not error:
        yield "error", error_of(outcome.error)


# Reading a map


@final
@attrs.define(eq=False)
class Reading:
    """The contents of a map at one time."""

    facts: dict[Key, Facts] = attrs.field(factory=dict[Key, Facts])
    omitted: int = 0
    """The number of records and runs that were left out. A name may have more than one of them."""
    oldest_run_since: float | None = None
    """The time at which the oldest run began."""
    longest_slot_wait_since: float | None = None
    """The time at which the run began to wait that has waited longest for a slot."""
    statistics: TaskMapStatistics | None = None
    """The counts of the map itself."""


class _Tables(NamedTuple):
    """Copies of the tables of a map.

    A map of asyncio or trio goes on while another thread copies them. When a run begins, its map
    enters it and then takes its failures off the record; when it has failed, the map puts them on
    record before it removes the run. So a name that fails is in one of the copies, which are made
    in the order of the fields: it would have to begin and to fail again between two of them.
    """

    failures_before: _Failures
    pending: list[_Pending]
    running: list[Run]
    failures: _Failures
    statistics: TaskMapStatistics


_Failures: TypeAlias = list[tuple[str | None, list[tuple[Hashable, FailureRecord]]]]
"""The names and records of each operation."""

_Pending: TypeAlias = tuple[Run, str | None, Run | None]
"""A pending run, its kind, and the run that it waits for."""


def read(watch: MapWatch, tasks: AnyTaskMap, most: int) -> Reading:
    """Read at most *most* names of *tasks*. Any thread may call it.

    Failures come first, then what runs, what is pending, and the last outcomes.
    """
    now = watch.now()
    backend = backend_of(tasks)
    scheduler = backend.scheduler
    copied = backend.look(partial(_copy, scheduler, now))
    # It may be copied later, because a start leaves the last outcome where it is.
    reader = _Reader(watch, tasks.outcomes(), most)
    has_expired = scheduler.records.has_expired
    reader.read_failures(copied.failures, has_expired, now)
    reader.read_runs(copied.running)
    if reader.has_room():
        reader.read_failures(copied.failures_before, has_expired, now)
    reader.read_pending(copied.pending)
    reader.read_outcomes()
    reader.reading.statistics = copied.statistics
    return reader.reading


def _copy(scheduler: Scheduler[Any], now: float) -> _Tables:
    """Copy the tables of a map; in threads under its lock: 3 ms with 20 000 failures."""
    return _Tables(
        scheduler.records.snapshot(),
        [(run, run.deferred, run.blocker) for run in list(scheduler.pending.values())],
        list(scheduler.running.values()),
        scheduler.records.snapshot(),
        scheduler.statistics(now),
    )


@final
class _Reader:
    """Fills a reading. It takes 2 microseconds for each name, because a map may have thousands."""

    def __init__(self, watch: MapWatch, outcomes: list[Outcome], most: int) -> None:
        self._watch = watch
        self._most = most
        self.reading = Reading()
        self._facts = self.reading.facts
        self._outcomes = {(outcome.name, outcome.operation): outcome for outcome in outcomes}
        """The outcomes of names that have no facts yet."""

    def has_room(self) -> bool:
        """Return whether one more entry may be shown."""
        return len(self._facts) < self._most

    def read_failures(
        self, failures: _Failures, has_expired: Callable[[FailureRecord, float], bool], now: float
    ) -> None:
        found, find_times = self._facts, self._watch.failure_times.get
        take_outcome = self._outcomes.pop
        for operation, records in failures:
            for name, record in records:
                key = (name, operation)
                if key in found or has_expired(record, now):
                    continue
                if not self.has_room():
                    self.reading.omitted += 1
                    continue
                since, last = find_times(key) or _UNKNOWN
                retry_at = record.retry_at
                state: EntryState = "waiting"
                begun = last
                if retry_at == math.inf:
                    state = "gave_up"
                elif now >= retry_at:
                    state, begun = "ready", retry_at
                found[key] = Facts(
                    state,
                    begun,
                    record.failures,
                    since,
                    last,
                    retry_at,
                    record.error,
                    outcome=take_outcome(key, None),
                )

    def read_runs(self, runs: list[Run]) -> None:
        for run in runs:
            self._note_times(run)
        for run in self._those_with_room(runs):
            key = (run.name, run.operation)
            if key in self._facts:  # it has failed meanwhile
                continue
            record = run.record
            first, last = _UNKNOWN
            if record is not None:
                first, last = self._watch.failure_times.get(key) or _UNKNOWN
            waits = run.status is RunStatus.QUEUED
            self._facts[key] = Facts(
                "waiting_for_slot" if waits else "running",
                run.queued_at if waits else run.started_at,
                run.failures,
                first,
                last,
                None,
                None if record is None else record.error,
                run.deadline,
                run.cancelled_at,
                run.overdue,
                outcome=self._outcomes.pop(key, None),
            )

    def _note_times(self, run: Run) -> None:
        """Note the times of *run* for the map, also if the run itself is not shown."""
        reading = self.reading
        if run.status is RunStatus.QUEUED:
            since = _earlier(reading.longest_slot_wait_since, run.queued_at)
            reading.longest_slot_wait_since = since
        else:
            reading.oldest_run_since = _earlier(reading.oldest_run_since, run.started_at)

    def read_pending(self, pending: list[_Pending]) -> None:
        found, queued = self._facts, self._watch.queued
        for run, kind, blocker in self._those_with_room(pending):
            key = (run.name, run.operation)
            if kind is None:  # another thread is just giving it its name
                continue
            facts = found.get(key)
            if facts is None or facts.state == "ready":
                facts = facts or Facts("pending", outcome=self._outcomes.pop(key, None))
                # A retry was not queued: what may be there is the time of an earlier run.
                since = facts.since if kind == "retry" else queued.get(run.name)
                facts = facts._replace(state="pending", since=since)
            holder = None if blocker is None else blocker.name
            found[key] = facts._replace(pending=kind, holder=holder)

    def read_outcomes(self) -> None:
        found, outcomes = self._facts, self._outcomes
        room = max(0, self._most - len(found))
        self.reading.omitted += max(0, len(outcomes) - room)
        for key, outcome in islice(outcomes.items(), room):
            found[key] = Facts("ended", outcome.ended_at, outcome=outcome)

    def _those_with_room(self, runs: list[T]) -> list[T]:
        room = max(0, self._most - len(self._facts))
        self.reading.omitted += max(0, len(runs) - room)
        return runs[:room]


_UNKNOWN: Final = (None, None)


def _earlier(one: float | None, other: float | None) -> float | None:
    return one if other is None or (one is not None and one <= other) else other
