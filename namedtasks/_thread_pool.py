"""The map's own threads: made on demand, daemons, let go when they have nothing to do.

They are daemons, so that a body that hangs does not hang the interpreter's exit
(`concurrent.futures` joins its threads there). How many there may be is decided
by the slots, before a job comes here: a pool never has more threads than jobs at
once.

Theory of operation. To wake a thread costs more than most jobs of a burst. So
jobs stand in a line, and one thread is called at a time: it takes the first job,
calls the next thread if there is more in the line, and begins. A job that is over
quickly is followed by the next in the same thread, and who was called finds
nothing left to do; one that takes long holds up nobody, as the next thread is on
its way already.

There is no lock here that a signal handler could meet: what is shared is a
deque and two dicts, which are changed in single, atomic steps. One has the threads
that are on their way and have not looked into the line yet; who puts a job there
looks at it afterwards, and who comes takes himself out before looking.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, final

from namedtasks._daemons import make_daemon

_LINGERS = 10.0
"""Seconds for which a thread waits for another job, as trio's do."""


class Job(NamedTuple):
    """What is to be done in some thread. Neither of the two raises anything."""

    run: Callable[[], object]
    refuse: Callable[[BaseException], None]
    """Told if it never will be run, as no thread can be started."""


@final
class ThreadPool:
    """Runs jobs, none of which waits for another one to end."""

    __slots__ = ("_called", "_closed", "_idle", "_jobs", "_name", "_start")

    def __init__(
        self, name: str, start: Callable[[threading.Thread], None] = threading.Thread.start
    ) -> None:
        self._name = name
        self._start = start
        """Starts a thread: by the map's own rules, if it has some."""
        self._closed = False
        self._jobs: deque[Job] = deque()
        self._called: dict[_Worker, None] = {}
        """Who is on the way, and has not looked yet: more than one if two have called at once."""
        # The last in is the first out.
        self._idle: dict[_Worker, None] = {}

    def submit(self, job: Job) -> None:
        """Have *job* run in some thread, soon.

        Raises:
            RuntimeError: no thread can be started; the job will not run.
        """
        self._jobs.append(job)
        if self._called:
            return
        try:
            self._call_one()
        except BaseException as error:
            try:
                self._jobs.remove(job)
            except ValueError:  # somebody is just running it
                return
            finally:
                self._refuse_all(error)
            raise

    def call_another(self) -> None:
        """Have a thread look into the line, if there is anything in it and nobody is on the way."""
        if self._jobs and not self._called:
            try:
                self._call_one()
            except BaseException as error:
                self._refuse_all(error)

    def _call_one(self) -> None:
        try:
            worker, _ = self._idle.popitem()
            call: Callable[[], object] = worker.wake.release
        except KeyError:
            worker = _Worker(self)
            call = partial(self._start, make_daemon(self._name, worker.work))
        self._called[worker] = None  # first: it may be there at once
        try:
            call()
        except BaseException:
            self._called.pop(worker, None)
            raise

    def _refuse_all(self, error: BaseException) -> None:
        """Nobody will come: tell those who have counted on that. They must not wait for others.

        A thread that has come just now may find fewer jobs than it could have done.
        """
        while not self._called and (job := self.take()) is not None:
            job.refuse(error)

    def look(self, worker: _Worker) -> None:
        """*worker* has come, and will look into the line."""
        self._called.pop(worker, None)

    def take(self) -> Job | None:
        """The first job in the line."""
        try:
            return self._jobs.popleft()
        except IndexError:
            return None

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
        """Have *worker* wait until it is called; False if it is not needed any more."""
        self._idle[worker] = None
        # Who closes the pool may not see this one; then it must see that.
        if worker.wake.acquire(timeout=0.0 if self._closed else _LINGERS):
            return not self._closed or worker in self._called
        try:
            del self._idle[worker]
        except KeyError:  # somebody is just calling it
            worker.wake.acquire()
            return not self._closed or worker in self._called
        return False


@final
class _Worker:
    """What one thread of the pool runs."""

    __slots__ = ("_pool", "wake")

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self.wake: threading.Lock = threading.Lock()
        self.wake.acquire()

    def work(self) -> None:
        pool = self._pool
        is_called = True
        while is_called:
            pool.look(self)
            while (job := pool.take()) is not None:
                pool.call_another()
                job.run()
                del job
            is_called = pool.rest(self)
