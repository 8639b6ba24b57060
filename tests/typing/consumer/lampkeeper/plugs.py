"""What it plugs into a map: a policy, an instrument, executors."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar, assert_type

import trio

from namedtasks import Backoff
from namedtasks.abc import BackoffPolicy, Clock, FailedRun, Instrument
from namedtasks.executors import from_pool
from namedtasks.instruments import TaskEvent, TaskFailed, TaskRefused, TaskSucceeded

T = TypeVar("T")
P = ParamSpec("P")


class BrokenLamp(Exception):
    """No patience helps."""


class Patience:
    """A policy is anything that has its method."""

    maximum = 8.0

    def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float | None:
        if isinstance(error, BrokenLamp):
            return None
        return min(0.01 * failures, self.maximum)


def policy_for(kind: str) -> BackoffPolicy | None:
    """Each of them fits."""
    if kind == "patient":
        return Patience()
    return Backoff(initial=1, exempt=(KeyError,), give_up_after=3) if kind == "usual" else None


class Tally(Instrument):
    """Counts what it hears."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.last: dict[Hashable, TaskEvent] = {}

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        assert_type(event.duration, float)
        self._count(event)

    def task_failed(self, event: TaskFailed, /) -> None:
        assert_type(event.error, BaseException)
        assert_type(event.retry_in, float | None)
        self._count(event)

    def task_refused(self, event: TaskRefused, /) -> None:
        assert_type(event.skipped, bool)
        self._count(event)

    def _count(self, event: TaskEvent) -> None:
        self.counts[event.hook] += 1
        self.last[event.name] = event


async def run_in_two_threads(fn: Callable[..., T], *args: Any) -> T:
    """An executor for trio: anything shaped like `trio.to_thread.run_sync`."""
    return await trio.to_thread.run_sync(fn, *args, limiter=LIMITER.get())


LIMITER: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("limiter")


def executor_of(pool: Executor) -> Callable[..., Awaitable[Any]]:
    """Or one that is made of a pool."""
    return from_pool(pool)


class CountingPool(ThreadPoolExecutor):
    """An executor for threads and asyncio: any of `concurrent.futures`."""

    submitted = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        self.submitted += 1
        return super().submit(fn, *args, **kwargs)


class FrozenClock:
    """A clock is anything that has its two methods."""

    def now(self) -> float:
        return 0.0

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        wake.acquire()


CLOCK: Clock = FrozenClock()
