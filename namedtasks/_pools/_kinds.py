"""Which pools can be believed, and how far; and how each is given its work."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from contextvars import copy_context
from typing import Any, TypeGuard


def is_in_process(pool: Executor) -> bool:
    """Whether the pool's functions run in this process and interpreter, among its objects.

    Only there can they run in the caller's context: a `contextvars.Context`
    cannot be pickled.
    """
    # Python 3.14's pool of interpreters is a ThreadPoolExecutor, too.
    other = getattr(concurrent.futures, "InterpreterPoolExecutor", ())
    return isinstance(pool, concurrent.futures.ThreadPoolExecutor) and not isinstance(pool, other)


def submit_to(pool: Executor, fn: Callable[..., object], args: tuple[object, ...]) -> Future[Any]:
    """Have the *pool* run ``fn(*args)``, in its own dialect."""
    if is_in_process(pool):
        return pool.submit(copy_context().run, fn, *args)
    if _is_dask(pool):
        # Else Dask takes two calls of equal function and arguments for one: the
        # second run of a name would be given the result of the first (probed).
        call: Callable[..., object] = call_on_dask
        return pool.submit(call, fn, *args, pure=False)
    future = pool.submit(fn, *args)
    _look_at_workers(pool)
    return future


def processes_of(pool: Executor) -> Mapping[int, Any]:
    """Return the table of worker processes that a pool shares with its manager thread.

    The pool forgets it with ``shutdown(wait=False)``. Empty for a pool that is not of
    processes, or that we do not know.
    """
    module = sys.modules.get("concurrent.futures.process")
    if _is_loky(pool) or (module is not None and isinstance(pool, module.ProcessPoolExecutor)):
        known: Any = pool
        processes: Mapping[int, Any] | None = known._processes  # noqa: SLF001
        if processes is not None:  # it was not shut down
            return processes
    return {}


def _look_at_workers(pool: Executor) -> None:
    """Have a pool of processes see which it has by now.

    It wakes its manager first and starts a process after that. So the manager
    may wait for the older ones only, and the newest one's death goes unseen
    until the pool is used again (seen with Python 3.13.0; all up to it do so).
    """
    wakeup = getattr(pool, "_executor_manager_thread_wakeup", None)
    lock = getattr(pool, "_shutdown_lock", None)
    if wakeup is not None and lock is not None:
        with contextlib.suppress(Exception), lock:  # the job is in the pool, whatever happens here
            wakeup.wakeup()


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
