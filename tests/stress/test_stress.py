"""A short stress run of each shell; ``make stress`` is the long one."""

import importlib
import random

import pytest

from tests.stress.__main__ import SHELLS
from tests.stress.tally import Tally


@pytest.mark.parametrize("shell", SHELLS)
def test_under_stress_no_two_runs_of_a_name_overlap_and_nobody_is_left_waiting(shell: str) -> None:
    tally = Tally(shell, random.randrange(1_000_000))
    run = importlib.import_module(f"tests.stress.on_{shell}").run
    run(tally, lambda: tally.counts["operations run"] >= 3000)
    report = tally.report()
    assert tally.faults == [], report
    assert tally.counts["operations run"] >= 3000, report
    assert tally.counts["overlapping runs of a name"] == 0, report


def test_the_log_of_the_operations_sees_an_overlap() -> None:
    """Else the figure of zero would say nothing."""
    tally = Tally("none", 0)
    with tally.operation("a"), tally.operation("b"):
        assert tally.faults == []
    with tally.operation("a"), tally.operation("a"):
        pass
    assert tally.faults == ["two runs of 'a' at once"]
    assert "overlapping runs of a name" in tally.report()
