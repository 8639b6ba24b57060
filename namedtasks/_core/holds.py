"""What waits wait for, and which waits would never come back.

A wait asks for its *hold*, sleeps there, and asks again, until there is none.
Whatever ends a hold wakes who sleeps there, in the same step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar, cast, final

from namedtasks._core.engine import Engine
from namedtasks._core.names import overlap
from namedtasks._core.obstacles import Closed, Overlapping, refusal
from namedtasks._core.runs import LiveRun, LotT
from namedtasks._core.text import repr_of

RunT = TypeVar("RunT", bound=LiveRun[Any])


class Hold(NamedTuple, Generic[LotT]):
    """What keeps a wait from coming back: look again when woken, or at a time."""

    lot: LotT
    """Where to sleep."""
    until: float
    """When to look again, woken or not; infinite for never."""


class Holds(Generic[RunT, LotT]):
    """The holds of one map. To be asked under its guard."""

    __slots__ = ("_make_lot", "ending", "engine", "now", "quiet", "waiting_for")

    def __init__(
        self, engine: Engine[RunT], now: Callable[[], float], make_lot: Callable[[], LotT]
    ) -> None:
        self.engine: Engine[RunT] = engine
        self.now: Callable[[], float] = now
        self._make_lot = make_lot
        self.quiet: LotT = make_lot()
        """Who waits for the map to be idle or empty."""
        self.ending: dict[RunT, None] = {}
        """Runs that have ended, but their Task or future is not done yet: waits wait for them."""
        self.waiting_for: dict[Hashable, LotT] = {}
        """Who waits for a name's wait to be over; who waits for its run, waits with the run."""

    def is_idle(self) -> bool:
        """Whether nothing runs and nothing is pending."""
        return not self.engine.ledger.running and not self.engine.ledger.pending

    def hold_idle(self) -> Hold[LotT] | None:
        """Keep a wait until nothing runs and nothing is pending."""
        if self.is_idle() and not self.ending:
            return None
        return Hold(self.quiet, math.inf)

    def hold_ending(self) -> Hold[LotT] | None:
        """Keep a wait until the Tasks and futures of all runs that have ended are done."""
        return Hold(self.quiet, math.inf) if self.ending else None

    def hold_empty(self) -> Hold[LotT] | None:
        """Keep a wait until nothing runs and no failure waits."""
        hold = self.hold_idle()
        if hold is not None:
            return hold
        lapse = self.engine.ledger.records.next_lapse(self.now())
        return None if lapse is None else Hold(self.quiet, lapse)

    def hold_free(self, name: Hashable, operation: str | None) -> Hold[LotT] | None:
        """Keep a wait until nothing stands in the way of a start of *name*.

        Raises:
            GaveUpError: the policy gave the name up.
            ClosedError: the map is closed.
        """
        now = self.now()
        obstacle = self.engine.ledger.obstacle(name, operation, now)
        if obstacle is None:
            ending = next((run for run in self.ending if overlap(run.name, name)), None)
            return None if ending is None else Hold(self._waiters_of(ending), math.inf)
        if isinstance(obstacle, Overlapping):
            return Hold(self._waiters_of(obstacle.runs[0]), math.inf)
        if isinstance(obstacle, LiveRun):
            return Hold(self._waiters_of(obstacle), math.inf)
        if isinstance(obstacle, Closed) or obstacle.gave_up:
            raise refusal(obstacle, name, operation, now)
        lot = self.waiting_for.get(name)
        if lot is None:
            lot = self.waiting_for[name] = self._make_lot()
        return Hold(lot, obstacle.retry_at)

    def _wake_starters(self) -> None:
        """Wake all who wait to start something."""
        for lot in self.waiting_for.values():
            lot.unpark_all()
        ledger = self.engine.ledger
        for run in (*ledger.running.values(), *ledger.pending.values()):
            if run.waiters is not None:
                run.waiters.unpark_all()

    def forsake(self, name: Hashable, lot: LotT) -> None:
        """Drop the *lot* of a name that nobody waits for any more. Under the guard."""
        if not lot and self.waiting_for.get(name) is lot:
            del self.waiting_for[name]

    def _waiters_of(self, run: RunT) -> LotT:
        if run.waiters is None:
            run.waiters = self._make_lot()
        waiters: LotT = run.waiters
        return waiters


@final
class WaitForName(Generic[RunT, LotT]):
    """One wait until a name may be started, and the lots that it has slept in."""

    __slots__ = ("_holds", "_lots", "_name", "_operation")

    def __init__(self, holds: Holds[RunT, LotT], name: Hashable, operation: str | None) -> None:
        self._holds = holds
        self._name = name
        self._operation = operation
        self._lots: set[LotT] = set()

    def hold(self) -> Hold[LotT] | None:
        """`Holds.hold_free`, which it raises as."""
        hold = self._holds.hold_free(self._name, self._operation)
        if hold is not None:
            self._lots.add(hold.lot)
        return hold

    def forsake(self) -> None:
        """The wait is over, however it ended. Under the guard."""
        for lot in self._lots:
            self._holds.forsake(self._name, lot)


def queued_behind(run: RunT) -> RunT | None:
    """The run whose end *run* waits for in a queue: who waits for the one, waits for the other.

    One that replaces is not meant: what it waits for was cancelled.
    """
    return cast("RunT | None", run.blocker) if run.put_off == "queue" else None


def waits_for_its_map(what: str) -> RuntimeError:
    """The error of a wait for the whole map from inside one of its tasks."""
    return RuntimeError(
        f"{what} from inside a task of the same map would wait for itself: "
        "call it from outside, or wait for the handles that are meant"
    )


def waits_for_its_run(run: LiveRun[Any], what: str) -> RuntimeError:
    """The error of a wait for a run from inside it."""
    return RuntimeError(
        f"{what} from inside task {repr_of(run.name)} would wait for itself: call it from outside"
    )
