"""Displays that print lines: of text for people, of JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping

import trio

from volume_controller.backend import VolumeState
from volume_controller.report import Line, Summary, fault_text


class PlainLines:
    """Prints a line of text for each event."""

    def show(self, line: Line) -> None:
        """Print it, with the seconds elapsed, unless it has no text for people."""
        if line.text:
            write(f"{line.at:7.2f}  {line.text}")

    async def watch(self, observe: Callable[[], Mapping[str, VolumeState]]) -> None:  # noqa: ARG002
        """Do nothing: this display shows no table. Checkpoint."""
        await trio.lowlevel.checkpoint()

    def end(self, summary: Summary) -> None:
        """Print it, with a line for each figure."""
        write("summary:")
        for what, figure in summary.figures.items():
            write(f"  {what}: {figure}")
        for leftover in summary.left:
            write(f"    {leftover}")
        for fault in summary.faults:
            write(f"  fault: {fault_text(fault)}")
        reached = "everything" if summary.reached else "NOT everything"
        write(f"result: {reached} was reached (exit code {summary.exit_code})")


class JsonLines:
    """Prints a JSON object for each event, and one for the summary."""

    def show(self, line: Line) -> None:
        """Print it: its time in seconds, its event, its facts, and its text if it has one."""
        text = {"text": line.text} if line.text else {}
        self._write({"at": round(line.at, 3), "event": line.event, **line.facts, **text})

    async def watch(self, observe: Callable[[], Mapping[str, VolumeState]]) -> None:  # noqa: ARG002
        """Do nothing: this display shows no table. Checkpoint."""
        await trio.lowlevel.checkpoint()

    def end(self, summary: Summary) -> None:
        """Print it. Its keys are the texts for people, with underscores."""
        faults = [
            {
                "volume": fault.volume.name,
                "operation": fault.operation,
                "failures": fault.failures,
                "survived": fault.survived,
            }
            for fault in summary.faults
        ]
        self._write(
            {
                "event": "summary",
                **{_key(what): figure for what, figure in summary.figures.items()},
                "leftovers": list(summary.left),
                "faults": faults,
                "reached": summary.reached,
                "exit_code": summary.exit_code,
            }
        )

    def _write(self, facts: Mapping[str, object]) -> None:
        write(json.dumps(facts, default=str))


def write(text: str) -> None:
    """Print *text* now. If the reader has gone, go on without printing."""
    try:
        print(text, flush=True)
    except OSError:  # ``| head`` has ended, or the terminal is closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _key(what: str) -> str:
    return "overlapping_runs" if what.startswith("overlapping") else what.replace(" ", "_")
