"""Own threads: daemons, started on demand, which leave when they have nothing to do.

They are daemons, so that a body that hangs does not hold up the interpreter's exit
(`concurrent.futures` joins its threads there). The caller limits how many there
are: a pool never has more threads than jobs that were unfinished at the same time.

Theory of operation. Waking a thread costs more than most jobs of a burst. So jobs
stand in a line, and one thread is called at a time. It takes the first job, calls
the next thread if there are more jobs in the line, and runs its job. If the job is
short, the same thread takes the next one, and the thread that was called may find
nothing left to do. If the job is long, the next thread is already on its way, so no
job waits for another one to end.

Hand-overs. There is no lock that a signal handler or a finalizer could block on. The
threads share a deque and three dicts, each of which is changed in single steps that
lock it, with and without the GIL:

``_jobs``    the line
``_coming``  at key 0, the mark of a thread that was called and has not looked into
             the line yet; a mark is false until it is certain that its thread comes
``_idle``    the threads that sleep, by the locks that wake them
``_alive``   the threads that have not left

- A submitter appends its job, then looks at ``_coming``. A thread that comes deletes
  the mark, then looks into the line. So the submitter sees no mark, and calls a
  thread, or the thread sees the job. A submitter never relies on a mark that is
  false: the start of that thread may fail.
- A submitter appends its job, then looks for a thread in ``_idle``. A thread enters
  ``_idle``, then looks into the line, and does not sleep if it finds a job there.
  `ThreadPool.close` and its flag work the same way.
- A submitter for which no thread could be started looks at ``_alive`` next. A thread
  that leaves takes itself out of ``_alive``, then looks into the line, and stays if
  it finds a job there.

These threads may look into the line by its truth, without a lock: the submitter
appended first, and then locked the dict that the thread has just changed. If the
submitter's look came first, the thread sees the job; if it came second, the
submitter sees the thread's change.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

# The one that it was when namedtasks was imported: gevent may replace it, even before the
# modules of a dialect are imported.
from threading import get_ident as get_ident
from typing import Any, Generic, TypeVar, final

LINGERS = 10.0
"""Seconds for which a thread waits for something to do, as trio's do."""

JobT = TypeVar("JobT")


def make_daemon(name: str, target: Callable[..., object], *args: object) -> threading.Thread:
    """Return a daemon thread, not yet started, that calls ``target(*args)`` in an empty context.

    A daemon thread does not hold up the interpreter's exit.
    A thread of the package works for many callers. With the context of the
    caller that made it start, it would keep that caller's objects alive, and
    show that caller's context variables and warning filters to the callbacks
    and instruments of all others.

    Raises:
        RuntimeError: the caller is in a sub-interpreter that allows no daemon threads.
    """
    # Before Python 3.14 there is no such option, and every thread begins with an empty context.
    # From 3.14 on, threads inherit the context of the thread that starts them on free-threaded
    # builds, and elsewhere with ``-X thread_inherit_context=1``.
    options: dict[str, Any] = (
        {"context": contextvars.Context()} if sys.version_info >= (3, 14) else {}
    )
    try:
        return threading.Thread(target=target, args=args, name=name, daemon=True, **options)
    except RuntimeError as error:  # raised there only
        raise RuntimeError(
            "the threads of a task map are daemon threads, which are disabled in this "
            "sub-interpreter: use the map in the main interpreter, or pass a "
            "concurrent.futures.ThreadPoolExecutor as its executor (on trio by "
            "namedtasks.executors.from_pool)"
        ) from error


_LONGEST_IN_MAIN_THREAD = 1.0
"""Seconds for which Ctrl-C may be unnoticed there: a signal that comes just before a lock
is waited for does not interrupt that wait, and Python looks at signals only then."""


@final
class MonotonicClock:
    """The system's monotonic clock, the default one of a thread map.

    freezegun replaces ``time.monotonic`` and all globals that refer to it, and a wait on a clock
    that stands still never times out. So the function is an attribute of the class, which
    freezegun leaves alone.
    """

    __slots__ = ()

    now = staticmethod(time.monotonic)

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        """Acquire *wake*, or give up when it is *until*; in the main thread after a second."""
        seconds = until - self.now()
        if get_ident() == threading.main_thread().ident:
            seconds = min(seconds, _LONGEST_IN_MAIN_THREAD)
        if seconds > threading.TIMEOUT_MAX:
            wake.acquire()
        else:
            wake.acquire(timeout=max(seconds, 0.0))


@final
class ThreadPool(Generic[JobT]):
    """Runs jobs, none of which waits for another one to end.

    Args:
        name: The name of its threads.
        work: Runs one job, in a thread of the pool, and raises nothing.
        start: Starts a thread.
    """

    __slots__ = ("_alive", "_coming", "_idle", "_jobs", "_name", "_start", "_work", "closed")

    def __init__(
        self,
        name: str,
        work: Callable[[JobT], object],
        start: Callable[[threading.Thread], None] = threading.Thread.start,
    ) -> None:
        self._name = name
        self._work = work
        self._start = start
        self.closed: bool = False
        """True if idle threads leave at once."""
        self._jobs: deque[JobT] = deque()
        self._coming: dict[int, list[bool]] = {}
        self._idle: dict[threading.Lock, None] = {}  # the last one in is the first one out
        self._alive: dict[threading.Lock, None] = {}

    def submit(self, job: JobT) -> None:
        """Arrange that a thread of the pool runs *job* soon.

        If no thread can be started and another one lives, the job stays in line.

        Args:
            job: An object that equals no other job.

        Raises:
            Exception: no thread can be started and none lives, mostly a
                `RuntimeError`; the job will not run.
        """
        mark: list[bool] = []
        self._jobs.append(job)
        if self._coming.setdefault(0, mark):
            return
        try:
            wake, _ = self._idle.popitem()
        except KeyError:
            self._add_thread(mark, job)
        else:
            wake.release()
            mark.append(True)

    def close(self) -> None:
        """Make the idle threads leave, now and from now on."""
        self.closed = True
        with contextlib.suppress(KeyError):
            while True:
                wake, _ = self._idle.popitem()
                wake.release()

    def _add_thread(self, mark: list[bool], job: JobT) -> None:
        wake = threading.Lock()
        wake.acquire()
        try:
            self._start(make_daemon(self._name, self._run_jobs, wake))
        except Exception:
            self._coming.pop(0, None)
            if self._alive.copy():
                return
            try:
                self._jobs.remove(job)
            except ValueError:  # a thread has just taken it
                return
            raise
        mark.append(True)

    def _run_jobs(self, wake: threading.Lock) -> None:  # noqa: C901 - calls would cost more
        """Run jobs until there are none for long: the target of each thread."""
        jobs, work = self._jobs, self._work
        coming, idle, alive = self._coming, self._idle, self._alive
        mark: list[bool]
        alive[wake] = None
        while True:
            coming.pop(0, None)
            while True:
                try:
                    job = jobs.popleft()
                except IndexError:
                    break
                if jobs and coming.setdefault(0, mark := []) is mark:
                    # As in submit(), and written out in both: a call costs as much as the rest.
                    try:
                        sleeper, _ = idle.popitem()
                    except KeyError:
                        self._add_thread(mark, job)
                    else:
                        sleeper.release()
                        mark.append(True)
                work(job)
                del job
            idle[wake] = None
            if not jobs and wake.acquire(True, 0.0 if self.closed else LINGERS):
                continue
            if idle.pop(wake, self) is self:  # another thread is just calling this one
                wake.acquire()
            elif not jobs:
                del alive[wake]
                if not jobs:
                    return
                alive[wake] = None
