"""A live table for a terminal: the state of each volume, and the time until its next try.

Only this module needs rich: import it only if there is a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from volume_controller.backend import VolumeState
from volume_controller.lines import PlainLines
from volume_controller.report import Line, Summary

PERIOD = 0.2
"""Seconds between two pictures: a countdown may jump by two tenths."""

_FRAME = 6
"""Lines that are not rows: the frame of the table, its head, and the line for omitted rows."""

_ABOVE = (
    *("begin", "phase", "change of mind", "phase reached"),
    *("fault", "stopping", "time is up", "cleaning up"),
)
"""The events that are printed above the table; the others change the table."""


@attrs.define(eq=False)
class Row:
    """The row of a volume, from the events of its operations."""

    running: str | None = None
    """The operation that runs."""
    failed: str | None = None
    """The operation that failed last and has not succeeded since."""
    failures: int = 0
    """Its failures in a row."""
    retry_at: float | None = None
    """The time of its next try."""
    error: str = ""
    """The text of its error."""

    def take(self, line: Line) -> None:
        """Update the row with an event of the volume."""
        facts, operation = line.facts, str(line.facts["operation"])
        match line.event:
            case "started":
                self.running = operation
            case "failed":
                wait = facts["retry_in"]
                self.running, self.failed = None, operation
                self.failures, self.error = int(str(facts["failures"])), str(facts["error"])
                self.retry_at = line.at + wait if isinstance(wait, float) else None
            case "succeeded":
                self.running = None
                if operation == self.failed:
                    self.failed, self.failures, self.retry_at, self.error = None, 0, None, ""
            case "cancelled":
                self.running = None
            case _:
                pass

    def cells(self, name: str, state: VolumeState | None, now: float) -> tuple[str, ...]:
        """Return the cells of the row."""
        node = "" if state is None else state.mounted_on or state.attached_to or ""
        doing = f"{self.running} ..." if self.running else _word(state)
        left = None if self.retry_at is None or self.running else self.retry_at - now
        wait = "" if left is None else f"{max(left, 0.0):.1f} s"
        return (name, node, doing, str(self.failures or ""), wait, self.error)


@attrs.define(eq=False)
class LiveTable:
    """Shows all volumes in a table that is redrawn repeatedly, and plain lines at the end."""

    console: Console
    _rows: dict[str, Row] = attrs.field(factory=dict[str, Row], init=False)
    _zero: float = attrs.field(factory=trio.current_time, init=False)

    def show(self, line: Line) -> None:
        """Update the table with an event of a volume; print other events above the table."""
        if "volume" in line.facts and line.event not in _ABOVE:
            self._rows.setdefault(str(line.facts["volume"]), Row()).take(line)
        elif line.text:
            text = f"{line.at:7.2f}  {line.text}"
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    async def watch(self, observe: Callable[[], Mapping[str, VolumeState]]) -> None:
        """Draw the table until cancelled."""
        with Live(console=self.console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(self.picture(observe()), refresh=True)
                    await trio.sleep(PERIOD)
            finally:
                live.update(self.picture(observe()), refresh=True)

    def end(self, summary: Summary) -> None:
        """Print it as text."""
        PlainLines().end(summary)

    def picture(self, states: Mapping[str, VolumeState]) -> Table:
        """Return the table. If it is too long, volumes that run or wait come first."""
        table = Table("volume", "node", "state", "failures", "next try", "last error")
        room = max(self.console.height - _FRAME, 1)
        names = list(states)
        if len(names) > room:
            names.sort(key=self._is_quiet)
            table.caption = f"and {len(names) - room} more"
        now = trio.current_time() - self._zero
        for column in table.columns[:-1]:  # on a narrow terminal the last one shrinks
            column.no_wrap, column.overflow = True, "ellipsis"
        for name in names[:room]:
            cells = self._row(name).cells(name, states[name], now)
            table.add_row(*map(_text, cells))
        return table

    def _is_quiet(self, name: str) -> bool:
        row = self._row(name)
        return row.running is None and row.failed is None

    def _row(self, name: str) -> Row:
        return self._rows.get(name) or Row()


def _text(cell: str) -> Text:
    """Return a line of text in which nothing counts as markup."""
    return Text(cell, no_wrap=True, overflow="ellipsis")


def _word(state: VolumeState | None) -> str:
    if state is None or not state.provisioned:
        return "no image"
    if state.written:
        return "written"
    if state.mounted_on:
        return "mounted"
    if state.attached_to:
        return "attached"
    return "checked" if state.checked else "detached"
