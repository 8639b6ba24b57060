"""The live table: what is in its rows."""

from __future__ import annotations

import io

import pytest
import trio
from volume_controller.backend import VolumeState

pytest.importorskip("rich")

from rich.console import Console
from volume_controller.report import Line
from volume_controller.table import LiveTable

UP = VolumeState(provisioned=True, attached_to="n1", blank=False, mounted_on="n1", written=True)


def line(at: float, event: str, operation: str, **facts: object) -> Line:
    return Line(at, event, "", {"volume": "a", "operation": operation, **facts})


class Screen:
    """A terminal that remembers what was printed."""

    def __init__(self, height: int = 40) -> None:
        self._file = io.StringIO()
        self.console = Console(file=self._file, width=100, height=height)
        self.table = LiveTable(self.console)

    def rows(self, states: dict[str, VolumeState]) -> list[list[str]]:
        self._file.seek(0)
        self._file.truncate()
        self.console.print(self.table.picture(states))
        shown = self._file.getvalue().splitlines()
        return [[cell.strip() for cell in row.split("│")[1:-1]] for row in shown if row[0] == "│"]


@pytest.mark.trio
async def test_a_volume_that_waits_counts_down(autojump_clock: trio.abc.Clock) -> None:
    """With its failures and the last error; the next try begins anew."""
    screen = Screen()
    failed = line(0.0, "failed", "mount", failures=2, retry_in=0.4, error="bad [superblock]")
    screen.table.show(line(0.0, "started", "mount"))
    states = {"a": VolumeState(provisioned=True, attached_to="n1", blank=False)}
    assert [["a", "n1", "mount ...", "", "", ""]] == screen.rows(states)
    screen.table.show(failed)
    assert [["a", "n1", "attached", "2", "0.4 s", "bad [superblock]"]] == screen.rows(states)
    await trio.sleep(0.3)
    assert [["a", "n1", "attached", "2", "0.1 s", "bad [superblock]"]] == screen.rows(states)
    await trio.sleep(0.3)
    assert screen.rows(states)[0][4] == "0.0 s"
    screen.table.show(line(0.6, "started", "repair"))
    screen.table.show(line(0.6, "succeeded", "repair"))
    assert screen.rows(states)[0][3] == "2"
    screen.table.show(line(0.6, "started", "mount"))
    screen.table.show(line(0.6, "succeeded", "mount"))
    assert [["a", "n1", "written", "", "", ""]] == screen.rows({"a": UP})


@pytest.mark.trio
async def test_each_state_has_a_word(autojump_clock: trio.abc.Clock) -> None:
    """From nothing to written, and back."""
    states = {
        "none": VolumeState(),
        "detached": VolumeState(provisioned=True),
        "checked": VolumeState(provisioned=True, checked=True),
        "attached": VolumeState(provisioned=True, attached_to="n1"),
        "mounted": VolumeState(provisioned=True, attached_to="n1", mounted_on="n1"),
        "written": UP,
    }
    words = [row[2] for row in Screen().rows(states)]
    assert words == ["no image", "detached", "checked", "attached", "mounted", "written"]


@pytest.mark.trio
async def test_a_long_table_shows_what_runs_or_waits_first(autojump_clock: trio.abc.Clock) -> None:
    """A terminal has no room for a hundred volumes."""
    screen = Screen(height=10)
    screen.table.show(line(0.0, "started", "mount"))
    names = [row[0] for row in screen.rows(dict.fromkeys([*"bcdefgh", "a"], UP))]
    assert names == ["a", "b", "c", "d"]


@pytest.mark.trio
async def test_a_long_error_gives_way_to_the_rest(autojump_clock: trio.abc.Clock) -> None:
    """Names and states stay whole, and each volume has one line."""
    screen = Screen()
    failed = line(0.0, "failed", "mount", failures=2, retry_in=0.4, error="bad sector, " * 50)
    screen.table.show(failed)
    ((name, node, *_, error),) = screen.rows({"a": UP})
    assert ["a", "n1"] == [name, node]
    assert screen.rows({"a": UP})[0][2:5] == ["written", "2", "0.4 s"]
    assert error.startswith("bad sector, bad sector")
    assert error.endswith("…")
