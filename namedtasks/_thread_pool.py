"""The maps' own threads: daemons that are started on demand and exit when they are idle.

They are daemons, so a body that hangs does not delay the interpreter's exit
(`concurrent.futures` joins its threads there). The caller limits their number: a
pool never has more threads than jobs that were unfinished at the same time.

Theory of operation. Waking a thread costs more than most jobs of a burst. So jobs
are queued, and one thread is woken at a time. It takes the first job, wakes the next
thread if there are more jobs in the queue, and runs its job. If the job is short, the
same thread takes the next one, and the woken thread may find no job. If the job is
long, the next thread is already awake, so no job waits for the end of another one.

Hand-overs. There is no lock that a signal handler or a finalizer could block on. The
threads share a deque and three dicts. Each is changed in single steps that lock it,
with and without the GIL:

``_jobs``    the queue
``_coming``  at key 0, the mark of a thread that was woken or started and has not read
             the queue yet; a mark is false until it is certain that its thread runs
``_idle``    the threads that sleep, by the locks that wake them
``_alive``   the threads that have not exited

- A submitter appends its job, then reads ``_coming``. A woken thread deletes the
  mark, then reads the queue. So either the submitter sees no mark and wakes a thread,
  or the woken thread sees the job. A submitter never relies on a mark that is false,
  because the start of that thread may fail.
- A submitter appends its job, then looks for a thread in ``_idle``. A thread enters
  ``_idle``, then reads the queue, and does not sleep if it finds a job there.
  `ThreadPool.close` and its flag work the same way.
- A submitter that could start no thread reads ``_alive`` next. A thread that exits
  removes itself from ``_alive``, then reads the queue, and stays if it finds a job
  there.

These threads may read the queue by its truth, without a lock: the submitter appended
first, and then locked the dict that the thread has just changed. If the submitter
read first, the thread sees the job; if it read second, the submitter sees the
thread's change.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

# The function at the import of namedtasks: gevent may replace it before the modules of a dialect
# are imported.
from threading import get_ident as get_ident
from typing import Any, Generic, TypeVar, final

LINGERS = 10.0
"""The seconds for which an idle thread waits for a job, as in trio."""

JobT = TypeVar("JobT")


def make_daemon(name: str, target: Callable[..., object], *args: object) -> threading.Thread:
    """Return a daemon thread, not yet started, that calls ``target(*args)`` in an empty context.

    A daemon thread does not delay the interpreter's exit.
    A thread of the package works for many callers. With the context of the caller that
    started it, it would keep that caller's objects alive, and the callbacks and
    instruments of all others would see that caller's context variables and warning
    filters.

    Raises:
        RuntimeError: the caller is in a sub-interpreter that allows no daemon threads.
    """
    # Before Python 3.14 this option does not exist, and every thread begins with an empty context.
    # From 3.14 on, threads inherit the context of the thread that starts them on free-threaded
    # builds, and elsewhere with ``-X thread_inherit_context=1``.
    options: dict[str, Any] = (
        {"context": contextvars.Context()} if sys.version_info >= (3, 14) else {}
    )
    try:
        return threading.Thread(target=target, args=args, name=name, daemon=True, **options)
    except RuntimeError as error:  # only in such a sub-interpreter
        raise RuntimeError(
            "the threads of a task map are daemon threads, which are disabled in this "
            "sub-interpreter: use the map in the main interpreter, or pass a "
            "concurrent.futures.ThreadPoolExecutor as its executor (on trio by "
            "namedtasks.executors.from_pool)"
        ) from error


_LONGEST_IN_MAIN_THREAD = 1.0
"""The seconds for which the main thread may not notice Ctrl-C: a signal just before the wait for
a lock does not interrupt the wait, and Python handles signals only after it."""


@final
class MonotonicClock:
    """The system's monotonic clock, the default one of a thread map.

    freezegun replaces ``time.monotonic`` and all globals that refer to it, and a wait on a frozen
    clock never times out. So the function is an attribute of the class, which freezegun does not
    replace.
    """

    __slots__ = ()

    now = staticmethod(time.monotonic)

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        """Acquire *wake*, or return at the time *until*; in the main thread after a second."""
        seconds = until - self.now()
        if get_ident() == threading.main_thread().ident:
            seconds = min(seconds, _LONGEST_IN_MAIN_THREAD)
        if seconds > threading.TIMEOUT_MAX:
            wake.acquire()
        else:
            wake.acquire(timeout=max(seconds, 0.0))


@final
class ThreadPool(Generic[JobT]):
    """Runs jobs in threads; no job waits for the end of another one.

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
        """True if idle threads exit at once."""
        self._jobs: deque[JobT] = deque()
        self._coming: dict[int, list[bool]] = {}
        self._idle: dict[threading.Lock, None] = {}  # the last one to enter is used first
        self._alive: dict[threading.Lock, None] = {}

    def submit(self, job: JobT) -> None:
        """Arrange that a thread of the pool runs *job* soon.

        If no thread can be started but the pool has another one, the job stays in the queue.

        Args:
            job: An object that equals no other job.

        Raises:
            Exception: no thread can be started and the pool has none, mostly a
                `RuntimeError`; the job does not run.
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
        """Make the idle threads exit, now and from now on."""
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
        """Run jobs until there are none for some time: the target of each thread."""
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
            if idle.pop(wake, self) is self:  # another thread is about to wake this one
                wake.acquire()
            elif not jobs:
                del alive[wake]
                if not jobs:
                    return
                alive[wake] = None
