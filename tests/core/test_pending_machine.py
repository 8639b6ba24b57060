"""The core against a plain model: all ways to start, overlapping names, limits and time.

The model keeps dicts of what runs, what is pending and what failed, and compares
each pair of names field by field. What a start comes to is predicted from them;
what follows from each change is read off the engine's turns, and must leave no
two runs that overlap, and no pending run without something to wait for. A start
that is put off may stay half done, as if its function went on for long: anything
may happen before it is accepted or rolled back.
"""

import math
from collections.abc import Iterator
from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from namedtasks import ANY, Backoff
from namedtasks._core.engine import Engine
from namedtasks._core.names import is_tuple
from namedtasks._core.obstacles import Closed, Overlapping
from namedtasks._core.pending import IfBusy, Move, move
from namedtasks._core.records import Record
from namedtasks._core.runs import Run
from namedtasks._core.slots import Slots
from namedtasks._core.turns import NOTHING, Turn
from namedtasks.instruments import TaskCancelled, TaskQueued, TaskStarted, TaskSuperseded
from namedtasks.testing import RecordingInstrument
from tests.fuzz import examples

NAMES = st.sampled_from(
    [
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
)
OPERATIONS = st.sampled_from([None, "mount"])
IF_BUSY: st.SearchStrategy[IfBusy] = st.sampled_from(["refuse", "skip", "join", "replace", "queue"])
BACKOFF = Backoff(initial=1.0, maximum=4.0, give_up_after=3)
RETENTION = 6.0


def overlap(one: Any, other: Any) -> bool:
    """Whether two names exclude each other, in the plainest words."""
    if not is_tuple(one) or not is_tuple(other):
        return bool(one == other)
    return len(one) == len(other) and all(
        a is ANY or b is ANY or a == b for a, b in zip(one, other, strict=True)
    )


def complain(what: str, error: BaseException) -> None:
    raise AssertionError(what) from error


class PendingMachine(RuleBasedStateMachine):
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.running: dict[Any, Run] = {}
        self.pending: dict[Any, Run] = {}
        self.failed: dict[tuple[Any, str | None], tuple[float, int]] = {}
        self.ended: list[Run] = []
        self.heard = RecordingInstrument()
        self.half_done: dict[Run, Run | None] = {}
        """Starts that were put off and are not back; each with what it has put aside."""
        self.is_closed = False
        self.is_draining = False

    @initialize(limit=st.sampled_from([None, 1, 2]))
    def open(self, limit: int | None) -> None:
        self.limit = limit
        self.engine: Engine[Run] = Engine(
            backoff=BACKOFF,
            retention=RETENTION,
            limit=limit,
            overdue_after=1.0,
            instruments=[self.heard],
            random=lambda: 0.0,
            complain=complain,
        )

    # What the model knows

    def claims(self) -> Iterator[Run]:
        """Who holds a name against others."""
        yield from self.running.values()
        yield from (run for run in self.pending.values() if run.put_off == "replace")

    def holders(self, name: Any) -> list[Run]:
        return [run for run in self.claims() if overlap(name, run.name)]

    def retry_at(self, name: Any, operation: str | None) -> float | None:
        """When a name that waits or gave up may start; None if it does neither."""
        retry_at, _ = self.failed.get((name, operation), (-math.inf, 0))
        return retry_at if self.now < retry_at else None

    def expected(self, name: Any, operation: str | None, if_busy: IfBusy) -> Move:
        retry_at = self.retry_at(name, operation)
        others = [run for run in self.holders(name) if run is not self.running.get(name)]
        if self.is_closed:
            return Move.REFUSE
        if name in self.running:
            allowed = {"join": Move.JOIN, "replace": Move.PUT_OFF, "queue": Move.PUT_OFF}
        elif others:
            allowed = {"replace": Move.PUT_OFF}
        elif retry_at is None:
            return Move.ADMIT
        else:
            allowed = {} if retry_at == math.inf else {"queue": Move.PUT_OFF}
        return {"skip": Move.SKIP, **allowed}.get(if_busy, Move.REFUSE)

    # What happens

    def carry_out(self, turn: Turn[Run]) -> None:
        for run in turn.dropped:
            assert run.done
            if self.pending.get(run.name) is run:
                del self.pending[run.name]
            self.ended.append(run)
        for name, run in list(self.pending.items()):
            if run.put_off is None:  # it has its name now
                del self.pending[name]
                assert name not in self.running
                self.running[name] = run
                self.take_record(run)
        for run in turn.begin:
            assert run.has_slot
            assert run.started_at is None
            self.engine.begin(run, self.now)

    def take_record(self, run: Run) -> None:
        retry_at, failures = self.failed.get((run.name, run.operation), (-math.inf, 0))
        lapsed = self.now >= retry_at + RETENTION
        assert run.failures == (0 if lapsed else failures)
        if lapsed:
            self.failed.pop((run.name, run.operation), None)

    @rule(
        target=runs,
        name=NAMES,
        operation=OPERATIONS,
        if_busy=IF_BUSY,
        outcome=st.sampled_from([True, True, False, None]),
    )
    def start(self, name: Any, operation: str | None, if_busy: IfBusy, outcome: bool | None) -> Run:
        unknown = self.engine.ledger.is_unknown(name, operation)
        obstacle = self.engine.ledger.obstacle(name, operation, self.now)
        assert obstacle is None or not unknown, "the short cut leads to the same place"
        what = move(obstacle, if_busy)
        assert what is self.expected(name, operation, if_busy)
        run = Run(name, operation, math.inf, self.engine.slots)
        if obstacle is None:
            self.engine.admit(run, self.now)
            self.running[name] = run
            self.take_record(run)
            if run.has_slot:
                self.engine.begin(run, self.now)
        elif what is Move.PUT_OFF:
            assert if_busy in ("replace", "queue")
            self.half_done[run] = self.pending.get(name)
            self.pending[name] = run
            self.engine.put_off(run, if_busy, obstacle)
            if outcome is not None:
                self.finish(run, ok=outcome)
        else:
            assert what is not Move.JOIN or obstacle is self.running[name]
            run.done = True
        return run

    @rule(ok=st.booleans())
    def finish_one(self, ok: bool) -> None:
        """Starts nest, one inside of the function that the other calls: the last is back first."""
        if self.half_done:
            self.finish(next(reversed(self.half_done)), ok=ok)

    def finish(self, run: Run, *, ok: bool) -> None:
        (self.accept if ok else self.roll_back)(run, self.half_done.pop(run))

    def accept(self, run: Run, before: Run | None) -> None:
        replaces = self.pending.get(run.name) is run and run.put_off == "replace"
        self.carry_out(self.engine.accept(run, self.now))
        assert before is None or before.done
        if not replaces or run.put_off is None:
            return
        doomed = self.engine.in_the_way(run)
        assert set(doomed) == {one for one in self.holders(run.name) if one is not run}
        for one in doomed:
            self.ask_to_stop(one)

    def roll_back(self, run: Run, before: Run | None) -> None:
        was_done, has_newer = run.done, False
        if not was_done:
            self.ended.append(run)
            if self.running.get(run.name) is run:
                del self.running[run.name]
                has_newer = run.name in self.pending
            else:
                del self.pending[run.name]
        is_back = before is not None and not before.done and not was_done and not has_newer
        if before is not None and is_back:
            self.pending[run.name] = before
        turn = self.engine.roll_back(run, self.now)
        assert run.done
        self.carry_out(turn)
        if before is not None and not is_back:
            assert before.done

    def ask_to_stop(self, run: Run) -> None:
        if run.done:
            return
        if run.put_off is not None:
            self.carry_out(self.engine.drop(run, "cancelled", self.now))
        elif not run.has_slot:
            self.end(run, self.engine.cancelled(run, self.now))
        else:
            self.engine.ask_to_stop(run, None, self.now)

    def end(self, run: Run, turn: Turn[Run]) -> None:
        assert run.done
        del self.running[run.name]
        self.ended.append(run)
        self.carry_out(turn)

    @rule(run=runs)
    def cancel(self, run: Run) -> None:
        self.ask_to_stop(run)

    @rule(run=consumes(runs), how=st.sampled_from(["succeed", "fail", "cancelled", "rolled back"]))
    def end_somehow(self, run: Run, how: str) -> None:
        if run.done or run.put_off is not None or not run.has_slot:
            return
        if how == "rolled back" and run in self.half_done:
            return  # its start raises, or does not, in `finish_one`
        key = run.name, run.operation
        if how == "succeed":
            self.failed.pop(key, None)
            turn = NOTHING
            if not self.engine.succeeded_plainly(run):
                turn = self.engine.succeeded(run, self.now)
        elif how == "fail":
            failures = self.failed.get(key, (0.0, 0))[1] + 1
            wait = {1: 1.0, 2: 2.0}.get(failures, math.inf)
            self.failed[key] = (self.now + wait, failures)
            verdict = self.engine.judge(run, ValueError("boom"))
            turn = self.engine.failed(run, verdict, self.now)
        elif how == "cancelled":
            turn = self.engine.cancelled(run, self.now)
        else:
            turn = self.engine.roll_back(run, self.now)
        self.end(run, turn)

    @rule(name=NAMES, operation=OPERATIONS)
    def forget(self, name: Any, operation: str | None) -> None:
        for key in list(self.failed):
            if key[0] == name and operation in (None, key[1]):
                del self.failed[key]
        self.carry_out(self.engine.forget(name, operation, self.now)[1])

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 6.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.engine.on_time(self.now))

    @rule(really=st.integers(0, 9), only_drain=st.booleans())
    def close(self, really: int, only_drain: bool) -> None:
        """At the end of its block a map is not closed yet, but drained."""
        if really == 0:
            self.engine.ledger.closed = self.is_closed = self.is_closed or not only_drain
            self.is_draining = True
            self.carry_out(self.engine.drain(self.now))

    # What always holds

    @invariant()
    def the_tables_agree(self) -> None:
        if hasattr(self, "engine"):
            assert dict(self.engine.ledger.running) == self.running
            assert dict(self.engine.ledger.pending) == self.pending
            assert all(run.is_pending for run in self.pending.values())
            put_aside = [run for run in self.half_done.values() if run is not None]
            assert not any(run.is_pending for run in put_aside + self.ended if run.done)
            assert self.engine.statistics().pending == len(self.pending)

    @invariant()
    def no_two_runs_overlap(self) -> None:
        claims = list(self.claims())
        assert not [
            (one.name, other.name)
            for one in self.running.values()
            for other in self.running.values()
            if one is not other and overlap(one.name, other.name)
        ]
        replacing = [run for run in claims if run.put_off and run not in self.half_done]
        assert not [
            (one.name, other.name)
            for one in replacing
            for other in replacing
            if one is not other and overlap(one.name, other.name)
        ]

    @invariant()
    def nothing_pending_waits_for_nothing(self) -> None:
        for name, run in self.pending.items():
            others = [one for one in self.holders(name) if one is not run]
            if run.put_off == "replace":
                assert others
            elif not others:
                retry_at = self.retry_at(name, run.operation)
                assert retry_at is not None
                assert retry_at < math.inf
                assert not self.is_draining or run in self.half_done

    @invariant()
    def slots_are_used_and_not_exceeded(self) -> None:
        if not hasattr(self, "engine"):
            return
        begun = [run for run in self.running.values() if run.has_slot]
        assert self.engine.slots.used == (0 if self.limit is None else len(begun))
        assert self.limit is None or len(begun) <= self.limit
        if len(begun) < len(self.running):
            assert len(begun) == self.limit
        assert all(run.started_at is not None for run in begun)

    def teardown(self) -> None:
        """Everything ends, and is told once."""
        if not hasattr(self, "engine"):
            return
        self.engine.ledger.closed = self.is_draining = True
        self.carry_out(self.engine.drain(self.now))
        while self.half_done:
            self.finish(next(reversed(self.half_done)), ok=True)
        for _ in range(1000):
            active = [run for run in self.running.values() if run.has_slot]
            if not active:
                break
            self.end(active[0], self.engine.succeeded(active[0], self.now))
        assert not self.running
        assert not self.pending
        assert self.engine.ledger.overlaps.is_empty()
        assert len(self.engine.timers) == 0
        assert len(self.ended) == len({id(run) for run in self.ended})
        self.engine.dispatch.deliver()
        queued = len(self.heard.of(TaskQueued))
        begun = len(self.heard.of(TaskStarted))
        lost = len(self.heard.of(TaskSuperseded)) + len(self.heard.of(TaskCancelled))
        assert queued <= begun + lost


PendingMachine.TestCase.settings = settings(
    max_examples=examples(300), stateful_step_count=50, deadline=None
)
TestTheCoreAgreesWithAPlainModel = PendingMachine.TestCase


def test_the_table_of_if_busy() -> None:
    """What a start comes to, by what it finds."""
    run = Run("a", None, math.inf, Slots(None))
    waiting, gave_up = Record("a", None), Record("a", None)
    gave_up.retry_at = math.inf
    table = {
        if_busy: [
            move(obstacle, if_busy).name
            for obstacle in (None, run, Overlapping([run]), waiting, gave_up, Closed.CLOSED)
        ]
        for if_busy in ("refuse", "skip", "join", "replace", "queue")
    }
    assert table == {
        "refuse": ["ADMIT", "REFUSE", "REFUSE", "REFUSE", "REFUSE", "REFUSE"],
        "skip": ["ADMIT", "SKIP", "SKIP", "SKIP", "SKIP", "REFUSE"],
        "join": ["ADMIT", "JOIN", "REFUSE", "REFUSE", "REFUSE", "REFUSE"],
        "replace": ["ADMIT", "PUT_OFF", "PUT_OFF", "REFUSE", "REFUSE", "REFUSE"],
        "queue": ["ADMIT", "PUT_OFF", "REFUSE", "PUT_OFF", "REFUSE", "REFUSE"],
    }
