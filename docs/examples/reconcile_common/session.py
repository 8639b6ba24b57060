"""One session: its settings, signals, work folder, output and exit code."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections.abc import Callable, Container, Generator, Hashable, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import attrs
from volume_controller import lines
from volume_controller.signals import heard_signals, hold_signals, release_signals

from namedtasks import Backoff
from namedtasks.instruments import Instrument, TaskCancelled, TaskEvent, TaskFailed, TaskSucceeded
from reconcile_common.volumes import FAILING, HANGING, NAMES, Step, Volumes, Wish

WISHES: tuple[Wish, ...] = ("written", "deleted")
"""The desired states, one after the other."""

BACKOFF = Backoff(initial=0.2, maximum=1.0)
"""Short, for a demo. Kubernetes begins with 0.5 s and goes up to 2 min 2 s."""

LIMIT = 4
"""Operations at once."""

TIMEOUT = 1.0
"""Seconds for an operation: all except the one that hangs take less than a tenth of it."""

PERIOD = 0.05
"""Seconds between two looks at the world."""

TIME_LIMIT = 30.0
"""Seconds for everything: more than ten times what it takes on two slow cores."""


@attrs.define(eq=False)
class Report(Instrument):
    """Prints and counts what happens. Many threads call it at once, so it has a lock."""

    ran: int = attrs.field(default=0, init=False)
    failed: int = attrs.field(default=0, init=False)
    _begun: float = attrs.field(factory=time.monotonic, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """Print that an operation is done."""
        self._tell_end(event, f"done in {event.duration:.2f} s")

    def task_failed(self, event: TaskFailed, /) -> None:
        """Print that an operation failed, and how long its volume waits."""
        waits = f"waits {event.retry_in or 0:.1f} s"
        text = f"FAILED (failures in a row: {event.failures}), {waits}: {event.error}"
        self._tell_end(event, text, failed=True)

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """Print that an operation was cancelled."""
        self._tell_end(event, f"cancelled, because {event.reason}")

    def tell(self, text: str) -> None:
        """Print a line, with the seconds elapsed."""
        with self._lock:
            lines.write(f"{time.monotonic() - self._begun:7.2f}  {text}")

    def _tell_end(self, event: TaskEvent, text: str, *, failed: bool = False) -> None:
        with self._lock:
            self.ran += 1
            self.failed += failed
        self.tell(f"{event.name}: {event.operation} {text}")


@attrs.define(eq=False)
class Session:
    """The state of one session of a reconcile loop."""

    volumes: Volumes
    report: Report = attrs.field(factory=Report, init=False)
    signal: int | None = attrs.field(default=None, init=False)
    """The first signal that arrived, if any."""
    _reached: list[Wish] = attrs.field(factory=list[Wish], init=False)
    _ends_at: float = attrs.field(factory=lambda: time.monotonic() + TIME_LIMIT, init=False)

    @property
    def why_to_stop(self) -> str | None:
        """The reason to stop before everything is reached; None if there is none."""
        if self.signal is not None:
            return f"{signal.Signals(self.signal).name} came"
        return "the time is up" if time.monotonic() >= self._ends_at else None

    def steps_now(self, running: Container[Hashable], wish: Wish) -> Mapping[str, Step] | None:
        """Return the steps to start now; None if everything is reached, or if it is time to stop.

        It only looks at volumes that were idle before the look. Nothing else starts them, so they
        have not changed when their steps start. In the opposite order, an operation could end
        after the look, and would run twice.
        """
        if self.why_to_stop:
            return None
        idle = [name for name in NAMES if name not in running]
        steps = self.volumes.missing(wish, idle)
        if steps or len(idle) < len(NAMES):
            return steps
        self._reached.append(wish)
        return None

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Note a signal. A handler that does no more than that may run at any moment."""
        if self.signal is None:
            self.signal = number

    def finish(self) -> int:
        """Undo what is left, print the summary, and return the exit code."""
        reached = self._reached == list(WISHES)
        found = self.volumes.leftovers()
        if found:
            self.report.tell(f"cleaning up {len(found)} attachments and images")
            self.volumes.clean_up()
        left, overlaps = self.volumes.leftovers(), self.volumes.findings().overlaps
        code = 0 if reached and not found and not overlaps else 1
        code = code if self.signal is None else 128 + self.signal  # as shells do
        lines.write("summary:")
        lines.write(f"  operations run: {self.report.ran}")
        lines.write(f"  failed: {self.report.failed}")
        lines.write(f"  overlapping runs of one volume in the operations' own log: {overlaps}")
        lines.write(f"  left behind: {len(left)}")
        what = "everything" if reached else "NOT everything"
        lines.write(f"result: {what} was reached (exit code {code})")
        return code


def run(work: Callable[[Session], None]) -> int:
    """Call *work*, which brings the volumes to the desired states; return the exit code.

    Returns:
        0 if everything was reached and nothing had to be cleaned up, 1 if not, 128 plus the
        number of a signal.
    """
    hold_signals()
    with tempfile.TemporaryDirectory(prefix="reconcile-") as folder:
        session = Session(Volumes(Path(folder).resolve()))
        with _noting_signals(session):
            session.report.tell(
                f"{len(NAMES)} volumes; {FAILING} fails to write twice, {HANGING} hangs once"
            )
            work(session)
            if session.why_to_stop:
                session.report.tell(f"stopped, because {session.why_to_stop}")
        return session.finish()


@contextmanager
def _noting_signals(session: Session) -> Generator[None]:
    """Note signals inside the block, and hold them at its end: then it is too late to stop."""
    for number in heard_signals():
        signal.signal(number, session.note)
    release_signals()
    try:
        yield
    finally:
        hold_signals()
