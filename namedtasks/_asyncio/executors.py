"""Functions in threads and in pools: they cannot be stopped, only asked.

So the Task of such a run goes on until the work has really ended, whoever
cancels it, and how often. A cancellation is kept out of the Task and made known
to the run, where a function that is willing to stop looks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, final

from namedtasks import _pools
from namedtasks._asyncio.lots import UncancellableFuture
from namedtasks._asyncio.run import AsyncioRun
from namedtasks._core.callables import coroutine_error
from namedtasks._core.errors import TaskFailedError
from namedtasks._core.frames import without_our_frames
from namedtasks._log import complain
from namedtasks._thread_pool import Job

if TYPE_CHECKING:
    from namedtasks._thread_pool import ThreadPool

VERB, CURE = "run_in_executor()", "use create_task()"
"""The method and the cure that the error for an async function names."""


async def call_in_executor(
    run: AsyncioRun,
    executor: _pools.PoolOrFactory | None,
    fn: Callable[..., object],
    args: tuple[object, ...],
) -> object:
    """The body of a run that has a function run elsewhere; None is the map's own threads."""
    call = _Call(run.shell.loop, fn)
    run.is_elsewhere = True
    if executor is None:
        call.submit_to_threads(run.shell.threads, fn, args)
    else:
        try:
            run.job = _pools.submit(
                executor,
                fn,
                args,
                call.ended,
                lost=partial(call.in_loop, run.note_lost_worker),
                overdue_after=run.overdue_after,
            )
        except KeyboardInterrupt:  # a Ctrl-C, for example in the function that gives the pool
            raise
        except BaseException as refusal:
            raise _as_task_error(run, refusal)  # noqa: B904 - it has its cause
    del fn, args
    while call.future is None:
        try:
            await call.sleep()
        except asyncio.CancelledError as request:
            call.is_uncancellable = True
            run.shell.cancel(run, _reason(request))
    run.job = None
    future, call.future = call.future, None
    error: BaseException | None = None
    try:
        if future.cancelled() and run.is_asked_to_stop():
            raise run.cancelled_error()  # the pool has taken it back
        error = future.exception()
        if error is None:
            return future.result()
        raise _as_task_error(run, error)
    finally:
        del future, run, error  # no cycle through an error's traceback


def _as_task_error(run: AsyncioRun, error: BaseException) -> BaseException:
    """Return what the Task raises for the *error* of an executor; mostly that itself."""
    if isinstance(error, Exception):
        if isinstance(error, StopIteration):
            run.raised = error  # Python makes a RuntimeError of it in an async function
        return error
    run.raised = error  # a Task that ends in SystemExit would stop the loop
    failed = TaskFailedError(run.name, run.operation)
    failed.__cause__ = error
    return failed


def _reason(request: asyncio.CancelledError) -> str | None:
    """What was said to `Task.cancel`, if it is a text."""
    message = request.args[0] if request.args else None
    return message if isinstance(message, str) else None


@final
class _Call:
    """One function on its way; its future is here when the work has ended."""

    __slots__ = ("_fn", "_loop", "_sleeper", "future", "is_uncancellable")

    def __init__(self, loop: asyncio.AbstractEventLoop, fn: Callable[..., object]) -> None:
        self._loop = loop
        self._fn = fn
        self._sleeper: asyncio.Future[None] | None = None
        self.future: Future[Any] | None = None
        self.is_uncancellable: bool = False
        """True from the first cancellation on: later ones do not wake the Task."""

    def submit_to_threads(
        self, threads: ThreadPool, fn: Callable[..., object], args: tuple[object, ...]
    ) -> None:
        context = copy_context()
        threads.submit(Job(lambda: self.ended(_result_of(context, fn, args)), self._refused))

    def _refused(self, error: BaseException) -> None:
        future: Future[Any] = Future()
        future.set_exception(error)
        self.ended(future)

    def ended(self, future: Future[Any]) -> None:
        """Take the *future* of work that has ended. Called in any thread."""
        self.in_loop(self._wake, future)

    def in_loop(self, fn: Callable[..., object], *args: object) -> None:
        """Schedule a call of *fn* in the loop. Called in any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(fn, *args)

    def _wake(self, future: Future[Any]) -> None:
        self.future = self._failed_by_coroutine(future) or future
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def _failed_by_coroutine(self, future: Future[Any]) -> Future[Any] | None:
        """Return a failed future if the function returned a coroutine."""
        if future.cancelled() or future.exception() is not None:
            return None
        error = coroutine_error(VERB, self._fn, future.result(), CURE, complain)
        if error is None:
            return None
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed

    async def sleep(self) -> None:
        self._sleeper = (
            UncancellableFuture(loop=self._loop)
            if self.is_uncancellable
            else self._loop.create_future()
        )
        await self._sleeper


def _result_of(
    context: Context, fn: Callable[..., object], args: tuple[object, ...]
) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(context.run(fn, *args))
    except BaseException as error:
        future.set_exception(without_our_frames(error, frozenset()))
    try:
        return future
    finally:
        del future  # the error's frames lead back to this one
