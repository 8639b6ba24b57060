"""Opens a task map, and decides what leaves its block."""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import cast, final

import trio
from trio.lowlevel import enable_ki_protection

from namedtasks._core import checks
from namedtasks._core.backoff import Backoff, BackoffPolicy
from namedtasks._core.engine import Engine, make_engine
from namedtasks._core.events import Instrument
from namedtasks._core.groups import let_out
from namedtasks._core.text import error_text
from namedtasks._log import complain
from namedtasks._trio.executors import Executor
from namedtasks._trio.run import TrioRun, has_cancellation, is_cancellation
from namedtasks._trio.shell import ENCLOSING_SCOPE, Shell
from namedtasks._trio.task_map import TaskMap
from namedtasks.instruments.logging import LoggingInstrument


def open_task_map(
    *,
    backoff: BackoffPolicy | None = Backoff(),  # noqa: B008 - frozen
    retention: float | None = None,
    limit: int | None = None,
    executor: Executor | None = None,
    overdue_after: float = 1.0,
    instruments: Iterable[Instrument] = (LoggingInstrument(),),
    random: Callable[[], float] = random_module.random,
    workers: bool = True,
) -> AbstractAsyncContextManager[TaskMap, None]:
    """Open a task map, to be used as ``async with open_task_map() as tasks``.

    Leaving the block waits for what runs, as a nursery does; an exception in
    the block cancels it. A task that fails cancels nothing. What is no
    `Exception` (`KeyboardInterrupt`, `SystemExit`) goes on up, and cancels what
    runs. Out of the block come the block's own exception, or a task's
    `BaseException`, bare; several come as a group. Both ends of the block are
    what a nursery's are: the end is a schedule point, and waits.

    Args:
        backoff: How long a failed name waits; None for not at all.
        retention: Seconds after the end of its wait when a failure that nobody
            retries is forgotten; None for twice the policy's ``maximum`` (244 s
            for a policy that has none).
        limit: How many bodies may run at once; further runs hold their names
            and wait in order. None for no limit (of threads, 1 000).
        executor: What `TaskMap.start_thread_soon` runs functions on: anything
            shaped like `trio.to_thread.run_sync`. None for the map's own threads.
        overdue_after: Seconds after it was cancelled, or met its deadline, when
            a run that still goes on is overdue.
        instruments: Who hears what happens; by default a `LoggingInstrument`, which
            a list of one's own replaces.
        random: Gives numbers in [0, 1), for `Backoff.jitter`.
        workers: Whether bodies run in trio tasks that are used again, for a
            quarter of the price; False for a task of its own for each run.

    Raises:
        TypeError: a setting is of the wrong type.
        ValueError: a setting is out of its range.

    Example:
        >>> async def attach(volume):
        ...     await trio.sleep(5)
        ...     print(volume, "is attached")
        >>> async with open_task_map(limit=1) as tasks:
        ...     for volume in ("pvc-1", "pvc-2"):
        ...         _ = tasks.start_soon(volume, attach, volume)
        ...     tasks
        <namedtasks.TaskMap running=2 waiting=0>
        pvc-1 is attached
        pvc-2 is attached

    .. versionadded:: 0.1
    """
    checks.executor(executor)
    engine: Engine[TrioRun] = make_engine(
        backoff=backoff,
        retention=retention,
        limit=limit,
        overdue_after=overdue_after,
        instruments=instruments,
        random=random,
        complain=complain,
    )
    block = _Block(engine, executor, workers=checks.flag("workers", workers))
    # None, to type checkers, says that the block swallows no exception. It swallows just what
    # a nursery does: a cancellation that is its own, and those come with an exception to raise.
    return cast("AbstractAsyncContextManager[TaskMap, None]", block)


@final
class _Block:
    """The ``async with`` block of a map.

    Written by hand, as trio's own `NurseryManager` is: a generator would put
    its frames into each traceback.
    """

    __slots__ = ("_engine", "_executor", "_manager", "_shell", "_workers")

    def __init__(
        self, engine: Engine[TrioRun], executor: Executor | None, *, workers: bool
    ) -> None:
        self._engine = engine
        self._workers = workers
        self._executor = executor
        self._manager: AbstractAsyncContextManager[trio.Nursery, bool | None] | None = None
        self._shell: Shell | None = None

    @enable_ki_protection
    async def __aenter__(self) -> TaskMap:
        if self._manager is not None:
            raise RuntimeError("a task map can be opened only once: call open_task_map() again")
        self._manager = trio.open_nursery(strict_exception_groups=True)
        nursery = await self._manager.__aenter__()
        self._shell = Shell(self._engine, nursery, workers=self._workers)
        return TaskMap(self._shell, self._executor)

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._manager is not None
        assert self._shell is not None
        shell = self._shell
        raised_in_block = exc
        own, exc = await self._wait_for_runs(exc)
        shell.workers.stop()
        if own is not None:
            shell.nursery.cancel_scope.cancel("the map's block raised an exception")
        gathered: list[BaseException] = []
        absorbed: bool | None = False
        try:
            absorbed = await self._manager.__aexit__(
                None if exc is None else type(exc), exc, traceback
            )
        except BaseExceptionGroup as group:
            gathered = list(group.exceptions)
        finally:
            shell.close()
            shell.thread = None
        if own is not None or gathered:
            _leave(own, gathered, raised_in_block)
            return False
        return absorbed

    async def _wait_for_runs(
        self, exc: BaseException | None
    ) -> tuple[BaseException | None, BaseException | None]:
        """Wait for what runs, or cancel it; what the block raised, or Ctrl-C in the wait.

        Returns:
            The block's own exception, and what the nursery shall have in its
            place. Only a cancellation is for the nursery to absorb or not; any
            other exception stays out of its hands, as it would come back
            wrapped, and groups as copies.
        """
        assert self._shell is not None
        shell = self._shell
        try:
            shell.end_block()
            if exc is not None:
                shell.stop_all(_reason(exc))
            else:
                await shell.wait_for_runs()
        except trio.Cancelled:
            # Each run gets it too, and raises it or has something else to say: as in a nursery.
            shell.stop_all(ENCLOSING_SCOPE)
        except BaseException as interrupt:  # it leaves with the rest
            shell.stop_all(_reason(interrupt))
            return interrupt, None
        if exc is None or has_cancellation(exc):
            return None, exc
        return exc, None


def _reason(exc: BaseException) -> str:
    return ENCLOSING_SCOPE if has_cancellation(exc) else f"the map's block raised {error_text(exc)}"


def _leave(
    own: BaseException | None,
    gathered: list[BaseException],
    raised_in_block: BaseException | None,
) -> None:
    """Let out what leaves the block: the block's own exception, and what the nursery gathered.

    A cancellation of the surroundings is worth a mention only alone.
    """
    others = [one for one in gathered if not is_cancellation(one)]
    if own is not None:
        others.insert(0, own)
    left = others or gathered[:1]
    del own, gathered, others  # no cycle through an error's traceback
    try:
        let_out(left, raised_in_block)
    finally:
        del raised_in_block
