"""The thread backend: begins, cancels and ends runs in threads and pools, and owns the timer.

One re-entrant lock guards the scheduler. It is held for a few steps of our own code. The only
code of the user's under it is ``__hash__`` and ``__eq__`` of names and the clock's ``now``, and no
other lock is acquired under it. A signal handler or a finalizer that interrupts its owner finds
the lock owned by its own thread, and is refused or postponed. A thread that waits registers under
the lock, in the step that found a reason to wait, and sleeps outside the lock. Nothing relies on
the GIL: all shared data is under the lock, except the hand-overs of the thread pool and the event
bus, which have rules of their own.

Functions run in three kinds of places. The map's *own threads*, and the user's pools of threads,
run our code: a body begins under the lock, so a run that was cancelled before does not begin. Any
*other pool* does not report when a body begins. There a run begins when it is submitted, and can
be cancelled after that only if the pool reports cancellations reliably.
"""

# ruff: noqa: SLF001 - the lock of `threading`, and the futures of this package

from __future__ import annotations

import contextvars
import inspect
import math
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from types import FrameType
from typing import Any, TypeVar, final

import namedtasks._base as _base
from namedtasks._base import WaitCondition, Waits
from namedtasks._context import running_in
from namedtasks._decisions import NO_EFFECTS, Effects, IfBusy, StartAction
from namedtasks._errors import ClosedError
from namedtasks._event_bus import EventBus
from namedtasks._executors import (
    PoolJob,
    PoolOrFactory,
    is_in_process,
    log_failed_submit,
    pool_of,
    submit,
)
from namedtasks._logging import log_error
from namedtasks._observations import Mark
from namedtasks._scheduler import Scheduler
from namedtasks._state import Run, RunStatus
from namedtasks._thread_pool import LINGERS, MonotonicClock, ThreadPool, get_ident, make_daemon
from namedtasks._threads.future import DONE, TaskFuture
from namedtasks._threads.sigint import PLACES, SHARED, Place, critical, deferred_sigint, get_frame
from namedtasks._validation import (
    begin_tb_at,
    coroutine_error,
    error_text,
    remove_tb_frames,
    task_text,
)
from namedtasks.abc import Clock

T = TypeVar("T")

VERB = "submit()"
CURE = "use namedtasks.asyncio.open_task_map() or, on trio, namedtasks.open_task_map()"
"""The method and the cure in the error for an async function."""

REENTERED = (
    "this call interrupts another call of a task map in the same thread (in a signal handler, a "
    "__del__, a name's __eq__, or a pool that runs functions inside submit()): only close(), the "
    "cancel methods and the methods that only read are allowed there"
)

_DELIVERY = "the delivery of events"
"""The name of that step in the log, if it fails."""

_MOST_EVENTS = 1_000
"""The number of events that a caller of a map delivers before it leaves the rest to the next."""

_SUCCEEDED, _ADMITTED, _BEGUN = RunStatus.SUCCEEDED, RunStatus.ADMITTED, RunStatus.BEGUN

_submitting: dict[int, list[Callable[[], object]]] = {}
"""The threads that are inside the `submit` of a pool or inside `Thread.start`, by their ids, each
with its postponed calls. Both acquire locks that a thread must not acquire twice."""


_REAL_CLOCK = MonotonicClock()
"""The clock of the timeouts of futures, with every clock of the map."""


def check_threading_is_as_imported() -> None:
    """Check that the functions of `threading` were not replaced after the import.

    Locks and thread-local objects of both kinds do not work together: one thread would find the
    data of another.

    Raises:
        RuntimeError: gevent, or a library like it, has replaced them.
    """
    if threading.get_ident is not get_ident:
        raise RuntimeError(
            "the functions of threading were replaced after namedtasks was imported: "
            "call gevent.monkey.patch_all(), or a similar function, before you import namedtasks"
        )


@final
class WaitQueue(dict[threading.Lock, None]):
    """The threads that wait for one thing, each on its own lock. Under the map's lock."""

    __slots__ = ()

    def unpark_all(self) -> None:
        """Wake all threads that wait now."""
        while self:
            try:
                self.popitem()[0].release()
            except RuntimeError:  # its clock has released it, too
                continue


def _make_wake() -> threading.Lock:
    """Return a lock for the calling thread to wait on."""
    wake = threading.Lock()
    wake.acquire()
    return wake


class _Here(threading.local):
    runs: _Runs | None = None
    """The run that the calling thread works for, and the outer runs: in a pool that runs functions
    inside `submit`, a run is inside another one."""
    telling: tuple[ThreadBackend, ...] = ()
    """The maps whose instruments or callbacks the thread is calling."""


_here = _Here()

_Runs = tuple["ThreadRun", Any]
"""A run, and the earlier value of `_Here.runs`."""


@final
class ThreadRun(Run):
    """A run with its state in threads and pools."""

    status = RunStatus.ADMITTED
    record = cancelled_at = followers = waiters = None

    joined: list[TaskFuture[Any]] | None = None
    """The futures of the starts that joined the run."""
    job: PoolJob | Future[Any] | None = None
    """The job in a pool, which may cancel it."""
    in_pool: bool = False
    """True if it is in a pool that does not report when a body begins, so it may have begun."""
    is_claimed: bool = False
    """True if a thread is about to end the run: no other thread may cancel it as not begun."""
    is_future_cancelled: bool = False
    """True if `TaskFuture.cancel` has ended the run."""

    def __init__(
        self,
        backend: ThreadBackend,
        name: Hashable,
        operation: str | None,
        fn: Callable[..., object],
        args: tuple[object, ...],
        executor: PoolOrFactory | None,
        timeout: float,
    ) -> None:
        # Without the base's __init__, whose call and attributes cost 0.3 us of the 4 of a run. The
        # class has the defaults, above.
        self.backend, self.name, self.operation, self.timeout = backend, name, operation, timeout
        scheduler = backend.scheduler
        self.semaphore = scheduler.thread_slots if executor is None else scheduler.slots
        self.fn: Any = fn
        self.args: tuple[object, ...] = args
        self.executor: PoolOrFactory | None = executor
        self.context: Any = contextvars.copy_context()
        self.handle: TaskFuture[Any] | None = TaskFuture(self)

    @property
    def has_run(self) -> bool:
        """True if its body is known to have begun."""
        return self.started_at is not None and not self.in_pool

    def end_attempt(self) -> None:
        """Reset the state of one attempt, because another one follows."""
        super().end_attempt()
        self.job = None
        self.in_pool = self.is_claimed = False

    def is_in_attempt(self, attempt: int) -> bool:
        """Return whether the attempt with this number has not ended."""
        return not self.done and self.attempt == attempt

    def drop_body(self) -> None:
        """Drop the parts of a body that begins elsewhere, or never."""
        self.fn = self.context = None
        self.args = ()


@final
class ThreadBackend:
    """The state that a `ThreadTaskMap` and its futures share."""

    defers_sigint = True

    def __init__(self, scheduler: Scheduler[ThreadRun], clock: Clock) -> None:
        self.scheduler: Scheduler[ThreadRun] = scheduler
        self.clock: Clock = clock
        self.now: Callable[[], float] = clock.now
        self.lock: Any = threading.RLock()
        self.waits: Waits[ThreadRun, WaitQueue] = Waits(scheduler, self.now, WaitQueue, _complete)
        self.pool: ThreadPool[ThreadRun] = ThreadPool("namedtasks", self.work, _start_thread)
        self.block_done: bool = False
        """True once the map's block is done."""
        self.ends_when_idle: bool = False
        """True once the map's block is done: the map closes with its last run. Also once it is
        closed, if an instrument gets told of its end."""
        self.postponed: deque[Callable[[], object]] = deque()
        """The postponed calls, which have interrupted a call of this map in the same thread."""
        self._callbacks = 0
        """The number of threads that call callbacks of futures."""
        self._has_timer = False
        self._timer_due = math.inf
        self._timer_queue = WaitQueue()

    # Calls from the map

    def refuse_inside(self) -> None:
        """Check that the caller has not interrupted a call of the map, or a thread's start.

        Raises:
            RuntimeError: it has.
        """
        if self.lock._is_owned() or _postponed_here() is not None:
            raise RuntimeError(REENTERED)

    @critical
    def look(self, look: Callable[[], T]) -> T:
        """Return the result of *look*, called under the lock: the state of one moment."""
        try:
            with self.lock:
                return look()
        finally:
            self.after_call(get_frame(1))

    def call(self, verb: Callable[[], T]) -> T:
        """Call *verb*, unless the caller has interrupted a call of the map."""
        try:
            self.refuse_inside()
            return verb()
        finally:
            self.after_call()

    def call_or_postpone(self, verb: Callable[[], T], answer: T) -> T:
        """Call *verb*, or postpone it if the caller has interrupted a call of the map."""
        if self.lock._is_owned():
            self.postponed.append(verb)
        elif (postponed := _postponed_here()) is not None:
            postponed.append(partial(self.call, verb))
        else:
            return self.call(verb)
        return answer

    def after_call(self, frame: FrameType | None = None) -> None:
        """Make the calls that have interrupted this one, and raise a deferred Ctrl-C.

        The *frame* is a frame that is not critical; by default the direct caller's.
        """
        try:
            while self.postponed and not self.lock._is_owned():
                self.postponed.popleft()()
        finally:
            if deferred_sigint.pending:
                deferred_sigint.deliver(frame or get_frame(1))

    # Starting

    @critical
    def submit(  # noqa: C901 - calls would cost more
        self, run: ThreadRun, if_busy: IfBusy, since: Mark | None = None
    ) -> TaskFuture[Any] | None:
        """Start *run*, or resolve its conflict as *if_busy* says."""
        if self.lock._is_owned() or _submitting:
            self.refuse_inside()
        if (run.timeout != math.inf or if_busy == "queue" or run.retry) and not self._has_timer:
            self._start_timer()
        scheduler = self.scheduler
        future, effects, error, begins, event = run.handle, NO_EFFECTS, None, False, None
        action = StartAction.ADMIT
        try:
            with self.lock:
                holder: Any = scheduler.find_conflict(run.name, run.operation, self.now, since)
                if holder is None:
                    holder = run
                    scheduler.admit(run, self.now)
                    begins = run.status is _ADMITTED  # read now: it may get its slot after this
                else:
                    action, error = scheduler.resolve(
                        holder, run.name, run.operation, if_busy, self.now
                    )
                if action is StartAction.DEFER:
                    effects = scheduler.defer(run, if_busy, self.now())
                    self.waits.note_ended(*effects.dropped)
                elif if_busy == "join" and error is None:
                    if action is StartAction.JOIN:
                        holder = scheduler.run_to_join(run.name)
                    joined: Any = TaskFuture[Any](holder)
                    joined._is_joined = True
                    holder.joined = [*(holder.joined or ()), joined]
                    future = joined
                elif action is not StartAction.ADMIT:
                    future = run.handle = None
                if action is not StartAction.ADMIT and scheduler.events.direct:
                    event = scheduler.events.take_direct()
            if not begins:
                pass
            elif run.executor is None:
                self.pool.submit(run)
            else:
                self._submit_to_pool(run, run.executor)
        except BaseException as failed:
            if self._roll_back(run) or not isinstance(failed, Exception):
                raise
            log_failed_submit(failed)
        if action is not StartAction.ADMIT:
            if event is not None:
                self._tell(_DELIVERY, scheduler.events.call_direct, event)
            _base.apply_effects(self, effects)
        if action is not StartAction.REFUSE or error is None:
            return future
        try:
            raise error
        finally:
            del error  # no cycle through the traceback

    @critical
    def _roll_back(self, run: ThreadRun) -> bool:
        """Undo the admission of *run*; return False if it has begun or ended in spite of the error.

        A pool queues a job before it starts a thread, so another thread may have taken the job.
        """
        with self.lock:
            if run.done or run.has_run or run.attempt:
                return False
            if self.scheduler.running.get(run.name) is not run:
                return True
            effects = self.scheduler.roll_back(run, self.now)
            run.in_pool = False
            run.started_at = None
            self.waits.note_ended(run, *effects.dropped)
        _base.apply_effects(self, effects, run)
        return True

    @critical
    def spawn(self, run: ThreadRun) -> BaseException | None:
        """Submit *run* to its pool, or return the error for which it never begins."""
        postponed = _postponed_here()
        if postponed is not None:
            postponed.append(partial(_base.apply_effects, self, Effects((run,))))
            return None
        attempt = run.attempt
        if run.retry:
            with self.lock:
                if run.status is not _ADMITTED:  # it was cancelled meanwhile
                    return None
                run.fn, run.args, context = run.source
                run.context = context.copy()  # each attempt has its own
        try:
            if run.executor is None:
                self.pool.submit(run)
            else:
                self._submit_to_pool(run, run.executor)
        except BaseException as error:
            with self.lock:
                # As in `_roll_back`.
                is_claimed = run.is_in_attempt(attempt) and not run.has_run
                if is_claimed:
                    run.is_claimed = True
                    return error
            if not run.done or run.has_run:  # else it was cancelled meanwhile
                log_failed_submit(error)
        return None

    @critical
    def _submit_to_pool(self, run: ThreadRun, executor: PoolOrFactory) -> None:
        attempt = run.attempt
        pool = executor if isinstance(executor, Executor) else _call_user_code(pool_of, executor)
        job: PoolJob | Future[Any]
        if is_in_process(pool):
            job = _call_submit(pool.submit, self._work_in_pool, [(run, attempt)])
        else:
            with self.lock:
                if run.done:
                    return
                fn, args, context = run.fn, run.args, run.context
                run.in_pool = True
                run.drop_body()
                if self.scheduler.events.direct:
                    run.context = context  # until it begins
            lost = {
                "lost": partial(self.note_lost_worker, run, attempt),
                "overdue_after": run.overdue_after,
            }
            end = partial(self._end_by, run, attempt, fn)
            job = _call_submit(submit, pool, fn, args, end, **lost)
        with self.lock:
            if run.is_in_attempt(attempt) and not run.is_claimed:
                run.job = job
        if isinstance(job, Future):  # the callback ends a run whose body the pool has dropped
            job.add_done_callback(partial(self._end_by, run, attempt, None))
        if run.in_pool:
            self._begin(run, attempt)
        # It has ended already, or was cancelled meanwhile.
        if not run.is_in_attempt(attempt) or run.cancelled_at is not None:
            job.cancel()

    # Running

    @critical
    def work(self, run: ThreadRun, attempt: int | None = None) -> None:
        """Run *run* in the calling thread, from beginning to end. Raises nothing.

        Does nothing if *attempt* is not the current one, because a pool may keep an old job.
        """
        if not self._begin(run, attempt):
            return
        fn, args, context = run.fn, run.args, run.context
        run.fn = run.context = None  # not `drop_body`, whose call would double the cost
        run.args = ()
        here = _here
        around = here.runs
        here.runs = (run, around)
        try:
            run.value = context.run(_call_body, run, fn, args)
        except BaseException as error:
            # From the body's frame on, because the run refers to the error: no cycle.
            error = remove_tb_frames(error, _OUR_FRAMES)
            del fn, args, context
            _base.finish_run(self, run, error)
            del error
        else:
            with self.lock:
                effects = self.scheduler.finish(run, _SUCCEEDED, self.now)
                self.waits.note_end(run)
                if effects is not NO_EFFECTS:
                    self.waits.note_ended(*effects.dropped)
            if (
                effects is not NO_EFFECTS
                or run.handle is not None
                or self.scheduler.timers.changed
                or self.scheduler.events.queued
                or self.postponed
                or self.ends_when_idle
            ):
                _base.apply_effects(self, effects, run)
        finally:
            here.runs = around
            del run, around  # an error's traceback leads to this frame

    @critical
    def _begin(self, run: ThreadRun, attempt: int | None = None) -> bool:
        """Note that the body of *run* begins; return False if it must not begin any more."""
        scheduler = self.scheduler
        with self.lock:
            if run.status is not _ADMITTED or (run.is_claimed and not run.in_pool):
                return False
            if attempt is not None and run.attempt != attempt:
                return False
            event, context = None, run.context
            if run.in_pool:
                run.context = None  # it was kept for this event only
            if scheduler.begin(run, self.now()) and scheduler.events.direct:
                event = scheduler.events.take_direct()
                if event is not None and run.in_pool:  # before the event of its end is queued
                    scheduler.events.queue_in(context, event, run)
                    event = None
        if event is not None:
            self._tell(_DELIVERY, context.run, scheduler.events.call_direct, event)
        if scheduler.timers.changed or scheduler.events.queued:
            self.finished()
        return True

    def _work_in_pool(self, box: list[tuple[ThreadRun, int]]) -> None:
        """Run the run in *box*: the pool's frames keep only the box, and not the run."""
        # If this is the submitter's thread, the body counts as outside the submit.
        mark = _submitting.pop(get_ident(), None) if _submitting else None
        try:
            self.work(*box.pop())
        finally:
            if mark is not None:
                _submitting[get_ident()] = mark

    @critical
    def _end_by(
        self, run: ThreadRun, attempt: int, fn: Callable[..., object] | None, future: Future[Any]
    ) -> None:
        """End an *attempt* of *run* with its pool's *future*, unless our code has ended it.

        The pool runs *fn*; None if it runs our code.
        """
        with self.lock:
            if not run.is_in_attempt(attempt):
                if run.done:
                    run.job = None  # no cycle
                return
            run.job = None
            run.is_claimed = True
        around = _here.runs
        _here.runs = (run, around)
        try:
            if future.cancelled():
                with self.lock:
                    reason = "it was taken back from its pool"
                    self.scheduler.request_cancel(run, reason, self.now())
                _base.finish_run(self, run, None, cancelled=True)
                return
            if run.in_pool:
                self._begin(run, attempt)  # the submitter may not have noted it yet
            error = future.exception()
            if error is None:
                run.value = future.result()
                error = coroutine_error(VERB, fn, run.value, CURE)
            else:
                begin_tb_at(error, fn)
            _base.finish_run(self, run, error)
        finally:
            _here.runs = around

    @critical
    def note_lost_worker(self, run: ThreadRun, attempt: int | None = None) -> None:
        """Ask *run* to stop, because its pool has lost a worker, in this *attempt* if given."""
        attempt = run.attempt if attempt is None else attempt
        self._begin(run, attempt)  # the submitter may not have noted it yet
        with self.lock:
            self.scheduler.note_lost_worker(run, self.now(), attempt)
        self.finished()

    # Acting for the scheduler

    def can_drop(self, run: ThreadRun) -> bool:
        """Return whether the body of *run* can be kept from beginning. Under the lock."""
        return run.status < _BEGUN and not run.in_pool and not run.is_claimed

    def interrupt(self, run: ThreadRun) -> None:
        """Cancel the job of *run* in a pool, if possible; a thread checks by itself."""
        if run.in_pool and run.job is not None:
            run.job.cancel()

    def discard(self, run: ThreadRun) -> None:
        """Drop the parts of the body of *run*, which never begins."""
        run.drop_body()
        run.source = None
        if run.job is not None:
            run.job.cancel()

    def timeout_error(self, message: str) -> Exception:
        """Return the error of a run that its own deadline has stopped."""
        return TimeoutError(message)

    @critical
    def finished(self, *ended: ThreadRun) -> None:
        """Complete the futures of runs that have *ended*, set the timer, deliver events."""
        for run in ended:
            run.source = None
            if run.handle is not None:
                with self.lock:
                    futures = [one for one in (run.handle, *(run.joined or ())) if one is not None]
                    run.handle = run.joined = None
                self._publish(run, futures, has_ended=True)
        if self.scheduler.timers.changed:
            self._set_timer()
        if self.scheduler.events.queued:
            most = math.inf if _here.runs is not None else _MOST_EVENTS
            self._tell(_DELIVERY, self.scheduler.events.deliver, most)
        if self.postponed:
            self.after_call()
        if self.ends_when_idle:
            self._end_if_idle()

    @critical
    def _end_if_idle(self) -> None:
        """Close the map if its block is done, and tell the instruments, if nothing runs."""
        with self.lock:
            if self.block_done and not self.scheduler.closed and self.until_told() is None:
                _base.mark_closed(self)
            _base.note_closed(self)
        self._tell(_DELIVERY, self.scheduler.events.deliver)

    @critical
    def _join_instruments(self) -> None:
        """Wait until the instruments know of the map's end, if it is closed and idle."""
        if self.scheduler.events.closing and self not in _here.telling:
            self._end_if_idle()
            self.scheduler.events.join(_check_sigint)

    @critical
    def _publish(self, run: ThreadRun, futures: list[Any], *, has_ended: bool) -> None:
        """Complete *futures* of *run*, wake the callers that wait, and call the callbacks."""
        with self.lock:
            self._callbacks += 1
            for future in futures:
                if future._made_condition is None:
                    future._write()
            futures = [future for future in futures if future._made_condition is not None]
        for future in futures:
            future._publish()
        with self.lock:
            if has_ended:
                self.waits.ending.pop(run, None)
            self.waits.wake(run)
        for future in futures:
            what = f"a callback of the future of {task_text(future.name, future.operation)}"
            for callback in future._done_callbacks:
                self._tell(what, _call_user_code, callback, future)
        with self.lock:
            self._callbacks -= 1
            self.waits.wake()

    @critical
    def _tell(self, what: str, fn: Callable[..., object], *args: object) -> None:
        """Call instruments or a callback, and log an error."""
        outer, _here.telling = _here.telling, (*_here.telling, self)
        try:
            fn(*args)
        except BaseException as error:
            log_error(f"{what} failed", error)
        finally:
            _here.telling = outer

    @critical
    def cancel_future(self, future: Any) -> bool:
        """Cancel the run of *future* if its body has not begun; return whether it was.

        A future that shares the run only leaves the run.
        """
        if self.lock._is_owned():
            raise RuntimeError(REENTERED)
        run: Any = future._run
        effects: Effects[ThreadRun] = NO_EFFECTS
        if self.scheduler.forked:
            return False
        with self.lock:
            if future.done() or future._has_left or run.done:
                is_cancelled = run.status is RunStatus.CANCELLED
                return (
                    future.cancelled()
                    or future._has_left
                    or (is_cancelled and future._is_cancelled_with(run))
                )
            if run.joined is not None and future in run.joined:
                run.joined.remove(future)
                future._has_left = True
            elif self.can_drop(run):
                run.is_future_cancelled = True
                effects = self.scheduler.drop(run, None, self.now())
                self.waits.note_ended(*effects.dropped)
        if future._has_left:
            self._publish(run, [future], has_ended=False)
            return True
        if effects is not NO_EFFECTS:
            _base.apply_effects(self, effects)
            return True
        job = run.job
        if not run.in_pool or job is None:
            return False
        run.is_future_cancelled = True  # first, because a pool may report it at once
        if not job.cancel():
            run.is_future_cancelled = False
            return False
        return True

    # The timer

    @critical
    def _start_timer(self) -> None:
        """Start the timer's thread, unless it runs.

        Raises:
            RuntimeError: no thread can be started.
        """
        with self.lock:
            if self._has_timer:
                return
            self._has_timer = True
        try:
            _start_thread(make_daemon("namedtasks: the map's timer", self._keep_time))
        except BaseException:
            self._note_no_timer()
            raise

    @critical
    def _set_timer(self) -> None:
        """Wake the timer's thread if something is due before the thread wakes by itself."""
        postponed = _postponed_here()
        if postponed is not None:
            postponed.append(self._set_timer)
            return
        with self.lock:
            self.scheduler.timers.changed = False
            due = self.scheduler.timers.next_due()
            if due is None and self._timer_due != math.inf:
                self._timer_queue.unpark_all()  # otherwise it would sleep for nothing
            if due is None or due >= self._timer_due:
                return
            self._timer_queue.unpark_all()
        try:
            self._start_timer()
        except Exception as error:
            self.scheduler.timers.changed = True  # the next call tries again
            # From Python 3.12 on, no thread can be started at the interpreter's exit.
            if threading.main_thread().is_alive():
                what = (
                    "no thread can be started for a map's timer: overdue runs are not reported, "
                    "and pending runs are delayed until one can be started and the map is used "
                    "again"
                )
                log_error(what, error)

    def _keep_time(self) -> None:
        """Do what is due, until nothing is due for some time."""
        try:
            while self._sleep_until_due():
                _base.run_due(self)
        except BaseException as error:  # the clock's, as a rule
            self._note_no_timer()
            log_error("a map's timer has failed; the next change of a timer starts it again", error)

    @critical
    def _sleep_until_due(self) -> bool:
        """Sleep until something is due; return False if nothing is due for some time."""
        wake = _make_wake()
        with self.lock:
            due = self.scheduler.timers.next_due()
            self._timer_due = math.inf if due is None else due
            self._timer_queue[wake] = None
        stays = True
        if due is not None:
            self.clock.wait(wake, due)
        else:
            stays = not self.pool.closed and wake.acquire(timeout=LINGERS)
        with self.lock:
            self._timer_queue.pop(wake, None)
            if not stays and self.scheduler.timers.next_due() is None:
                self._note_no_timer()
                return False
        return True

    @critical
    def _note_no_timer(self) -> None:
        with self.lock:
            self._has_timer = False
            self._timer_due = math.inf

    # Waiting

    @critical
    def wait(
        self, condition: Callable[[], WaitCondition[WaitQueue] | None], deadline: float = math.inf
    ) -> bool:
        """Wait until there is no *condition* any more; return False if the *deadline* came first.

        The step that finds the condition also registers the thread, so the condition cannot end
        unnoticed in between.
        """
        if self.scheduler.timers.changed:  # no thread could be started for the timer
            self._set_timer()
        wake = _make_wake()
        while True:
            with self.lock:
                found = condition()
                if found is None or self.now() >= deadline:
                    return found is None
                found.queue[wake] = None
            try:
                _sleep(self.clock, wake, min(found.until, deadline))
            finally:
                with self.lock:
                    found.queue.pop(wake, None)

    @critical
    def wait_free(self, name: Hashable, operation: str | None, deadline: float) -> bool:
        """Wait until a start of *name* has no conflict."""
        with self.lock:
            holders = self.scheduler.find_holders(name)
        for run in holders:
            self.refuse_inside_run(run, "wait_free()")
        try:
            return self.wait(lambda: self.waits.until_free(name, operation), deadline)
        finally:
            with self.lock:
                self.waits.leave(name)

    def _refuse_to_wait_for_itself(self, run: Any, verb: str) -> None:
        """Check that this thread runs neither *run* nor the run that it is queued behind."""
        self.refuse_inside_run(run, f"{verb} of its own future")
        holder = self.scheduler.holder_before(run)
        if holder is not None:
            self.refuse_inside_run(holder, f"{verb} of a run that is queued behind it")

    @critical
    def wait_for_future(  # noqa: C901 - one check after the other
        self, future: Any, verb: str, timeout: float | None
    ) -> None:
        """Wait until *future* is done, at most *timeout* seconds."""
        if self.lock._is_owned() or _submitting:
            self.refuse_inside()
        run: Any = future._run
        if _here.runs is not None:
            self._refuse_to_wait_for_itself(run, verb)
        if self.scheduler.timers.changed:  # no thread could be started for the timer
            self._set_timer()
        until = math.inf if timeout is None else _REAL_CLOCK.now() + timeout
        wake = threading.Lock()
        wake.acquire()
        try:
            while True:
                with self.lock:
                    if future._state in DONE:
                        return
                    if self.scheduler.forked:
                        raise ClosedError(run.name, run.operation, True)
                    if run.waiters is None:
                        run.waiters = WaitQueue()
                    run.waiters[wake] = None
                _sleep(_REAL_CLOCK, wake, until)
                if future._state in DONE or (timeout is not None and _REAL_CLOCK.now() >= until):
                    return
        finally:
            if future._state not in DONE and run.waiters is not None:
                with self.lock:
                    run.waiters.pop(wake, None)
            if self.postponed or deferred_sigint.pending:
                self.after_call(get_frame(1))  # this frame is critical

    @critical
    def shutdown(self, seconds: float) -> tuple[Hashable, ...]:
        """Wait *seconds* for the runs of a closed map, and cancel the rest."""
        if not self.wait(self.waits.until_idle, self.now() + seconds):
            _base.cancel_names(self, _base.all_names(self), "the map is shutting down")
            overdue_after = self.scheduler.overdue_after
            if not self.wait(self.waits.until_idle, self.now() + overdue_after):
                _base.run_due(self)  # the runs become overdue at this very moment
                # The timer's thread may be delivering them, and a program that ends stops it.
                self.scheduler.events.join(_check_sigint)
        self._dismiss_threads()
        self._join_instruments()
        return tuple(self.scheduler.running.copy())

    def until_told(self) -> WaitCondition[WaitQueue] | None:
        """Return the condition that keeps the map from being idle with all callbacks called."""
        if self._callbacks:
            return WaitCondition(self.waits.idle, math.inf)
        return self.waits.until_idle()

    def refuse_inside_map(self, verb: str) -> None:
        """Check that *verb* would not wait for its caller.

        Raises:
            RuntimeError: the caller is inside a task of the map, or interrupts a call of it.
        """
        self.refuse_inside()
        if any(run.backend is self for run in _runs_here()):
            raise _base.waits_for_its_map(verb)

    def refuse_inside_run(self, run: Run, verb: str) -> None:
        """Check that *verb* would not wait for its caller.

        Raises:
            RuntimeError: the caller is inside *run*.
        """
        if any(one is run for one in _runs_here()):
            raise _base.waits_for_its_run(run, verb)

    def refuse_block(self) -> None:
        """Check that the end of the block would not wait for its caller.

        Raises:
            RuntimeError: the caller is inside a task of the map, interrupts a call of it, or is
                inside a callback or an instrument that the map is calling.
        """
        self.refuse_inside_map("the end of the map's block")
        if self in _here.telling:
            raise RuntimeError(
                "inside a callback of a future, or an instrument, of the same map, the end of the "
                "map's block would wait for that call itself: leave the block elsewhere"
            )

    # Leaving the block

    @critical
    def leave(self, exc: BaseException | None) -> None:
        """Leave the block, which has raised *exc*, or None.

        Raises:
            BaseException: the error of a signal handler during the wait, mostly Ctrl-C.
        """
        if self.scheduler.forked:
            return
        self.block_done = self.ends_when_idle = True
        raised = exc
        try:
            _base.drain(self)
            try:
                if exc is None:
                    self.wait(self.until_told)
            except BaseException as interrupt:
                raised = interrupt
            if raised is not None:
                self.scheduler.stopping = True
                reason = f"the map's block raised {error_text(raised)}"
                _base.cancel_names(self, _base.all_names(self), reason)
                self.wait(self.until_told)
            self.scheduler.events.join(_check_sigint)
            if raised is not exc and raised is not None:
                raise raised
        finally:
            del raised, exc  # no cycle through the traceback
            _base.close(self)
            self._dismiss_threads()
            self._join_instruments()

    @critical
    def _dismiss_threads(self) -> None:
        """Make the idle threads of the map exit, now and from now on."""
        self.pool.close()
        with self.lock:
            self._timer_queue.unpark_all()


def _complete(run: ThreadRun) -> bool:
    """Complete the future of *run*, which has ended, unless that needs a Condition."""
    future: Any = run.handle
    if run.joined is not None or future is None or future._made_condition is not None:
        return False
    future._write()
    run.handle = run.source = None
    return True


def _runs_here() -> Iterator[ThreadRun]:
    """Yield the runs of the calling thread that have not ended, the innermost first."""
    runs = _here.runs
    while runs is not None:
        run, runs = runs
        if run.status is _BEGUN:
            yield run


def _postponed_here() -> list[Callable[[], object]] | None:
    """Return the list of postponed calls if this thread is inside a pool's submit; else None."""
    return _submitting.get(get_ident()) if _submitting else None


@critical
def _call_submit(fn: Callable[..., T], *args: Any, **options: Any) -> T:
    """Call *fn*, the `submit` of a pool or `Thread.start`.

    They acquire locks that their thread must not acquire again, and a signal handler or a
    finalizer may interrupt them. So inside the call the starts of this thread are refused, and
    calls that would start something are postponed.
    """
    me = get_ident()
    is_outermost = me not in _submitting
    try:
        _submitting.setdefault(me, [])
        return _call_interruptibly(fn, *args, **options)
    finally:
        if is_outermost:
            for call in _submitting.pop(me, ()):
                call()


def _call_interruptibly(fn: Callable[..., T], *args: Any, **options: Any) -> T:
    return fn(*args, **options)


def _start_thread(thread: threading.Thread) -> None:
    _call_submit(thread.start)


# Functions that call code of the user's, or sleep. Ctrl-C may interrupt them.


def _call_body(run: ThreadRun, fn: Callable[..., object], args: tuple[object, ...]) -> object:
    running_in.set(run)
    try:
        value = fn(*args)
        if value is not None:
            error = coroutine_error(VERB, fn, value, CURE)
            if error is not None:
                raise error
        return value
    finally:
        error = None
        del run, fn, args  # an error's traceback leads to this frame


def _call_user_code(fn: Callable[..., T], *args: Any) -> T:
    return fn(*args)


def _sleep(clock: Clock, wake: threading.Lock, until: float) -> None:
    if deferred_sigint.pending:
        deferred_sigint.deliver()
    clock.wait(wake, until)


def _check_sigint() -> None:
    if deferred_sigint.pending:
        deferred_sigint.deliver()


_OUR_FRAMES = frozenset({_call_body.__code__})
"""The frames between the place where a body's error is caught and the body."""

PLACES[_call_interruptibly.__code__] = Place.SUBMIT
PLACES[_call_body.__code__] = PLACES[_call_user_code.__code__] = Place.USER_CODE
PLACES[EventBus.call.__code__] = Place.USER_CODE
PLACES[_sleep.__code__] = PLACES[_check_sigint.__code__] = Place.SLEEP
SHARED.update(
    fn.__code__
    for fn in vars(_base).values()
    if inspect.isfunction(fn) and fn.__code__.co_varnames[:1] == ("backend",)
)
