"""The task map for threads: `ThreadTaskMap`, with the vocabulary of `concurrent.futures`."""

from __future__ import annotations

import math
import random as random_module
import threading
from collections.abc import Callable, Hashable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, TypeVarTuple, Unpack, final, overload

from namedtasks._backoff import Backoff, BackoffPolicy
from namedtasks._base import open_map
from namedtasks._decisions import IfBusy, StartKeywords, StartPolicy
from namedtasks._errors import AlreadyRunningError, new_error
from namedtasks._events import Instrument
from namedtasks._executors import PoolOrFactory, check_pool, check_pool_or_none
from namedtasks._names import check_start
from namedtasks._observations import Observation
from namedtasks._scheduler import Scheduler
from namedtasks._task_map import BaseTaskMap
from namedtasks._thread_pool import MonotonicClock, get_ident
from namedtasks._threads.backend import (
    CURE,
    VERB,
    ThreadBackend,
    ThreadRun,
    check_threading_is_as_imported,
)
from namedtasks._threads.future import TaskFuture
from namedtasks._threads.sigint import critical, deferred_sigint, get_frame
from namedtasks._validation import (
    REQUIRED,
    check_if_busy,
    check_number,
    check_plain_fn,
    check_timeout,
    safe_repr,
)
from namedtasks._version import publish
from namedtasks.abc import Clock
from namedtasks.instruments import LoggingInstrument

T = TypeVar("T")
Args = TypeVarTuple("Args")


@final
class ThreadTaskMap(BaseTaskMap[TaskFuture[Any]]):
    """A map of named functions in threads, with one run of a name at a time.

    It has the rules of the other maps and the vocabulary of `concurrent.futures`, and
    needs no event loop. As a mapping it contains the futures of the current runs by
    their names. Any thread may call it, also a task of the map or a callback of a
    future. The end of a ``with`` block waits for all runs. An exception in the block,
    or Ctrl-C while it waits, asks the runs to stop; a second Ctrl-C leaves the block
    at once. Without a block, you may call `shutdown` at the end. Its threads are
    daemons and do not delay the interpreter's exit.

    A signal handler or a ``__del__`` may call the map, too. If it interrupts a call of
    the map in the same thread, the methods that only read work, `close` and the cancel
    methods take effect a moment later, and starts and waits raise `RuntimeError`. While
    a block that the main thread has entered is open, Ctrl-C inside a call of the map is
    deferred to the end of the call. Open the block inside ``trio.run`` or
    ``asyncio.run``, not around it: they handle Ctrl-C only if they find Python's own
    handler.

    The threads that use the map deliver its events to the instruments, one at a time
    and in the order in which they happened.

    Args:
        backoff: The policy for the wait of a failed name; None for no wait.
        retention: Seconds for which a failure is kept after its wait, unless the name
            is started again; None for twice the policy's ``maximum`` (244 s for a
            policy that has none).
        limit: The number of functions that may run at once; further runs hold their
            names and wait in order. None for no limit (1 000 for the map's own threads).
        executor: The executor of `submit`: a `concurrent.futures.Executor`, or a
            function that returns one for each run. None for the map's own threads.
        overdue_after: Seconds from the cancellation or the deadline of a run to the
            time at which it is overdue, if it still runs.
        instruments: The instruments that get the map's events, in place of the
            default `LoggingInstrument`.
        random: Returns numbers in [0, 1), for `Backoff.jitter`.
        clock: The clock for all times of the map; None for the system's monotonic clock.
        failure_threshold: The number of failures in a row at which `TaskMapStatistics.failing`
            counts a name.
        keep_outcomes: The number of names and operations whose last outcome is kept;
            0 for none.
        keep_ends: The number of ended names that the map remembers while an observation
            is open; beyond it the oldest observation expires.

    Raises:
        TypeError: a setting is of the wrong type.
        ValueError: a setting is out of its range.
        RuntimeError: gevent has replaced the functions of `threading` after
            namedtasks was imported.

    Example:
        >>> def attach(volume):
        ...     if volume == "pvc-2":
        ...         raise OSError("device busy")
        ...     return f"/dev/{volume}"
        >>> with ThreadTaskMap(backoff=Backoff(initial=60), instruments=()) as tasks:
        ...     tasks.submit("pvc-1", attach, "pvc-1").result()
        ...     tasks.submit("pvc-2", attach, "pvc-2").exception()
        ...     tasks.state("pvc-1"), tasks.state("pvc-2")
        '/dev/pvc-1'
        OSError('device busy')
        (<State.FREE: 'free'>, <State.WAITING: 'waiting'>)

    .. versionadded:: 0.1
    """

    __slots__ = ("_executor", "_handles_sigint", "_is_entered")

    _backend: ThreadBackend  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        *,
        backoff: BackoffPolicy | None = Backoff(),  # noqa: B008 - frozen
        retention: float | None = None,
        limit: int | None = None,
        executor: PoolOrFactory | None = None,
        overdue_after: float = 1.0,
        instruments: Iterable[Instrument] = (LoggingInstrument(),),
        random: Callable[[], float] = random_module.random,
        clock: Clock | None = None,
        failure_threshold: int = 3,
        keep_outcomes: int = 0,
        keep_ends: int = 100_000,
    ) -> None:
        check_threading_is_as_imported()
        check_pool_or_none(executor)
        _check_clock(clock)
        scheduler: Scheduler[ThreadRun] = Scheduler(
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
        super().__init__(ThreadBackend(scheduler, clock or MonotonicClock()))
        self._executor = executor
        self._is_entered = False
        self._handles_sigint = False
        try:
            open_map(self._backend, self)
        except BaseException:
            self.close()
            raise

    # Starting

    @overload
    def submit(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: PoolOrFactory | None = None,
        if_busy: Literal["refuse", "join", "replace", "queue"] = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
        backoff: StartPolicy = "map",
        since: Observation | None = None,
        retry: bool = False,
    ) -> TaskFuture[T]: ...
    @overload
    def submit(
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
    ) -> TaskFuture[T] | None: ...
    def submit(  # noqa: C901 - one check after the other
        self,
        name: Hashable = REQUIRED,
        fn: Callable[[*Args], T] = REQUIRED,
        /,
        *args: *Args,
        executor: PoolOrFactory | None = None,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
        **options: Unpack[StartKeywords],
    ) -> TaskFuture[T] | None:
        """Start ``fn(*args)`` under *name*, unless the name runs or waits. Never waits.

        A thread cannot be stopped from outside. A run that was cancelled, or that
        reached its deadline, keeps its name until *fn* returns, and becomes *overdue*;
        the value that *fn* returns is still its result. To stop earlier, *fn* calls
        ``current_run().check_cancelled()``.

        Args:
            name: Any hashable but None. Names that are equal are one name. In a tuple of
                up to four fields, `namedtasks.ANY` means every value of its
                field. Names that overlap exclude each other.
            fn: A plain function. In the map's own threads, and in a
                `concurrent.futures.ThreadPoolExecutor`, it runs in a copy of
                the caller's context.
            args: Its arguments.
            executor: The executor; by default the map's.
            if_busy: The choice for a name that cannot start now: see `namedtasks.IfBusy`.
                With ``"queue"``, the run fails if the pool refuses it when it is due.
            timeout: The seconds that *fn* may take; in a pool that does not report its
                beginning, they count from the submission. After that, the run is asked
                to stop, and if *fn* stops, it fails with `TimeoutError`.
            operation: A word for the kind of work, from a small set. Failures
                are recorded for the name and the operation together.
            backoff: The policy for the failures of this run and its retries, instead
                of the map's (the default, ``"map"``); None for no wait and no count.
            since: An observation from `observe`. The start is refused if a run of the
                name, or of a name that overlaps it, has ended since it began.
            retry: If true, and the name waits after a failure, another attempt begins
                at the end of the wait, with the same future. Each attempt has the whole
                *timeout*. No further attempt follows an attempt that was asked to stop,
                or if the name gave up or has a newer pending run. If a waiting retry is
                dropped, the future raises `TaskCancelledError` from the last failure.

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
            TypeError: *name* is None or cannot be hashed, *fn* is an async function or
                cannot be called, or an argument is of the wrong type. If only the result of
                *fn*, a coroutine, shows that it is async, the future raises this.
            ValueError: an argument is out of its range, *name* is ANY itself, or it has
                ANY among more than four fields.
            RuntimeError: no thread can be started, the pool was shut down, or
                the caller interrupts a call of the map in the same thread. Nothing was
                started.

        Example:
            >>> import threading
            >>> attached = threading.Event()
            >>> with ThreadTaskMap() as tasks:
            ...     first = tasks.submit("pvc-1", attached.wait, 30, operation="attach")
            ...     tasks.submit("pvc-1", attached.wait, 30, if_busy="skip") is None
            ...     joined = tasks.submit("pvc-1", attached.wait, 30, if_busy="join")
            ...     attached.set()
            ...     first.result(), joined.result()
            True
            (True, True)
        """
        if threading.get_ident is not get_ident:
            check_threading_is_as_imported()
        check_plain_fn(VERB, fn, CURE, name)
        if executor is not None:
            check_pool(executor)
        if if_busy != "refuse":
            check_if_busy(if_busy)
        seconds = math.inf if timeout is None else check_timeout(timeout)
        if type(name) is not str or operation is not None:
            check_start(name, operation)
        # A running name is refused here, as a reconcile loop asks far more often than it starts.
        run = self._refused_at_once.get(name)
        if run is not None and not options:
            if if_busy == "skip":
                return None
            if if_busy == "refuse":
                raise new_error(AlreadyRunningError, name, operation, run.started_at, (run.name,))
        elif self._waits_at_once and not options and self._refuse_waiting(name, operation, if_busy):
            return None
        backend = self._backend
        chosen = backend.scheduler.check_keywords("submit", options) if options else None
        try:
            executor = self._executor if executor is None else executor
            run = ThreadRun(backend, name, operation, fn, args, executor, seconds)
            since = None
            if chosen is not None:
                run.backoff, since, run.retry = chosen
                if run.retry:
                    run.source = (fn, args, run.context.copy())
            return backend.submit(run, if_busy, since)
        finally:
            if backend.postponed or deferred_sigint.pending:
                backend.after_call()

    # Waiting

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs and nothing is pending.

        Failures on record do not count, unless a queued run or a retry waits for the
        end of their backoff. It waits for runs that are started meanwhile, too: under
        a constant stream of runs only the *timeout* (seconds) ends the wait.

        Returns:
            True if there was such a moment before the timeout (None for no limit).

        Raises:
            RuntimeError: the caller is inside a task of this map.
            TypeError: *timeout* is not a number.
            ValueError: *timeout* is negative or NaN.

        Example:
            >>> import threading
            >>> attached = threading.Event()
            >>> with ThreadTaskMap() as tasks:
            ...     _ = tasks.submit("pvc-1", attached.wait)
            ...     tasks.wait_idle(timeout=0.01)
            ...     attached.set()
            ...     tasks.wait_idle()
            False
            True
        """
        self._backend.refuse_inside_map("wait_idle()")
        return self._wait(self._backend.waits.until_idle, timeout)

    def wait_empty(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs or is pending, and no name waits after a failure.

        A failure on record ends with a run that succeeds, with `forget`, or at the
        end of its retention. Names that gave up do not count.

        Returns:
            True if there was such a moment before the *timeout* (seconds; None
            for no limit).

        Raises:
            RuntimeError: the caller is inside a task of this map.
            TypeError: *timeout* is not a number.
            ValueError: *timeout* is negative or NaN.

        Example:
            The name waits for 0.5 s, and 60 s later its failure is forgotten.

            >>> from namedtasks.testing import ManualClock
            >>> def attach():
            ...     raise OSError("device busy")
            >>> clock = ManualClock()
            >>> with ThreadTaskMap(retention=60, clock=clock, instruments=()) as tasks:
            ...     _ = tasks.submit("pvc-1", attach).exception()
            ...     tasks.wait_idle(timeout=0), tasks.wait_empty(timeout=0)
            ...     clock.advance(0.5 + 60)
            ...     tasks.wait_empty(timeout=0)
            (True, False)
            True
        """
        self._backend.refuse_inside_map("wait_empty()")
        try:
            return self._wait(self._backend.waits.until_empty, timeout)
        finally:
            self._backend.finished()  # it may have removed expired failures

    def wait_free(
        self, name: Hashable, timeout: float | None = None, *, operation: str | None = None
    ) -> bool:
        """Wait until *name* may be started, if no other thread starts it first.

        At that moment no run of the name, or of a name that overlaps it, is left.

        Returns:
            True if there was such a moment before the *timeout* (seconds; None
            for no limit).

        Raises:
            GaveUpError: the name gave up.
            ClosedError: the map is closed.
            RuntimeError: the caller is inside a run of this name, or of a name that
                overlaps it.
            TypeError: *name* is None or cannot be hashed, or *timeout* is not a number.
            ValueError: *timeout* is negative or NaN.

        Example:
            >>> def attach():
            ...     raise OSError("device busy")
            >>> with ThreadTaskMap(backoff=Backoff(initial=0.01), instruments=()) as tasks:
            ...     _ = tasks.submit("pvc-1", attach).exception()
            ...     tasks.wait_free("pvc-1")  # 10 ms after the failure
            ...     tasks.state("pvc-1")
            True
            <State.READY: 'ready'>
        """
        check_start(name, operation)
        backend = self._backend
        deadline = backend.now() + check_timeout(timeout)
        backend.refuse_inside()
        try:
            return backend.wait_free(name, operation, deadline)
        finally:
            backend.after_call()

    def shutdown(self, *, grace: float | None = None) -> tuple[Hashable, ...]:
        """Close the map, wait *grace* seconds for its runs, then ask the rest to stop.

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
            >>> import threading
            >>> begun, copied = threading.Event(), threading.Event()
            >>> def copy():  # does not listen
            ...     begun.set()
            ...     copied.wait()
            >>> tasks = ThreadTaskMap(overdue_after=0.01, instruments=())
            >>> _ = tasks.submit("pvc-1", copy)
            >>> begun.wait()
            True
            >>> tasks.shutdown(grace=0.01)
            ('pvc-1',)
            >>> copied.set()
        """
        backend = self._backend
        backend.refuse_inside_map("shutdown()")
        seconds = math.inf if grace is None else check_number("grace", grace)
        self.close()
        try:
            return backend.shutdown(seconds)
        finally:
            backend.after_call()

    def _wait(self, condition: Any, timeout: float | None) -> bool:
        backend = self._backend
        try:
            return backend.wait(condition, backend.now() + check_timeout(timeout))
        finally:
            backend.after_call()

    # The block

    @critical
    def __enter__(self) -> Self:
        if self._is_entered:
            raise RuntimeError("a task map can be entered only once: make a new ThreadTaskMap")
        self._backend.refuse_block()  # a block that cannot be left is not entered
        self._is_entered = True
        self._handles_sigint = deferred_sigint.install()
        if deferred_sigint.pending:  # this frame is critical
            try:
                deferred_sigint.deliver(get_frame(1))
            except BaseException:  # no `__exit__` follows
                try:
                    self._uninstall_sigint()
                finally:
                    deferred_sigint.merge()
                raise
        return self

    @critical
    def _uninstall_sigint(self) -> None:
        if self._handles_sigint:
            self._handles_sigint = False
            deferred_sigint.uninstall()

    @critical
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        backend = self._backend
        try:
            backend.refuse_block()
            backend.leave(exc)
        finally:
            try:
                self._uninstall_sigint()
                backend.after_call(get_frame(1))  # this frame is critical from its first step on
            except KeyboardInterrupt:
                deferred_sigint.merge()
                raise


def _check_clock(clock: object) -> None:
    for method in ("now", "wait"):
        if clock is not None and not callable(getattr(clock, method, None)):
            raise TypeError(
                f"clock must have methods now() and wait(), as a ManualClock has, not "
                f"{safe_repr(clock)}"
            )


publish(ThreadTaskMap)
