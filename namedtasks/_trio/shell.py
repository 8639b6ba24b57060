"""Starts, cancels and ends runs, and wakes who waits: all that the trio map does.

The invariants:

1. A name is in the ledger from its admission until `_ended`, and each admitted
   run gets there exactly once: by `_finish`, `_drop_unbegun`, or a roll-back in
   `start`. No code of the user's can prevent that.
2. A name is freed, then its waiters are woken, then the next run begins, then
   the instruments hear of it; there is no checkpoint between.
3. Everything here runs protected from Ctrl-C, and the bodies do not.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Hashable, Iterable
from threading import get_ident
from typing import Any, final

import trio
from trio.lowlevel import ParkingLot, current_task, enable_ki_protection

from namedtasks._core.engine import Engine
from namedtasks._core.errors import ClosedError, RefusedError
from namedtasks._core.ledger import Closed
from namedtasks._core.records import Record
from namedtasks._core.slots import Slots
from namedtasks._core.text import error_text, repr_of, seconds_text, task_text
from namedtasks._current import running_in
from namedtasks._log import complain
from namedtasks._trio.callables import body_of
from namedtasks._trio.handle import TaskHandle
from namedtasks._trio.overdue import OverdueWatch
from namedtasks._trio.run import (
    TrioRun,
    is_cancellation,
    parted,
    unprotected,
    without_our_frames,
)

ENCLOSING_SCOPE = "an enclosing cancel scope was cancelled"
"""Why a run was cancelled that nobody of this map's cancelled."""


@final
class Shell:
    """The state that a `TaskMap` and its handles share."""

    __slots__ = (
        "_is_going_up",
        "_overdue",
        "_thread",
        "_thread_limiter",
        "block_done",
        "changed",
        "engine",
        "now",
        "nursery",
        "overdue_after",
        "token",
        "waiting_for",
    )

    def __init__(
        self, engine: Engine[TrioRun], nursery: trio.Nursery, overdue_after: float
    ) -> None:
        self.engine: Engine[TrioRun] = engine
        self.nursery: trio.Nursery = nursery
        self.overdue_after: float = overdue_after
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self.token: trio.lowlevel.TrioToken = trio.lowlevel.current_trio_token()
        self._thread_limiter = trio.CapacityLimiter(math.inf)  # the slots do the limiting
        self.changed: ParkingLot = ParkingLot()
        """Who waits for the map to be idle or empty."""
        self.waiting_for: dict[Hashable, ParkingLot] = {}
        """Who waits for a name's wait to be over; who waits for its run, waits with the run."""
        self.block_done: bool = False
        """Whether the ``async with`` block is over: the map closes with its last run."""
        self._is_going_up = False
        self._overdue = OverdueWatch(self)
        self._thread = get_ident()

    # Starting

    @enable_ki_protection
    def start(
        self,
        name: Hashable,
        async_fn: Callable[..., object],
        args: tuple[object, ...],
        *,
        slots: Slots[TrioRun],
        skip: bool,
        timeout: float,
        operation: str | None,
    ) -> TaskHandle[Any] | None:
        """Admit a run and see to it that it begins; None if it was refused and may be skipped."""
        self.check_thread()
        now = self.now()
        obstacle = self.engine.ledger.obstacle(name, operation, now)
        if obstacle is not None:
            self._refuse(obstacle, name, operation, now, skip=skip)
            return None
        run = TrioRun(name, operation, timeout, slots, self.now)
        handle: TaskHandle[Any] = TaskHandle(self, run)
        run.handle = handle
        self.engine.admit(run, now)
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
            self._ended(run, self.engine.roll_back(run, self.now()))
            raise
        return handle

    def check_thread(self) -> None:
        """Whether the caller is in the map's own thread.

        Raises:
            RuntimeError: it is not.
        """
        if get_ident() != self._thread:
            raise RuntimeError(
                "a task map is used from its own thread only: from another one call post(), "
                "or trio.from_thread.run_sync()"
            )

    def _refuse(
        self,
        obstacle: TrioRun | Record | Closed,
        name: Hashable,
        operation: str | None,
        now: float,
        *,
        skip: bool,
    ) -> None:
        error = self.engine.refuse(obstacle, name, operation, now, skip=skip)
        self.engine.dispatch.deliver()
        if error is not None:
            raise error

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
            error = without_our_frames(caught)
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
        failure, rest = (None, None) if error is None else parted(error)
        if rest is not None:
            self.go_up(_reason_to_go_up(run, rest))
        try:
            following = self._settle(run, failure, rest)
        except BaseException as broken:  # the user's code, in a way that nobody thought of
            complain(f"the end of {task_text(run.name, run.operation)} went wrong", broken)
            following = self._settle_somehow(run, broken)
        self._ended(run, following)
        if rest is not None:
            try:
                raise rest
            finally:
                del error, failure, rest, run

    def _settle(
        self, run: TrioRun, failure: BaseException | None, rest: BaseException | None
    ) -> TrioRun | None:
        """Tell the engine how the run ended."""
        now = self.now()
        stopped = failure is None and rest is None and not run.returned
        if stopped or run.heeded(failure):
            if not run.timed_out():
                return self.engine.cancelled(run, now)
            failure = trio.TooSlowError(
                f"it took longer than its timeout of {seconds_text(run.timeout)}"
            )
        if failure is not None:
            run.returned = False
            run.error = failure
            return self.engine.failed(run, self.engine.judge(run, failure), now)
        if rest is None:
            return self.engine.succeeded(run, now)
        run.returned = False
        if is_cancellation(rest):
            run.reason = run.reason or ENCLOSING_SCOPE
            return self.engine.cancelled(run, now)
        run.error = rest
        return self.engine.escaped(run, rest, now)

    def _settle_somehow(self, run: TrioRun, broken: BaseException) -> TrioRun | None:
        """Free the name, whatever else is broken: the first invariant."""
        run.returned = False
        run.error = run.error or broken
        return None if run.done else self.engine.escaped(run, run.error, self.now())

    def _ended(self, run: TrioRun, following: TrioRun | None) -> None:
        """Whatever comes after the end of a run, in the order of the second invariant."""
        run.handle = None
        if run.waiters is not None:
            run.waiters.unpark_all()
        if not self.engine.ledger.running:
            self.changed.unpark_all()
        if following is not None and following.body is not None:
            self._spawn(following)
        if not self.engine.timers:
            self._overdue.update()
        self.engine.dispatch.deliver()
        self.close_if_over()

    # Stopping

    @enable_ki_protection
    def cancel(self, run: TrioRun, reason: str | None) -> bool:
        """Ask *run* to stop; tell whether it had not ended."""
        self.check_thread()
        if reason is not None and not isinstance(reason, str):
            raise TypeError(f"reason must be a str or None, not {repr_of(reason)}")
        if not self.engine.ask_to_stop(run, reason, self.now()):
            return False
        if not run.has_slot:
            self._drop_unbegun(run)
            return True
        if run.scope is not None:
            run.scope.cancel(reason)
        self._overdue.update()
        return True

    def cancel_each(self, runs: Iterable[TrioRun], reason: str | None) -> int:
        """Ask *runs* to stop, those that wait for a slot first, so that none of them gets one."""
        wanted = sorted(runs, key=lambda run: run.has_slot)
        return sum([self.cancel(run, reason) for run in wanted])

    def cancel_all(self, reason: str | None) -> int:
        """Ask all runs to stop."""
        return self.cancel_each(list(self.engine.ledger.running.values()), reason)

    def go_up(self, reason: str) -> None:
        """Something goes up through the map: ask all runs to stop, the first time."""
        if not self._is_going_up:
            self._is_going_up = True
            self.cancel_all(reason)

    def _drop_unbegun(self, run: TrioRun) -> None:
        run.close_body()
        run.context = None
        self._ended(run, self.engine.cancelled(run, self.now()))

    @enable_ki_protection
    def mark_overdue(self) -> None:
        """Mark and tell which runs did not stop for all too long."""
        self.engine.mark_overdue(self.now())
        self.engine.dispatch.deliver()

    @enable_ki_protection
    def forget(self, name: Hashable, operation: str | None) -> bool:
        """Drop failures of *name*, and wake who waited for them to lapse."""
        self.check_thread()
        found = self.engine.forget(name, operation, self.now())
        if found:
            lot = self.waiting_for.get(name)
            if lot is not None:
                lot.unpark_all()
            self.changed.unpark_all()
            self.engine.dispatch.deliver()
        return found

    # Closing

    @enable_ki_protection
    def close(self) -> None:
        """Refuse new starts, and tell who waits to make one."""
        self.check_thread()
        self.engine.ledger.closed = True
        for lot in self.waiting_for.values():
            lot.unpark_all()
        for run in self.engine.ledger.running.values():
            if run.waiters is not None:
                run.waiters.unpark_all()

    def close_if_over(self) -> None:
        """Close with the last run after the block, as the nursery does."""
        if self.block_done and not self.engine.ledger.running and not self.engine.ledger.closed:
            self.close()

    async def wait_for_runs(self) -> None:
        """At the end of the block: wait until nothing runs. Not a checkpoint if nothing does."""
        while self.engine.ledger.running:
            await self.changed.park()


async def _raise(error: BaseException) -> None:
    raise error


def _reason_to_go_up(run: TrioRun, rest: BaseException) -> str:
    if is_cancellation(rest):
        return ENCLOSING_SCOPE
    return f"{task_text(run.name, run.operation)} raised {error_text(rest)}"
