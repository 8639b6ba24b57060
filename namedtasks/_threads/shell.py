"""Starts, stops and ends runs in threads and pools: `Conductor` has the rules.

What is known of a run's place is in `Places`, who is told of it in `Telling`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, cast, final

from namedtasks import _pools
from namedtasks._core import checks
from namedtasks._core.conductor import Admission
from namedtasks._core.engine import Engine
from namedtasks._core.pending import IfBusy
from namedtasks._core.turns import NOTHING, Turn
from namedtasks._threads import turnstile
from namedtasks._threads.alarm import Alarm
from namedtasks._threads.future import TaskFuture
from namedtasks._threads.interrupts import uninterrupted
from namedtasks._threads.locking import REENTERED, check_threading_is_as_imported
from namedtasks._threads.places import Places
from namedtasks._threads.run import ThreadRun
from namedtasks._threads.telling import Telling

if TYPE_CHECKING:
    from namedtasks.abc import Clock


@final
class Shell(Telling):
    """The state that a `ThreadTaskMap` and its futures share."""

    __slots__ = ("alarm", "places")

    def __init__(self, engine: Engine[ThreadRun], clock: Clock) -> None:
        super().__init__(engine, clock)
        self.places: Places = Places(self)
        self.alarm: Alarm = Alarm(self)

    # Starting

    def submit(
        self,
        name: Hashable,
        fn: Callable[..., object],
        args: tuple[object, ...],
        *,
        pool: _pools.PoolOrFactory | None,
        if_busy: IfBusy,
        timeout: float,
        operation: str | None,
    ) -> TaskFuture[Any] | None:
        """Admit a run and see to it that it begins; None if it was refused and may be skipped."""
        check_threading_is_as_imported()
        if turnstile.is_inside(self):
            raise RuntimeError(REENTERED)
        slots = self.engine.thread_slots if pool is None else self.engine.slots
        is_inside = False
        mirror: TaskFuture[Any] | None = None

        def make_run() -> ThreadRun:
            nonlocal is_inside, mirror
            run = ThreadRun(self, name, operation, timeout, slots, fn, args, pool)
            run.handle = TaskFuture(run)
            run.futures = [run.handle]
            if if_busy == "join":  # the first of those who share it is no more than the others
                mirror = self._mirror(run)
            is_inside = True
            turnstile.enter(self)
            return run

        with uninterrupted:
            error: BaseException | None = None
            try:
                admission = self._admit(name, operation, make_run, if_busy)
                if admission is not None and admission.begins:
                    error = self._begin_submitted(admission.run)
            finally:
                if is_inside:
                    turnstile.leave()
            if admission is None:
                return None
            if error is not None:
                self._roll_back(admission.run)
                try:
                    raise error
                finally:
                    del error, admission  # no cycle through the traceback
            if admission.begins:
                self.places.after_hand_over(admission.run)
            elif admission.accepted is not None:
                self._make_way(admission.accepted)
        return mirror or cast("TaskFuture[Any]", admission.handle)

    def _admit(
        self,
        name: Hashable,
        operation: str | None,
        make_run: Callable[[], ThreadRun],
        if_busy: IfBusy,
    ) -> Admission[ThreadRun] | None:
        with self.guard:
            if self.engine.ledger.is_unknown(name, operation):
                run = make_run()
                self.engine.admit_unknown(run)
                return Admission(run, begins=run.has_slot, handle=run.handle)
        return super()._admit(name, operation, make_run, if_busy)

    def _join(self, run: ThreadRun) -> Admission[ThreadRun]:
        return Admission(run, is_joined=True, handle=self._mirror(run))

    def _mirror(self, run: ThreadRun) -> TaskFuture[Any]:
        """A future for one who shares *run*: who cancels it does nothing to the run."""
        mirror: TaskFuture[Any] = TaskFuture(run, is_mirror=True)
        run.futures.append(mirror)
        return mirror

    def _put_off(self, run: ThreadRun) -> Admission[ThreadRun]:
        # In the same step: else a newer start could come in between, and be replaced by this one.
        return Admission(run, is_put_off=True, handle=run.handle, accepted=self._accepted(run))

    def _begin_submitted(self, run: ThreadRun) -> BaseException | None:
        """Begin *run* for its submitter, inside the turnstile; what went wrong, if it did."""
        if turnstile.is_outermost():
            return self.places.hand_over(run)
        turnstile.defer(self, lambda: self._begin_late(run))  # as this thread hands over another
        return None

    def _begin_soon(self, run: ThreadRun) -> BaseException | None:
        if turnstile.defer(self, lambda: self._begin_late(run)):
            return None
        turnstile.enter(self)
        error = self.places.hand_over(run)
        turnstile.leave()
        if error is None:
            self.places.after_hand_over(run)
        return error

    def _begin_late(self, run: ThreadRun) -> None:
        error = self._begin_soon(run)
        if error is not None:
            self.end(run, error, stopped=False)

    # Ending

    def end(self, run: ThreadRun, error: BaseException | None, *, stopped: bool) -> None:
        """End *run* by what came out of its body."""
        with uninterrupted:
            if error is not None or stopped or not self._ended_plainly(run):
                super().end(run, error, stopped=stopped)

    def _ended_plainly(self, run: ThreadRun) -> bool:
        """The same for a value, with a short cut for what most runs come to; whether it was so."""
        with self.guard:
            if not self.engine.succeeded_plainly(run):
                return False
            self._woken(NOTHING, run)
        self._tell(run)
        if self.engine.ledger.records.order:
            self._sweep()
        return True

    def _sweep(self) -> None:
        """Give memory back, when all is told: the clock may raise."""
        try:
            with self.guard:
                self.engine.ledger.records.sweep(self.now())
        except BaseException as error:
            self._complain("the clock of a task map raised", error)

    def _too_slow(self, text: str) -> Exception:
        return TimeoutError(text)

    # Stopping

    def _is_unbegun(self, run: ThreadRun) -> bool:
        return run.started_at is None and not run.handed_over and not run.is_taken_over

    def _let_go(self, run: ThreadRun) -> None:
        run.let_go()
        if run.job is not None:
            run.job.cancel()

    def _stop(self, run: ThreadRun) -> None:
        # A thread asks for itself, with check_cancelled(). A job that waits in a pool may be had.
        self.places.take_back(run)

    def _timers_changed(self) -> None:
        self.alarm.update()

    def cancel_unbegun(self, run: ThreadRun) -> bool:
        """Cancel *run* if its body has not begun; whether it has been."""
        turn: Turn[ThreadRun] | None = None
        with uninterrupted:
            with self.guard:
                if run.done:  # its future may not know yet
                    return run.started_at is None and run.error is None
                if run.put_off is not None or self._is_unbegun(run):
                    turn = self._woken(self._cancel_unbegun(run, None))
            if turn is not None:
                self._carry_out(turn)
                return True
            return self.places.take_back(run)

    def cancel(self, run: ThreadRun, reason: str | None) -> bool:
        """Ask *run* to stop; tell whether it had not ended."""
        with uninterrupted:
            return super().cancel(run, reason)

    def on_time(self) -> None:
        """Do what is due."""
        with uninterrupted:
            super().on_time()

    def forget(self, name: Hashable, operation: str | None) -> bool:
        """Drop failures of *name*, and wake who waited for them to lapse."""
        with uninterrupted:
            return super().forget(name, operation)

    # What may be called from inside of a call, by a signal handler or a __del__

    def is_mine(self) -> bool:
        """Whether this thread is inside of the map's guard."""
        return self._guard.is_mine()

    def close(self) -> None:
        """Refuse new starts; done later if this thread is inside of the map."""
        if self.is_mine():
            self._guard.when_left(self.close)
            return
        with uninterrupted:
            super().close()

    def cancel_all(self, reason: str | None) -> int:
        """Ask all runs to stop; done later if this thread is inside of the map."""
        checks.reason(reason)
        if self.is_mine():
            self._guard.when_left(lambda: self.cancel_all(reason))
            return 0
        return super().cancel_all(reason)
