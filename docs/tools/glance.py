"""Draws docs/explanation/glance-*.svg: four names in a task map, in virtual time.

A loop starts the work of each unfinished name ten times a second, as in README.md. An instrument
records the events, and timeline.py draws them.

Run it as ``python -m docs.tools.glance``.
"""

from __future__ import annotations

import pathlib
from collections.abc import Awaitable, Callable, Mapping

import attrs
import trio
from trio.testing import MockClock

from benchmarks import svg
from docs.tools import timeline
from namedtasks import IfBusy, TaskMap, open_task_map
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

FOLDER = pathlib.Path(__file__).parent.parent / "explanation"
PICTURE = "glance"
PERIOD = 0.1

TITLE = "Four names in one map: a loop starts each of them ten times a second"
DESC = (
    "A row for each name, over nine seconds. vol-1 runs once; the map skips the starts that come "
    "meanwhile. vol-2 fails four times; after each failure it waits twice as long as before, half "
    "a second, one, two and four seconds, and then it succeeds. vol-3 is cancelled and replaced by "
    "another run, which begins when the first has ended. vol-4 does not stop at its timeout: it is "
    "overdue, and keeps its name until it ends. No two runs of a name overlap."
)


WORDS = {
    "vol-1": "succeeds",
    "vol-2": "fails four times: each wait is twice the one before",
    "vol-3": "is replaced: the new run begins when the old one has ended",
    "vol-4": "does not stop at its timeout, and keeps its name until it ends",
}


@attrs.define
class Recorder(Instrument):
    """Records the events."""

    events: list[timeline.Event] = attrs.field(factory=list[timeline.Event], init=False)
    begun: float = attrs.field(factory=trio.current_time, init=False)

    def task_started(self, event: TaskStarted, /) -> None:
        """Record it."""
        self._record("started", event)

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """Record it."""
        self._record("succeeded", event)

    def task_failed(self, event: TaskFailed, /) -> None:
        """Record it, with the wait of its name."""
        self._record("failed", event, event.retry_in)

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """Record it."""
        self._record("cancelled", event)

    def task_overdue(self, event: TaskOverdue, /) -> None:
        """Record it."""
        self._record("overdue", event)

    def task_refused(self, event: TaskRefused, /) -> None:
        """Record it."""
        self._record("skipped", event)

    def _record(self, what: str, event: TaskEvent, retry_in: float | None = None) -> None:
        self.events.append(
            timeline.Event(
                at=round(event.at - self.begun, 6),
                what=what,
                volume=str(event.name),
                operation=event.operation or "",
                retry_in=retry_in,
            )
        )


@attrs.define
class Scene:
    """The work on the volumes. No run ends at the time of a look: the order is always the same."""

    tasks: TaskMap
    missing: set[str] = attrs.field(factory=lambda: set(WORDS), init=False)
    failures: int = attrs.field(default=0, init=False)

    async def attach(self) -> None:
        """Succeed after a while."""
        await trio.sleep(1.55)
        self.missing.discard("vol-1")

    async def mount(self) -> None:
        """Fail four times."""
        await trio.sleep(0.25)
        if self.failures < 4:
            self.failures += 1
            raise OSError("bad superblock")
        self.missing.discard("vol-2")

    async def move(self) -> None:
        """Take so long that the loop replaces it."""
        await trio.sleep(2.55)
        self.missing.discard("vol-3")

    async def copy(self) -> None:
        """Ignore the request to stop."""
        with trio.CancelScope(shield=True):
            await trio.sleep(5.05)
        self.missing.discard("vol-4")

    async def reconcile(self) -> None:
        """Start the unfinished work, until all is finished."""
        looks = 0
        while self.missing:
            for volume in sorted(self.missing):
                is_replaced = volume == "vol-3" and looks == 18
                self._ask(volume, "replace" if is_replaced else "skip")
            looks += 1
            await trio.sleep(PERIOD)

    def _ask(self, volume: str, if_busy: IfBusy) -> None:
        bodies: Mapping[str, Callable[[], Awaitable[None]]] = {
            "vol-1": self.attach,
            "vol-2": self.mount,
            "vol-3": self.move,
            "vol-4": self.copy,
        }
        body = bodies[volume]
        timeout = 1.05 if volume == "vol-4" else None
        self.tasks.start_soon(
            volume, body, if_busy=if_busy, timeout=timeout, operation=body.__name__
        )


async def play() -> list[timeline.Event]:
    """Run the scene, and return its events."""
    recorder = Recorder()
    async with open_task_map(instruments=[recorder]) as tasks:
        await Scene(tasks).reconcile()
    return recorder.events


def rows() -> list[timeline.Row]:
    """Run the scene in virtual time, and return a row for each name."""
    return timeline.rows_of(trio.run(play, clock=MockClock(autojump_threshold=0)), WORDS)


def picture(found: list[timeline.Row], theme: svg.Theme) -> str:
    """Return the picture of the names over time."""
    captions = {row.volume: f"{WORDS[row.volume]} ({row.counts})" for row in found}
    look = timeline.Look(title=TITLE, desc=DESC, marks={}, captions=captions, step=1)
    return timeline.picture(found, look, theme)


def main() -> None:
    """Run the scene, and write the pictures."""
    found = rows()
    svg.write_both(FOLDER, PICTURE, lambda theme: picture(found, theme))


if __name__ == "__main__":
    main()
