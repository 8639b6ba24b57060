"""Adapters for trio: executors that run the functions of `TaskMap.start_thread_soon`.

An *executor* is anything shaped like `trio.to_thread.run_sync`: an async
callable that takes a function and its arguments, and returns when the work
has really ended. So `trio.to_thread.run_sync`, ``trio_parallel.run_sync`` and
``anyio.to_process.run_sync`` need no adapter. For pools, use `from_pool`.
`namedtasks.testing.check_executor` checks an executor of your own.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import (
    Executor as _Pool,  # in this module, an executor is something else
    Future as _Future,
)
from functools import partial
from typing import Any, final

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, disable_ki_protection, enable_ki_protection

import namedtasks._executors as _executors
from namedtasks._context import executed_for


def from_pool(pool: _Pool | Callable[[], _Pool], /) -> Callable[..., Awaitable[Any]]:
    """Return an executor for trio that uses a pool of `concurrent.futures`. Not a checkpoint.

    The executor returns when the work has really ended. If it is cancelled, it
    cancels a job that still waits in the pool, if the pool reports cancellations
    reliably; otherwise it continues to wait, and returns the late result. A pool of
    processes has a queue of calls that cannot be cancelled. When a worker process
    dies, the executor waits until the pool's other processes have ended, too; it
    kills those that are left five seconds after the pool has asked them to
    terminate. A pool of threads runs the function in the caller's context, so that
    `namedtasks.current_run` works.

    The pool stays yours: shut it down when you no longer need it.

    Args:
        pool: The pool, or a function that is called for each job, in trio's thread,
            and returns the pool for it. A process pool that has lost a worker stays
            broken: to continue with a new one, pass a function such as
            ``loky.get_reusable_executor``.

    Returns:
        An executor. ``await executor(fn, *args)`` returns or raises what the
        function does. It raises `concurrent.futures.BrokenExecutor` if a worker was
        lost, `RuntimeError` if the pool was shut down, and
        `concurrent.futures.CancelledError` if the pool dropped the job.

    Raises:
        TypeError: *pool* is neither a pool nor a function.

    Example:
        >>> import zlib
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from namedtasks import open_task_map
        >>> async def main(executor):
        ...     async with open_task_map(executor=executor) as tasks:
        ...         return await tasks.start_thread_soon("pvc-1", zlib.crc32, b"block 0").wait()
        >>> with ThreadPoolExecutor(2) as pool:
        ...     trio.run(main, from_pool(pool))
        996001069

    .. versionadded:: 0.1
    """
    _executors.check_pool(pool, "pool")
    return partial(_run_in_pool, pool)


@enable_ki_protection  # a Ctrl-C between the start and the wait would abandon the work
async def _run_in_pool(
    pool: _executors.PoolOrFactory, fn: Callable[..., object], /, *args: object
) -> object:
    await trio.lowlevel.checkpoint_if_cancelled()
    run = executed_for.get(None)
    try:
        chosen = _pool_of(pool)
    except KeyboardInterrupt:
        if run is not None:  # its map takes this as a failure, and the program would continue
            signal.raise_signal(signal.SIGINT)
        raise
    wait = _Wait()
    wait.job = _executors.submit(
        chosen,
        fn,
        args,
        partial(wait.in_trio, wait.end),
        lost=int if run is None else partial(wait.in_trio, run.note_lost_worker, run.attempt),
        overdue_after=0.0 if run is None else run.overdue_after,
    )
    await trio.lowlevel.wait_task_rescheduled(wait.abort)
    assert wait.future is not None
    try:
        return wait.future.result()
    finally:
        del wait  # no cycle through the error's traceback


@disable_ki_protection
def _pool_of(pool: _executors.PoolOrFactory) -> _Pool:
    # Ctrl-C may interrupt the user's factory, because no work has begun.
    return _executors.pool_of(pool)


@final
class _Wait:
    """A task that waits for its job."""

    job: _executors.PoolJob
    future: _Future[Any] | None = None

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._task: Task | None = trio.lowlevel.current_task()

    def in_trio(self, fn: Callable[..., object], *args: object) -> None:
        """Schedule a call in trio's thread. Called in any thread."""
        with contextlib.suppress(trio.RunFinishedError):  # no task waits there any more
            self._token.run_sync_soon(fn, *args)

    def end(self, future: _Future[Any]) -> None:
        if self._task is not None:
            self.future = future
            trio.lowlevel.reschedule(self._task)

    def abort(self, _raise_cancel: RaiseCancelT, /) -> Abort:
        if not self.job.cancel():
            return Abort.FAILED
        self._task = None
        return Abort.SUCCEEDED
