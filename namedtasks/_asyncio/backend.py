"""The asyncio backend: begins, cancels and ends runs, and owns the timer and the block.

1. A run ends in the last step of its Task's coroutine: its name is released, and the futures of
   the starts that joined it are done, when the Task is done. Without a task factory, the
   coroutine is started up to a bare ``yield`` before the Task is made. So a Task that is
   cancelled before its first step has a last step, too. A task factory, or a tracer that has
   replaced the loop's ``create_task``, may put another coroutine around ours. If that never
   awaits ours, the run ends in the Task's first done-callback, one turn of the loop later.
2. A run that has ended is in ``ending`` while its Task is not done: its coroutine waits for a
   turn, the coroutine of a task factory continues after ours, or a done-callback has to follow.
   Waits check it, too. No event of a run that has ended is delivered before its Task is done. A
   run that only returns a value needs none of this, and no done-callback.
3. A cancellation that asyncio has accepted but not delivered arrives before the last step. So
   a Task is never cancelled after its run has ended with a value.
4. The Task's coroutine interprets the end of its body, because the Task has to raise the
   resulting error: `TimeoutError` for a body that its deadline has stopped.

Functions in threads and pools cannot be stopped. The Task of such a run is not done until the work
has really ended, however often it is cancelled. A cancellation is not delivered to the Task. It is
noted for the run, where a function that can stop checks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import sys
import warnings
from asyncio import CancelledError
from collections.abc import Callable, Generator, Hashable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from contextvars import Context, copy_context
from functools import partial
from itertools import repeat
from operator import methodcaller
from types import TracebackType
from typing import Any, TypeVar, final

import namedtasks._base as base
import namedtasks._validation as checks
from namedtasks._base import WaitCondition, Waits
from namedtasks._context import is_sigint_deferred, running_in
from namedtasks._decisions import NO_EFFECTS
from namedtasks._entry_queue import EntryQueue, affinity_error
from namedtasks._errors import (
    ClosedError,
    TaskCancelledError,
    TaskFailedError,
    raise_combined,
    split_exception,
)
from namedtasks._executors import PoolJob, PoolOrFactory, submit
from namedtasks._scheduler import Scheduler
from namedtasks._state import Run, RunStatus
from namedtasks._thread_pool import ThreadPool
from namedtasks._validation import Body

T = TypeVar("T")

VERB, CURE = "run_in_executor()", "use create_task()"
"""The method and the cure in the error for an async function."""

running_loop = asyncio._get_running_loop  # noqa: SLF001
"""Return the running loop of this thread, or None; it does not raise, and is written in C."""

_BLOCK_CANCELLED = "the task that the map's block is in was cancelled"

_DEFERRED, _QUEUED = RunStatus.DEFERRED, RunStatus.QUEUED
_ADMITTED, _BEGUN = RunStatus.ADMITTED, RunStatus.BEGUN
_SUCCEEDED, _FAILED, _CANCELLED = RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED


class _FirstStep:
    """An awaitable that suspends a coroutine once; in C, because each run awaits it."""

    __await__: Callable[[], Iterator[None]] = staticmethod(  # pyright: ignore[reportUnknownVariableType]
        partial(repeat, None, 1)
    )


_FIRST_STEP: Any = _FirstStep()


@final
class AsyncioRun(Run):
    """A run with its state on asyncio."""

    body: Body | None = None
    """The coroutine to await, until it begins."""
    task: asyncio.Task[Any] | None = None
    """The Task of a run that has ended, until the Task is done; before that it is the handle."""
    driver: Body | None = None
    """The coroutine that was given to a task factory, until its body begins."""
    is_followed: bool = False
    """True if the Task has the map's done-callback."""
    turn: asyncio.Future[None] | None = None
    """The future that the Task awaits while the run is pending or waits for a slot."""
    joined: dict[asyncio.Future[Any], None] | None = None
    """The futures of the starts that joined the run; they are done in the Task's last step."""
    deadline_timer: asyncio.TimerHandle | None = None
    is_between_attempts: bool = False
    """True from the end of an attempt that another one follows, until `_drive_attempts` has seen
    it."""
    deadline_cancelled: bool = False
    """True if the deadline has cancelled the Task."""
    deadline_was_first: bool | None = None
    """True if the deadline came before any cancellation; None before the deadline."""
    is_elsewhere: bool = False
    """True if a thread or a process does the work, which `Task.cancel` does not stop."""
    raised: BaseException | None = None
    """The executor's error, if the Task raises another one instead."""
    job: PoolJob | None = None
    """The job in a user's pool, which may cancel it."""

    def close_body(self) -> None:
        """Close a body that never began, so that Python does not warn about it."""
        body, self.body = self.body, None
        checks.close_unbegun(body, lambda: checks.task_text(self.name, self.operation))

    def close_driver(self) -> None:
        """Close the coroutine of a Task that never awaited it, and close the body."""
        driver, self.driver = self.driver, None
        checks.close_unbegun(driver, lambda: checks.task_text(self.name, self.operation))
        self.close_body()

    def is_asked_to_stop(self) -> bool:
        """Return whether it was cancelled or its deadline has passed. Callable from any thread."""
        # In another thread, the loop's time may be old while the loop sleeps (uvloop).
        return self.deadline_was_first is not None or super().is_asked_to_stop()

    def timed_out(self) -> bool:
        """Return whether the deadline came before any cancellation."""
        return super().timed_out() if self.deadline_was_first is None else self.deadline_was_first

    def is_cancel_requested(self) -> bool:
        """Return whether it was cancelled, by the map or by asyncio."""
        if self.cancelled_at is not None:
            return True
        return self.handle is not None and self.handle.cancelling() > self.deadline_cancelled

    def end_attempt(self) -> None:
        """Reset the state of one attempt, because another one follows."""
        super().end_attempt()
        if self.deadline_cancelled and self.handle is not None:
            self.handle.uncancel()
        self.deadline_cancelled = self.is_elsewhere = False
        self.deadline_was_first = self.deadline_timer = self.raised = self.job = None
        self.is_between_attempts = True

    def cancellation(self) -> CancelledError | TaskCancelledError:
        """Return the error that the Task of the cancelled run raises.

        A caller's request cancels the Task. A retry that the map drops raises
        `TaskCancelledError`, because a task group around its waiter would take a
        `CancelledError` for its own.
        """
        if self.last_failure is not None and self.cancelled_at is None:
            return self.cancelled_error()
        return CancelledError() if self.reason is None else CancelledError(self.reason)

    def complete_joined(self, error: BaseException | None, value: object = None) -> None:
        """Complete the futures of the starts that joined the run, with the outcome of its Task."""
        joined, self.joined = self.joined, None
        for future in [one for one in joined or () if not one.done()]:
            if error is None:
                future.set_result(value)
            else:
                # No CancelledError, which a task group around the waiter would take for its own.
                if isinstance(error, CancelledError):
                    message = error.args[0] if error.args else None
                    error = self.cancelled_error(message if isinstance(message, str) else None)
                future.set_exception(error)
                future.exception()  # marks it as retrieved, as the Task's is


@final
class JoinedFuture(asyncio.Future[Any]):
    """A future that follows a run; cancelling it only makes the run forget it."""

    def __init__(self, run: AsyncioRun) -> None:
        super().__init__(loop=run.backend.loop)
        self._run = run
        run.joined = run.joined or {}
        run.joined[self] = None
        self.add_done_callback(self._leave)

    def _leave(self, _: object) -> None:
        (self._run.joined or {}).pop(self, None)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the end of the run.

        Raises:
            RuntimeError: the caller is inside this run, or inside the run that it is
                queued behind.
        """
        if not self.done():
            run = self._run
            refuse_inside_run(run, "await of its own future")
            holder = run.backend.scheduler.holder_before(run)
            if holder is not None:
                refuse_inside_run(holder, "await of a run that is queued behind it")
        return super().__await__()


# Waiting


@final
class UncancellableFuture(asyncio.Future[Any]):
    """A future that a cancelled Task continues to await, without being woken.

    anyio cancels a Task again in each turn of the loop until the Task leaves the scope. For a
    Task that has noted its cancellation and still has to wait, each of these would be a useless
    step.
    """

    on_cancel: Callable[[str | None], object] | None = None
    """Called with the message of the first cancellation."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Note the request; for the True, `asyncio.Task.cancel` takes it as delivered."""
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel is not None:
            on_cancel(msg if isinstance(msg, str) else None)
        return True


@final
class WaitQueue:
    """The callers that wait until they are woken, or until a time on the loop's clock.

    Other code may run between the waking and the caller's next step, so the caller checks again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiters: dict[asyncio.Future[None], None] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def unpark_all(self) -> None:
        """Wake all that wait now, after the Task that is ending and its callbacks are done."""
        for waiter in self._waiters:
            self._loop.call_soon(_wake, waiter)

    async def park(self, until: float = math.inf, *, is_shielded: bool = False) -> None:
        """Wait until woken, or until a time; if *is_shielded*, also when cancelled."""
        kind: type[asyncio.Future[Any]] = UncancellableFuture if is_shielded else asyncio.Future
        waiter = kind(loop=self._loop)
        timer = None
        if until != math.inf:
            timer = self._loop.call_at(until, _wake, waiter, context=Context())
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            del self._waiters[waiter]
            if timer is not None:
                timer.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _runs_around() -> Iterator[AsyncioRun]:
    """Yield the run that the caller is inside, the run in which that run's map was opened, ...

    A context variable holds the run. It is copied into everything that the run starts. A copy
    that outlives its run is ignored.
    """
    run = running_in.get(None)
    while isinstance(run, AsyncioRun) and not run.done:
        yield run
        run = run.backend.opened_in


def refuse_inside_run(run: AsyncioRun, verb: str) -> None:
    """Check that *verb* would not wait for its caller.

    Raises:
        RuntimeError: the caller is inside *run*.
    """
    if any(one is run for one in _runs_around()):
        raise base.waits_for_its_run(run, verb)


_Condition = Callable[[], WaitCondition[WaitQueue] | None]
"""Returns the condition of a wait; None if the wait is over."""


# Acting


@final
class AsyncioBackend:
    """The state that a `TaskMap` and its runs share."""

    def __init__(self, scheduler: Scheduler[AsyncioRun], block: asyncio.Task[Any]) -> None:
        loop = asyncio.get_running_loop()
        self.scheduler: Scheduler[AsyncioRun] = scheduler
        self.loop: asyncio.AbstractEventLoop = loop
        # Looks up the method at each call, as the loop does, because freezegun replaces it.
        self.now: Callable[[], float] = partial(methodcaller("time"), loop)
        self.lock: nullcontext[None] = nullcontext()
        self.waits: Waits[AsyncioRun, WaitQueue] = Waits(
            scheduler, self.now, partial(WaitQueue, loop)
        )
        self.block: asyncio.Task[Any] = block
        """The Task that the map's block is in."""
        self.block_done: bool = False
        """True once the map's block is done."""
        self.ends_when_idle: bool = False
        """True once the map's block is done: the map closes with its last run. Also once it is
        closed, if an instrument gets told of its end."""
        self.opened_in: object = running_in.get(None)
        """The run, of this map or of another one, that waits for the block."""
        self.fatal_errors: list[BaseException] = []
        """The errors of runs that leave the block."""
        self.threads: ThreadPool[Callable[[], object]] = ThreadPool(
            "namedtasks", methodcaller("__call__")
        )
        self._entries = EntryQueue(loop.call_soon_threadsafe, self._raise_from_loop)
        self._timer: asyncio.TimerHandle | None = None
        self._starts_first: bool = True
        """True if coroutines are started before their Tasks are made: no tracer wraps them."""
        self._block_was_cancelled: bool = False
        """True if the map has cancelled the block's Task, because of a fatal error."""
        self.cancelled_because: str | None = None
        """The reason for which all runs were cancelled, and new ones are cancelled, too."""

    # Calls from the map

    def check_here(self) -> None:
        """Check that the caller is in the map's thread and event loop.

        Raises:
            RuntimeError: it is not.
        """
        if running_loop() is not self.loop and not self.scheduler.forked:
            raise affinity_error("call post() or loop.call_soon_threadsafe()")

    def call(self, verb: Callable[[], T]) -> T:
        """Call *verb*, if the caller is in the event loop of the map."""
        self.check_here()
        return verb()

    def call_or_postpone(self, verb: Callable[[], T], _answer: T, /) -> T:
        """Call *verb*, if the caller is in the event loop of the map."""
        return self.call(verb)

    def post(self, start: Callable[..., object], args: tuple[Any, ...], kwargs: Any) -> None:
        """Queue a call of *start* in the map's thread, in a copy of the caller's context.

        Raises:
            ClosedError: the map is known to be closed, or its loop is.
        """
        if not self.scheduler.closed:
            try:
                self._entries.add(start, args, kwargs)
                return
            except RuntimeError:
                if not self.loop.is_closed():
                    raise
        raise ClosedError(args[0], kwargs["operation"])

    def _raise_from_loop(self, error: BaseException, text: str) -> None:
        self.propagate(f"{text} raised {checks.error_text(error)}", error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error

    # Starting

    def make_task(self, run: AsyncioRun) -> asyncio.Task[Any]:
        """Make the Task of *run*, which is admitted or about to be deferred."""
        loop, name = self.loop, run.name
        # The coroutine of a task factory cannot await ours if ours is started.
        is_started = self._starts_first and loop.get_task_factory() is None
        drive = self._drive_attempts if run.retry else self._drive
        coroutine = drive(run, is_started)
        try:
            if is_started:
                coroutine.send(None)
            else:
                run.driver = coroutine
            task = loop.create_task(
                coroutine, name=name if type(name) is str else checks.name_text(name)
            )
        except BaseException:
            run.driver = None
            coroutine.close()
            raise
        if is_started and task.get_coro() is not coroutine:
            # A tracer (ddtrace is one) has replaced `create_task` of the loop, and wraps.
            self._starts_first = False
            coroutine.close()
            task.cancel()  # it has not begun, and never begins
            return self.make_task(run)
        run.handle = task
        if self.scheduler.events.listeners or not is_started:
            # The first callback, so that instruments get the end before callers that await it.
            self._follow(run, task)
            if run.done:
                self._end_with_task(run)
                run.handle = None
            if task.done():  # an eager one
                self._on_done(run, task)
        return task

    def roll_back(self, run: AsyncioRun) -> None:
        """Undo the start of *run*, whose Task could not be made."""
        effects = NO_EFFECTS
        if run.status is not _DEFERRED and not run.done:
            effects = self.scheduler.roll_back(run, self.now)
            self.waits.note_ended(run, *effects.dropped)
        run.close_driver()
        base.apply_effects(self, effects)

    # Running

    async def _drive(  # noqa: C901 - for speed
        self, run: AsyncioRun, is_started: bool
    ) -> object:
        """Await the body and end the run: the coroutine of a run's Task.

        Args:
            run: The run.
            is_started: True if the coroutine is started before the Task is made.
        """
        scheduler = self.scheduler
        try:
            if is_started:
                await _FIRST_STEP
            if run.status is not _ADMITTED and not run.done:
                run.turn = self.loop.create_future()
                await run.turn
            if not is_started:
                self._note_first_step(run)
            # No variable of this frame refers to the Task, which keeps the error and so the frame.
            if run.cancelled_at is not None or run.status is not _ADMITTED:
                raise run.cancellation()
            running_in.set(run)
            is_told = scheduler.begin(run, self.loop.time())
            if run.timeout != math.inf:
                run.deadline_timer = self.loop.call_at(
                    run.deadline, self._on_deadline, run, context=Context()
                )
            if is_told or scheduler.timers.changed:
                self.finished()
            body: Any = run.body
            run.body = None
            value = await body
            if run.deadline_timer is not None:
                run.deadline_timer.cancel()
            is_cancelled = run.handle is not None and run.handle.cancelling()
            if (is_cancelled or run.cancelled_at is not None) and not run.is_elsewhere:
                await asyncio.sleep(0)  # asyncio may have a cancellation to deliver
        except BaseException as error:
            if run.deadline_timer is not None:
                run.deadline_timer.cancel()
            self._end_with_task(run)
            # The loop is gone and this is garbage, or the body raised it and `_on_done` follows.
            if isinstance(error, GeneratorExit):
                raise
            reported = error
            if isinstance(error, CancelledError | TaskCancelledError):
                reported = self._error_of_task(run, error)
            try:
                self._end(run, reported)
                if run.is_between_attempts:
                    if not run.done:
                        self.waits.ending.pop(run, None)
                        run.task = None
                elif run.joined:
                    run.complete_joined(reported)
                if reported is error:
                    raise
                raise reported from error
            finally:
                del reported  # no cycle through the error's traceback
        if run.status is _BEGUN:
            self._end_returned(run)
        if run.joined:
            run.complete_joined(None, value)
        return value

    async def _drive_attempts(self, run: AsyncioRun, is_started: bool) -> object:
        """Run the attempts of *run* in order: the coroutine of a retried run's Task."""
        while True:
            try:
                return await self._drive(run, is_started)
            except BaseException:
                if not run.is_between_attempts:
                    raise
            run.is_between_attempts = False
            is_started = True  # so the next attempt begins one turn of the loop later
            if run.done:  # an instrument has closed the map, for example
                error = run.cancellation()
                run.complete_joined(error)
                raise error
            run.body = checks.call_body(*run.source)

    def _note_first_step(self, run: AsyncioRun) -> None:
        """Note that the coroutine of a task factory, if any, has awaited ours."""
        run.driver = None
        if run.handle is None and not run.done:  # an eager Task, which was not returned yet
            task = asyncio.current_task()
            assert task is not None
            task.set_name(checks.name_text(run.name))
            run.handle = task

    def _on_deadline(self, run: AsyncioRun) -> None:
        run.deadline_was_first = not run.is_cancel_requested()
        run.deadline_cancelled = self.interrupt(run, base.timeout_message(run))

    # Ending

    def _end_with_task(self, run: AsyncioRun) -> None:
        """Keep *run*, which is about to end, in ``ending`` until `_on_done` was called."""
        if run.handle is not None:
            run.task = run.handle
            self.waits.ending[run] = None
            if not run.is_followed:
                self._follow(run, run.handle)

    def _follow(self, run: AsyncioRun, task: asyncio.Task[Any]) -> None:
        """Call `_on_done` when the *task* of *run* is done."""
        run.is_followed = True
        task.add_done_callback(partial(self._on_done, run))

    def _end_returned(self, run: AsyncioRun) -> None:
        """End *run*, whose body has returned a value, in its Task's last step."""
        scheduler = self.scheduler
        if run.is_followed:
            self._end_with_task(run)
        effects = scheduler.finish(run, _SUCCEEDED, self.now)
        run.handle = run.source = None
        if run.waiters is not None:
            run.waiters.unpark_all()
        if not scheduler.running:
            self.waits.wake()
        if effects is not NO_EFFECTS or scheduler.timers.changed or self.ends_when_idle:
            self.waits.note_ended(*effects.dropped)
            base.apply_effects(self, effects, run)

    def _error_of_task(self, run: AsyncioRun, error: BaseException) -> BaseException:
        """Return the error that the Task of *run* raises for *error*, which left the body."""
        if run.acknowledges_cancel(error):
            if not run.timed_out():
                return run.cancellation()
        elif not (isinstance(error, CancelledError) and run.deadline_was_first):
            return error
        return self.timeout_error(base.timeout_message(run))

    def _end(self, run: AsyncioRun, error: BaseException | None) -> None:
        """End *run*, unless it has ended, by the *error* that its Task raises, if any."""
        is_cancelled = False
        failure, rest = error, None
        if run.raised is not None:  # every error of an executor is a failure
            failure, run.raised = run.raised, None  # no cycle: its frames refer to the run
        elif isinstance(error, CancelledError) and (run.done or run.is_cancel_requested()):
            is_cancelled = True
        elif error is not None and not isinstance(error, Exception):
            # A cancellation that no caller requested is a failure, also in a group.
            failure, rest = split_exception(error, (Exception, CancelledError))
            if rest is not None:
                text = (
                    f"{checks.task_text(run.name, run.operation)} raised {checks.error_text(rest)}"
                )
                self.propagate(text, rest)
        if run.status is _DEFERRED:
            reason = None if is_cancelled or error is None else checks.error_text(error)
            base.cancel_run(self, run, reason and f"its task raised {reason}")
        elif run.status < _SUCCEEDED:
            if is_cancelled:
                base.apply_effects(self, base.end_run(self, run, _CANCELLED), run)
            elif failure is None and rest is not None:
                base.apply_effects(self, base.end_run(self, run, _FAILED, rest), run)
            else:
                base.finish_run(self, run, failure)

    def _on_done(self, run: AsyncioRun, task: asyncio.Task[Any]) -> None:
        """End *run* if its Task's coroutine has not; wake waits and deliver events.

        Called once the *task* is done.
        """
        if not run.is_followed:  # it was called already, for an eager Task
            return
        run.is_followed = False
        run.close_driver()
        # This marks its exception as retrieved.
        error = CancelledError() if task.cancelled() else task.exception()
        if not run.done:
            run.retry = False  # no coroutine would run another attempt
            self._end(run, error)
        run.complete_joined(error, None if error is not None else task.result())
        run.task = None
        # Meanwhile the run is in ``ending``, because an instrument may start a run after the block.
        self.finished(run)
        self.waits.ending.pop(run, None)
        if run.waiters is not None:
            run.waiters.unpark_all()
        if not self.waits.ending:
            self.waits.idle.unpark_all()
            self._end_if_idle()

    def note_lost_worker(self, run: AsyncioRun, attempt: int | None = None) -> None:
        """Ask *run* to stop, because its pool has lost a worker, in this *attempt* if given."""
        self.scheduler.note_lost_worker(run, self.now(), attempt)
        self.finished()

    # Acting for the scheduler

    def can_drop(self, run: AsyncioRun) -> bool:
        """Return whether the body of *run* can be kept from beginning."""
        return run.status is _QUEUED

    def spawn(self, run: AsyncioRun) -> None:
        """Let the body of *run* begin: it was deferred, or waited for a slot."""
        if run.turn is not None:
            _wake(run.turn)

    def interrupt(self, run: AsyncioRun, message: str | None = None) -> bool:
        """Cancel the Task of *run*, or its job in a pool; return whether it was the Task."""
        if run.job is not None:
            run.job.cancel()
        elif run.handle is not None and not run.is_elsewhere:
            run.handle.cancel(message or run.reason)
            return True
        return False

    def discard(self, run: AsyncioRun) -> None:
        """Close the body of *run*, which has ended before it began, and wake its Task."""
        run.close_body()  # not the driver, which its Task or a factory's wrapper still runs
        self._end_with_task(run)
        if run.turn is None:
            pass
        elif run.last_failure is None:
            run.turn.cancel(run.reason)
        else:
            _wake(run.turn)  # the Task raises the cancellation

    def look(self, look: Callable[[], T]) -> T:
        """Return the result of *look*. Callable from any thread: it takes no lock."""
        return look()

    def timeout_error(self, message: str) -> Exception:
        """Return the error of a run that its own deadline has stopped."""
        return TimeoutError(message)

    def finished(self, *ended: AsyncioRun) -> None:
        """Set the timer, deliver events, and close the map with the last run of its block."""
        for run in ended:
            # No cycle, and no frames kept alive. The Task has the error for its starter.
            run.handle = run.error = run.source = None
        if self.scheduler.timers.changed:
            self._set_timer()
        events = self.scheduler.events
        if events.direct and (event := events.take_direct()) is not None:
            events.call_direct(event)
        if events.queued:
            events.deliver(keep=_is_ending)
        if self.ends_when_idle:
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self.ends_when_idle and self.waits.until_idle() is None:
            base.mark_closed(self)
            base.note_closed(self)
            self.scheduler.events.deliver()

    # The timer

    def _set_timer(self) -> None:
        """Schedule a call for the next timer, if there is one."""
        self.scheduler.timers.changed = False
        due = self.scheduler.timers.next_due()
        if self._timer is not None and (due is None or due < self._timer.when()):
            self._timer.cancel()
            self._timer = None
        if due is not None and self._timer is None:
            # In an empty context, because it serves all starters.
            self._timer = self.loop.call_at(due, self._run_due, context=Context())

    def _run_due(self) -> None:
        self._timer = None
        base.run_due(self)
        self._set_timer()  # perhaps nothing was due, as uvloop rounds to milliseconds

    # Waiting

    async def wait(self, condition: _Condition, deadline: float = math.inf) -> bool:
        """Wait until there is no *condition* any more; return False if the *deadline* came first.

        There is no await between the last check and the return.
        """
        while True:
            self.check_here()
            found = condition()
            if found is None:
                return True
            if self.now() >= deadline:
                return False
            await found.queue.park(min(found.until, deadline))

    async def wait_free(self, name: Hashable, operation: str | None) -> None:
        """Wait until a start of *name* has no conflict."""
        try:
            await self.wait(lambda: self.waits.until_free(name, operation))
        finally:
            self.waits.leave(name)

    def refuse_inside_map(self, verb: str) -> None:
        """Check that *verb* would not wait for its caller.

        Raises:
            RuntimeError: the caller is inside a task of the map.
        """
        self.check_here()
        if any(run.backend is self for run in _runs_around()):
            raise base.waits_for_its_map(verb)

    # Leaving the block

    def cancel_all(self, reason: str) -> None:
        """Ask all runs to stop, and all later ones; later calls do nothing."""
        if self.cancelled_because is None:
            self.cancelled_because = reason
            scheduler = self.scheduler
            scheduler.stopping = True
            runs = [*scheduler.pending.values(), *scheduler.running.values()]
            base.cancel_runs(self, runs, reason)

    def propagate(self, reason: str, error: BaseException) -> None:
        """Let *error* leave the block, and cancel the block and the runs."""
        self.fatal_errors.append(error)
        self.cancel_all(reason)
        if not self.block_done and not self._block_was_cancelled:
            self._block_was_cancelled = True
            self.block.cancel(reason)

    async def leave(self, exc: BaseException | None) -> CancelledError | None:
        """Wait for the runs at the end of the block, or cancel them.

        Returns:
            The cancellation that leaves the block, if no other error does.
        """
        self.block_done = self.ends_when_idle = True
        base.drain(self)
        cancelled = exc if isinstance(exc, CancelledError) else None
        if cancelled is not None:
            self.cancel_all(_BLOCK_CANCELLED)
        elif exc is not None:
            self.cancel_all(f"the map's block raised {checks.error_text(exc)}")
        try:
            while self.waits.until_idle() is not None:
                await self.waits.idle.park()
        except CancelledError as request:
            # The Task counts further requests. They are not lost, as an exception leaves the block.
            cancelled = cancelled or request
            self.cancel_all(_BLOCK_CANCELLED)
            # anyio cancels a Task again in each turn of the loop, but not inside a shield.
            anyio_scope: Any = getattr(sys.modules.get("anyio"), "CancelScope", None)
            with nullcontext() if anyio_scope is None else anyio_scope(shield=True):
                while self.waits.until_idle() is not None:
                    await self.waits.idle.park(is_shielded=True)
        base.close(self)
        self.threads.close()
        try:
            if self._block_was_cancelled and cancelled is None:
                await asyncio.sleep(0)  # our own cancellation may not have arrived yet
        except CancelledError as late:
            cancelled = late
        try:
            is_ours = self._block_was_cancelled and not self.block.uncancel()
            return None if is_ours else cancelled
        finally:
            del cancelled  # no cycle through its traceback


def _is_ending(run: AsyncioRun) -> bool:
    """Return whether *run* has ended, and its Task is not done yet."""
    return run.done and run.task is not None and not run.task.done()


_OPENER = "namedtasks.asyncio.open_task_map()"


@final
class Block(base.MapBlock):
    """The ``async with`` block of a map, modelled on `asyncio.TaskGroup`."""

    def __init__(
        self, scheduler: Scheduler[AsyncioRun], make_map: Callable[[AsyncioBackend], Any]
    ) -> None:
        super().__init__(_OPENER)
        self._scheduler = scheduler
        self._make_map = make_map
        self._backend: AsyncioBackend | None = None

    async def __aenter__(self) -> Any:
        if self._backend is not None:
            raise RuntimeError("a task map can be opened only once: call open_task_map() again")
        task = None if running_loop() is None else asyncio.current_task()
        if task is None:
            raise _not_in_asyncio()
        if is_sigint_deferred(signal.getsignal(signal.SIGINT)):
            warnings.warn(
                "a ThreadTaskMap's block around asyncio.run() keeps asyncio from handling Ctrl-C: "
                "open the ThreadTaskMap inside asyncio.run()",
                RuntimeWarning,
                stacklevel=2,
            )
        self._backend = AsyncioBackend(self._scheduler, task)
        return await self._open(self._backend, self._make_map(self._backend))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._backend is not None
        backend = self._backend
        cancelled = await backend.leave(exc)
        self._tasks = None
        left: list[BaseException] = [one for one in backend.fatal_errors if one is not exc]
        backend.fatal_errors.clear()
        if exc is not None and not isinstance(exc, CancelledError):
            left.insert(0, exc)
        if left and cancelled is not None:
            # A cancellation is raised only alone. With other errors it is requested again, as in
            # a TaskGroup.
            backend.block.uncancel()
            backend.block.cancel()
        elif cancelled is not None:
            left = [cancelled]
        del cancelled  # no cycle through an error's traceback
        try:
            if left:
                raise_combined(left, exc)
        finally:
            del exc


def _not_in_asyncio() -> RuntimeError:
    """Return the error for a map that is opened outside an asyncio Task."""
    trio: Any = sys.modules.get("trio")  # not imported for this
    if trio is not None and trio.lowlevel.in_trio_task():
        return RuntimeError(
            f"{_OPENER} opens a map for asyncio, and this code runs in trio: "
            "use namedtasks.open_task_map()"
        )
    return RuntimeError(
        f"{_OPENER} opens a map for asyncio: use it inside a Task, for example in asyncio.run()"
    )


# Functions in threads and pools


def _call_in_loop(
    loop: asyncio.AbstractEventLoop, fn: Callable[..., object], *args: object
) -> None:
    """Schedule a call of *fn* in the loop. Called in any thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: no caller waits any more
        loop.call_soon_threadsafe(fn, *args)


def _run_in_thread(ended: Callable[[Future[Any]], object], call: Callable[[], object]) -> None:
    """Make a *call* in a thread of the map's own."""
    future: Future[Any] = Future()
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(checks.remove_tb_frames(error, frozenset()))
    ended(future)
    del ended, future  # no cycle through the error's frames


async def call_in_executor(
    executor: PoolOrFactory | None, fn: Callable[..., object], args: tuple[object, ...]
) -> object:
    """Call a function in an executor: the body of a run of `run_in_executor`.

    Args:
        executor: The pool; None for the map's own threads.
        fn: The function.
        args: Its arguments.
    """
    run: Any = running_in.get()
    backend: AsyncioBackend = run.backend
    in_loop = partial(_call_in_loop, backend.loop)
    work = UncancellableFuture(loop=backend.loop)  # its result is the future of the work
    work.on_cancel = partial(base.cancel_run, backend, run)
    ended = partial(in_loop, work.set_result)
    run.is_elsewhere = True
    if executor is None:
        call = partial(copy_context().run, fn, *args)
        backend.threads.submit(partial(_run_in_thread, ended, call))
    else:
        try:
            lost = partial(in_loop, run.note_lost_worker, run.attempt)
            seconds = run.overdue_after
            run.job = submit(executor, fn, args, ended, lost=lost, overdue_after=seconds)
        except KeyboardInterrupt:  # a Ctrl-C, for example in the function that returns the pool
            raise
        except BaseException as refusal:
            raise _executor_error(run, refusal)  # noqa: B904 - it has its cause
    future: Future[Any] = await work
    run.job = error = None
    try:
        if future.cancelled() and run.is_asked_to_stop():
            raise run.cancelled_error()  # the pool has cancelled it
        error = future.exception()
        if error is not None:
            checks.begin_tb_at(error, fn)
            raise _executor_error(run, error)
        return checks.plain_result(VERB, fn, future.result(), CURE)
    finally:
        del run, work, ended, future, error  # no cycle through an error's traceback


def _executor_error(run: AsyncioRun, error: BaseException) -> BaseException:
    """Return the error that the Task raises for the *error* of an executor; mostly the same."""
    if not isinstance(error, Exception):  # a Task that ends in SystemExit would stop the loop
        run.raised = error
        error = TaskFailedError(run.name, run.operation)
        error.__cause__ = run.raised
    elif isinstance(error, StopIteration):
        run.raised = error  # Python makes a RuntimeError of it in an async function
    return error
