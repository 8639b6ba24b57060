"""The task map for asyncio: `TaskMap` and `open_task_map`."""

from __future__ import annotations

import asyncio
import math
import random as random_module
from collections.abc import Callable, Coroutine, Hashable, Iterable
from contextlib import AbstractAsyncContextManager
from inspect import CO_COROUTINE
from types import FunctionType
from typing import Any, Literal, Never, TypeVar, TypeVarTuple, Unpack, cast, final, overload

import namedtasks._validation as checks
from namedtasks._asyncio.backend import (
    CURE,
    VERB,
    AsyncioBackend,
    AsyncioRun,
    Block,
    JoinedFuture,
    call_in_executor,
    refuse_inside_run,
    running_loop,
)
from namedtasks._backoff import Backoff, BackoffPolicy
from namedtasks._base import all_names, apply_effects, cancel_names, cancel_run, resolve, run_due
from namedtasks._decisions import IfBusy, StartAction, StartKeywords, StartOptions, StartPolicy
from namedtasks._errors import AlreadyRunningError, new_error
from namedtasks._events import Instrument
from namedtasks._executors import PoolOrFactory, check_pool_or_none
from namedtasks._names import check_start
from namedtasks._observations import Observation
from namedtasks._scheduler import Scheduler
from namedtasks._state import MAP_POLICY, RunStatus, Semaphore
from namedtasks._task_map import BaseTaskMap
from namedtasks._version import publish
from namedtasks.instruments import LoggingInstrument

T = TypeVar("T")
Args = TypeVarTuple("Args")

WORDS = checks.Words("create_task", "run_in_executor")
"""The two methods that start a run, for the errors about their functions."""

_POST_WORDS = checks.Words("post", "run_in_executor")


@final
class TaskMap(BaseTaskMap[asyncio.Task[Any]]):
    """A map of named tasks, with one run of a name at a time, in an ``async with`` block.

    `namedtasks.asyncio.open_task_map` opens it. As a mapping it contains the Tasks
    of the current runs by their names, and iterating goes over a snapshot. A map is
    always true, equal only to itself, and hashable. Like an `asyncio.TaskGroup`, it
    is not thread-safe. Any thread may call `post` and the methods that only read:
    the mapping, `check`, `state`, `failure`, `failures`, `pending`, `outcomes` and
    `statistics`. All others raise `RuntimeError` outside the event loop run that
    opened the map.

    Example:
        >>> async with open_task_map() as tasks:
        ...     task = tasks.create_task("pvc-1", asyncio.sleep, 5)
        ...     list(tasks), "pvc-2" in tasks, tasks["pvc-1"] is task
        (['pvc-1'], False, True)

    .. versionadded:: 0.1
    """

    __slots__ = ("_executor",)

    _backend: AsyncioBackend  # pyright: ignore[reportIncompatibleVariableOverride]

    @checks.reports_missing
    def __init__(self, backend: AsyncioBackend, executor: PoolOrFactory | None, **_: Never) -> None:
        if not isinstance(backend, AsyncioBackend):
            raise checks.not_called(
                "asyncio.TaskMap", "write 'async with namedtasks.asyncio.open_task_map() as tasks:'"
            )
        super().__init__(backend)
        self._executor = executor

    # Starting

    @overload
    def create_task(
        self,
        name: Hashable,
        coro_fn: Callable[[*Args], Coroutine[Any, Any, T]],
        /,
        *args: *Args,
        if_busy: Literal["refuse", "replace", "queue"] = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
    ) -> asyncio.Task[T]: ...
    @overload
    def create_task(
        self,
        name: Hashable,
        coro_fn: Callable[[*Args], Coroutine[Any, Any, T]],
        /,
        *args: *Args,
        if_busy: Literal["skip"],
        timeout: float | None = None,
        operation: str | None = None,
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
    ) -> asyncio.Task[T] | None: ...
    @overload
    def create_task(
        self,
        name: Hashable,
        coro_fn: Callable[[*Args], Coroutine[Any, Any, T]],
        /,
        *args: *Args,
        if_busy: Literal["join"],
        timeout: float | None = None,
        operation: str | None = None,
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
    ) -> asyncio.Future[T]: ...
    @overload
    def create_task(
        self,
        name: Hashable,
        coro_fn: Callable[[*Args], Coroutine[Any, Any, T]],
        /,
        *args: *Args,
        if_busy: IfBusy,
        timeout: float | None = None,
        operation: str | None = None,
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
    ) -> asyncio.Future[T] | None: ...
    def create_task(
        self,
        name: Hashable = checks.REQUIRED,
        coro_fn: Callable[[*Args], Coroutine[Any, Any, T]] = checks.REQUIRED,
        /,
        *args: *Args,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
        **options: Unpack[StartKeywords],
    ) -> asyncio.Future[T] | None:
        """Start ``coro_fn(*args)`` under *name*, unless the name runs or waits.

        *coro_fn* is called at once. Its body begins later, or at once if the loop
        makes eager tasks. A start that is refused does not call it. If it raises,
        nothing is started.

        Args:
            name: Any hashable but None. Names that are equal are one name. In a tuple of
                up to four fields, `namedtasks.ANY` means every value of its
                field. Names that overlap exclude each other. The name of
                the Task is this name as text.
            coro_fn: An async function.
            args: Its arguments.
            if_busy: The choice for a name that cannot start now: see `namedtasks.IfBusy`.
            timeout: The seconds that the body may take. After that, the run is
                cancelled and fails with `TimeoutError`.
            operation: A word for the kind of work, from a small set. Failures
                are recorded for the name and the operation together.
            backoff: The policy for the failures of this run and its retries, instead
                of the map's (the default, ``"map"``); None for no wait and no count.
            since: An observation from `observe`. The start is refused if a run of the
                name, or of a name that overlaps it, has ended since it began.
            retry: If true, and the name waits after a failure, another attempt begins
                at the end of the wait, in the same Task. Each attempt calls *coro_fn*,
                in the same context, and has the whole *timeout*. No further attempt
                follows an attempt that was cancelled, or if the name gave up or has a
                newer pending run. If the map drops a waiting retry, because it closes
                or because of a newer start, the Task raises `TaskCancelledError` from
                the last failure.

        Returns:
            A Task. Awaiting it returns the value of the body, or raises its error.
            The error counts as retrieved, because the instruments and the log get
            it. Cancelling the Task cancels the run. When the Task is done, its name
            is free, or held by the next run. If the loop has a task factory, and
            the Task was cancelled before its first step, this happens one turn of
            the loop later. A run that awaits a Task that is queued behind it hangs:
            the map does not know of such an await.
            With ``"join"``, a future of the caller's own, also for the first caller.
            It ends as the Task does, but if the Task was cancelled, the future raises
            `TaskCancelledError` with the reason. Cancelling the future, or a task
            that awaits it, does not affect the run. Awaiting it inside the run raises
            `RuntimeError`.

        Raises:
            AlreadyRunningError: a run of the name, or of a name that overlaps it,
                has not ended. With ``"join"`` and ``"queue"``, only runs of other
                names cause this; with ``"replace"``, none do.
            BackoffError: the last run failed, and the wait is not over. Not with
                ``"queue"``, nor with ``"join"`` if a retry waits.
            GaveUpError: the name gave up.
            StaleLookError: a run of the name, or of a name that overlaps it, has ended
                since the observation *since* began, or the observation has expired.
                Not with ``"skip"``.
            ClosedError: the map is closed. *if_busy* makes no difference.
            TypeError: *name* is None or cannot be hashed, *coro_fn* is not an async
                function, or an argument is of the wrong type.
            ValueError: an argument is out of its range, *name* is ANY itself, or it has
                ANY among more than four fields.
            RuntimeError: the caller is not in the event loop run that opened the map.

        Example:
            >>> async def attach(volume):
            ...     await asyncio.sleep(5)
            ...     return f"/dev/{volume}"
            >>> async with open_task_map() as tasks:
            ...     task = tasks.create_task("pvc-1", attach, "pvc-1", timeout=30)
            ...     tasks.create_task("pvc-1", attach, "pvc-1", if_busy="skip") is None
            ...     await task
            True
            '/dev/pvc-1'
        """
        if type(coro_fn) is not FunctionType:
            checks.check_async_fn(WORDS, coro_fn, name)
        if timeout is not None:
            timeout = checks.check_timeout(timeout)
        backend = self._backend
        if operation is not None:
            checks.check_hashable(name, operation)
        # A running name is refused here, as a reconcile loop asks far more often than it starts.
        try:
            run = self._refused_at_once.get(name)
        except TypeError:
            checks.check_hashable(name, operation)
            raise
        if run is not None and not options and running_loop() is backend.loop:
            if if_busy == "skip":
                return None
            if if_busy == "refuse":
                raise new_error(AlreadyRunningError, name, operation, run.started_at, (run.name,))
        elif (
            self._waits_at_once
            and not options
            and running_loop() is backend.loop
            and self._refuse_waiting(name, operation, if_busy)
        ):
            return None
        chosen = backend.scheduler.check_keywords("create_task", options) if options else None
        seconds = math.inf if timeout is None else timeout
        return self._start(
            name, coro_fn, args, backend.scheduler.slots, if_busy, seconds, operation, chosen
        )

    @overload
    def run_in_executor(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: PoolOrFactory | None = None,
        if_busy: Literal["refuse", "replace", "queue"] = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
    ) -> asyncio.Task[T]: ...
    @overload
    def run_in_executor(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: PoolOrFactory | None = None,
        if_busy: Literal["skip"],
        timeout: float | None = None,
        operation: str | None = None,
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
    ) -> asyncio.Task[T] | None: ...
    @overload
    def run_in_executor(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: PoolOrFactory | None = None,
        if_busy: Literal["join"],
        timeout: float | None = None,
        operation: str | None = None,
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
    ) -> asyncio.Future[T]: ...
    @overload
    def run_in_executor(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: PoolOrFactory | None = None,
        if_busy: IfBusy,
        timeout: float | None = None,
        operation: str | None = None,
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
    ) -> asyncio.Future[T] | None: ...
    def run_in_executor(
        self,
        name: Hashable = checks.REQUIRED,
        fn: Callable[[*Args], T] = checks.REQUIRED,
        /,
        *args: *Args,
        executor: PoolOrFactory | None = None,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
        **options: Unpack[StartKeywords],
    ) -> asyncio.Future[T] | None:
        """Start ``fn(*args)`` under *name* in an executor, a thread by default.

        A thread cannot be stopped from outside. A run that was cancelled, however
        often, or that reached its deadline, keeps its name and its Task until *fn*
        returns, and becomes *overdue*; the value that *fn* returns is still its
        result. To stop earlier, *fn* calls ``current_run().check_cancelled()``. All
        that *fn* raises is a failure of the run. If it is not an `Exception`, for
        example `SystemExit`, the Task raises `TaskFailedError` from it.

        Args:
            name: As for `create_task`.
            fn: A plain function.
            args: Its arguments.
            executor: A `concurrent.futures.Executor`, or a function that returns
                one; by default the map's executor.
            if_busy: As for `create_task`. A run that replaces a thread waits until
                that ends.
            timeout: As for `create_task`. If *fn* does not stop, the run becomes
                overdue.
            operation: As for `create_task`.
            backoff: As for `create_task`.
            since: As for `create_task`.
            retry: As for `create_task`.

        Raises:
            TypeError: *fn* is an async function, or cannot be called. If only the
                result of *fn*, a coroutine, shows that it is async, the Task raises
                this error.
            RefusedError: as for `create_task`, which lists its subclasses.
            ValueError: an argument is out of its range.
            RuntimeError: the caller is not in the event loop run that opened the map.

        Example:
            >>> import zlib
            >>> async with open_task_map() as tasks:
            ...     await tasks.run_in_executor("pvc-1", zlib.crc32, b"superblock")
            852356688
        """
        checks.check_plain_fn(VERB, fn, CURE, name)
        check_pool_or_none(executor)
        chosen = self._executor if executor is None else executor
        scheduler = self._backend.scheduler
        return self._start(
            name,
            call_in_executor,
            (chosen, fn, args),
            scheduler.thread_slots if chosen is None else scheduler.slots,
            if_busy,
            checks.check_timeout(timeout),
            operation,
            scheduler.check_keywords("run_in_executor", options) if options else None,
        )

    def _start(  # noqa: C901 - one step after the other
        self,
        name: Hashable,
        coro_fn: Callable[..., object],
        args: tuple[object, ...],
        semaphore: Semaphore[AsyncioRun] | None,
        if_busy: IfBusy,
        timeout: float,
        operation: str | None,
        options: StartOptions | None,
    ) -> asyncio.Future[Any] | None:
        backend = self._backend
        scheduler, now = backend.scheduler, backend.now
        if running_loop() is not backend.loop:
            backend.check_here()
        if type(name) is not str or operation is not None:
            check_start(name, operation)
        if if_busy != "refuse":
            checks.check_if_busy(if_busy)
        action = StartAction.ADMIT
        since = None if options is None else options.since
        conflict = scheduler.find_conflict(name, operation, now, since)
        if conflict is not None:
            action = resolve(backend, conflict, name, operation, if_busy)
            if action is not StartAction.DEFER:
                return _join(scheduler, name) if action is StartAction.JOIN else None
        body: Any
        if type(coro_fn) is FunctionType and coro_fn.__code__.co_flags & CO_COROUTINE:
            body = coro_fn(*args)  # an ``async def``: the call runs no code of the user's
        else:
            body = checks.check_body(WORDS, coro_fn, coro_fn(*args))
            try:  # the function may have started the same name, or closed the map
                conflict = scheduler.find_conflict(name, operation, now, since)
                if conflict is not None:
                    action = resolve(backend, conflict, name, operation, if_busy)
            except BaseException:
                checks.close_unbegun(body, lambda: checks.task_text(name, operation))
                raise
            if conflict is not None and action is not StartAction.DEFER:
                checks.close_unbegun(body, lambda: checks.task_text(name, operation))
                return _join(scheduler, name) if action is StartAction.JOIN else None
        run = AsyncioRun(backend, name, operation, timeout, semaphore)
        run.body = body
        if options is not None:
            run.backoff = options.backoff
            run.retry = options.retry
            if options.retry:
                run.source = (WORDS, coro_fn, args)
        shared = JoinedFuture(run) if if_busy == "join" else None
        if conflict is None:
            scheduler.admit(run, now)
        else:
            run.status = RunStatus.DEFERRED
        try:
            task = backend.make_task(run)
        except BaseException:
            backend.roll_back(run)
            raise
        if conflict is not None and not run.done:
            effects = scheduler.defer(run, if_busy, now())
            backend.waits.note_ended(*effects.dropped)
            apply_effects(backend, effects)
        if backend.cancelled_because is not None:
            cancel_run(backend, run, backend.cancelled_because)
        return task if shared is None else shared

    def post(
        self,
        name: Hashable,
        coro_fn: Callable[[*Args], Coroutine[Any, Any, object]],
        /,
        *args: *Args,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
        **unknown: Never,
    ) -> None:
        """Request a call of `create_task` in the map's thread, from any thread.

        Returns at once. Only the instruments get a refusal. If *coro_fn* does not
        return a coroutine, the error is logged. The posts of one thread are started
        in their order. A signal handler may call this.

        *if_busy* is as for `create_task`. With ``"queue"``, any number of posts while
        the name runs cause one more run. No caller gets the Task, so ``"join"`` does
        the same as ``"skip"`` while the name runs. *since* has to be open when the
        start is made.

        Raises:
            ClosedError: the map is known to be closed, or its loop is.
            TypeError: as for `create_task`, if it can be found before the start.
            ValueError: an argument is out of its range.

        Example:
            >>> async def attach(volume):
            ...     print(volume, "is attached")
            >>> async with open_task_map() as tasks:
            ...     await tasks.run_in_executor("watch", tasks.post, "pvc-1", attach, "pvc-1")
            pvc-1 is attached
        """
        if unknown:
            raise checks.keyword_error("post", unknown)
        checks.check_async_fn(_POST_WORDS, coro_fn, name)
        check_start(name, operation)
        checks.check_if_busy(if_busy)
        checks.check_timeout(timeout)
        options: dict[str, Any] = {}
        if since is not None or retry or backoff is not MAP_POLICY:
            self._backend.scheduler.check_options(backoff, since, retry)
            options = {"backoff": backoff, "since": since, "retry": retry}
        self._backend.post(
            self.create_task,
            (name, coro_fn, *args),
            {"if_busy": if_busy, "timeout": timeout, "operation": operation, **options},
        )

    # Waiting

    async def shutdown(self, *, grace: float | None = None) -> tuple[Hashable, ...]:
        """Close the map, wait *grace* seconds for its runs, cancel the rest.

        Without *grace* it waits until all runs have ended, and cancels nothing. It
        waits for pending runs, too, and cancels them with the rest, but drops at
        once those that wait for the end of a backoff. After cancelling, it waits
        for ``overdue_after`` seconds more, and for the Tasks of the runs that have
        ended: a turn or two of the loop, unless the coroutine of a task factory
        continues in them.

        Returns:
            The names that are still held by work that cannot be stopped.

        Raises:
            RuntimeError: the caller is inside a task of this map.
            TypeError: *grace* is not a number.
            ValueError: *grace* is negative or NaN.

        Example:
            >>> async with open_task_map() as tasks:
            ...     short = tasks.create_task("pvc-1", asyncio.sleep, 1)
            ...     long = tasks.create_task("pvc-2", asyncio.sleep, 60)
            ...     await tasks.shutdown(grace=5)
            ...     short.cancelled(), long.cancelled()
            ()
            (False, True)
        """
        backend = self._backend
        backend.refuse_inside_map("shutdown()")
        seconds = math.inf if grace is None else checks.check_number("grace", grace)
        self.close()
        if await backend.wait(backend.waits.until_idle, backend.now() + seconds):
            return ()
        cancel_names(backend, all_names(backend), "the map is shutting down")
        seconds = backend.scheduler.overdue_after
        await backend.wait(backend.waits.until_idle, backend.now() + seconds)
        await backend.wait(backend.waits.until_ended)
        run_due(backend)  # the runs become overdue at this very moment
        return tuple(self)

    async def wait_idle(self) -> None:
        """Wait until nothing runs and nothing is pending.

        Failures on record do not count, unless a queued run or a retry waits for the
        end of their backoff. It waits for runs that are started meanwhile, too: under
        a constant stream of runs it never returns. When it returns, nothing runs until
        the caller is next suspended.

        Raises:
            RuntimeError: the caller is inside a task of this map.

        Example:
            >>> async with open_task_map() as tasks:
            ...     _ = tasks.create_task("pvc-1", asyncio.sleep, 5)
            ...     _ = tasks.create_task("pvc-2", asyncio.sleep, 60, timeout=10)
            ...     await tasks.wait_idle()
            ...     tasks
            <namedtasks.asyncio.TaskMap running=0 waiting=1>
        """
        self._backend.refuse_inside_map("wait_idle()")
        await self._backend.wait(self._backend.waits.until_idle)

    async def wait_empty(self) -> None:
        """Wait until the map is idle and no name waits after a failure.

        A failure on record ends with a run that succeeds, with `forget`, or at the
        end of its retention. Names that gave up do not count.

        Raises:
            RuntimeError: the caller is inside a task of this map.

        Example:
            The run fails after 10 s, its name waits for 0.5 s, and 60 s later
            the failure is forgotten.

            >>> now = asyncio.get_running_loop().time
            >>> async with open_task_map(retention=60) as tasks:
            ...     begun = now()
            ...     _ = tasks.create_task("pvc-1", asyncio.sleep, 30, timeout=10)
            ...     await tasks.wait_empty()
            ...     print(f"{now() - begun:.1f} s")
            70.5 s
        """
        backend = self._backend
        backend.refuse_inside_map("wait_empty()")
        try:
            await backend.wait(backend.waits.until_empty)
        finally:
            backend.finished()  # it may have removed expired failures

    async def wait_free(self, name: Hashable, *, operation: str | None = None) -> None:
        """Wait until *name* may be started.

        When it returns, a start is admitted until the caller is next suspended: no run
        of the name, or of a name that overlaps it, is left.

        Raises:
            GaveUpError: the name gave up.
            ClosedError: the map is closed.
            RuntimeError: the caller is inside a run of this name, or of a name that
                overlaps it.
            TypeError: *name* is None or cannot be hashed, or *operation* is not a str.
            ValueError: *name* is ANY itself, or has ANY among more than four fields.

        Example:
            The run fails after 10 s, and its name waits for 0.5 s.

            >>> now = asyncio.get_running_loop().time
            >>> async with open_task_map() as tasks:
            ...     begun = now()
            ...     _ = tasks.create_task("pvc-1", asyncio.sleep, 30, timeout=10)
            ...     await tasks.wait_free("pvc-1")
            ...     print(f"{now() - begun:.1f} s: {tasks.state('pvc-1')}")
            10.5 s: State.READY
        """
        check_start(name, operation)
        backend = self._backend
        backend.check_here()
        for run in backend.scheduler.find_holders(name):
            refuse_inside_run(run, "wait_free()")
        await backend.wait_free(name, operation)


def _join(scheduler: Scheduler[AsyncioRun], name: Hashable) -> JoinedFuture:
    """Return a future of the run in progress, for a start that joins it."""
    return JoinedFuture(scheduler.run_to_join(name))


def open_task_map(
    *,
    backoff: BackoffPolicy | None = Backoff(),  # noqa: B008 - frozen
    retention: float | None = None,
    limit: int | None = None,
    executor: PoolOrFactory | None = None,
    overdue_after: float = 1.0,
    instruments: Iterable[Instrument] = (LoggingInstrument(),),
    random: Callable[[], float] = random_module.random,
    failure_threshold: int = 3,
    keep_outcomes: int = 0,
    keep_ends: int = 100_000,
) -> AbstractAsyncContextManager[TaskMap, None]:
    """Open a task map: ``async with open_task_map() as tasks``.

    The end of the block waits for all runs, as that of an `asyncio.TaskGroup` does,
    and for retries. An exception in the block, or a cancellation of the task that
    the block is in, cancels the runs. A task that fails cancels nothing. An error of
    a task that is not an `Exception` (`KeyboardInterrupt`, `SystemExit`) leaves the
    block, and cancels the block and the other runs. The block's own exception, or a
    task's `BaseException`, leaves the block unwrapped; several leave it as a group.

    Args:
        backoff: The policy for the wait of a failed name; None for no wait.
        retention: Seconds for which a failure is kept after its wait, unless the name
            is started again; None for twice the policy's ``maximum`` (244 s for a
            policy that has none).
        limit: The number of bodies that may run at once; further runs hold their
            names and wait in order. None for no limit (1 000 for threads).
        executor: The executor of `TaskMap.run_in_executor`: a
            `concurrent.futures.Executor`, or a function that returns one for each
            run. None for the map's own threads, which are not those of the loop
            and do not delay the interpreter's exit.
        overdue_after: Seconds from the cancellation or the deadline of a run to the
            time at which it is overdue, if it still runs.
        instruments: The instruments that get the map's events, in place of the
            default `LoggingInstrument`.
        random: Returns numbers in [0, 1), for `Backoff.jitter`.
        failure_threshold: The number of failures in a row at which `TaskMapStatistics.failing`
            counts a name.
        keep_outcomes: The number of names and operations whose last outcome is kept;
            0 for none.
        keep_ends: The number of ended names that the map remembers while an observation
            is open; beyond it the oldest observation expires.

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
    check_pool_or_none(executor)
    scheduler: Scheduler[AsyncioRun] = Scheduler(
        backoff,
        retention,
        limit,
        overdue_after,
        instruments,
        random,
        failure_threshold,
        keep_outcomes,
        keep_ends,
    )
    block = Block(scheduler, lambda backend: TaskMap(backend, executor))
    # To type checkers, None means that the block suppresses no exception.
    return cast("AbstractAsyncContextManager[TaskMap, None]", block)


publish(TaskMap, open_task_map, module="namedtasks.asyncio")
