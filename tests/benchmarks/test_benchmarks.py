"""The benchmarks run, and print what their readers and programs expect. No timed assertions."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.measure import summary

ROOT = pathlib.Path(__file__).parent.parent.parent


def run(*args: str) -> str:
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--quick", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_json_has_every_row_with_its_floor_and_spread() -> None:
    printed: dict[str, Any] = json.loads(run("--json"))
    assert printed["on"]["python"] == ".".join(map(str, sys.version_info[:3]))
    rows = printed["rows"]
    assert len(rows) == 28
    for row in rows:
        assert row["ours"] > 0
        assert row["theirs"] > 0
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
    assert {row["unit"] for row in rows} == {"us", "ns", "B"}


def test_the_table_can_be_narrowed() -> None:
    head, columns, *rows = run("--only", "skip").splitlines()
    assert head.startswith("python ")
    assert "ratio" in columns
    assert [row.split("  ")[0] for row in rows] == [
        "skip a name that runs",
        "skip a name that waits",
    ]


def test_a_row_is_made_of_the_rounds_own_ratios() -> None:
    """A machine that is slow for a round is slow for both sides of it."""
    row = summary("ours", "floor", "us", [(2.0, 1.0), (40.0, 20.0), (2.0, 1.0), (3.0, 1.0)])
    assert (row.ratio, row.low) == (2.0, 2.0)
    assert row.high == pytest.approx(2.75)
    assert row.rounds == 4
    assert summary("ours", "floor", "B", [(3.0, 2.0)]).ratio == 1.5
