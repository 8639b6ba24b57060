"""The task map for trio: `TaskMap`, `TaskHandle` and `open_task_map`."""

from __future__ import annotations

import math
import random as random_module
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from functools import partial
from inspect import CO_COROUTINE
from threading import get_ident
from types import FunctionType
from typing import (
    Any,
    Generic,
    Literal,
    Never,
    TypeVar,
    TypeVarTuple,
    Unpack,
    cast,
    final,
    overload,
)

import trio
from trio.lowlevel import ParkingLot, checkpoint, disable_ki_protection, enable_ki_protection

import namedtasks._base as base
import namedtasks._validation as checks
from namedtasks._backoff import Backoff, BackoffPolicy
from namedtasks._decisions import (
    DEFER,
    JOIN,
    REFUSE,
    IfBusy,
    StartKeywords,
    StartOptions,
    StartPolicy,
)
from namedtasks._errors import AlreadyRunningError, TaskFailedError, new_error
from namedtasks._events import Instrument
from namedtasks._names import ANY, MAX_FIELDS, check_name, check_start
from namedtasks._observations import Observation
from namedtasks._scheduler import Scheduler
from namedtasks._state import MAP_POLICY, QUEUED, SUCCEEDED, Semaphore
from namedtasks._task_map import BaseTaskMap
from namedtasks._trio.backend import (
    CURE,
    VERB,
    Block,
    Executor,
    ExecutorRun,
    TrioBackend,
    TrioRun,
    call_in_executor,
)
from namedtasks._version import publish
from namedtasks.instruments import LoggingInstrument

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Args = TypeVarTuple("Args")

WORDS = checks.Words("start_soon", "start_thread_soon")
"""The two methods that start a run, for the errors about their functions."""

_POST_WORDS = checks.Words("post", "start_thread_soon")


@final
class TaskHandle(Generic[T_co]):
    """One run of a named task: its state, its cancellation and its result.

    A handle outlives its run and keeps the result. Dropping the handle does not
    affect the run. A handle is equal only to itself.

    Example:
        >>> async with open_task_map() as tasks:
        ...     handle = tasks.start_soon("pvc-1", trio.sleep, 5, operation="attach")
        ...     handle
        ...     await tasks.wait_idle()
        ...     handle, handle.operation, handle.done
        <namedtasks.TaskHandle 'pvc-1' not begun>
        (<namedtasks.TaskHandle 'pvc-1' succeeded>, 'attach', True)

    .. versionadded:: 0.1
    """

    __slots__ = ("__weakref__", "_run")

    @checks.reports_missing
    def __init__(self, run: TrioRun) -> None:
        if run is checks.REQUIRED:
            raise checks.not_called("TaskHandle", "start_soon() and start_thread_soon() return one")
        self._run = run

    @property
    def name(self) -> Hashable:
        """The task's name."""
        return self._run.name

    @property
    def operation(self) -> str | None:
        """The operation that the start named, if any."""
        return self._run.operation

    @property
    def started_at(self) -> float | None:
        """The time at which the body began, in seconds on the map's clock; None before that."""
        return self._run.started_at

    @property
    def failures(self) -> int:
        """The number of runs of the name that failed in a row before this one; 0 once forgotten."""
        return self._run.failures

    @property
    def attempts(self) -> int:
        """The number of bodies that have begun: more than 1 only with ``retry=True``."""
        return self._run.attempts

    @property
    def done(self) -> bool:
        """True if the work has really ended and its name is free."""
        return self._run.done

    @property
    def overdue(self) -> bool:
        """True if the run did not stop in time after it was cancelled or reached its deadline."""
        return self._run.overdue

    def cancel(self, reason: str | None = None) -> bool:
        """Ask this run to stop, for a *reason*. Not a checkpoint.

        The run ends when its body stops. If the body returns or raises an error
        instead, the run has succeeded or failed. A run that is pending, or waits
        for a slot, ends at once. The first reason counts.

        Returns:
            True if the run had not ended yet.

        Raises:
            TypeError: *reason* is neither a str nor None.
            RuntimeError: the caller is not in the event loop run that opened the map.

        Example:
            >>> async with open_task_map() as tasks:
            ...     handle = tasks.start_soon("pvc-1", trio.sleep, 60)
            ...     handle.cancel("the pod is gone")
            ...     await tasks.wait_idle()
            ...     handle.cancel()
            True
            False
        """
        checks.check_reason(reason)
        backend = self._run.backend
        cancelled: bool = backend.call(partial(base.cancel_run, backend, self._run, reason))
        return cancelled

    @enable_ki_protection
    async def wait(self) -> T_co:
        """Wait for the end of the run, and return the value of its body. Checkpoint.

        Cancelling the wait does not affect the run. Any number of tasks may
        wait, also after the end.

        Raises:
            TaskFailedError: the run failed; ``__cause__`` is the error of the body.
            TaskCancelledError: the run was cancelled.
            RuntimeError: the caller is inside this run, inside the run that it is
                queued behind, or in another run of trio.

        Example:
            >>> async def attach(volume):
            ...     raise OSError("device busy")
            >>> async with open_task_map() as tasks:
            ...     handle = tasks.start_soon("pvc-1", attach, "pvc-1")
            ...     try:
            ...         await handle.wait()
            ...     except TaskFailedError as error:
            ...         error.__cause__
            OSError('device busy')
        """
        run = self._run
        if run.status >= SUCCEEDED:
            await checkpoint()
        else:
            backend: TrioBackend = run.backend
            if get_ident() != backend.thread:
                backend.check_here()
            backend.refuse_inside_run(run, "wait() of its own handle")
            holder = None if run.deferred is None else backend.scheduler.holder_before(run)
            if holder is not None:
                backend.refuse_inside_run(holder, "wait() of a run that is queued behind it")
            while run.status < SUCCEEDED:
                if run.waiters is None:
                    run.waiters = ParkingLot()
                await run.waiters.park()
        if run.status is SUCCEEDED:
            return cast("T_co", run.value)
        if run.error is not None:
            raise TaskFailedError(run.name, run.operation) from run.error
        raise run.cancelled_error()

    def __repr__(self) -> str:
        return f"<namedtasks.TaskHandle {checks.safe_repr(self.name)} {self._state()}>"

    def _state(self) -> str:
        run = self._run
        if run.done:
            return run.status.name.lower()
        if run.overdue:
            return "overdue"
        if run.deferred == "retry":
            return "waiting to retry"
        return "not begun" if run.started_at is None else "running"


@final
class TaskMap(BaseTaskMap[TaskHandle[Any]]):
    """A map of named tasks, with one run of a name at a time, in an ``async with`` block.

    `open_task_map` opens it. As a mapping it contains the handles of the current
    runs by their names, and iterating goes over a snapshot. A map is always true,
    equal only to itself, and hashable. Like a nursery, it is not thread-safe. Any
    thread may call `post` and the methods that only read: the mapping, `check`,
    `state`, `failure`, `failures`, `pending`, `outcomes` and `statistics`. All
    others raise `RuntimeError` outside the trio run that opened the map.

    Example:
        >>> async with open_task_map() as tasks:
        ...     handle = tasks.start_soon("pvc-1", trio.sleep, 5)
        ...     list(tasks), "pvc-2" in tasks, tasks["pvc-1"] is handle
        (['pvc-1'], False, True)

    .. versionadded:: 0.1
    """

    __slots__ = ("_executor",)

    _backend: TrioBackend  # pyright: ignore[reportIncompatibleVariableOverride]

    @checks.reports_missing
    def __init__(self, backend: TrioBackend, executor: Executor | None, **_: Never) -> None:
        if not isinstance(backend, TrioBackend):
            raise checks.not_called(
                "TaskMap", "write 'async with namedtasks.open_task_map() as tasks:'"
            )
        super().__init__(backend)
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
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
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
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
    ) -> TaskHandle[T] | None: ...
    def start_soon(
        self,
        name: Hashable = checks.REQUIRED,
        async_fn: Callable[[*Args], Awaitable[T]] = checks.REQUIRED,
        /,
        *args: *Args,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
        **options: Unpack[StartKeywords],
    ) -> TaskHandle[T] | None:
        """Start ``async_fn(*args)`` under *name*, unless the name runs or waits. Not a checkpoint.

        *async_fn* is called at once, and its body begins later. A start that is
        refused does not call it. If it raises, nothing is started.

        Args:
            name: Any hashable but None. Names that are equal are one name. In a tuple of
                up to four fields, `namedtasks.ANY` means every value of its
                field. Names that overlap exclude each other.
            async_fn: An async function.
            args: Its arguments.
            if_busy: The choice for a name that cannot start now: see `namedtasks.IfBusy`.
            timeout: The seconds that the body may take. After that, the run is
                cancelled and fails with `trio.TooSlowError`.
            operation: A word for the kind of work, from a small set. Failures
                are recorded for the name and the operation together.
            backoff: The policy for the failures of this run and its retries, instead
                of the map's (the default, ``"map"``); None for no wait and no count.
            since: An observation from `observe`. The start is refused if a run of the
                name, or of a name that overlaps it, has ended since it began.
            retry: If true, and the name waits after a failure, another attempt begins
                at the end of the wait, with the same handle. Each attempt calls
                *async_fn*, in the context of this call, and has the whole *timeout*. No
                further attempt follows an attempt that was cancelled, or if the name
                gave up or has a newer pending run.

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
            TypeError: *name* is None or cannot be hashed, *async_fn* is not an async
                function, or an argument is of the wrong type.
            ValueError: an argument is out of its range, *name* is ANY itself, or it has
                ANY among more than four fields.
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
            checks.check_async_fn(WORDS, async_fn, name)
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
        if run is not None and not options and get_ident() == backend.thread:
            if if_busy == "skip":
                return None
            if if_busy == "refuse":
                raise new_error(AlreadyRunningError, name, operation, run.started_at, (run.name,))
        elif (
            self._waits_at_once
            and not options
            and get_ident() == backend.thread
            and self._refuse_waiting(name, operation, if_busy)
        ):
            return None
        chosen = backend.scheduler.check_keywords("start_soon", options) if options else None
        seconds = math.inf if timeout is None else timeout
        slots = backend.scheduler.slots
        return self._start(
            TrioRun, name, async_fn, args, slots, if_busy, seconds, operation, chosen
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
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
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
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
    ) -> TaskHandle[T] | None: ...
    def start_thread_soon(
        self,
        name: Hashable = checks.REQUIRED,
        fn: Callable[[*Args], T] = checks.REQUIRED,
        /,
        *args: *Args,
        executor: Executor | None = None,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
        **options: Unpack[StartKeywords],
    ) -> TaskHandle[T] | None:
        """Start ``fn(*args)`` under *name* on an executor, a thread by default. Not a checkpoint.

        A thread cannot be stopped from outside. A run that was cancelled, or that
        reached its deadline, keeps its name until *fn* returns, and becomes
        *overdue*; the value that *fn* returns is still its result. To stop earlier,
        *fn* calls ``current_run().check_cancelled()``. All that *fn* raises,
        `SystemExit` included, is a failure of the run.

        Args:
            name: As for `start_soon`.
            fn: A plain function.
            args: Its arguments.
            executor: An async callable with the parameters of
                `trio.to_thread.run_sync`; by default the map's executor.
            if_busy: As for `start_soon`. A run that replaces a thread waits until
                that ends.
            timeout: As for `start_soon`. If *fn* does not stop, the run becomes
                overdue.
            operation: As for `start_soon`.
            backoff: As for `start_soon`.
            since: As for `start_soon`.
            retry: As for `start_soon`.

        Raises:
            TypeError: *fn* is an async function, or cannot be called. If only the
                result of *fn*, a coroutine, shows that it is async, the run fails
                with this error.
            RefusedError: as for `start_soon`, which lists its subclasses.
            ValueError: an argument is out of its range.
            RuntimeError: the caller is not in the event loop run that opened the map.

        Example:
            >>> import zlib
            >>> async with open_task_map() as tasks:
            ...     checksum = tasks.start_thread_soon("pvc-1", zlib.crc32, b"superblock")
            ...     await checksum.wait()
            852356688
        """
        checks.check_plain_fn(VERB, fn, CURE, name)
        checks.check_executor(executor)
        check_start(name, operation)
        chosen = self._executor if executor is None else executor
        backend = self._backend
        scheduler = backend.scheduler
        return self._start(
            ExecutorRun,
            name,
            call_in_executor,
            (backend.run_in_thread if chosen is None else chosen, fn, args),
            scheduler.thread_slots if chosen is None else scheduler.slots,
            if_busy,
            checks.check_timeout(timeout),
            operation,
            scheduler.check_keywords("start_thread_soon", options) if options else None,
        )

    @enable_ki_protection
    def _start(  # noqa: C901 - the whole walk of a start
        self,
        run_type: type[TrioRun],
        name: Hashable,
        async_fn: Callable[..., object],
        args: tuple[object, ...],
        semaphore: Semaphore[TrioRun] | None,
        if_busy: IfBusy,
        timeout: float,
        operation: str | None,
        options: StartOptions | None,
    ) -> TaskHandle[Any] | None:
        backend = self._backend
        scheduler, now = backend.scheduler, backend.now
        if get_ident() != backend.thread:
            backend.check_here()
        fields: Any = name
        if (
            fields is None
            or fields is ANY
            or (isinstance(fields, tuple) and len(cast("Any", fields)) > MAX_FIELDS)
        ):
            check_name(name)
        if if_busy not in ("refuse", "skip"):
            checks.check_if_busy(if_busy)
        body: Any = None
        since = None if options is None else options.since
        while True:
            conflict = scheduler.find_conflict(name, operation, now, since)
            if conflict is not None:
                action, error = scheduler.resolve(conflict, name, operation, if_busy, now)
                if action is not DEFER:
                    checks.close_unbegun(body, partial(checks.task_text, name, operation))
                    if error is not None or action is JOIN:
                        backend.finished()
                        if error is not None and action is REFUSE:
                            try:
                                raise error
                            finally:
                                del error  # no cycle through the traceback
                    return scheduler.run_to_join(name).handle if action is JOIN else None
            if body is not None:
                break
            if type(async_fn) is FunctionType and async_fn.__code__.co_flags & CO_COROUTINE:
                body = async_fn(*args)  # an ``async def``: the call runs no code of the user's
                break
            # It may start the same name, or close the map: look again.
            body = checks.check_body(WORDS, async_fn, _call_unprotected(async_fn, args))
        run = run_type(backend, name, operation, timeout, semaphore)
        run.body = body
        handle: TaskHandle[Any] = TaskHandle(run)
        run.handle = handle
        if options is not None:
            run.backoff = options.backoff
            run.retry = options.retry
            if options.retry:
                run.source = (copy_context(), WORDS, async_fn, args)
        if conflict is not None:
            run.context = copy_context()
            effects = scheduler.defer(run, if_busy, now())
            backend.carry_out(effects)
            return handle
        scheduler.admit(run, now)
        if run.status is QUEUED:
            run.context = copy_context()
            return handle
        try:
            backend.workers.begin_soon(run)
        except BaseException:
            backend.roll_back(run)
            raise
        return handle

    def post(
        self,
        name: Hashable,
        async_fn: Callable[[*Args], Awaitable[object]],
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
        """Request a call of `start_soon` in the map's thread, from any thread. Not a checkpoint.

        Returns at once. Only the instruments get a refusal. If *async_fn* does not
        return a coroutine, the error is logged. The posts of one thread are started
        in their order. A signal handler may call this.

        *if_busy* is as for `start_soon`. With ``"queue"``, any number of posts while
        the name runs cause one more run. No caller gets the handle, so ``"join"``
        does the same as ``"skip"`` while the name runs. *since* has to be open when
        the start is made.

        Raises:
            ClosedError: the map is known to be closed, or its trio run is over.
            TypeError: as for `start_soon`, if it can be found before the start.
            ValueError: an argument is out of its range.

        Example:
            >>> async def attach(volume):
            ...     print(volume, "is attached")
            >>> async with open_task_map() as tasks:
            ...     await trio.to_thread.run_sync(tasks.post, "pvc-1", attach, "pvc-1")
            pvc-1 is attached
        """
        if unknown:
            raise checks.keyword_error("post", unknown)
        if type(async_fn) is not FunctionType:
            checks.check_async_fn(_POST_WORDS, async_fn, name)
        if type(name) is not str or operation is not None:
            check_start(name, operation)
        if if_busy != "refuse":
            checks.check_if_busy(if_busy)
        if timeout is not None:
            checks.check_timeout(timeout)
        options: dict[str, Any] = {}
        if since is not None or retry or backoff is not MAP_POLICY:
            self._backend.scheduler.check_options(backoff, since, retry)
            options = {"backoff": backoff, "since": since, "retry": retry}
        self._backend.post(
            self.start_soon,
            (name, async_fn, *args),
            {"if_busy": if_busy, "timeout": timeout, "operation": operation, **options},
        )

    # Waiting

    @enable_ki_protection
    async def shutdown(self, *, grace: float | None = None) -> tuple[Hashable, ...]:
        """Close the map, wait *grace* seconds for its runs, cancel the rest. Checkpoint.

        Without *grace* it waits until all runs have ended, and cancels nothing. It
        waits for pending runs, too, and cancels them with the rest, but drops at
        once those that wait for the end of a backoff. After cancelling, it waits
        for ``overdue_after`` seconds more.

        Returns:
            The names that are still held by work that cannot be stopped.

        Raises:
            RuntimeError: the caller is inside a task of this map.
            TypeError: *grace* is not a number.
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
        self._backend.refuse_inside_map("shutdown()")
        seconds = math.inf if grace is None else checks.check_number("grace", grace)
        backend = self._backend
        self.close()
        with trio.move_on_after(seconds):
            await backend.wait(backend.waits.until_idle)
            return ()
        base.cancel_names(backend, base.all_names(backend), "the map is shutting down")
        with trio.move_on_after(backend.scheduler.overdue_after):
            await backend.wait(backend.waits.until_idle)
        base.run_due(backend)  # the runs become overdue at this very moment
        return tuple(self)

    async def wait_idle(self) -> None:
        """Wait until nothing runs and nothing is pending. Checkpoint.

        Failures on record do not count, unless a queued run or a retry waits for the
        end of their backoff. It waits for runs that are started meanwhile, too: under
        a constant stream of runs it never returns. When it returns, nothing runs until
        the caller's next checkpoint.

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
        self._backend.refuse_inside_map("wait_idle()")
        await self._backend.wait(self._backend.waits.until_idle)

    async def wait_empty(self) -> None:
        """Wait until the map is idle and no name waits after a failure. Checkpoint.

        A failure on record ends with a run that succeeds, with `forget`, or at the
        end of its retention. Names that gave up do not count.

        Raises:
            RuntimeError: the caller is inside a task of this map.

        Example:
            The run fails after 10 s, its name waits for 0.5 s, and 60 s later
            the failure is forgotten.

            >>> async with open_task_map(retention=60) as tasks:
            ...     begun = trio.current_time()
            ...     _ = tasks.start_soon("pvc-1", trio.sleep, 30, timeout=10)
            ...     await tasks.wait_empty()
            ...     print(f"{trio.current_time() - begun:.1f} s")
            70.5 s
        """
        backend = self._backend
        backend.refuse_inside_map("wait_empty()")
        try:
            await backend.wait(backend.waits.until_empty)
        finally:
            backend.finished()  # it may have removed expired failures

    @enable_ki_protection
    async def wait_free(self, name: Hashable, *, operation: str | None = None) -> None:
        """Wait until *name* may be started. Checkpoint.

        When it returns, a start is admitted until the caller's next checkpoint: no
        run of the name, or of a name that overlaps it, is left.

        Raises:
            GaveUpError: the name gave up.
            ClosedError: the map is closed.
            RuntimeError: the caller is inside a run of this name, or of a name that
                overlaps it.
            TypeError: *name* is None or cannot be hashed, or *operation* is not a str.
            ValueError: *name* is ANY itself, or has ANY among more than four fields.

        Example:
            The run fails after 10 s, and its name waits for 0.5 s.

            >>> async with open_task_map() as tasks:
            ...     begun = trio.current_time()
            ...     _ = tasks.start_soon("pvc-1", trio.sleep, 30, timeout=10)
            ...     await tasks.wait_free("pvc-1")
            ...     print(f"{trio.current_time() - begun:.1f} s: {tasks.state('pvc-1')}")
            10.5 s: State.READY
        """
        check_start(name, operation)
        backend = self._backend
        backend.check_here()
        for run in backend.scheduler.find_holders(name):
            backend.refuse_inside_run(run, "wait_free()")
        try:
            await backend.wait(partial(backend.waits.until_free, name, operation))
        finally:
            backend.waits.leave(name)


@disable_ki_protection
def _call_unprotected(async_fn: Callable[..., object], args: tuple[object, ...]) -> object:
    """Call the user's function in a way that Ctrl-C can interrupt it."""
    return async_fn(*args)


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
    failure_threshold: int = 3,
    keep_outcomes: int = 0,
    keep_ends: int = 100_000,
) -> AbstractAsyncContextManager[TaskMap, None]:
    """Open a task map: ``async with open_task_map() as tasks``.

    The end of the block waits for all runs, as that of a nursery does, and for
    retries. An exception in the block cancels the runs. A task that fails cancels
    nothing. An error of a task that is not an `Exception` (`KeyboardInterrupt`,
    `SystemExit`) leaves the block, and cancels the other runs. The block's own
    exception, or a task's `BaseException`, leaves the block unwrapped; several
    leave it as a group. Leaving the block waits and is a schedule point, as with a
    nursery; entering it is what entering a nursery is.

    Args:
        backoff: The policy for the wait of a failed name; None for no wait.
        retention: Seconds for which a failure is kept after its wait, unless the name
            is started again; None for twice the policy's ``maximum`` (244 s for a
            policy that has none).
        limit: The number of bodies that may run at once; further runs hold their
            names and wait in order. None for no limit (1 000 for threads).
        executor: The executor of `TaskMap.start_thread_soon`: an async callable with
            the parameters of `trio.to_thread.run_sync`. None for the map's own threads.
        overdue_after: Seconds from the cancellation or the deadline of a run to the
            time at which it is overdue, if it still runs.
        instruments: The instruments that get the map's events, in place of the
            default `LoggingInstrument`.
        random: Returns numbers in [0, 1), for `Backoff.jitter`.
        workers: True to run bodies in trio tasks that are used again, at a quarter of
            the cost; False for a trio task of its own for each run.
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
    checks.check_executor(executor)
    checks.check_flag("workers", workers)
    scheduler: Scheduler[TrioRun] = Scheduler(
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
    block = Block(
        lambda nursery: TrioBackend(scheduler, nursery, reuse=workers),
        partial(TaskMap, executor=executor),
    )
    # To type checkers, None means that the block suppresses no exception. It suppresses what a
    # nursery does, its own cancellation, and then raises another exception.
    return cast("AbstractAsyncContextManager[TaskMap, None]", block)


publish(TaskMap, TaskHandle, open_task_map)
