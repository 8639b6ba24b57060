"""The benchmarks run, and print a table and JSON. No timed assertions."""

import fnmatch
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import instructions
from benchmarks.__main__ import matches, measured, verdict
from benchmarks.case import Case, Side
from benchmarks.cases import CASES
from benchmarks.instructions import COUNTED, INSTRUCTIONS, SIZE
from benchmarks.measure import Comparison, Pairs, Target, summary
from benchmarks.report import as_json, from_json, line
from benchmarks.settings import Settings

ROOT = pathlib.Path(__file__).parent.parent.parent


def run(*args: str, returncode: int = 0, path: str | None = None) -> str:
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--quick", *args]
    env = os.environ if path is None else {**os.environ, "PATH": path}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
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
    assert [row["name"] for row in rows] == [case.name for case in CASES if case.obstacle is None]
    for row in rows:
        assert row["ours"] > 0
        assert row["theirs"] > 0
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert row["met"] in (True, False) if row["target"] else row["met"] is None
        assert as_json(from_json(row)) == row


def test_each_row_has_a_name_of_its_own() -> None:
    """`--only` finds it, and results are kept by name."""
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


def test_the_start_of_a_process_is_not_among_the_instructions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the rounds differ between its two processes."""

    def count(name: str, side: Side, rounds: int, workers: bool) -> int:
        del name, workers
        return 1_000_000_000 + rounds * SIZE * (3000 if side == "ours" else 2000)

    monkeypatch.setattr(instructions, "count", count)
    for case in INSTRUCTIONS:
        made = case.row(Settings())
        assert (made.ours, made.theirs, made.ratio) == (3.0, 2.0, 1.5)
        assert made.target == case.target


def test_without_valgrind_instructions_are_skipped(tmp_path: pathlib.Path) -> None:
    """The line has the reason and the cure."""
    printed = run("--instructions", "--only", "name in tasks", path=str(tmp_path))
    assert printed.endswith(
        "instructions: name in tasks: skipped, valgrind is not installed: "
        "for example apt-get install valgrind\n"
    )


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_valgrind_itself_gives_a_figure() -> None:
    printed = run("--instructions", "--only", "name in tasks")
    assert "instructions: name in tasks" in printed
    assert "skipped" not in printed


def test_each_pattern_of_counted_rows_matches_some() -> None:
    """A row that gets another name is not dropped unseen."""
    names = [case.name.removeprefix("instructions: ") for case in INSTRUCTIONS]
    for pattern in COUNTED:
        assert fnmatch.filter(names, pattern), pattern


def case(name: str, section: str = "", needs: str | None = None) -> Case:
    def measure(settings: Settings) -> Pairs:
        del settings
        return [(1.0, 2.0)]

    return Case(
        name=name, floor="", measure=measure, target=None, unit="us", section=section, needs=needs
    )


def test_a_pattern_is_looked_for_in_the_section_too() -> None:
    skip = case("Skip", "Refusals")
    assert matches(skip, "")
    assert matches(skip, "skip")
    assert matches(skip, "refusals: s?ip")
    assert not matches(skip, "join")


def test_a_peer_that_is_not_installed_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    """They are optional."""
    cases = [case("theirs", needs="no_such_module"), case("ours")]
    rows = list(measured(cases, Settings(quick=True)))
    assert [row.name for row in rows] == ["ours"]
    assert "theirs: skipped, no_such_module is not installed" in capsys.readouterr().out


def test_only_on_request_a_missed_target_is_an_error() -> None:
    """A benchmark on a busy machine must not break a build."""
    missed, met = row([(2.0, 1.0)], Target(1.9)), row([(2.0, 1.0)], Target(2.0))
    assert verdict([met, row([(2.0, 1.0)])]) is None
    assert verdict([met, missed]) == "1 of 2 rows miss their target: ours"


def test_a_row_shows_if_its_target_is_met() -> None:
    missed, met = row([(2.0, 1.0)], Target(1.9)), row([(2.0, 1.0)], Target(2.0))
    assert (missed.is_met, met.is_met, row([(2.0, 1.0)]).is_met) == (False, True, None)
    assert line(missed).endswith("1.9 x     MISSED")
    assert line(met).endswith("2 x       met")


def test_the_ratio_of_a_row_is_the_median_of_the_rounds_ratios() -> None:
    """A machine that is slow for a round is slow for both sides of it."""
    made = row([(2.0, 1.0), (40.0, 20.0), (2.0, 1.0), (3.0, 1.0)])
    assert (made.ratio, made.low) == (2.0, 2.0)
    assert made.high == pytest.approx(2.25)
    assert made.rounds == 4
    assert row([(3.0, 2.0)], unit="B").ratio == 1.5


def test_a_target_may_limit_our_figure_alone() -> None:
    assert row([(129.0, 165.0)], Target(130, "ours"), "B").is_met
    assert not row([(131.0, 165.0)], Target(130, "ours"), "B").is_met
    assert row([(65.0, 165.0)], Target(130, "ours"), "B").used == 0.5
    assert line(row([(129.0, 165.0)], Target(130, "ours"), "B")).endswith("130 B     met")
