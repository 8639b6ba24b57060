"""What is due when."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar, cast, final

import attrs

from namedtasks._core.table import Table

T = TypeVar("T")


@attrs.define(eq=False)
class _Entry(Generic[T]):
    when: float
    item: T | None

    def __lt__(self, other: _Entry[T]) -> bool:
        return self.when < other.when


@final
class Timers(Generic[T]):
    """Items in the order in which they fall due; each has one time at most.

    A discarded item is let go of at once. Its empty entry stays in the heap
    until it is due, or until half of the entries are empty.
    """

    __slots__ = ("_entries", "_heap", "changed")

    def __init__(self) -> None:
        self._heap: list[_Entry[T]] = []
        self._entries: Table[T, _Entry[T]] = Table()
        self.changed: bool = False
        """Whether an item came or went since somebody set this to False."""

    def __len__(self) -> int:
        return len(self._entries)

    def set(self, item: T, when: float) -> None:
        """Have *item* fall due at *when*, and not at any time set before."""
        self.discard(item)
        self.changed = True
        entry = self._entries[item] = _Entry(when, item)
        heapq.heappush(self._heap, entry)

    def discard(self, item: T) -> None:
        """Forget *item*, if it is here."""
        entry = self._entries.get(item)
        if entry is None:
            return
        self.changed = True
        self._entries.discard(item, entry)
        entry.item = None
        if len(self._heap) > 2 * len(self._entries):
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def next_due(self) -> float | None:
        """When the next item falls due; None if there is none."""
        while self._heap:
            head = self._heap[0]
            if head.item is not None:
                return head.when
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> T | None:
        """Take out one item that is due; None if none is."""
        due = self.next_due()
        if due is None or due > now:
            return None
        self.changed = True
        entry = heapq.heappop(self._heap)
        item = cast("T", entry.item)  # next_due() has taken out the empty ones
        self._entries.discard(item, entry)
        return item
