"""The core against a plain model: any order of starts, ends, cancels, forgets and time."""

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
from namedtasks._core.engine import Engine
from namedtasks._core.obstacles import Closed, refusal
from namedtasks._core.runs import Run
from namedtasks._core.turns import Turn
from namedtasks.testing import RecordingInstrument
from tests.fuzz import examples

NAMES = st.sampled_from(["a", "b", ("vol", 1)])
OPERATIONS = st.sampled_from([None, "mount"])
BACKOFF = Backoff(initial=1.0, maximum=4.0, give_up_after=5, exempt=(KeyError,))
RETENTION = 6.0
WAITS = {1: 1.0, 2: 2.0, 3: 4.0, 4: 4.0, 5: math.inf}


@attrs.define
class Remembered:
    """What the model remembers of a failure."""

    failures: int
    retry_at: float


def never() -> float:
    raise AssertionError("there is no jitter here")


def complain(what: str, error: BaseException) -> None:
    raise AssertionError(what) from error


class LedgerMachine(RuleBasedStateMachine):
    """The model: dicts of what runs and of what failed, read with today's date."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.heard = RecordingInstrument()
        self.engine: Engine[Run] = Engine(
            backoff=BACKOFF,
            retention=RETENTION,
            limit=2,
            overdue_after=1.0,
            instruments=[self.heard],
            random=never,
            complain=complain,
        )
        self.now = 0.0
        self.running: dict[Any, Run] = {}
        self.line: list[Run] = []
        self.failed: dict[tuple[Any, str | None], Remembered] = {}
        self.closed = False

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
        unknown = self.engine.ledger.is_unknown(name, operation)
        obstacle = self.engine.ledger.obstacle(name, operation, self.now)
        assert obstacle is None or not unknown
        free = before in (State.FREE, State.READY) and not self.closed
        assert (obstacle is None) == free
        run = Run(name, operation, math.inf, self.engine.slots)
        if obstacle is not None:
            self.check_refusal(refusal(obstacle, name, operation, self.now), before)
            run.done = True
            return run
        record = self.record(name, operation)
        self.engine.admit(run, self.now)
        assert run.failures == (record.failures if record else 0)
        self.running[name] = run
        if len([one for one in self.running.values() if one.has_slot]) > 2:
            raise AssertionError("more bodies than slots")
        if not run.has_slot:
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

    def ended(self, run: Run, turn: Turn[Run]) -> None:
        assert run.done
        del self.running[run.name]
        assert turn.dropped == (), "nothing is pending here"
        if not turn.begin:
            assert not run.has_slot
            return
        (following,) = turn.begin
        assert following is self.line.pop(0), "slots go by order of admission"
        assert following.has_slot

    def can_end(self, run: Run) -> bool:
        return not run.done and run.has_slot

    @rule(run=consumes(runs))
    def succeed(self, run: Run) -> None:
        if self.can_end(run):
            self.begin(run)
            self.ended(run, self.engine.succeeded(run, self.now))
            self.failed.pop((run.name, run.operation), None)

    @rule(run=consumes(runs), exempt=st.booleans())
    def fail(self, run: Run, exempt: bool) -> None:
        if not self.can_end(run):
            return
        self.begin(run)
        failures = run.failures + 1
        error = KeyError() if exempt else ValueError(failures)
        self.ended(run, self.engine.failed(run, self.engine.judge(run, error), self.now))
        if not exempt:
            retry_at = self.now + WAITS[min(failures, 5)]
            self.failed[run.name, run.operation] = Remembered(failures, retry_at)

    @rule(run=consumes(runs))
    def cancel(self, run: Run) -> None:
        if run.done:
            return
        if not run.has_slot:
            self.line.remove(run)
        self.ended(run, self.engine.cancelled(run, self.now))

    @rule(run=consumes(runs))
    def roll_back(self, run: Run) -> None:
        if run.done:
            assert self.engine.roll_back(run, self.now) == Turn()
            return
        if not run.has_slot:
            self.line.remove(run)
        self.ended(run, self.engine.roll_back(run, self.now))

    def begin(self, run: Run) -> None:
        if run.started_at is None:
            self.engine.begin(run, self.now)

    @rule(name=NAMES, operation=OPERATIONS, everything=st.booleans())
    def forget(self, name: Any, operation: str | None, everything: bool) -> None:
        asked = None if everything else operation
        doomed = [
            key
            for key in self.failed
            if key[0] == name and (asked is None or key[1] == asked) and self.is_known(*key)
        ]
        assert self.engine.forget(name, asked, self.now) == (bool(doomed), Turn())
        for key in doomed:
            del self.failed[key]
        run = self.running.get(name)
        if run is not None and asked in (None, run.operation):
            assert run.failures == 0

    def is_known(self, name: Any, operation: str | None) -> bool:
        """A record in the care of a run does not lapse; its run decides."""
        run = self.running.get(name)
        if run is not None and run.operation == operation:
            return run.record is not None
        return self.record(name, operation) is not None

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 4.0, 5.999, 6.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.closed)
    @rule(really=st.integers(0, 9))
    def close(self, really: int) -> None:
        if really == 0:
            self.engine.ledger.closed = self.closed = True

    @rule()
    def look(self) -> None:
        self.engine.statistics()
        self.engine.ledger.records.sweep(self.now)
        self.engine.ledger.records.next_lapse(self.now)
        self.engine.dispatch.deliver()

    @invariant()
    def the_states_agree(self) -> None:
        ledger = self.engine.ledger
        assert dict(ledger.running) == self.running
        for name in ("a", "b", ("vol", 1)):
            for operation in (None, "mount"):
                state = ledger.state(name, operation, self.now)
                assert state is self.expected(name, operation)
                if state is not State.RUNNING:
                    self.check_failure(name, operation)

    def check_failure(self, name: Any, operation: str | None) -> None:
        failure = self.engine.ledger.failure(name, operation, self.now)
        record = self.record(name, operation)
        if record is None:
            assert failure is None
            return
        assert failure is not None
        assert (failure.failures, failure.retry_at) == (record.failures, record.retry_at)
        assert failure.gave_up == (record.retry_at == math.inf)

    @invariant()
    def nothing_is_counted_twice_or_lost(self) -> None:
        records = self.engine.ledger.records
        known = [key for key in self.failed if self.is_known(*key)]
        held = [run for run in self.running.values() if run.record is not None]
        assert records.waiting + records.gave_up >= len(known) - len(held)
        assert self.engine.slots.in_line == len(self.line)
        assert self.engine.slots.used == len(self.running) - len(self.line)
        assert not isinstance(self.engine.ledger.obstacle("new", None, self.now), Run)
        if self.closed:
            assert self.engine.ledger.obstacle("new", None, self.now) is Closed.CLOSED


LedgerMachine.TestCase.settings = settings(
    max_examples=examples(200), stateful_step_count=60, deadline=None
)
TestTheCoreAgreesWithAPlainModel = LedgerMachine.TestCase
