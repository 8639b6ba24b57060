"""What the tests of threads share: how to get somewhere without sleeping, and how to give up."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Generic, TypeVar

import attrs

from namedtasks import ThreadTaskMap
from namedtasks.testing import ManualClock

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which something that should have happened did not."""


def reach(event: threading.Event) -> None:
    """Wait for *event*, which is about to be set."""
    assert event.wait(PATIENCE), "nobody set the event"


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what comes about in another thread, and sets no event."""
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        threading.Event().wait(0.001)
    raise TimeoutError("it never came about")


class Gate:
    """A body that tells when it has begun, and goes on when it may."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_go = threading.Event()

    def __call__(self, value: Any = None) -> Any:
        self.begun.set()
        reach(self.may_go)
        if isinstance(value, BaseException):
            raise value
        return value

    def wait_begun(self) -> None:
        reach(self.begun)

    def open(self) -> None:
        self.may_go.set()


class InThread(Generic[T]):
    """A call in a thread of its own, and what came out of it."""

    def __init__(self, fn: Callable[..., T], *args: Any, **options: Any) -> None:
        self._future: Future[T] = Future()
        self._thread = threading.Thread(
            target=self._call, args=(fn, args, options), daemon=True, name="a test's"
        )
        self._thread.start()

    def _call(self, fn: Callable[..., T], args: Any, options: Any) -> None:
        try:
            self._future.set_result(fn(*args, **options))
        except BaseException as error:
            self._future.set_exception(error)

    def result(self) -> T:
        try:
            return self._future.result(PATIENCE)
        finally:
            self._thread.join(PATIENCE)

    @property
    def is_done(self) -> bool:
        return self._future.done()


class WatchedClock:
    """A `ManualClock` that tells when somebody is about to sleep, registered already."""

    def __init__(self) -> None:
        self.manual = ManualClock()
        self._sleeping = threading.Semaphore(0)

    def now(self) -> float:
        return self.manual.now()

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        self._sleeping.release()
        self.manual.wait(wake, until)

    def advance(self, seconds: float) -> None:
        self.manual.advance(seconds)

    def has_sleeper(self) -> bool:
        """Tell whether somebody has gone to sleep since this was asked."""
        return self._sleeping.acquire(blocking=False)

    def wait_for_sleepers(self, number: int = 1) -> None:
        for _ in range(number):
            assert self._sleeping.acquire(timeout=PATIENCE), "nobody went to sleep"


@attrs.define(eq=False)
class Job:
    """What a `HandPool` was given."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    future: Future[Any]

    def run(self) -> None:
        try:
            value = self.fn(*self.args, **self.options)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(value)


class HandPool(Executor):
    """A pool that nobody knows: its jobs run, or not, when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.raises: BaseException | None = None
        self.on_submit: Callable[[Job], object] = lambda job: None

    def submit(self, fn: Any, /, *args: Any, **options: Any) -> Future[Any]:
        if self.raises is not None:
            raise self.raises
        job = Job(fn, args, options, Future())
        self.jobs.append(job)
        self.on_submit(job)
        return job.future


def boom(text: str = "boom") -> None:
    raise ValueError(text)


def run_child(source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, with these options of the interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=False,
    )


def slots_used(tasks: ThreadTaskMap) -> int:
    """Count the slots that are taken, those of threads included."""
    scheduler = tasks._backend.scheduler
    return scheduler.thread_slots.used + (scheduler.slots.used if scheduler.slots else 0)


def idle_threads(tasks: ThreadTaskMap) -> int:
    """Count the map's own threads that sleep."""
    return len(tasks._backend.pool._idle)
