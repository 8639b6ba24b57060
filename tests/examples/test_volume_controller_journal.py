"""The operations' own log, and what is counted from it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from volume_controller.journal import Entry, Findings, Journal, findings, read


def counted(tmp_path: Path, *lines: str) -> Findings:
    """What the journal of *lines* proves."""
    file = tmp_path / "journal"
    file.write_text("".join(f"{line}\n" for line in lines))
    return findings(read(file))


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    """A line at the start, a line at the end, also if the operation fails."""
    journal = Journal(tmp_path / "journal", clock=itertools.count(100).__next__)
    with pytest.raises(OSError, match=r"^no$"), journal.run("a", "mount"):
        with journal.run("b", "check"):
            pass
        raise OSError("no")
    assert [
        Entry(100, "start", 0, "a", "mount"),
        Entry(101, "start", 1, "b", "check"),
        Entry(102, "end", 1, "b", "check"),
        Entry(103, "end", 0, "a", "mount"),
    ] == read(journal.path)


def test_a_journal_begins_empty(tmp_path: Path) -> None:
    """What an earlier session has left in the work folder does not count."""
    old = Journal(tmp_path / "journal")
    with old.run("a", "mount"):
        pass
    assert read(Journal(tmp_path / "journal").path) == []


def test_runs_of_one_volume_that_overlap_are_counted(tmp_path: Path) -> None:
    """Each pair counts: here a run overlaps with two others."""
    found = counted(
        tmp_path,
        "10 start 0 a mount",
        "20 start 1 a repair",
        "30 end 1 a repair",
        "40 start 2 a check",
        "50 end 0 a mount",
        "60 end 2 a check",
    )
    assert Findings(runs=3, highest=2, overlaps=2) == found


def test_the_same_operation_twice_overlaps_too(tmp_path: Path) -> None:
    """Runs are told apart by their numbers, not by what they do."""
    found = counted(
        tmp_path, "1 start 0 a mount", "2 start 1 a mount", "3 end 1 a mount", "4 end 0 a mount"
    )
    assert Findings(runs=2, highest=2, overlaps=1) == found


def test_runs_of_several_volumes_do_not_overlap(tmp_path: Path) -> None:
    """They count for the highest number at once."""
    found = counted(
        tmp_path, "1 start 0 a mount", "2 start 1 b mount", "3 end 0 a mount", "4 end 1 b mount"
    )
    assert Findings(runs=2, highest=2, overlaps=0) == found


def test_one_run_after_the_other_does_not_overlap(tmp_path: Path) -> None:
    """Not even within the same nanosecond."""
    found = counted(
        tmp_path, "1 start 0 a attach", "2 end 0 a attach", "2 start 1 a mount", "2 end 1 a mount"
    )
    assert Findings(runs=2, highest=1, overlaps=0) == found


def test_a_run_without_an_end_overlaps_with_all_that_comes(tmp_path: Path) -> None:
    """Who cannot prove that it ended has not ended."""
    found = counted(tmp_path, "1 start 0 a mount", "5 start 1 a mount", "6 end 1 a mount")
    assert Findings(runs=2, highest=2, overlaps=1) == found


def test_the_clock_decides_not_the_order_of_the_lines(tmp_path: Path) -> None:
    """Lines may come from several threads or processes."""
    found = counted(
        tmp_path, "1 start 0 a mount", "3 start 1 a check", "2 end 0 a mount", "4 end 1 a check"
    )
    assert Findings(runs=2, highest=1, overlaps=0) == found


@pytest.mark.parametrize("line", ["", "1 start 0 a", "1 begin 0 a mount", "x start 0 a mount"])
def test_a_line_that_is_none_is_no_journal(tmp_path: Path, line: str) -> None:
    """Nothing is passed over in silence."""
    with pytest.raises(ValueError, match=f"^{re.escape(f'no line of a journal: {line!r}')}$"):
        counted(tmp_path, line)
