"""Pools that a test drives by hand, and other things that the tests of executors share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

SOON = 30.0
"""Seconds after which a test of threads and processes gives up: not reached when all is well."""


class ByHand(Executor):
    """A pool whose test ends the jobs; its futures are never marked as running, as Dask's."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


class AtOnce(Executor):
    """A pool that runs its jobs in the submitter's thread, inside of `submit`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args))
        return future


class OfProcesses(ByHand):
    """A pool that has lost a worker, and whose other processes end when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.shut_down = 0
        self.is_waited_for = threading.Event()
        self.go = threading.Event()
        self.error: Exception | None = None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        assert wait
        self.shut_down += 1
        self.is_waited_for.set()
        assert self.go.wait(SOON)
        if self.error is not None:
            raise self.error


class Ends:
    """What a job's *ended* was given, and in which thread."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.thread: threading.Thread | None = None
        self._come = threading.Event()

    def __call__(self, future: Future[Any]) -> None:
        self.futures.append(future)
        self.thread = threading.current_thread()
        self._come.set()

    def wait(self) -> Future[Any]:
        """The future of a job that has ended, or ends soon."""
        assert self._come.wait(SOON)
        assert len(self.futures) == 1
        return self.futures[0]


class Gate:
    """A function for a thread, which says that it runs, and runs until it is let go."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.go = threading.Event()

    def __call__(self, result: Any = None) -> Any:
        self.running.set()
        assert self.go.wait(SOON)
        return result
