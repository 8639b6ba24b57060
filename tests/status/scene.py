"""A map with names in all states, on a clock that stands still: for pictures and for browsers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator

import attrs

from namedtasks import Backoff, ThreadTaskMap
from namedtasks.status import StatusPage
from namedtasks.testing import ManualClock

FAULTS: list[Callable[[], Exception]] = [
    lambda: OSError("mount: wrong fs type, bad option, bad superblock on /dev/loop3"),
    lambda: TimeoutError("no answer from node-2 after 30 s"),
    lambda: OSError("umount: target is busy"),
    lambda: ConnectionResetError("the connection to the storage server was lost"),
]


@attrs.define(eq=False)
class Scene:
    """A map, and what its runs wait for."""

    tasks: ThreadTaskMap
    clock: ManualClock
    done: threading.Event = attrs.field(factory=threading.Event)

    def fail(
        self, name: str, operation: str, fault: int, times: int, wait: float, *, gives_up: bool
    ) -> None:
        """Let *name* fail a number of *times*; then it waits for so many seconds, or gives up."""

        def raise_fault() -> None:
            self.clock.advance(1.4)
            raise FAULTS[fault]()

        for attempt in range(1, times + 1):
            is_last = attempt == times
            policy = Backoff(initial=wait if is_last else 7, maximum=600, factor=1)
            if is_last and gives_up:
                policy = Backoff(give_up_after=times)
            future = self.tasks.submit(name, raise_fault, operation=operation, backoff=policy)
            future.exception()
            if not is_last:
                self.clock.advance(8)

    def succeed(self, name: str, operation: str) -> None:
        """Let *name* succeed."""
        self.tasks.submit(name, self.clock.advance, 0.4, operation=operation).result()

    def run(self, name: str, operation: str, timeout: float | None = None) -> None:
        """Let *name* run until the end of the scene."""
        begun = threading.Event()

        def work() -> None:
            begun.set()
            self.done.wait()

        self.tasks.submit(name, work, operation=operation, timeout=timeout)
        begun.wait()

    def queue(self, name: str, operation: str) -> None:
        """Let *name* run when it can, which is not in this scene."""
        self.tasks.submit(name, self.done.wait, operation=operation, if_busy="queue")


@contextlib.contextmanager
def scene(page: StatusPage, count: int) -> Generator[Scene]:
    """Open a map with *count* names in it, 3 at least; from 12 on in all states that there are."""
    clock = ManualClock(1000)
    with ThreadTaskMap(
        clock=clock,
        limit=6,
        keep_outcomes=100_000,
        overdue_after=5,
        instruments=[page.instrument("volumes")],
        retention=100_000,
    ) as tasks:
        made = Scene(tasks, clock)
        try:
            _fill(made, count)
            tasks.wait_free(("nobody",))  # which delivers the events
            yield made
        finally:
            made.done.set()
            tasks.cancel_all()


def _fill(made: Scene, count: int) -> None:
    clock = made.clock
    if count >= 12:
        made.fail("vol-003", "mount", 0, 5, 0, gives_up=True)
        made.fail("vol-005", "unmount", 2, 2, 3, gives_up=False)
        made.succeed("vol-010", "attach")
        clock.advance(4)
        made.succeed("vol-012", "mount")
    for number in range(13, count + 1):
        name = f"vol-{number:03}"
        if number % 11 == 0:
            made.fail(name, "attach", number % 4, 1, 400 + number % 100, gives_up=False)
        else:
            made.tasks.submit(name, int, operation="attach")
    if count >= 12:
        made.run("vol-009", "detach", timeout=2)
        clock.advance(9)
        made.run("vol-002", "write", timeout=60)
        clock.advance(11)
    made.fail("vol-007", "attach", 1, 3 if count >= 12 else 2, 42, gives_up=False)
    made.run("vol-001", "attach", timeout=60)
    made.succeed("vol-006", "detach")
    if count < 12:
        return
    made.fail("vol-011", "detach", 3, 1, 12, gives_up=False)
    clock.advance(2)
    made.run("vol-004", "mount", timeout=90)
    made.queue("vol-004", "unmount")
    for name in ("a", "b"):
        made.run(f"snapshot-{name}", "copy")
    for number in range(8, 9):
        made.tasks.submit(f"vol-{number:03}", made.done.wait, operation="attach")
    clock.advance(1)
