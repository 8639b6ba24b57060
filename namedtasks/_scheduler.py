"""The rules: the starts that are admitted, and the effects of each change.

The scheduler only decides. It gets the time as an argument, changes its own tables, and returns
`Effects`, which a backend carries out. It runs no code of the user's but ``__hash__`` and
``__eq__`` of names. A call that raises leaves everything as it was. With threads, every call is
made under the map's lock.

===========  =======================================  ======================
state        kept here                                a start
===========  =======================================  ======================
free         nothing                                  admitted
running      ``running[name]``, which has its record  `AlreadyRunningError`
waiting      a record, ``now < retry_at``             `BackoffError`
ready        a record, ``now >= retry_at``            admitted, failures kept
gave up      a record, ``retry_at`` infinite          `GaveUpError`
===========  =======================================  ======================

A closed scheduler refuses all starts with `ClosedError`, before any other check.

The life of a run: `find_conflict` finds nothing, `admit`, `begin`, `finish`. A start that finds
its name taken may be deferred with `defer`: the run is then *pending*. It holds no name and no
slot. It waits for the end of one run that conflicts with it, its *blocker*, or, if it queues, for
the end of its name's wait. When that has happened, the scheduler looks for conflicts again: the
run is admitted, waits again, or is dropped. A name has at most one pending run; a newer one
supersedes it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Iterable
from operator import itemgetter
from typing import Any, Generic, Literal, TypeVar, cast, final

from namedtasks._backoff import (
    Backoff,
    BackoffPolicy,
    FailedRun,
    compute_backoff,
    count_failures,
    default_retention,
)
from namedtasks._decisions import (
    JOIN,
    NO_EFFECTS,
    REFUSE,
    SKIP,
    Closed,
    Conflict,
    Effects,
    IfBusy,
    Overlapping,
    RetryDecision,
    Stale,
    StartAction,
    StartKeywords,
    StartOptions,
    combine,
    refusal,
    resolve_busy,
)
from namedtasks._errors import RefusedError, snapshot_exception
from namedtasks._event_bus import EventBus
from namedtasks._events import Instrument
from namedtasks._history import FailureCounts, Outcomes
from namedtasks._names import ANY, OverlapIndex, has_any, is_tuple, names_overlap
from namedtasks._observations import Ends, Mark, Observation, check_observation
from namedtasks._state import (
    MAP_POLICY,
    SMALL,
    Failure,
    FailureRecord,
    FailureRecords,
    Outcome,
    PendingRun,
    Run,
    RunStatus,
    Semaphore,
    ShrinkingDict,
    State,
    TaskMapStatistics,
    TimerHeap,
)
from namedtasks._validation import (
    check_callable,
    check_count,
    check_flag,
    check_number,
    check_policy,
    check_whole,
    keyword_error,
)

RunT = TypeVar("RunT", bound=Run)

_MAX_THREADS = 1_000
"""The number of threads that a map without a limit runs at once: far more than a machine can
use, and far fewer than it can start."""

_HOLDERS_TOLD = 10
"""The largest number of holders in an error, so that the cost of a refusal does not grow."""

_CLOSING = "the map is closing"
_GAVE_UP = "its name gave up"

# A member of an enum is slower to look up than a global.
_DEFERRED, _QUEUED, _ADMITTED, _BEGUN, _SUCCEEDED, _FAILED, _CANCELLED = RunStatus


@final
class Scheduler(Generic[RunT]):
    """The state of one map, and the rules that change it; see the module's docstring."""

    def __init__(
        self,
        backoff: BackoffPolicy | None,
        retention: float | None,
        limit: int | None,
        overdue_after: float,
        instruments: Iterable[Instrument],
        random: Callable[[], float],
        failure_threshold: int = 3,
        keep_outcomes: int = 0,
        keep_ends: int = 100_000,
    ) -> None:
        """Make a scheduler from the settings of a map, and check them.

        Raises:
            TypeError: a setting is of the wrong type.
            ValueError: a setting is out of its range.
        """
        check_policy(backoff)
        check_callable("random", random)
        self._policy = backoff
        self._random = random
        if retention is None:
            retention = default_retention(backoff)
        self.records: FailureRecords = FailureRecords(check_number("retention", retention))
        check_count("limit", limit, none_means="no limit")
        self.overdue_after: float = check_number("overdue_after", overdue_after)
        self.events: EventBus = EventBus(instruments)
        self.running: ShrinkingDict[Hashable, RunT] = ShrinkingDict()
        self.pending: ShrinkingDict[Hashable, RunT] = ShrinkingDict()
        self.on_running_changed: Callable[[], object] = tuple
        """Called when `running` is replaced by a smaller dict, and when the map is closed."""
        self.overlaps: OverlapIndex[RunT] = OverlapIndex()
        """The running names, and the names of pending runs that replace others."""
        self.timers: TimerHeap[RunT] = TimerHeap()
        self.slots: Semaphore[RunT] | None = None if limit is None else Semaphore(limit)
        """The slots of all runs; None without a limit."""
        self.thread_slots: Semaphore[RunT] = self.slots or Semaphore(_MAX_THREADS)
        """The slots of runs in the map's own threads."""
        self.closed: bool = False
        self.forked: bool = False
        """True in a forked child of the process that opened the map."""
        self.draining: bool = False
        """True if pending runs that wait for a backoff to end are dropped."""
        self.stopping: bool = False
        """True if all runs were cancelled because an exception leaves the block: no retries."""
        self._overdue = 0
        self.records.on_expired = self._note_expired
        self.counts: FailureCounts = FailureCounts(
            check_whole("failure_threshold", failure_threshold, least=1)
        )
        self.ends: Ends = Ends(check_whole("keep_ends", keep_ends, least=1))
        keep_outcomes = check_whole("keep_outcomes", keep_outcomes)
        self.outcomes: Outcomes | None = Outcomes(keep_outcomes) if keep_outcomes else None
        self._notes_ends: bool = keep_outcomes > 0
        """True if the ends of runs are noted: an observation is open, or outcomes are kept."""
        self._begun: tuple[list[tuple[float, Hashable]], int] = ([], 0)
        """The runs that had begun at the start of the search for the oldest one, with their times,
        in order, and the number of those that are known to have ended."""

    # Reading

    def find_conflict(
        self,
        name: Hashable,
        operation: str | None,
        clock: Callable[[], float],
        since: Mark | None = None,
    ) -> Conflict[RunT] | None:
        """Return the conflict of a start; None if there is none.

        The *clock* is read only if a failure is on record.
        """
        if self.closed:
            return Closed.FORKED if self.forked else Closed.CLOSED
        if since is not None and (stale := self._find_stale(name, since)) is not None:
            return stale
        run = self.running.get(name)
        if run is not None:
            return run
        if isinstance(name, tuple) and (self.overlaps.in_use or ANY in name):
            holders = self.find_holders(cast("Hashable", name), _HOLDERS_TOLD)
            if holders:
                return Overlapping(holders)
        if not self.records.tables or (table := self.records.tables.get(operation)) is None:
            return None
        record = table.records.get(name)  # pyright: ignore[reportUnknownArgumentType]
        return record if record is not None and clock() < record.retry_at else None

    def _find_stale(self, name: Hashable, since: Mark) -> Stale | None:
        has_ended = self.ends.has_ended(name, since, overlaps=self.overlaps.in_use)
        if since.state != "open":  # last, because another thread may change it meanwhile
            return Stale.UNKNOWN
        return Stale.ENDED if has_ended else None

    def wait_of(self, name: Hashable, operation: str | None, now: float) -> FailureRecord | None:
        """Return the record of *name* if it waits or gave up."""
        record = self.records.get(name, operation, now)
        return None if record is None or now >= record.retry_at else record

    def look_for_conflict(
        self, name: Hashable, operation: str | None, now: float, since: Mark | None = None
    ) -> Conflict[RunT] | None:
        """Return the result of `find_conflict`, and change nothing, not even the index of ANY.

        Another thread may change the tables meanwhile.
        """
        if self.closed:
            return Closed.FORKED if self.forked else Closed.CLOSED
        if since is not None and (stale := self._find_stale(name, since)) is not None:
            return stale
        run = self.running.get(name)
        if run is not None:
            return run
        if is_tuple(name) and (self.overlaps.in_use or has_any(name)):
            try:
                runs = (
                    self.overlaps.find(name, _HOLDERS_TOLD) if self.overlaps.knows(name) else None
                )
            except RuntimeError:
                runs = None  # another thread has changed the index meanwhile
            if runs is None:
                # Each table is copied in one step, for the same reason.
                held = list(self.running.values())
                held += [one for one in list(self.pending.values()) if one.deferred == "replace"]
                runs = [one for one in held if names_overlap(one.name, name)]
            if runs:
                return Overlapping(runs[:_HOLDERS_TOLD])
        return self.wait_of(name, operation, now)

    def find_holders(self, name: Hashable, most: int = sys.maxsize) -> list[RunT]:
        """Return up to *most* runs that hold *name* or a name that overlaps it."""
        if is_tuple(name) and (self.overlaps.in_use or has_any(name)):
            if not self.overlaps.knows(name):
                replacing = [run for run in self.pending.values() if run.deferred == "replace"]
                self.overlaps.learn(name, [*self.running.values(), *replacing])
            return self.overlaps.find(name, most)
        run = self.running.get(name)
        return [] if run is None else [run]

    def state(self, name: Hashable, operation: str | None, now: float) -> State:
        """Return the state of *name*; its failures are those of exactly this *operation*."""
        if name in self.running:
            return State.RUNNING
        record = self.records.get(name, operation, now)
        if record is None:
            return State.FREE
        if record.retry_at == math.inf:
            return State.GAVE_UP
        return State.READY if now >= record.retry_at else State.WAITING

    def failure(self, name: Hashable, operation: str | None, now: float) -> Failure | None:
        """Return the failures on record of *name*; while it runs, the failures before the run."""
        run = self.running.get(name)
        record = None if run is None or run.operation != operation else run.record
        if record is None:
            record = self.records.get(name, operation, now)
        if record is None:
            return None
        return Failure(name, operation, record.failures, record.error, record.retry_at)

    def list_pending(self) -> list[PendingRun]:
        """Return the pending runs, each with the run or the time that it waits for."""
        found: list[PendingRun] = []
        for run in list(self.pending.values()):
            kind, blocker = run.deferred, run.blocker
            if kind is None:  # another thread has just admitted it
                continue
            record = self._record_of(run) if blocker is None else None
            found.append(
                PendingRun(
                    run.name,
                    run.operation,
                    kind,
                    None if blocker is None else blocker.name,
                    None if record is None else record.retry_at,
                )
            )
        return found

    def statistics(self, now: float) -> TaskMapStatistics:
        """Return the counts. Expired failures count until they are swept."""
        oldest, first = self._find_oldest_start(), self.thread_slots.first()
        return TaskMapStatistics(
            running=len(self.running),
            pending=len(self.pending),
            waiting_for_slot=self.thread_slots.queued,
            overdue=self._overdue,
            waiting=self.records.waiting,
            gave_up=self.records.gave_up,
            max_failures=self.counts.highest,
            failing=self.counts.failing,
            oldest_run_age=0.0 if oldest is None else max(0.0, now - oldest),
            longest_slot_wait=0.0 if first is None else max(0.0, now - first.queued_at),
            limit=None if self.slots is None else self.slots.capacity,
        )

    def _find_oldest_start(self) -> float | None:
        """Return the time at which the oldest run began; None if none has begun.

        All runs that have begun are listed in order. The first one in the list that has not ended
        is the oldest run. When all of them have ended, a new list is made: so each run is looked
        at once. Several threads may call this at once.
        """
        begun, ended = self._begun
        for is_new in (False, True):
            if is_new:
                runs = [(run.started_at, run.name) for run in list(self.running.values())]
                begun = sorted(
                    [(at, name) for at, name in runs if at is not None], key=itemgetter(0)
                )
                ended = 0
            while ended < len(begun):
                at, name = begun[ended]
                run = self.running.get(name)
                if run is not None and run.started_at == at:
                    self._begun = (begun, ended)
                    return at
                ended += 1
        self._begun = ([], 0)
        return None

    def is_idle(self) -> bool:
        """Return whether nothing runs and nothing is pending."""
        return not self.running and not self.pending

    # Starting

    def resolve(
        self,
        conflict: Conflict[RunT],
        name: Hashable,
        operation: str | None,
        if_busy: IfBusy,
        clock: Callable[[], float],
    ) -> tuple[StartAction, RefusedError | None]:
        """Return the outcome of a start that finds *conflict*, and the error of a refusal.

        Emits the event of a refusal, a skip or a join.
        """
        if if_busy == "replace" and isinstance(conflict, Overlapping):
            # A waiting name is refused in any case, also after those runs.
            conflict = self.wait_of(name, operation, clock()) or conflict
        is_waiting = if_busy == "join" and isinstance(conflict, FailureRecord)
        # A retry may wait for the end of the wait.
        is_held = is_waiting and conflict in self.records.held
        action = JOIN if is_held else resolve_busy(conflict, if_busy)
        if action is JOIN and "task_joined" in self.events.listeners:
            run = self.run_to_join(name)
            self.events.emit("task_joined", name, operation, clock(), run)
        listened = "task_refused" in self.events.listeners
        if action is not REFUSE and not (action is SKIP and listened):
            return action, None
        now = clock()
        error = refusal(conflict, name, operation, now)
        if listened:
            skipped = action is SKIP
            self.events.emit("task_refused", name, operation, now, error=error, skipped=skipped)
        return action, error

    def run_to_join(self, name: Hashable) -> RunT:
        """Return the run that a start of *name* joins: the running one, or a retry that waits."""
        return self.running.get(name) or self.pending[name]

    def holder_before(self, run: RunT) -> RunT | None:
        """Return the run that must end before the pending *run* can take its name, if any."""
        if run.deferred in ("queue", "retry"):
            return cast("RunT | None", run.blocker) or self.running.get(run.name)
        return None

    def check_keywords(self, verb: str, keywords: Any) -> StartOptions | None:
        """Return the options of a start from its keyword arguments.

        Raises:
            TypeError: *verb* does not have such an option, or one is of the wrong type.
            ValueError: as for `check_options`.
        """
        unknown = keywords.keys() - StartKeywords.__annotations__
        if unknown:
            raise keyword_error(verb, unknown)
        backoff, since = keywords.get("backoff", MAP_POLICY), keywords.get("since")
        return self.check_options(backoff, since, keywords.get("retry", False))

    def check_options(self, backoff: Any, since: Any, retry: Any) -> StartOptions | None:
        """Return the options of a start; None if all of them have their defaults.

        Raises:
            TypeError: an option is of the wrong type.
            ValueError: *since* is closed or an observation of another map, or *retry* is
                true without a policy.
        """
        if backoff is MAP_POLICY and since is None and retry is False:
            return None
        if isinstance(backoff, str) and backoff == MAP_POLICY:
            backoff = MAP_POLICY
        else:
            check_policy(backoff, "'map', ")
        mark = None if since is None else check_observation(since, self.ends)
        check_flag("retry", retry)
        if retry and (self._policy if backoff is MAP_POLICY else backoff) is None:
            raise ValueError("retry=True needs a backoff policy, but backoff is None")
        return StartOptions(backoff, mark, retry)

    def admit(self, run: RunT, clock: Callable[[], float], *, give_slot: bool = True) -> None:
        """Give *run*, which has no conflict, its name, and a slot or a place in the queue.

        The *clock* is read only if a failure of the name is on record.
        """
        name = run.name
        if self.overlaps.in_use and run.deferred != "replace":  # a replacement is in it already
            self.overlaps.add(run)
        self.running[name] = run
        if self.records.tables:
            record = self._record_of(run)
            if record is not None:
                now = clock()
                has_expired = self.records.has_expired(record, now)  # before `take` releases it
                self.records.take(name, run.operation)
                if has_expired:
                    self._note_expired(name, run.operation, record, now)
                else:
                    run.record = record
                    run.failures = record.failures
        semaphore = run.semaphore
        if semaphore is not None and give_slot and not semaphore.acquire(run):
            run.status = _QUEUED
            run.queued_at = clock()

    def defer(self, run: RunT, if_busy: IfBusy, now: float) -> Effects[RunT]:
        """Make *run* the pending run of its name; it supersedes an earlier one.

        Args:
            run: The run.
            if_busy: ``"replace"`` or ``"queue"``.
            now: The time.
        """
        how = cast("Literal['replace', 'queue']", if_busy)
        name = run.name
        before = self.pending.get(name)
        run.deferred = how
        run.status = _DEFERRED
        self.pending[name] = run
        self._emit("task_queued", run, now, if_busy=how)
        followers: list[RunT] = []
        if before is not None:
            followers = self._supersede(before, now)
        if how == "replace" and self.overlaps.in_use:
            self.overlaps.add(run)
        effects = self._reconsider([run, *followers], now)
        superseded = NO_EFFECTS if before is None else Effects(dropped=(before,))
        holders = self.find_holders(name) if how == "replace" else []
        replaced = tuple([holder for holder in holders if holder is not run])
        return combine(superseded, effects, Effects(replaced=replaced) if replaced else NO_EFFECTS)

    def _supersede(self, run: RunT, now: float) -> list[RunT]:
        """End the pending *run* because of a newer one; return the runs that wait for it."""
        run.reason = "superseded by a newer start of its name"
        followers = self._end_deferred(run)
        self._emit("task_superseded", run, now)
        return followers

    def begin(self, run: RunT, now: float) -> bool:
        """Note that the body of *run* begins; its timeout counts from now on.

        Returns:
            True if a timer was set or an event may have been emitted.
        """
        run.status = _BEGUN
        run.started_at = now
        is_told = "task_started" in self.events.listeners
        if run.timeout == math.inf and run.cancelled_at is None and not is_told:
            return bool(self.events.queued)  # the admission may have found an expired failure
        run.deadline = now + run.timeout
        self._watch(run)
        self._emit("task_started", run, now, failures=run.failures)
        return True

    # Stopping

    def request_cancel(self, run: RunT, reason: str | None, now: float) -> None:
        """Note that *run* was asked to stop; the reason of the first request counts."""
        if run.done:
            return
        if run.cancelled_at is None:
            run.cancelled_at = now
            run.reason = reason
            self._watch(run)
        elif run.lost_worker:
            run.lost_worker = False
            run.reason = reason

    def note_lost_worker(self, run: RunT, now: float, attempt: int | None = None) -> None:
        """Ask *run* to stop, because its pool has lost a worker, in this *attempt* if given.

        A pool may report it so late that another attempt has begun.
        """
        if attempt not in (None, run.attempt):
            return
        if run.cancelled_at is None and not run.done:
            self.request_cancel(run, "a worker of its pool was lost", now)
            run.lost_worker = True

    def drop(self, run: RunT, reason: str | None, now: float) -> Effects[RunT]:
        """End *run*, whose body has not begun, and never begins."""
        run.reason = run.reason or reason
        if run.status is not _DEFERRED:
            run.cancelled_at = now
            return combine(Effects(dropped=(run,)), self.finish(run, _CANCELLED, lambda: now))
        followers = self._end_deferred(run)
        self._emit_cancelled(run, now)
        return combine(Effects(dropped=(run,)), self._reconsider(followers, now))

    def drain(self, now: float) -> Effects[RunT]:
        """Drop the pending runs that wait for a backoff to end, now and from now on.

        Retries are dropped only if the map is closed, because their work is not done.
        """
        self.draining = True
        effects: Effects[RunT] = NO_EFFECTS
        for run in list(self.pending.values()):
            # A queued run with a blocker may not have to wait after the end of that.
            is_dropped = self.closed if run.deferred == "retry" else run.blocker is None
            if is_dropped and not run.done:
                effects = combine(effects, self.drop(run, _CLOSING, now))
        return effects

    def run_due(self, now: float) -> Effects[RunT]:
        """Reconsider the pending runs whose wait is over, and mark overdue runs."""
        effects: Effects[RunT] = NO_EFFECTS
        while (run := self.timers.pop_due(now)) is not None:
            if run.status is _DEFERRED:
                effects = combine(effects, self._reconsider([run], now))
                continue
            run.overdue = True
            self._overdue += 1
            self._emit(
                "task_overdue",
                run,
                now,
                duration=_duration(run, now),
                asked_at=run.asked_to_stop_at,
            )
        return effects

    # Ending

    def decide_retry(
        self, run: RunT, error: BaseException, clock: Callable[[], float]
    ) -> RetryDecision:
        """Return the policy's decision on a failure of *run*, with a copy of the error.

        This runs code of the user's and changes nothing, so it is not called under a lock.
        """
        policy = self._policy if run.backoff is MAP_POLICY else run.backoff
        before = run.failures
        failures = before + 1
        failed: FailedRun | None = None
        # Made only for a policy that reads it.
        if policy is not None and (type(policy) is not Backoff or policy.reset_after is not None):
            failed = FailedRun(run.name, run.operation, run.started_at, clock())
            failures = count_failures(policy, before, failed)
        delay = compute_backoff(policy, failures, error, failed, self._random)
        is_kept = delay is not None or self.outcomes is not None
        return RetryDecision(
            before, failures, delay, snapshot_exception(error) if is_kept else None
        )

    def finish(  # noqa: C901 - the one path of all ends
        self,
        run: RunT,
        status: RunStatus,
        clock: Callable[[], float],
        error: BaseException | None = None,
        retry: RetryDecision | None = None,
        *,
        emit: bool = True,
    ) -> Effects[RunT]:
        """End *run*, which holds its name, and release the name.

        Args:
            run: The run.
            status: `SUCCEEDED`, `FAILED` or `CANCELLED`.
            clock: Returns the time. It is read only if something depends on it, which is so
                for few runs.
            error: The error of a failure.
            retry: The decision on a failure that counts; None keeps the record as it was.
            emit: False to emit no event.
        """
        running = self.running
        listeners = self.events.listeners
        is_told = emit and bool(listeners)
        if status is _SUCCEEDED:  # LoggingInstrument, which most maps have, is not told of it
            is_told = is_told and "task_succeeded" in listeners
        tables = self.records.tables
        followers, record = run.followers, run.record
        is_timed = tables or is_told or followers or record or self.outcomes or retry is not None
        now = clock() if is_timed else 0.0
        is_retried = False
        # The record comes first, so that another thread never sees a failed name as free.
        if retry is not None and retry.delay is not None and retry.recorded is not None:
            if record is not None:
                self.counts.discard(record.failures)
            record = FailureRecord(retry.recorded, retry.failures, now + retry.delay)
            self.counts.add(record.failures)
            is_retried = run.retry and self._may_retry(run, error, record)
        if record is not None:
            run.record = None
            if status is not _SUCCEEDED:
                self.records.put(run.name, run.operation, record)
            else:
                self.counts.discard(record.failures)
        del running[run.name]
        if not len(running) % SMALL and (running or running.peak):
            self.running = running.shrunk()
            if self.running is not running:
                self.on_running_changed()
        if self.overlaps.in_use:
            self.overlaps.discard(run)
        effects: Effects[RunT] = NO_EFFECTS
        if run.timeout != math.inf or run.cancelled_at is not None:
            self.timers.discard(run)
            effects = Effects()
            if run.overdue:
                self._overdue -= 1
        if followers is not None:
            run.followers = None
            effects = self._reconsider(followers, now, predecessor=run)
        elif run.semaphore is not None:
            following = run.semaphore.release(run)
            if following is not None:
                following.status = _ADMITTED
                effects = Effects((following,))
        run.status = status
        if self._notes_ends and run.started_at is not None:
            self._note_end(run, run.started_at, now, error, retry)
        if is_told:
            self._emit_end(run, now, error, retry, is_retried)
            effects = combine(effects, Effects())
        if is_retried and record is not None:
            effects = combine(effects, self._wait_to_retry(run, record, now))
        if tables:
            self.records.sweep(now)
        return effects

    def _may_retry(self, run: RunT, error: BaseException | None, record: FailureRecord) -> bool:
        """Return whether another attempt of *run* follows its failure; *record* is its record.

        A pending start takes the place of the attempt, as it would during the wait. A pending
        retry, which is of another operation, is older and is superseded.
        """
        pending = self.pending.get(run.name)
        return (
            record.retry_at != math.inf
            and isinstance(error, Exception)
            and (run.lost_worker or not run.is_cancel_requested())
            and not self.closed
            and not self.stopping
            and (pending is None or pending.deferred == "retry")
        )

    def _wait_to_retry(self, run: RunT, record: FailureRecord, now: float) -> Effects[RunT]:
        """Make *run*, whose attempt has just failed, the pending run of its name."""
        before = self.pending.get(run.name)
        if before is not None:
            self._supersede(before, now)
        run.last_failure, run.error = record.error, None
        run.end_attempt()
        run.status = _DEFERRED
        run.deferred = "retry"
        self.pending[run.name] = run
        self.records.held.add(record)
        self.timers.set(run, record.retry_at)
        return Effects() if before is None else Effects(dropped=(before,))

    def _note_end(
        self,
        run: RunT,
        started_at: float,
        now: float,
        error: BaseException | None,
        retry: RetryDecision | None,
    ) -> None:
        """Note the end of *run* for observations and outcomes."""
        ends = self.ends
        if ends.is_observed:
            ends.note(run.name, self.overlaps.in_use)
        if self.outcomes is None:
            self._notes_ends = ends.is_observed
            return
        status: Any = run.status.name.lower()
        recorded = None if retry is None else retry.recorded
        if error is not None and recorded is None:  # an error that leaves the block
            recorded = snapshot_exception(error)
        self.outcomes.add(
            Outcome(
                name=run.name,
                operation=run.operation,
                status=status,
                ended_at=now,
                duration=now - started_at,
                error=recorded,
            )
        )

    def observe(self, close: Callable[[Mark], object]) -> Observation:
        """Return a new observation, which calls *close* to be closed."""
        self._notes_ends = True
        return self.ends.open(close)

    def close_observation(self, mark: Mark) -> None:
        """Close the observation of *mark*, and forget the ends that no other observation needs."""
        self.ends.close(mark)
        self._notes_ends = self.ends.is_observed or self.outcomes is not None

    def _note_expired(
        self, name: Hashable, operation: str | None, record: FailureRecord, now: float
    ) -> None:
        self.counts.discard(record.failures)
        expired_at = record.retry_at + self.records.retention
        self.events.emit(
            "task_expired", name, operation, now, failures=record.failures, expired_at=expired_at
        )

    def roll_back(self, run: RunT, clock: Callable[[], float]) -> Effects[RunT]:
        """Undo the admission of *run*, which could not be started. No event is emitted."""
        run.reason = "its start raised an error"
        return self.finish(run, _CANCELLED, clock, emit=False)

    def forget(self, name: Hashable, operation: str | None, now: float) -> Effects[RunT] | None:
        """Drop the failures of *name*, of all operations unless one is given.

        A run continues, and its earlier failures no longer count. A pending run that waits for
        the end of their backoff is reconsidered.

        Returns:
            None if there was nothing to forget.
        """
        run = self.running.get(name)
        wanted = self.records.operations_of(name, now)
        dropped: list[tuple[str | None, FailureRecord]] = []
        if run is not None and run.record is not None and operation in (None, run.operation):
            dropped.append((run.operation, run.record))
            run.record = None
            run.failures = 0
        for one in wanted:
            if operation in (None, one):
                record = self.records.take(name, one)
                assert record is not None
                dropped.append((one, record))
        for one, record in dropped:
            self.counts.discard(record.failures)
            self.events.emit("task_forgotten", name, one, now, failures=record.failures)
        if not dropped:
            return None
        pending = self.pending.get(name)
        if pending is None or pending.blocker is not None:
            return NO_EFFECTS
        return self._reconsider([pending], now)

    def abandon(self) -> None:
        """Drop everything in a forked child, where no thread and no loop runs the runs."""
        self.closed = self.forked = True
        self.running, self.pending = ShrinkingDict(), ShrinkingDict()
        self.records = FailureRecords(self.records.retention)
        self.counts = FailureCounts(self.counts.threshold)
        self.timers = TimerHeap()
        self.overlaps = OverlapIndex()
        if self.slots is not None:
            self.slots = Semaphore(self.slots.capacity)
        self.thread_slots = self.slots or Semaphore(_MAX_THREADS)
        self.ends.forget_all()
        self.outcomes = None
        self._notes_ends = False
        self._begun = ([], 0)
        self._overdue = 0
        self.events.after_fork()
        self.on_running_changed()

    # Pending runs

    def _end_deferred(self, run: RunT) -> list[RunT]:
        """End the pending *run*, and return the runs that wait for it."""
        self._stop_waiting(run)
        if self.pending.get(run.name) is run:
            self._remove_pending(run)
        if run.deferred == "replace" and self.overlaps.in_use:
            self.overlaps.discard(run)
        if run.deferred == "retry" and (record := self._record_of(run)) is not None:
            self.records.held.discard(record)
        run.status = _CANCELLED
        followers, run.followers = run.followers or [], None
        return followers

    def _reconsider(
        self, pending: Iterable[RunT], now: float, *, predecessor: RunT | None = None
    ) -> Effects[RunT]:
        """Give the *pending* runs their names, in order, if they have no conflict any more.

        The first that replaces its *predecessor* gets the slot straight from it.
        """
        admitted: list[RunT] = []
        dropped: list[RunT] = []
        for run in pending:
            self._stop_waiting(run)
            conflict = self._conflict_of(run, now)
            if conflict is None:
                self._remove_pending(run)
                run.failures = 0  # unless there is a record
                self.admit(run, lambda: now, give_slot=False)
                admitted.append(run)
            elif not isinstance(conflict, FailureRecord):
                run.blocker = conflict
                if conflict.followers is None:
                    conflict.followers = []
                conflict.followers.append(run)
            elif conflict.retry_at == math.inf or (
                self.draining and (self.closed or run.deferred != "retry")
            ):
                # It queues, so no other run waits for it.
                run.reason = _CLOSING if conflict.retry_at != math.inf else _GAVE_UP
                self._end_deferred(run)
                self._emit_cancelled(run, now)
                dropped.append(run)
            else:
                self.timers.set(run, conflict.retry_at)
                if run.deferred == "retry":
                    self.records.held.add(conflict)
        begin = self._give_slots(admitted, predecessor, now)
        return Effects(tuple(begin), tuple(dropped))

    def _conflict_of(self, run: RunT, now: float) -> RunT | FailureRecord | None:
        """Return a run or a record that conflicts with the pending *run* now."""
        if run.deferred == "replace":  # the outcomes of the replaced runs do not matter
            holders = self.find_holders(run.name, 2)
            return next((one for one in holders if one is not run), None)
        own = self.running.get(run.name)
        if own is not None:
            return own
        if is_tuple(run.name):
            holders = self.find_holders(run.name, 1)
            if holders:
                return holders[0]
        return self.wait_of(run.name, run.operation, now)

    def _give_slots(self, admitted: list[RunT], predecessor: RunT | None, now: float) -> list[RunT]:
        """Give the *admitted* runs their slots; return the runs that may begin."""
        begin: list[RunT] = []
        heir: RunT | None = None
        if predecessor is not None and predecessor.semaphore is not None:
            semaphore = predecessor.semaphore
            heir = next(
                (
                    run
                    for run in admitted
                    if run.deferred == "replace" and run.semaphore is semaphore
                ),
                None,
            )
            if heir is not None:
                heir.status = _ADMITTED if semaphore.transfer(predecessor, heir) else _QUEUED
            elif (following := semaphore.release(predecessor)) is not None:
                following.status = _ADMITTED
                begin.append(following)
        for run in admitted:
            run.deferred = None
            if run is not heir:
                has_slot = run.semaphore is None or run.semaphore.acquire(run)
                run.status = _ADMITTED if has_slot else _QUEUED
                if not has_slot:
                    run.queued_at = now
            if run.status is _ADMITTED:
                begin.append(run)
        return begin

    def _stop_waiting(self, run: RunT) -> None:
        self.timers.discard(run)
        blocker, run.blocker = run.blocker, None
        if blocker is not None and blocker.followers is not None and run in blocker.followers:
            blocker.followers.remove(run)

    def _record_of(self, run: RunT) -> FailureRecord | None:
        table = self.records.tables.get(run.operation)
        return None if table is None else table.records.get(run.name)

    def _remove_pending(self, run: RunT) -> None:
        del self.pending[run.name]
        if not len(self.pending) % SMALL:
            self.pending = self.pending.shrunk()

    # Helpers

    def _watch(self, run: RunT) -> None:
        """Set the time at which *run* is overdue, after its cancellation or its deadline."""
        if run.asked_to_stop_at != math.inf and not run.overdue:
            self.timers.set(run, run.asked_to_stop_at + self.overdue_after)

    def _emit(self, hook: str, run: RunT, now: float, **fields: Any) -> None:
        self.events.emit(hook, run.name, run.operation, now, run, **fields)

    def _emit_end(
        self,
        run: RunT,
        now: float,
        error: BaseException | None,
        retry: RetryDecision | None,
        will_retry: bool,
    ) -> None:
        if run.status is _SUCCEEDED:
            self._emit("task_succeeded", run, now, duration=_duration(run, now))
            return
        if run.status is _CANCELLED:
            self._emit_cancelled(run, now)
            return
        delay = None if retry is None else retry.delay
        retry_at = None if delay is None else now + delay
        failures = run.failures if retry is None or delay is None else retry.failures
        self._emit(
            "task_failed",
            run,
            now,
            duration=_duration(run, now),
            error=error,
            failures=failures,
            retry_at=retry_at,
            retry_in=delay,
            will_retry=will_retry,
        )
        if retry_at == math.inf:
            self._emit("task_gave_up", run, now, failures=failures, error=error)

    def _emit_cancelled(self, run: RunT, now: float) -> None:
        duration = None if run.started_at is None else now - run.started_at
        self._emit("task_cancelled", run, now, duration=duration, reason=run.reason)


def _duration(run: Run, now: float) -> float:
    return 0.0 if run.started_at is None else now - run.started_at
