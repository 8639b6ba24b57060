"""Runs that were put off: to replace what runs, or to come after it.

A name has at most one pending run; a newer one supersedes it. A pending run
holds no name and no slot. It waits for one thing at a time:

- for the end of a run that is in its way, its *blocker*;
- or, if it queues, for the end of its name's wait: it is in the timers.

Whenever that comes about, `reconsider` looks what is in its way now. One that
replaces is stopped by runs only, and takes its name whatever became of them. Its
name, if it overlaps others, is entered in the index at once: so nothing new can
get in before it.
"""

from __future__ import annotations

import contextlib
import enum
from typing import Generic, Literal, TypeVar, final

from namedtasks._core.ledger import Ledger
from namedtasks._core.obstacles import Closed, Obstacle, Overlapping
from namedtasks._core.records import Record
from namedtasks._core.runs import Run
from namedtasks._core.timers import Timers

RunT = TypeVar("RunT", bound=Run)

IfBusy = Literal["refuse", "skip", "join", "replace", "queue"]
"""What to do about a name that cannot start now: the type of ``if_busy``.

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


class Move(enum.Enum):
    """What a start comes to."""

    ADMIT = enum.auto()
    REFUSE = enum.auto()
    SKIP = enum.auto()
    JOIN = enum.auto()
    PUT_OFF = enum.auto()


def move(obstacle: Obstacle[RunT] | None, if_busy: IfBusy) -> Move:
    """What a start comes to that finds this *obstacle*: the table of `if_busy`."""
    if obstacle is None:
        return Move.ADMIT
    if isinstance(obstacle, Closed):
        return Move.REFUSE
    if if_busy == "skip":
        return Move.SKIP
    if if_busy == "join":
        return Move.JOIN if isinstance(obstacle, Run) else Move.REFUSE
    if if_busy == "replace":
        return Move.REFUSE if isinstance(obstacle, Record) else Move.PUT_OFF
    if if_busy == "queue":
        can_wait = isinstance(obstacle, Run) or (
            isinstance(obstacle, Record) and not obstacle.gave_up
        )
        return Move.PUT_OFF if can_wait else Move.REFUSE
    return Move.REFUSE


@final
class Pending(Generic[RunT]):
    """Who among the ledger's pending runs waits for what."""

    __slots__ = ("_ledger", "_timers")

    def __init__(self, ledger: Ledger[RunT], timers: Timers[RunT]) -> None:
        self._ledger = ledger
        self._timers = timers

    def put_off(
        self, run: RunT, how: Literal["replace", "queue"], obstacle: Obstacle[RunT]
    ) -> None:
        """Make *run* the pending run of its name; the one before it is put aside."""
        name = run.name
        before = self._ledger.pending.get(name)
        is_new = how == "replace" and self._ledger.overlaps.covers(name)
        if is_new:
            self._ledger.overlaps.add(run)
        try:
            self._ledger.pending[name] = run  # in the place of the other, in one step
        except BaseException:  # the name's own __hash__ or __eq__
            if is_new:
                self._ledger.overlaps.discard(run)
            raise
        run.put_off = how
        run.is_pending = True
        run.supersedes = before
        if before is not None:
            self._put_aside(before)
        self._wait(run, obstacle)

    def put_back(self, run: RunT) -> list[RunT]:
        """Undo `put_off`: the pending run from before is there again; who is to be reconsidered."""
        followers = self.remove(run)
        before = self._before(run)
        return followers if before is None else [before, *followers]

    def put_behind(self, run: RunT) -> None:
        """Undo `put_off` of *run*, which has its name by now: its end is waited for."""
        before = self._before(run)
        if before is not None:
            self._wait(before, run)

    def _before(self, run: RunT) -> RunT | None:
        """Put in again what *run* has put aside, if there is anything."""
        before: RunT | None = run.supersedes
        run.supersedes = None
        if before is None or before.done:
            return None
        self._ledger.pending.keep(before.name, before)
        before.is_pending = True
        if before.put_off == "replace" and self._ledger.overlaps.covers(before.name):
            with contextlib.suppress(BaseException):  # a field's own __hash__ or __eq__
                self._ledger.overlaps.add(before)
        return before

    def remove(self, run: RunT) -> list[RunT]:
        """Take out *run*, which will never begin; who is in line behind it, to be reconsidered."""
        if run.is_pending:
            self._take_out(run)
        followers, run.awaited_by = run.awaited_by or [], None
        return followers

    def reconsider(self, run: RunT, now: float) -> Obstacle[RunT] | None:
        """Look what is in the way of *run* now; it waits for that. None: it may take its name."""
        self._stop_waiting(run)
        obstacle: Obstacle[RunT] | None
        if run.put_off == "replace":
            others = [one for one in self._ledger.holders(run.name, 2) if one is not run]
            obstacle = Overlapping(others) if others else None
        else:
            own = self._ledger.running.get(run.name)
            obstacle = own or self._ledger.obstacle_to_pending(run.name, run.operation, now)
        if obstacle is not None:
            self._wait(run, obstacle)
        return obstacle

    def promote(self, run: RunT) -> None:
        """*run* is about to take its name."""
        self._ledger.pending.discard(run.name, run)
        run.is_pending = False

    def _take_out(self, run: RunT) -> None:
        self.promote(run)
        self._put_aside(run)

    def _put_aside(self, run: RunT) -> None:
        """*run* is in the table no more, and waits for nothing."""
        run.is_pending = False
        self._stop_waiting(run)
        if run.put_off == "replace" and self._ledger.overlaps.covers(run.name):
            self._ledger.overlaps.discard(run)

    def _wait(self, run: RunT, obstacle: Obstacle[RunT]) -> None:
        if isinstance(obstacle, Record):
            self._timers.set(run, obstacle.retry_at)
            return
        blocker = obstacle
        if isinstance(obstacle, Overlapping):
            # Not for the one that it has put aside: what is in the way of both may end before it.
            others = [one for one in obstacle.runs if one is not run.supersedes]
            blocker = (others or obstacle.runs)[0]
        assert isinstance(blocker, Run)
        run.blocker = blocker
        if blocker.awaited_by is None:
            blocker.awaited_by = []
        blocker.awaited_by.append(run)

    def _stop_waiting(self, run: RunT) -> None:
        self._timers.discard(run)
        blocker, run.blocker = run.blocker, None
        if blocker is not None and blocker.awaited_by is not None and run in blocker.awaited_by:
            blocker.awaited_by.remove(run)
