"""The task map as its users see it, in trio's words."""

from __future__ import annotations

import math
from collections.abc import (
    Awaitable,
    Callable,
    Hashable,
)
from threading import get_ident
from types import FunctionType
from typing import Any, Literal, TypeVar, TypeVarTuple, final, overload

import trio
from trio.lowlevel import enable_ki_protection

from namedtasks._core import checks
from namedtasks._core.callables import check_async_fn, check_plain_fn
from namedtasks._core.errors import AlreadyRunningError, new_error
from namedtasks._core.names import check_start
from namedtasks._core.obstacles import backoff_error
from namedtasks._core.pending import IfBusy
from namedtasks._core.verbs import Verbs
from namedtasks._trio import waits
from namedtasks._trio.executors import CURE, VERB, Executor, call_in_executor
from namedtasks._trio.handle import TaskHandle
from namedtasks._trio.run import ExecutorRun
from namedtasks._trio.shell import WORDS, Shell

T = TypeVar("T")
Args = TypeVarTuple("Args")


@final
class TaskMap(Verbs[TaskHandle[Any]]):
    """Runs named tasks, one run of a name at a time, in an ``async with`` block.

    Made by `open_task_map`. As a mapping it is what runs right now: names to
    handles. Iterating goes over a snapshot. It is always true, equal only to
    itself, and hashable. It is not thread-safe, as a nursery is not: any thread
    may call `post` and look (the mapping, `check`, `state`, `failure`,
    `statistics`), all else raises RuntimeError outside the trio run that opened it.

    Example:
        >>> async with open_task_map() as tasks:
        ...     handle = tasks.start_soon("pvc-1", trio.sleep, 5)
        ...     list(tasks), "pvc-2" in tasks, tasks["pvc-1"] is handle
        (['pvc-1'], False, True)

    .. versionadded:: 0.1
    """

    __slots__ = ("_executor",)

    _shell: Shell

    def __init__(self, shell: Shell, executor: Executor | None) -> None:
        super().__init__(shell)
        self._executor = executor

    # Starting

    @overload
    def start_soon(
        self,
        name: Hashable,
        async_fn: Callable[[*Args], Awaitable[T]],
        /,
        *args: *Args,
        if_busy: Literal["refuse", "join", "replace", "queue"] = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
    ) -> TaskHandle[T]: ...
    @overload
    def start_soon(
        self,
        name: Hashable,
        async_fn: Callable[[*Args], Awaitable[T]],
        /,
        *args: *Args,
        if_busy: IfBusy,
        timeout: float | None = None,
        operation: str | None = None,
    ) -> TaskHandle[T] | None: ...
    def start_soon(  # noqa: C901 - for speed
        self,
        name: Hashable,
        async_fn: Callable[[*Args], Awaitable[T]],
        /,
        *args: *Args,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
    ) -> TaskHandle[T] | None:
        """Start ``async_fn(*args)`` under *name*, unless the name runs or waits. Not a checkpoint.

        *async_fn* is called at once, its body begins later. A start that is
        refused does not call it; if it raises, nothing was started.

        Args:
            name: Any hashable. Names that are equal are one name. In a tuple of
                up to four fields, `namedtasks.ANY` stands for all values of its
                field, and names that overlap exclude each other.
            async_fn: An async function.
            args: Its arguments.
            if_busy: What to do if the name cannot start now:
                ``"refuse"`` raises.
                ``"skip"`` gives None, for half of the price or less.
                ``"join"`` gives the handle of the run in progress, also of one
                that was asked to stop: one result for all who ask. *async_fn*
                is not called, so one name should mean one type of result.
                ``"replace"`` cancels the run in progress, and what else
                overlaps the name, and starts when all of them have really
                ended, however they did. It holds the name from now on.
                ``"queue"`` starts one more run as soon as the name may start:
                after the run in progress, and after the wait if there is one.
                A run that was put off, to replace or to queue, is *pending*. A
                name has one pending run at most: a newer one supersedes it, and
                its handle says so.
            timeout: Seconds, from the body's first step, after which the run is
                cancelled and has failed with `trio.TooSlowError`.
            operation: What the run does, from a small set of words. Failures
                are recorded for the name and the operation together.

        Raises:
            AlreadyRunningError: a run of the name, or of one that overlaps it,
                has not ended; with ``"join"`` and ``"queue"`` only the latter,
                with ``"replace"`` never.
            BackoffError: the last run failed, and the wait is not over; not
                with ``"queue"``.
            GaveUpError: the policy gave the name up.
            ClosedError: the map is closed, whatever *if_busy* says.
            TypeError: *name* cannot be hashed, *async_fn* is no async function,
                an argument is of the wrong type.
            ValueError: an argument is out of its range, or ANY stands where it
                means nothing.
            RuntimeError: the caller is not in the event loop run that opened the map.

        Example:
            >>> async def attach(volume):
            ...     await trio.sleep(5)
            ...     return f"/dev/{volume}"
            >>> async with open_task_map() as tasks:
            ...     handle = tasks.start_soon("pvc-1", attach, "pvc-1", timeout=30)
            ...     tasks.start_soon("pvc-1", attach, "pvc-1", if_busy="skip") is None
            ...     await handle.wait()
            True
            '/dev/pvc-1'
        """
        if type(async_fn) is not FunctionType:
            check_async_fn(WORDS, async_fn)
        shell = self._shell
        seen_unknown = False
        if timeout is None:
            seconds = math.inf
            # What is refused, is refused here and now: a reconcile loop asks far more often
            # than it starts. `start` decides about all that is not as plain as that. It is
            # `is_skipped`, written out: the call would cost each start 7 % more, and a skip 17 %.
            if shell.refuses_plainly and (operation is None or type(operation) is str):
                try:
                    run = shell.running_now.get(name)
                    table = None if run is not None else shell.failed_now.get(operation)
                    record = None if table is None else table.get(name)
                except TypeError:  # the name cannot be hashed
                    run = record = None
                if run is not None:
                    if if_busy == "skip" and get_ident() == shell.thread:
                        return None
                    if if_busy == "refuse" and get_ident() == shell.thread:
                        raise new_error(
                            AlreadyRunningError, name, operation, run.started_at, (run.name,)
                        )
                elif (
                    record is not None
                    and not shell.engine.ledger.overlaps.in_use
                    and get_ident() == shell.thread
                    and (now := shell.now()) < record.retry_at < math.inf
                ):
                    if if_busy == "skip":
                        return None
                    if if_busy == "refuse":
                        raise backoff_error(record, name, operation, now)
                else:
                    seen_unknown = record is None and type(name) is str and not shell.pending_now
        else:
            seconds = checks.timeout(timeout)
        if if_busy != "refuse":
            checks.if_busy(if_busy)
        return shell.start(
            name, async_fn, args, shell.engine.slots, if_busy, seconds, operation, seen_unknown
        )

    @overload
    def start_thread_soon(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: Executor | None = None,
        if_busy: Literal["refuse", "join", "replace", "queue"] = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
    ) -> TaskHandle[T]: ...
    @overload
    def start_thread_soon(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: Executor | None = None,
        if_busy: IfBusy,
        timeout: float | None = None,
        operation: str | None = None,
    ) -> TaskHandle[T] | None: ...
    def start_thread_soon(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: Executor | None = None,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
    ) -> TaskHandle[T] | None:
        """Start ``fn(*args)`` under *name* on an executor, a thread by default. Not a checkpoint.

        A thread cannot be stopped from outside. Cancelled or past its deadline
        it keeps its name until it is over, and is *overdue*; what it then
        returns is its result. One that is willing to stop calls
        ``current_run().check_cancelled()``. Whatever *fn* raises, `SystemExit`
        included, is a failure of the run.

        Args:
            name: As for `start_soon`.
            fn: A plain function.
            args: Its arguments.
            executor: Anything shaped like `trio.to_thread.run_sync`; by default
                the one that the map was opened with.
            if_busy: As for `start_soon`. One that replaces a thread waits for
                as long as that takes.
            timeout: As for `start_soon`; a thread that is not willing to stop
                does not meet it, it becomes overdue.
            operation: As for `start_soon`.

        Raises:
            TypeError: *fn* is an async function, or cannot be called. Where that
                is known only from its result, a coroutine, the run fails with it.
            RefusedError: as `start_soon`; see there for its kinds.
            ValueError: an argument is out of its range.
            RuntimeError: the caller is not in the event loop run that opened the map.

        Example:
            >>> import zlib
            >>> async with open_task_map() as tasks:
            ...     checksum = tasks.start_thread_soon("pvc-1", zlib.crc32, b"superblock")
            ...     await checksum.wait()
            852356688
        """
        check_plain_fn(VERB, fn, CURE)
        checks.executor(executor)
        checks.if_busy(if_busy)
        chosen = self._executor if executor is None else executor
        shell = self._shell
        return shell.start(
            name,
            call_in_executor,
            (shell.run_in_thread if chosen is None else chosen, fn, args),
            shell.engine.thread_slots if chosen is None else shell.engine.slots,
            if_busy,
            checks.timeout(timeout),
            operation,
            run_type=ExecutorRun,
        )

    def post(
        self,
        name: Hashable,
        async_fn: Callable[[*Args], Awaitable[object]],
        /,
        *args: *Args,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
    ) -> None:
        """Have `start_soon` called in the map's thread, from any thread. Not a checkpoint.

        Comes back at once. A refusal is told to the instruments only; an
        *async_fn* that gives no coroutine is logged. Posts from one thread are
        started in their order. Safe in signal handlers.

        *if_busy* is as for `start_soon`: with ``"queue"``, any number of posts
        while the name runs gives one more run. As nobody gets the handle,
        ``"join"`` is ``"skip"`` for a name that runs.

        Raises:
            ClosedError: the map is known to be closed, or its trio run is over.
            TypeError: as `start_soon`, as far as it can be seen here.
            ValueError: an argument is out of its range.

        Example:
            >>> async def attach(volume):
            ...     print(volume, "is attached")
            >>> async with open_task_map() as tasks:
            ...     await trio.to_thread.run_sync(tasks.post, "pvc-1", attach, "pvc-1")
            pvc-1 is attached
        """
        if type(async_fn) is not FunctionType:
            check_async_fn(WORDS, async_fn)
        if type(name) is not str or operation is not None:
            check_start(name, operation)
        if if_busy != "refuse":
            checks.if_busy(if_busy)
        if timeout is not None:
            checks.timeout(timeout)
        self._shell.post(
            self.start_soon,
            (name, async_fn, *args),
            {"if_busy": if_busy, "timeout": timeout, "operation": operation},
        )

    # Waiting

    @enable_ki_protection
    async def shutdown(self, *, grace: float | None = None) -> tuple[Hashable, ...]:
        """Close, wait *grace* seconds for what runs, cancel the rest. Checkpoint.

        Without *grace* it waits for as long as it takes, and cancels nothing.
        What is pending is waited for too, and cancelled with the rest; what
        would have to sit out a wait is dropped at once.
        After cancelling it waits ``overdue_after`` seconds more.

        Returns:
            The names still held by work that cannot be stopped.

        Raises:
            RuntimeError: the caller is inside a task of this map.
            TypeError: *grace* is no number.
            ValueError: *grace* is negative or NaN.

        Example:
            >>> async with open_task_map() as tasks:
            ...     short = tasks.start_soon("pvc-1", trio.sleep, 1)
            ...     long = tasks.start_soon("pvc-2", trio.sleep, 60)
            ...     await tasks.shutdown(grace=5)
            ...     short, long
            ()
            (<namedtasks.TaskHandle 'pvc-1' succeeded>, <namedtasks.TaskHandle 'pvc-2' cancelled>)
        """
        waits.refuse_inside_map(self._shell, "shutdown()")
        seconds = math.inf if grace is None else checks.number("grace", grace)
        self.close()
        with trio.move_on_after(seconds):
            await waits.sleep_while(self._shell, self._shell.hold_idle)
            return ()
        self._shell.cancel_all("the map is shutting down")
        with trio.move_on_after(self._shell.overdue_after):
            await waits.sleep_while(self._shell, self._shell.hold_idle)
        self._shell.on_time()  # they are due at this very moment
        return tuple(self)

    async def wait_idle(self) -> None:
        """Wait until nothing runs and nothing is pending. Checkpoint.

        Failures on record do not count, unless a run is queued behind their wait.
        Starts made meanwhile are waited for too: under a constant stream of
        overlapping runs this never returns. On return nothing runs until the
        caller's next checkpoint.

        Raises:
            RuntimeError: the caller is inside a task of this map.

        Example:
            >>> async with open_task_map() as tasks:
            ...     _ = tasks.start_soon("pvc-1", trio.sleep, 5)
            ...     _ = tasks.start_soon("pvc-2", trio.sleep, 60, timeout=10)
            ...     await tasks.wait_idle()
            ...     tasks
            <namedtasks.TaskMap running=0 waiting=1>
        """
        waits.refuse_inside_map(self._shell, "wait_idle()")
        await waits.sleep_while(self._shell, self._shell.hold_idle)

    async def wait_empty(self) -> None:
        """Wait until it is idle, and no name waits after a failure. Checkpoint.

        A failure on record ends by a run that succeeds, by `forget`, or at the
        end of its retention. Names given up do not count.

        Raises:
            RuntimeError: the caller is inside a task of this map.

        Example:
            The run fails after 10 s, its name waits for 0.5 s, and 60 s later
            that is forgotten.

            >>> async with open_task_map(retention=60) as tasks:
            ...     begun = trio.current_time()
            ...     _ = tasks.start_soon("pvc-1", trio.sleep, 30, timeout=10)
            ...     await tasks.wait_empty()
            ...     print(f"{trio.current_time() - begun:.1f} s")
            70.5 s
        """
        waits.refuse_inside_map(self._shell, "wait_empty()")
        await waits.sleep_while(self._shell, self._shell.hold_empty)

    async def wait_free(self, name: Hashable, *, operation: str | None = None) -> None:
        """Wait until *name* may be started. Checkpoint.

        On return a start is admitted, until the caller's next checkpoint. That
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

            >>> async with open_task_map() as tasks:
            ...     begun = trio.current_time()
            ...     _ = tasks.start_soon("pvc-1", trio.sleep, 30, timeout=10)
            ...     await tasks.wait_free("pvc-1")
            ...     print(f"{trio.current_time() - begun:.1f} s: {tasks.state('pvc-1')}")
            10.5 s: State.READY
        """
        for run in self._shell.holders(name, operation):
            waits.refuse_inside_run(run, "wait_free()")
        await waits.wait_free(self._shell, name, operation)
