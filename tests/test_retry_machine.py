"""The scheduler beside a plain model: retries, observations, and policies of single starts.

The model is written for reading. It keeps all that ever ended in one list, and answers each
question about an observation by going through it. It predicts each start, each end and each
wait; names that overlap while they run are the matter of `tests.test_pending_machine`.
"""

from __future__ import annotations

import math
from typing import Any, cast

import attrs
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from namedtasks import (
    ANY,
    AlreadyRunningError,
    Backoff,
    BackoffError,
    ClosedError,
    GaveUpError,
    Observation,
    RefusedError,
    StaleLookError,
    State,
    _base as base,
)
from namedtasks._decisions import IfBusy, StartAction, StartOptions
from namedtasks._state import Run, RunStatus
from namedtasks.instruments import TaskFailed, TaskStarted
from tests.fuzz import examples
from tests.plain_backend import PlainBackend, PlainMap, PlainRun, has_slot

NAMES = ("a", "b", "c")
QUICK = (("v", 1), ("v", 2), ("w", 1), ("v", ANY), (ANY, 1))
"""Names of runs that end in the step that starts them: they overlap only what has ended."""
OPERATIONS = (None, "mount")
RETENTION = 3.0
KEEP_ENDS = 3
KEEP_OUTCOMES = 3
THRESHOLD = 2
APART = 1 / 1024
"""Seconds between any two failures, so that no two waits end at the same moment."""

MAP = Backoff(initial=1.0, maximum=4.0, give_up_after=3, exempt=(KeyError,))
FAST = Backoff(initial=0.5, factor=1.0, reset_after=2.0)
POLICIES = ("map", MAP, FAST, None)


class Escape(BaseException):
    """What is no `Exception` is not retried."""


def wait_after(policy: Any, failures: int, error: BaseException) -> float | None:
    """The waits of the policies above, written out."""
    if policy is None:
        return None
    if policy == FAST:
        return 0.5
    return None if isinstance(error, KeyError) else {1: 1.0, 2: 2.0}.get(failures, math.inf)


def overlap(one: Any, other: Any) -> bool:
    """Whether two names exclude each other, in the plainest way."""
    if not isinstance(one, tuple) or not isinstance(other, tuple):
        return bool(one == other)
    fields: list[tuple[Any, Any]] = [*zip(cast("Any", one), cast("Any", other), strict=True)]
    return all(mine is ANY or its is ANY or mine == its for mine, its in fields)


@attrs.define(eq=False)
class Job:
    """A start that was accepted, as the model sees it."""

    name: Any
    operation: str | None
    how: IfBusy
    policy: Any
    retry: bool
    timeout: float
    run: PlainRun
    kind: str = "running"
    """What it is: running, or pending to replace, queue or retry."""
    due: float | None = None
    """The time that it waits for, if it is pending and waits for no run."""
    attempts: int = 0
    failures: int = 0
    began: float | None = None
    cancelled_at: float | None = None
    """The time when somebody asked the attempt to stop."""
    lost_worker_at: float | None = None
    last_error: BaseException | None = None
    end: str = ""


@attrs.define
class Look:
    """An observation, and the number of ends before it."""

    observation: Observation | None
    began: int
    expired: bool = False


class RetryMachine(RuleBasedStateMachine):
    @initialize(limit=st.sampled_from([None, 1, 2]))
    def open(self, limit: int | None) -> None:
        self.backend = PlainBackend(
            backoff=MAP,
            retention=RETENTION,
            limit=limit,
            keep_ends=KEEP_ENDS,
            keep_outcomes=KEEP_OUTCOMES,
            failure_threshold=THRESHOLD,
        )
        self.backend.cannot_begin = {}
        self.scheduler = self.backend.scheduler
        self.tasks = PlainMap(self.backend)
        self.limit = math.inf if limit is None else limit
        self.running: dict[Any, Job] = {}
        self.pending: dict[Any, Job] = {}
        self.line: list[Job] = []
        self.failed: dict[tuple[Any, str | None], tuple[int, float]] = {}
        """Failures in a row and the end of the wait; those of a name that runs as well."""
        self.ends: list[Any] = []
        self.outcomes: list[tuple[Any, str | None, str]] = []
        self.looks: list[Look] = []
        self.jobs: list[Job] = []
        self.will_retry: list[bool] = []
        self.bodies = 0
        self.is_closed = self.is_draining = False
        self.asks_for_next_retry = False
        self.keeps_for_nobody = False
        """True from the loss of an observation to the next one: the ends kept for it go then."""

    # The model: what is known

    @property
    def now(self) -> float:
        return self.backend.time

    def record(self, name: Any, operation: str | None) -> tuple[int, float] | None:
        """The failures on record, unless they have expired; a retry that waits keeps them."""
        found = self.failed.get((name, operation))
        job = self.pending.get(name)
        is_kept = job is not None and job.kind == "retry" and job.operation == operation
        if found is None or (self.now >= found[1] + RETENTION and not is_kept):
            return None
        return found

    def has_record(self, name: Any, operation: str | None) -> bool:
        """Whether failures count; those of the run that has taken them do not expire."""
        job = self.running.get(name)
        if job is not None and job.operation == operation:
            return (name, operation) in self.failed and job.failures > 0
        return self.record(name, operation) is not None

    def wait(self, name: Any, operation: str | None) -> float | None:
        """The end of the wait of a name; infinite if it gave up."""
        found = self.record(name, operation)
        return None if found is None or self.now >= found[1] else found[1]

    def is_stale(self, name: Any, look: Look) -> bool:
        return look.expired or any(overlap(name, one) for one in self.ends[look.began :])

    def expected(
        self, name: Any, operation: str | None, how: IfBusy, look: Look | None
    ) -> str | Job | type[RefusedError]:
        """What a start comes to: a word, the job that it joins, or the error."""
        if self.is_closed:
            return ClosedError
        if look is not None and self.is_stale(name, look):
            return "skipped" if how == "skip" else StaleLookError
        job, until = self.running.get(name), self.wait(name, operation)
        if job is not None:
            if how == "refuse":
                return AlreadyRunningError
            return job if how == "join" else "skipped" if how == "skip" else "deferred"
        if until is None:
            return "admitted"
        if how == "skip":
            return "skipped"
        waits = self.pending.get(name)
        is_retry = waits is not None and waits.kind == "retry" and waits.operation == operation
        if how == "join" and is_retry:
            assert waits is not None
            return waits
        if until == math.inf:
            return GaveUpError
        return "deferred" if how == "queue" else BackoffError

    # The model: what changes

    def begin(self, job: Job) -> None:
        job.began = self.now
        job.attempts += 1
        self.bodies += 1

    def admit(self, job: Job, *, was_retry: bool = False) -> None:
        key = job.name, job.operation
        found = self.failed.get(key)
        if found is not None and not was_retry and self.record(*key) is None:
            del self.failed[key]
            found = None
        job.failures = 0 if found is None else found[0]
        job.kind, job.due, job.began = "running", None, None
        job.cancelled_at = job.lost_worker_at = None
        self.running[job.name] = job

    def take_slot(self, job: Job) -> None:
        if sum(one.began is not None for one in self.running.values()) < self.limit:
            self.begin(job)
        else:
            self.line.append(job)

    def leave(self, job: Job) -> None:
        """The run of a name has gone: its heir or the next in line gets the slot."""
        del self.running[job.name]
        heir = self.pending.get(job.name)
        if heir is not None and heir.kind == "replace":
            del self.pending[job.name]
            self.admit(heir)
            if job in self.line:
                self.line[self.line.index(job)] = heir
            else:
                self.begin(heir)
            return
        if job in self.line:
            self.line.remove(job)
        elif self.line:
            self.begin(self.line.pop(0))
        if heir is not None and heir.due is None:  # else its timer is late
            self.turn(job.name)

    def turn(self, name: Any) -> None:
        """See what becomes of the pending run of a name."""
        job = self.pending.get(name)
        if job is None:
            return
        job.due = None
        if name in self.running:
            return
        until = self.wait(name, job.operation)
        if until is None:
            del self.pending[name]
            self.admit(job, was_retry=job.kind == "retry")
            self.take_slot(job)
        elif until == math.inf or (self.is_draining and (self.is_closed or job.kind != "retry")):
            self.drop(job)
        else:
            job.due = until

    def drop(self, job: Job) -> None:
        """A pending run ends without another attempt."""
        del self.pending[job.name]
        job.end = "cancelled"

    def stop(self, job: Job) -> None:
        """Somebody asks a run to stop: one that waits for anything is gone at once."""
        if job.kind != "running":
            self.drop(job)
        elif job.began is None:
            job.end = "cancelled"
            self.leave(job)
        elif job.cancelled_at is None:
            job.cancelled_at = self.now

    def note_end(self, job: Job, status: str) -> None:
        self.ends.append(job.name)
        key = job.name, job.operation
        self.outcomes = [one for one in self.outcomes if one[:2] != key] + [(*key, status)]
        while True:
            alive = [one for one in self.looks if one.observation is not None and not one.expired]
            if not alive or len(set(self.ends[alive[0].began :])) <= KEEP_ENDS:
                return
            alive[0].expired = True

    def fail(self, job: Job, error: BaseException) -> None:
        key = job.name, job.operation
        policy = MAP if job.policy == "map" else job.policy
        assert job.began is not None
        lasted = self.now - job.began
        failures = 1 if policy == FAST and lasted >= 2.0 else job.failures + 1
        delay = wait_after(policy, failures, error)
        is_retried = (
            job.retry
            and isinstance(error, Exception)
            and delay is not None
            and delay < math.inf
            and job.cancelled_at is None
            and not self.is_closed
            and (job.name not in self.pending or self.pending[job.name].kind == "retry")
        )
        if delay is not None:
            self.failed[key] = failures, self.now + delay
        self.will_retry.append(is_retried)
        self.note_end(job, "failed")
        job.last_error = error
        if not is_retried:
            job.end = "failed"
            self.leave(job)
            return
        del self.running[job.name]
        if job.name in self.pending:  # an older retry, of another operation
            self.drop(self.pending[job.name])
        if self.line:
            self.begin(self.line.pop(0))
        assert delay is not None
        job.kind, job.due = "retry", self.now + delay
        job.began = None
        self.pending[job.name] = job

    # What users do

    @rule(
        name=st.sampled_from(NAMES),
        operation=st.sampled_from(OPERATIONS),
        how=st.sampled_from(["refuse", "skip", "join", "replace", "queue"]),
        policy=st.sampled_from(POLICIES),
        retry=st.booleans(),
        timeout=st.sampled_from([math.inf, 1.0]),
        which=st.none() | st.integers(0, 3),
    )
    def start(
        self,
        name: Any,
        operation: str | None,
        how: IfBusy,
        policy: Any,
        retry: bool,
        timeout: float,
        which: int | None,
    ) -> None:
        open_looks = [one for one in self.looks if one.observation is not None]
        look = open_looks[which % len(open_looks)] if which is not None and open_looks else None
        since = None if look is None else look.observation
        retry = retry and policy is not None
        options = self.scheduler.check_options(policy, since, retry)
        expected = self.expected(name, operation, how, look)
        self.check(name, operation, look)
        came = self.really_start(name, operation, how, timeout, options)
        if isinstance(came, RefusedError):
            assert type(came) is expected
            if isinstance(came, StaleLookError):
                assert look is not None
                assert came.expired == look.expired
        elif came is None:
            assert expected == "skipped"
        elif isinstance(expected, Job):
            assert came is expected.run
        else:
            job = Job(name, operation, how, policy, retry, timeout, came)
            self.jobs.append(job)
            self.accept(job, expected)

    def accept(self, job: Job, expected: object) -> None:
        if expected == "admitted":
            self.admit(job)
            self.take_slot(job)
            return
        assert expected == "deferred"
        before = self.pending.get(job.name)
        if before is not None:
            self.drop(before)
        job.kind = job.how
        self.pending[job.name] = job
        self.turn(job.name)
        if job.how == "replace":
            self.stop(self.running[job.name])

    def really_start(
        self,
        name: Any,
        operation: str | None,
        how: IfBusy,
        timeout: float,
        options: StartOptions | None,
    ) -> PlainRun | RefusedError | None:
        """Start as a dialect does."""
        backend, scheduler = self.backend, self.scheduler
        since = None if options is None else options.since
        conflict = scheduler.find_conflict(name, operation, backend.now, since)
        if conflict is not None:
            try:
                action = base.resolve(backend, conflict, name, operation, how)
            except RefusedError as error:
                return error.with_traceback(None)  # or it would keep the observation
            if action is not StartAction.DEFER:
                return scheduler.run_to_join(name) if action is StartAction.JOIN else None
        run = backend.make_run(name, operation, timeout)
        if options is not None:
            run.backoff, run.retry = options.backoff, options.retry
        if conflict is None:
            scheduler.admit(run, backend.now)
            if has_slot(run):
                scheduler.begin(run, self.now)
            return run
        with backend.lock:
            effects = scheduler.defer(run, how, self.now)
            backend.waits.note_ended(*effects.dropped)
        base.apply_effects(backend, effects)
        return run

    def check(self, name: Any, operation: str | None, look: Look | None) -> None:
        """A look gives what a plain start would."""
        error = self.tasks.check(
            name, operation=operation, since=None if look is None else look.observation
        )
        expected = self.expected(name, operation, "refuse", look)
        assert (expected == "admitted") if error is None else (type(error) is expected)

    @rule(name=st.sampled_from(QUICK))
    def run_quickly(self, name: Any) -> None:
        """Begin and end a run whose name overlaps others that have ended."""
        if self.is_closed or len(self.running) >= self.limit:
            return
        run = self.really_start(name, None, "refuse", math.inf, None)
        assert isinstance(run, PlainRun)
        self.bodies += 1
        base.finish_run(self.backend, run, None)
        self.note_end(Job(name, None, "refuse", "map", False, math.inf, run), "succeeded")

    @rule(name=st.sampled_from(QUICK), which=st.integers(0, 3))
    def look_for_stale_names(self, name: Any, which: int) -> None:
        open_looks = [one for one in self.looks if one.observation is not None]
        if open_looks and not self.is_closed:
            look = open_looks[which % len(open_looks)]
            is_stale = self.tasks.check(name, since=look.observation) is not None
            assert is_stale == self.is_stale(name, look)

    @precondition(lambda self: any(job.began is not None for job in self.running.values()))
    @rule(
        which=st.integers(0, 1),
        end=st.sampled_from(["value", ValueError, ValueError, KeyError, Escape, "stop"]),
    )
    def end_body(self, which: int, end: Any) -> None:
        begun = [job for job in self.running.values() if job.began is not None]
        job = begun[which % len(begun)]
        self.backend.time += APART
        assert job.began is not None
        deadline = job.began + job.timeout
        if end == "value":
            base.finish_run(self.backend, job.run, None)
            self.failed.pop((job.name, job.operation), None)
            self.note_end(job, "succeeded")
            job.end = "succeeded"
            self.leave(job)
        elif end != "stop":
            error = end(job.attempts)
            base.finish_run(self.backend, job.run, error)
            self.fail(job, error)
        elif self.now >= deadline or job.cancelled_at or job.lost_worker_at:
            base.finish_run(self.backend, job.run, None, cancelled=True)
            asked = [at for at in (job.cancelled_at, job.lost_worker_at) if at is not None]
            if self.now >= deadline and all(deadline <= at for at in asked):
                self.fail(job, TimeoutError())
            else:
                self.note_end(job, "cancelled")
                job.end = "cancelled"
                self.leave(job)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 2))
    def lose_a_worker(self, which: int) -> None:
        """The pool asks the body to stop: no caller does."""
        begun = [job for job in self.running.values() if job.began is not None]
        if begun:
            job = begun[which % len(begun)]
            if job.cancelled_at is None and job.lost_worker_at is None:
                job.lost_worker_at = self.now
                self.scheduler.note_lost_worker(job.run, self.now)

    @rule(name=st.sampled_from(NAMES))
    def cancel(self, name: Any) -> None:
        found = [table[name] for table in (self.pending, self.running) if name in table]
        assert self.tasks.cancel(name, reason="asked") == bool(found)
        for job in found:
            self.stop(job)

    @precondition(lambda self: self.pending)
    @rule(which=st.integers(0, 2))
    def cancel_what_is_pending(self, which: int) -> None:
        job = list(self.pending.values())[which % len(self.pending)]
        assert base.cancel_run(self.backend, job.run, None)
        self.stop(job)

    @rule(name=st.sampled_from(NAMES), operation=st.sampled_from(OPERATIONS))
    def forget(self, name: Any, operation: str | None) -> None:
        asked = [one for one in OPERATIONS if operation in (None, one)]
        known = [one for one in asked if self.has_record(name, one)]
        assert self.tasks.forget(name, operation=operation) == bool(known)
        for one in known:
            del self.failed[name, one]
        job = self.running.get(name)
        if job is not None and job.operation in known:
            job.failures = 0
        pending = self.pending.get(name)
        if known and pending is not None and pending.due is not None:
            self.turn(name)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 4.0]), is_late=st.booleans())
    def let_time_pass(self, seconds: float, is_late: bool) -> None:
        """A timer may be late: then others are first."""
        self.backend.time += seconds
        if is_late:
            return
        base.run_due(self.backend)
        due = [(job.due, job) for job in self.pending.values() if job.due is not None]
        for at, job in sorted(due, key=lambda one: one[0]):
            if at <= self.now:
                self.turn(job.name)

    @precondition(lambda self: any(job.retry for job in self.running.values()))
    @rule(seconds=st.sampled_from([1.0, 4.0]))
    def fail_all_and_wait(self, seconds: float) -> None:
        """So that there are third and fourth attempts."""
        for _ in [job for job in self.running.values() if job.began is not None]:
            self.end_body(0, ValueError)
        self.let_time_pass(seconds, is_late=False)

    @rule()
    def observe(self) -> None:
        self.looks.append(Look(self.tasks.observe(), len(self.ends)))
        self.keeps_for_nobody = False

    @precondition(lambda self: self.looks)
    @rule(which=st.integers(0, 5), is_dropped=st.booleans())
    def close_a_look(self, which: int, is_dropped: bool) -> None:
        look = self.looks.pop(which % len(self.looks))
        assert look.observation is not None
        if not is_dropped:
            look.observation.close()
        look.observation = None
        self.keeps_for_nobody = is_dropped

    @rule(really=st.integers(0, 14), only_drain=st.booleans())
    def close(self, really: int, only_drain: bool) -> None:
        if really:
            return
        self.is_draining = True
        if only_drain:
            base.drain(self.backend)
        else:
            self.is_closed = True
            base.close(self.backend)
        for job in list(self.pending.values()):
            waits = self.is_closed if job.kind == "retry" else job.name not in self.running
            if waits:
                self.drop(job)

    @rule()
    def ask_for_the_next_retry(self) -> None:
        self.asks_for_next_retry = True

    # What always holds

    @invariant()
    def the_states_agree(self) -> None:
        assert dict(self.scheduler.running) == {name: job.run for name, job in self.running.items()}
        assert dict(self.scheduler.pending) == {name: job.run for name, job in self.pending.items()}
        for name in NAMES:
            for operation in OPERATIONS:
                assert self.tasks.state(name, operation=operation) is self.state(name, operation)

    def state(self, name: Any, operation: str | None) -> State:
        if name in self.running:
            return State.RUNNING
        found = self.record(name, operation)
        if found is None:
            return State.FREE
        if found[1] == math.inf:
            return State.GAVE_UP
        return State.READY if self.now >= found[1] else State.WAITING

    @invariant()
    def the_runs_agree(self) -> None:
        for job in self.jobs:
            run: Run = job.run
            assert run.attempts == job.attempts
            assert run.done == bool(job.end)
            if job.end:
                assert run.status.name.lower() == job.end
                if job.end == "failed":
                    assert run.error is not None
                    assert type(run.error) is type(job.last_error)
                elif job.end == "cancelled":
                    cause = run.cancelled_error().__cause__
                    assert type(cause) is type(job.last_error)
            elif job.kind == "running":
                assert run.failures == job.failures
                assert (run.status is RunStatus.BEGUN) == (job.began is not None)
                assert run.is_asked_to_stop() == (
                    job.cancelled_at is not None
                    or job.lost_worker_at is not None
                    or (job.began is not None and self.now >= job.began + job.timeout)
                )
            else:
                assert not run.is_cancel_requested()

    @invariant()
    def what_is_listed_agrees(self) -> None:
        listed = {(one.name, one.operation): one for one in self.tasks.failures()}
        keys = [(name, operation) for name in NAMES for operation in OPERATIONS]
        for key in keys:
            job = self.running.get(key[0])
            found = self.record(*key)
            if job is not None and job.operation == key[1]:
                found = None
            assert (key in listed) == (found is not None), key
            if found is not None:
                assert (listed[key].failures, listed[key].retry_at) == found
        assert len(self.tasks.pending()) == len(self.pending)
        for one in self.tasks.pending():
            job = self.pending[one.name]
            holder = one.name if job.due is None else None
            assert (one.kind, one.operation) == (job.kind, job.operation)
            assert one.holder == holder
            # While a timer is late, its record may have expired, or another start has taken it.
            is_late = job.due is not None and self.now >= job.due
            if not is_late:
                assert one.retry_at == job.due
        if self.asks_for_next_retry:
            waits = [self.wait(*key) for key in keys if key in listed]
            soonest = min((at for at in waits if at is not None), default=math.inf)
            assert self.tasks.next_retry_at() == (None if soonest == math.inf else soonest)
        last = [(one.name, one.operation, one.status) for one in self.tasks.outcomes()]
        assert last == self.outcomes[-KEEP_OUTCOMES:]

    @invariant()
    def the_looks_agree(self) -> None:
        for look in self.looks:
            if look.observation is not None:
                assert look.observation.expired == look.expired
        if not self.looks and not self.keeps_for_nobody:
            assert len(self.scheduler.ends) == 0, "with none open nothing is kept"
        assert len(self.scheduler.ends) <= KEEP_ENDS

    @invariant()
    def nothing_is_counted_twice_or_lost(self) -> None:
        records = self.scheduler.records
        kept = [one for table in records.tables.values() for one in table.records.values()]
        taken = [run.record for run in self.scheduler.running.values() if run.record is not None]
        counts = [one.failures for one in (*kept, *taken)]
        statistics = self.tasks.statistics()
        assert statistics.max_failures == max(counts, default=0)
        assert statistics.failing == sum(count >= THRESHOLD for count in counts)
        assert statistics.pending == len(self.pending)
        assert statistics.waiting_for_slot == len(self.line)
        began = [job.began for job in self.running.values() if job.began is not None]
        assert statistics.oldest_run_age == (self.now - min(began) if began else 0.0)
        retries = [job for job in self.pending.values() if job.kind == "retry"]
        assert len(records.held) <= len(retries)
        assert records.held <= set(kept)
        slots = self.scheduler.slots
        if slots is not None:
            assert slots.used == len(began)

    @invariant()
    def the_events_agree(self) -> None:
        self.scheduler.events.deliver()
        recording = self.backend.recording
        assert [one.will_retry for one in recording.of(TaskFailed)] == self.will_retry
        assert len(recording.of(TaskStarted)) == self.bodies

    def teardown(self) -> None:
        """Let everything end: each start that was accepted has one outcome."""
        self.tasks.cancel_all()
        for job in [*self.pending.values(), *self.line]:
            assert job.run.status is RunStatus.CANCELLED
        for run in list(self.scheduler.running.values()):
            base.finish_run(self.backend, run, None, cancelled=True)
        assert self.scheduler.is_idle()
        assert all(job.run.done for job in self.jobs)
        assert self.scheduler.records.held == set()
        assert len(self.scheduler.timers) == 0
        assert self.scheduler.slots is None or self.scheduler.slots.used == 0


RetryMachine.TestCase.settings = settings(
    max_examples=examples(100), stateful_step_count=30, deadline=None
)
TestTheSchedulerAgreesWithAPlainModel = RetryMachine.TestCase
