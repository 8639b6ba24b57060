"""Starts, cancels and ends runs in trio's way: `Conductor` has the rules.

Two more, beside those of the conductor: between the end of a body and all that
comes of it there is no checkpoint; and everything here runs protected from
Ctrl-C, the bodies do not.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Hashable
from threading import get_ident
from types import CoroutineType
from typing import Any, cast, final

import trio
from trio.lowlevel import TrioToken, disable_ki_protection, enable_ki_protection, in_trio_run

from namedtasks._core.callables import Words, check_body
from namedtasks._core.conductor import Conductor
from namedtasks._core.engine import Engine
from namedtasks._core.errors import ClosedError
from namedtasks._core.pending import IfBusy
from namedtasks._core.posts import Posts
from namedtasks._core.slots import Slots
from namedtasks._core.text import error_text, task_text
from namedtasks._core.turns import Turn
from namedtasks._daemons import make_daemon
from namedtasks._log import complain
from namedtasks._own_thread import OwnThread
from namedtasks._trio.alarm import Alarm
from namedtasks._trio.executors import call_in_thread
from namedtasks._trio.handle import TaskHandle
from namedtasks._trio.lots import Lot
from namedtasks._trio.run import TrioRun, is_cancellation
from namedtasks._trio.workers import Workers

WORDS = Words("start_soon", "start_thread_soon")
"""What the verbs are called, in what is said to who calls them wrongly."""

ENCLOSING_SCOPE = "an enclosing cancel scope was cancelled"
"""Why a run was cancelled that nobody of this map's cancelled."""


@final
class Shell(Conductor[TrioRun, Lot]):
    """The state that a `TaskMap` and its handles share."""

    __slots__ = (
        "_alarm",
        "_posts",
        "_stopped_because",
        "_thread_limiter",
        "_token",
        "nursery",
        "own_thread",
        "thread",
        "workers",
    )

    def __init__(self, engine: Engine[TrioRun], nursery: trio.Nursery, *, workers: bool) -> None:
        self._token: TrioToken = trio.lowlevel.current_trio_token()
        in_loop = self._token.run_sync_soon
        self.own_thread: OwnThread = OwnThread(
            "call post(), or trio.from_thread.run_sync()",
            is_here=self._is_here,
            undo=self._undo_start,
            call_soon=in_loop,
        )
        self.thread: int | None = get_ident()
        """The map's thread until its block is left: no other run of trio can be in it."""
        super().__init__(
            engine,
            now=trio.lowlevel.current_clock().current_time,
            make_lot=Lot,
            guard=self.own_thread,
            reads_freely=True,
            complain=complain,
        )
        self.nursery: trio.Nursery = nursery
        self.workers: Workers = Workers(self, nursery, reuse=workers)
        self._posts = Posts(
            wake=in_loop,
            complain=complain,
            let_out=self._raise_in_nursery,
        )
        self._thread_limiter = trio.CapacityLimiter(math.inf)  # the slots do the limiting
        self._alarm = Alarm(self)
        self._stopped_because: str | None = None

    def _is_here(self) -> bool:
        return get_ident() == self.thread or (
            in_trio_run() and trio.lowlevel.current_trio_token() is self._token
        )

    # Starting

    @enable_ki_protection
    def start(  # noqa: C901 - for speed
        self,
        name: Hashable,
        async_fn: Callable[..., object],
        args: tuple[object, ...],
        slots: Slots[TrioRun],
        if_busy: IfBusy,
        timeout: float,
        operation: str | None,
        seen_unknown: bool = False,
        run_type: type[TrioRun] = TrioRun,
    ) -> TaskHandle[Any] | None:
        """Admit a run and see to it that it begins; None if it was refused and may be skipped.

        Who has looked, and *seen* that the name is *unknown*, says so; see `Ledger.is_unknown`.
        """
        if get_ident() != self.thread:
            self.own_thread.check()
        is_put_off = False
        run: TrioRun | None = None
        try:
            if seen_unknown or self.engine.ledger.is_unknown(name, operation):
                run = run_type(name, operation, timeout, slots, self)
                self.engine.admit_unknown(run)
            else:
                admission = self._admit(
                    name,
                    operation,
                    lambda: run_type(name, operation, timeout, slots, self),
                    if_busy,
                )
                if admission is None:
                    return None
                if admission.is_joined:
                    return cast("TaskHandle[Any]", admission.handle)
                run, is_put_off = admission.run, admission.is_put_off
            handle: TaskHandle[Any] = TaskHandle(run)
            run.handle = handle
            body = _call_unprotected(async_fn, args)
            if type(body) is not CoroutineType:
                body = check_body(WORDS, async_fn, body)
            run.body = body
            if run.done:  # it was cancelled by its own function
                run.close_body()
            elif run.has_slot:
                self.workers.begin_soon(run)
            else:
                run.context = contextvars.copy_context()
        except BaseException:
            if run is not None:
                # Put down without a call: there may be no stack for one.
                self.own_thread.to_undo = run, self.own_thread.to_undo
                self.own_thread.undo()
            raise
        if is_put_off:
            self._accept(run)
        return handle

    def _undo_start(self, run: TrioRun) -> None:
        """Roll back a start that has raised."""
        run.close_body()
        if not (run.has_slot or run.place or run.put_off or run.done):
            run.slots.take(run)  # it came to the end of the stack when it was to get one
        self._roll_back(run)

    def post(self, start: Callable[..., object], args: tuple[Any, ...], kwargs: Any) -> None:
        """Have *start* called in the map's thread, in a copy of the caller's context.

        Raises:
            ClosedError: the map is known to be closed, or its trio run is over.
        """
        if not self.engine.ledger.closed:
            with contextlib.suppress(trio.RunFinishedError):
                self._posts.add(start, args, kwargs)
                return
        raise ClosedError(args[0], kwargs["operation"])

    def _raise_in_nursery(self, error: BaseException, _: str) -> None:
        self.nursery.start_soon(_raise, error, name="namedtasks: an exception on its way up")

    # Running

    async def run_in_thread(self, fn: Callable[..., object], *args: object) -> object:
        """The map's own executor: one of trio's threads, which other maps do not compete for."""
        task_name = trio.lowlevel.current_task().name
        try:
            return await trio.to_thread.run_sync(
                call_in_thread,
                fn,
                args,
                thread_name=f"{getattr(fn, '__name__', None)} from {task_name}",
                limiter=self._thread_limiter,
            )
        except RuntimeError:
            make_daemon("", fn)  # where it cannot be made, trio's could not, and this says why
            raise

    @enable_ki_protection
    def begin(self, run: TrioRun, scope: trio.CancelScope) -> None:
        """The body of *run* begins, inside of *scope*."""
        self.engine.begin(run, self.now())
        if run.timeout != math.inf:
            scope.deadline = run.deadline
        self._timers_changed()
        self.engine.dispatch.deliver()

    def finish(self, run: TrioRun, error: BaseException | None) -> None:
        """End a run by what came out of its body; *error* None means a cancellation.

        Raises:
            BaseException: what is no failure of the run's and goes on up.
        """
        run.worker = None
        run.close_body()  # if Ctrl-C came before it began
        failure, rest = (None, None) if error is None else run.failure_in(error)
        if rest is not None:
            self.stop_all(_reason_to_stop(run, rest))
        if failure is not None:
            self.end_failed(run, failure)
        elif rest is not None:
            self._end_by_what_goes_up(run, rest)
        else:
            self.end(run, None, stopped=True)
        if rest is not None:
            try:
                raise rest
            finally:
                del error, failure, rest, run

    def end_failed(self, run: TrioRun, error: BaseException) -> None:
        """End a run that has failed; waiters get *error*, all others its original."""
        original = run.original_of(error)
        self.end(run, original, stopped=False)
        if run.error is original:
            run.error = error

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
            context, run.context = run.context, None
            self.workers.begin_soon(run, context)
        return None

    def _tell(self, run: TrioRun) -> None:
        """Nothing is to be told: who waits for the handle waits for the run."""

    def _too_slow(self, text: str) -> Exception:
        return trio.TooSlowError(text)

    # Stopping

    def _is_unbegun(self, run: TrioRun) -> bool:
        return not run.has_slot

    def _let_go(self, run: TrioRun) -> None:
        run.close_body()
        run.context = None

    def _stop(self, run: TrioRun) -> None:
        if run.worker is not None:
            run.worker.scope.cancel(run.reason)

    def _timers_changed(self) -> None:
        timers = self.engine.timers
        if timers.changed:
            timers.changed = False
            self._alarm.update()

    def deliver(self) -> None:
        """Let the instruments hear what was noted."""
        self.engine.dispatch.deliver()

    def stop_all(self, reason: str) -> None:
        """Ask all runs to stop, the first time: something goes up through the map."""
        if self._stopped_because is None:
            self._stopped_because = reason
            self.cancel_all(reason)

    # Leaving

    async def wait_for_runs(self) -> None:
        """At the end of the block: wait until nothing runs. Not a checkpoint if nothing does."""
        while not self.is_idle():
            await self.quiet.park()

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


@disable_ki_protection
def _call_unprotected(async_fn: Callable[..., object], args: tuple[object, ...]) -> object:
    """Call the user's function where Ctrl-C may interrupt it."""
    return async_fn(*args)


async def _raise(error: BaseException) -> None:
    raise error


def _reason_to_stop(run: TrioRun, rest: BaseException) -> str:
    if is_cancellation(rest):
        return ENCLOSING_SCOPE
    return f"{task_text(run.name, run.operation)} raised {error_text(rest)}"
