"""What a stress run counts and watches, whatever the shell.

The operations keep a log of their own: each says when it begins and ends. Two
of one name at once are an overlap, and there must be none. Who waits says when
what it waits for has come about; one that is not back a second later has the
stacks of all threads dumped.
"""

from __future__ import annotations

import collections
import faulthandler
import random
import sys
import threading
import time
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from typing import Any, final

import attrs

from namedtasks import Backoff, RefusedError

NAMES = 50
ACTORS = 16
LATE = 1.0
"""Seconds after which a waiter whose condition holds is late."""

SETTINGS: dict[str, Any] = {
    "backoff": Backoff(initial=0.002, maximum=0.02, jitter=0.5, give_up_after=6),
    "retention": 0.05,
    "limit": 24,
    "overdue_after": 0.01,
    "instruments": (),
}
"""Short waits, so that names come and go all the time."""


class Trouble(Exception):
    """What operations fail with."""


@final
@attrs.define(eq=False)
class Wait:
    """Somebody who waits, and since when there is nothing more to wait for."""

    what: str
    over_since: float | None = None

    def is_over(self) -> None:
        """What is waited for has just come about."""
        self.over_since = time.monotonic()


@final
class Tally:
    """The counts and the log of one stress run; any thread may use it."""

    def __init__(self, shell: str, seed: int) -> None:
        self.shell = shell
        self.seed = seed
        self.counts: collections.Counter[str] = collections.Counter()
        self.longest_wait = 0.0
        """Seconds between a condition and the return of who waited for it, at the most."""
        self.faults: list[str] = []
        self._lock = threading.Lock()
        self._active: dict[Hashable, int] = collections.defaultdict(int)
        self._waits: set[Wait] = set()
        self._over = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, daemon=True)
        self._watchdog.start()

    def random(self, actor: int) -> random.Random:
        """The choices of one actor: the same for the same seed."""
        return random.Random(f"{self.seed} {actor}")

    def count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self.counts[what] += by

    def refused(self, error: RefusedError) -> None:
        self.count(f"refused: {type(error).__name__}")

    @contextmanager
    def operation(self, name: Hashable) -> Generator[None]:
        """An operation of *name* runs, in its own words."""
        with self._lock:
            self.counts["operations run"] += 1
            self._active[name] += 1
            if self._active[name] > 1:
                self.counts["overlapping runs of a name"] += 1
                self.faults.append(f"two runs of {name!r} at once")
        try:
            yield
        finally:
            with self._lock:
                self._active[name] -= 1

    @contextmanager
    def waiting(self, what: str) -> Generator[Wait]:
        """Somebody waits; must not be long once that `Wait.is_over`."""
        wait = Wait(what)
        with self._lock:
            self._waits.add(wait)
        try:
            yield wait
        finally:
            with self._lock:
                self._waits.discard(wait)
                self.counts["waits"] += 1
                if wait.over_since is not None:
                    late = time.monotonic() - wait.over_since
                    self.longest_wait = max(self.longest_wait, late)

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            with self._lock:
                late = [wait for wait in self._waits if _is_late(wait)]
            if late:
                self.faults.append(f"late: {[wait.what for wait in late]}")
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                return

    def expect(self, what: str, holds: object) -> None:
        """Note a fault unless *what* is so."""
        if not holds:
            self.faults.append(f"not so: {what}")

    def report(self) -> str:
        """The figures, and what was wrong."""
        self._over.set()
        self._watchdog.join()
        self.counts["overlapping runs of a name"] += 0
        rows = [(what, str(number)) for what, number in sorted(self.counts.items())]
        rows.append(("longest from a condition to who waits for it", f"{self.longest_wait:.3f} s"))
        lines = [f"{self.shell}, seed {self.seed}:", *(f"  {a:<46}{b:>12}" for a, b in rows)]
        return "\n".join([*lines, *(f"  FAULT: {fault}" for fault in self.faults)])


def _is_late(wait: Wait) -> bool:
    return wait.over_since is not None and time.monotonic() - wait.over_since > LATE


Stop = Callable[[], bool]
"""Whether the time is over."""


def stop_after(seconds: float) -> Stop:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
