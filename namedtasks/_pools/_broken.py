"""Waits for the processes of a pool that has lost a worker, and then ends the pool's jobs.

A pool of processes that has lost a worker asks the others to terminate. A worker
need not obey: a handler for SIGTERM that it has inherited, or a body that ignores
the signal, is enough. So here the processes themselves are waited for, and not the
pool's manager thread, which may never stop waiting for them or may have crashed. What
is left `GRACE` seconds later is killed.
"""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from threading import Lock
from typing import Any, NamedTuple, final

from namedtasks._daemons import make_daemon
from namedtasks._log import complain

GRACE = 5.0
"""Seconds between the pool's SIGTERM and our SIGKILL, as trio gives a process."""

SHORTLY = 0.1
"""Seconds in which processes mostly end; `Job.lost` is called after that."""

_LONGEST_WAIT = 3_600.0
"""Seconds: the system's own waits do not take any number."""


class Job(NamedTuple):
    """Functions to call for a job of a broken pool."""

    lost: Callable[[], object]
    """Called if the pool's processes do not end shortly: the job may become overdue."""
    tell: Callable[[], object]
    """Called when nothing runs in the pool any more: ends the job."""

    def note_lost(self) -> None:
        """Call `lost`, and log what it raises: the processes have to be killed all the same."""
        try:
            self.lost()
        except BaseException as error:
            complain("what is called when a pool has lost a worker failed", error)


@final
class _Worker:
    """A worker process of a broken pool."""

    __slots__ = ("_pidfd", "_process", "_was_killed", "handle")

    handle: Any
    """The object to wait for in `multiprocessing.connection.wait`."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self._was_killed = False
        self._pidfd = _pidfd_of(process)
        self.handle = process.sentinel if self._pidfd is None else self._pidfd

    def stop(self, *, kill: bool) -> None:
        if self._was_killed:
            return
        self._was_killed = kill
        process = self._process
        try:
            if self._pidfd is not None:  # never another process, which may have got the id since
                number = signal.SIGKILL if kill else signal.SIGTERM
                signal.pidfd_send_signal(self._pidfd, number)
            elif kill:
                process.kill()
            else:
                process.terminate()
        except ProcessLookupError:
            pass  # it has just ended
        except Exception as error:
            complain("a worker process of a broken pool cannot be stopped", error)

    def close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)


def _pidfd_of(process: Any) -> int | None:
    try:
        return os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux; a sandbox; no file descriptor left; it is gone
        return None


@final
class _BrokenPool:
    """The wait for one broken pool."""

    _now = staticmethod(time.monotonic)  # a class attribute, which freezegun leaves alone

    def __init__(self, pool: Executor) -> None:
        self._pool = pool  # kept: it is known by its id
        self.jobs: list[Job] = []
        self.is_awaited = False
        """True while a thread waits for it."""
        self.takes_long = False
        """True once `Job.lost` was called because the processes did not end shortly."""
        self.grace = GRACE
        self._shared: Mapping[int, Any] = {}
        """The pool's table of processes: one that was being started may come later."""
        self._seen: set[Any] = set()
        self._alive: dict[Any, _Worker] = {}

    def add(self, processes: tuple[Any, ...], shared: Mapping[int, Any]) -> None:
        """Watch these *processes*, and those of the *shared* table. Guarded by `_lock`."""
        self._shared = shared
        self._watch(processes)

    def _watch(self, processes: tuple[Any, ...]) -> None:
        for process in (*processes, *dict(self._shared).values()):
            if process not in self._seen:
                self._seen.add(process)
                worker = _Worker(process)
                # Looked at after its pidfd was opened: once its exit status was taken, the id may
                # belong to another process, which must not be killed.
                if process.exitcode is None:
                    self._alive[worker.handle] = worker
                else:
                    worker.close()

    def wait(self) -> None:
        """Wait until all processes have ended, by themselves or killed."""
        if not self._seen:
            # A pool that we do not know, and that may have processes somewhere.
            try:
                self._pool.shutdown(wait=True)
            except BaseException as error:
                complain("shutting a broken pool down failed", error)
            return
        if self._have_ended(SHORTLY):
            return
        with _lock:
            self.takes_long = True
            jobs = list(self.jobs)
        for job in jobs:
            job.note_lost()
        self._kill_after_grace()

    def end_here(self) -> None:
        """End the processes in the pool's place, in the thread in which it is about to do so.

        It would never stop waiting for them if they do not terminate.
        """
        self._stop_all(kill=False)
        self._kill_after_grace()

    def _kill_after_grace(self) -> None:
        while not self._have_ended(self.grace):
            self._stop_all(kill=True)

    def _stop_all(self, *, kill: bool) -> None:
        with _lock:
            alive = list(self._alive.values())
        for worker in alive:
            worker.stop(kill=kill)

    def _have_ended(self, seconds: float) -> bool:
        """Wait at most *seconds* until all have ended; return whether they have."""
        # Imported with the pool's class, and not by us without one.
        wait = importlib.import_module("multiprocessing.connection").wait
        until = self._now() + seconds
        while True:
            with _lock:
                self._watch(())
                alive = dict(self._alive)
            if not alive:
                return True
            left = until - self._now()
            if left < 0:
                return False
            for handle in wait(list(alive), min(left, _LONGEST_WAIT)):
                with _lock:
                    self._alive.pop(handle).close()


_lock = Lock()
_broken_pools: dict[int, _BrokenPool] = {}
"""By the ids of the pools."""


def hold(
    pool: Executor,
    processes: tuple[Any, ...],
    shared: Mapping[int, Any],
    job: Job,
    overdue_after: float,
) -> None:
    """Arrange that ``job.tell`` is called when nothing runs in *pool* any more.

    This is called in the pool's own manager thread, before the pool asks its
    processes to terminate: later it forgets some of them (loky), or has taken
    their exit status, and their ids could be those of others. If no thread can
    be started for the wait, as from Python 3.12 on at the interpreter's exit,
    the processes are ended here, the names stay taken, and the future logs why.
    """
    with _lock:
        broken = _broken_pools.setdefault(id(pool), _BrokenPool(pool))
        broken.jobs.append(job)
        broken.grace = max(broken.grace, overdue_after)
        broken.add(processes, shared)
        was_awaited, broken.is_awaited = broken.is_awaited, True
        is_late = broken.takes_long
    if is_late:
        job.note_lost()
    if was_awaited:
        return
    try:
        in_a_thread(_await_end, pool, broken)
    except BaseException:
        broken.end_here()
        with _lock:
            broken.is_awaited = False  # the next one tries again, for all
        raise


def _await_end(pool: Executor, broken: _BrokenPool) -> None:
    broken.wait()
    with _lock:
        del _broken_pools[id(pool)]
    for job in broken.jobs:
        job.tell()


def in_a_thread(fn: Callable[..., object], *args: object) -> None:
    """Have ``fn(*args)`` called in a thread that never keeps the interpreter from its exit."""
    make_daemon("namedtasks: a pool's jobs", fn, *args).start()
