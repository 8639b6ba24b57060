"""What a stress run counts and watches, whatever the shell.

The operations keep a log of their own: each writes when it begins and ends. Who
reads it sees which were there at any instant: two of one name, or of two names
that overlap, are an overlap, and there must be none. What overlaps is worked
out here once more, field by field. Who waits says when what it waits for has
come about; one that is not back a second later has the stacks of all threads
dumped. If wanted, two threads scrape the metrics all the time, or each run is traced: see
`tests.stress.scrapes` and `tests.stress.spans`.
"""

from __future__ import annotations

import collections
import faulthandler
import random
import sys
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable
from contextlib import contextmanager
from typing import Any, Protocol, final

import attrs

from namedtasks import (
    ANY,
    Backoff,
    Failure,
    IfBusy,
    Observation,
    Outcome,
    PendingRun,
    RefusedError,
    State,
    TaskMapStatistics,
    current_run,
)
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskFailed,
    TaskQueued,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from tests.stress.scrapes import Scraper
from tests.stress.spans import Spans

NAMES = 50
VOLUMES = PODS = 4
ACTORS = 16
LIMIT = 12
LATE = 1.0
"""Seconds after which a waiter whose condition holds is late."""
LATE_WHEN_SCRAPED = 60.0
"""The same while other threads scrape: they hold the GIL most of the time."""

SETTINGS: dict[str, Any] = {
    "backoff": Backoff(initial=0.002, maximum=0.02, jitter=0.5, give_up_after=6),
    "retention": 0.05,
    "limit": LIMIT,
    "overdue_after": 0.01,
    "keep_outcomes": 20,
    "keep_ends": 60,
    "failure_threshold": 2,
}
"""Short waits, so that names come and go all the time."""

QUICK = Backoff(initial=0.001, factor=1.0, give_up_after=4, reset_after=0.005)
"""The policy that some starts bring."""


IF_BUSY: tuple[IfBusy, ...] = ("refuse", "skip", "join", "replace", "queue")

LOG_LENGTH = 100_000
"""Entries after which the log is read and begun anew."""


def some_name(chance: random.Random) -> Hashable:
    """One of the names that everybody uses; two in five overlap others."""
    if chance.random() < 0.6:
        return chance.randrange(NAMES)
    volume: Hashable = ANY if chance.random() < 0.1 else f"vol-{chance.randrange(VOLUMES)}"
    pod: Hashable = ANY if chance.random() < 0.2 else f"pod-{chance.randrange(PODS)}"
    return (volume, pod)


def overlap(one: Any, other: Any) -> bool:
    """Whether runs of these two names exclude each other."""
    if not (isinstance(one, tuple) and isinstance(other, tuple)):
        return bool(one == other)
    fields: list[tuple[Any, Any]] = list(zip(one, other, strict=True))  # pyright: ignore[reportUnknownArgumentType]
    return all(a is ANY or b is ANY or a == b for a, b in fields)


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
class Listener(Instrument):
    """Counts what becomes of the runs, as the map tells it."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def task_started(self, event: TaskStarted, /) -> None:
        self._tally.count("runs begun")

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        self._tally.count("runs ended")

    def task_failed(self, event: TaskFailed, /) -> None:
        self._tally.count("runs ended")
        self._tally.count("attempts that are followed by another", event.will_retry)

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        self._tally.count("runs that never began" if event.duration is None else "runs ended")

    def task_queued(self, event: TaskQueued, /) -> None:
        self._tally.count(f"put off: {event.if_busy}")

    def task_superseded(self, event: TaskSuperseded, /) -> None:
        self._tally.count("superseded")


@final
class Tally:
    """The counts and the log of one stress run; any thread may use it."""

    def __init__(
        self, shell: str, seed: int, *, is_scraped: bool = False, is_traced: bool = False
    ) -> None:
        self.shell = shell
        self.seed = seed
        self.is_scraped = is_scraped
        self._spans = Spans(self) if is_traced else None
        self.counts: collections.Counter[str] = collections.Counter()
        self.longest_wait = 0.0
        """Seconds between a condition and the return of who waited for it, at the most."""
        self.faults: list[str] = []
        self._lock = threading.Lock()
        self.most_at_once = 0
        self._log: list[tuple[Hashable, bool]] = []
        """Of which name an operation began (True) or ended."""
        self._active: list[Hashable] = []
        self._ended = 0
        self._last_ends: dict[Hashable, int] = {}
        """The numbers of the last ends of operations, by name."""
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
        """An operation of *name* runs: it writes its own start and end to the log."""
        if self._spans is not None:
            self._spans.check_body(name)
        self._write(name, begins=True)
        try:
            yield
        finally:
            self._write(name, begins=False)

    def _write(self, name: Hashable, *, begins: bool) -> None:
        with self._lock:
            self._log.append((name, begins))
            if begins:
                self.counts["operations run"] += 1
            else:
                self._ended += 1
                self._last_ends[name] = self._ended
            if len(self._log) >= LOG_LENGTH:
                self._read_log()

    def ended(self) -> int:
        """How many operations have ended."""
        with self._lock:
            return self._ended

    def last_end(self, name: Hashable) -> int:
        """The number of the last operation of *name*, or of what overlaps it, that has ended."""
        with self._lock:
            ends = [number for one, number in self._last_ends.items() if overlap(one, name)]
            return max(ends, default=0)

    def _read_log(self) -> None:
        """Follow what the log says, instant by instant; who is there then, is in `_active`."""
        for name, begins in self._log:
            if not begins:
                self._active.remove(name)
                continue
            for other in self._active:
                if overlap(name, other):
                    self.counts["overlaps"] += 1
                    self.faults.append(f"{other!r} and {name!r} at once")
            self._active.append(name)
            self.most_at_once = max(self.most_at_once, len(self._active))
        self._log.clear()

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
        longest = LATE_WHEN_SCRAPED if self.is_scraped else LATE
        while not self._over.wait(0.2):
            with self._lock:
                late = [wait for wait in self._waits if _is_late(wait, longest)]
            if late:
                self.faults.append(f"late: {[wait.what for wait in late]}")
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                return

    def expect(self, what: str, holds: object) -> None:
        """Note a fault unless *what* is so."""
        if not holds:
            self.faults.append(f"not so: {what}")

    def settings(self) -> dict[str, Any]:
        """What the map is opened with."""
        instruments: list[Instrument] = [Listener(self)]
        if self.is_scraped:
            scraper = Scraper(self, LIMIT)
            instruments += [scraper, scraper.prometheus]
        if self._spans is not None:
            instruments.append(self._spans.instrument)
        return {**SETTINGS, "instruments": instruments}

    def finish(self, statistics: TaskMapStatistics) -> None:
        """All is over: see whether the books agree."""
        counts = (statistics.running, statistics.pending, statistics.overdue)
        self.expect("nothing runs in the end", counts == (0, 0, 0))
        self.expect("nothing waits for a slot", statistics.waiting_for_slot == 0)

    def report(self) -> str:
        """The figures, and what was wrong."""
        self._over.set()
        self._watchdog.join()
        with self._lock:
            self._read_log()
        self.expect("every operation ends", not self._active)
        self.expect("the limit holds", self.most_at_once <= LIMIT)
        compared = self.counts["series compared"] > 0
        self.expect("the numbers were compared", compared == self.is_scraped)
        self.expect("all that begins ends", self.counts["runs begun"] == self.counts["runs ended"])
        if self._spans is not None:
            self._spans.finish()
            self.expect("each is a run", self.counts["spans ended"] == self.counts["runs begun"])
        self.counts["overlaps"] += 0
        self.counts["most operations at once"] = self.most_at_once
        rows = [(what, str(number)) for what, number in sorted(self.counts.items())]
        rows.append(("longest from a condition to who waits for it", f"{self.longest_wait:.3f} s"))
        lines = [f"{self.shell}, seed {self.seed}:", *(f"  {a:<46}{b:>12}" for a, b in rows)]
        return "\n".join([*lines, *(f"  FAULT: {fault}" for fault in self.faults)])


class Observed(Protocol):
    """What a map of any dialect has to be looked at."""

    def observe(self) -> Observation: ...
    def check(self, name: Hashable, *, since: Observation | None = None) -> object: ...
    def state(self, name: Hashable) -> State: ...
    def failure(self, name: Hashable) -> object: ...
    def failures(self, *, state: State | None = None) -> Iterable[Failure]: ...
    def pending(self) -> list[PendingRun]: ...
    def next_retry_at(self) -> float | None: ...
    def outcomes(self) -> list[Outcome]: ...
    def statistics(self) -> TaskMapStatistics: ...


@final
class Listings:
    """The observations that one actor has open, and the options of its starts."""

    def __init__(self, tally: Tally, tasks: Observed, chance: random.Random) -> None:
        self._tally = tally
        self._tasks = tasks
        self._random = chance
        self._open: list[tuple[Observation, int]] = []
        """With the number of operations that had ended by then."""

    def renew(self) -> None:
        """Open an observation, and close or drop one if there are many."""
        look = self._tasks.observe()
        self._open.append((look, self._tally.ended()))
        if len(self._open) > 3:
            old, _ = self._open.pop(self._random.randrange(3))
            self._tally.count("observations expired", old.expired)
            if self._random.random() < 0.8:
                old.close()

    def options(self, name: Hashable) -> StartedSince:
        """Draw a policy, whether to retry, and an observation, for a start of *name*."""
        backoff = self._random.choice(["map", "map", "map", QUICK, None])
        options: dict[str, Any] = {"if_busy": self._random.choice(IF_BUSY), "backoff": backoff}
        options["retry"] = backoff is not None and self._random.random() < 0.4
        if not self._open or self._random.random() < 0.75:
            return StartedSince(options, 0, 0)
        options["since"], began = self._random.choice(self._open)
        return StartedSince(options, began, self._tally.last_end(name))

    def started(self, start: StartedSince) -> None:
        """A start was not refused: its observation must not have forbidden it."""
        self._tally.count("starts that may be retried", start.options["retry"])
        if "since" not in start.options:
            return
        self._tally.count("starts since a listing")
        if start.options["if_busy"] in ("refuse", "skip"):  # so the name was free
            self._tally.expect("no start acts on an old listing", start.last_end <= start.began)

    def look(self, name: Hashable) -> None:
        """Ask for all that a map tells."""
        tasks = self._tasks
        tasks.check(name)
        for look, _ in self._open:
            tasks.check(name, since=look)
        tasks.state(name)
        tasks.failure(name)
        for failure in tasks.failures():
            self._tally.expect("a failure has failures", failure.failures > 0)
        for failure in tasks.failures(state=State.GAVE_UP):
            self._tally.expect("it gave up", failure.gave_up)
        self._tally.count("retries seen", sum(run.kind == "retry" for run in tasks.pending()))
        tasks.next_retry_at()
        outcomes = tasks.outcomes()
        self._tally.expect("outcomes are few", len(outcomes) <= SETTINGS["keep_outcomes"])
        keys = {(one.name, one.operation) for one in outcomes}
        self._tally.expect("each name and operation has one outcome", len(keys) == len(outcomes))
        counts = tasks.statistics()
        self._tally.expect("ages are positive", counts.oldest_run_age >= 0)
        self._tally.expect("waits are positive", counts.longest_slot_wait >= 0)


@attrs.frozen
class StartedSince:
    """The options of a start, and what had ended when it was made."""

    options: dict[str, Any]
    began: int
    """The operations that had ended when its observation was open."""
    last_end: int
    """The last one of its name, or of one that overlaps it, just before the start."""


def attempt_of(choice: float) -> float:
    """The choice of this attempt: each does something else."""
    return (choice + 0.3 * (current_run().attempts - 1)) % 1.0


def _is_late(wait: Wait, longest: float) -> bool:
    return wait.over_since is not None and time.monotonic() - wait.over_since > longest


Stop = Callable[[], bool]
"""Whether the time is over."""


def stop_after(seconds: float) -> Stop:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
