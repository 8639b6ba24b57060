"""The task map as its users see it, in the words of `concurrent.futures`."""

from __future__ import annotations

import math
import random as random_module
from collections.abc import Callable, Hashable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, TypeVarTuple, final, overload

from namedtasks import _pools
from namedtasks._core import checks
from namedtasks._core.backoff import Backoff, BackoffPolicy
from namedtasks._core.callables import check_plain_fn
from namedtasks._core.engine import make_engine
from namedtasks._core.events import Instrument
from namedtasks._core.pending import IfBusy
from namedtasks._core.text import repr_of
from namedtasks._core.verbs import Verbs
from namedtasks._log import complain
from namedtasks._threads import block, waits
from namedtasks._threads.clock import MonotonicClock
from namedtasks._threads.future import TaskFuture
from namedtasks._threads.interrupts import Hook, uninterrupted
from namedtasks._threads.locking import check_threading_is_as_imported
from namedtasks._threads.run import CURE, VERB
from namedtasks._threads.shell import Shell
from namedtasks.abc import Clock
from namedtasks.instruments.logging import LoggingInstrument

T = TypeVar("T")
Args = TypeVarTuple("Args")


@final
class ThreadTaskMap(Verbs[TaskFuture[Any]]):
    """Runs named functions in threads, one run of a name at a time.

    The same rules as `TaskMap`, in the words of `concurrent.futures`, for
    programs without trio. Any thread may call it, tasks and the callbacks of
    futures included. In a ``with`` block it waits at the end for what runs; an
    exception in the block, or Ctrl-C while it waits, asks what runs to stop; a
    second Ctrl-C leaves at once. Without a block call
    `shutdown`, or leave it: its threads are daemons and do not hold up the
    interpreter's exit.

    A signal handler or a ``__del__`` may call it too. If its thread is just
    inside of the map, `close` and `cancel_all` are done a moment later, and
    everything else raises `RuntimeError`. While a block that the main thread
    has opened is open, Ctrl-C inside of a call to the map is held back until
    the call is done.

    Instruments are called by many threads at once. The events of one name come
    in order.

    Args:
        backoff: How long a failed name waits; None for not at all.
        retention: Seconds after the end of its wait when a failure that nobody
            retries is forgotten; None for twice the policy's ``maximum`` (244 s
            for a policy that has none).
        limit: How many functions may run at once; further runs hold their names
            and wait in order. None for no limit (of the map's own threads, 1 000).
        executor: Where `submit` runs functions: a `concurrent.futures.Executor`,
            or a function that gives one for each run. None for the map's own
            threads.
        overdue_after: Seconds after it was cancelled, or met its deadline, when
            a run that still goes on is overdue.
        instruments: Who hears what happens; by default a `LoggingInstrument`, which
            a list of one's own replaces.
        random: Gives numbers in [0, 1), for `Backoff.jitter`.
        clock: The time it lives in; None for the system's monotonic clock.

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

    __slots__ = ("_executor", "_hook", "_is_entered")

    _shell: Shell

    def __init__(
        self,
        *,
        backoff: BackoffPolicy | None = Backoff(),  # noqa: B008 - frozen
        retention: float | None = None,
        limit: int | None = None,
        executor: _pools.PoolOrFactory | None = None,
        overdue_after: float = 1.0,
        instruments: Iterable[Instrument] = (LoggingInstrument(),),
        random: Callable[[], float] = random_module.random,
        clock: Clock | None = None,
    ) -> None:
        check_threading_is_as_imported()
        _pools.check_pool_or_none(executor)
        _check_clock(clock)
        engine = make_engine(
            backoff=backoff,
            retention=retention,
            limit=limit,
            overdue_after=overdue_after,
            instruments=instruments,
            random=random,
            complain=complain,
        )
        super().__init__(Shell(engine, MonotonicClock() if clock is None else clock))
        self._executor = executor
        self._is_entered = False
        self._hook: Hook | None = None

    # Starting

    @overload
    def submit(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: _pools.PoolOrFactory | None = None,
        if_busy: Literal["refuse", "join", "replace", "queue"] = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
    ) -> TaskFuture[T]: ...
    @overload
    def submit(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: _pools.PoolOrFactory | None = None,
        if_busy: IfBusy,
        timeout: float | None = None,
        operation: str | None = None,
    ) -> TaskFuture[T] | None: ...
    def submit(
        self,
        name: Hashable,
        fn: Callable[[*Args], T],
        /,
        *args: *Args,
        executor: _pools.PoolOrFactory | None = None,
        if_busy: IfBusy = "refuse",
        timeout: float | None = None,
        operation: str | None = None,
    ) -> TaskFuture[T] | None:
        """Start ``fn(*args)`` under *name*, unless the name runs or waits. Never waits.

        A thread cannot be stopped from outside. Cancelled or past its deadline
        it keeps its name until it is over, and is *overdue*; what it then
        returns is its result. One that is willing to stop calls
        ``current_run().check_cancelled()``.

        Args:
            name: Any hashable. Names that are equal are one name. In a tuple of
                up to four fields, `namedtasks.ANY` stands for all values of its
                field, and names that overlap exclude each other.
            fn: A plain function. In the map's own threads, and in a
                `concurrent.futures.ThreadPoolExecutor`, it runs in a copy of
                the caller's context.
            args: Its arguments.
            executor: Where to run it; by default where the map runs things.
            if_busy: What to do if the name cannot start now:
                ``"refuse"`` raises.
                ``"skip"`` gives None, for half of the price or less.
                ``"join"`` gives a future of its own that tells what becomes of
                the run in progress, also of one that was asked to stop: one
                result for all who ask. To cancel it does nothing to the run.
                *fn* is not called, so one name should mean one type of result.
                ``"replace"`` cancels the run in progress, and what else
                overlaps the name, and starts when all of them have really
                ended, however they did: with functions that do not listen, as
                late as that. It holds the name from now on.
                ``"queue"`` starts one more run as soon as the name may start:
                after the run in progress, and after the wait if there is one.
                A run that was put off, to replace or to queue, is *pending*. A
                name has one pending run at most: a newer one supersedes it, and
                its future is cancelled and says so. If its pool refuses it when
                its turn has come, it has failed.
            timeout: Seconds, from the function's first step (in a pool that
                does not tell, from when it was handed over), after which the
                run should stop. One that then stops has failed with
                `TimeoutError`.
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
            TypeError: *name* cannot be hashed, *fn* is an async function or
                cannot be called, an argument is of the wrong type. Where only
                its result, a coroutine, shows that it is async, the future
                raises it.
            ValueError: an argument is out of its range, or ANY stands where it
                means nothing.
            RuntimeError: no thread can be started, the pool was shut down, or
                this thread is inside of the map already. Nothing was started.

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
        check_plain_fn(VERB, fn, CURE)
        _pools.check_pool_or_none(executor)
        checks.if_busy(if_busy)
        seconds = checks.timeout(timeout)
        if self._shell.is_skipped(name, operation, if_busy):
            return None
        return self._shell.submit(
            name,
            fn,
            args,
            pool=self._executor if executor is None else executor,
            if_busy=if_busy,
            timeout=seconds,
            operation=operation,
        )

    # Waiting

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs and nothing is pending.

        Failures on record do not count, unless a run is queued behind their wait.
        Starts made meanwhile are waited for too: under a constant stream of
        overlapping runs only the *timeout* (seconds) ends this.

        Returns:
            Whether there was such a moment before the timeout (None for no limit).

        Raises:
            RuntimeError: the caller is inside a task of this map.
            TypeError: *timeout* is no number.
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
        waits.refuse_inside_map(self._shell, "wait_idle()")
        return waits.sleep_while(self._shell, self._shell.hold_idle, self._deadline(timeout))

    def wait_empty(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs or is pending, and no name waits after a failure.

        A failure on record ends by a run that succeeds, by `forget`, or at the
        end of its retention. Names given up do not count.

        Returns:
            Whether there was such a moment before the *timeout* (seconds; None
            for no limit).

        Raises:
            RuntimeError: the caller is inside a task of this map.
            TypeError: *timeout* is no number.
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
        waits.refuse_inside_map(self._shell, "wait_empty()")
        return waits.sleep_while(self._shell, self._shell.hold_empty, self._deadline(timeout))

    def wait_free(
        self, name: Hashable, timeout: float | None = None, *, operation: str | None = None
    ) -> bool:
        """Wait until *name* may be started; another thread may be faster to start it then.

        That nothing runs that overlaps *name* belongs to it.

        Returns:
            Whether there was such a moment before the *timeout* (seconds; None
            for no limit).

        Raises:
            GaveUpError: the policy gave the name up.
            ClosedError: the map is closed.
            RuntimeError: the caller is inside a run of this name, or of one that
                overlaps it.
            TypeError: *name* cannot be hashed, or *timeout* is no number.
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
        waits.refuse_reentry(self._shell)
        for run in self._shell.holders(name, operation):
            waits.refuse_inside_run(run, "wait_free()")
        return waits.wait_free(self._shell, name, operation, self._deadline(timeout))

    def shutdown(self, *, grace: float | None = None) -> tuple[Hashable, ...]:
        """Close, wait *grace* seconds for what runs, then ask the rest to stop.

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
        shell = self._shell
        waits.refuse_inside_map(shell, "shutdown()")
        seconds = math.inf if grace is None else checks.number("grace", grace)
        self.close()
        if not waits.sleep_while(shell, shell.hold_idle, shell.now() + seconds):
            shell.cancel_all("the map is shutting down")
            until = shell.now() + shell.overdue_after
            if not waits.sleep_while(shell, shell.hold_idle, until):
                shell.on_time()  # they are due at this very moment
                # Or the map's timer was first, and a program that ends now cuts its thread short.
                waits.sleep_while(shell, shell.hold_telling, shell.now() + shell.overdue_after)
        shell.places.close()
        return tuple(self)

    def _deadline(self, timeout: float | None) -> float:
        return self._shell.now() + checks.timeout(timeout)

    # The block

    def __enter__(self) -> Self:
        if self._is_entered:
            raise RuntimeError("a task map can be entered only once: make a new ThreadTaskMap")
        waits.refuse_block(self._shell)  # who cannot leave, stays out
        self._is_entered = True
        hook = self._hook = Hook(self)
        try:
            hook.install()
            return self
        except BaseException:  # Ctrl-C
            hook.uninstall()
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with uninterrupted:  # nothing before it: see Hook.is_being_left()
            waits.refuse_block(self._shell)
            try:
                block.leave(self._shell, exc)
            finally:
                hook, self._hook = self._hook, None
                if hook is not None:
                    hook.uninstall_soon()


def _check_clock(clock: object) -> None:
    for method in ("now", "wait"):
        if clock is not None and not callable(getattr(clock, method, None)):
            raise TypeError(
                f"clock must have methods now() and wait(), as a ManualClock has, not "
                f"{repr_of(clock)}"
            )
