"""The operations' own log: each operation writes down that it ran.

Each operation appends a line when it begins and one when it ends. So a reader of the log depends
neither on the controller nor on the task map:

    81234567890 start 7 db-1 attach
    81239999999 end 7 db-1 attach
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import attrs


@attrs.frozen
class Entry:
    """One line of the journal."""

    at: int
    """The time, in nanoseconds of the machine's monotonic clock."""
    mark: Literal["start", "end"]
    """The kind of line: a run begins or ends."""
    run: int
    """The run's number, unique in the file."""
    volume: str
    """The volume's name."""
    operation: str
    """The operation."""


@attrs.frozen
class Findings:
    """The findings of a journal."""

    runs: int
    """The number of runs that began."""
    highest: int
    """The highest number of runs at once."""
    overlaps: int
    """The number of pairs of runs of one volume that overlapped: must be 0."""


@attrs.define(eq=False)
class Journal:
    """Appends to a new journal file."""

    path: Path
    _clock: Callable[[], int] = attrs.field(default=time.monotonic_ns, kw_only=True, alias="clock")
    _numbers: Iterator[int] = attrs.field(factory=itertools.count, init=False)

    def __attrs_post_init__(self) -> None:
        self.path.write_bytes(b"")

    @contextmanager
    def run(self, volume: str, operation: str) -> Generator[None]:
        """Write down that *operation* runs as long as the block."""
        number = next(self._numbers)
        self._append("start", number, volume, operation)
        try:
            yield
        finally:
            self._append("end", number, volume, operation)

    def _append(self, mark: str, number: int, volume: str, operation: str) -> None:
        # One write with O_APPEND: lines of several threads do not mix.
        line = f"{self._clock()} {mark} {number} {volume} {operation}\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


def read(path: Path) -> list[Entry]:
    """Read a journal back.

    Raises:
        ValueError: a line is not one of a journal.
    """
    return [_entry(line) for line in path.read_text(encoding="utf-8").splitlines()]


def findings(entries: Iterable[Entry]) -> Findings:
    """Count the runs, and the pairs of them that overlapped.

    A run without an end lasts forever. Within the same nanosecond, the order of the lines counts.
    """
    open_runs: dict[int, str] = {}
    runs = highest = overlaps = 0
    for entry in sorted(entries, key=lambda entry: entry.at):
        if entry.mark == "end":
            open_runs.pop(entry.run, None)
            continue
        overlaps += list(open_runs.values()).count(entry.volume)
        open_runs[entry.run] = entry.volume
        runs += 1
        highest = max(highest, len(open_runs))
    return Findings(runs, highest, overlaps)


def _entry(line: str) -> Entry:
    match line.split():
        case [at, "start" | "end" as mark, run, volume, operation] if (at + run).isdecimal():
            return Entry(int(at), mark, int(run), volume, operation)
        case _:
            raise ValueError(f"no line of a journal: {line!r}")
