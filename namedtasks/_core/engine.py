"""The ledger, the slots, the timers and the events as one thing that is driven.

The life of a run, in the calls of the conductor::

    obstacle() ──something──> refuse()
        │ nothing
      admit() ──────────────> roll_back()       the caller's function raised
        │ (waits for a slot) ─> cancelled()     cancelled before it had one
      begin()
        │
      succeeded() | failed(judge(), if it stands()) | cancelled() | escaped()

A start that finds its name taken may also be ``put_off()``: it is pending then,
until its `Turn` comes, or it is dropped.

Each of the last row, and whatever else frees a name, gives back a `Turn`: which
runs begin now because of that, and which never will. `judge` runs the user's
code and changes nothing; all else changes the tables and runs no code of the
user's. After each call who waits is woken, and then ``dispatch`` delivers.
"""

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple, TypeVar, final

from namedtasks._core import checks
from namedtasks._core.backoff import BackoffPolicy, default_retention, delay_after
from namedtasks._core.complaints import Complain
from namedtasks._core.dispatch import Dispatch
from namedtasks._core.errors import RefusedError
from namedtasks._core.events import Instrument, TaskSucceeded
from namedtasks._core.ledger import Ledger
from namedtasks._core.notes import Notes
from namedtasks._core.obstacles import Closed, Obstacle, refusal
from namedtasks._core.runs import Run
from namedtasks._core.slots import Slots
from namedtasks._core.stand_ins import stand_in
from namedtasks._core.statistics import TaskMapStatistics
from namedtasks._core.succession import Succession
from namedtasks._core.table import CONSIDERED
from namedtasks._core.turns import NOTHING, Turn, together

RunT = TypeVar("RunT", bound=Run)

_MAX_THREADS = 1_000
"""Threads that a map without a limit runs at once: far above what a machine has
use for, far below where it runs out of them."""


class Verdict(NamedTuple):
    """What becomes of a failed run's name."""

    error: BaseException
    """The original."""
    failures: int
    """How many failures in a row it was asked about."""
    delay: float | None
    """The wait in seconds; infinite to give up; None for no wait, and no counting."""
    recorded: BaseException | None
    """What the record keeps in the original's place, if there will be a record."""


@final
class Engine(Succession[RunT]):
    """Decides for a shell; see the module's docstring for the order of the calls."""

    __slots__ = (
        "_complain",
        "_overdue",
        "_policy",
        "_random",
        "dispatch",
        "overdue_after",
        "slots",
        "thread_slots",
    )

    def __init__(
        self,
        *,
        backoff: BackoffPolicy | None,
        retention: float | None,
        limit: int | None,
        overdue_after: float,
        instruments: Iterable[Instrument],
        random: Callable[[], float],
        complain: Complain,
    ) -> None:
        self.dispatch: Dispatch = Dispatch(instruments, complain)
        super().__init__(
            Ledger(default_retention(backoff) if retention is None else retention),
            Notes(self.dispatch),
        )
        self.slots: Slots[RunT] = Slots(limit)
        self.thread_slots: Slots[RunT] = Slots[RunT](_MAX_THREADS) if limit is None else self.slots
        """What a run in one of the map's own threads needs a slot of."""
        self._policy = backoff
        self.overdue_after: float = overdue_after
        """Seconds after it should have stopped when a run is overdue."""
        self._random = random
        self._complain = complain
        self._overdue = 0

    # Starting

    def refuse(
        self,
        obstacle: Obstacle[RunT],
        name: Hashable,
        operation: str | None,
        now: float,
        *,
        skip: bool,
    ) -> RefusedError | None:
        """Note that a start was refused.

        Returns:
            The error to raise; None if the caller would rather *skip*. A
            closed map is never skipped.
        """
        skipped = skip and not isinstance(obstacle, Closed)
        if skipped and not self._notes.hears_refusals():
            return None
        error = refusal(obstacle, name, operation, now)
        self._notes.refused(name, operation, now, error, skipped=skipped)
        return None if skipped else error

    def admit(self, run: RunT, now: float) -> None:
        """Give *run* its name, and a slot or a place in line; nothing stands in the way."""
        self.ledger.admit(run, now)
        self.ledger.records.sweep(now)
        run.slots.take(run)

    def admit_unknown(self, run: RunT) -> None:
        """Do the same where `Ledger.is_unknown` has said that the name is free.

        A short cut: does not sweep.
        """
        self.ledger.running[run.name] = run
        if run.slots.is_limited:
            run.slots.take(run)
        else:
            run.has_slot = True

    def roll_back(self, run: RunT, now: float) -> Turn[RunT]:
        """Undo an admission; whoever waits for the run is told that it was cancelled.

        Starts nest, one inside of the function that another one calls: so no start
        that came after this one is half done.
        """
        if run.done:  # superseded or cancelled meanwhile, and not only to make room for it
            return self._supersede(run, now)
        run.reason = "its start raised an error"
        if run.is_pending:
            return self._put_back(run, now)
        # It was admitted, or its turn has come meanwhile.
        first = self._put_behind(run, now)
        return together(first, self._end(run, now, self.ledger.restore))

    def begin(self, run: RunT, now: float) -> None:
        """The body of *run* begins: its timeout counts from here.

        Trio's workers go past this where it would only set `started_at`.
        """
        run.started_at = now
        if run.timeout != math.inf or run.stop_asked_at is not None:
            run.deadline = now + run.timeout
            self._watch(run)
        self._notes.started(run, now)

    # Stopping

    def ask_to_stop(self, run: RunT, reason: str | None, now: float) -> bool:
        """Note that *run* was cancelled; the first to do so gives the reason.

        Returns:
            Whether the run had not ended.
        """
        if run.done:
            return False
        if run.stop_asked_at is None:
            run.stop_asked_at = now
            run.reason = reason
            self._watch(run)
        return True

    def on_time(self, now: float) -> Turn[RunT]:
        """Do what is due: waits that are over, and runs that did not stop for all too long."""
        turns: list[Turn[RunT]] = []
        while (run := self.timers.pop_due(now)) is not None:
            if run.is_pending:
                turns.append(self._reconsider([run], now))
                continue
            run.overdue = True
            self._overdue += 1
            self._notes.overdue(run, now, _asked_at(run))
        return together(*turns)

    # Ending

    def succeeded(self, run: RunT, now: float) -> Turn[RunT]:
        """*run* returned a value."""
        turn = self._end(run, now, self.ledger.succeed)
        self._notes.succeeded(run, now)
        return turn

    def succeeded_plainly(self, run: RunT) -> bool:
        """*run* returned, and nothing follows from that, whatever the time is; does not sweep.

        Returns:
            Whether it was so. If not, nothing was done, and it has `succeeded`.
        """
        name = run.name
        ledger = self.ledger
        slots = run.slots
        if (
            run.record is not None
            or run.awaited_by is not None
            or run.stop_asked_at is not None
            or run.timeout != math.inf
            or (slots.is_limited and slots.in_line)
            or TaskSucceeded in self.dispatch.listeners
        ):
            return False
        if type(name) is str:  # it overlaps nothing
            running = ledger.running
            try:
                found = running.pop(name)
            except BaseException:  # the __eq__ of another name of the same hash
                found = None
            if found is not run:
                self._free_by_value(run, found)
            if not len(running) & CONSIDERED:
                running.consider()
        else:
            ledger.release(run)
        if slots.is_limited:
            slots.leave(run)
        run.has_slot = False
        run.returned = run.done = True
        run.handle = None
        return True

    def _free_by_value(self, run: RunT, found: RunT | None) -> None:
        """Free the name of *run*, which gave another run, or none: there is a name equal to it."""
        running = self.ledger.running
        running.discard(run.name, run)  # first: while it is there, the other has no room
        if found is not None:
            running.keep(found.name, found)

    def judge(self, run: RunT, error: BaseException) -> Verdict:
        """Ask the policy what becomes of *run*'s name, and copy the error for the record.

        Runs the user's code: the policy, and the error's own. The verdict
        `stands` unless the name's failures were forgotten meanwhile.
        """
        failures = run.failures + 1
        delay = delay_after(self._policy, failures, error, self._random, self._complain)
        return Verdict(error, failures, delay, None if delay is None else stand_in(error))

    def stands(self, run: RunT, verdict: Verdict) -> bool:
        """Whether *verdict* is about the failures that *run* counts now."""
        return verdict.failures == run.failures + 1

    def failed(self, run: RunT, verdict: Verdict, now: float) -> Turn[RunT]:
        """*run* ended by an error, and the verdict on it stands."""
        delay = verdict.delay
        if delay is None or verdict.recorded is None:
            return self._failed_uncounted(run, verdict.error, now)
        failures = run.failures + 1
        self.ledger.fail(run, verdict.recorded, delay, now)
        turn = self._ended(run, now)
        self._notes.failed(run, verdict.error, now, failures, delay)
        return turn

    def escaped(self, run: RunT, error: BaseException, now: float) -> Turn[RunT]:
        """*run* ended by what is no `Exception`; its name's record is as before."""
        return self._failed_uncounted(run, error, now)

    def cancelled(self, run: RunT, now: float) -> Turn[RunT]:
        """*run* was cancelled and heeded it, or never began."""
        turn = self._end(run, now, self.ledger.restore)
        self._notes.cancelled(run, now)
        return turn

    # Looking and forgetting

    def forget(self, name: Hashable, operation: str | None, now: float) -> tuple[bool, Turn[RunT]]:
        """Drop the failures of *name*, or of one *operation* of it; tell whether there were any.

        A pending run that has sat out their wait begins.
        """
        run = self.ledger.pending.get(name)  # first: it may raise
        dropped = self.ledger.forget(name, operation, now)
        self._notes.forgotten(dropped, now)
        waits = run is not None and run.blocker is None
        return bool(dropped), self._reconsider([run], now) if waits and run else NOTHING

    def statistics(self) -> TaskMapStatistics:
        """Count. Failures that have expired count until they are swept."""
        records = self.ledger.records
        capacity, waiting_for_slot = self.slots.capacity, self.slots.in_line
        if self.thread_slots is not self.slots:
            waiting_for_slot += self.thread_slots.in_line
        return TaskMapStatistics(
            running=len(self.ledger.running),
            pending=len(self.ledger.pending),
            waiting_for_slot=waiting_for_slot,
            overdue=self._overdue,
            waiting=records.waiting,
            gave_up=records.gave_up,
            limit=None if capacity == math.inf else int(capacity),
        )

    # Inside

    def _end(self, run: RunT, now: float, settle: Callable[[RunT], None]) -> Turn[RunT]:
        settle(run)
        return self._ended(run, now)

    def _ended(self, run: RunT, now: float) -> Turn[RunT]:
        """The name of *run* is free."""
        run.done = True
        if run.timeout != math.inf or run.stop_asked_at is not None:
            self.timers.discard(run)
            if run.overdue:
                self._overdue -= 1
        if run.awaited_by is None:
            following = run.slots.leave(run)
            turn: Turn[RunT] = NOTHING if following is None else Turn((following,))
        else:
            followers, run.awaited_by = run.awaited_by, None
            turn = self._reconsider(followers, now, predecessor=run)
        if self.ledger.records.order:
            self.ledger.records.sweep(now)
        return turn

    def _failed_uncounted(self, run: RunT, error: BaseException, now: float) -> Turn[RunT]:
        turn = self._end(run, now, self.ledger.restore)
        self._notes.failed(run, error, now, run.failures, None)
        return turn

    def _watch(self, run: RunT) -> None:
        """Have the run fall due some time after it was, or will be, asked to stop."""
        asked_at = _asked_at(run)
        if asked_at != math.inf and not run.overdue:
            self.timers.set(run, asked_at + self.overdue_after)


def make_engine(
    *,
    backoff: BackoffPolicy | None,
    retention: float | None,
    limit: int | None,
    overdue_after: float,
    instruments: Iterable[Instrument],
    random: Callable[[], float],
    complain: Complain,
) -> Engine[Any]:
    """Make an engine of the settings that a user gave.

    Raises:
        TypeError: a setting is of the wrong type.
        ValueError: a setting is out of its range.
    """
    checks.policy(backoff)
    checks.function("random", random)
    return Engine(
        backoff=backoff,
        retention=None if retention is None else checks.number("retention", retention),
        limit=checks.count("limit", limit, none_means="no limit"),
        overdue_after=checks.number("overdue_after", overdue_after),
        instruments=instruments,
        random=random,
        complain=complain,
    )


def _asked_at(run: Run) -> float:
    return run.deadline if run.stop_asked_at is None else min(run.deadline, run.stop_asked_at)
