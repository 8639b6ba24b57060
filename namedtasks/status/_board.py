"""The contents of the page, shared by all viewers, and the order of its changes.

There is no background task: requests and streams look at the maps, unless another one has done so
just before. Each change gets the next number, so a viewer is up to date up to one number. A viewer
that is behind gets the newest state of each thing that it has missed, and no older states.

Any thread may call any method.
"""

from __future__ import annotations

import secrets
import threading
import time
from bisect import bisect_right
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from heapq import nsmallest
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Final, Literal, NamedTuple, TypeAlias, final

import attrs

from namedtasks._state import TaskMapStatistics
from namedtasks.status._entries import STATES, Entry, EntryState, Facts, Reading, read
from namedtasks.status._text import encoded, name_of, plain, seconds_of
from namedtasks.status._watch import EventLog, Key, MapWatch, RecentEvent

MOST_ENTRIES: Final = 20_000
"""Names of one map that are shown. With all of them a look takes about 80 ms."""

MOST_GONE: Final = 10_000
"""Removed entries that are remembered for viewers that still show them."""

MOST_SWEEPS: Final = 1_000
"""Unfinished sweeps that are remembered. Arbitrary: some minutes of one viewer, or 0.2 MB."""

Place: TypeAlias = tuple[str, str, str, int]
"""The place of an entry in a sorted list: its map, its name, its operation and its number."""

Kind: TypeAlias = Literal["rows", "gone", "maps", "counts", "events"]
"""A list in an answer; only the counts are an object."""


class Change(NamedTuple):
    """The newest state of one thing on the page."""

    number: int
    first: int
    """The number of the first change of the thing."""
    kind: Kind
    state: bytes | Entry
    """Its state in JSON. An entry is encoded when a viewer gets it."""
    notable: bool = False
    """True for an event that routine events must not displace."""

    @property
    def json(self) -> bytes:
        """The state in JSON."""
        return self.state if isinstance(self.state, bytes) else self.state.json


class Sweep(NamedTuple):
    """The progress of a viewer that gets in pieces what it has missed.

    It gets the things in the order of their first changes, which later changes do not alter. So
    each sweep ends, even if everything changes all the time, and has sent everything.
    """

    since: int
    """The viewer has seen all changes up to this number."""
    until: int
    """At the end of the sweep it has seen all changes up to this number."""
    after: int = 0
    """It has got the things whose first changes have numbers up to this."""


@final
@attrs.frozen
class MapSummary:
    """One map, in numbers."""

    label: str
    status: str
    counts: TaskMapStatistics | None
    """None before the map is opened and after its end."""
    omitted: int = 0
    """The number of its names that are not shown."""
    oldest_run_since: float | None = None
    longest_slot_wait_since: float | None = None

    def fields(self) -> Iterator[tuple[str, object]]:
        """Yield the fields. None of them changes by time alone, as an age would."""
        yield from (("map", self.label), ("status", self.status), ("omitted", self.omitted))
        yield "oldest_run_since", seconds_of(self.oldest_run_since)
        yield "longest_slot_wait_since", seconds_of(self.longest_slot_wait_since)
        counts = self.counts
        for field in COUNTS:
            yield field, 0 if counts is None else getattr(counts, field)
        yield "limit", None if counts is None else counts.limit


COUNTS: Final = (
    "running",
    "waiting_for_slot",
    "pending",
    "waiting",
    "gave_up",
    "overdue",
    "failing",
    "max_failures",
)
"""The fields of `TaskMapStatistics` that are shown."""


class Selection(NamedTuple):
    """Some of the entries that match."""

    rows: list[bytes]
    """The entries in JSON."""
    total: int
    """The number of all entries that match."""
    more_after: Place | None
    """The place of the last one if more match; None if these are the last ones."""


@final
class Board:
    """All entries of all maps, the recent events, and the order in which they changed."""

    # Attributes of the class, because freezegun replaces those of the module.
    _monotonic = staticmethod(time.monotonic)
    _wall_clock = staticmethod(time.time)

    def __init__(self, watches: Mapping[str, MapWatch], log: EventLog) -> None:
        self._watches = watches
        self._log = log
        self._lock = threading.Lock()
        # Far from the numbers of another board, so that viewers of an earlier process begin again.
        # In JavaScript, integers are exact up to 2**53.
        self._number = secrets.randbelow(2**52)
        self._oldest = self._number
        """A viewer that has seen less than this has to begin again."""
        self._sweeps: dict[int, Sweep] = {}
        """The unfinished sweeps, by the numbers that their viewers have."""
        self._oldest_sweep = self._number
        """A viewer that has a lower number may be in a sweep that is forgotten."""
        self._entry_number = 0
        self._event_number = 0
        self._entries: dict[int, Entry] = {}
        self._by_key: dict[str, dict[Key, Entry]] = {}
        self._summaries: dict[str, MapSummary] = {}
        self._counts: Counter[str] = Counter()
        self._counted: dict[str, int] = {}
        self._changes: OrderedDict[Hashable, Change] = OrderedDict()
        self._gone: deque[int] = deque()
        self._events: deque[int] = deque()
        self._looked_at = float("-inf")

    # Looking

    def look(self, most_age: float = 0.0) -> None:
        """Look at all maps, unless that happened in the last *most_age* seconds."""
        with self._lock:
            if self._monotonic() - self._looked_at < most_age:
                return
            for label, watch in list(self._watches.items()):
                self._look_at(label, watch)
            self._note_counts()
            self._note_events()
            self._looked_at = self._monotonic()

    def _look_at(self, label: str, watch: MapWatch) -> None:
        tasks, status = watch.tasks(), watch.status()
        if tasks is None:
            reading, summary = Reading(), MapSummary(label, status, None)
        else:
            reading = read(watch, tasks, MOST_ENTRIES)
            summary = MapSummary(
                label,
                status,
                reading.statistics,
                reading.omitted,
                reading.oldest_run_since,
                reading.longest_slot_wait_since,
            )
        self._note_entries(label, reading.facts)
        state = encoded(dict(summary.fields()))
        self._summaries[label] = summary
        before = self._changes.get(("map", label))
        if before is None or before.state != state:
            self._note(("map", label), "maps", state)

    def _note_entries(self, label: str, found: Mapping[Key, Facts]) -> None:
        entries = self._by_key.setdefault(label, {})
        for key, facts in found.items():
            entry = entries.get(key)
            if entry is None:
                self._entry_number += 1
                entry = Entry.of(self._entry_number, label, key, facts)
                entries[key] = self._entries[entry.number] = entry
            elif entry.facts != facts:
                self._count(entry, -1)
                entry.show(facts)
            else:
                continue
            self._count(entry, 1)
            self._note(entry.number, "rows", entry)
        if len(entries) > len(found):
            for key in [key for key in entries if key not in found]:
                self._remove(entries.pop(key))

    def _remove(self, entry: Entry) -> None:
        self._count(entry, -1)
        del self._entries[entry.number]
        self._note(entry.number, "gone", str(entry.number).encode())
        self._gone.append(entry.number)
        if len(self._gone) > MOST_GONE:
            self._oldest = self._changes.pop(self._gone.popleft()).number

    def _count(self, entry: Entry, by: int) -> None:
        facts, counts = entry.facts, self._counts
        counts[facts.state] += by
        if facts.overdue:
            counts["overdue"] += by
        if facts.failures:
            counts["failing"] += by

    def _note_counts(self) -> None:
        counted = {field: self._counts[field] for field in (*STATES, "overdue", "failing")}
        if counted != self._counted:
            self._counted = counted
            self._note("counts", "counts", encoded(counted))

    def _note_events(self) -> None:
        recent = self._log.recent()
        for event in recent:
            if event.number > self._event_number:
                json = encoded(dict(event_fields(event)))
                self._note(("event", event.number), "events", json, notable=event.notable)
                self._events.append(event.number)
        if recent:
            self._event_number = recent[-1].number
            kept = {event.number for event in recent}
            if len(self._events) > len(kept):
                for number in [one for one in self._events if one not in kept]:
                    del self._changes["event", number]
                self._events = deque(one for one in self._events if one in kept)

    def _note(
        self, key: Hashable, kind: Kind, state: bytes | Entry, *, notable: bool = False
    ) -> None:
        self._number += 1
        before = self._changes.pop(key, None)  # the newest change is the last one
        first = self._number if before is None else before.first
        self._changes[key] = Change(self._number, first, kind, state, notable)

    # For viewers

    def begin(self, title: str, most: int) -> bytes:
        """Return the first view: the *most* urgent entries, the maps and the recent events.

        ``next`` is None if these are all entries, or the argument for `after`.
        """
        with self._lock:
            rows = nsmallest(most, self._entries.values(), key=lambda entry: entry.urgency)
            more = None if len(rows) == len(self._entries) else 0
            changes = self._changes.values()
            parts = {
                "title": _json(title),
                "maps": _list(one.json for one in changes if one.kind == "maps"),
                "counts": encoded(self._counted),
                "events": _list(one.json for one in changes if one.kind == "events"),
            }
            return self._view([entry.json for entry in rows], more, parts)

    def after(self, number: int, most: int) -> bytes:
        """Return the *most* entries after the entry *number*, in the order of their numbers."""
        with self._lock:
            found = (entry for one, entry in self._entries.items() if one > number)
            rows = list(islice(found, most))
            more = rows[-1].number if next(found, None) is not None else None
            return self._view([entry.json for entry in rows], more, {})

    def _view(self, rows: Iterable[bytes], more: int | None, parts: dict[str, bytes]) -> bytes:
        parts = {"version": _json(self._number), **self._clocks(), **parts}
        return _object({**parts, "rows": _list(rows), "next": _json(more)})

    def since(self, number: int, most_bytes: int) -> tuple[bytes, int] | None:
        """Return what has changed since *number*, and the number for the next call.

        It has the numbers of the maps and of the entries, and about *most_bytes* of the rest: the
        newest events, and then rows. The answer is empty if nothing has changed.

        Returns:
            None if the viewer has to begin again, because the board does not remember *number*.
        """
        with self._lock:
            if not self._oldest_sweep <= number <= self._number:
                return None
            sweep = self._sweeps.get(number) or Sweep(number, self._number)
            if sweep.since < self._oldest:
                return None
            parts, missed = self._missed(number, sweep, most_bytes // 2)
            if not missed and sweep.until < self._number:
                sweep = Sweep(sweep.until, self._number)
                parts, missed = self._missed(number, sweep, most_bytes // 2)
            size = sum(len(json) for part in parts.values() for json in part)
            after = None
            for change in missed:
                if after is not None and size >= most_bytes:  # at least one, or it never ends
                    break
                parts.setdefault(change.kind, []).append(change.json)
                size += len(change.json)
                after = change.first
            else:
                after = None
            if not parts:
                return b"", number
            lists = {
                str(kind): states[-1] if kind == "counts" else _list(states)
                for kind, states in parts.items()
            }
            return _object({**self._clocks(), **lists}), self._number_after(sweep, after)

    def _missed(
        self, number: int, sweep: Sweep, most_bytes: int
    ) -> tuple[dict[Kind, list[bytes]], list[Change]]:
        """Return what a viewer gets in any case, and what the *sweep* still has for it.

        It gets about *most_bytes* of new events in any case.
        """
        parts: dict[Kind, list[bytes]] = {}
        missed: list[Change] = []
        events: list[Change] = []
        for change in reversed(self._changes.values()):
            if change.number <= sweep.since:
                break
            if change.kind in ("maps", "counts"):  # few and small
                if change.number > number:
                    parts.setdefault(change.kind, []).append(change.json)
            elif change.kind == "events":
                if change.number > number:
                    events.append(change)
            elif sweep.after < change.first <= sweep.until:
                missed.append(change)
        if events:
            parts["events"] = _most_important(events, most_bytes)
        missed.sort(key=_first_change)
        return parts, missed

    def _number_after(self, sweep: Sweep, after: int | None) -> int:
        """Return the number for a viewer that has got things of *sweep*.

        *after* is the first change of the last one; None if these were all.
        """
        if after is not None:
            sweep = sweep._replace(after=after)
        elif sweep.until == self._number:
            return self._number
        else:
            sweep = Sweep(sweep.until, self._number)
        number = self._number + 1
        self._number += 2  # no other viewer gets this number
        self._sweeps[number] = sweep
        if len(self._sweeps) > MOST_SWEEPS:
            forgotten = next(iter(self._sweeps))
            del self._sweeps[forgotten]
            self._oldest_sweep = forgotten + 1
        return number

    def clocks(self) -> bytes:
        """Return the current times of all clocks."""
        with self._lock:
            return _object(self._clocks())

    def _clocks(self) -> dict[str, bytes]:
        now = {label: seconds_of(watch.now()) for label, watch in list(self._watches.items())}
        return {"at": _json(round(self._wall_clock(), 3)), "now": encoded(now)}

    # For the API

    def select(
        self,
        label: str | None,
        states: Iterable[EntryState],
        prefix: str,
        after: Place | None,
        most: int,
    ) -> Selection:
        """Return entries that match, sorted by maps and names: *most* of them, *after* a place."""
        wanted = frozenset(states)
        with self._lock:
            found = [
                (entry.place, entry)
                for entry in self._entries.values()
                if entry.facts.state in wanted
                and entry.name.startswith(prefix)
                and label in (None, entry.label)
            ]
            found.sort(key=itemgetter(0))
            begin = 0 if after is None else bisect_right(found, after, key=itemgetter(0))
            chosen = found[begin : begin + most]
            more = chosen[-1][0] if begin + most < len(found) else None
            return Selection([entry.json for _, entry in chosen], len(found), more)

    def summaries(self) -> list[MapSummary]:
        """Return the maps in numbers."""
        with self._lock:
            return list(self._summaries.values())

    def counts(self) -> dict[str, int]:
        """Return the number of entries in each state."""
        with self._lock:
            return dict(self._counted)


def _most_important(events: list[Change], most_bytes: int) -> list[bytes]:
    """Return about *most_bytes* of *events*, the newest of which comes first: notable ones first.

    The result is in the order of the events.
    """
    chosen: dict[int, bytes] = {}
    for change in sorted(events, key=lambda event: not event.notable):
        if most_bytes <= 0:
            break
        chosen[change.number] = change.json
        most_bytes -= len(change.json)
    return [chosen[number] for number in sorted(chosen)]


def event_fields(event: RecentEvent) -> Iterator[tuple[str, object]]:
    """Yield the fields of *event*, for JSON; its time is in seconds since 1970."""
    yield from (("id", event.number), ("map", event.label), ("kind", event.kind))
    yield from (("name", name_of(event.name)), ("at", round(event.at, 3)))
    if event.operation is not None:
        yield "operation", plain(event.operation, 100)
    yield from event.details.items()


_first_change = attrgetter("first")


def _json(value: str | float | None) -> bytes:
    return encoded({"": value})[4:-1]


def _list(values: Iterable[bytes]) -> bytes:
    return b"[%s]" % b",".join(values)


def _object(parts: Mapping[str, bytes]) -> bytes:
    return b"{%s}" % b",".join(b'"%s":%s' % (name.encode(), value) for name, value in parts.items())
