"""The task map as its users see it, in asyncio's words."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Literal, TypeVar, TypeVarTuple, final, overload

from namedtasks import _pools
from namedtasks._asyncio import waits
from namedtasks._asyncio.executors import CURE, VERB, call_in_executor
from namedtasks._asyncio.shell import Shell
from namedtasks._core import checks
from namedtasks._core.callables import Words, check_async_fn, check_body, check_plain_fn
from namedtasks._core.names import check_start
from namedtasks._core.pending import IfBusy
from namedtasks._core.verbs import Verbs

T = TypeVar("T")
Args = TypeVarTuple("Args")

_WORDS = Words("create_task", "run_in_executor")


@final
class TaskMap(Verbs[asyncio.Task[Any]]):
    """Runs named tasks, one run of a name at a time, in an ``async with`` block.

    Made by `namedtasks.asyncio.open_task_map`. As a mapping it is what runs
    right now: names to Tasks. Iterating goes over a snapshot. It is always true,
    equal only to itself, and hashable. It is not thread-safe, as a TaskGroup is
    not: any thread may call `post` and look (the mapping, `check`, `state`,
    `failure`, `statistics`), all else raises RuntimeError outside the event loop
    run that opened it.

    Example:
        >>> async with open_task_map() as tasks:
        ...     task = tasks.create_task("pvc-1", asyncio.sleep, 5)
        ...     list(tasks), "pvc-2" in tasks, tasks["pvc-1"] is task
        (['pvc-1'], False, True)

    .. versionadded:: 0.1
    """

    __slots__ = ("_executor",)

    _shell: Shell

    def __init__(self, shell: Shell, executor: _pools.PoolOrFactory | None) -> None:
        super().__init__(shell)
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
    ) -> asyncio.Future[T] | None: ...
    def create_task(
        self,
        name: Hashable,
        coro_fn: Callable[[*Args], Coroutine[Any, Any, T]],
        /,
        *args: *Args,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
    ) -> asyncio.Future[T] | None:
        """Start ``coro_fn(*args)`` under *name*, unless the name runs or waits.

        *coro_fn* is called at once; its body begins later, or at once where the
        loop makes eager tasks. A start that is refused does not call it; if it
        raises, nothing was started.

        Args:
            name: Any hashable. Names that are equal are one name. In a tuple of
                up to four fields, `namedtasks.ANY` stands for all values of its
                field, and names that overlap exclude each other. The Task bears
                the name as its text.
            coro_fn: An async function.
            args: Its arguments.
            if_busy: What to do if the name cannot start now:
                ``"refuse"`` raises.
                ``"skip"`` gives None, for half of the price or less.
                ``"join"`` gives a future of the run in progress, also of one
                that was asked to stop: one result for all who ask. *coro_fn* is
                not called, so one name should mean one type of result.
                ``"replace"`` cancels the run in progress, and what else
                overlaps the name, and starts when all of them have really
                ended, however they did. It holds the name from now on.
                ``"queue"`` starts one more run as soon as the name may start:
                after the run in progress, and after the wait if there is one.
                A run that was put off, to replace or to queue, is *pending*. A
                name has one pending run at most: a newer one supersedes it, and
                its Task is cancelled, with a message that says so.
            timeout: Seconds, from the body's first step, after which the run is
                cancelled and has failed with `TimeoutError`.
            operation: What the run does, from a small set of words. Failures
                are recorded for the name and the operation together.

        Returns:
            A Task as any other. Awaiting it gives the value, or raises what the
            body raised; who never looks at it is not told "exception was never
            retrieved", as the instruments and the log have heard of it.
            Cancelling it cancels the run. When it is done, its name is free, or
            held by the run that comes next; where the loop has a task factory,
            and the Task was cancelled before its first step, one turn of the
            loop later.
            To await, inside of a run, what is queued behind it hangs: asyncio
            awaits a Task, and asks nobody.
            With ``"join"`` it is a future of the caller's own, also for who is
            the first. It tells what the Task tells. Cancelling it, or a task
            that awaits it, does nothing to the run. To await it from inside of
            that run raises RuntimeError.

        Raises:
            AlreadyRunningError: a run of the name, or of one that overlaps it,
                has not ended; with ``"join"`` and ``"queue"`` only the latter,
                with ``"replace"`` never.
            BackoffError: the last run failed, and the wait is not over; not
                with ``"queue"``.
            GaveUpError: the policy gave the name up.
            ClosedError: the map is closed, whatever *if_busy* says.
            TypeError: *name* cannot be hashed, *coro_fn* is no async function,
                an argument is of the wrong type.
            ValueError: an argument is out of its range, or ANY stands where it
                means nothing.
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
        check_async_fn(_WORDS, coro_fn)
        checks.if_busy(if_busy)
        return self._shell.start(
            name,
            lambda _: check_body(_WORDS, coro_fn, coro_fn(*args)),
            slots=self._shell.engine.slots,
            if_busy=if_busy,
            timeout=checks.timeout(timeout),
            operation=operation,
        )

    @overload
    def run_in_executor(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: _pools.PoolOrFactory | None = None,
        if_busy: Literal["refuse", "replace", "queue"] = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
    ) -> asyncio.Task[T]: ...
    @overload
    def run_in_executor(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: _pools.PoolOrFactory | None = None,
        if_busy: Literal["skip"],
        timeout: float | None = None,
        operation: str | None = None,
    ) -> asyncio.Task[T] | None: ...
    @overload
    def run_in_executor(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: _pools.PoolOrFactory | None = None,
        if_busy: Literal["join"],
        timeout: float | None = None,
        operation: str | None = None,
    ) -> asyncio.Future[T]: ...
    @overload
    def run_in_executor(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: _pools.PoolOrFactory | None = None,
        if_busy: IfBusy,
        timeout: float | None = None,
        operation: str | None = None,
    ) -> asyncio.Future[T] | None: ...
    def run_in_executor(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: _pools.PoolOrFactory | None = None,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
    ) -> asyncio.Future[T] | None:
        """Start ``fn(*args)`` under *name* in an executor, a thread by default.

        A thread cannot be stopped from outside. Cancelled or past its deadline,
        by whomever and how often, it keeps its name and its Task until it is
        over, and is *overdue*; what it then returns is its result. One that is
        willing to stop calls ``current_run().check_cancelled()``. Whatever *fn*
        raises is a failure of the run; if it is no `Exception`, such as
        `SystemExit`, the Task raises `TaskFailedError` from it.

        Args:
            name: As for `create_task`.
            fn: A plain function.
            args: Its arguments.
            executor: A `concurrent.futures.Executor`, or a function that gives
                one; by default what the map was opened with.
            if_busy: As for `create_task`. One that replaces a thread waits for
                as long as that takes.
            timeout: As for `create_task`; a thread that is not willing to stop
                does not meet it, it becomes overdue.
            operation: As for `create_task`.

        Raises:
            TypeError: *fn* is an async function, or cannot be called. Where that
                is known only from its result, a coroutine, the Task raises it.
            RefusedError: as `create_task`; see there for its kinds.
            ValueError: an argument is out of its range.
            RuntimeError: the caller is not in the event loop run that opened the map.

        Example:
            >>> import zlib
            >>> async with open_task_map() as tasks:
            ...     await tasks.run_in_executor("pvc-1", zlib.crc32, b"superblock")
            852356688
        """
        check_plain_fn(VERB, fn, CURE)
        checks.if_busy(if_busy)
        _pools.check_pool_or_none(executor)
        chosen = self._executor if executor is None else executor
        engine = self._shell.engine
        return self._shell.start(
            name,
            lambda run: call_in_executor(run, chosen, fn, args),
            slots=engine.thread_slots if chosen is None else engine.slots,
            if_busy=if_busy,
            timeout=checks.timeout(timeout),
            operation=operation,
        )

    def post(
        self,
        name: Hashable,
        coro_fn: Callable[[*Args], Coroutine[Any, Any, object]],
        /,
        *args: *Args,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
    ) -> None:
        """Have `create_task` called in the map's thread, from any thread.

        Comes back at once. A refusal is told to the instruments only; a
        *coro_fn* that gives no coroutine is logged. Posts from one thread are
        started in their order. Safe in signal handlers.

        *if_busy* is as for `create_task`: with ``"queue"``, any number of posts
        while the name runs gives one more run. As nobody gets the Task,
        ``"join"`` is ``"skip"`` for a name that runs.

        Raises:
            ClosedError: the map is known to be closed, or its loop is.
            TypeError: as `create_task`, as far as it can be seen here.
            ValueError: an argument is out of its range.

        Example:
            >>> async def attach(volume):
            ...     print(volume, "is attached")
            >>> async with open_task_map() as tasks:
            ...     await tasks.run_in_executor("watch", tasks.post, "pvc-1", attach, "pvc-1")
            pvc-1 is attached
        """
        check_async_fn(_WORDS, coro_fn)
        check_start(name, operation)
        checks.if_busy(if_busy)
        checks.timeout(timeout)
        self._shell.post(
            self.create_task,
            (name, coro_fn, *args),
            {"if_busy": if_busy, "timeout": timeout, "operation": operation},
        )

    # Waiting

    async def shutdown(self, *, grace: float | None = None) -> tuple[Hashable, ...]:
        """Close, wait *grace* seconds for what runs, cancel the rest.

        Without *grace* it waits for as long as it takes, and cancels nothing.
        What is pending is waited for too, and cancelled with the rest; what
        would have to sit out a wait is dropped at once.
        After cancelling it waits ``overdue_after`` seconds more, and for the Tasks
        of the runs that have ended: a turn or two of the loop, unless a task
        factory's coroutine goes on in them.

        Returns:
            The names still held by work that cannot be stopped.

        Raises:
            RuntimeError: the caller is inside a task of this map.
            TypeError: *grace* is no number.
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
        shell = self._shell
        waits.refuse_inside_map(shell, "shutdown()")
        seconds = math.inf if grace is None else checks.number("grace", grace)
        self.close()
        if await waits.sleep_while(shell, shell.hold_idle, shell.now() + seconds):
            return ()
        shell.cancel_all("the map is shutting down")
        await waits.sleep_while(shell, shell.hold_idle, shell.now() + shell.overdue_after)
        await waits.sleep_while(shell, shell.hold_ending)
        shell.on_time()  # they are due at this very moment
        return tuple(self)

    async def wait_idle(self) -> None:
        """Wait until nothing runs and nothing is pending.

        Failures on record do not count, unless a run is queued behind their wait.
        Starts made meanwhile are waited for too: under a constant stream of
        overlapping runs this never returns. On return nothing runs until the
        caller's next suspension.

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
        waits.refuse_inside_map(self._shell, "wait_idle()")
        await waits.sleep_while(self._shell, self._shell.hold_idle)

    async def wait_empty(self) -> None:
        """Wait until it is idle, and no name waits after a failure.

        A failure on record ends by a run that succeeds, by `forget`, or at the
        end of its retention. Names given up do not count.

        Raises:
            RuntimeError: the caller is inside a task of this map.

        Example:
            The run fails after 10 s, its name waits for 0.5 s, and 60 s later
            that is forgotten.

            >>> now = asyncio.get_running_loop().time
            >>> async with open_task_map(retention=60) as tasks:
            ...     begun = now()
            ...     _ = tasks.create_task("pvc-1", asyncio.sleep, 30, timeout=10)
            ...     await tasks.wait_empty()
            ...     print(f"{now() - begun:.1f} s")
            70.5 s
        """
        waits.refuse_inside_map(self._shell, "wait_empty()")
        await waits.sleep_while(self._shell, self._shell.hold_empty)

    async def wait_free(self, name: Hashable, *, operation: str | None = None) -> None:
        """Wait until *name* may be started.

        On return a start is admitted, until the caller's next suspension. That
        nothing runs that overlaps *name* belongs to it.

        Raises:
            GaveUpError: the policy gave the name up.
            ClosedError: the map is closed.
            RuntimeError: the caller is inside a run of this name, or of one that
                overlaps it.
            TypeError: *name* cannot be hashed, or *operation* is no text.
            ValueError: ANY stands where it means nothing.

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
        for run in self._shell.holders(name, operation):
            waits.refuse_inside_run(run, "wait_free()")
        await waits.wait_free(self._shell, name, operation)
