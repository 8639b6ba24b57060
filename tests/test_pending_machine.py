"""The scheduler beside a plain model: all ways to start, overlaps, retries, limits and time.

The model keeps dicts of the runs, of the pending runs and of the failures, and compares each
pair of names field by field. It predicts the outcome of each start. The effects of each change
must leave no two runs that overlap, no free slot beside a queue, and no pending run without
something to wait for.
"""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from namedtasks import ANY, Backoff
from namedtasks._decisions import Effects, IfBusy, Overlapping, StartAction
from namedtasks._names import is_tuple
from namedtasks._state import Run, RunStatus, Semaphore
from namedtasks.instruments import (
    TaskCancelled,
    TaskFailed,
    TaskQueued,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from tests.fuzz import examples
from tests.plain_backend import World, has_slot, make_world

ALL_NAMES: list[Any] = [
    "a",
    ("v", "a"),
    ("v", "b"),
    ("w", "a"),
    ("v", ANY),
    (ANY, "a"),
    (ANY, ANY),
    ("v", "a", 1),
    ("v", ANY, 1),
]
NAMES = st.sampled_from(ALL_NAMES)
OPERATIONS = st.sampled_from([None, "mount"])
IF_BUSY: st.SearchStrategy[IfBusy] = st.sampled_from(["refuse", "skip", "join", "replace", "queue"])
BACKOFF = Backoff(initial=1.0, maximum=4.0, give_up_after=3)
RETENTION = 6.0
NO_RUN = ("task_forgotten", "task_expired", "task_refused")
ENDS = (TaskSucceeded, TaskFailed, TaskCancelled, TaskSuperseded)


def overlap(one: Any, other: Any) -> bool:
    """Return whether two names exclude each other, in the plainest way."""
    if not is_tuple(one) or not is_tuple(other):
        return bool(one == other)
    return len(one) == len(other) and all(
        a is ANY or b is ANY or a == b for a, b in zip(one, other, strict=True)
    )


class PendingMachine(RuleBasedStateMachine):
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.running: dict[Any, Run] = {}
        self.pending: dict[Any, Run] = {}
        self.failed: dict[tuple[Any, str | None], tuple[float, int]] = {}
        self.ended: list[Run] = []
        self.deferred: list[Run] = []
        self.rolled_back: list[Run] = []
        self.waiting_to_retry: set[Run] = set()
        self.retried: Counter[Run] = Counter()
        """The failures that were followed by another attempt."""
        self.told: Counter[tuple[type, Run]] = Counter()
        """The events, and the runs that they are about."""
        self.is_closed = False
        self.is_draining = False
        self.open(None)

    @initialize(limit=st.sampled_from([None, 1, 2]))
    def open(self, limit: int | None) -> None:
        self.world: World = make_world(backoff=BACKOFF, retention=RETENTION, limit=limit)
        self.scheduler = self.world.scheduler
        if limit is None:
            self.scheduler.thread_slots.capacity = 1

    # The model

    @property
    def now(self) -> float:
        return self.world.now

    def replacing(self) -> list[Run]:
        return [run for run in self.pending.values() if run.deferred == "replace"]

    def holders(self, name: Any) -> list[Run]:
        """Return the runs that keep *name* from others."""
        held = [*self.running.values(), *self.replacing()]
        return [run for run in held if overlap(name, run.name)]

    def retry_at(self, name: Any, operation: str | None) -> float | None:
        """Return the time when a name that waits or gave up may start; None if it does neither."""
        retry_at, _ = self.failed.get((name, operation), (-math.inf, 0))
        return retry_at if self.now < retry_at else None

    def expected(self, name: Any, operation: str | None, if_busy: IfBusy) -> StartAction:
        retry_at = self.retry_at(name, operation)
        others = [run for run in self.holders(name) if run is not self.running.get(name)]
        if self.is_closed:
            return StartAction.REFUSE
        defer = StartAction.DEFER
        if name in self.running:
            allowed = {"join": StartAction.JOIN, "replace": defer, "queue": defer}
        elif others:  # a name that waits, too, replaces none of them
            allowed = {"replace": defer} if retry_at is None else {}
        elif retry_at is None:
            return StartAction.ADMIT
        else:
            allowed = {} if retry_at == math.inf else {"queue": defer}
            waits = self.pending.get(name)
            if waits is not None and waits.deferred == "retry" and waits.operation == operation:
                allowed["join"] = StartAction.JOIN
        return {"skip": StartAction.SKIP, **allowed}.get(if_busy, StartAction.REFUSE)

    # Changes

    def carry_out(self, effects: Effects[Run]) -> None:
        for run in effects.dropped:
            assert run.done
            if self.pending.get(run.name) is run:
                del self.pending[run.name]
            if self.running.get(run.name) is run:
                del self.running[run.name]
            self.waiting_to_retry.discard(run)
            self.ended.append(run)
        for name, run in list(self.pending.items()):
            if run.deferred is None:  # it has its name now
                del self.pending[name]
                assert name not in self.running
                self.running[name] = run
                was_retry = run in self.waiting_to_retry
                self.waiting_to_retry.discard(run)
                self.take_record(run, was_retry=was_retry)
        for run in effects.begin:
            assert has_slot(run)
            assert run.started_at is None
            self.scheduler.begin(run, self.now)
        for run in effects.replaced:
            self.ask_to_stop(run)
        self.listen()

    def listen(self) -> None:
        """Count the events, and the runs that they are about."""
        events, about = self.world.events_and_runs()
        of_runs = [type(event) for event in events if event.hook not in NO_RUN]
        self.told.update(zip(of_runs, about, strict=True))

    def take_record(self, run: Run, *, was_retry: bool = False) -> None:
        retry_at, failures = self.failed.get((run.name, run.operation), (-math.inf, 0))
        waits = self.pending.get(run.name)
        is_held = waits is not None and waits.deferred == "retry"
        is_held = was_retry or (is_held and waits is not None and waits.operation == run.operation)
        expired = self.now >= retry_at + RETENTION and not is_held
        assert run.failures == (0 if expired else failures)
        if expired:
            self.failed.pop((run.name, run.operation), None)

    @rule(
        target=runs,
        name=NAMES,
        operation=OPERATIONS,
        if_busy=IF_BUSY,
        in_thread=st.booleans(),
        retry=st.booleans(),
    )
    def start(
        self, name: Any, operation: str | None, if_busy: IfBusy, in_thread: bool, retry: bool
    ) -> Run:
        looked = self.scheduler.look_for_conflict(name, operation, self.now)
        conflict = self.world.conflict(name, operation)
        if isinstance(conflict, Overlapping):
            assert isinstance(looked, Overlapping)
            assert set(looked.runs) == set(conflict.runs)
        else:
            assert looked is conflict
        action = StartAction.ADMIT
        if conflict is not None:
            action, _ = self.scheduler.resolve(conflict, name, operation, if_busy, self.world.clock)
        assert action is self.expected(name, operation, if_busy)
        slots = self.scheduler.thread_slots if in_thread else None
        run = self.world.make_run(name, operation, semaphore=slots)
        run.retry = retry
        if conflict is None:
            self.scheduler.admit(run, self.world.clock)
            self.running[name] = run
            self.take_record(run)
            if has_slot(run):
                self.scheduler.begin(run, self.now)
        elif action is StartAction.DEFER:
            self.defer(run, if_busy)
        else:
            if action is StartAction.JOIN:
                joins = self.running.get(name) or self.pending[name]
                assert self.scheduler.run_to_join(name) is joins
                assert joins is conflict or joins.deferred == "retry"
            run.status = RunStatus.CANCELLED
        self.listen()
        return run

    def defer(self, run: Run, if_busy: IfBusy) -> None:
        before = self.pending.get(run.name)
        self.pending[run.name] = run
        self.deferred.append(run)
        effects = self.scheduler.defer(run, if_busy, self.now)
        assert before is None or before.done
        assert (before in effects.dropped) is (before is not None)
        others = [one for one in self.holders(run.name) if one is not run and not one.done]
        if if_busy == "replace":
            assert others
            assert set(effects.replaced) == set(others)
            assert len(effects.replaced) == len(others)
        else:
            assert effects.replaced == ()
        self.carry_out(effects)

    def ask_to_stop(self, run: Run) -> None:
        if run.done:
            return
        if run.status in (RunStatus.DEFERRED, RunStatus.QUEUED):
            effects = self.world.drop(run, "cancelled")
            assert run in effects.dropped
            self.carry_out(effects)
        else:
            self.scheduler.request_cancel(run, None, self.now)

    def end(self, run: Run, effects: Effects[Run]) -> None:
        assert run.done
        del self.running[run.name]
        self.ended.append(run)
        self.carry_out(effects)

    @rule(run=runs)
    def cancel(self, run: Run) -> None:
        self.ask_to_stop(run)

    @rule(run=runs, how=st.sampled_from(["succeed", "fail", "cancelled", "rolled back"]))
    def end_somehow(self, run: Run, how: str) -> None:
        if run.done or not has_slot(run):
            return
        key = run.name, run.operation
        if how == "succeed":
            self.succeed(run)
            return
        if how == "fail":
            failures = self.failed.get(key, (0.0, 0))[1] + 1
            wait = {1: 1.0, 2: 2.0}.get(failures, math.inf)
            self.failed[key] = (self.now + wait, failures)
            is_last = (
                not run.retry
                or wait == math.inf
                or run.is_cancel_requested()
                or self.is_closed
                or (run.name in self.pending and self.pending[run.name].deferred != "retry")
            )
            effects = self.world.fail(run)
            assert run.done == is_last
            if not is_last:
                self.retried[run] += 1
                self.waiting_to_retry.add(run)
                del self.running[run.name]
                self.pending[run.name] = run
                self.carry_out(effects)
                return
        elif how == "cancelled":
            effects = self.world.cancelled(run)
        else:
            self.rolled_back.append(run)
            effects = self.world.roll_back(run)
        self.end(run, effects)

    def succeed(self, run: Run) -> None:
        self.failed.pop((run.name, run.operation), None)
        self.end(run, self.world.succeed(run))

    @rule(name=NAMES, operation=OPERATIONS)
    def forget(self, name: Any, operation: str | None) -> None:
        for key in list(self.failed):
            if key[0] == name and operation in (None, key[1]):
                del self.failed[key]
        effects = self.world.forget(name, operation)
        if effects is not None:
            self.carry_out(effects)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 6.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.world.now += seconds
        self.carry_out(self.world.run_due())

    @rule(really=st.integers(0, 9), only_drain=st.booleans())
    def close(self, really: int, only_drain: bool) -> None:
        """At the end of its block a map is not closed yet, but drained."""
        if really == 0:
            self.scheduler.closed = self.is_closed = self.is_closed or not only_drain
            self.is_draining = True
            self.carry_out(self.world.drain())

    # What always holds

    @invariant()
    def the_tables_agree(self) -> None:
        assert dict(self.scheduler.running) == self.running
        assert dict(self.scheduler.pending) == self.pending
        assert self.scheduler.statistics(0.0).pending == len(self.pending)
        assert all(run.status is RunStatus.DEFERRED for run in self.pending.values())
        assert all(run.followers is None for run in self.ended)
        overdue = [run for run in self.running.values() if run.overdue]
        assert self.scheduler.statistics(0.0).overdue == len(overdue)

    @invariant()
    def no_two_runs_overlap(self) -> None:
        for held in (list(self.running.values()), self.replacing()):
            assert not [
                (one.name, other.name)
                for one in held
                for other in held
                if one is not other and overlap(one.name, other.name)
            ]

    @invariant()
    def nothing_pending_waits_for_nothing(self) -> None:
        for name, run in self.pending.items():
            others = [one for one in self.holders(name) if one is not run]
            if run.blocker is not None:
                assert run.blocker in others
                assert run in (run.blocker.followers or ())
                continue
            # It sits out a wait. A run with another operation may hold the name meanwhile.
            assert run.deferred == ("retry" if run in self.waiting_to_retry else "queue")
            retry_at = self.retry_at(name, run.operation)
            assert retry_at is not None
            assert retry_at < math.inf
            assert not self.is_draining or (run.deferred == "retry" and not self.is_closed)
            assert self.scheduler.timers._entries[run].when == retry_at

    def slots(self) -> Iterator[Semaphore[Run]]:
        yield self.scheduler.thread_slots
        if self.scheduler.slots is not None:
            yield self.scheduler.slots

    @invariant()
    def slots_are_used_and_not_exceeded(self) -> None:
        assert all((run.started_at is not None) == has_slot(run) for run in self.running.values())
        for slots in self.slots():
            of_these = [run for run in self.running.values() if run.semaphore is slots]
            begun = [run for run in of_these if has_slot(run)]
            assert slots.used == len(begun) <= slots.capacity
            assert slots.queued == len(of_these) - len(begun)
            assert slots.queued == 0 or len(begun) == slots.capacity
        free = [run for run in self.running.values() if run.semaphore is None]
        assert all(has_slot(run) for run in free)

    def teardown(self) -> None:
        """Let everything end: each run is told once."""
        self.scheduler.closed = self.is_draining = True
        self.carry_out(self.world.drain())
        for _ in range(1000):
            active = [run for run in self.running.values() if has_slot(run)]
            if not active:
                break
            self.succeed(active[0])
        assert not self.running
        assert not self.pending
        for tables in self.scheduler.overlaps._entered.values():
            assert not any(table.entries for _, table in tables)
        assert len(self.scheduler.timers) == 0
        assert len(self.ended) == len({id(run) for run in self.ended})
        for run in self.ended:
            ends = sum(self.told[kind, run] for kind in ENDS)
            assert ends == self.retried[run] + (0 if run in self.rolled_back else 1)
            assert self.told[TaskQueued, run] == (run in self.deferred)
            assert self.told[TaskStarted, run] == run.attempts


PendingMachine.TestCase.settings = settings(
    max_examples=examples(300), stateful_step_count=50, deadline=None
)
TestTheSchedulerAgreesWithAPlainModel = PendingMachine.TestCase
