"""Runs functions in pools of `concurrent.futures`, and tells when the work has really ended.

All shells share it, so it knows neither trio nor asyncio. The rules:

1. `submit` raises, or the job's *ended* is called once: never before the work
   has ended, and never inside of `submit`, whose caller may hold a lock. But for
   one case: the pool has run the function in place, and no thread can be had to
   call *ended* in. To raise then would say that nothing ran.
2. A pool's word is not taken for more than it is worth. Whether it can be
   believed that a job was cancelled, and whether a failed job is over, depends
   on the pool.
3. Nothing leans on the GIL. What two threads touch is set before the job's
   future gets its callback, or is under the lock.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from contextvars import copy_context
from threading import Lock, Thread, get_ident
from typing import Any, TypeAlias, TypeGuard, final

from namedtasks._core.text import repr_of
from namedtasks._log import complain

PoolOrFactory: TypeAlias = Executor | Callable[[], Executor]
"""A pool, or a function that is called for each job and gives the pool for it."""

Ended: TypeAlias = Callable[[Future[Any]], object]
"""Is given the future of a job whose work is over: done, failed or cancelled."""


def check_pool(value: object) -> None:
    """Whether *value* can be a pool, or a function that gives one.

    Raises:
        TypeError: it cannot.
    """
    if isinstance(value, type):
        raise TypeError(
            f"a pool or a function that gives one is needed, and {value.__name__} is a class, "
            f"which would make a new pool for each job: make one pool, {value.__name__}(...)"
        )
    if inspect.iscoroutinefunction(value):
        raise TypeError(
            f"the function that gives the pool must be a plain one, and {repr_of(value)} is async"
        )
    if not isinstance(value, Executor) and not callable(value):
        raise TypeError(
            "a concurrent.futures.Executor or a function that gives one is needed, not "
            f"{repr_of(value)} (Dask: client.get_executor(); loky: get_reusable_executor)"
        )


def check_pool_or_none(value: object) -> None:
    """The same for what need not be given.

    Raises:
        TypeError: *value* is neither None nor a pool, nor a function that gives one.
    """
    if value is not None:
        check_pool(value)


def pool_of(pool: PoolOrFactory) -> Executor:
    """Give the pool for the next job.

    Raises:
        TypeError: the factory gave something else.
    """
    if isinstance(pool, Executor):
        return pool
    made: object = pool()
    if not isinstance(made, Executor):
        raise TypeError(
            "the function that gives the pool must give a concurrent.futures.Executor, and "
            f"{repr_of(pool)} gave {repr_of(made)}"
        )
    return made


def is_in_process(pool: Executor) -> bool:
    """Whether the pool's functions run in this process and interpreter, among its objects.

    Only there can they run in the caller's context: a `contextvars.Context`
    cannot be pickled.
    """
    # Python 3.14's pool of interpreters is a ThreadPoolExecutor, too.
    other = getattr(concurrent.futures, "InterpreterPoolExecutor", ())
    return isinstance(pool, concurrent.futures.ThreadPoolExecutor) and not isinstance(pool, other)


def submit(
    pool: PoolOrFactory, fn: Callable[..., object], args: tuple[object, ...], ended: Ended
) -> PoolJob:
    """Have ``fn(*args)`` run in *pool*, and *ended* called when that has really ended.

    A pool of threads runs it in a copy of the caller's context. *ended* is
    called in whatever thread, later or at the same time, also inside of
    `PoolJob.cancel`, but not inside of this call: see the first rule.

    Raises:
        TypeError: the factory gave no pool.
        BrokenExecutor: the pool is broken; *ended* is not called.
        RuntimeError: the pool was shut down; *ended* is not called.
        Exception: what else the pool or its factory raises, the same way.
    """
    chosen = pool_of(pool)
    job = PoolJob(chosen, _submit(chosen, fn, args), ended)
    job.watch()
    return job


def _submit(pool: Executor, fn: Callable[..., object], args: tuple[object, ...]) -> Future[Any]:
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


@final
class PoolJob:
    """One function in a pool."""

    __slots__ = ("_done_at_once", "_ended", "_future", "_manager", "_pool", "_submitter")

    def __init__(self, pool: Executor, future: Future[Any], ended: Ended) -> None:
        self._pool = pool
        # Dropped when it is done: it keeps its callbacks, and so this job, for ever.
        self._future: Future[Any] | None = future
        self._ended = ended
        # The thread that ends a pool's processes. Kept, as a shutdown(wait=False) forgets it.
        self._manager: object = getattr(pool, "_executor_manager_thread", None)
        self._submitter: int | None = get_ident()
        self._done_at_once: Future[Any] | None = None

    def watch(self) -> None:
        """Have *ended* called when the work has ended, and not in this call if that can be."""
        assert self._future is not None
        self._future.add_done_callback(self._on_done)
        self._submitter = None
        if self._done_at_once is not None:
            future, self._done_at_once = self._done_at_once, None
            try:
                _in_a_thread(self._settle, future)
            except Exception:  # there is no thread to be had
                self._settle(future)

    def cancel(self) -> bool:
        """Take the work back, if that is possible and the pool is to be believed.

        *ended* is called in here then, unless it has been.

        Returns:
            True: the function never runs. False: wait for *ended*; it may have
            been called already.
        """
        future = self._future
        return future is not None and _is_honest(self._pool) and future.cancel()

    def _on_done(self, future: Future[Any]) -> None:
        self._future = None
        if self._submitter == get_ident():  # add_done_callback() calls us: submit() goes on soon
            self._done_at_once = future
        else:
            self._settle(future)

    def _settle(self, future: Future[Any]) -> None:
        if _lost_a_worker(self._pool, future):
            _hold(self._pool, self._manager, (self, future))
        else:
            self.tell(future)

    def tell(self, future: Future[Any]) -> None:
        """Call *ended*."""
        ended = self._ended
        del self._ended  # it is likely to lead to who keeps this job
        try:
            ended(future)
        except BaseException as error:
            complain("what is called at the end of a pool's job failed", error)


# Which pools can be believed, and how far


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


def _is_honest(pool: Executor) -> bool:
    """Whether a job whose future says that it was cancelled never runs.

    The future's class does not tell: Dask's is `concurrent.futures.Future`
    itself. It is never marked as running, so its ``cancel()`` answers True while
    the body runs on (probed with distributed 2026.8). So we believe the pools
    whose ``submit`` we know. They mark a future as running before its function
    can leave the queue, and a future that runs refuses to be cancelled. loky's
    differs from the standard one in how it logs only.
    """
    return _is_loky(pool) or type(pool).submit in _known_submits()


def _lost_a_worker(pool: Executor, future: Future[Any]) -> bool:
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


# Waiting for what is left of a broken pool

_lock = Lock()
_held: dict[int, list[tuple[PoolJob, Future[Any]]]] = {}
"""The jobs of broken pools, by the pool's id; they keep the pools alive."""
_awaited: set[int] = set()
"""The broken pools that a thread waits for."""


def _hold(pool: Executor, manager: object, held: tuple[PoolJob, Future[Any]]) -> None:
    """Tell of a job's end when nothing runs in *pool* any more.

    This is called in the pool's own manager thread, which cannot wait for
    itself. If no thread can be started for it, the names stay taken, and the
    future logs why.
    """
    with _lock:
        _held.setdefault(id(pool), []).append(held)
        if id(pool) in _awaited:
            return
        _awaited.add(id(pool))
    try:
        _in_a_thread(_await_end, pool, manager)
    except BaseException:
        with _lock:
            _awaited.discard(id(pool))  # the next one tries again, for all
        raise


def _await_end(pool: Executor, manager: object) -> None:
    if isinstance(manager, Thread):
        # All that shutdown(wait=True) waits for, even if there was one with wait=False. And
        # the pool's factory may well be calling shutdown(), and loky minds two at a time.
        manager.join()
    else:
        try:
            pool.shutdown(wait=True)
        except BaseException as error:
            complain("shutting a broken pool down failed", error)
    with _lock:
        _awaited.discard(id(pool))
        over = _held.pop(id(pool))
    for job, future in over:
        job.tell(future)


def _in_a_thread(fn: Callable[..., object], *args: object) -> None:
    # A daemon: it never keeps the interpreter from its exit.
    Thread(target=fn, args=args, name="namedtasks: a pool's jobs", daemon=True).start()
