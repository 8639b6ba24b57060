"""The ends of runs that are remembered for observations."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import data, sampled_from

from namedtasks import ANY, Observation, StaleLookError
from namedtasks._decisions import Stale
from namedtasks._names import names_overlap
from namedtasks._observations import Ends, check_observation
from namedtasks._state import RunStatus
from tests.plain_backend import make_scheduler, make_world


def observe(ends: Ends) -> Observation:
    return ends.open(ends.close)


def ended(ends: Ends, look: Observation, *names: Any) -> list[bool]:
    mark = check_observation(look, ends)
    return [ends.has_ended(name, mark, overlaps=True) for name in names]


def test_with_no_observation_open_nothing_is_kept() -> None:
    ends = Ends(10)
    with observe(ends):
        ends.note("a", False)
        assert (len(ends), ends.is_observed) == (1, True)
    assert (len(ends), ends.is_observed) == (0, False)


def test_each_observation_has_its_own_beginning() -> None:
    ends = Ends(10)
    first = observe(ends)
    ends.note("a", False)
    second = observe(ends)
    ends.note("b", False)
    assert ended(ends, first, "a", "b", "c") == [True, True, False]
    assert ended(ends, second, "a", "b", "c") == [False, True, False]


def test_the_end_of_the_oldest_forgets_what_no_other_needs() -> None:
    ends = Ends(10)
    first = observe(ends)
    for name in "abc":
        ends.note(name, False)
    second = observe(ends)
    ends.note("a", False)
    first.close()
    assert len(ends) == 1
    assert ended(ends, second, "a", "b") == [True, False]


def test_the_end_of_a_younger_one_forgets_nothing() -> None:
    ends = Ends(10)
    first = observe(ends)
    ends.note("a", False)
    observe(ends).close()
    assert ended(ends, first, "a") == [True]


def test_an_observation_that_is_dropped_ends() -> None:
    """At the latest with the next 64 ends of runs, or with the next observation."""
    ends = Ends(10)
    look = observe(ends)
    ends.note("a", False)
    gone = weakref.ref(look)
    del look
    gc.collect()
    assert gone() is None
    for _ in range(63):
        ends.note("b", False)
    assert (len(ends), ends.is_observed) == (0, False)


def test_an_observation_that_is_dropped_ends_with_the_next_one() -> None:
    ends = Ends(10)
    observe(ends)
    gc.collect()
    ends.note("a", False)
    with observe(ends):
        assert (len(ends), len(ends._open)) == (0, 1)


def test_observations_that_are_dropped_while_an_older_one_is_open_take_no_memory() -> None:
    ends = Ends(10)
    oldest = observe(ends)
    for _ in range(1_000):
        observe(ends)
    assert len(ends._open) < 50
    ends.note("a", False)
    assert ended(ends, oldest, "a") == [True]


def test_with_too_many_ends_the_oldest_expires_and_the_others_stay() -> None:
    ends = Ends(2)
    first = observe(ends)
    ends.note("a", False)
    second = observe(ends)
    ends.note("b", False)
    assert not first.expired
    ends.note("c", False)
    assert (first.expired, second.expired) == (True, False)
    assert ended(ends, second, "a", "b", "c") == [False, True, True]
    ends.note("d", False)
    assert second.expired
    assert (len(ends), ends.is_observed) == (0, False)
    assert [repr(look) for look in (first, second)] == ["<namedtasks.Observation expired>"] * 2


def test_the_same_name_again_and_again_expires_nothing() -> None:
    ends = Ends(2)
    look = observe(ends)
    for _ in range(10):
        for name in "ab":
            ends.note(name, False)
    assert not look.expired


def test_names_that_overlap_count_whichever_of_them_has_any() -> None:
    ends = Ends(10)
    look = observe(ends)
    ends.note(("vol-1", ANY), True)
    ends.note(("vol-2", "pod-a"), True)
    assert ended(ends, look, ("vol-1", "pod-a"), ("vol-2", ANY), (ANY, "pod-a")) == [True] * 3
    assert ended(ends, look, ("vol-2", "pod-b"), ("vol-3", ANY), ("vol-1",), "vol-1") == [False] * 4
    with observe(ends) as later:
        assert ended(ends, later, ("vol-1", "pod-a"), (ANY, "pod-a")) == [False] * 2


def test_a_tuple_that_has_ended_before_any_was_used_is_found_too() -> None:
    ends = Ends(10)
    look = observe(ends)
    ends.note(("vol-1", "pod-a"), False)
    assert ended(ends, look, (ANY, "pod-a"), (ANY, "pod-b")) == [True, False]
    ends.note(("vol-2", ANY), True)
    assert ended(ends, look, ("vol-1", ANY), ("vol-2", "pod-b")) == [True, True]


def test_since_must_be_an_open_observation_of_this_map() -> None:
    ends = Ends(10)
    look = observe(ends)
    check_observation(look, ends)
    with pytest.raises(ValueError, match=r"^since is an observation of another map: call observe"):
        check_observation(look, Ends(10))
    with pytest.raises(TypeError, match=r"^since must be an Observation, as observe\(\) returns"):
        check_observation(3, ends)
    look.close()
    look.close()
    with pytest.raises(ValueError, match=r"^since is closed: start inside its with block, or"):
        check_observation(look, ends)


def test_a_stale_start_is_refused_whatever_else_is_in_its_way() -> None:
    w = make_world()
    look = w.scheduler.observe(w.scheduler.close_observation)
    w.fail(w.start("a"))
    for since, expected in ((look._mark, Stale.ENDED), (None, w.conflict())):
        assert w.scheduler.find_conflict("a", None, w.clock, since) is expected
        assert w.scheduler.look_for_conflict("a", None, w.now, since) is expected
    w.now = 0.5
    w.start("a")
    assert w.scheduler.find_conflict("a", None, w.clock, look._mark) is Stale.ENDED
    w.scheduler.closed = True
    assert w.scheduler.find_conflict("a", None, w.clock, look._mark) is w.conflict()


@pytest.mark.parametrize("if_busy", ["refuse", "join", "replace", "queue"])
def test_a_stale_start_is_refused_by_each_choice_but_skip(if_busy: Any) -> None:
    w = make_world()
    error = w.scheduler.resolve(Stale.ENDED, "a", "mount", if_busy, w.clock)[1]
    assert isinstance(error, StaleLookError)
    assert (error.name, error.operation, error.expired) == ("a", "mount", False)
    assert str(error) == (
        "task 'a' (operation 'mount') may not start: a run ended since observe(): list again"
    )
    assert w.scheduler.resolve(Stale.UNKNOWN, "a", None, "skip", w.clock)[1] is not None
    unknown = w.scheduler.resolve(Stale.UNKNOWN, "a", None, if_busy, w.clock)[1]
    assert str(unknown) == "task 'a' may not start: the observation has expired: list again"


def test_a_run_that_never_began_has_not_ended() -> None:
    w = make_world(limit=1)
    look = w.scheduler.observe(w.scheduler.close_observation)
    w.start("a")
    waits = w.start("b")
    w.drop(waits)
    assert w.scheduler.find_conflict("b", None, w.clock, look._mark) is None


@pytest.mark.parametrize("how", ["succeed", "fail", "cancelled"])
def test_every_end_of_a_body_counts(how: str) -> None:
    w = make_world(backoff=None)
    look = w.scheduler.observe(w.scheduler.close_observation)
    getattr(w, how)(w.start("a"))
    assert w.scheduler.find_conflict("a", None, w.clock, look._mark) is Stale.ENDED
    assert w.scheduler.find_conflict("b", None, w.clock, look._mark) is None


def test_an_end_costs_nothing_once_nobody_observes() -> None:
    scheduler = make_scheduler()
    look = scheduler.observe(scheduler.close_observation)
    assert scheduler._notes_ends
    look.close()
    assert not scheduler._notes_ends


def test_an_end_costs_nothing_once_the_last_observation_was_dropped() -> None:
    w = make_world(listens=False)
    w.scheduler.observe(w.scheduler.close_observation)
    gc.collect()
    for _ in range(65):
        w.succeed(w.start("a"))
    assert not w.scheduler._notes_ends
    assert RunStatus.SUCCEEDED > RunStatus.BEGUN


class EndsMachine(RuleBasedStateMachine):
    """`Ends` agrees with a list of all ends."""

    NAMES = ("a", ("v", "p"), ("v", "q"), ("w", "p"), ("v", ANY), (ANY, "p"), ("v",))

    def __init__(self) -> None:
        super().__init__()
        self.ends = Ends(4)
        self.log: list[Any] = []
        self.looks: list[tuple[Observation, int]] = []

    @rule()
    def observe(self) -> None:
        self.looks.append((observe(self.ends), len(self.log)))

    @rule(choice=data(), how=sampled_from(["close", "drop"]))
    def end(self, choice: Any, how: str) -> None:
        if self.looks:
            look, _ = self.looks.pop(choice.draw(sampled_from(range(len(self.looks)))))
            if how == "close":
                look.close()

    @rule(name=sampled_from(NAMES))
    def note(self, name: Any) -> None:
        if self.ends.is_observed:
            self.ends.note(name, True)
        self.log.append(name)

    @invariant()
    def agrees(self) -> None:
        assert len(self.ends) <= 4
        for look, began in self.looks:
            since = self.log[began:]
            if look.expired:
                assert len(set(since)) > 4
                continue
            for name in self.NAMES:
                expected = any(names_overlap(name, other) for other in since)
                assert ended(self.ends, look, name) == [expected]


TestEndsMachine = EndsMachine.TestCase
TestEndsMachine.settings = settings(max_examples=100, stateful_step_count=30)
