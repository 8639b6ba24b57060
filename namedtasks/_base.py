"""The part of a backend that is the same on asyncio, in threads and on trio.

A backend acts for the scheduler: it begins and interrupts bodies, completes futures and sets the
timer. The functions in this module that change a scheduler do so under the backend's lock. They
wake the waiters in the same step, and carry out the effects after that.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, Protocol, TypeVar, cast, final
from weakref import WeakSet

from namedtasks._any_task_map import AnyTaskMap
from namedtasks._decisions import Conflict, Effects, IfBusy, Overlapping, StartAction, refusal
from namedtasks._errors import ClosedError
from namedtasks._names import names_overlap
from namedtasks._observations import Mark, Observation
from namedtasks._scheduler import Scheduler
from namedtasks._state import FailureRecord, Run, RunStatus
from namedtasks._validation import safe_repr, seconds_text

T = TypeVar("T")
RunT = TypeVar("RunT", bound=Run)

_DEFERRED, _QUEUED = RunStatus.DEFERRED, RunStatus.QUEUED
_SUCCEEDED, _FAILED, _CANCELLED = RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED


# Waiting


class WaitQueue(Protocol):
    """The callers that wait for one thing; each dialect has its own kind."""

    def unpark_all(self) -> object:
        """Wake all that wait now."""
        ...

    def __len__(self) -> int: ...


QueueT = TypeVar("QueueT", bound=WaitQueue)


class WaitCondition(NamedTuple, Generic[QueueT]):
    """A reason to continue a wait: the caller looks again when it is woken, or at a time."""

    queue: QueueT
    until: float


@final
class Waits(Generic[RunT, QueueT]):
    """The conditions of the waits of one map, and the queues in which the callers wait.

    A wait gets its condition, sleeps in the queue, and gets the condition again, until there is
    none. All methods are called under the map's lock.
    """

    def __init__(
        self,
        scheduler: Scheduler[RunT],
        now: Callable[[], float],
        make_queue: Callable[[], QueueT],
        complete: Callable[[RunT], bool] | None = None,
    ) -> None:
        self._complete = complete
        """Completes the handle of a run that has ended; returns False to do it later."""
        self._scheduler = scheduler
        self._now = now
        self._make_queue = make_queue
        self.idle: QueueT = make_queue()
        """The callers that wait for the map to be idle or empty."""
        self.ending: dict[RunT, None] = {}
        """The runs that have ended, and whose Task or future is not done yet."""
        self.starters: dict[Hashable, QueueT] = {}
        """The callers that wait for the end of the backoff of a name."""

    def abandon(self) -> None:
        """Drop everything in a forked child, where no thread waits."""
        self.idle = self._make_queue()
        self.ending = {}
        self.starters = {}

    def until_idle(self) -> WaitCondition[QueueT] | None:
        """Return the condition that keeps the map from being idle; None if it is idle.

        Raises:
            ClosedError: the map was opened in the parent process.
        """
        if self._scheduler.forked:
            raise ClosedError(None, None, True)
        if self._scheduler.is_idle() and not self.ending:
            return None
        return WaitCondition(self.idle, math.inf)

    def until_ended(self) -> WaitCondition[QueueT] | None:
        """Return the condition of a Task or future that is not done, of a run that has ended."""
        return WaitCondition(self.idle, math.inf) if self.ending else None

    def until_empty(self) -> WaitCondition[QueueT] | None:
        """Return the condition that keeps the map from being empty; None if it is empty."""
        condition = self.until_idle()
        if condition is not None:
            return condition
        expiry = self._scheduler.records.next_expiry(self._now())
        return None if expiry is None else WaitCondition(self.idle, expiry)

    def until_free(self, name: Hashable, operation: str | None) -> WaitCondition[QueueT] | None:
        """Return the condition that prevents a start of *name*; None if it would be admitted.

        Raises:
            GaveUpError: the name gave up.
            ClosedError: the map is closed.
        """
        conflict = self._scheduler.find_conflict(name, operation, self._now)
        if conflict is None:
            for run in self.ending:
                if names_overlap(run.name, name):
                    return WaitCondition(self.waiters_of(run), math.inf)
            return None
        if isinstance(conflict, Overlapping):
            return WaitCondition(self.waiters_of(conflict.runs[0]), math.inf)
        if isinstance(conflict, Run):
            return WaitCondition(self.waiters_of(conflict), math.inf)
        if not isinstance(conflict, FailureRecord) or conflict.retry_at == math.inf:
            raise refusal(conflict, name, operation, self._now())
        queue = self.starters.get(name)
        if queue is None:
            queue = self.starters[name] = self._make_queue()
        return WaitCondition(queue, conflict.retry_at)

    def leave(self, name: Hashable) -> None:
        """Drop the queue of *name* if no caller waits in it any more."""
        queue = self.starters.get(name)
        if queue is not None and not len(queue):
            del self.starters[name]

    def waiters_of(self, run: RunT) -> QueueT:
        """Return the queue of the callers that wait for *run*."""
        if run.waiters is None:
            run.waiters = self._make_queue()
        return cast("QueueT", run.waiters)

    def note_end(self, run: RunT) -> None:
        """Complete the handle of *run*, which has ended, and wake the callers that wait."""
        if self._complete is not None and not self._complete(run):
            self.ending[run] = None  # its waiters are woken when the handle is complete
        elif run.waiters is not None:
            run.waiters.unpark_all()
        scheduler = self._scheduler
        if self.idle and not scheduler.running and not scheduler.pending:
            self.idle.unpark_all()

    def note_ended(self, *ended: RunT) -> None:
        """Call `note_end` for each run."""
        for run in ended:
            self.note_end(run)

    def note_attempt(self, run: RunT) -> None:
        """Wake the callers that wait for *run* after a failed attempt, so that they look again."""
        if run.waiters is not None:
            run.waiters.unpark_all()

    def wake(self, *ended: RunT) -> None:
        """Wake the callers that wait for the runs that have *ended*, and for an idle map."""
        for run in ended:
            if run.waiters is not None:
                run.waiters.unpark_all()
        if self._scheduler.is_idle():
            self.idle.unpark_all()

    def wake_starters(self) -> None:
        """Wake all callers that wait to start something."""
        for queue in self.starters.values():
            queue.unpark_all()
        scheduler = self._scheduler
        self.wake(*scheduler.running.values(), *scheduler.pending.values(), *self.ending)


def waits_for_its_map(verb: str) -> RuntimeError:
    """Return the error of a wait for the whole map inside one of its tasks."""
    return RuntimeError(
        f"inside a task of the same map, {verb} would wait for the task itself: "
        "call it outside the tasks of the map, or wait for single runs"
    )


def waits_for_its_run(run: Run, verb: str) -> RuntimeError:
    """Return the error of a wait for *run* inside it."""
    return RuntimeError(
        f"inside task {safe_repr(run.name)}, {verb} would wait for the task itself: "
        "call it outside the task"
    )


# Opening


class MapBlock:
    """The ``async with`` block of a map, with an error for each other way to use it.

    Args:
        opener: The call that returns the block, for the errors.
    """

    def __init__(self, opener: str) -> None:
        self._opener: str = opener
        self._tasks: Any = None
        """The map, kept for the instruments: the block may be open without a name for it."""

    async def _open(self, backend: Backend[Any], tasks: Any) -> Any:
        """Tell the instruments of the map *tasks*, and return it; leave the block if one raises."""
        self._tasks = tasks
        try:
            open_map(backend, tasks)
        except BaseException as error:
            await cast("Any", self).__aexit__(type(error), error, error.__traceback__)
            raise
        return tasks

    @property
    def _cure(self) -> str:
        return f"write 'async with {self._opener} as tasks:'"

    def __repr__(self) -> str:
        return f"<{self._opener}: {self._cure}>"

    if not TYPE_CHECKING:  # pragma: no branch - type checkers then know all attributes

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):  # copy.copy(), for example, looks for methods of that kind
                raise AttributeError(name)
            raise AttributeError(
                f"{self._opener} does not return the map itself: {self._cure}, then use "
                f"tasks.{name}"
            )

    def __await__(self) -> NoReturn:
        raise TypeError(f"{self._opener} cannot be awaited: {self._cure}")

    def __enter__(self) -> NoReturn:
        raise TypeError(f"{self._opener} needs 'async with', not 'with': {self._cure}")

    def __exit__(self, *_: object) -> None: ...  # never called, but 'with' looks for it first


# Acting


class Backend(Protocol[RunT]):
    """The part of a map that acts, in one dialect."""

    scheduler: Scheduler[RunT]
    waits: Waits[RunT, Any]
    now: Callable[[], float]
    lock: Any
    ends_when_idle: bool
    """True once the map's block is done, or it is closed and an instrument gets told: `finished`
    then calls `note_closed` when nothing runs any more."""

    def call(self, verb: Callable[[], T]) -> T:
        """Call *verb*, which changes the scheduler, if the caller may do so now."""
        ...

    def call_or_postpone(self, verb: Callable[[], T], answer: T, /) -> T:
        """Call *verb*; if its thread is inside the map, return *answer* and call it later."""
        ...

    def can_drop(self, run: RunT) -> bool:
        """Return whether the body of *run* can be kept from beginning. Under the lock."""
        ...

    def spawn(self, run: RunT) -> BaseException | None:
        """Let the body of *run* begin, or return the error for which it never begins."""

    def interrupt(self, run: RunT) -> object:
        """Ask the body of *run* to stop, by the means of the dialect."""

    def discard(self, run: RunT) -> None:
        """Close the body of *run*, which has ended before it began, and its handle."""

    def look(self, look: Callable[[], T]) -> T:
        """Return the result of *look*, which only reads; in threads, the state of one moment."""
        ...

    def timeout_error(self, message: str) -> Exception:
        """Return the error of a run that its own deadline has stopped."""
        ...

    def finished(self, *ended: RunT) -> None:
        """Set the timer, complete the handles of runs that have *ended*, deliver events."""


def apply_effects(backend: Backend[RunT], effects: Effects[RunT], *ended: RunT) -> None:
    """Carry out the *effects* of a change that has ended the runs in *ended*.

    The names are released and the waiters are woken already. Not under the lock.
    """
    over = list(ended)
    changes = [effects]
    for change in changes:
        for run in change.dropped:
            backend.discard(run)
        over += change.dropped
        for run in change.begin:
            error = backend.spawn(run)
            if error is not None:  # its end may let others begin
                following, ended_now = settle(backend, run, error)
                changes.append(following)
                over += ended_now
    backend.finished(*over)
    if effects.replaced:
        cancel_runs(backend, effects.replaced, "replaced by a newer start")


def finish_run(
    backend: Backend[RunT], run: RunT, error: BaseException | None, *, cancelled: bool = False
) -> None:
    """End *run* with the outcome of its body, and carry out the effects.

    Args:
        backend: The backend of the map.
        run: The run, with a value if there is no error and it was not cancelled.
        error: The error that the body raised.
        cancelled: True if the body was cancelled and has stopped.
    """
    effects, ended = settle(backend, run, error, cancelled=cancelled)
    apply_effects(backend, effects, *ended)


def settle(
    backend: Backend[RunT], run: RunT, error: BaseException | None, *, cancelled: bool = False
) -> tuple[Effects[RunT], tuple[RunT, ...]]:
    """End *run* as `finish_run` does.

    Returns:
        The effects, and the run; without the run if another attempt of it follows.
    """
    if cancelled or run.acknowledges_cancel(error):
        if not run.timed_out():
            return end_run(backend, run, _CANCELLED), (run,)
        error = backend.timeout_error(timeout_message(run))
    if error is None:
        return end_run(backend, run, _SUCCEEDED), (run,)
    run.error = error
    scheduler = backend.scheduler
    while True:
        retry = scheduler.decide_retry(run, error, backend.now)
        with backend.lock:
            if retry.before == run.failures:  # else the failures were forgotten meanwhile
                effects = scheduler.finish(run, _FAILED, backend.now, error, retry)
                ended = (run,) if run.done else ()
                if ended:
                    backend.waits.note_end(run)
                else:
                    backend.waits.note_attempt(run)
                backend.waits.note_ended(*effects.dropped)
                return effects, ended


def end_run(
    backend: Backend[RunT], run: RunT, status: RunStatus, error: BaseException | None = None
) -> Effects[RunT]:
    """End *run* with *status*; a failure with this *error* does not count."""
    with backend.lock:
        run.error = error
        effects = backend.scheduler.finish(run, status, backend.now, error)
        backend.waits.note_ended(run, *effects.dropped)
        return effects


def timeout_message(run: Run) -> str:
    """Return the message of the timeout error of *run*."""
    return f"it took longer than its timeout of {seconds_text(run.timeout)}"


def cancel_run(backend: Backend[RunT], run: RunT, reason: str | None) -> bool:
    """Ask *run* to stop; return whether it had not ended."""
    with backend.lock:
        if run.done:
            return False
        effects: Effects[RunT] | None = None
        if run.status is _DEFERRED or backend.can_drop(run):
            run.cancelled_at = backend.now()
            effects = backend.scheduler.drop(run, reason, run.cancelled_at)
            backend.waits.note_ended(*effects.dropped)
        else:
            backend.scheduler.request_cancel(run, reason, backend.now())
    if effects is None:
        backend.interrupt(run)
        backend.finished()
    else:
        apply_effects(backend, effects)
    return True


def cancel_runs(backend: Backend[RunT], runs: Iterable[RunT], reason: str | None) -> None:
    """Ask *runs* to stop.

    The pending runs come first, those that queue before those that replace, as they may wait for
    these; then the runs that wait for a slot. So none of them begins because others end.
    """
    order = {"queue": 0, "retry": 0, "replace": 1, None: 2}
    for run in sorted(runs, key=lambda run: (order[run.deferred], run.status is not _QUEUED)):
        cancel_run(backend, run, reason)


def cancel_names(backend: Backend[RunT], names: Iterable[Hashable], reason: str | None) -> int:
    """Ask the running and pending runs of *names* to stop; return the number of such names."""
    with backend.lock:
        scheduler = backend.scheduler
        tables = (scheduler.pending, scheduler.running)
        found = [[table[name] for table in tables if name in table] for name in names]
    cancel_runs(backend, [run for runs in found for run in runs], reason)
    return sum(map(bool, found))


def all_names(backend: Backend[Any]) -> list[Hashable]:
    """Return the names that run or are pending. Callable from anywhere."""
    with backend.lock:  # a run may move from one table to the other
        return list({**backend.scheduler.pending, **backend.scheduler.running})


def run_due(backend: Backend[RunT]) -> None:
    """Begin the runs whose backoff is over, and mark the overdue runs."""
    with backend.lock:
        effects = backend.scheduler.run_due(backend.now())
        backend.waits.note_ended(*effects.dropped)
    apply_effects(backend, effects)


def forget(backend: Backend[RunT], name: Hashable, operation: str | None) -> bool:
    """Drop failures of *name*, and wake the callers that wait for them to expire."""
    with backend.lock:
        effects = backend.scheduler.forget(name, operation, backend.now())
        if effects is None:
            return False
        backend.waits.note_ended(*effects.dropped)
        backend.waits.idle.unpark_all()
        if name in backend.waits.starters:
            backend.waits.starters[name].unpark_all()
    apply_effects(backend, effects)
    return True


def next_retry_at(backend: Backend[Any]) -> float | None:
    """Return the time at which the next wait ends; None if no name waits."""
    with backend.lock:
        return backend.scheduler.records.next_retry_at(backend.now())


def observe(backend: Backend[Any]) -> Observation:
    """Return a new observation of the map of *backend*."""

    def close(mark: Mark) -> None:
        backend.call_or_postpone(partial(close_observation, backend, mark), None)

    with backend.lock:
        return backend.scheduler.observe(close)


def close_observation(backend: Backend[Any], mark: Mark) -> None:
    """Close the observation of *mark*, and forget the ends that were kept for it."""
    with backend.lock:
        backend.scheduler.close_observation(mark)


def close(backend: Backend[RunT]) -> None:
    """Refuse new starts, wake the callers that wait to make one, and drop waiting runs."""
    with backend.lock:
        mark_closed(backend)
        effects = backend.scheduler.drain(backend.now())
        backend.waits.note_ended(*effects.dropped)
    apply_effects(backend, effects)


def open_map(backend: Backend[Any], tasks: AnyTaskMap) -> None:
    """Tell the instruments of the map *tasks*. Close it if this raises what one has raised."""
    scheduler = backend.scheduler
    try:
        scheduler.events.open(tasks)
    finally:
        if scheduler.closed:  # by an instrument, which was not in `closing` yet
            with backend.lock:
                _expect_end(backend)
            backend.finished()


def mark_closed(backend: Backend[RunT]) -> None:
    """Refuse new starts. Under the lock."""
    if not backend.scheduler.closed:
        backend.scheduler.closed = True
        _expect_end(backend)
        backend.scheduler.on_running_changed()
        backend.waits.wake_starters()


def _expect_end(backend: Backend[Any]) -> None:
    if backend.scheduler.events.closing:
        backend.scheduler.events.keep_map()
        backend.ends_when_idle = True


def note_closed(backend: Backend[Any]) -> None:
    """Queue the last calls of the instruments, if the map is closed and idle. Under the lock."""
    scheduler = backend.scheduler
    if scheduler.closed and scheduler.is_idle() and not backend.waits.ending:
        scheduler.events.queue_closed()


def resolve(
    backend: Backend[RunT],
    conflict: Conflict[RunT],
    name: Hashable,
    operation: str | None,
    if_busy: IfBusy,
) -> StartAction:
    """Return the outcome of a start that finds *conflict*; deliver a refusal and raise it.

    For a backend without a lock.

    Raises:
        RefusedError: the start is refused.
    """
    action, error = backend.scheduler.resolve(conflict, name, operation, if_busy, backend.now)
    try:
        if error is not None or action is StartAction.JOIN:
            backend.finished()
        if error is not None and action is StartAction.REFUSE:
            raise error
        return action
    finally:
        del error  # no cycle through the traceback


def drain(backend: Backend[RunT]) -> None:
    """Drop the pending runs that wait for a backoff to end, because the map's block is done."""
    with backend.lock:
        effects = backend.scheduler.drain(backend.now())
        backend.waits.note_ended(*effects.dropped)
    apply_effects(backend, effects)


backends: WeakSet[Any] = WeakSet()
"""The backends of all maps."""


def _close_in_child() -> None:
    """Close all maps in a forked child, and give each a lock that no thread holds."""
    for backend in list(backends):
        backend.lock = type(backend.lock)()
        backend.scheduler.abandon()
        backend.waits.abandon()


with contextlib.suppress(AttributeError):  # a system without fork
    os.register_at_fork(after_in_child=_close_in_child)
