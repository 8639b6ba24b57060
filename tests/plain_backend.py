"""A scheduler whose time a test sets, and a backend whose bodies end when a test says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs

from namedtasks import Backoff, State
from namedtasks._base import Waits, apply_effects, end_run, finish_run, resolve
from namedtasks._decisions import Conflict, Effects, IfBusy, RetryDecision, StartAction, refusal
from namedtasks._scheduler import Scheduler
from namedtasks._state import Run, RunStatus, Semaphore
from namedtasks._task_map import BaseTaskMap
from namedtasks.instruments import TaskEvent
from namedtasks.testing import RecordingInstrument

T = TypeVar("T")


def never() -> float:
    """Raise: there is no jitter in these tests."""
    raise AssertionError("nothing is random here")


def make_scheduler(**settings: Any) -> Scheduler[Any]:
    """Make a scheduler that differs from the plainest one in its *settings*."""
    plain: dict[str, Any] = {
        "backoff": Backoff(),
        "retention": None,
        "limit": None,
        "overdue_after": 1.0,
        "instruments": (),
        "random": never,
    }
    return Scheduler(**plain | settings)


def has_slot(run: Run) -> bool:
    """Return whether *run* has its name and its slot."""
    return run.status in (RunStatus.ADMITTED, RunStatus.BEGUN)


@attrs.define
class World:
    """A scheduler with a time that the test sets."""

    scheduler: Scheduler[Run]
    recording: RecordingInstrument
    now: float = 0.0
    effects: Effects[Run] = attrs.field(factory=Effects)
    """The effects of the last call of `defer`."""

    def clock(self) -> float:
        return self.now

    def make_run(
        self,
        name: Hashable,
        operation: str | None = None,
        timeout: float = math.inf,
        semaphore: Semaphore[Run] | None = None,
    ) -> Run:
        return Run(None, name, operation, timeout, semaphore or self.scheduler.slots)

    def conflict(self, name: Hashable = "a", operation: str | None = None) -> Conflict[Run] | None:
        return self.scheduler.find_conflict(name, operation, self.clock)

    def start(
        self,
        name: Hashable = "a",
        operation: str | None = None,
        *,
        timeout: float = math.inf,
        semaphore: Semaphore[Run] | None = None,
    ) -> Run:
        """Start a run; its body begins if it has a slot."""
        conflict = self.conflict(name, operation)
        if conflict is not None:
            raise refusal(conflict, name, operation, self.now)
        run = self.make_run(name, operation, timeout, semaphore)
        self.scheduler.admit(run, self.clock)
        if has_slot(run):
            self.scheduler.begin(run, self.now)
        return run

    def defer(
        self,
        name: Hashable,
        if_busy: IfBusy,
        operation: str | None = None,
        *,
        semaphore: Semaphore[Run] | None = None,
    ) -> Run:
        """Defer a start, which finds a conflict."""
        assert self.conflict(name, operation) is not None
        run = self.make_run(name, operation, semaphore=semaphore)
        self.effects = self.scheduler.defer(run, if_busy, self.now)
        return run

    def finish(
        self,
        run: Run,
        status: RunStatus,
        error: BaseException | None = None,
        retry: RetryDecision | None = None,
    ) -> Effects[Run]:
        return self.scheduler.finish(run, status, self.clock, error, retry)

    def succeed(self, run: Run) -> Effects[Run]:
        return self.finish(run, RunStatus.SUCCEEDED)

    def cancelled(self, run: Run) -> Effects[Run]:
        return self.finish(run, RunStatus.CANCELLED)

    def fail(self, run: Run, error: BaseException | None = None) -> Effects[Run]:
        error = ValueError("boom") if error is None else error
        retry = self.scheduler.decide_retry(run, error, self.clock)
        return self.finish(run, RunStatus.FAILED, error, retry)

    def roll_back(self, run: Run) -> Effects[Run]:
        return self.scheduler.roll_back(run, self.clock)

    def drop(self, run: Run, reason: str | None = None) -> Effects[Run]:
        return self.scheduler.drop(run, reason, self.now)

    def forget(self, name: Hashable = "a", operation: str | None = None) -> Effects[Run] | None:
        return self.scheduler.forget(name, operation, self.now)

    def run_due(self) -> Effects[Run]:
        return self.scheduler.run_due(self.now)

    def drain(self) -> Effects[Run]:
        return self.scheduler.drain(self.now)

    def state(self, name: Hashable = "a", operation: str | None = None) -> State:
        return self.scheduler.state(name, operation, self.now)

    def events(self) -> list[TaskEvent]:
        """Return the events since the last call."""
        return self.events_and_runs()[0]

    def events_and_runs(self) -> tuple[list[TaskEvent], list[Run]]:
        """Return the events since the last call, and the runs of those that are about one."""
        about: list[Run] = []

        def keep(run: Run) -> bool:
            about.append(run)
            return False

        self.scheduler.events.deliver(keep=keep)
        events, self.recording.events = self.recording.events, []
        return events, about


def make_world(*, listens: bool = True, **settings: Any) -> World:
    """Make a world; without a limit or a failure, if the *settings* do not say otherwise."""
    recording = RecordingInstrument()
    return World(make_scheduler(instruments=[recording] if listens else [], **settings), recording)


@attrs.define(eq=False)
class PlainQueue:
    """A wait queue that counts its wake-ups."""

    sleepers: int = 0
    woken: int = 0

    def unpark_all(self) -> None:
        self.woken += 1

    def __len__(self) -> int:
        return self.sleepers


class PlainRun(Run):
    """A run that a test ends."""

    waiters: PlainQueue


class Lock:
    """A lock that cannot be entered twice."""

    def __init__(self) -> None:
        self.depth = 0
        self.entered = 0

    def __enter__(self) -> None:
        assert self.depth == 0, "the lock need not be one that can be entered twice"
        self.depth += 1
        self.entered += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1


class PlainBackend:
    """A backend that notes its calls in `calls`: each with the name that it is about."""

    def __init__(self, **settings: Any) -> None:
        self.recording = RecordingInstrument()
        self.scheduler: Scheduler[PlainRun] = make_scheduler(
            **{
                "backoff": None,
                "retention": 10.0,
                "overdue_after": 2.5,
                "instruments": [self.recording],
                **settings,
            }
        )
        self.time = 0.0
        self.now: Callable[[], float] = lambda: self.time
        self.lock: Any = Lock()
        self.ends_when_idle = False
        self.calls: list[tuple[str, Hashable]] = []
        self.cannot_begin: dict[Hashable, BaseException] = {}
        """The errors of names whose bodies cannot begin."""
        self.postpones = False
        """True if the caller is inside the map already."""
        self.timers_set = 0
        self.waits: Waits[PlainRun, PlainQueue] = Waits(self.scheduler, self.now, PlainQueue)
        self.waits.idle.sleepers = 1

    # The calls of a test

    def make_run(
        self,
        name: Hashable,
        operation: str | None = None,
        timeout: float = math.inf,
        semaphore: Semaphore[PlainRun] | None = None,
    ) -> PlainRun:
        run = PlainRun(self, name, operation, timeout, semaphore or self.scheduler.slots)
        run.handle = f"handle of {name}"
        run.waiters = PlainQueue()
        return run

    def start(
        self,
        name: Hashable,
        if_busy: IfBusy = "refuse",
        operation: str | None = None,
        *,
        timeout: float = math.inf,
        semaphore: Semaphore[PlainRun] | None = None,
    ) -> Any:
        """Start as a dialect does; return the run, the one that was joined, or None."""
        scheduler = self.scheduler
        conflict = scheduler.find_conflict(name, operation, self.now)
        if conflict is not None:
            action = resolve(self, conflict, name, operation, if_busy)
            if action is not StartAction.DEFER:
                return scheduler.run_to_join(name) if action is StartAction.JOIN else None
        run = self.make_run(name, operation, timeout, semaphore)
        if conflict is not None:
            with self.lock:
                effects = scheduler.defer(run, if_busy, self.time)
                self.waits.wake(*effects.dropped)
            apply_effects(self, effects)
            return run
        scheduler.admit(run, self.now)
        if has_slot(run):
            scheduler.begin(run, self.time)
        return run

    def succeed(self, run: PlainRun) -> None:
        finish_run(self, run, None)

    def fail(self, run: PlainRun, error: BaseException | None = None) -> None:
        finish_run(self, run, ValueError("boom") if error is None else error)

    def escape(self, run: PlainRun, error: BaseException) -> None:
        """End *run* with an error that does not count."""
        apply_effects(self, end_run(self, run, RunStatus.FAILED, error), run)

    def taken(self) -> list[tuple[str, Hashable]]:
        """Return the calls since the last time."""
        calls, self.calls = self.calls, []
        return calls

    def events(self) -> list[TaskEvent]:
        """Return the events since the last time."""
        self.scheduler.events.deliver()
        events, self.recording.events = self.recording.events, []
        return events

    @contextmanager
    def wakes(self, *queues: PlainQueue) -> Generator[None]:
        """Check that each of *queues* is woken in the block."""
        before = [queue.woken for queue in queues]
        yield
        assert all(queue.woken > old for queue, old in zip(queues, before, strict=True))

    @contextmanager
    def wakes_not(self, *queues: PlainQueue) -> Generator[None]:
        """Check that none of *queues* is woken in the block."""
        before = [queue.woken for queue in queues]
        yield
        assert [queue.woken for queue in queues] == before

    # The methods of a backend

    def call(self, verb: Callable[[], T]) -> T:
        return verb()

    def call_or_postpone(self, verb: Callable[[], T], answer: T) -> T:
        return answer if self.postpones else verb()

    def can_drop(self, run: PlainRun) -> bool:
        assert self.lock.depth == 1
        return run.status is RunStatus.QUEUED

    def spawn(self, run: PlainRun) -> BaseException | None:
        self._note("spawn", run.name)
        error = self.cannot_begin.get(run.name)
        if error is None:
            self.scheduler.begin(run, self.time)
        return error

    def interrupt(self, run: PlainRun) -> None:
        self._note("interrupt", run.name)

    def discard(self, run: PlainRun) -> None:
        assert run.done
        self._note("discard", run.name)

    def note_lost_worker(self, run: PlainRun, attempt: int | None = None) -> None:
        self._note("lost worker", run.name)

    def look(self, look: Callable[[], T]) -> T:
        with self.lock:
            return look()

    def timeout_error(self, message: str) -> Exception:
        return TimeoutError(message)

    def finished(self, *ended: PlainRun) -> None:
        for run in ended:
            assert run.done
            self._note("finished", run.name)
            run.handle = None
        if self.scheduler.timers.changed:
            self.scheduler.timers.changed = False
            self.timers_set += 1
        if self.scheduler.events.queued:
            self._note("deliver", None)
        self.scheduler.events.deliver()

    def _note(self, call: str, name: Hashable) -> None:
        assert self.lock.depth == 0, "the user's code may run here: not under the lock"
        self.calls.append((call, name))


class PlainMap(BaseTaskMap[str]):
    """A map on a `PlainBackend`."""

    __slots__ = ()
