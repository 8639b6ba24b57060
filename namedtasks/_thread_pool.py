"""The map's own threads: made on demand, daemons, let go when they have nothing to do.

They are daemons, so that a body that hangs does not hang the interpreter's exit
(`concurrent.futures` joins its threads there). How many there may be is decided
by the slots, before a job comes here: a pool never has more threads than jobs at
once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import final

_LINGERS = 10.0
"""Seconds for which a thread waits for another job, as trio's do."""


@final
class ThreadPool:
    """Runs jobs, each in a thread of its own for as long as it takes."""

    __slots__ = ("_closed", "_idle", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._closed = False
        # Each is put in and taken out by single, atomic steps of a dict: there is
        # no lock here that a signal handler could meet. The last in is the first out.
        self._idle: dict[_Worker, None] = {}

    def submit(self, job: Callable[[], None]) -> None:
        """Have *job*, which raises nothing, run in some thread.

        Raises:
            RuntimeError: no thread can be started; the job will not run.
        """
        try:
            worker, _ = self._idle.popitem()
        except KeyError:
            worker = _Worker(self)
            worker.job = job
            threading.Thread(target=worker.work, name=self._name, daemon=True).start()
        else:
            worker.job = job
            worker.wake.release()

    def close(self) -> None:
        """Let go of the threads that have nothing to do, now and from now on."""
        self._closed = True
        while True:
            try:
                worker, _ = self._idle.popitem()
            except KeyError:
                return
            worker.wake.release()

    def rest(self, worker: _Worker) -> bool:
        """Have *worker* wait for another job; whether it has one now."""
        self._idle[worker] = None
        # Who closes the pool may not see this one; then it must see that.
        if worker.wake.acquire(timeout=0.0 if self._closed else _LINGERS):
            return worker.job is not None
        try:
            del self._idle[worker]
        except KeyError:  # somebody is just giving it a job
            worker.wake.acquire()
            return worker.job is not None
        return False


@final
class _Worker:
    """What one thread of the pool runs."""

    __slots__ = ("_pool", "job", "wake")

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self.job: Callable[[], None] | None = None
        self.wake: threading.Lock = threading.Lock()
        self.wake.acquire()

    def work(self) -> None:
        has_job = True
        while has_job:
            job, self.job = self.job, None
            assert job is not None
            job()
            del job
            has_job = self._pool.rest(self)
