"""Runs that were put off, case by case: what becomes of each, and of who waits behind it."""

import math
from typing import Any, Literal

import attrs
import pytest

from namedtasks import ANY, AlreadyRunningError, Backoff
from namedtasks._core.engine import Engine
from namedtasks._core.obstacles import Overlapping, refusal
from namedtasks._core.runs import Run
from namedtasks._core.turns import NOTHING, Turn
from namedtasks.instruments import TaskCancelled, TaskEvent, TaskQueued, TaskSuperseded
from namedtasks.testing import RecordingInstrument


def complain(what: str, error: BaseException) -> None:
    raise AssertionError(what) from error


@attrs.define
class World:
    """An engine, and the turns that it gives."""

    engine: Engine[Run]
    heard: RecordingInstrument
    now: float = 0.0

    def start(self, name: Any, operation: str | None = None) -> Run:
        assert self.engine.ledger.obstacle(name, operation, self.now) is None
        run = Run(name, operation, math.inf, self.engine.slots)
        self.engine.admit(run, self.now)
        return run

    def put_off(
        self,
        name: Any,
        how: Literal["replace", "queue"],
        *,
        operation: str | None = None,
        accept: bool = True,
    ) -> Run:
        obstacle = self.engine.ledger.obstacle(name, operation, self.now)
        assert obstacle is not None
        run = Run(name, operation, math.inf, self.engine.slots)
        self.engine.put_off(run, how, obstacle)
        if accept:
            self.engine.accept(run, self.now)
        return run

    def fail(self, run: Run) -> Turn[Run]:
        return self.engine.failed(run, self.engine.judge(run, ValueError("boom")), self.now)

    def succeed(self, run: Run) -> Turn[Run]:
        return self.engine.succeeded(run, self.now)

    def events(self) -> list[TaskEvent]:
        self.engine.dispatch.deliver()
        events, self.heard.events = self.heard.events, []
        return events


BACKOFF = Backoff(initial=1.0)


def world(*, limit: int | None = None, backoff: Any = BACKOFF) -> World:
    heard = RecordingInstrument()
    engine: Engine[Run] = Engine(
        backoff=backoff,
        retention=None,
        limit=limit,
        overdue_after=1.0,
        instruments=[heard],
        random=lambda: 0.0,
        complain=complain,
    )
    return World(engine, heard)


@pytest.mark.parametrize("how", ["replace", "queue"])
def test_a_run_that_was_put_off_begins_when_the_one_before_succeeds(how: Any) -> None:
    w = world()
    old = w.start("a")
    new = w.put_off("a", how)
    assert w.engine.statistics().pending == 1
    assert w.succeed(old) == Turn((new,))
    assert (new.put_off, new.has_slot, w.engine.ledger.running["a"]) == (None, True, new)
    assert w.engine.statistics().pending == 0


def test_one_that_queues_sits_out_the_wait_and_one_that_replaces_does_not() -> None:
    w = world()
    old, other = w.start("a"), w.start("b")
    queued, replacing = w.put_off("a", "queue"), w.put_off("b", "replace")
    assert w.fail(old) == Turn()
    assert w.fail(other) == Turn((replacing,))
    assert replacing.failures == 1
    w.now = 0.999
    assert w.engine.on_time(w.now) == Turn()
    w.now = 1.0
    assert w.engine.on_time(w.now) == Turn((queued,))
    assert queued.failures == 1


@pytest.mark.parametrize(("operation", "begins"), [("mount", False), ("check", True), (None, True)])
def test_one_that_queues_sits_out_the_wait_of_its_own_operation(
    operation: str | None, begins: bool
) -> None:
    w = world()
    old = w.start("a", "mount")
    queued = Run("a", operation, math.inf, w.engine.slots)
    w.engine.put_off(queued, "queue", old)
    w.engine.accept(queued, w.now)
    assert w.fail(old) == Turn((queued,) if begins else ())


def test_to_begin_or_to_go_a_pending_run_needs_no_look_at_the_others() -> None:
    """However many there are."""

    @attrs.frozen
    class Counted:
        number: int

        def __hash__(self) -> int:
            looked_at.append(self)
            return hash(self.number)

    looked_at: list[Counted] = []
    w = world()
    other, one, two = Counted(0), Counted(1), Counted(2)
    w.start(other)
    w.put_off(other, "queue")
    old = w.start(one)
    begins = w.put_off(one, "queue")
    w.start(two)
    dropped = w.put_off(two, "queue")
    looked_at.clear()
    assert w.succeed(old) == Turn((begins,))
    assert w.engine.drop(dropped, None, w.now) == Turn((), (dropped,))
    assert other not in looked_at


class Touchy:
    """A field of a name that can be looked up just so often."""

    looks = math.inf

    def __hash__(self) -> int:
        if not self.looks:
            raise ZeroDivisionError
        self.looks -= 1
        return 1


def test_a_start_that_cannot_be_put_off_changes_nothing_wherever_its_name_raises() -> None:
    for looks in range(100):
        w = world()
        w.engine.ledger.holders(("w", ANY), 1)  # names with two fields are in the index
        field = Touchy()
        name = ("v", field)
        old = w.start(name)
        first = w.put_off(name, "queue")
        run = Run(name, None, math.inf, w.engine.slots)
        field.looks = looks
        try:
            w.engine.put_off(run, "replace", old)
        except ZeroDivisionError:
            field.looks = math.inf
            assert w.engine.ledger.holders(("v", ANY), 10) == [old]
            assert w.engine.ledger.pending[name] is first
            assert w.succeed(old) == Turn((first,))
        else:
            assert looks > 0
            return


def test_what_is_put_back_and_cannot_be_looked_up_any_more_is_told() -> None:
    w = world()
    field = Touchy()
    name = (field, ANY)
    w.start((field, "a"))
    first = w.put_off(name, "replace")
    broken = w.put_off(name, "replace", accept=False)
    field.looks = 0
    assert w.engine.roll_back(broken, w.now) == Turn((), (first,))
    assert (broken.done, first.done) == (True, True)


def test_who_queued_and_is_put_back_claims_nothing() -> None:
    w = world()
    w.engine.ledger.holders(("w", ANY), 1)
    old = w.start(("v", "a"))
    w.put_off(("v", "a"), "queue")
    broken = w.put_off(("v", "a"), "queue", accept=False)
    assert w.engine.roll_back(broken, w.now) == Turn()
    assert w.engine.ledger.holders(("v", ANY), 10) == [old]


@pytest.mark.parametrize("name", [5, "a", None, frozenset("a")])
def test_any_name_may_replace_and_be_superseded(name: Any) -> None:
    w = world()
    old = w.start(name)
    first = w.put_off(name, "replace")
    second = w.put_off(name, "replace")
    assert first.done
    assert w.succeed(old) == Turn((second,))


def test_one_may_queue_on_a_name_that_waits_and_forget_begins_it() -> None:
    w = world()
    w.fail(w.start("a"))
    queued = w.put_off("a", "queue")
    assert w.engine.forget("a", None, w.now) == (True, Turn((queued,)))
    assert (queued.failures, len(w.engine.timers)) == (0, 0)


def test_a_name_that_gives_up_drops_who_queues_and_lets_who_replaces_begin() -> None:
    w = world(backoff=Backoff(give_up_after=1))
    old, other = w.start("a"), w.start("b")
    queued, replacing = w.put_off("a", "queue"), w.put_off("b", "replace")
    w.now = 3.0
    assert w.fail(old) == Turn((), (queued,))
    assert (queued.done, queued.reason) == (True, "its name gave up")
    told = TaskCancelled(name="a", operation=None, at=3.0, duration=None, reason="its name gave up")
    assert told in w.events()
    assert w.fail(other) == Turn((replacing,))
    assert replacing.failures == 1


def test_where_who_was_put_off_waits_on_that_is_told_by_a_look() -> None:
    w = world()
    old = w.start("a")
    w.put_off("a", "queue")
    assert w.fail(old) is NOTHING


def test_a_newer_one_supersedes_the_pending_run_and_says_so() -> None:
    w = world()
    old = w.start("a")
    first = w.put_off("a", "replace")
    obstacle = w.engine.ledger.obstacle("a", None, w.now)
    assert obstacle is old
    second = Run("a", None, math.inf, w.engine.slots)
    w.engine.put_off(second, "queue", old)
    assert not first.done, "not before it is sure"
    assert w.engine.accept(second, w.now) == Turn((), (first,))
    assert first.done
    assert str(first.cancelled_error()) == (
        "task 'a' was cancelled: superseded by a newer start of its name"
    )
    assert [type(event) for event in w.events()] == [TaskQueued, TaskQueued, TaskSuperseded]
    assert w.succeed(old) == Turn((second,))


def test_a_start_that_raises_leaves_the_pending_run_before_it_in_its_place() -> None:
    w = world()
    old = w.start("a")
    first = w.put_off("a", "queue")
    broken = w.put_off("a", "replace", accept=False)
    assert w.engine.roll_back(broken, w.now) == Turn()
    assert (broken.done, first.done) == (True, False)
    assert str(broken.cancelled_error()) == "task 'a' was cancelled: its start raised an error"
    assert w.succeed(old) == Turn((first,))


@pytest.mark.parametrize("how", ["queue", "replace"])
def test_and_if_its_turn_has_come_meanwhile_that_one_is_next(how: Any) -> None:
    w = world()
    old = w.start("a")
    first = w.put_off("a", how)
    broken = w.put_off("a", how, accept=False)
    assert w.succeed(old) == Turn((broken,))
    assert w.engine.roll_back(broken, w.now) == Turn((first,))
    assert (broken.done, first.done) == (True, False)


def test_or_is_superseded_if_there_is_a_newer_one() -> None:
    w = world()
    old = w.start("a")
    first = w.put_off("a", "queue")
    broken = w.put_off("a", "queue", accept=False)
    w.succeed(old)
    newer = w.put_off("a", "queue")
    w.now = 3.0
    assert w.engine.roll_back(broken, w.now) == Turn((newer,), (first,))
    assert TaskSuperseded(name="a", operation=None, at=3.0) in w.events()


@pytest.mark.parametrize("superseded", [True, False])
def test_and_if_it_is_over_already_so_is_that_one(superseded: Any) -> None:
    w = world()
    w.start("a")
    first = w.put_off("a", "queue")
    broken = w.put_off("a", "queue", accept=False)
    if superseded:
        w.put_off("a", "queue")
    else:
        w.engine.drop(broken, None, w.now)
    assert not first.done
    assert w.engine.roll_back(broken, w.now) == Turn((), (first,))
    assert w.engine.roll_back(broken, w.now) == Turn()


def test_who_is_in_line_behind_a_start_that_raises_is_not_lost() -> None:
    w = world()
    w.start(("v", 1))
    broken = w.put_off(("v", ANY), "replace", accept=False)
    behind = w.put_off(("v", 2), "replace")
    assert behind.blocker is broken
    assert w.engine.roll_back(broken, w.now) == Turn((behind,))


def test_close_drops_what_sits_out_a_wait_and_keeps_what_comes_next() -> None:
    w = world()
    w.fail(w.start("waits"))
    waits = w.put_off("waits", "queue")
    old, failing = w.start("a"), w.start("b")
    queued, doomed = w.put_off("a", "queue"), w.put_off("b", "queue")
    w.engine.ledger.closed = True
    assert w.engine.drain(w.now) == Turn((), (waits,))
    assert waits.reason == "the map is closing"
    assert w.succeed(old) == Turn((queued,))
    assert w.fail(failing) == Turn((), (doomed,))
    assert doomed.reason == "the map is closing"


def test_the_slot_goes_straight_to_who_replaces() -> None:
    w = world(limit=1)
    old, in_line = w.start("a"), w.start("b")
    replacing = w.put_off("a", "replace")
    assert w.engine.cancelled(old, w.now) == Turn((replacing,))
    assert replacing.has_slot
    assert not in_line.has_slot


def test_the_place_in_line_goes_straight_to_who_replaces() -> None:
    """Else a name that is replaced again and again would never get a slot."""
    w = world(limit=1)
    first = w.start("a")
    second, third = w.start("b"), w.start("c")
    replacing = w.put_off("b", "replace")
    assert w.engine.cancelled(second, w.now) == Turn()
    assert not replacing.has_slot
    assert w.succeed(first) == Turn((replacing,))
    assert w.succeed(replacing) == Turn((third,))


def test_who_queues_takes_a_place_at_the_end_of_the_line() -> None:
    w = world(limit=1)
    old, in_line = w.start("a"), w.start("b")
    queued = w.put_off("a", "queue")
    assert w.succeed(old) == Turn((in_line,))
    assert w.succeed(in_line) == Turn((queued,))


def test_a_replacement_in_another_kind_of_slot_takes_one_of_its_own() -> None:
    w = world()
    old = w.start("a")
    obstacle = w.engine.ledger.obstacle("a", None, w.now)
    assert obstacle is old
    new = Run("a", None, math.inf, w.engine.thread_slots)
    w.engine.put_off(new, "replace", old)
    assert w.succeed(old) == Turn((new,))
    assert (w.engine.slots.used, w.engine.thread_slots.used) == (0, 1)


def test_one_that_replaces_all_that_overlaps_waits_for_the_last() -> None:
    w = world()
    olds = [w.start(("v", pod)) for pod in "abc"]
    other = w.start(("w", "a"))
    new = w.put_off(("v", ANY), "replace")
    assert w.engine.in_the_way(new) == olds
    assert w.engine.cancelled(olds[1], w.now) == Turn()
    assert w.engine.cancelled(olds[0], w.now) == Turn()
    assert w.engine.cancelled(olds[2], w.now) == Turn((new,))
    assert w.engine.cancelled(other, w.now) == Turn()


def test_its_claim_keeps_others_out_while_it_is_pending() -> None:
    w = world()
    old = w.start(("v", "a"))
    new = w.put_off(("v", ANY), "replace")
    obstacle = w.engine.ledger.obstacle(("v", "b"), None, w.now)
    assert isinstance(obstacle, Overlapping)
    assert obstacle.runs == [new]
    error = refusal(obstacle, ("v", "b"), None, w.now)
    assert isinstance(error, AlreadyRunningError)
    assert (error.holders, error.started_at) == ((("v", ANY),), None)
    w.engine.drop(new, "enough", w.now)
    assert w.engine.ledger.obstacle(("v", "b"), None, w.now) is None
    assert [type(event) for event in w.events()] == [TaskQueued, TaskCancelled]
    assert w.succeed(old) == Turn()


def test_who_queued_behind_a_claim_begins_when_that_is_dropped() -> None:
    w = world()
    old = w.start(("v", "a"))
    claim = w.put_off(("v", ANY), "replace")
    queued = w.put_off(("v", "a"), "queue")
    assert w.succeed(old) == Turn((claim,))
    assert queued.blocker is claim
    assert w.succeed(claim) == Turn((queued,))
    again = w.put_off(("v", ANY), "replace")
    late = w.put_off(("v", "a"), "queue")
    w.engine.pending.reconsider(late, w.now)
    assert w.engine.drop(again, None, w.now) == Turn((), (again,))
    assert w.succeed(queued) == Turn((late,))


def test_a_claim_from_before_the_first_name_with_any_counts_too() -> None:
    w = world()
    old = w.start(("v", "a"))
    claim = w.put_off(("v", "a"), "replace")
    holders = w.engine.ledger.holders((ANY, "a"), 10)
    assert holders == [old, claim]
    w.engine.drop(claim, None, w.now)
    w.succeed(old)
    assert w.engine.ledger.overlaps.is_empty()


def test_a_plain_start_may_be_faster_than_who_queues_for_the_end_of_a_wait() -> None:
    """Exactly at the end of the wait a start is admitted; who queues comes after it."""
    w = world()
    w.fail(w.start("a"))
    queued = w.put_off("a", "queue")
    w.now = 1.0
    faster = w.start("a")
    assert w.engine.on_time(w.now) == Turn()
    assert w.succeed(faster) == Turn((queued,))


def test_a_pending_run_of_a_name_whose_wait_grew_waits_longer() -> None:
    w = world()
    w.fail(w.start("a"))
    queued = w.put_off("a", "queue")
    w.now = 1.0
    again = w.start("a")
    w.engine.on_time(w.now)
    assert w.fail(again) == Turn()
    w.now = 2.999
    assert w.engine.on_time(w.now) == Turn()
    w.now = 3.0
    assert w.engine.on_time(w.now) == Turn((queued,))


def test_what_was_put_aside_and_cancelled_does_not_come_back() -> None:
    w = world()
    old = w.start("a")
    first = w.put_off("a", "queue")
    broken = w.put_off("a", "queue", accept=False)
    assert w.engine.drop(first, "enough", w.now) == Turn((), (first,))
    assert w.engine.roll_back(broken, w.now) == Turn()
    assert broken.supersedes is None
    assert not first.is_pending
    assert w.succeed(old) == Turn()


def test_nor_does_it_when_the_turn_of_the_start_has_come_meanwhile() -> None:
    w = world()
    old = w.start("a")
    first = w.put_off("a", "queue")
    broken = w.put_off("a", "queue", accept=False)
    w.engine.drop(first, "enough", w.now)
    assert w.succeed(old) == Turn((broken,))
    assert w.engine.roll_back(broken, w.now) == Turn()
    assert not first.is_pending
    assert w.engine.ledger.obstacle("a", None, w.now) is None


def test_a_start_waits_for_what_is_in_its_way_and_not_for_the_one_that_it_puts_aside() -> None:
    """Both are in the index; the one that is put aside may outlive what both wait for."""
    w = world()
    old = w.start(("v", "a"))
    first = w.put_off((ANY, ANY), "replace")
    newer = w.put_off((ANY, ANY), "replace", accept=False)
    assert newer.blocker is old
    assert w.succeed(old) == Turn((newer,))
    assert w.engine.accept(newer, w.now) == Turn((), (first,))


def test_claims_that_wait_for_each_other_let_go_when_the_starts_raise() -> None:
    """Two starts that are not back yet may be in each other's way."""
    w = world()
    old = w.start(("v", 1))
    first = w.put_off(("v", ANY), "replace")
    broken = w.put_off(("v", ANY), "replace", accept=False)
    behind = w.put_off(("v", 2), "replace", accept=False)
    assert behind.blocker is broken
    assert w.succeed(old) == Turn((), ())
    assert w.engine.roll_back(broken, w.now) == Turn()
    assert w.engine.roll_back(behind, w.now) == Turn((first,))


def test_what_was_put_aside_and_cancelled_is_not_superseded_too() -> None:
    """It has ended once; and who took its place keeps nothing of it."""
    w = world()
    w.start("a")
    first = w.put_off("a", "queue")
    second = w.put_off("a", "queue", accept=False)
    w.engine.drop(first, "enough", w.now)
    assert w.engine.accept(second, w.now) == Turn()
    assert first.reason == "enough"
    assert second.supersedes is None
    assert [type(event) for event in w.events()] == [TaskQueued, TaskCancelled, TaskQueued]
    third = w.put_off("a", "queue")
    assert third.supersedes is None


def test_while_draining_only_what_would_sit_out_a_wait_is_dropped() -> None:
    """A start made after the end of the block, by a run that goes on, may come next."""
    w = world()
    w.fail(w.start("waits"))
    old = w.start("a")
    w.engine.drain(w.now)
    assert w.put_off("waits", "queue").reason == "the map is closing"
    queued = w.put_off("a", "queue")
    assert w.succeed(old) == Turn((queued,))


def test_who_waits_for_a_claim_begins_when_that_is_dropped() -> None:
    w = world()
    one, other = w.start(("v", "a")), w.start(("v", "b"))
    claim, queued = w.put_off(("v", ANY), "replace"), w.put_off(("v", "a"), "queue")
    assert w.succeed(one) == Turn()
    assert queued.blocker is claim
    assert w.engine.drop(claim, None, w.now) == Turn((queued,), (claim,))
    assert w.succeed(other) == Turn()


def test_what_a_drain_drops_before_its_start_is_back_takes_along_what_it_put_aside() -> None:
    """Both are told; neither is left to sit out the wait."""
    w = world()
    w.fail(w.start("waits"))
    first = w.put_off("waits", "queue")
    late = w.put_off("waits", "queue", accept=False)
    w.engine.drain(w.now)
    assert late.done, "the drain has found it already"
    assert w.engine.accept(late, w.now) == Turn((), (first,))


def test_each_step_is_told_with_its_time() -> None:
    w = world()
    w.now = 1.0
    old = w.start("a", "mount")
    w.now = 2.0
    first = w.put_off("a", "queue", operation="mount")
    w.now = 3.0
    w.put_off("a", "replace", operation="mount")
    w.now = 4.0
    last = w.put_off("a", "queue", operation="mount")
    w.now = 5.0
    w.engine.drop(last, "enough", w.now)
    assert first.done
    assert w.events() == [
        TaskQueued(name="a", operation="mount", at=2.0, if_busy="queue"),
        TaskQueued(name="a", operation="mount", at=3.0, if_busy="replace"),
        TaskSuperseded(name="a", operation="mount", at=3.0),
        TaskQueued(name="a", operation="mount", at=4.0, if_busy="queue"),
        TaskSuperseded(name="a", operation="mount", at=4.0),
        TaskCancelled(name="a", operation="mount", at=5.0, duration=None, reason="enough"),
    ]
    assert w.succeed(old) == Turn()


def test_waits_that_end_together_end_in_one_turn() -> None:
    w = world()
    names = ("a", "b", "c")
    for name in names:
        w.fail(w.start(name))
    queued = [w.put_off(name, "queue") for name in names]
    w.now = 1.0
    turn = w.engine.on_time(w.now)
    assert set(turn.begin) == set(queued)
    assert turn.dropped == ()


def test_a_wait_that_ends_keeps_nothing_else_from_falling_due() -> None:
    w = world()
    w.fail(w.start("a"))
    queued = w.put_off("a", "queue")
    late = [w.start("b"), w.start("c")]
    for run in late:
        w.engine.begin(run, 0.0)
        w.engine.ask_to_stop(run, None, 0.5)
    w.now = 2.0
    assert w.engine.on_time(w.now) == Turn((queued,))
    assert [run.overdue for run in late] == [True, True]
    assert w.engine.statistics().overdue == 2
    w.succeed(late[0])
    assert w.engine.statistics().overdue == 1


def test_a_drain_drops_all_that_would_sit_out_a_wait_in_one_turn() -> None:
    w = world()
    names = ("a", "b", "c")
    for name in names:
        w.fail(w.start(name))
    queued = [w.put_off(name, "queue") for name in names]
    w.now = 0.5
    assert w.engine.drain(w.now) == Turn((), tuple(queued))
    assert [event.at for event in w.events() if isinstance(event, TaskCancelled)] == [0.5] * 3


def test_two_starts_that_come_late_to_a_drain_are_dropped_both() -> None:
    """Neither is left to sit out the wait, and who is told first is the one put aside."""
    w = world()
    w.fail(w.start("waits"))
    w.engine.drain(w.now)
    first = w.put_off("waits", "queue", accept=False)
    second = w.put_off("waits", "queue", accept=False)
    w.now = 0.5
    assert w.engine.accept(second, w.now) == Turn((), (first, second))
    assert second.reason == "the map is closing"
    assert {event.at for event in w.events() if isinstance(event, TaskCancelled)} == {0.5}


@attrs.define(eq=True, unsafe_hash=False)
class Shifty:
    """A field whose hash can be made to raise: what nobody should use."""

    value: int
    is_broken: bool = False

    def __hash__(self) -> int:
        if self.is_broken:
            raise ValueError("no hash")
        return self.value


def test_who_has_a_name_that_broke_is_dropped_and_nobody_else() -> None:
    w = world()
    names = [Shifty(1), Shifty(2), Shifty(3)]
    for name in names:
        w.fail(w.start(name))
    first, second, third = [w.put_off(name, "queue") for name in names]
    names[0].is_broken = names[2].is_broken = True
    w.now = 1.0
    turn = w.engine.on_time(w.now)
    assert turn.begin == (second,)
    assert set(turn.dropped) == {first, third}
    assert first.reason == "its name cannot be looked up any more"
    assert {event.at for event in w.events() if isinstance(event, TaskCancelled)} == {1.0}


def test_who_is_in_line_behind_a_name_that_broke_is_not_lost() -> None:
    w = world()
    old = w.start((Shifty(1), "a"))
    field = Shifty(1)
    claim = w.put_off((field, ANY), "replace")
    behind = w.put_off((Shifty(1), "b"), "replace")
    assert behind.blocker is claim
    field.is_broken = True
    assert w.succeed(old) == Turn((behind,), (claim,))


def drop(w: World, claim: Run) -> Turn[Run]:
    return w.engine.drop(claim, None, w.now)


def roll_back(w: World, claim: Run) -> Turn[Run]:
    return w.engine.roll_back(claim, w.now)


def put_aside_and_drop(w: World, claim: Run) -> Turn[Run]:
    """The newer one is dropped before its start, which raises, is back."""
    newer = w.put_off(claim.name, "replace", accept=False)
    assert w.engine.drop(newer, None, w.now) == Turn((), (newer,))
    return w.engine.roll_back(newer, w.now)


@pytest.mark.parametrize("go", [drop, roll_back, put_aside_and_drop])
def test_who_begins_as_a_claim_goes_counts_its_failures(go: Any) -> None:
    w = world()
    w.fail(w.start(("v", 1)))
    w.now = 0.5
    w.start(("v", 2))
    claim = w.put_off(("v", ANY), "replace")
    behind = w.put_off(("v", 1), "replace")
    assert go(w, claim).begin == (behind,)
    assert behind.failures == 1


def test_forgetting_one_operation_begins_nobody_who_waits_with_another() -> None:
    w = world()
    w.fail(w.start("a", "mount"))
    w.fail(w.start("a", "scan"))
    queued = w.put_off("a", "queue", operation="mount")
    assert w.engine.forget("a", "scan", w.now) == (True, Turn())
    assert w.engine.forget("a", "mount", w.now) == (True, Turn((queued,)))


def test_with_a_limit_runs_in_threads_take_of_the_same_slots() -> None:
    w = world(limit=1)
    w.start("a")
    run = Run("b", None, math.inf, w.engine.thread_slots)
    w.engine.admit(run, w.now)
    assert not run.has_slot
