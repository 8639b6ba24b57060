"""The scheduler beside a plain model: any order of starts, ends, cancels, forgets and time."""

import math
from typing import Any

import attrs
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from namedtasks import Backoff, BackoffError, ClosedError, GaveUpError, State
from namedtasks._decisions import NO_EFFECTS, Closed, Effects, refusal
from namedtasks._state import Run, RunStatus
from tests.fuzz import examples
from tests.plain_backend import has_slot, make_world

NAMES = st.sampled_from(["a", "b", ("vol", 1)])
OPERATIONS = st.sampled_from([None, "mount"])
BACKOFF = Backoff(initial=1.0, maximum=4.0, give_up_after=5, exempt=(KeyError,))
RETENTION = 6.0
WAITS = {1: 1.0, 2: 2.0, 3: 4.0, 4: 4.0, 5: math.inf}


@attrs.define
class Remembered:
    """A failure as the model remembers it."""

    failures: int
    retry_at: float


class SchedulerMachine(RuleBasedStateMachine):
    """The model: dicts of the runs and of the failures, which are read with the time."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.world = make_world(backoff=BACKOFF, retention=RETENTION, limit=2)
        self.scheduler = self.world.scheduler
        self.running: dict[Any, Run] = {}
        self.line: list[Run] = []
        self.failed: dict[tuple[Any, str | None], Remembered] = {}
        self.closed = False

    @property
    def now(self) -> float:
        return self.world.now

    def record(self, name: Any, operation: str | None) -> Remembered | None:
        kept = self.failed.get((name, operation))
        if kept is None or self.now >= kept.retry_at + RETENTION:
            return None
        return kept

    def expected(self, name: Any, operation: str | None) -> State:
        record = self.record(name, operation)
        if name in self.running:
            return State.RUNNING
        if record is None:
            return State.FREE
        if record.retry_at == math.inf:
            return State.GAVE_UP
        return State.READY if self.now >= record.retry_at else State.WAITING

    @rule(target=runs, name=NAMES, operation=OPERATIONS)
    def start(self, name: Any, operation: str | None) -> Run:
        before = self.expected(name, operation)
        conflict = self.world.conflict(name, operation)
        free = before in (State.FREE, State.READY) and not self.closed
        assert (conflict is None) == free
        looked = self.scheduler.look_for_conflict(name, operation, self.now)
        assert looked is conflict, "a look finds the same"
        run = self.world.make_run(name, operation)
        if conflict is not None:
            self.check_refusal(refusal(conflict, name, operation, self.now), before)
            run.status = RunStatus.CANCELLED
            return run
        record = self.record(name, operation)
        self.scheduler.admit(run, self.world.clock)
        assert run.failures == (record.failures if record else 0)
        self.running[name] = run
        if len([one for one in self.running.values() if has_slot(one)]) > 2:
            raise AssertionError("more bodies than slots")
        if not has_slot(run):
            self.line.append(run)
        return run

    def check_refusal(self, error: Exception, before: State) -> None:
        if self.closed:
            assert isinstance(error, ClosedError)
        elif before is State.WAITING:
            assert isinstance(error, BackoffError)
            record = self.record(error.name, error.operation)
            assert record is not None
            assert (error.failures, error.retry_at) == (record.failures, record.retry_at)
            assert error.retry_in == record.retry_at - self.now
            assert isinstance(error.__cause__, ValueError)
        elif before is State.GAVE_UP:
            assert isinstance(error, GaveUpError)

    def ended(self, run: Run, effects: Effects[Run], *, queued: bool = False) -> None:
        assert run.done
        del self.running[run.name]
        assert effects.dropped == effects.replaced == (), "nothing is pending here"
        if not effects.begin:
            assert queued or not self.line
            return
        (following,) = effects.begin
        assert following is self.line.pop(0), "slots go by order of admission"
        assert has_slot(following)

    def can_end(self, run: Run) -> bool:
        return not run.done and has_slot(run)

    @rule(run=consumes(runs))
    def succeed(self, run: Run) -> None:
        if self.can_end(run):
            self.begin(run)
            self.ended(run, self.world.succeed(run))
            self.failed.pop((run.name, run.operation), None)

    @rule(run=consumes(runs), exempt=st.booleans())
    def fail(self, run: Run, exempt: bool) -> None:
        if not self.can_end(run):
            return
        self.begin(run)
        failures = run.failures + 1
        error = KeyError() if exempt else ValueError(failures)
        self.ended(run, self.world.fail(run, error))
        if not exempt:
            retry_at = self.now + WAITS[min(failures, 5)]
            self.failed[run.name, run.operation] = Remembered(failures, retry_at)

    def leaves_the_line(self, run: Run) -> bool:
        """Return whether *run* waits for a slot, and take it out of the model's line."""
        if has_slot(run):
            return False
        self.line.remove(run)
        return True

    @rule(run=consumes(runs))
    def cancel(self, run: Run) -> None:
        if not run.done:
            queued = self.leaves_the_line(run)
            self.ended(run, self.world.cancelled(run), queued=queued)

    @rule(run=consumes(runs))
    def drop(self, run: Run) -> None:
        if not run.done and run.started_at is None:
            queued = self.leaves_the_line(run)
            effects = self.world.drop(run)
            assert effects.dropped == (run,)
            self.ended(run, Effects(effects.begin), queued=queued)

    @rule(run=consumes(runs))
    def roll_back(self, run: Run) -> None:
        if not run.done:
            queued = self.leaves_the_line(run)
            self.ended(run, self.world.roll_back(run), queued=queued)

    def begin(self, run: Run) -> None:
        if run.started_at is None:
            self.scheduler.begin(run, self.now)

    @rule(name=NAMES, operation=OPERATIONS, everything=st.booleans())
    def forget(self, name: Any, operation: str | None, everything: bool) -> None:
        asked = None if everything else operation
        doomed = [
            key
            for key in self.failed
            if key[0] == name and (asked is None or key[1] == asked) and self.is_known(*key)
        ]
        assert self.world.forget(name, asked) is (NO_EFFECTS if doomed else None)
        for key in doomed:
            del self.failed[key]
        run = self.running.get(name)
        if run is not None and asked in (None, run.operation):
            assert run.failures == 0

    def is_known(self, name: Any, operation: str | None) -> bool:
        """Return whether there is a record; one that a run has does not expire."""
        run = self.running.get(name)
        if run is not None and run.operation == operation:
            return run.record is not None
        return self.record(name, operation) is not None

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 4.0, 5.999, 6.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @precondition(lambda self: not self.closed)
    @rule(really=st.integers(0, 9))
    def close(self, really: int) -> None:
        if really == 0:
            self.scheduler.closed = self.closed = True

    @rule()
    def look(self) -> None:
        self.scheduler.statistics(0.0)
        self.scheduler.records.sweep(self.now)
        self.scheduler.records.next_expiry(self.now)
        self.world.events()

    @invariant()
    def the_states_agree(self) -> None:
        assert dict(self.scheduler.running) == self.running
        for name in ("a", "b", ("vol", 1)):
            for operation in (None, "mount"):
                state = self.scheduler.state(name, operation, self.now)
                assert state is self.expected(name, operation)
                if state is not State.RUNNING:
                    self.check_failure(name, operation)

    def check_failure(self, name: Any, operation: str | None) -> None:
        failure = self.scheduler.failure(name, operation, self.now)
        record = self.record(name, operation)
        if record is None:
            assert failure is None
            return
        assert failure is not None
        assert (failure.failures, failure.retry_at) == (record.failures, record.retry_at)
        assert failure.gave_up == (record.retry_at == math.inf)

    @invariant()
    def nothing_is_counted_twice_or_lost(self) -> None:
        records = self.scheduler.records
        known = [key for key in self.failed if self.is_known(*key)]
        held = [run for run in self.running.values() if run.record is not None]
        assert records.waiting + records.gave_up >= len(known) - len(held)
        assert self.scheduler.slots is not None
        assert self.scheduler.slots.queued == len(self.line)
        assert self.scheduler.slots.used == len(self.running) - len(self.line)
        kept = [one for table in records.tables.values() for one in table.records.values()]
        gave_up = [one for one in kept if one.retry_at == math.inf]
        assert (records.gave_up, records.waiting) == (len(gave_up), len(kept) - len(gave_up))
        assert set(records.turn) == set(records.tables)
        for table in records.tables.values():
            assert table.records
            waiting = {name for name, one in table.records.items() if one.retry_at != math.inf}
            assert waiting <= set(table.order), "a sweep reaches each of them"
        conflict = self.world.conflict("new")
        assert conflict is (Closed.CLOSED if self.closed else None)


SchedulerMachine.TestCase.settings = settings(
    max_examples=examples(200), stateful_step_count=60, deadline=None
)
TestTheSchedulerAgreesWithAPlainModel = SchedulerMachine.TestCase
