"""Outcomes, counts of failures in a row, and the ages of the oldest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, integers, lists, tuples

from namedtasks import Backoff, Outcome
from namedtasks._history import FailureCounts, Outcomes
from namedtasks._state import Run, RunStatus
from tests.plain_backend import World, make_scheduler, make_world


def counts(w: World) -> tuple[int, int]:
    statistics = w.scheduler.statistics(w.now)
    return statistics.max_failures, statistics.failing


def outcomes(w: World) -> list[Outcome]:
    assert w.scheduler.outcomes is not None
    return w.scheduler.outcomes.snapshot()


@given(lists(tuples(booleans(), integers(1, 8)), max_size=60))
def test_the_counts_are_those_of_a_plain_list(steps: list[tuple[bool, int]]) -> None:
    made, plain = FailureCounts(3), list[int]()
    for adds, failures in steps:
        if adds:
            made.add(failures)
            plain.append(failures)
        elif failures in plain:
            made.discard(failures)
            plain.remove(failures)
        assert made.highest == max(plain, default=0)
        assert made.failing == sum(one >= 3 for one in plain)


def test_a_name_counts_with_its_failures_also_while_it_runs() -> None:
    w = make_world(backoff=Backoff(initial=0), failure_threshold=2)
    for _ in range(3):
        w.fail(w.start("a"))
    w.fail(w.start("b"))
    assert counts(w) == (3, 1)
    run = w.start("a")
    assert counts(w) == (3, 1)
    w.cancelled(run)
    assert counts(w) == (3, 1)
    w.succeed(w.start("a"))
    assert counts(w) == (1, 0)


def test_forgotten_and_expired_failures_do_not_count() -> None:
    w = make_world(backoff=Backoff(initial=0), failure_threshold=1, retention=10)
    for name in "abc":
        w.fail(w.start(name))
    w.forget("a")
    w.start("b")
    w.forget("b")
    assert counts(w) == (1, 1)
    w.now = 11.0
    w.start("c")  # takes the expired record away
    assert counts(w) == (0, 0)
    w.fail(w.start("d"))
    w.now = 30.0
    w.succeed(w.start("e"))  # sweeps
    assert counts(w) == (0, 0)


def test_each_name_and_operation_counts_for_itself() -> None:
    w = make_world(backoff=Backoff(initial=0), failure_threshold=1)
    w.fail(w.start("a", "mount"))
    w.fail(w.start("a", "unmount"))
    assert counts(w) == (1, 2)
    w.forget("a")
    assert counts(w) == (0, 0)


def test_the_oldest_run_is_found_whatever_ended_before() -> None:
    w = make_world(limit=10)
    runs = list[Run]()
    for number in range(10):
        w.now = float(number)
        runs.append(w.start(number))
    w.now = 20.0
    ages = list[float]()
    for run in (runs[1], runs[0], *runs[2:]):
        ages.append(w.scheduler.statistics(w.now).oldest_run_age)
        w.succeed(run)
    assert ages == [20.0, 20.0, *(20.0 - number for number in range(2, 10))]
    assert w.scheduler.statistics(w.now).oldest_run_age == 0.0
    w.now = 30.0
    w.start("again")
    w.now = 31.0
    assert w.scheduler.statistics(w.now).oldest_run_age == 1.0


def test_a_name_that_runs_again_is_as_old_as_its_new_run() -> None:
    w = make_world()
    first = w.start("a")
    w.now = 1.0
    w.start("b")
    assert w.scheduler.statistics(2.0).oldest_run_age == 2.0
    w.succeed(first)
    w.now = 3.0
    w.start("a")
    assert w.scheduler.statistics(5.0).oldest_run_age == 4.0


def test_each_run_is_listed_once_however_often_the_oldest_is_asked_for() -> None:
    """So the cost of `statistics` does not grow with the number of runs, on average."""
    w = make_world(listens=False)
    runs = [w.start(number) for number in range(100)]
    listed = 0
    for run in runs:
        before = w.scheduler._begun[0]
        w.scheduler.statistics(w.now)
        listed += len(w.scheduler._begun[0]) if w.scheduler._begun[0] is not before else 0
        w.succeed(run)
        w.start(("new", run.name))
    assert listed <= 200


def test_who_has_waited_longest_for_a_slot() -> None:
    w = make_world(limit=1)
    w.start("a")
    w.now = 1.0
    waits = w.start("b")
    w.now = 2.0
    w.start("c")
    assert w.scheduler.statistics(5.0).longest_slot_wait == 4.0
    w.drop(waits)
    assert w.scheduler.statistics(5.0).longest_slot_wait == 3.0


def test_a_replacement_has_waited_as_long_as_the_run_whose_place_it_has() -> None:
    w = make_world(limit=1)
    w.start("a")
    w.now = 1.0
    waits = w.start("b")
    w.now = 2.0
    w.defer("b", "replace")
    w.drop(waits)
    assert w.scheduler.statistics(5.0).longest_slot_wait == 4.0


def test_the_last_outcome_of_each_of_the_last_names() -> None:
    w = make_world(backoff=Backoff(initial=0), keep_outcomes=2)
    w.succeed(w.start("a"))
    error = OSError("device busy")
    run = w.start("b", "mount")
    w.now = 3.0
    w.fail(run, error)
    first, second = outcomes(w)
    assert (first.name, first.status, first.error) == ("a", "succeeded", None)
    assert (second.operation, second.status) == ("mount", "failed")
    assert (second.ended_at, second.duration) == (3.0, 3.0)
    assert repr(second.error) == repr(error)
    assert second.error is not error, "it keeps no traceback"
    w.cancelled(w.start("a"))
    w.succeed(w.start("c"))
    assert [(one.name, one.status) for one in outcomes(w)] == [
        ("a", "cancelled"),
        ("c", "succeeded"),
    ]


def test_an_exempt_error_is_an_outcome_too() -> None:
    w = make_world(backoff=None, keep_outcomes=1)
    w.fail(w.start("a"), OSError("not yet"))
    (outcome,) = outcomes(w)
    assert (outcome.status, repr(outcome.error)) == ("failed", "OSError('not yet')")


def test_a_run_that_never_began_has_no_outcome() -> None:
    w = make_world(limit=1, keep_outcomes=5)
    w.start("a")
    w.drop(w.start("b"))
    assert outcomes(w) == []


def test_outcomes_are_off_by_default() -> None:
    assert make_scheduler().outcomes is None


def test_outcomes_that_change_while_another_thread_reads_are_read_again() -> None:
    made = Outcomes(3)
    plain: dict[str, Any] = {"operation": None, "ended_at": 1.0, "duration": 1.0, "error": None}
    made.add(Outcome(name="a", status="succeeded", **plain))

    class Flaky(dict[Any, Any]):
        tries = 0

        def values(self) -> Any:
            self.tries += 1
            if self.tries == 1:
                raise RuntimeError("OrderedDict mutated during iteration")
            return super().values()

    vars(made)["_outcomes"] = Flaky(made._outcomes)
    assert [one.name for one in made.snapshot()] == ["a"]


@pytest.mark.parametrize(
    ("setting", "value", "kind", "text"),
    [
        ("failure_threshold", 0, ValueError, "failure_threshold must be at least 1, not 0"),
        (
            "failure_threshold",
            None,
            TypeError,
            "failure_threshold must be a whole number, not None",
        ),
        ("keep_outcomes", -1, ValueError, "keep_outcomes must be at least 0, not -1"),
        ("keep_outcomes", True, TypeError, "keep_outcomes must be a whole number, not True"),
        ("keep_ends", 0, ValueError, "keep_ends must be at least 1, not 0"),
        ("keep_ends", 1.5, TypeError, "keep_ends must be a whole number, not 1.5"),
    ],
)
def test_the_settings_are_checked(setting: str, value: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=f"^{text}$"):
        make_scheduler(**{setting: value})


def test_the_status_of_an_outcome_is_that_of_the_run() -> None:
    assert {one.name.lower() for one in RunStatus if one >= RunStatus.SUCCEEDED} == {
        "succeeded",
        "failed",
        "cancelled",
    }
