"""Starts, stops and ends runs in threads and pools: `Conductor` has the rules.

Three kinds of place to run in. The map's *own threads*, and a pool of threads of
somebody's, run our code: a body begins under the guard, so one that was cancelled
before never does. Any *other pool* does not tell when a body begins: there a run
has begun when it was handed over, and can be cancelled after that only if the
pool can be believed.
"""

from __future__ import annotations

import functools
import math
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, cast, final

from namedtasks import _pools
from namedtasks._core import checks
from namedtasks._core.conductor import Admission, Conductor
from namedtasks._core.dispatch import Noted
from namedtasks._core.engine import NOTHING, Engine, Turn
from namedtasks._core.frames import without_our_frames
from namedtasks._core.holds import Hold
from namedtasks._core.pending import IfBusy
from namedtasks._core.text import task_text
from namedtasks._log import complain
from namedtasks._thread_pool import Job, ThreadPool
from namedtasks._threads import turnstile
from namedtasks._threads.alarm import Alarm
from namedtasks._threads.future import TaskFuture
from namedtasks._threads.interrupts import uninterrupted
from namedtasks._threads.locking import REENTERED, Guard, Lot
from namedtasks._threads.run import OUR_FRAMES, ThreadRun

if TYPE_CHECKING:
    from namedtasks.abc import Clock


class _Heard(threading.local):
    """What the calling thread has to tell the instruments: each tells its own."""

    def __init__(self) -> None:
        self.noted: deque[Noted] = deque()
        self.runs: list[ThreadRun] = []
        """Of whom this thread is telling something."""
        self.is_telling = False


@final
class Shell(Conductor[ThreadRun, Lot]):
    """The state that a `ThreadTaskMap` and its futures share."""

    __slots__ = (
        "_guard",
        "_heard",
        "_own_threads",
        "_untold",
        "alarm",
        "clock",
        "told",
    )

    def __init__(self, engine: Engine[ThreadRun], clock: Clock) -> None:
        guard = Guard(self._take_events)
        super().__init__(
            engine, now=clock.now, make_lot=Lot, guard=guard, reading=guard, complain=complain
        )
        self._guard = guard
        self.clock: Clock = clock
        self.told: Lot = Lot()
        """Who waits until all that has ended is told, too."""
        self._untold = 0
        # Runs that have ended, and those that instruments are hearing of.
        self._heard = _Heard()
        self._own_threads = ThreadPool("namedtasks", self._start_thread)
        self.alarm = Alarm(self)

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
        if turnstile.is_inside(self):
            raise RuntimeError(REENTERED)
        slots = self.engine.threads if pool is None else self.engine.slots
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
                self._after_hand_over(admission.run)
            elif admission.accepted is not None:
                self._make_way(admission.accepted)
        return mirror or cast("TaskFuture[Any]", admission.handle)

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
            return self._hand_over(run)
        turnstile.defer(self, lambda: self._begin_late(run))  # as this thread hands over another
        return None

    def _begin_soon(self, run: ThreadRun) -> BaseException | None:
        if turnstile.defer(self, lambda: self._begin_late(run)):
            return None
        turnstile.enter(self)
        error = self._hand_over(run)
        turnstile.leave()
        if error is None:
            self._after_hand_over(run)
        return error

    def _begin_late(self, run: ThreadRun) -> None:
        error = self._begin_soon(run)
        if error is not None:
            self.end(run, error, stopped=False)

    def _hand_over(self, run: ThreadRun) -> BaseException | None:
        """Have *run* run in its place; if that raises, it never runs."""
        try:
            if run.pool is None:
                job = Job(functools.partial(self._run, [run]), functools.partial(self._refuse, run))
                self._own_threads.submit(job)
            else:
                self._submit_to(_pools.pool_of(run.pool), run)
        except BaseException as error:
            return error if self._take_over(run) else None
        return None

    def _start_thread(self, thread: threading.Thread) -> None:
        turnstile.enter(self)
        try:
            thread.start()
        finally:
            turnstile.leave()

    def _refuse(self, run: ThreadRun, error: BaseException) -> None:
        """There is no thread for *run*, of which its submitter does not know."""
        if self._take_over(run):
            self.end(run, error, stopped=False)

    def _take_over(self, run: ThreadRun) -> bool:
        """Take care that nobody else ends *run* as one not begun; False if it has ended."""
        with self.guard:
            if run.done:
                return False
            run.is_taken_over = True
            return True

    def _submit_to(self, pool: Executor, run: ThreadRun) -> None:
        def ended(future: Future[Any]) -> None:
            self._end_by(run, future)

        if _pools.is_in_process(pool):
            job = _pools.submit(pool, self._run, ([run],), ended)
        else:
            with self.guard:
                if run.done:
                    return
                fn, args = run.fn, run.args
                run.handed_over = True
                run.let_go()
            assert fn is not None
            job = _pools.submit(pool, fn, args, ended)
        with self.guard:
            is_over = run.done
            if not is_over:
                run.job = job
        if is_over:  # cancelled meanwhile, or as quick as that
            job.cancel()

    def _after_hand_over(self, run: ThreadRun) -> None:
        """Say that *run* has begun if its pool does not; not inside the turnstile."""
        if run.handed_over:
            self._begin(run)
            if run.stop_asked_at is not None:  # too early for who asked to reach the job
                self._stop(run)

    def _begin(self, run: ThreadRun) -> bool:
        """The body of *run* begins, or is known to be about to; False if it must not any more."""
        with self.guard:
            if run.done or run.started_at is not None:
                return False
            self.engine.begin(run, self.now())
            watch = bool(self.engine.timers)
        if not run.handed_over:
            # Not under the guard: who is in a method of the future has its lock, and a
            # signal handler may ask for the guard there.
            run.futures[0].set_running_or_notify_cancel()
        if watch:
            self.alarm.update()
        self.deliver()
        return True

    # Running

    def _run(self, box: list[ThreadRun]) -> None:
        """Run what is in *box* in the calling thread, from beginning to end. Raises nothing.

        A failure's traceback leads to the frame of the body, and that one on to all
        that called it, pools' own included. So none of them may keep the run, which
        keeps the failure: ours let go of it, and theirs only ever had the box.
        """
        run = box.pop()
        inside = turnstile.step_out()
        run.enter_thread()
        try:
            self._run_here(run)
        finally:
            run.leave_thread()
            turnstile.step_in(inside)
            del run

    def _run_here(self, run: ThreadRun) -> None:
        error: BaseException | None = None
        try:
            if not self._begin(run):
                return
            run.value = run.call()
        except BaseException as caught:
            error = without_our_frames(caught, OUR_FRAMES)
        try:
            self.end(run, error, stopped=False)
        finally:
            del error, run

    def _end_by(self, run: ThreadRun, future: Future[Any]) -> None:
        """End *run* by its pool's future, unless it was run by us and has ended."""
        if not self._take_over(run):
            return
        run.enter_thread()
        try:
            self._end_by_pool(run, future)
        finally:
            run.leave_thread()

    def _end_by_pool(self, run: ThreadRun, future: Future[Any]) -> None:
        if future.cancelled():
            with uninterrupted:
                with self.guard:
                    self.engine.ask_to_stop(run, "it was taken back from its pool", self.now())
                self.end(run, None, stopped=True)
            return
        if run.handed_over:
            self._begin(run)  # it may end before who handed it over could say so
        error = future.exception()
        if error is None:
            run.value = future.result()
        self.end(run, error, stopped=False)

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
            records = self.engine.ledger.records
            if records.order:
                records.sweep(self.now())
        self._tell(run)
        return True

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
                self._admit_unknown(run)
                return Admission(run, begins=run.has_slot, handle=run.handle)
        return super()._admit(name, operation, make_run, if_busy)

    def _woken(self, turn: Turn[ThreadRun], *ended: ThreadRun) -> Turn[ThreadRun]:
        self._untold += len(ended) + len(turn.dropped)
        return super()._woken(turn, *ended)

    def _tell(self, run: ThreadRun) -> None:
        """Tell the end of *run* to its futures, and to the instruments."""
        futures, run.futures, run.job = run.futures, [], None
        # Each run that ends comes here exactly once.
        has_begun = futures[0].running() or run.returned
        for future in futures:
            try:
                future._settle(has_begun=has_begun)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            except BaseException as error:  # no Exception: the future has caught those
                complain(f"a callback of the future of {_text(run)} failed", error)
        run.value = None
        self.deliver()
        with self.guard:
            self._count_told(1)

    def _count_told(self, number: int) -> None:
        """So many things were told of which `_untold` knew. Under the guard."""
        self._untold -= number
        if not self._untold:
            self._close_if_over()
            self.told.unpark_all()

    def close_if_over(self) -> None:
        """Close if nothing runs and nobody is being told who may start something yet."""
        with self.guard:
            self._close_if_over()

    def _close_if_over(self) -> None:
        if self.block_done and not self._untold and self.is_idle():
            self._close()

    def _too_slow(self, text: str) -> Exception:
        return TimeoutError(text)

    # Stopping

    def _is_unbegun(self, run: ThreadRun) -> bool:
        return run.started_at is None and not run.handed_over and not run.is_taken_over

    def _drop(self, run: ThreadRun) -> None:
        run.let_go()
        if run.job is not None:
            run.job.cancel()

    def _stop(self, run: ThreadRun) -> None:
        # A thread asks for itself, with check_cancelled(). A job that waits in a pool may be had.
        job = run.job
        if run.handed_over and job is not None:
            job.cancel()

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
            job = run.job
            return run.handed_over and job is not None and job.cancel()

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

    # Telling

    def _take_events(self) -> None:
        """The guard is about to be left: what this thread has noted, it will tell.

        But what is about a run of which another thread is just telling something,
        that one will tell, too: else it might be heard first.
        """
        for noted in self.engine.dispatch.take():
            run = noted[2]
            if not isinstance(run, ThreadRun):
                self._heard.noted.append(noted)
            elif run.untold is not None:
                run.untold.append(noted)
            else:
                run.untold = deque()
                self._untold += 1
                self._heard.runs.append(run)
                self._heard.noted.append(noted)

    def deliver(self) -> None:
        """Let the instruments hear what this thread has to tell."""
        heard = self._heard
        if heard.is_telling:  # an instrument calls the map
            self.engine.dispatch.deliver(heard.noted)
            return
        heard.is_telling = True
        try:
            while self._has_more(heard):
                self.engine.dispatch.deliver(heard.noted)
        finally:
            heard.is_telling = False

    def _has_more(self, heard: _Heard) -> bool:
        if not heard.noted and heard.runs:
            with self.guard:
                for run in heard.runs:
                    assert run.untold is not None
                    heard.noted.extend(run.untold)
                    run.untold.clear()
                if not heard.noted:
                    for run in heard.runs:
                        run.untold = None
                    self._count_told(len(heard.runs))
                    heard.runs.clear()
        return bool(heard.noted)

    # Waiting

    def wake_all(self) -> None:
        """Wake all who wait, for whatever it is: they look again. Under the guard."""
        self._wake_starters()
        self.changed.unpark_all()
        self.told.unpark_all()

    def hold_told(self) -> Hold[Lot] | None:
        """Keep a wait until nothing runs and all has been told."""
        return Hold(self.told, math.inf) if self._untold else self.hold_idle()

    # Leaving

    def release_threads(self) -> None:
        """Let go of the map's own threads: there is nothing for them to do any more."""
        self._own_threads.close()


def _text(run: ThreadRun) -> str:
    return task_text(run.name, run.operation)
