"""The trio backend: begins, cancels and ends runs, and owns the timer and the block.

There is no checkpoint between the end of a body and its effects. Everything here is protected
from Ctrl-C, except the bodies.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import warnings
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from threading import RLock, get_ident
from typing import Any, TypeVar, final

import trio
from trio.lowlevel import ParkingLot, Task, current_task, enable_ki_protection

import namedtasks._base as base
from namedtasks._context import executed_for, is_sigint_deferred, running_in
from namedtasks._decisions import Effects
from namedtasks._entry_queue import EntryQueue, affinity_error
from namedtasks._errors import ClosedError, raise_combined, split_exception
from namedtasks._scheduler import Scheduler
from namedtasks._state import QUEUED, Run, RunStatus
from namedtasks._thread_pool import make_daemon
from namedtasks._trio.workers import Worker, Workers
from namedtasks._validation import (
    begin_tb_at,
    call_body,
    close_unbegun,
    error_text,
    plain_result,
    task_text,
)

T = TypeVar("T")

VERB, CURE = "start_thread_soon()", "use start_soon()"
"""The method and the cure in the error for an async function."""

Executor = Callable[..., Awaitable[Any]]
"""An async callable that takes a function and its arguments, as `trio.to_thread.run_sync` does."""

ENCLOSING_SCOPE = "an enclosing cancel scope was cancelled"
"""The reason of a run that no caller of its map has cancelled."""

_Split = tuple[BaseException | None, BaseException | None]


class TrioRun(Run):
    """A run with its state on trio."""

    body: Any = None
    """The coroutine to await, until it begins."""
    context: Context | None = None
    """The starter's context, kept only for a run that is pending or waits for a slot."""
    worker: Worker | None = None
    """The trio task that the body runs in, from its assignment to its end."""

    def split_failure(self, error: BaseException) -> _Split:
        """Split *error*, which left the body, into the run's failure and a rest that propagates."""
        return split_exception(error, Exception)

    def original_of(self, error: BaseException) -> BaseException:
        """Return the error that the policy, the record and the instruments get for *error*."""
        return error

    def close_body(self) -> None:
        """Close a body that never began, so that Python does not warn about it."""
        body, self.body = self.body, None
        close_unbegun(body, lambda: task_text(self.name, self.operation))

    def check_cancelled(self) -> None:
        """Raise an error if the body should stop. Callable from any thread."""
        # In a thread that trio does not know, only the run's own state counts.
        with contextlib.suppress(RuntimeError):
            trio.from_thread.check_cancelled()
        super().check_cancelled()


@final
class ExecutorRun(TrioRun):
    """A run of a function on an executor: every error of the function is a failure of the run."""

    def split_failure(self, error: BaseException) -> _Split:
        """Split *error*: only the cancellation of an enclosing scope propagates."""
        rest, failure = split_exception(error, trio.Cancelled)
        return failure, rest

    def original_of(self, error: BaseException) -> BaseException:
        """Return *error*, or the StopIteration that an async function cannot raise (PEP 479)."""
        cause = error.__cause__
        if isinstance(cause, StopIteration) and str(error) == "coroutine raised StopIteration":
            return cause
        return error


@enable_ki_protection
async def call_in_executor(
    executor: Executor, fn: Callable[..., object], args: tuple[object, ...]
) -> object:
    """Call a function on an executor: the body of a run of `start_thread_soon`.

    Protected from Ctrl-C, so a KeyboardInterrupt that *executor* raises comes from the function,
    and is a failure of the run.

    Raises:
        TypeError: the function returned a coroutine.
    """
    executed_for.set(running_in.get())
    try:
        value = await executor(fn, *args)
    except BaseException as error:
        begin_tb_at(error, fn)
        raise
    return plain_result(VERB, fn, value, CURE)


def call_in_thread(fn: Callable[..., object], args: tuple[object, ...]) -> object:
    """Call *fn* in a thread of trio, and check the result before trio does so with its own error.

    Raises:
        TypeError: the function returned a coroutine.
    """
    return plain_result(VERB, fn, fn(*args), CURE)


@final
class TrioBackend:
    """The state that a `TaskMap` and its handles share."""

    def __init__(
        self, scheduler: Scheduler[TrioRun], nursery: trio.Nursery, *, reuse: bool
    ) -> None:
        self.scheduler: Scheduler[TrioRun] = scheduler
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self.lock: RLock = RLock()  # never contended, and cheaper to enter than a nullcontext
        self.waits: base.Waits[TrioRun, ParkingLot] = base.Waits(scheduler, self.now, ParkingLot)
        self.nursery: trio.Nursery = nursery
        self.workers: Workers = Workers(self, nursery, reuse=reuse)
        self.ends_when_idle: bool = False
        """True once the map's block is done: the map closes with its last run. Also once it is
        closed, if an instrument gets told of its end."""
        self.thread: int | None = get_ident()
        """The map's thread until its block is left: no other trio run can use that thread."""
        self._token = trio.lowlevel.current_trio_token()
        self._entries = EntryQueue(self._token.run_sync_soon, self._raise_in_nursery)
        self._thread_limiter = trio.CapacityLimiter(math.inf)  # the slots do the limiting
        self._timer: trio.CancelScope | None = None
        self._cancelled_because: str | None = None

    # Calls from the map

    def check_here(self) -> None:
        """Check that the caller is in the map's thread and trio run.

        Raises:
            RuntimeError: it is not.
        """
        if get_ident() != self.thread and not (
            trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._token
        ):
            raise affinity_error("call post() or trio.from_thread.run_sync()")

    @enable_ki_protection
    def call(self, verb: Callable[[], T]) -> T:
        """Call *verb*, if the caller is in the trio run of the map."""
        self.check_here()
        return verb()

    def call_or_postpone(self, verb: Callable[[], T], answer: T) -> T:  # noqa: ARG002 - unused here
        """Call *verb*, if the caller is in the trio run of the map."""
        return self.call(verb)

    def post(self, start: Callable[..., object], args: tuple[Any, ...], kwargs: Any) -> None:
        """Queue a call of *start* in the map's thread, in a copy of the caller's context.

        Raises:
            ClosedError: the map is known to be closed, or its trio run is over.
        """
        if not self.scheduler.closed:
            with contextlib.suppress(trio.RunFinishedError):
                self._entries.add(start, args, kwargs)
                return
        raise ClosedError(args[0], kwargs["operation"])

    def _raise_in_nursery(self, error: BaseException, _: str) -> None:
        self.nursery.start_soon(_raise, error, name="namedtasks: an exception that propagates")

    # Acting for the scheduler

    def can_drop(self, run: TrioRun) -> bool:
        """Return whether the body of *run* can be kept from beginning."""
        return run.status is QUEUED

    def spawn(self, run: TrioRun) -> None:
        """Let the body of *run* begin: it was deferred, or waited for a slot."""
        context, run.context = run.context, None
        if run.retry and run.body is None:
            copied, *call = run.source
            context = copied.copy()  # each attempt has its own
            run.body = call_body(*call)  # it calls the function in the attempt, which may fail
        self.workers.begin_soon(run, context)
        if run.cancelled_at is not None:
            self.interrupt(run)

    def roll_back(self, run: TrioRun) -> None:
        """Undo the admission of *run*, which could not be spawned."""
        effects = self.scheduler.roll_back(run, self.now)
        self.waits.note_end(run)
        self.discard(run)
        self.carry_out(effects)

    def interrupt(self, run: TrioRun) -> None:
        """Cancel the scope of *run*."""
        if run.worker is not None:
            run.worker.scope.cancel(run.reason)

    def discard(self, run: TrioRun) -> None:
        """Close the body of *run*, which has ended before it began."""
        run.close_body()
        run.context = run.handle = run.source = None

    def look(self, look: Callable[[], T]) -> T:
        """Return the result of *look*. Callable from any thread: it takes no lock."""
        return look()

    def timeout_error(self, message: str) -> Exception:
        """Return the error of a run that its own deadline has stopped."""
        return trio.TooSlowError(message)

    def finished(self, *_ended: TrioRun) -> None:
        """Set the timer, deliver events, and close the map with the last run of its block."""
        if self.scheduler.timers.changed:
            self._set_timer()
        events = self.scheduler.events
        if events.direct and (event := events.take_direct()) is not None:
            events.call_direct(event)
        if events.queued:
            events.deliver()
        if self.ends_when_idle and self.scheduler.is_idle():
            base.mark_closed(self)
            base.note_closed(self)
            self.scheduler.events.deliver()

    # Calls from the workers

    @enable_ki_protection
    def begun(self, run: TrioRun, scope: trio.CancelScope) -> None:
        """Set the deadline of *run*, whose body begins inside *scope*, and deliver the event."""
        if run.timeout != math.inf:
            scope.deadline = run.deadline
        self.finished()

    def carry_out(self, effects: Effects[TrioRun]) -> None:
        """Carry out *effects*, and complete the handles of the runs that they drop."""
        self.waits.note_ended(*effects.dropped)
        base.apply_effects(self, effects)

    def fail(self, run: TrioRun, error: BaseException) -> Effects[TrioRun]:
        """End *run*, which has failed; waiters get *error*, and others get its original."""
        original = run.original_of(error)
        effects, ended = base.settle(self, run, original)
        if run.error is original:
            run.error = error
        if ended:  # and not earlier, because a policy may ask for the handle
            run.handle = run.source = None
        return effects

    def end_escaped(self, run: TrioRun, error: BaseException | None) -> None:
        """End *run* with the *error* that left its worker; None means that it was cancelled.

        Raises:
            BaseException: the part of *error* that is not a failure of the run.
        """
        run.worker = None
        if trio.current_effective_deadline() == -math.inf:
            run.retry = False  # an enclosing scope was cancelled
        run.close_body()  # if Ctrl-C came before it began
        failure, rest = (None, None) if error is None else run.split_failure(error)
        if rest is not None:
            self.cancel_all(_reason_to_cancel(run, rest))
        if failure is not None:
            effects = self.fail(run, failure)
        elif rest is None:
            effects, _ = base.settle(self, run, None, cancelled=True)
        elif is_cancellation(rest):
            run.reason = run.reason or ENCLOSING_SCOPE
            effects = base.end_run(self, run, RunStatus.CANCELLED)
        else:
            effects = base.end_run(self, run, RunStatus.FAILED, rest)
        if run.done:
            run.handle = run.source = None
        self.carry_out(effects)
        try:
            if rest is not None:
                raise rest
        finally:
            del error, failure, rest, run  # no cycle through the error's traceback

    def note_lost_worker(self, run: TrioRun, attempt: int | None = None) -> None:
        """Ask *run* to stop, because its pool has lost a worker, in this *attempt* if given."""
        self.scheduler.note_lost_worker(run, self.now(), attempt)
        self.finished()

    async def run_in_thread(self, fn: Callable[..., object], *args: object) -> object:
        """Call *fn* in a thread of trio, with a limiter that other maps do not use."""
        task_name = current_task().name
        try:
            return await trio.to_thread.run_sync(
                call_in_thread,
                fn,
                args,
                thread_name=f"{getattr(fn, '__name__', None)} from {task_name}",
                limiter=self._thread_limiter,
            )
        except RuntimeError:
            make_daemon("", fn)  # raises a better error if no daemon thread can be made
            raise

    # The timer

    def _set_timer(self) -> None:
        """Make a task wake when the next timer is due; the task exists only while one is set.

        The task is shielded, because it watches cancelled runs. It does not keep the block open.
        """
        self.scheduler.timers.changed = False
        due = self.scheduler.timers.next_due()
        if self._timer is None:
            if due is not None:
                self._timer = trio.CancelScope(shield=True, deadline=due)
                start = partial(self.nursery.start_soon, name="namedtasks: the map's timer")
                Context().run(start, self._keep_time)  # empty, because it serves all starters
        elif due is None:
            self._timer.cancel("nothing will be due")
        else:
            self._timer.deadline = due

    @enable_ki_protection
    async def _keep_time(self) -> None:
        try:
            while (due := self.scheduler.timers.next_due()) is not None:
                self._timer = trio.CancelScope(shield=True, deadline=due)
                with self._timer:
                    await trio.sleep_forever()
                base.run_due(self)
        finally:
            self._timer = None

    # Waiting

    @enable_ki_protection
    async def wait(self, condition: Callable[[], base.WaitCondition[ParkingLot] | None]) -> None:
        """Wait until there is no *condition* any more. Checkpoint.

        There is no checkpoint between the last check and the return. This is protected from
        Ctrl-C, because a half entered cancel scope cannot be repaired. Ctrl-C is raised where
        the task parks.
        """
        await trio.lowlevel.checkpoint()
        while (found := condition()) is not None:
            with trio.CancelScope(deadline=found.until):
                await found.queue.park()

    def refuse_inside_map(self, verb: str) -> None:
        """Check that *verb* would not wait for its caller.

        The task tree shows the task of the caller. A context variable does not, because it is
        copied into the tasks that are started in other nurseries.

        Raises:
            RuntimeError: the caller is inside a task of the map.
        """
        self.check_here()
        task: Task | None = current_task()
        while task is not None and (nursery := task.parent_nursery) is not None:
            if nursery is self.nursery:
                raise base.waits_for_its_map(verb)
            task = nursery.parent_task

    def refuse_inside_run(self, run: Run, verb: str) -> None:
        """Check that *verb* would not wait for its caller.

        Raises:
            RuntimeError: the caller is inside *run*.
        """
        worker: Worker | None = getattr(run, "worker", None)
        if worker is None:
            return
        task: Task | None = current_task()
        while task is not None:
            if task is worker.task:
                raise base.waits_for_its_run(run, verb)
            task = None if task.parent_nursery is None else task.parent_nursery.parent_task

    # Leaving the block

    def cancel_all(self, reason: str) -> None:
        """Ask all runs to stop, because an exception propagates; later calls do nothing."""
        if self._cancelled_because is None:
            self._cancelled_because = reason
            scheduler = self.scheduler
            scheduler.stopping = True
            runs = [*scheduler.pending.values(), *scheduler.running.values()]
            base.cancel_runs(self, runs, reason)

    async def leave(self, exc: BaseException | None) -> _Split:
        """Wait for the runs at the end of the block, or cancel them.

        Returns:
            The block's own exception or a Ctrl-C in the wait, and the exception for the nursery.
            Only a cancellation is for the nursery, which may absorb it. The nursery would wrap
            any other exception, and copy groups.
        """
        try:
            self.ends_when_idle = True
            self.workers.stop()
            base.drain(self)
            if exc is not None:
                self.cancel_all(_reason(exc))
            else:
                while not self.scheduler.is_idle():
                    await self.waits.idle.park()
        except trio.Cancelled:
            # Each run gets it too, and raises it or another error, as in a nursery.
            self.cancel_all(ENCLOSING_SCOPE)
        except BaseException as interrupt:  # it leaves the block with the other errors
            self.cancel_all(_reason(interrupt))
            return interrupt, None
        if exc is None or has_cancellation(exc):
            return None, exc
        return exc, None


_OPENER = "namedtasks.open_task_map()"


@final
class Block(base.MapBlock):
    """The ``async with`` block of a map.

    A class, like trio's own `NurseryManager`, because a generator would add its frames to each
    traceback.
    """

    def __init__(self, make_backend: Callable[[trio.Nursery], TrioBackend], make_map: Any) -> None:
        super().__init__(_OPENER)
        self._make_backend = make_backend
        self._make_map = make_map
        self._manager: Any = None
        self._backend: Any = None

    @enable_ki_protection
    async def __aenter__(self) -> Any:
        if self._manager is not None:
            raise RuntimeError("a task map can be opened only once: call open_task_map() again")
        if not trio.lowlevel.in_trio_task():
            raise _not_in_trio()
        if is_sigint_deferred(signal.getsignal(signal.SIGINT)):
            message = (
                "a ThreadTaskMap's block around trio.run() keeps trio from handling Ctrl-C: "
                "open the ThreadTaskMap inside trio.run()"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        self._manager = trio.open_nursery(strict_exception_groups=True)
        nursery = await self._manager.__aenter__()
        self._backend = self._make_backend(nursery)
        return await self._open(self._backend, self._make_map(self._backend))

    @enable_ki_protection
    async def __aexit__(self, _: Any, exc: BaseException | None, traceback: Any) -> bool | None:
        backend: TrioBackend = self._backend
        raised_in_block = exc
        own, exc = await backend.leave(exc)
        if own is not None:
            backend.nursery.cancel_scope.cancel("the map's block raised an exception")
        gathered: list[BaseException] = []
        absorbed: bool | None = False
        try:
            kind = None if exc is None else type(exc)
            absorbed = await self._manager.__aexit__(kind, exc, traceback)
        except BaseExceptionGroup as group:
            gathered = list(group.exceptions)
        finally:
            base.close(backend)
            backend.thread = self._tasks = None
        # A cancellation of an enclosing scope is raised only if there is no other error.
        left = [one for one in gathered if not is_cancellation(one)]
        if own is not None:
            left.insert(0, own)
        left = left or gathered[:1]
        try:
            if not left:
                return absorbed
            raise_combined(left, raised_in_block)
            return False
        finally:
            del own, exc, gathered, left, raised_in_block  # no cycle through a traceback


def _not_in_trio() -> RuntimeError:
    """Return the error for a map that is opened where trio does not run."""
    asyncio: Any = sys.modules.get("asyncio")  # not imported for this
    if asyncio is not None and asyncio._get_running_loop() is not None:  # noqa: SLF001
        return RuntimeError(
            f"{_OPENER} opens a map for trio, and this code runs in asyncio: "
            "use namedtasks.asyncio.open_task_map()"
        )
    return RuntimeError(f"{_OPENER} opens a map for trio: use it inside trio.run()")


async def _raise(error: BaseException) -> None:
    raise error


def is_cancellation(error: BaseException) -> bool:
    """Return whether *error* is only trio's cancellation of an enclosing scope."""
    return split_exception(error, trio.Cancelled)[1] is None


def has_cancellation(error: BaseException) -> bool:
    """Return whether *error* is, or contains, trio's cancellation of an enclosing scope."""
    return split_exception(error, trio.Cancelled)[0] is not None


def _reason(exc: BaseException) -> str:
    return ENCLOSING_SCOPE if has_cancellation(exc) else f"the map's block raised {error_text(exc)}"


def _reason_to_cancel(run: TrioRun, rest: BaseException) -> str:
    if is_cancellation(rest):
        return ENCLOSING_SCOPE
    return f"{task_text(run.name, run.operation)} raised {error_text(rest)}"
