"""``make fuzz`` keeps what it finds."""

import pathlib

import pytest

from tests.fuzz import VARIABLE, examples
from tests.fuzz.__main__ import MACHINES, ROOT, fuzz

BROKEN = """
from hypothesis import given, settings, strategies as st

@settings(database=None)
@given(st.integers())
def test_numbers_are_small(number):
    assert number < 100
"""


def test_each_state_machine_takes_part() -> None:
    folders = [str(machine.parent.relative_to(ROOT)) for machine in MACHINES]
    assert sorted(folders) == [
        *["tests"] * 3,
        *["tests/aio"] * 2,
        *["tests/threads"] * 2,
        *["tests/trio"] * 2,
    ]
    for machine in MACHINES:
        assert "max_examples=examples(" in machine.read_text(encoding="utf-8")


def test_each_runs_more_examples_than_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert examples(200) == 200
    monkeypatch.setenv(VARIABLE, "4")
    assert examples(200) == 800


def test_what_was_found_is_kept_with_its_seed(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = tmp_path / "test_broken_machine.py"
    machine.write_text(BROKEN, encoding="utf-8")
    report = fuzz([machine], 60, seed=7, found=tmp_path / "found")
    assert report is not None
    assert report == tmp_path / "found" / f"{tmp_path.name}-test_broken_machine-7.txt"
    assert "number=100" in report.read_text(encoding="utf-8")
    assert f"kept in {report}" in capsys.readouterr().out


def test_it_ends_when_the_time_is_over(tmp_path: pathlib.Path) -> None:
    assert fuzz(MACHINES, 0, seed=7, found=tmp_path) is None
