"""What people read: a line per event while it runs, and a summary of it all."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

import attrs
import trio

from namedtasks import BackoffError
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskFailed,
    TaskOverdue,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
)
from volume_controller.journal import Findings


@attrs.frozen
class Outcome:
    """How a session ended."""

    reached: bool
    """Whether every phase was reached."""
    stopped_by: int | None
    """The signal that stopped it, if any."""
    found: Collection[str]
    """What was still attached or mounted at the end, before the clean-up."""
    left: Collection[str]
    """What the clean-up could not undo."""
    journal: Findings
    """What the operations' own log proves."""

    @property
    def exit_code(self) -> int:
        """0 only if all was reached, nothing was left behind, and no runs overlapped."""
        if self.stopped_by is not None:
            return 128 + self.stopped_by  # as shells do
        return 0 if self.reached and not self.found and not self.journal.overlaps else 1


@attrs.define(eq=False)
class Report(Instrument):
    """Prints what happens in the task map, and counts it."""

    started_at: float = attrs.field(factory=trio.current_time, init=False)
    """The report's zero, on the map's clock."""
    runs: int = attrs.field(default=0, init=False)
    """Operations that began."""
    failures: int = attrs.field(default=0, init=False)
    """Operations that failed."""
    skipped_running: int = attrs.field(default=0, init=False)
    """Starts that were skipped because an operation of the volume ran."""
    skipped_waiting: int = attrs.field(default=0, init=False)
    """Starts that were skipped because the volume waited after a failure."""
    _told: set[tuple[object, ...]] = attrs.field(factory=set[tuple[object, ...]], init=False)
    """The waits that were told already."""

    def say(self, text: str) -> None:
        """Print a line of text, with the seconds elapsed."""
        self._print(trio.current_time(), text)

    def task_started(self, event: TaskStarted, /) -> None:  # noqa: ARG002
        """Count it: its end gets a line."""
        self.runs += 1

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """Print that an operation is done."""
        done = f"{event.operation} done in {event.duration:.2f} s"
        self._print(event.at, f"{event.name}: {done}")

    def task_failed(self, event: TaskFailed, /) -> None:
        """Print that an operation failed, and how long its volume waits."""
        self.failures += 1
        waits = "" if event.retry_in is None else f", waits {event.retry_in:.1f} s"
        failed = f"{event.operation} FAILED (failures in a row: {event.failures}){waits}"
        why = str(event.error) or type(event.error).__name__  # some errors say nothing
        self._print(event.at, f"{event.name}: {failed}: {why:.300}")

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """Print that an operation was cancelled."""
        self._print(event.at, f"{event.name}: {event.operation} cancelled")

    def task_overdue(self, event: TaskOverdue, /) -> None:
        """Print that an operation cannot be stopped."""
        self._print(event.at, f"{event.name}: {event.operation} does not stop")

    def task_refused(self, event: TaskRefused, /) -> None:
        """Count what was skipped; print the first skip of each wait."""
        error = event.error
        if not isinstance(error, BackoffError):
            self.skipped_running += event.skipped
            return
        self.skipped_waiting += event.skipped
        wait = (error.name, error.operation, error.retry_at)
        if wait not in self._told:
            self._told.add(wait)
            waits = f"{error.operation} skipped, waits another {error.retry_in:.1f} s"
            self._print(event.at, f"{event.name}: {waits}")

    def summarize(self, outcome: Outcome) -> None:
        """Print what it all came to."""
        figures = {
            "operations run": self.runs,
            "failed": self.failures,
            "skipped because running": self.skipped_running,
            "skipped because waiting": self.skipped_waiting,
            "highest number running at once": outcome.journal.highest,
            "overlapping runs of one volume in the operations' own log": outcome.journal.overlaps,
            "left behind": len(outcome.left),
        }
        _print("summary:")
        for what, figure in figures.items():
            _print(f"  {what}: {figure}")
        for leftover in outcome.left:
            _print(f"    {leftover}")
        reached = "everything" if outcome.reached else "NOT everything"
        _print(f"result: {reached} was reached (exit code {outcome.exit_code})")

    def _print(self, at: float, text: str) -> None:
        _print(f"{at - self.started_at:7.2f}  {text}")


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Nobody reads any more (``| head``): finish the work all the same.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
