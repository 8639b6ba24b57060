"""The benchmarks run, and print what their readers and programs expect. No timed assertions."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.__main__ import matches, measured, verdict
from benchmarks.case import Case
from benchmarks.cases import CASES
from benchmarks.measure import Comparison, Pairs, Target, summary
from benchmarks.report import as_json, from_json, line
from benchmarks.settings import Settings

ROOT = pathlib.Path(__file__).parent.parent.parent


def run(*args: str, returncode: int = 0) -> str:
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--quick", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == returncode, done.stderr
    return done.stdout + done.stderr


def row(pairs: Pairs, target: Target | None = None, unit: str = "us") -> Comparison:
    return summary("ours", "floor", "Runs", unit, target, pairs)


def test_each_row_can_be_measured(tmp_path: pathlib.Path) -> None:
    """And the JSON has it, with its floor, its spread and its target."""
    file = tmp_path / "rows.json"
    run("--rounds", "2", "--json", str(file))
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert told["on"]["python"] == ".".join(map(str, sys.version_info[:3]))
    rows = told["rows"]
    assert [row["name"] for row in rows] == [case.name for case in CASES if case.is_possible]
    for row in rows:
        assert row["ours"] > 0
        assert row["theirs"] > 0
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert row["met"] in (True, False) if row["target"] else row["met"] is None
        assert as_json(from_json(row)) == row


def test_each_row_has_a_name_of_its_own() -> None:
    """`--only` finds it, and a program may keep the rows by their names."""
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_the_table_can_be_narrowed() -> None:
    printed = run("--only", "skip a * name")
    assert "ratio" in printed
    assert "skip a running name " in printed
    assert "skip a waiting name " in printed
    assert "refuse" not in printed.replace("Refusals", "")


def test_a_pattern_that_matches_nothing_is_a_mistake() -> None:
    assert "no row matches 'nonsense'" in run("--only", "nonsense", returncode=1)


def case(name: str, section: str = "", needs: str | None = None) -> Case:
    def measure(settings: Settings) -> Pairs:
        del settings
        return [(1.0, 2.0)]

    return Case(
        name=name,
        floor="",
        measure=measure,
        target=None,
        unit="us",
        section=section,
        needs=needs,
    )


def test_a_pattern_is_looked_for_in_the_section_too() -> None:
    skip = case("Skip", "Refusals")
    assert matches(skip, "")
    assert matches(skip, "skip")
    assert matches(skip, "refusals: s?ip")
    assert not matches(skip, "join")


def test_a_peer_that_is_not_installed_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody needs all of them."""
    cases = [case("theirs", needs="no_such_module"), case("ours")]
    rows = list(measured(cases, Settings(quick=True)))
    assert [row.name for row in rows] == ["ours"]
    assert "theirs: skipped, no_such_module is not installed\n" in capsys.readouterr().out


def test_only_on_request_a_missed_target_is_an_error() -> None:
    """A benchmark on a busy machine must not break what else is built."""
    missed, met = row([(2.0, 1.0)], Target(1.9)), row([(2.0, 1.0)], Target(2.0))
    assert verdict([met, row([(2.0, 1.0)])]) is None
    assert verdict([met, missed]) == "1 of 2 rows miss their target: ours"


def test_a_row_tells_whether_its_target_is_met() -> None:
    missed, met = row([(2.0, 1.0)], Target(1.9)), row([(2.0, 1.0)], Target(2.0))
    assert (missed.is_met, met.is_met, row([(2.0, 1.0)]).is_met) == (False, True, None)
    assert line(missed).endswith("1.9 x     MISSED")
    assert line(met).endswith("2 x       met")


def test_a_row_is_made_of_the_rounds_own_ratios() -> None:
    """A machine that is slow for a round is slow for both sides of it."""
    made = row([(2.0, 1.0), (40.0, 20.0), (2.0, 1.0), (3.0, 1.0)])
    assert (made.ratio, made.low) == (2.0, 2.0)
    assert made.high == pytest.approx(2.25)
    assert made.rounds == 4
    assert row([(3.0, 2.0)], unit="B").ratio == 1.5


def test_a_target_may_limit_what_is_ours_or_the_difference() -> None:
    assert row([(129.0, 165.0)], Target(130, "ours"), "B").is_met
    assert not row([(131.0, 165.0)], Target(130, "ours"), "B").is_met
    assert row([(0.094, 0.080)], Target(15, "difference"), "ms").is_met
    assert not row([(0.096, 0.080)], Target(15, "difference"), "ms").is_met
    assert row([(0.09, 0.08)], Target(15, "difference"), "ms").used == pytest.approx(10 / 15)
