"""Starts, cancels and ends runs in trio's way: `Conductor` has the rules.

Two more, beside those of the conductor: between the end of a body and all that
comes of it there is no checkpoint; and everything here runs protected from
Ctrl-C, the bodies do not.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from typing import Any, cast, final

import trio
from trio.lowlevel import ParkingLot, current_task, enable_ki_protection

from namedtasks._core.conductor import Conductor
from namedtasks._core.engine import Engine, Turn
from namedtasks._core.errors import ClosedError, RefusedError
from namedtasks._core.frames import without_our_frames
from namedtasks._core.groups import parted
from namedtasks._core.pending import IfBusy
from namedtasks._core.slots import Slots
from namedtasks._core.text import error_text, repr_of, task_text
from namedtasks._current import running_in
from namedtasks._log import complain
from namedtasks._own_thread import OwnThread
from namedtasks._trio.callables import body_of
from namedtasks._trio.handle import TaskHandle
from namedtasks._trio.overdue import OverdueWatch
from namedtasks._trio.run import (
    OUR_FRAMES,
    TrioRun,
    is_cancellation,
    unprotected,
)

ENCLOSING_SCOPE = "an enclosing cancel scope was cancelled"
"""Why a run was cancelled that nobody of this map's cancelled."""


@final
class Shell(Conductor[TrioRun, ParkingLot]):
    """The state that a `TaskMap` and its handles share."""

    __slots__ = ("_is_going_up", "_overdue", "_thread_limiter", "nursery", "token")

    def __init__(self, engine: Engine[TrioRun], nursery: trio.Nursery) -> None:
        super().__init__(
            engine,
            now=trio.lowlevel.current_clock().current_time,
            make_lot=ParkingLot,
            guard=OwnThread("call post(), or trio.from_thread.run_sync()"),
            reading=nullcontext(),
            complain=complain,
        )
        self.nursery: trio.Nursery = nursery
        self.token: trio.lowlevel.TrioToken = trio.lowlevel.current_trio_token()
        self._thread_limiter = trio.CapacityLimiter(math.inf)  # the slots do the limiting
        self._is_going_up = False
        self._overdue = OverdueWatch(self)

    # Starting

    @enable_ki_protection
    def start(
        self,
        name: Hashable,
        async_fn: Callable[..., object],
        args: tuple[object, ...],
        *,
        slots: Slots[TrioRun],
        if_busy: IfBusy,
        timeout: float,
        operation: str | None,
    ) -> TaskHandle[Any] | None:
        """Admit a run and see to it that it begins; None if it was refused and may be skipped."""
        admission = self._admit(
            name,
            operation,
            lambda: TrioRun(name, operation, timeout, slots, self.now),
            if_busy,
        )
        if admission is None:
            return None
        run = admission.run
        if admission.is_joined:
            return cast("TaskHandle[Any]", admission.handle)
        handle: TaskHandle[Any] = TaskHandle(self, run)
        run.handle = handle
        try:
            run.body = body_of(async_fn, args)
            if run.done:  # it was cancelled by its own function
                run.close_body()
            elif run.has_slot:
                self._spawn(run)
            else:
                run.context = contextvars.copy_context()
        except BaseException:
            run.close_body()
            self._roll_back(run)
            raise
        if admission.is_put_off:
            self._accept(run)
        return handle

    def _spawn(self, run: TrioRun) -> None:
        name = run.name if isinstance(run.name, str) else repr_of(run.name)

        def spawn() -> None:
            self.nursery.start_soon(self._supervise, run, name=name)

        if run.context is None:
            spawn()
        else:
            run.context.run(spawn)
            run.context = None

    def post(self, start: Callable[[], None], name: Hashable, operation: str | None) -> None:
        """Have *start* called in the map's thread, in a copy of the caller's context.

        Raises:
            ClosedError: the map is known to be closed, or its trio run is over.
        """
        if self.engine.ledger.closed:
            raise ClosedError(name, operation)
        context = contextvars.copy_context()
        try:
            self.token.run_sync_soon(self._start_posted, context, start, name, operation)
        except trio.RunFinishedError:
            raise ClosedError(name, operation) from None

    def _start_posted(
        self,
        context: contextvars.Context,
        start: Callable[[], None],
        name: Hashable,
        operation: str | None,
    ) -> None:
        try:
            context.run(start)
        except RefusedError:
            pass  # the instruments have heard of it
        except Exception as error:
            complain(f"the posted start of {task_text(name, operation)} failed", error)
        except BaseException as error:  # a Ctrl-C, say, in the function that was to give the body
            self.nursery.start_soon(_raise, error, name="namedtasks: an exception on its way up")

    # Running

    async def run_in_thread(self, fn: Callable[..., object], *args: object) -> object:
        """The map's own executor: one of trio's threads, which other maps do not compete for."""
        return await trio.to_thread.run_sync(fn, *args, limiter=self._thread_limiter)

    @enable_ki_protection
    async def _supervise(self, run: TrioRun) -> None:
        """The trio task of one run."""
        error: BaseException | None = None
        try:
            with self._begin(run):
                body, run.body = run.body, None
                assert body is not None
                run.value = await unprotected(body)
                run.returned = True
        except BaseException as caught:
            error = without_our_frames(caught, OUR_FRAMES)
        body = None
        try:
            self._finish(run, error)
        finally:
            del error, run  # no cycle through the error's traceback

    def _begin(self, run: TrioRun) -> trio.CancelScope:
        self.engine.begin(run, self.now())
        run.task = current_task()
        scope = run.scope = trio.CancelScope(deadline=run.deadline)
        if run.stop_asked_at is not None:
            scope.cancel(run.reason)
        if self.engine.timers:
            self._overdue.update()
        running_in.set(run)
        self.engine.dispatch.deliver()
        return scope

    def _finish(self, run: TrioRun, error: BaseException | None) -> None:
        """End a run by what came out of its body; *error* None means a value or a cancellation.

        Raises:
            BaseException: what is no failure of the run's and goes on up.
        """
        run.task = run.scope = None
        failure, rest = (None, None) if error is None else parted(error, Exception)
        if rest is not None:
            self.go_up(_reason_to_go_up(run, rest))
        returned, run.returned = run.returned, False
        if failure is None and rest is not None:
            self._end_by_what_goes_up(run, rest)
        else:
            self.end(run, failure, stopped=failure is None and not returned)
        if rest is not None:
            try:
                raise rest
            finally:
                del error, failure, rest, run

    def _end_by_what_goes_up(self, run: TrioRun, rest: BaseException) -> None:
        if is_cancellation(rest):
            run.reason = run.reason or ENCLOSING_SCOPE
            turn = self._settle_cancelled(run)
        else:
            turn = self._settle_escaped(run, rest)
        self._carry_out(turn, run)

    @enable_ki_protection
    def _carry_out(self, turn: Turn[TrioRun], *ended: TrioRun) -> None:
        super()._carry_out(turn, *ended)

    def _begin_soon(self, run: TrioRun) -> BaseException | None:
        if run.body is not None:  # else its starter is just getting it, and will spawn it
            self._spawn(run)
        return None

    def _tell(self, run: TrioRun) -> None:
        """Nothing is to be told: who waits for the handle waits for the run."""

    def _too_slow(self, text: str) -> Exception:
        return trio.TooSlowError(text)

    # Stopping

    def _is_unbegun(self, run: TrioRun) -> bool:
        return not run.has_slot

    def _drop(self, run: TrioRun) -> None:
        run.close_body()
        run.context = None

    def _stop(self, run: TrioRun) -> None:
        if run.scope is not None:
            run.scope.cancel(run.reason)

    def _timers_changed(self) -> None:
        self._overdue.update()

    def deliver(self) -> None:
        """Let the instruments hear what was noted."""
        self.engine.dispatch.deliver()

    def go_up(self, reason: str) -> None:
        """Something goes up through the map: ask all runs to stop, the first time."""
        if not self._is_going_up:
            self._is_going_up = True
            self.cancel_all(reason)

    # Leaving

    async def wait_for_runs(self) -> None:
        """At the end of the block: wait until nothing runs. Not a checkpoint if nothing does."""
        while not self.is_idle():
            await self.changed.park()

    # Whatever the user's threads and signals do, these are not left half done.

    @enable_ki_protection
    def cancel(self, run: TrioRun, reason: str | None) -> bool:
        """Ask *run* to stop; tell whether it had not ended."""
        return super().cancel(run, reason)

    @enable_ki_protection
    def on_time(self) -> None:
        """Do what is due."""
        super().on_time()

    @enable_ki_protection
    def forget(self, name: Hashable, operation: str | None) -> bool:
        """Drop failures of *name*, and wake who waited for them to lapse."""
        return super().forget(name, operation)

    @enable_ki_protection
    def end_block(self) -> None:
        """The map's block is over."""
        super().end_block()

    @enable_ki_protection
    def close(self) -> None:
        """Refuse new starts, and tell who waits to make one."""
        super().close()


async def _raise(error: BaseException) -> None:
    raise error


def _reason_to_go_up(run: TrioRun, rest: BaseException) -> str:
    if is_cancellation(rest):
        return ENCLOSING_SCOPE
    return f"{task_text(run.name, run.operation)} raised {error_text(rest)}"
