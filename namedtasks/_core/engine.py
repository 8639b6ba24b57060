"""The ledger, the slots, the timers and the events as one thing that is driven.

The life of a run, in the calls of the conductor::

    obstacle() ──something──> refuse()
        │ nothing
      admit() ──────────────> roll_back()       the caller's function raised
        │ (waits for a slot) ─> cancelled()     cancelled before it had one
      begin()
        │
      succeeded() | failed(judge(), if it stands()) | cancelled() | escaped()

Each of the last row, and roll_back(), frees the name and gives back the next
run that has a slot now, for the shell to begin. `judge` runs the user's code and
changes nothing; all else changes the tables and runs no code of the user's.
After each call who waits is woken, and then ``dispatch`` delivers.
"""

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar, final

import attrs

from namedtasks._core import checks
from namedtasks._core.backoff import BackoffPolicy, Complain, default_retention, delay_after
from namedtasks._core.dispatch import Dispatch
from namedtasks._core.errors import RefusedError
from namedtasks._core.events import (
    Instrument,
    TaskCancelled,
    TaskFailed,
    TaskForgotten,
    TaskGaveUp,
    TaskOverdue,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
)
from namedtasks._core.ledger import Closed, Ledger, refusal
from namedtasks._core.records import Record, stand_in
from namedtasks._core.runs import Run
from namedtasks._core.slots import Slots
from namedtasks._core.timers import Timers

RunT = TypeVar("RunT", bound=Run)

_MAX_THREADS = 1_000
"""Threads that a map without a limit runs at once: far above what a machine has
use for, far below where it runs out of them."""


@attrs.frozen(kw_only=True)
class TaskMapStatistics:
    """How many of what there is in a map right now; made at a cost that does not grow.

    .. versionadded:: 0.1
    """

    running: int
    """Names that are taken, those included whose run waits for a slot."""
    waiting_for_slot: int
    """Of these, how many wait for a slot: with a limit, or beyond 1 000 threads."""
    overdue: int
    """Of these, how many were asked to stop, or met their deadline, and go on regardless."""
    waiting: int
    """Failures on record of names that do not run now: waiting, or ready to be tried again.
    Some may have lapsed: memory is given back bit by bit."""
    gave_up: int
    """Failures on record that stay until they are forgotten."""
    limit: int | None
    """How many bodies may run at once; None if there is no limit."""


@attrs.frozen
class Verdict:
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
class Engine(Generic[RunT]):
    """Decides for a shell; see the module's docstring for the order of the calls."""

    __slots__ = (
        "_complain",
        "_overdue",
        "_policy",
        "_random",
        "dispatch",
        "ledger",
        "overdue_after",
        "slots",
        "threads",
        "timers",
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
        self.ledger: Ledger[RunT] = Ledger(
            default_retention(backoff) if retention is None else retention
        )
        self.slots: Slots[RunT] = Slots(limit)
        self.threads: Slots[RunT] = Slots[RunT](_MAX_THREADS) if limit is None else self.slots
        """What a run in one of the map's own threads needs a slot of."""
        self.timers: Timers[RunT] = Timers()
        self.dispatch: Dispatch = Dispatch(instruments, complain)
        self._policy = backoff
        self.overdue_after: float = overdue_after
        """Seconds after it should have stopped when a run is overdue."""
        self._random = random
        self._complain = complain
        self._overdue = 0

    # Starting

    def refuse(
        self,
        obstacle: RunT | Record | Closed,
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
        wanted = self.dispatch.wants(TaskRefused)
        if skipped and not wanted:
            return None
        error = refusal(obstacle, name, operation, now)
        if wanted:
            self.dispatch.note(
                TaskRefused(name=name, operation=operation, at=now, error=error, skipped=skipped)
            )
        return None if skipped else error

    def admit(self, run: RunT, now: float) -> None:
        """Give *run* its name, and a slot or a place in line; nothing stands in the way."""
        self.ledger.admit(run, now)
        self.ledger.records.sweep(now)
        run.slots.take(run)

    def roll_back(self, run: RunT, now: float) -> RunT | None:
        """Undo an admission; whoever waits for the run is told that it was cancelled."""
        if run.done:
            return None
        run.reason = "its start raised an error"
        return self._end(run, now, self.ledger.restore)

    def begin(self, run: RunT, now: float) -> None:
        """The body of *run* begins: its timeout counts from here."""
        run.started_at = now
        run.deadline = now + run.timeout
        self._watch(run)
        if self.dispatch.wants(TaskStarted):
            self.dispatch.note(
                TaskStarted(name=run.name, operation=run.operation, at=now, failures=run.failures),
                run,
            )

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

    def mark_overdue(self, now: float) -> None:
        """Mark the runs that were asked to stop and did not, for all too long."""
        while (run := self.timers.pop_due(now)) is not None:
            run.overdue = True
            self._overdue += 1
            if self.dispatch.wants(TaskOverdue):
                self.dispatch.note(
                    TaskOverdue(
                        name=run.name,
                        operation=run.operation,
                        at=now,
                        duration=_duration(run, now),
                        asked_at=_asked_at(run),
                    ),
                    run,
                )

    # Ending

    def succeeded(self, run: RunT, now: float) -> RunT | None:
        """*run* returned a value."""
        following = self._end(run, now, self.ledger.succeed)
        if self.dispatch.wants(TaskSucceeded):
            self.dispatch.note(
                TaskSucceeded(
                    name=run.name, operation=run.operation, at=now, duration=_duration(run, now)
                ),
                run,
            )
        return following

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

    def failed(self, run: RunT, verdict: Verdict, now: float) -> RunT | None:
        """*run* ended by an error, and the verdict on it stands."""
        delay = verdict.delay
        if delay is None or verdict.recorded is None:
            return self._failed_uncounted(run, verdict.error, now)
        recorded, failures = verdict.recorded, run.failures + 1
        following = self._end(run, now, lambda ended: self.ledger.fail(ended, recorded, delay, now))
        self._note_failed(run, verdict.error, now, failures, delay)
        if delay == math.inf and self.dispatch.wants(TaskGaveUp):
            self.dispatch.note(
                TaskGaveUp(
                    name=run.name,
                    operation=run.operation,
                    at=now,
                    failures=failures,
                    error=verdict.error,
                ),
                run,
            )
        return following

    def escaped(self, run: RunT, error: BaseException, now: float) -> RunT | None:
        """*run* ended by what is no `Exception`; its name's record is as before."""
        return self._failed_uncounted(run, error, now)

    def cancelled(self, run: RunT, now: float) -> RunT | None:
        """*run* was cancelled and heeded it, or never began."""
        following = self._end(run, now, self.ledger.restore)
        if self.dispatch.wants(TaskCancelled):
            duration = None if run.started_at is None else now - run.started_at
            self.dispatch.note(
                TaskCancelled(
                    name=run.name,
                    operation=run.operation,
                    at=now,
                    duration=duration,
                    reason=run.reason,
                ),
                run,
            )
        return following

    # Looking and forgetting

    def forget(self, name: Hashable, operation: str | None, now: float) -> bool:
        """Drop the failures of *name*, or of one *operation* of it; tell whether there were any."""
        dropped = self.ledger.forget(name, operation, now)
        if self.dispatch.wants(TaskForgotten):
            for one in dropped:
                self.dispatch.note(
                    TaskForgotten(
                        name=one.name, operation=one.operation, at=now, failures=one.failures
                    )
                )
        return bool(dropped)

    def statistics(self, now: float) -> TaskMapStatistics:
        """Count, and sweep a little."""
        records = self.ledger.records
        records.sweep(now)
        capacity, waiting_for_slot = self.slots.capacity, self.slots.waiting
        if self.threads is not self.slots:
            waiting_for_slot += self.threads.waiting
        return TaskMapStatistics(
            running=len(self.ledger.running),
            waiting_for_slot=waiting_for_slot,
            overdue=self._overdue,
            waiting=records.waiting,
            gave_up=records.gave_up,
            limit=None if capacity == math.inf else int(capacity),
        )

    # Inside

    def _end(self, run: RunT, now: float, settle: Callable[[RunT], None]) -> RunT | None:
        settle(run)
        run.done = True
        self.timers.discard(run)
        if run.overdue:
            self._overdue -= 1
        following: RunT | None = run.slots.leave(run)
        self.ledger.records.sweep(now)
        return following

    def _failed_uncounted(self, run: RunT, error: BaseException, now: float) -> RunT | None:
        following = self._end(run, now, self.ledger.restore)
        self._note_failed(run, error, now, run.failures, None)
        return following

    def _note_failed(
        self, run: RunT, error: BaseException, now: float, failures: int, delay: float | None
    ) -> None:
        if self.dispatch.wants(TaskFailed):
            self.dispatch.note(
                TaskFailed(
                    name=run.name,
                    operation=run.operation,
                    at=now,
                    duration=_duration(run, now),
                    error=error,
                    failures=failures,
                    retry_at=None if delay is None else now + delay,
                    retry_in=delay,
                ),
                run,
            )

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


def _duration(run: Run, now: float) -> float:
    return 0.0 if run.started_at is None else now - run.started_at
