"""Adapters for the pools of `concurrent.futures`: run a function, and report its real end.

Every dialect uses this module, so it knows neither trio nor asyncio. Its rules:

1. If `submit` does not raise, the job's *ended* is called once, after the work has
   ended. `submit` itself never calls it, because its caller may hold a lock. There is
   one exception: the pool has run the function inside its own ``submit``, and no
   thread can be started to call *ended*. An error would then mean that nothing ran.
2. A cancelled or failed future does not prove that the work has ended. `_is_honest`
   and `_lost_a_worker` know each kind of pool.
3. Nothing relies on the GIL. Data that two threads use is set before the job's future
   gets its callback, or is under `_lock`.

A pool of processes that has lost a worker asks the others to terminate. A worker may
ignore that, for example because of an inherited handler for SIGTERM. So `_BrokenPool`
waits for the processes themselves. It does not wait for the pool's manager thread,
which may wait for them forever or may have crashed. Processes that are left after
`GRACE` are killed.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from contextvars import copy_context
from functools import partial
from threading import Lock, get_ident
from typing import Any, Literal, TypeAlias, final

from namedtasks._logging import log_error
from namedtasks._thread_pool import MonotonicClock, make_daemon
from namedtasks._validation import safe_repr

PoolOrFactory: TypeAlias = Executor | Callable[[], Executor]
"""A pool, or a function that is called for each job and returns the pool for it."""

Ended: TypeAlias = Callable[[Future[Any]], object]
"""Called with the future of a job whose work has ended: done, failed or cancelled."""

GRACE = 5.0
"""Seconds between the pool's SIGTERM and our SIGKILL, as in trio."""

_SHORTLY = 0.1
"""Seconds in which most processes end; after that the jobs' *lost* is called."""

_LONGEST_WAIT = 3_600.0
"""Seconds: the largest number that we pass to the waits of the system."""

_FIXED = sys.version_info >= (3, 12, 1)
"""True if a `ProcessPoolExecutor` that breaks can handle a cancelled future.

Before, it crashed at a cancelled future: it informed only some of the other futures, and
ended none of its processes (seen with 3.11.7, fixed in 3.12.1). With an older Python, a
cancelled job waits for its turn.
"""

_THREADS = ("concurrent.futures.thread", "ThreadPoolExecutor")
_INTERPRETERS = ("concurrent.futures.interpreter", "InterpreterPoolExecutor")
_PROCESSES = ("concurrent.futures.process", "ProcessPoolExecutor")
_LOKY = ("loky.process_executor", "ProcessPoolExecutor")
_DASK = ("distributed.cfexecutor", "ClientExecutor")

_QUEUE_FIRST = (_THREADS[0], _PROCESSES[0], _LOKY[0])
"""The modules of the pools whose `submit` queues a job, and starts a thread or process after that.

If the system cannot start one, `submit` raises. The job still runs later if the pool has
another worker, or gets one.
"""


def _loaded(kind: tuple[str, str]) -> Any:
    """Return the class, or () if its module was not imported: then no pool is an instance."""
    module, name = kind
    return getattr(sys.modules.get(module), name, ())


def is_in_process(pool: Executor) -> bool:
    """Return True if the pool's functions run in this process and interpreter.

    Only there can they run in the caller's context: a `contextvars.Context`
    cannot be pickled.
    """
    # Python 3.14's pool of interpreters is a ThreadPoolExecutor, too.
    return isinstance(pool, _loaded(_THREADS)) and not isinstance(pool, _loaded(_INTERPRETERS))


def _is_honest(pool: Executor) -> bool:
    """Return True if a job whose future was cancelled never runs.

    The future's class does not show this: Dask uses `concurrent.futures.Future` itself.
    Its futures are never marked as running, so ``cancel()`` returns True while the body
    runs on (seen with distributed 2026.8). So only pools with a known ``submit`` are
    trusted. They mark a future as running before its function can leave the queue, and a
    running future cannot be cancelled. loky's future differs from the standard one only
    in its logging.
    """
    kinds = (_THREADS, _PROCESSES) if _FIXED else (_THREADS,)
    known = [getattr(_loaded(kind), "submit", None) for kind in kinds]
    return isinstance(pool, _loaded(_LOKY)) or type(pool).submit in known


def _lost_a_worker(pool: Executor, future: Future[Any]) -> bool:
    """Return True if *future* is done because a process was lost, and others may still work.

    A pool of processes informs all futures first, and ends its processes after that.
    A broken pool of threads only drops the jobs that had not begun.
    """
    if isinstance(pool, _loaded(_THREADS)) or future.cancelled():
        return False
    error = future.exception()
    if isinstance(pool, _loaded(_LOKY)):
        flags: Any = getattr(pool, "_flags")  # noqa: B009
        # shutdown(kill_workers=True) has the same order, and a RuntimeError.
        return isinstance(error, RuntimeError) and bool(flags.broken or flags.kill_workers)
    # The function may have raised it because of another pool: then this pool is not broken.
    return isinstance(error, BrokenExecutor) and bool(getattr(pool, "_broken", True))


def check_pool(value: object, what: str = "executor") -> None:
    """Check that *value* can be a pool, or a function that returns one.

    Args:
        value: The value.
        what: The argument that it was passed as, for the message.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, type):
        raise TypeError(
            f"{what} must be a pool or a function that returns one, and {value.__name__} is a "
            f"class, which would make a new pool for each job: pass one pool, {value.__name__}(...)"
        )
    if inspect.iscoroutinefunction(value):
        raise TypeError(
            f"{what} must be a pool or a plain function that returns one, and {safe_repr(value)} "
            "is async"
        )
    if not isinstance(value, Executor) and not callable(value):
        raise TypeError(
            f"{what} must be a concurrent.futures.Executor or a function that returns one, not "
            f"{safe_repr(value)} (Dask: client.get_executor(); loky: get_reusable_executor)"
        )


def check_pool_or_none(value: object) -> None:
    """Check that *value* is None, a pool, or a function that returns one.

    Raises:
        TypeError: *value* is neither None nor a pool, nor a function that returns one.
    """
    if value is not None:
        check_pool(value)


def pool_of(pool: PoolOrFactory) -> Executor:
    """Return the pool for the next job.

    Raises:
        TypeError: the factory returned something else.
    """
    made: object = pool if isinstance(pool, Executor) else pool()
    if isinstance(made, Executor):
        return made
    raise TypeError(
        "the function for the pool must return a concurrent.futures.Executor, and "
        f"{safe_repr(pool)} returned {safe_repr(made)}"
    )


def submit(
    pool: PoolOrFactory,
    fn: Callable[..., object],
    args: tuple[object, ...],
    ended: Ended,
    *,
    lost: Callable[[], object] = int,
    overdue_after: float = 0.0,
) -> PoolJob:
    """Submit ``fn(*args)`` to *pool*; *ended* is called when the work has really ended.

    A pool of threads runs it in a copy of the caller's context. *ended* is called in any
    thread, later or at the same time, possibly inside `PoolJob.cancel`, but not inside
    this call: see the first rule.

    Args:
        pool: The pool, or a function that returns it.
        fn: The function.
        args: Its arguments.
        ended: Called with the job's future at the end.
        lost: Called before that, in any thread, if the pool has lost a worker and has
            asked the others to terminate, and they have not ended.
        overdue_after: Seconds after which the job's run is overdue in that case: the
            workers are not killed earlier.

    Raises:
        TypeError: the factory did not return a pool.
        BrokenExecutor: the pool is broken; *ended* is not called.
        RuntimeError: the pool was shut down; *ended* is not called.
        Exception: another error of the pool or its factory; *ended* is not called.
    """
    chosen = pool_of(pool)
    processes = _processes_of(chosen)  # first, because a shutdown drops the table
    future = _submit(chosen, fn, args)
    return PoolJob(chosen, future, processes, ended, lost, overdue_after)


def _processes_of(pool: Executor) -> Mapping[int, Any]:
    """Return the table of worker processes that a pool shares with its manager thread.

    ``shutdown(wait=False)`` drops it. It is empty for a pool that is not a known pool of
    processes.
    """
    is_known = isinstance(pool, (_loaded(_PROCESSES), _loaded(_LOKY)))
    processes: Mapping[int, Any] | None = getattr(pool, "_processes", None) if is_known else None
    return {} if processes is None else processes  # an empty table may get entries later


def _submit(pool: Any, fn: Callable[..., object], args: tuple[object, ...]) -> Future[Any]:
    """Submit ``fn(*args)`` to the *pool*, in the way that its kind needs.

    Raises:
        BaseException: an error of the pool, which does not run the function.
    """
    options: dict[str, bool] = {}
    box: dict[str, Callable[[], object]] = {}
    if is_in_process(pool):
        box["call"] = partial(copy_context().run, fn, *args)
        fn, args = _call_in, (box,)
    elif isinstance(pool, _loaded(_DASK)):
        # Otherwise Dask treats two calls with equal functions and arguments as one: the second
        # run of a name would get the result of the first (seen).
        fn, args, options = call_on_dask, (fn, *args), {"pure": False}
    elif isinstance(pool, _loaded(_PROCESSES)) and pool._broken:  # noqa: SLF001
        # Its submit() raises the same error, but from Python 3.12 on only after all of its
        # processes have ended, which may take long.
        raise sys.modules[_PROCESSES[0]].BrokenProcessPool(pool._broken)  # noqa: SLF001
    try:
        future: Future[Any] = pool.submit(fn, *args, **options)
    except BaseException as error:
        queued = None if box.pop("call", None) else _queued_by(error)
        if queued is None:
            raise
        log_failed_submit(error)
        return queued
    if isinstance(pool, _loaded(_PROCESSES)):
        _wake_manager(pool)
    return future


def log_failed_submit(error: BaseException) -> None:
    """Log the *error* of a `submit` whose job begins in spite of it."""
    log_error("a pool's submit() raised an error, and the pool runs the job all the same", error)


def _call_in(box: dict[str, Callable[[], object]]) -> object:
    """Call the function in *box*, unless a failed `submit` has removed it."""
    call = box.pop("call", None)
    return call() if call else None


def _queued_by(error: BaseException) -> Future[Any] | None:
    """Return the future of a job that a pool runs although its `submit` raised *error*.

    A job that has not begun is cancelled, if the pool can be trusted with that.

    The job's future is among the local variables of `submit`. The pool's own tables
    do not help, because other threads may have submitted the same function meanwhile.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        future = frame.f_locals.get("f") if frame.f_code.co_name == "submit" else None
        if future is None or frame.f_globals.get("__name__") not in _QUEUE_FIRST:
            continue
        pool = frame.f_locals["self"]
        # A pool of processes has a manager thread, and without that no job begins.
        manager = getattr(pool, "_executor_manager_thread", None)
        if manager is not None and not manager.ident:
            # It could not be started. The pool takes it for a running thread, and would queue all
            # later jobs for nothing.
            pool._executor_manager_thread = manager = None  # noqa: SLF001
        is_cancelled = (manager is None or _is_honest(pool)) and future.cancel()
        return None if is_cancelled else future
    return None


def _wake_manager(pool: Any) -> None:
    """Make a pool of processes look at the processes that it has by now.

    It wakes its manager first and starts a process after that. So the manager may
    wait for the older processes only, and does not notice the death of the newest one
    until the pool is used again (seen with Python 3.13.0 and all before it).
    """
    # Another submit() that has the lock does the same, and a broken pool holds it for long.
    if pool._shutdown_lock.acquire(blocking=False):  # noqa: SLF001
        try:
            with contextlib.suppress(Exception):  # the job is in the pool already
                pool._executor_manager_thread_wakeup.wakeup()  # noqa: SLF001
        finally:
            pool._shutdown_lock.release()  # noqa: SLF001


def call_on_dask(fn: Callable[..., object], *args: object) -> object:
    """Call *fn* in a Dask worker, and fail there if the result cannot be sent back.

    Otherwise the job's future would never be done, because the error is raised in Dask's
    own callback (seen with distributed 2026.8). The workers find this function by its
    name, also with another version of this package.
    """
    result = fn(*args)
    importlib.import_module("distributed.protocol.pickle").dumps(result)
    return result


@final
class PoolJob:
    """One function in a pool."""

    def __init__(
        self,
        pool: Executor,
        future: Future[Any],
        table: Mapping[int, Any],
        ended: Ended,
        lost: Callable[[], object],
        overdue_after: float,
    ) -> None:
        self.pool = pool
        self.table = table
        # Copied now, because loky may drop some before it is known to be broken.
        self.processes: tuple[Any, ...] = tuple(dict(table).values())
        self.overdue_after = overdue_after
        self._ended = ended
        self._lost = lost
        # Dropped when it is done, because it keeps its callbacks, and so this job, forever.
        self._future: Future[Any] | None = future
        self._submitter: int | None = get_ident()
        future.add_done_callback(self._on_done)
        self._submitter = None

    def cancel(self) -> bool:
        """Cancel the job, if it has not begun and the pool can be trusted with that.

        In that case *ended* is called in this call, unless it was called before.

        Returns:
            True if the function never runs. If False, wait for *ended*, which may have
            been called already.
        """
        future = self._future
        return future is not None and _is_honest(self.pool) and future.cancel()

    def _on_done(self, future: Future[Any]) -> None:
        self._future = None
        if self._submitter == get_ident():  # inside add_done_callback(), and so inside submit()
            with contextlib.suppress(Exception):  # raised if no thread can be started
                _start_thread(self._settle, future)
                return
        self._settle(future)

    def _settle(self, future: Future[Any]) -> None:
        """End this job; if its pool has lost a worker, when nothing runs in the pool any more.

        A broken pool calls this in its manager thread, before it asks its processes to
        terminate. Later it drops some of them (loky), or has read their exit status, and
        other processes may have their ids. If no thread can be started for the wait, as at
        the interpreter's exit from Python 3.12 on, the processes are ended here, because
        the pool itself would wait forever for those that ignore SIGTERM. The names stay
        taken, and the future logs the reason.
        """
        if not _lost_a_worker(self.pool, future):
            self.end(future)
            return
        with _lock:
            broken = _broken_pools.setdefault(id(self.pool), _BrokenPool(self.pool))
            broken.add(self, future)
            was_awaited, broken.is_awaited = broken.is_awaited, True
            is_slow = broken.is_slow
        if is_slow:
            self.note_lost()
        if not was_awaited:
            try:
                _start_thread(broken.end)
            except BaseException:
                broken.stop("terminate")
                broken.kill_after_grace()
                with _lock:
                    broken.is_awaited = False  # the next job tries again for all of them
                raise

    def note_lost(self) -> None:
        """Call *lost*. An error of it is logged, because the processes must be killed anyway."""
        _call("what is called when a pool has lost a worker", self._lost)

    def end(self, future: Future[Any]) -> None:
        """Call *ended*."""
        ended = self._ended
        del self._ended, self._lost  # no cycle: they may refer to the owner of this job
        _call("what is called at the end of a pool's job", ended, future)


def _call(what: str, fn: Callable[..., object], *args: object) -> None:
    """Call ``fn(*args)``, and log what it raises."""
    try:
        fn(*args)
    except BaseException as error:
        log_error(f"{what} failed", error)


def _start_thread(fn: Callable[..., object], *args: object) -> None:
    make_daemon("namedtasks: a pool's jobs", fn, *args).start()


@final
class _BrokenPool:
    """A pool that has lost a worker, until its processes are gone and its jobs have ended."""

    _now = staticmethod(MonotonicClock.now)

    def __init__(self, pool: Executor) -> None:
        self.pool = pool  # kept alive, because its id is the key
        self.jobs: list[tuple[PoolJob, Future[Any]]] = []
        self.is_awaited = False
        """True while a thread waits for it."""
        self.is_slow = False
        """True after *lost* was called for the jobs, as the processes did not end shortly."""
        self.grace = GRACE
        self._table: Mapping[int, Any] = {}
        """The pool's table of processes, which a starting process enters later."""
        self._seen: set[Any] = set()
        self._killed: set[Any] = set()
        self._alive: dict[int, tuple[Any, int | None]] = {}
        """Processes and their pidfds, by what to wait for in `multiprocessing.connection.wait`."""

    def add(self, job: PoolJob, future: Future[Any]) -> None:
        """Add a *job* of the pool. Guarded by `_lock`."""
        self.jobs.append((job, future))
        self.grace = max(self.grace, job.overdue_after)
        self._table = job.table
        self._watch(job.processes)

    def _watch(self, processes: Iterable[Any]) -> None:
        """Watch these *processes* and those of the table. Guarded by `_lock`."""
        for process in {*processes, *dict(self._table).values()} - self._seen:
            self._seen.add(process)
            pidfd: int | None = None
            # Raised on other systems than Linux, in a sandbox, without a free descriptor, and for a
            # process that has ended.
            with contextlib.suppress(AttributeError, OSError):
                pidfd = os.pidfd_open(process.pid)
            # Checked after its pidfd was opened: after its exit status was read, the id may belong
            # to another process, which must not be killed.
            if process.exitcode is None:
                self._alive[process.sentinel if pidfd is None else pidfd] = process, pidfd
            elif pidfd is not None:
                os.close(pidfd)

    def _alive_now(self) -> dict[int, tuple[Any, int | None]]:
        with _lock:
            self._watch(())
            return self._alive.copy()

    def end(self) -> None:
        """Wait until all processes have ended, by themselves or killed; then end the jobs."""
        if not self._seen:
            # An unknown kind of pool, which may have processes.
            _call("shutting a broken pool down", self.pool.shutdown)
        elif not self._have_ended(_SHORTLY):
            with _lock:
                self.is_slow = True
                jobs = self.jobs.copy()
            for job, _ in jobs:
                job.note_lost()
            self.kill_after_grace()
        with _lock:
            del _broken_pools[id(self.pool)]
        for job, future in self.jobs:
            job.end(future)

    def kill_after_grace(self) -> None:
        """Wait until all processes have ended, and kill those that are left after `grace`."""
        while not self._have_ended(self.grace):
            self.stop("kill")

    def stop(self, method: Literal["terminate", "kill"]) -> None:
        """Terminate or kill all processes that were not killed yet."""
        signal = importlib.import_module("signal")
        for process, pidfd in self._alive_now().values():
            if process in self._killed:
                continue
            if method == "kill":
                self._killed.add(process)
            try:
                if pidfd is None:
                    getattr(process, method)()
                else:  # a pidfd never means another process with the same id
                    number = signal.SIGKILL if method == "kill" else signal.SIGTERM
                    signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                pass  # it has just ended
            except Exception as error:
                log_error("a worker process of a broken pool cannot be stopped", error)

    def _have_ended(self, seconds: float) -> bool:
        """Wait at most *seconds* until all processes have ended; return True if they have."""
        # The pool's class has imported it; without a pool it is not needed.
        wait = importlib.import_module("multiprocessing.connection").wait
        until = self._now() + seconds
        while (alive := self._alive_now()) and (left := until - self._now()) >= 0:
            for handle in wait(list(alive), min(left, _LONGEST_WAIT)):
                with _lock:
                    _, pidfd = self._alive.pop(handle)
                if pidfd is not None:
                    os.close(pidfd)
        return not alive


_lock = Lock()
_broken_pools: dict[int, _BrokenPool] = {}
"""The broken pools, by their ids."""
