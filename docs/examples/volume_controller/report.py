"""Makes lines for a display: one for each event, and a summary at the end.

The display formats the lines: lines.py as text or JSON, table.py for a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import attrs
import trio

from namedtasks import BackoffError
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskOverdue,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
)
from volume_controller.backend import VolumeState
from volume_controller.faults import Fault
from volume_controller.journal import Findings
from volume_controller.steps import parts


@attrs.frozen
class Line:
    """One event."""

    at: float
    """The time, in seconds since the session began."""
    event: str
    """The kind of event, from a small set of words."""
    text: str
    """The text for people; empty if the event gets no line."""
    facts: Mapping[str, object]
    """The facts for programs, all of types that JSON has."""


@attrs.frozen
class Summary:
    """The summary of a session."""

    figures: Mapping[str, int]
    """The counts, by their texts for people."""
    faults: Collection[Fault]
    """The intended faults."""
    left: Collection[str]
    """The leftovers that the clean-up could not remove."""
    reached: bool
    """True if every phase was reached."""
    exit_code: int
    """The exit code."""


class Display(Protocol):
    """Shows lines, and the summary."""

    def show(self, line: Line) -> None:
        """Show *line*."""
        ...

    async def watch(self, observe: Callable[[], Mapping[str, VolumeState]]) -> None:
        """Show the result of *observe* repeatedly, until cancelled, if the display has a table."""
        ...

    def end(self, summary: Summary) -> None:
        """Show the summary."""
        ...


@attrs.frozen(kw_only=True)
class Outcome:
    """The outcome of a session."""

    reached: bool = False
    """True if every phase was reached."""
    stopped_by: int | None = None
    """The signal that stopped it, if any."""
    found: Collection[str] = ()
    """Everything that was attached, mounted or running at the end, before the clean-up."""
    left: Collection[str] = ()
    """The leftovers that the clean-up could not remove."""
    journal: Findings = Findings(0, 0, 0)  # noqa: RUF009 - it is frozen
    """The findings of the operations' own log."""
    faults: Collection[Fault] = ()
    """The intended faults."""

    @property
    def exit_code(self) -> int:
        """0 only if all was reached and survived, nothing was left, and no runs overlapped."""
        if self.stopped_by is not None:
            return 128 + self.stopped_by  # as shells do
        survived = all(fault.survived for fault in self.faults)
        clean = not self.found and not self.left and not self.journal.overlaps
        return 0 if self.reached and survived and clean else 1


@attrs.define(eq=False)
class Report(Instrument):
    """Makes lines of the events of the task map, and counts them."""

    display: Display
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
    """The waits that were shown already."""

    def tell(self, event: str, text: str, **facts: object) -> None:
        """Show an event that does not come from the task map."""
        self._show(trio.current_time(), event, text, facts)

    def task_started(self, event: TaskStarted, /) -> None:
        """Count it; only its end gets a line for people."""
        self.runs += 1
        self._show_task(event, "started", "")

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """Show that an operation is done."""
        text = f"done in {event.duration:.2f} s"
        self._show_task(event, "succeeded", text, duration=event.duration)

    def task_failed(self, event: TaskFailed, /) -> None:
        """Show that an operation failed, and how long its volume waits."""
        self.failures += 1
        waits = "" if event.retry_in is None else f", waits {event.retry_in:.1f} s"
        why = str(event.error) or type(event.error).__name__  # some errors have no text
        self._show_task(
            event,
            "failed",
            f"FAILED (failures in a row: {event.failures}){waits}: {why:.300}",
            duration=event.duration,
            failures=event.failures,
            retry_in=event.retry_in,
            error=why,
        )

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """Show that an operation was cancelled, with the reason if there is one."""
        why = f": {event.reason}" if event.reason else ""
        self._show_task(event, "cancelled", f"cancelled{why}")

    def task_overdue(self, event: TaskOverdue, /) -> None:
        """Show that an operation does not stop."""
        self._show_task(event, "overdue", "does not stop")

    def task_refused(self, event: TaskRefused, /) -> None:
        """Count the skipped starts; show the first skip of each wait."""
        error = event.error
        if not isinstance(error, BackoffError):
            self.skipped_running += event.skipped
            return
        self.skipped_waiting += event.skipped
        wait = (error.name, error.operation, error.retry_at)
        if wait not in self._told:
            self._told.add(wait)
            text = f"skipped, waits another {error.retry_in:.1f} s"
            self._show_task(event, "waiting", text, retry_in=error.retry_in)

    def summarize(self, outcome: Outcome) -> None:
        """Show the summary."""
        figures = {
            "operations run": self.runs,
            "failed": self.failures,
            "skipped because running": self.skipped_running,
            "skipped because waiting": self.skipped_waiting,
            "highest number running at once": outcome.journal.highest,
            "overlapping runs of one volume in the operations' own log": outcome.journal.overlaps,
            "left behind": len(outcome.left),
        }
        self.display.end(
            Summary(figures, outcome.faults, outcome.left, outcome.reached, outcome.exit_code)
        )

    def _show_task(self, event: TaskEvent, what: str, text: str, **facts: object) -> None:
        volume, _ = parts(event.name)
        about = {"volume": volume, "operation": event.operation, **facts}
        whole = text and f"{volume}: {event.operation} {text}"
        self._show(event.at, what, whole, about)

    def _show(self, at: float, event: str, text: str, facts: Mapping[str, object]) -> None:
        self.display.show(Line(at - self.started_at, event, text, facts))


def fault_text(fault: Fault) -> str:
    """Return the outcome of a fault, for people."""
    if fault.failures == 0:
        ended = "NOT met"
    else:
        ended = "met and survived" if fault.survived else "met, NOT survived"
    failed = f"failures of {fault.operation}: {fault.failures}"
    return f"{fault.volume.name} {fault.title}: {ended} ({failed})"
