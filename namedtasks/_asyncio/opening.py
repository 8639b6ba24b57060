"""Opens a task map, and decides what leaves its block."""

from __future__ import annotations

import asyncio
import random as random_module
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, final

from namedtasks import _pools
from namedtasks._asyncio.run import AsyncioRun
from namedtasks._asyncio.shell import Shell
from namedtasks._asyncio.task_map import TaskMap
from namedtasks._core.backoff import Backoff, BackoffPolicy
from namedtasks._core.engine import Engine, make_engine
from namedtasks._core.events import Instrument
from namedtasks._core.groups import let_out
from namedtasks._core.text import error_text
from namedtasks._log import complain
from namedtasks.instruments.logging import LoggingInstrument

_BLOCK_CANCELLED = "the task that the map's block is in was cancelled"


def open_task_map(
    *,
    backoff: BackoffPolicy | None = Backoff(),  # noqa: B008 - frozen
    retention: float | None = None,
    limit: int | None = None,
    executor: _pools.PoolOrFactory | None = None,
    overdue_after: float = 1.0,
    instruments: Iterable[Instrument] = (LoggingInstrument(),),
    random: Callable[[], float] = random_module.random,
) -> AbstractAsyncContextManager[TaskMap, None]:
    """Open a task map, to be used as ``async with open_task_map() as tasks``.

    Leaving the block waits for what runs, as an `asyncio.TaskGroup` does. An
    exception in the block, or a cancellation of the task that it is in, cancels
    what runs. A task that fails cancels nothing. What is no `Exception`
    (`KeyboardInterrupt`, `SystemExit`) goes on up, and cancels what runs and the
    block. Out of the block come its own exception, or a task's `BaseException`,
    bare; several come as a group.

    Args:
        backoff: How long a failed name waits; None for not at all.
        retention: Seconds after the end of its wait when a failure that nobody
            retries is forgotten; None for twice the policy's ``maximum`` (244 s
            for a policy that has none).
        limit: How many bodies may run at once; further runs hold their names
            and wait in order. None for no limit (of threads, 1 000).
        executor: What `TaskMap.run_in_executor` runs functions in: a
            `concurrent.futures.Executor`, or a function that gives one for each
            run. None for the map's own threads, which are not those of the loop
            and do not keep the interpreter from its exit.
        overdue_after: Seconds after it was cancelled, or met its deadline, when
            a run that still goes on is overdue.
        instruments: Who hears what happens; by default a `LoggingInstrument`, which
            a list of one's own replaces.
        random: Gives numbers in [0, 1), for `Backoff.jitter`.

    Raises:
        TypeError: a setting is of the wrong type.
        ValueError: a setting is out of its range.

    Example:
        >>> async def attach(volume):
        ...     await asyncio.sleep(5)
        ...     print(volume, "is attached")
        >>> async with open_task_map(limit=1) as tasks:
        ...     for volume in ("pvc-1", "pvc-2"):
        ...         _ = tasks.create_task(volume, attach, volume)
        ...     tasks
        <namedtasks.asyncio.TaskMap running=2 waiting=0>
        pvc-1 is attached
        pvc-2 is attached

    .. versionadded:: 0.1
    """
    _pools.check_pool_or_none(executor)
    engine: Engine[AsyncioRun] = make_engine(
        backoff=backoff,
        retention=retention,
        limit=limit,
        overdue_after=overdue_after,
        instruments=instruments,
        random=random,
        complain=complain,
    )
    return _Block(engine, executor)


@final
class _Block(AbstractAsyncContextManager[TaskMap, None]):
    """The ``async with`` block of a map: `asyncio.TaskGroup` is its model."""

    __slots__ = ("_engine", "_executor", "_shell")

    def __init__(self, engine: Engine[AsyncioRun], executor: _pools.PoolOrFactory | None) -> None:
        self._engine = engine
        self._executor = executor
        self._shell: Shell | None = None

    async def __aenter__(self) -> TaskMap:
        if self._shell is not None:
            raise RuntimeError("a task map can be opened only once: call open_task_map() again")
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a task map is opened inside of an asyncio task, as a TaskGroup is")
        self._shell = Shell(self._engine, task)
        return TaskMap(self._shell, self._executor)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._shell is not None
        shell = self._shell
        shell.end_block()
        if exc is not None:
            shell.stop_all(_reason(exc))
        cancelled = await _wait_for_runs(shell)
        if isinstance(exc, asyncio.CancelledError):
            cancelled = exc
        shell.close()
        shell.threads.close()
        if shell.block_was_cancelled:
            cancelled = await _absorb(shell.block, cancelled)
        own = None if isinstance(exc, asyncio.CancelledError) else exc
        _leave(shell, own, cancelled, exc)


def _reason(exc: BaseException) -> str:
    if isinstance(exc, asyncio.CancelledError):
        return _BLOCK_CANCELLED
    return f"the map's block raised {error_text(exc)}"


async def _wait_for_runs(shell: Shell) -> asyncio.CancelledError | None:
    """Wait until nothing runs and all Tasks are done; the first cancellation cancels what runs.

    Returns:
        That cancellation. Further ones are counted by the Task, and not lost:
        what the block raises in the end leaves all the same.
    """
    try:
        while not shell.is_over():
            await shell.quiet.park()
    except asyncio.CancelledError as request:
        shell.stop_all(_BLOCK_CANCELLED)
        with _anyio_shield():
            while not shell.is_over():
                await shell.quiet.park(is_uncancellable=True)
        return request
    return None


def _anyio_shield() -> AbstractContextManager[object, bool | None]:
    """Return a scope in which anyio does not cancel the Task again in each turn of the loop.

    A program that uses anyio has imported it.
    """
    scope: Any = getattr(sys.modules.get("anyio"), "CancelScope", None)
    return nullcontext() if scope is None else scope(shield=True)


async def _absorb(
    block: asyncio.Task[object], cancelled: asyncio.CancelledError | None
) -> asyncio.CancelledError | None:
    """Take back our own cancellation of the block; what is left if somebody else's is there."""
    if cancelled is None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as late:  # it had not arrived yet
            cancelled = late
    return cancelled if block.uncancel() else None


def _leave(
    shell: Shell,
    own: BaseException | None,
    cancelled: asyncio.CancelledError | None,
    raised_in_block: BaseException | None,
) -> None:
    """Let out what leaves the block: its own exception, and what went up from the runs.

    A cancellation leaves only alone; beside others it is requested anew, as a
    TaskGroup does.
    """
    left: list[BaseException] = [] if own is None else [own]
    left += [one for one in shell.gone_up if one is not own]
    shell.gone_up.clear()
    if left and cancelled is not None:
        shell.block.uncancel()
        shell.block.cancel()
    if not left and cancelled is not None:
        left = [cancelled]
    del own, cancelled  # no cycle through an error's traceback
    try:
        if left:
            let_out(left, raised_in_block)
    finally:
        del raised_in_block
