"""Who may begin: at most so many bodies at once, in the order of admission."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Generic, TypeVar, final

from namedtasks._core.runs import Run

RunT = TypeVar("RunT", bound=Run)


@final
class Slots(Generic[RunT]):
    """Hands out at most *capacity* slots; who finds none waits in line."""

    __slots__ = ("_line", "_next", "capacity", "is_limited", "used")

    def __init__(self, capacity: int | None) -> None:
        self.capacity: float = math.inf if capacity is None else capacity
        self.is_limited: bool = capacity is not None
        self.used: int = 0
        """How many slots are taken; not counted without a limit."""
        # An OrderedDict, as it gives up its first and any entry at the same low
        # price; a dict's first entry is the dearer the more were deleted before it.
        self._line: OrderedDict[int, RunT] = OrderedDict()
        self._next = 0

    @property
    def in_line(self) -> int:
        """How many runs wait in line."""
        return len(self._line)

    def take(self, run: RunT) -> None:
        """Give *run* a slot, or else the last place in line."""
        if not self.is_limited:
            run.has_slot = True
        elif self.used < self.capacity:
            self._give(run)
        else:
            self._next += 1
            run.place = self._next
            self._line[run.place] = run

    def leave(self, run: RunT) -> RunT | None:
        """Take back the slot, or the place in line, of *run*.

        Returns:
            The run that has a slot now because of that, if there is one.
        """
        if not self.is_limited:
            run.has_slot = False
            return None
        if not run.has_slot:
            del self._line[run.place]
            self._shrink()
            return None
        run.has_slot = False
        self.used -= 1
        if not self._line:
            return None
        _, first = self._line.popitem(last=False)
        self._shrink()
        self._give(first)
        return first

    def hand_on(self, run: RunT, heir: RunT) -> None:
        """Give the slot, or the place in line, of *run* to *heir*."""
        if run.has_slot:
            run.has_slot, heir.has_slot = False, True
        else:
            heir.place = run.place
            self._line[heir.place] = heir

    def _shrink(self) -> None:
        if not self._line:
            self._line = OrderedDict()  # an old one keeps the room of its longest line

    def _give(self, run: RunT) -> None:
        run.has_slot = True
        self.used += 1
