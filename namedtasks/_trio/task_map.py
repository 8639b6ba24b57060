"""The task map in trio's words: `TaskMap`, `TaskHandle` and `open_task_map`."""

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
from namedtasks.instruments.logging import LoggingInstrument

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Args = TypeVarTuple("Args")

WORDS = checks.Words("start_soon", "start_thread_soon")
"""The two methods that start a run, for the errors about their functions."""

_POST_WORDS = checks.Words("post", "start_thread_soon")


@final
class TaskHandle(Generic[T_co]):
    """One run of a named task: ask how it does, cancel it, wait for what it gives back.

    A handle outlives its run, and keeps the run's result. Dropping it changes
    nothing for the run. It is equal only to itself.

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
        """When the body began, in seconds on the map's clock; None until it does."""
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
        """True if the run went on for too long after it was asked to stop, or met its deadline."""
        return self._run.overdue

    def cancel(self, reason: str | None = None) -> bool:
        """Ask this run to stop, and tell why. Not a checkpoint.

        The run ends when its body heeds that. A body that returns or raises
        regardless has succeeded or failed. One that is pending, or waits for a
        slot, ends at once. The first reason given counts.

        Returns:
            Whether the run had not ended yet.

        Raises:
            TypeError: *reason* is no text.
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
        """Wait for the run's end, and give back what its body returned. Checkpoint.

        Being cancelled while waiting does nothing to the run. Any number may
        wait, also after the end.

        Raises:
            TaskFailedError: the run failed; ``__cause__`` is what it raised.
            TaskCancelledError: the run was cancelled.
            RuntimeError: the caller is inside this very run, or the one that it
                is queued behind, or in another run of trio.

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
    """Runs named tasks, one run of a name at a time, in an ``async with`` block.

    Made by `open_task_map`. As a mapping it is what runs right now: names to
    handles. Iterating goes over a snapshot. It is always true, equal only to
    itself, and hashable. It is not thread-safe, as a nursery is not: any thread
    may call `post` and look (the mapping, `check`, `state`, `failure`, `failures`,
    `pending`, `outcomes`, `statistics`), all else raises RuntimeError outside the
    trio run that opened it.

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

        *async_fn* is called at once, its body begins later. A start that is
        refused does not call it; if it raises, nothing was started.

        Args:
            name: Any hashable but None. Names that are equal are one name. In a tuple of
                up to four fields, `namedtasks.ANY` stands for all values of its
                field, and names that overlap exclude each other.
            async_fn: An async function.
            args: Its arguments.
            if_busy: The choice for a name that cannot start now: see `namedtasks.IfBusy`.
            timeout: Seconds, from the body's first step, after which the run is
                cancelled and has failed with `trio.TooSlowError`.
            operation: A word for the kind of work, from a small set. Failures
                are recorded for the name and the operation together.
            backoff: The policy for the failures of this run and its retries, in place
                of the map's (the default, ``"map"``); None for no wait and no count.
            since: An observation from `observe`. The start is refused if a run of
                the name, or of one that overlaps it, has ended after it began.
            retry: If true, a failure after which the name waits is followed by
                another attempt when the wait ends, with the same handle. A later
                attempt calls *async_fn* again, in the context of this call; *timeout*
                applies to each attempt. An attempt that was cancelled, and a name that
                gave up or has a newer pending run, are not tried again.

        Raises:
            AlreadyRunningError: a run of the name, or of one that overlaps it,
                has not ended; with ``"join"`` and ``"queue"`` only the latter,
                with ``"replace"`` never.
            BackoffError: the last run failed, and the wait is not over; not
                with ``"queue"``, nor with ``"join"`` if a retry waits.
            GaveUpError: the policy gave the name up.
            StaleLookError: a run of the name, or of one that overlaps it, has ended
                since the observation *since* began, or that has expired; not with
                ``"skip"``.
            ClosedError: the map is closed, whatever *if_busy* says.
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
            backoff: As for `start_soon`.
            since: As for `start_soon`.
            retry: As for `start_soon`.

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
                    if error is not None:
                        backend.finished()
                        if action is REFUSE:
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
        """Have `start_soon` called in the map's thread, from any thread. Not a checkpoint.

        Comes back at once. A refusal is told to the instruments only; an
        *async_fn* that gives no coroutine is logged. Posts from one thread are
        started in their order. Safe in signal handlers.

        *if_busy* is as for `start_soon`: with ``"queue"``, any number of posts
        while the name runs gives one more run. As nobody gets the handle,
        ``"join"`` is ``"skip"`` for a name that runs. *since* has to be open when the
        start is made.

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

        Failures on record do not count, unless a run is queued behind their wait, or a retry waits.
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
        self._backend.refuse_inside_map("wait_idle()")
        await self._backend.wait(self._backend.waits.until_idle)

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
        backend = self._backend
        backend.refuse_inside_map("wait_empty()")
        try:
            await backend.wait(backend.waits.until_empty)
        finally:
            backend.finished()  # it may have removed expired failures

    @enable_ki_protection
    async def wait_free(self, name: Hashable, *, operation: str | None = None) -> None:
        """Wait until *name* may be started. Checkpoint.

        On return a start is admitted, until the caller's next checkpoint. That
        nothing runs that overlaps *name* belongs to it.

        Raises:
            GaveUpError: the policy gave the name up.
            ClosedError: the map is closed.
            RuntimeError: the caller is inside a run of this name, or of one that
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
    """Call the user's function so that Ctrl-C may interrupt it."""
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
    """Open a task map, to be used as ``async with open_task_map() as tasks``.

    Leaving the block waits for what runs, as a nursery does, and for retries; an exception in
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
        failure_threshold: The number of failures in a row at which `TaskMapStatistics.failing`
            counts a name.
        keep_outcomes: The number of names and operations whose last outcome is kept;
            0 for none.
        keep_ends: The number of ended names that are remembered while an observation is open;
            beyond it the oldest observation expires.

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
    # None, to type checkers, says that the block swallows no exception. It swallows exactly what
    # a nursery does: its own cancellation, and that comes with an exception to raise.
    return cast("AbstractAsyncContextManager[TaskMap, None]", block)


publish(TaskMap, TaskHandle, open_task_map)
