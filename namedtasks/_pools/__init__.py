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

``_kinds``   what is known of each kind of pool
``_broken``  waits for what is left of a pool that has lost a worker
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from threading import get_ident
from typing import Any, TypeAlias, final

from namedtasks._core.text import repr_of
from namedtasks._log import complain
from namedtasks._pools._broken import Job, hold, in_a_thread
from namedtasks._pools._kinds import (
    call_on_dask as call_on_dask,
    is_honest,
    is_in_process as is_in_process,
    lost_a_worker,
    processes_of,
    submit_to,
)

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


def submit(
    pool: PoolOrFactory,
    fn: Callable[..., object],
    args: tuple[object, ...],
    ended: Ended,
    *,
    lost: Callable[[], object] = int,
    overdue_after: float = 0.0,
) -> PoolJob:
    """Have ``fn(*args)`` run in *pool*, and *ended* called when that has really ended.

    A pool of threads runs it in a copy of the caller's context. *ended* is
    called in whatever thread, later or at the same time, also inside of
    `PoolJob.cancel`, but not inside of this call: see the first rule.

    Args:
        pool: The pool, or what gives it.
        fn: The function.
        args: Its arguments.
        ended: Called with the job's future at the end.
        lost: Called before that, in whatever thread, if the pool has lost a
            worker, has asked the others to terminate, and they go on.
        overdue_after: Seconds after which the job's run is overdue then: those
            workers are not killed earlier.

    Raises:
        TypeError: the factory gave no pool.
        BrokenExecutor: the pool is broken; *ended* is not called.
        RuntimeError: the pool was shut down; *ended* is not called.
        Exception: what else the pool or its factory raises, the same way.
    """
    chosen = pool_of(pool)
    processes = processes_of(chosen)  # first: a shutdown may come in between
    future = submit_to(chosen, fn, args)
    job = PoolJob(chosen, processes, future, ended, lost, overdue_after)
    job.watch()
    return job


@final
class PoolJob:
    """One function in a pool."""

    __slots__ = (
        "_done_at_once",
        "_ended",
        "_future",
        "_lost",
        "_overdue_after",
        "_pool",
        "_processes",
        "_shared_processes",
        "_submitter",
    )

    def __init__(
        self,
        pool: Executor,
        processes: Mapping[int, Any],
        future: Future[Any],
        ended: Ended,
        lost: Callable[[], object],
        overdue_after: float,
    ) -> None:
        self._pool = pool
        # Dropped when it is done: it keeps its callbacks, and so this job, for ever.
        self._future: Future[Any] | None = future
        self._ended = ended
        self._lost = lost
        self._overdue_after = overdue_after
        self._shared_processes = processes
        # Copied now: loky may have dropped some by the time at which it is known to be broken.
        self._processes: tuple[Any, ...] = tuple(dict(processes).values())
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
                in_a_thread(self._settle, future)
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
        return future is not None and is_honest(self._pool) and future.cancel()

    def _on_done(self, future: Future[Any]) -> None:
        self._future = None
        if self._submitter == get_ident():  # add_done_callback() calls us: submit() goes on soon
            self._done_at_once = future
        else:
            self._settle(future)

    def _settle(self, future: Future[Any]) -> None:
        if lost_a_worker(self._pool, future):
            hold(
                self._pool,
                self._processes,
                self._shared_processes,
                Job(self._lost, partial(self._tell, future)),
                self._overdue_after,
            )
        else:
            self._tell(future)

    def _tell(self, future: Future[Any]) -> None:
        """Call *ended*."""
        ended = self._ended
        del self._ended, self._lost  # they are likely to refer to the owner of this job
        try:
            ended(future)
        except BaseException as error:
            complain("what is called at the end of a pool's job failed", error)
