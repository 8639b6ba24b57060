"""Which pools can be believed, and how far; and how each is given its work."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, TypeGuard, final

from namedtasks._log import complain


def is_in_process(pool: Executor) -> bool:
    """Whether the pool's functions run in this process and interpreter, among its objects.

    Only there can they run in the caller's context: a `contextvars.Context`
    cannot be pickled.
    """
    # Python 3.14's pool of interpreters is a ThreadPoolExecutor, too.
    other = getattr(concurrent.futures, "InterpreterPoolExecutor", ())
    return isinstance(pool, concurrent.futures.ThreadPoolExecutor) and not isinstance(pool, other)


def submit_to(pool: Executor, fn: Callable[..., object], args: tuple[object, ...]) -> Future[Any]:
    """Submit ``fn(*args)`` to the *pool*, in the way that its kind needs.

    Raises:
        BaseException: what the pool raises; it does not run the function.
    """
    call = _Call(fn, args) if is_in_process(pool) else None
    try:
        return _submit_to(pool, fn, args) if call is None else pool.submit(call)
    except BaseException as error:
        if call is not None and call.void():
            raise
        queued = _queued_by(error)
        if queued is None or (call is None and queued.take_back()):
            raise
        complain("a pool's submit() raised an error, and the pool runs the job all the same", error)
        return queued.future


@final
class _Call:
    """A call in the caller's context, which can be voided while it has not begun."""

    __slots__ = ("_call",)

    def __init__(self, fn: Callable[..., object], args: tuple[object, ...]) -> None:
        self._call = [partial(copy_context().run, fn, *args)]

    def __call__(self) -> object:
        try:
            call = self._call.pop()
        except IndexError:
            return None
        return call()

    def void(self) -> bool:
        """Make the call do nothing; return False if it has begun."""
        try:
            self._call.pop()
        except IndexError:
            return False
        return True


class _Queued(NamedTuple):
    """A job that was queued by a `submit` that raised an error."""

    pool: Any
    future: Future[Any]

    def take_back(self) -> bool:
        """Take the job out of its pool; return False if it has begun, or cannot be taken."""
        # A pool of processes has a manager thread. Without one nothing begins.
        manager = getattr(self.pool, "_executor_manager_thread", None)
        if manager is not None and not manager.ident:
            # It could not be started. The pool takes it for one that runs, and would queue all
            # later jobs for nothing.
            self.pool._executor_manager_thread = manager = None  # noqa: SLF001
        return (manager is None or is_honest(self.pool)) and self.future.cancel()


_QUEUE_FIRST = ("concurrent.futures.thread", "concurrent.futures.process", "loky.process_executor")
"""The modules of the pools whose `submit` queues a job and starts a thread or process after that.

If the system refuses to start one, `submit` raises an error, and the job runs
later all the same, if there is or comes another worker.
"""


def _queued_by(error: BaseException) -> _Queued | None:
    """Return the job that a pool had queued before its `submit` raised *error*.

    The job's future is among the local variables of `submit`. The pool's own tables
    do not: by now other threads may have submitted the same function.
    """
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == "submit" and frame.f_globals.get("__name__") in _QUEUE_FIRST:
            future = frame.f_locals.get("f")
            if future is not None:
                return _Queued(frame.f_locals["self"], future)
        traceback = traceback.tb_next
    return None


def _submit_to(pool: Executor, fn: Callable[..., object], args: tuple[object, ...]) -> Future[Any]:
    if _is_dask(pool):
        # Else Dask takes two calls of equal function and arguments for one: the
        # second run of a name would be given the result of the first (probed).
        call: Callable[..., object] = call_on_dask
        return pool.submit(call, fn, *args, pure=False)
    if _is_of_processes(pool) and pool._broken:  # noqa: SLF001
        # Its submit() says the same, but from Python 3.12 on not before all of its processes have
        # ended, and that may take long.
        raise sys.modules["concurrent.futures.process"].BrokenProcessPool(pool._broken)  # noqa: SLF001
    future = pool.submit(fn, *args)
    _look_at_workers(pool)
    return future


def processes_of(pool: Executor) -> Mapping[int, Any]:
    """Return the table of worker processes that a pool shares with its manager thread.

    The pool forgets it with ``shutdown(wait=False)``. Empty for a pool that is not of
    processes, or that we do not know.
    """
    if _is_loky(pool) or _is_of_processes(pool):
        processes: Mapping[int, Any] | None = pool._processes  # noqa: SLF001
        if processes is not None:  # it was not shut down
            return processes
    return {}


def _is_of_processes(pool: object) -> TypeGuard[Any]:
    module = sys.modules.get("concurrent.futures.process")
    return module is not None and isinstance(pool, module.ProcessPoolExecutor)


def _look_at_workers(pool: Executor) -> None:
    """Have a pool of processes see which it has by now.

    It wakes its manager first and starts a process after that. So the manager
    may wait for the older ones only, and the newest one's death goes unseen
    until the pool is used again (seen with Python 3.13.0; all up to it do so).
    """
    wakeup = getattr(pool, "_executor_manager_thread_wakeup", None)
    lock = getattr(pool, "_shutdown_lock", None)
    # Another submit() that has the lock does the same, and a broken pool keeps it for long.
    if wakeup is not None and lock is not None and lock.acquire(blocking=False):
        try:
            with contextlib.suppress(Exception):  # the job is in the pool, whatever happens here
                wakeup.wakeup()
        finally:
            lock.release()


def _is_dask(pool: Executor) -> bool:
    module = sys.modules.get("distributed.cfexecutor")
    return module is not None and isinstance(pool, module.ClientExecutor)


def call_on_dask(fn: Callable[..., object], *args: object) -> object:
    """Call *fn* in a Dask worker, and fail there if the result cannot be sent back.

    Else the job's future would never be done: the error is raised in Dask's own
    callback (probed with distributed 2026.8).
    """
    result = fn(*args)
    importlib.import_module("distributed.protocol.pickle").dumps(result)
    return result


# It is pickled by its name, which a worker with another version of ours must find.
call_on_dask.__module__ = "namedtasks._pools"


def _is_loky(pool: object) -> TypeGuard[Any]:
    module = sys.modules.get("loky.process_executor")
    return module is not None and isinstance(pool, module.ProcessPoolExecutor)


_MENDED = sys.version_info >= (3, 12, 1)
"""Whether a `ProcessPoolExecutor` that breaks gets over a cancelled future.

It used to trip over it: it told only some of the other futures, and ended none
of its processes (probed with 3.11.7; 3.12.1 is well). There a job that is
cancelled waits for its turn.
"""


def _known_submits() -> list[object]:
    # Who has a pool of processes has imported this, which is ten times as dear as the rest.
    module = sys.modules.get("concurrent.futures.process") if _MENDED else None
    processes = getattr(module, "ProcessPoolExecutor", None)
    known = (concurrent.futures.ThreadPoolExecutor, processes)
    return [pool.submit for pool in known if pool is not None]


def is_honest(pool: Executor) -> bool:
    """Whether a job whose future says that it was cancelled never runs.

    The future's class does not tell: Dask's is `concurrent.futures.Future`
    itself. It is never marked as running, so its ``cancel()`` answers True while
    the body runs on (probed with distributed 2026.8). So we believe the pools
    whose ``submit`` we know. They mark a future as running before its function
    can leave the queue, and a future that runs refuses to be cancelled. loky's
    differs from the standard one in how it logs only.
    """
    return _is_loky(pool) or type(pool).submit in _known_submits()


def lost_a_worker(pool: Executor, future: Future[Any]) -> bool:
    """Whether the future is done because a process is gone: the others may go on for a while.

    A pool of processes tells all futures first, and ends their processes then.
    A broken pool of threads only drops what it had not begun.
    """
    if isinstance(pool, concurrent.futures.ThreadPoolExecutor) or future.cancelled():
        return False
    error = future.exception()
    if _is_loky(pool):
        # shutdown(kill_workers=True) does it in the same order, with a RuntimeError.
        flags = pool._flags  # noqa: SLF001
        return isinstance(error, BrokenExecutor | RuntimeError) and bool(
            flags.broken or flags.kill_workers
        )
    # The function may have raised it, about a pool of its own: then ours is not broken.
    return isinstance(error, BrokenExecutor) and bool(getattr(pool, "_broken", True))
