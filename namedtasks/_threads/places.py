"""Where runs run: has them begin in threads and pools, and hears of their ends.

Three kinds of place. The map's *own threads*, and a pool of threads of
somebody's, run our code: a body begins under the guard, so one that was cancelled
before never does. Any *other pool* does not tell when a body begins: there a run
has begun when it was handed over, and can be cancelled after that only if the
pool can be believed.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, final

from namedtasks import _pools
from namedtasks._core.callables import coroutine_error
from namedtasks._core.frames import without_our_frames
from namedtasks._log import complain
from namedtasks._thread_pool import Job, ThreadPool
from namedtasks._threads import turnstile
from namedtasks._threads.interrupts import uninterrupted
from namedtasks._threads.run import CURE, OUR_FRAMES, VERB, ThreadRun

if TYPE_CHECKING:
    from namedtasks._threads.shell import Shell


@final
class Places:
    """The places of one map. None of its methods is called under the guard."""

    __slots__ = ("_own_threads", "_shell")

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._own_threads = ThreadPool("namedtasks", self._start_thread)

    def close(self) -> None:
        """Let go of the map's own threads: there is nothing for them to do any more."""
        self._own_threads.close()

    def _start_thread(self, thread: threading.Thread) -> None:
        turnstile.enter(self._shell)
        try:
            thread.start()
        finally:
            turnstile.leave()

    # Handing over, and beginning

    def hand_over(self, run: ThreadRun) -> BaseException | None:
        """Have *run* run in its place; inside the turnstile, and `after_hand_over` follows.

        Returns:
            What was raised; then it never runs.
        """
        try:
            if run.pool is None:
                job = Job(functools.partial(self._run, [run]), functools.partial(self._refuse, run))
                self._own_threads.submit(job)
            else:
                self._submit_to(_pools.pool_of(run.pool), run)
        except BaseException as error:
            return error if self._take_over_unbegun(run) else None
        return None

    def _submit_to(self, pool: Executor, run: ThreadRun) -> None:
        if _pools.is_in_process(pool):
            ended = functools.partial(self.end_by, run, None)
            job = _pools.submit(pool, self._run, ([run],), ended)
        else:
            with self._shell.guard:
                if run.done:
                    return
                fn, args = run.fn, run.args
                run.handed_over = True
                run.let_go()
            assert fn is not None
            job = _pools.submit(
                pool,
                fn,
                args,
                functools.partial(self.end_by, run, fn),
                lost=functools.partial(self._note_lost_worker, run),
                overdue_after=run.overdue_after,
            )
        with self._shell.guard:
            is_over = run.done
            if not is_over:
                run.job = job
        if is_over:  # cancelled meanwhile, or as quick as that
            job.cancel()

    def after_hand_over(self, run: ThreadRun) -> None:
        """Say that *run* has begun if its pool does not; not inside the turnstile."""
        if run.handed_over:
            self._begin(run)
            if run.stop_asked_at is not None:  # too early for who asked to reach the job
                self.take_back(run)

    def _note_lost_worker(self, run: ThreadRun) -> None:
        self._begin(run)  # the worker may be lost before `after_hand_over`
        run.note_lost_worker()

    def take_back(self, run: ThreadRun) -> bool:
        """Take *run* back from a pool that does not tell when a body begins; whether it was."""
        job = run.job
        return run.handed_over and job is not None and job.cancel()

    def _begin(self, run: ThreadRun) -> bool:
        """The body of *run* begins, or is known to be about to; False if it must not any more."""
        shell = self._shell
        with shell.guard:
            is_lost = run.is_taken_over and not run.handed_over  # its submitter was told so
            if run.done or run.started_at is not None or is_lost:
                return False
            shell.engine.begin(run, shell.now())
            watch = bool(shell.engine.timers)
        if not run.handed_over:
            # Not under the guard: who is in a method of the future has its lock, and a
            # signal handler may ask for the guard there.
            run.futures[0].set_running_or_notify_cancel()
        if watch:
            shell.alarm.update()
        shell.deliver()
        return True

    # Running here

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
            self._shell.end(run, error, stopped=False)
        finally:
            del error, run

    # Ending what does not run here, or never ran

    def _refuse(self, run: ThreadRun, error: BaseException) -> None:
        """There is no thread for *run*, of which its submitter does not know."""
        if self._take_over(run):
            self._shell.end(run, error, stopped=False)

    def _take_over_unbegun(self, run: ThreadRun) -> bool:
        """The same for one that was not handed over; False also if it has begun all the same.

        A pool takes a job into its line before it starts a thread. If that fails, another
        thread may have come for the job.
        """
        with self._shell.guard:
            if run.started_at is not None and not run.handed_over:
                return False
        return self._take_over(run)

    def _take_over(self, run: ThreadRun) -> bool:
        """Take care that nobody else ends *run* as one not begun; False if it has ended."""
        with self._shell.guard:
            if run.done:
                return False
            run.is_taken_over = True
            return True

    def end_by(self, run: ThreadRun, fn: Callable[..., object] | None, future: Future[Any]) -> None:
        """End *run* by its pool's future, unless it was run by us and has ended.

        Args:
            run: The run.
            fn: What the pool was given; None for a pool of threads, which was given our code.
            future: What the pool made of it.
        """
        if not self._take_over(run):
            return
        run.enter_thread()
        try:
            self._end_by_pool(run, fn, future)
        finally:
            run.leave_thread()

    def _end_by_pool(
        self, run: ThreadRun, fn: Callable[..., object] | None, future: Future[Any]
    ) -> None:
        shell = self._shell
        if future.cancelled():
            with uninterrupted:
                with shell.guard:
                    shell.engine.ask_to_stop(run, "it was taken back from its pool", shell.now())
                shell.end(run, None, stopped=True)
            return
        if run.handed_over:
            self._begin(run)  # it may end before who handed it over could say so
        error = future.exception()
        if error is None:
            value = future.result()
            error = coroutine_error(VERB, fn, value, CURE, complain)
            if error is None:
                run.value = value
        shell.end(run, error, stopped=False)
