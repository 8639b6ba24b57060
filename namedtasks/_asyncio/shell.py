"""Starts, cancels and ends runs in asyncio's way: `Conductor` has the rules.

Two more, beside those of the conductor:

1. A run ends in the last step of its Task's coroutine: the name is free, and the
   futures of the starts that joined it are done, when the Task is done. Without a
   task factory the coroutine is started up to a bare ``yield`` before the Task is
   made; so a Task that is cancelled before its first step has a last step, too.
   Where a task factory, or a tracer that has replaced the loop's ``create_task``,
   has put another coroutine around ours, which never awaited it, the run ends in the
   Task's first done-callback, one turn of the loop later. Where that coroutine goes on
   after ours, the run is in ``ending`` meanwhile.
2. A cancellation that asyncio has accepted but not delivered arrives before the
   last step. So a Task never says "cancelled" of a run that has ended with a value.
3. The Task's coroutine decides the meaning of a body's end, so that the Task can
   tell it: a body that its deadline has stopped raises `TimeoutError` there.
4. A run that ends while its Task waits for a turn or a slot is in ``ending`` until
   the Task is done: waits look there, too. No event of a run that has ended is
   delivered before its Task is done.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import types
from asyncio import CancelledError
from collections.abc import Callable, Generator, Hashable
from functools import partial
from typing import Any, cast, final

from namedtasks._asyncio.alarm import Alarm
from namedtasks._asyncio.joined import JoinedFuture, tell_joined
from namedtasks._asyncio.lots import Lot
from namedtasks._asyncio.run import AsyncioRun, is_ending
from namedtasks._core.callables import Body
from namedtasks._core.conductor import Admission, Conductor, too_slow_text
from namedtasks._core.engine import Engine
from namedtasks._core.errors import ClosedError
from namedtasks._core.groups import parted
from namedtasks._core.pending import IfBusy
from namedtasks._core.posts import Posts
from namedtasks._core.slots import Slots
from namedtasks._core.text import error_text, name_text, task_text
from namedtasks._core.turns import Turn
from namedtasks._current import running_in
from namedtasks._log import complain
from namedtasks._own_thread import OwnThread
from namedtasks._thread_pool import ThreadPool


@final
class Shell(Conductor[AsyncioRun, Lot]):
    """The state that a `TaskMap` and its runs share."""

    __slots__ = (
        "_alarm",
        "_posts",
        "_starts_first",
        "_stopped_because",
        "block",
        "block_was_cancelled",
        "going",
        "gone_up",
        "loop",
        "opened_in",
        "own_thread",
        "threads",
    )

    def __init__(self, engine: Engine[AsyncioRun], block: asyncio.Task[Any]) -> None:
        loop = asyncio.get_running_loop()
        self.own_thread: OwnThread = OwnThread(
            "call post(), or loop.call_soon_threadsafe()",
            is_here=lambda: asyncio._get_running_loop() is loop,  # noqa: SLF001 - does not raise
            undo=self._undo_start,
            call_soon=loop.call_soon,
        )
        super().__init__(
            engine,
            # Looked up at each call, as the loop itself does: freezegun replaces the method.
            now=lambda: loop.time(),  # noqa: PLW0108
            make_lot=partial(Lot, loop),
            guard=self.own_thread,
            reads_freely=True,
            complain=complain,
        )
        self.loop: asyncio.AbstractEventLoop = loop
        self.block: asyncio.Task[Any] = block
        """The Task that the map's block is in."""
        self.block_was_cancelled: bool = False
        """Whether the map has cancelled it, because of what goes up."""
        self.gone_up: list[BaseException] = []
        """What leaves the block, beside its own exception."""
        self.going: int = 0
        """The number of Tasks that are not done, or whose done-callback was not called yet."""
        opened_in = running_in.get(None)
        self.opened_in: AsyncioRun | None = opened_in if isinstance(opened_in, AsyncioRun) else None
        """The run, of another map or of this one's surroundings, that waits for the block."""
        self.threads: ThreadPool = ThreadPool("namedtasks")
        self._alarm = Alarm(self)
        self._starts_first: bool = True
        """True if coroutines are started before their Tasks are made; see the first rule."""
        self._stopped_because: str | None = None
        self._posts = Posts(
            wake=self._call_in_loop,
            complain=complain,
            let_out=self._raise_from_loop,
        )

    # Starting

    def start(  # noqa: C901 - one step after the other
        self,
        name: Hashable,
        make_body: Callable[[AsyncioRun], Body],
        *,
        slots: Slots[AsyncioRun],
        if_busy: IfBusy,
        timeout: float,
        operation: str | None,
    ) -> asyncio.Future[Any] | None:
        """Admit a run and make its Task; None if it was refused and may be skipped."""
        self.own_thread.check()
        if self.is_skipped(name, operation, if_busy):
            return None
        is_put_off = False
        shared: asyncio.Future[Any] | None = None
        run: AsyncioRun | None = None
        try:
            if self.engine.ledger.is_unknown(name, operation):
                run = AsyncioRun(self, name, operation, timeout, slots)
                self.engine.admit_unknown(run)
            else:
                admission = self._admit(
                    name,
                    operation,
                    lambda: AsyncioRun(self, name, operation, timeout, slots),
                    if_busy,
                )
                if admission is None:
                    return None
                if admission.is_joined:
                    return cast("asyncio.Future[Any]", admission.handle)
                run, is_put_off = admission.run, admission.is_put_off
            if if_busy == "join":
                shared = JoinedFuture(run, self.loop)
            run.body = make_body(run)
            task = self._make_task(run)
        except BaseException:
            if run is not None:
                # Put down without a call: there may be no stack for one.
                self.own_thread.to_undo = run, self.own_thread.to_undo
                self.own_thread.undo()
            raise
        if task.done():  # an eager one
            self._on_done(run, task)
        elif run.task is None:
            self._know(run, task)
        if is_put_off:
            self._accept(run)
        if self._stopped_because is not None:
            self.cancel(run, self._stopped_because)
        return task if shared is None else shared

    def _join(self, run: AsyncioRun) -> Admission[AsyncioRun]:
        return Admission(run, is_joined=True, handle=JoinedFuture(run, self.loop))

    def _undo_start(self, run: AsyncioRun) -> None:
        """Roll back a start that has raised."""
        run.close_body()
        if not (run.has_slot or run.place or run.put_off or run.done):
            run.slots.take(run)  # it came to the end of the stack when it was to get one
        self._roll_back(run)

    def _make_task(self, run: AsyncioRun) -> asyncio.Task[Any]:
        # Somebody else's coroutine around ours cannot await one that is started.
        is_started = self._starts_first and self.loop.get_task_factory() is None
        coroutine = run.driver = self._drive(run, is_started=is_started)
        try:
            if is_started:
                coroutine.send(None)
            task = self.loop.create_task(coroutine, name=name_text(run.name))
        except BaseException:
            run.driver = None
            coroutine.close()
            raise
        if is_started and task.get_coro() is not coroutine:
            # A tracer (ddtrace is one) has replaced `create_task` of the loop, and wraps.
            self._starts_first = False
            coroutine.close()
            task.cancel()  # it has not begun, and never will
            return self._make_task(run)
        return task

    def _know(self, run: AsyncioRun, task: asyncio.Task[Any]) -> None:
        """Note which Task is the run's; an eager one begins before its maker has it."""
        run.task = task
        self.going += 1
        if run.done:
            self.ending[run] = None
        else:
            run.handle = task
        task.add_done_callback(partial(self._on_done, run))

    def _know_current(self, run: AsyncioRun) -> None:
        """Note that the Task of *run*, an eager one, is the current one."""
        task = asyncio.current_task()
        assert task is not None
        task.set_name(name_text(run.name))
        self._know(run, task)

    def post(self, start: Callable[..., object], args: tuple[Any, ...], kwargs: Any) -> None:
        """Have *start* called in the map's thread, in a copy of the caller's context.

        Raises:
            ClosedError: the map is known to be closed, or its loop is.
        """
        if self.engine.ledger.closed:
            raise ClosedError(args[0], kwargs["operation"])
        try:
            self._posts.add(start, args, kwargs)
        except RuntimeError:
            if self.loop.is_closed():
                raise ClosedError(args[0], kwargs["operation"]) from None
            raise

    def _call_in_loop(self, fn: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(fn)

    def _raise_from_loop(self, error: BaseException, text: str) -> None:
        self.go_up(f"{text} raised {error_text(error)}", error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error

    # Running

    async def _drive(self, run: AsyncioRun, *, is_started: bool) -> object:
        """Run the body and end the run: the coroutine of a run's Task.

        Args:
            run: The run.
            is_started: Whether the coroutine is started before the Task is made.
        """
        try:
            if is_started:
                await _first_step()
            if not run.has_slot and not run.done:
                run.turn = self.loop.create_future()
                await run.turn
            self._begin(run)
            value = await run.take_body()
            run.disarm()
            if not run.is_elsewhere and run.is_cancel_requested():
                await asyncio.sleep(0)  # asyncio may have a cancellation to deliver
        except GeneratorExit:
            # The loop is gone, and this is garbage; if it is the body's own, `_on_done` sees to it.
            run.disarm()
            raise
        except BaseException as error:
            run.disarm()
            told = self._told(run, error)
            try:
                self._finish_in_task(run, told, is_started=is_started)
                if told is error:
                    raise
                raise told from error
            finally:
                del told  # no cycle through the error's traceback
        if not is_started:
            self._end_before_task(run)
        self.end_returned(run)
        if run.joined:
            tell_joined(run, None, value)
        return value

    def _end_before_task(self, run: AsyncioRun) -> None:
        """Add *run* to ``ending``: the coroutine of a task factory may go on in its Task."""
        if run.task is not None:
            self.ending[run] = None

    def _told(self, run: AsyncioRun, error: BaseException) -> BaseException:
        """What the Task says of a body that ended by *error*."""
        heeded = run.heeded(error)
        if (
            run.timed_out()
            if heeded
            else isinstance(error, CancelledError) and run.deadline_was_first
        ):
            return self._too_slow(too_slow_text(run))
        return _cancelled(run) if heeded else error

    def _begin(self, run: AsyncioRun) -> None:
        """Note that the body begins, in its Task.

        Raises:
            CancelledError: it is not to begin.
        """
        if run.task is None:
            self._know_current(run)
        if run.done or run.stop_asked_at is not None:
            raise _cancelled(run)  # no Task in this frame: it keeps the error, and so the frame
        run.driver = None
        running_in.set(run)
        self.engine.begin(run, self.now())
        if run.deadline != math.inf:
            run.deadline_timer = self.loop.call_at(
                run.deadline, self._on_deadline, run, context=contextvars.Context()
            )
            self._timers_changed()
        if self.engine.dispatch.listeners:
            self.deliver()

    def _on_deadline(self, run: AsyncioRun) -> None:
        run.deadline_timer = None
        run.deadline_was_first = not run.is_cancel_requested()
        self._interrupt(run, too_slow_text(run))

    # Ending

    def is_over(self) -> bool:
        """Whether nothing runs, nothing is pending, and no Task is on its way out."""
        return self.is_idle() and not self.going

    def _on_done(self, run: AsyncioRun, task: asyncio.Task[Any]) -> None:
        """End the run if its Task's coroutine has not; wake waits and deliver events.

        Called once the *task* is done.
        """
        if run.driver is not None or run.body is not None:
            run.close_driver()
            run.close_body()
        # This marks its exception as retrieved.
        error = CancelledError() if task.cancelled() else task.exception()
        if not run.done:
            self._end_without_last_step(run, error)
        if run.joined:
            tell_joined(run, error, task.result() if error is None else None)
        was_known, run.task = run.task is not None, None
        if run in self.ending:
            del self.ending[run]
            if run.waiters is not None:
                run.waiters.unpark_all()
            self.quiet.unpark_all()
        if self.engine.dispatch.listeners:
            self.deliver()
        # Only now: an instrument may start something, also after the end of the block.
        self.going -= was_known
        if self.is_over():
            self.quiet.unpark_all()
            self.close_if_over()

    def _end_without_last_step(self, run: AsyncioRun, error: BaseException | None) -> None:
        """End a run by the *error* of its Task, which is done and never awaited our coroutine."""
        if isinstance(error, CancelledError):
            self._end_cancelled(run)
        elif error is not None:
            self._finish(run, error)
        elif run.put_off is not None:
            self.cancel(run, None)
        else:
            self.end(run, None, stopped=False)

    def _end_cancelled(self, run: AsyncioRun) -> None:
        """End a run whose Task is cancelled, unless it has ended."""
        if run.put_off is not None:
            self.cancel(run, None)
        elif not run.done:
            self.end(run, None, stopped=True)

    def _finish(self, run: AsyncioRun, error: BaseException) -> None:
        """End a run that its Task will say ended by *error*."""
        if run.raised is not None:  # whatever an executor raises is a failure
            raised, run.raised = run.raised, None  # its frames lead back to the run
            self.end(run, raised, stopped=False)
            return
        if isinstance(error, CancelledError) and (run.done or run.is_cancel_requested()):
            self._end_cancelled(run)
            return
        # A cancellation that nobody requested is a failure, in a group, too.
        failure, rest = parted(error, (Exception, CancelledError))
        if rest is not None:
            self.go_up(f"{task_text(run.name, run.operation)} raised {error_text(rest)}", rest)
        if run.done:
            return  # it had not begun, and was dropped because of what goes up
        if run.put_off is not None:  # somebody else's coroutine around ours has not waited
            self.cancel(run, f"its task raised {error_text(error)}")
        elif failure is not None:
            self.end(run, failure, stopped=False)
        else:
            self._carry_out(self._settle_escaped(run, error), run)

    def _finish_in_task(self, run: AsyncioRun, error: BaseException, *, is_started: bool) -> None:
        """End a run in the last step of its Task's coroutine, which raises *error*."""
        if not is_started:
            self._end_before_task(run)
        self._finish(run, error)
        if run.joined:
            tell_joined(run, error)

    def _settle(
        self, run: AsyncioRun, error: BaseException | None, *, stopped: bool
    ) -> Turn[AsyncioRun]:
        """As the Task says: what a cancellation meant, its coroutine has decided."""
        if stopped:
            return self._settle_cancelled(run)
        if error is not None:
            return self._settle_failed(run, error)
        return super()._settle(run, None, stopped=False)

    def _begin_soon(self, run: AsyncioRun) -> BaseException | None:
        if run.turn is not None and not run.turn.done():
            run.turn.set_result(None)
        return None

    def _tell(self, run: AsyncioRun) -> None:
        run.error = None  # the Task keeps what its starter may want
        if run.task is None:  # it never had one, whose last step would do this
            tell_joined(run, CancelledError())

    def _too_slow(self, text: str) -> Exception:
        return TimeoutError(text)

    # Stopping

    def _is_unbegun(self, run: AsyncioRun) -> bool:
        return not run.has_slot

    def _let_go(self, run: AsyncioRun) -> None:
        run.close_body()
        if run.task is not None:
            self.ending[run] = None
        if run.turn is not None:
            run.turn.cancel(run.reason)

    def _stop(self, run: AsyncioRun) -> None:
        self._interrupt(run, run.reason)

    def _interrupt(self, run: AsyncioRun, why: str | None) -> None:
        if run.is_elsewhere:
            if run.job is not None:
                run.job.cancel()
        elif run.task is not None:
            run.task.cancel(why)

    def _timers_changed(self) -> None:
        timers = self.engine.timers
        if timers.changed:
            timers.changed = False
            self._alarm.update()

    def deliver(self) -> None:
        """Deliver the events up to the first one of a run whose Task is not done yet."""
        self.engine.dispatch.deliver(keep=is_ending)

    def close_if_over(self) -> None:
        """Close once the block is left, no Task is left and all events are delivered."""
        if self.block_done and self.is_over():
            self._close()

    def stop_all(self, reason: str) -> None:
        """Ask all runs to stop, the first time, and all that start from now on."""
        if self._stopped_because is None:
            self._stopped_because = reason
            self.cancel_all(reason)

    def go_up(self, reason: str, error: BaseException) -> None:
        """Have *error* leave the block, which is cancelled for it, as what runs is."""
        self.gone_up.append(error)
        self.stop_all(reason)
        if not self.block_done and not self.block_was_cancelled:
            self.block_was_cancelled = True
            self.block.cancel(reason)


@types.coroutine
def _first_step() -> Generator[None, None, None]:
    """Suspend the coroutine of a run until its Task takes its first step."""
    yield


def _cancelled(run: AsyncioRun) -> CancelledError:
    return CancelledError() if run.reason is None else CancelledError(run.reason)
