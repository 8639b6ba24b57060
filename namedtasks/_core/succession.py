"""Who comes next: what becomes of the runs that were put off, and who gets a slot that is free.

What a run that ends was in the way of, is looked at again: it gets its name, waits
for the next thing, or is dropped. Who waited for that one is looked at in its turn.
What it all comes to is one `Turn`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Generic, Literal, TypeVar, cast

from namedtasks._core.ledger import Ledger
from namedtasks._core.notes import Notes
from namedtasks._core.obstacles import Obstacle
from namedtasks._core.pending import Pending
from namedtasks._core.records import Record
from namedtasks._core.runs import Run
from namedtasks._core.timers import Timers
from namedtasks._core.turns import NOTHING, Turn, together

RunT = TypeVar("RunT", bound=Run)

_CLOSING = "the map is closing"
_GAVE_UP = "its name gave up"
_UNUSABLE = "its name cannot be looked up any more"


class Succession(Generic[RunT]):
    """The half of an engine that nobody needs who never puts a start off."""

    __slots__ = ("_notes", "is_draining", "ledger", "pending", "timers")

    def __init__(self, ledger: Ledger[RunT], notes: Notes) -> None:
        self.ledger: Ledger[RunT] = ledger
        self.timers: Timers[RunT] = Timers()
        self.pending: Pending[RunT] = Pending(ledger, self.timers)
        self.is_draining: bool = False
        """Whether pending runs that would have to sit out a wait are dropped."""
        self._notes = notes

    # Putting off

    def put_off(
        self,
        run: RunT,
        how: Literal["replace", "queue"],
        obstacle: Obstacle[RunT],
    ) -> None:
        """Make *run* the pending run of its name, until `accept` or `roll_back` at least."""
        self.pending.put_off(run, how, obstacle)

    def accept(self, run: RunT, now: float) -> Turn[RunT]:
        """What was put off stays so: the pending run from before is dropped."""
        self._notes.queued(run, now)
        turn = self._supersede(run, now)
        if self.is_draining and run.is_pending and run.blocker is None:
            return together(turn, self.drop(run, _CLOSING, now))
        return turn

    def in_the_way(self, run: RunT) -> list[RunT]:
        """What *run* is to replace, other than itself."""
        try:
            holders = self.ledger.holders(run.name, sys.maxsize)
        except BaseException:  # its name's own __hash__ or __eq__; what it waits for is known
            holders = [cast("RunT", run.blocker)]
        return [one for one in holders if one is not run and one is not None]

    def _supersede(self, run: RunT, now: float) -> Turn[RunT]:
        """End the pending run whose place *run* has taken, if there is one."""
        before: RunT | None = run.supersedes
        run.supersedes = None
        if before is None or before.done:
            return NOTHING
        before.reason = "superseded by a newer start of its name"
        before.done = True
        self._notes.superseded(before, now)
        followers = self.pending.remove(before)
        return together(Turn(dropped=(before,)), self._reconsider(followers, now))

    def _put_back(self, run: RunT, now: float) -> Turn[RunT]:
        """The start that put *run* off is undone: it ends, as if it had never been."""
        run.done = True
        return self._reconsider(self.pending.put_back(run), now)

    def _put_behind(self, run: RunT, now: float) -> Turn[RunT]:
        """The same of a *run* that has its name by now; that the caller ends.

        The pending run from before is next again, unless a newer one is.
        """
        if run.supersedes is not None:
            if run.name in self.ledger.pending:
                return self._supersede(run, now)
            self.pending.put_behind(run)
        return NOTHING

    # Dropping

    def drop(self, run: RunT, reason: str | None, now: float) -> Turn[RunT]:
        """End the pending *run*."""
        followers = self._drop(run, reason, now)
        return together(Turn(dropped=(run,)), self._reconsider(followers, now))

    def drain(self, now: float) -> Turn[RunT]:
        """Drop the pending runs that would have to sit out a wait, now and from now on."""
        self.is_draining = True
        pending = list(self.ledger.pending.values())
        return together(
            *[
                self.drop(run, _CLOSING, now)
                for run in pending
                if run.blocker is None and not run.done  # which another one's end may change
            ]
        )

    def _drop(self, run: RunT, reason: str | None, now: float) -> list[RunT]:
        """End the pending *run*; who is in line behind it, to be reconsidered."""
        followers = self.pending.remove(run)
        run.done = True
        run.reason = run.reason or reason
        self._notes.cancelled(run, now)
        return followers

    # Coming next

    def _reconsider(
        self, pending: Iterable[RunT], now: float, *, predecessor: RunT | None = None
    ) -> Turn[RunT]:
        """Give *pending* runs their names, in order, or let each wait for the next thing.

        The first that replaces its *predecessor* gets the slot straight from it.
        """
        named: list[RunT] = []
        dropped: list[RunT] = []
        following = [*pending]
        for run in following:
            try:
                obstacle = self.pending.reconsider(run, now)
                if obstacle is None:
                    self.ledger.admit(run, now)
            except BaseException:  # its name's own __hash__ or __eq__
                following += self._drop(run, _UNUSABLE, now)
                dropped.append(run)
                continue
            if obstacle is None:
                named.append(run)
                self.pending.promote(run)
            elif isinstance(obstacle, Record) and (obstacle.gave_up or self.is_draining):
                self._drop(run, _GAVE_UP if obstacle.gave_up else _CLOSING, now)
                dropped.append(run)  # it queues: so nobody waits for it
        begin = self._give_slots(named, predecessor)
        return Turn(tuple(begin), tuple(dropped)) if begin or dropped else NOTHING

    def _give_slots(self, named: list[RunT], predecessor: RunT | None) -> list[RunT]:
        """Give the *named* runs what their bodies need; which may begin, others among them."""
        begin: list[RunT] = []
        heir: RunT | None = None
        if predecessor is not None:
            heir = next((run for run in named if _inherits(run, predecessor)), None)
            if heir is not None:
                predecessor.slots.hand_on(predecessor, heir)
            elif (following := predecessor.slots.leave(predecessor)) is not None:
                begin.append(following)
        for run in named:
            run.put_off = None
            if run is not heir:
                run.slots.take(run)
            if run.has_slot:
                begin.append(run)
        return begin


def _inherits(run: Run, predecessor: Run) -> bool:
    return run.put_off == "replace" and run.slots is predecessor.slots
