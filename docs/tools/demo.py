"""Writes the demos into their READMEs: pictures of the volume controller, lines of the others.

The demos work on real volumes in real time, and no two runs are the same. So docs/tools/demo.json
keeps one run of each, and everything here is made of it.

``python -m docs.tools.demo`` only writes. ``make pictures RECORD=yes`` runs the demos first, on
the best backend that works here, and keeps their output.
"""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import trio

from benchmarks import svg
from benchmarks.docs import between_marks
from docs.tools import terminal, timeline

DOCS = pathlib.Path(__file__).parent.parent
EXAMPLES = DOCS / "examples"
KEPT = pathlib.Path(__file__).with_suffix(".json")
DEMO = EXAMPLES / "volume_controller"
PLAIN = ("reconcile_threads", "reconcile_asyncio")
"""The demos that only print lines."""

COLUMNS, LINES = 92, 40
"""The size of the demo's terminal."""
PERIOD = 0.05
"""Seconds between two frames."""


# Running them


@attrs.define(eq=False)
class Screen:
    """A display that keeps each frame of the demo's live table."""

    frames: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]], init=False)
    """The frames: each has its time and its lines."""
    events: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]], init=False)
    """The events that the table got."""
    reached: bool = attrs.field(default=False, init=False)
    _paper: io.StringIO = attrs.field(factory=io.StringIO, init=False)
    _table: Any = attrs.field(init=False)
    _begun: float = attrs.field(factory=trio.current_time, init=False)

    def __attrs_post_init__(self) -> None:
        from volume_controller.table import LiveTable  # noqa: PLC0415 - it is in docs/examples

        self._table = LiveTable(_console(self._paper))

    def show(self, line: Any) -> None:
        """Pass *line* to the table, and keep it."""
        self._table.show(line)
        facts = {
            key: line.facts[key]
            for key in ("volume", "operation", "retry_in", "title")
            if key in line.facts
        }
        self.events.append({"at": round(line.at, 3), "what": line.event, **facts})

    async def watch(self, observe: Callable[[], Mapping[str, Any]]) -> None:
        """Keep a frame every `PERIOD` seconds, until cancelled."""
        while True:
            at = round(trio.current_time() - self._begun, 3)
            self.frames.append({"at": at, "lines": self._shown(observe())})
            await trio.sleep(PERIOD)

    def end(self, summary: Any) -> None:
        """Note whether the demo succeeded."""
        self.reached = summary.exit_code == 0

    def _shown(self, states: Mapping[str, Any]) -> list[str]:
        paper = io.StringIO()
        _console(paper).print(self._table.picture(states))
        lines = self._paper.getvalue() + paper.getvalue()
        return [line.rstrip() for line in lines.splitlines()]


def _console(paper: io.StringIO) -> Any:
    from rich.console import Console  # noqa: PLC0415 - drawing a kept run needs no rich

    return Console(file=paper, width=COLUMNS, height=LINES)


async def run_a_day() -> dict[str, Any]:
    """Run the volume controller once, and return its volumes, events and best frame.

    Raises:
        RuntimeError: the demo did not succeed.
    """
    from volume_controller import config  # noqa: PLC0415
    from volume_controller.__main__ import KINDS  # noqa: PLC0415
    from volume_controller.report import Report  # noqa: PLC0415
    from volume_controller.session import Session  # noqa: PLC0415
    from volume_controller.stopping import stop_on_signals  # noqa: PLC0415
    from volume_controller.workfolder import open_work_folder  # noqa: PLC0415

    screen = Screen()
    report = Report(screen)
    async with stop_on_signals(lambda _: None) as stop:
        with open_work_folder(None) as work:
            desired = config.load(DEMO / "volumes.toml")
            session = Session(desired, KINDS, None, work, report, stop, 120.0)
            report.summarize(await session.run())
    if not screen.reached:
        raise RuntimeError("the demo failed")
    return {
        "volumes": list(desired.volumes),
        "events": screen.events,
        "frame": max(screen.frames, key=interest),
    }


def interest(frame: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return how interesting *frame* is: volumes that wait, their failures, volumes that run."""
    rows = [line.split("│") for line in frame["lines"] if line.startswith("│")]
    waiting = [row for row in rows if row[5].strip() not in ("", "0.0 s")]
    failures = sum(int(row[4]) for row in waiting)
    return len(waiting), failures, sum("..." in row[3] for row in rows)


def run_plain(name: str) -> list[str]:
    """Run one of the demos that print lines, and return its lines."""
    command = [sys.executable, "-m", name]
    ended = subprocess.run(command, cwd=EXAMPLES, check=True, capture_output=True, text=True)
    return ended.stdout.splitlines()


def record() -> dict[str, Any]:
    """Run all demos, and return what to keep."""
    sys.path.insert(0, str(EXAMPLES))
    return {
        "on": {"python": platform.python_version(), "system": platform.system()},
        "day": trio.run(run_a_day),
        "plain": {name: run_plain(name) for name in PLAIN},
    }


# Writing a kept run


def load() -> dict[str, Any]:
    """Return the kept run."""
    kept: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    return kept


def rows(told: Mapping[str, Any]) -> list[timeline.Row]:
    """Return a row for each volume of a day."""
    events = [_event(one) for one in told["events"] if "operation" in one]
    return timeline.rows_of(events, told["volumes"])


def day(kept: Mapping[str, Any], theme: svg.Theme) -> str:
    """Return the picture of the day over time."""
    told = kept["day"]
    found = rows(told)
    phases = [one for one in told["events"] if one["what"] == "phase"]
    marks = {one["at"]: one["title"].partition(":")[0] for one in phases}
    runs, failed, overlaps = _counts(found)
    look = timeline.Look(
        title=f"A day of {len(found)} volumes: {runs} operations, {failed} of them fail",
        desc=(
            f"A row for each of {len(found)} volumes, a bar for each operation. After a failure "
            "the name waits, and then the operation runs again. "
            + " ".join(f"{row.volume}: {row.counts}." for row in found if row.waits)
            + f" Runs of one volume that overlap: {overlaps}."
        ),
        marks=marks,
        captions={},
        step=1,
    )
    return timeline.picture(found, look, theme)


def _event(told: Mapping[str, Any]) -> timeline.Event:
    return timeline.Event(
        at=told["at"],
        what=told["what"],
        volume=told["volume"],
        operation=told["operation"],
        retry_in=told.get("retry_in"),
    )


def _counts(rows: Sequence[timeline.Row]) -> tuple[int, int, int]:
    bars = [bar for row in rows for bar in row.bars]
    overlaps = sum(
        one is not other and one.begin <= other.begin < one.end
        for row in rows
        for one in row.bars
        for other in row.bars
    )
    return len(bars), sum(bar.how == "failed" for bar in bars), overlaps


def table(kept: Mapping[str, Any], theme: svg.Theme) -> str:
    """Return the picture of the most interesting frame."""
    frame = kept["day"]["frame"]
    waiting, _, running = interest(frame)
    title = f"The volume controller's table after {frame['at']:.1f} s"
    desc = (
        "A table in a terminal, a row for each volume: its node, its state, its failures in a "
        f"row, the time until its next try, and its last error. Volumes with a running operation: "
        f"{running}. Volumes that wait after a failure: {waiting}."
    )
    return terminal.picture(frame["lines"], title, desc, theme)


def page_with(lines: Sequence[str], page: str) -> str:
    """Return the *page* of a demo with its *lines*."""
    block = "\n".join(["```text", *lines, "```"]) + "\n"
    return between_marks("docs/tools/demo.py", block, page)


def write(kept: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Write the pictures and the pages below *folder*."""
    svg.write_both(folder / DEMO.name, "day", lambda theme: day(kept, theme))
    svg.write_both(folder / DEMO.name, "table", lambda theme: table(kept, theme))
    for name in PLAIN:
        page = folder / name / "README.md"
        text = page.read_text(encoding="utf-8")
        page.write_text(page_with(kept["plain"][name], text), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the kept run; with ``--record``, run the demos first."""
    parser = argparse.ArgumentParser(
        prog="docs.tools.demo", description="Writes the demos into their READMEs."
    )
    parser.add_argument("--record", action="store_true", help="run them first")
    if parser.parse_args(arguments).record:
        KEPT.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
    write(load(), EXAMPLES)


if __name__ == "__main__":
    main()
