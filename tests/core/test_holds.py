"""What keeps a wait: where it sleeps, until when, and what wakes it."""

import math
from typing import Any

import attrs
import pytest

from namedtasks import ANY, Backoff, ClosedError, GaveUpError
from namedtasks._core.engine import Engine
from namedtasks._core.holds import (
    Hold,
    Holds,
    queued_behind,
    waits_for_its_map,
    waits_for_its_run,
)
from namedtasks._core.runs import LiveRun


@attrs.define(eq=False)
class Bed:
    """Where who waits would sleep."""

    sleepers: int = 0
    woken: int = 0

    def unpark_all(self) -> None:
        self.woken += 1

    def __len__(self) -> int:
        return self.sleepers


@attrs.define
class World:
    """An engine, and the holds of its waits."""

    engine: Engine[LiveRun[Bed]]
    holds: Holds[LiveRun[Bed], Bed]
    now: float = 0.0

    def start(self, name: Any) -> LiveRun[Bed]:
        assert self.engine.ledger.obstacle(name, None, self.now) is None
        run: LiveRun[Bed] = LiveRun(name, None, math.inf, self.engine.slots)
        self.engine.admit(run, self.now)
        return run

    def fail(self, name: Any) -> None:
        run = self.start(name)
        self.engine.failed(run, self.engine.judge(run, ValueError("boom")), self.now)

    def put_off(self, name: Any, how: Any) -> LiveRun[Bed]:
        obstacle = self.engine.ledger.obstacle(name, None, self.now)
        assert obstacle is not None
        run: LiveRun[Bed] = LiveRun(name, None, math.inf, self.engine.slots)
        self.engine.put_off(run, how, obstacle)
        return run

    def hold_free(self, name: Any) -> Hold[Bed]:
        hold = self.holds.hold_free(name, None)
        assert hold is not None
        return hold


def complain(what: str, error: BaseException) -> None:
    raise AssertionError(what) from error


def world(*, give_up_after: int | None = None) -> World:
    engine: Engine[LiveRun[Bed]] = Engine(
        backoff=Backoff(initial=1.0, give_up_after=give_up_after),
        retention=10.0,
        limit=None,
        overdue_after=1.0,
        instruments=[],
        random=lambda: 0.0,
        complain=complain,
    )
    w = World(engine, Holds(engine, lambda: w.now, Bed))
    return w


def test_a_map_is_idle_when_nothing_runs_and_nothing_is_pending() -> None:
    w = world()
    assert isinstance(w.holds.quiet, Bed), "it is there before anybody waits"
    assert w.holds.is_idle()
    assert w.holds.hold_idle() is None
    w.fail("a")
    assert w.holds.is_idle(), "a failure on record is no work"
    pending = w.put_off("a", "queue")
    assert not w.holds.is_idle()
    assert w.holds.hold_idle() == (w.holds.quiet, math.inf)
    w.engine.drop(pending, None, w.now)
    run = w.start("b")
    assert not w.holds.is_idle()
    assert w.holds.hold_idle() == (w.holds.quiet, math.inf)
    w.engine.succeeded(run, w.now)
    assert w.holds.hold_idle() is None


def test_a_map_is_empty_when_no_failure_waits_either() -> None:
    w = world()
    assert w.holds.hold_empty() is None
    w.fail("a")
    run = w.start("b")
    assert w.holds.hold_empty() == (w.holds.quiet, math.inf)
    w.engine.succeeded(run, w.now)
    w.now = 0.5
    assert w.holds.hold_empty() == (w.holds.quiet, 11.0)
    w.now = 11.0
    assert w.holds.hold_empty() is None


def test_a_wait_for_a_free_name_sleeps_with_the_run_that_has_it() -> None:
    w = world()
    assert w.holds.hold_free("a", None) is None
    run = w.start("a")
    hold = w.hold_free("a")
    assert hold == (run.waiters, math.inf)
    assert w.hold_free("a").lot is hold.lot, "all who wait for a run sleep in one place"
    w.engine.succeeded(run, w.now)
    assert w.holds.hold_free("a", None) is None


def test_and_with_the_first_of_those_that_overlap_it() -> None:
    w = world()
    first = w.start(("v", 1))
    w.start(("v", 2))
    hold = w.hold_free(("v", ANY))
    assert hold == (first.waiters, math.inf)
    assert hold.lot is not w.holds.quiet


def test_and_until_the_end_of_its_own_wait_if_it_failed() -> None:
    w = world()
    w.fail("a")
    w.fail("b")
    hold = w.hold_free("a")
    assert hold == (w.holds.waiting_for["a"], 1.0)
    assert w.hold_free("a").lot is hold.lot
    assert w.hold_free("b").lot is not hold.lot
    w.now = 1.0
    assert w.holds.hold_free("a", None) is None


def test_failures_of_another_operation_keep_no_wait() -> None:
    w = world()
    w.fail("a")
    assert w.holds.hold_free("a", "mount") is None


def test_a_wait_for_what_never_comes_raises() -> None:
    w = world(give_up_after=1)
    w.fail("a")
    with pytest.raises(GaveUpError) as gave_up:
        w.holds.hold_free("a", None)
    assert gave_up.value.args == ("a", None, 1)
    w.engine.ledger.closed = True
    with pytest.raises(ClosedError) as closed:
        w.holds.hold_free("b", "mount")
    assert closed.value.args == ("b", "mount")


def test_closing_wakes_all_who_wait_to_start_something() -> None:
    """Those whose name waits, those whose name runs, and those whose name is claimed."""
    w = world()
    w.fail("a")
    running = w.start(("v", 1))
    claim = w.put_off(("v", ANY), "replace")
    w.start("nobody waits for this")
    lots = [w.hold_free(name).lot for name in ("a", ("v", 1), ("v", 2))]
    assert lots == [w.holds.waiting_for["a"], running.waiters, claim.waiters]
    w.holds._wake_starters()
    assert [lot.woken for lot in lots] == [1, 1, 1]


def test_the_bed_of_a_name_goes_when_its_last_sleeper_has_left() -> None:
    w = world()
    w.fail("a")
    lot = w.hold_free("a").lot
    lot.sleepers = 1
    w.holds.forsake("a", lot)
    assert w.hold_free("a").lot is lot
    lot.sleepers = 0
    w.holds.forsake("b", lot)
    w.holds.forsake("a", Bed())
    assert w.hold_free("a").lot is lot, "another's does not count"
    w.holds.forsake("a", lot)
    assert w.holds.waiting_for == {}


def test_who_waits_for_one_that_queues_waits_for_what_is_before_it() -> None:
    w = world()
    run = w.start("a")
    assert queued_behind(run) is None
    queued = w.put_off("a", "queue")
    assert queued_behind(queued) is run
    other = w.start("b")
    replacing = w.put_off("b", "replace")
    assert replacing.blocker is other
    assert queued_behind(replacing) is None


def test_a_wait_that_would_wait_for_itself_says_what_and_the_cure() -> None:
    w = world()
    assert str(waits_for_its_map("wait_idle()")) == (
        "wait_idle() from inside a task of the same map would wait for itself: "
        "call it from outside, or wait for the handles that are meant"
    )
    assert str(waits_for_its_run(w.start(("v", 1)), "result()")) == (
        "result() from inside task ('v', 1) would wait for itself: call it from outside"
    )
