"""A short stress run of each shell; ``make stress`` is the long one."""

import random

import pytest

from namedtasks import ANY
from tests.stress.__main__ import SHELLS, run_of
from tests.stress.tally import Tally


@pytest.mark.parametrize("shell", SHELLS)
def test_under_stress_no_two_runs_of_a_name_overlap_and_nobody_is_left_waiting(shell: str) -> None:
    tally = Tally(shell, random.randrange(1_000_000))
    run_of(shell)(tally, lambda: tally.counts["operations run"] >= 3000)
    report = tally.report()
    assert tally.faults == [], report
    assert tally.counts["operations run"] >= 3000, report
    assert tally.counts["overlaps"] == 0, report


@pytest.mark.parametrize("shell", SHELLS)
def test_scrapes_from_other_threads_do_no_harm_and_have_the_right_numbers_in_the_end(
    shell: str,
) -> None:
    tally = Tally(shell, random.randrange(1_000_000), is_scraped=True)
    run_of(shell)(tally, lambda: tally.counts["operations run"] >= 1000)
    report = tally.report()
    assert tally.faults == [], report
    assert tally.counts["scrapes"] > 0, report


@pytest.mark.parametrize("shell", SHELLS)
def test_each_body_has_the_span_of_its_own_run_which_ends_once(shell: str) -> None:
    tally = Tally(shell, random.randrange(1_000_000), is_traced=True)
    run_of(shell)(tally, lambda: tally.counts["operations run"] >= 1000)
    report = tally.report()
    assert tally.faults == [], report
    assert tally.counts["spans ended"] >= 1000, report


def test_the_log_of_the_operations_sees_an_overlap() -> None:
    """Else the figure of zero would say nothing."""
    tally = Tally("none", 0)
    with tally.operation("a"), tally.operation("b"), tally.operation(("v", 1)):
        pass
    with tally.operation("a"), tally.operation(("v", 2)), tally.operation(("w", ANY)):
        pass
    report = tally.report()
    assert tally.faults == []
    assert tally.most_at_once == 3
    with tally.operation("a"), tally.operation("a"):
        pass
    with tally.operation(("v", 1)), tally.operation(("v", ANY)), tally.operation((ANY, 2)):
        pass
    report = tally.report()
    assert tally.faults == [
        "'a' and 'a' at once",
        "('v', 1) and ('v', namedtasks.ANY) at once",
        "('v', namedtasks.ANY) and (namedtasks.ANY, 2) at once",
    ]
    assert "overlaps" in report


def test_a_long_log_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there at the end of one part still is at the beginning of the next."""
    monkeypatch.setattr("tests.stress.tally.LOG_LENGTH", 1)
    tally = Tally("none", 0)
    with tally.operation("a"), tally.operation("b"), tally.operation("a"):
        pass
    tally.report()
    assert tally.faults == ["'a' and 'a' at once"]
