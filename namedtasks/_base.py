"""The map and its backend: all that is the same on trio, on asyncio and in threads.

A backend acts for the scheduler: it begins and interrupts bodies, completes futures, keeps the
timer. Everything in this module that changes a scheduler does it under the backend's lock,
carries the effects out after that, and wakes the waiters in the same step as the change.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import (
    Callable,
    Hashable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast, final
from weakref import WeakMethod, WeakSet

from namedtasks._errors import ClosedError, RefusedError
from namedtasks._names import check_start, names_overlap
from namedtasks._scheduler import (
    Closed,
    Conflict,
    Effects,
    IfBusy,
    Overlapping,
    Scheduler,
    StartAction,
    refusal,
)
from namedtasks._state import Failure, Run, RunStatus, State, TaskMapStatistics
from namedtasks._validation import check_reason, safe_repr, seconds_text

T = TypeVar("T")
HandleT = TypeVar("HandleT")
RunT = TypeVar("RunT", bound=Run)

_DEFERRED, _QUEUED = RunStatus.DEFERRED, RunStatus.QUEUED
_SUCCEEDED, _FAILED, _CANCELLED = RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED
# A member of an enum is slower to look up than a global.
_FREE, _RUNNING, _WAITING, _READY = State.FREE, State.RUNNING, State.WAITING, State.READY


# Waiting


class WaitQueue(Protocol):
    """The callers that wait for one thing; each dialect has its own kind."""

    def unpark_all(self) -> object:
        """Wake all that wait now."""
        ...

    def __len__(self) -> int: ...


QueueT = TypeVar("QueueT", bound=WaitQueue)


class WaitCondition(NamedTuple, Generic[QueueT]):
    """A reason for a wait to go on: the caller looks again when woken, or at a time."""

    queue: QueueT
    until: float


@final
class Waits(Generic[RunT, QueueT]):
    """The conditions of the waits of one map, and the queues in which the callers wait.

    A wait asks for its condition, sleeps in the queue, and asks again, until there is none.
    All is called under the map's lock.
    """

    def __init__(
        self,
        scheduler: Scheduler[RunT],
        now: Callable[[], float],
        make_queue: Callable[[], QueueT],
        complete: Callable[[RunT], bool] | None = None,
    ) -> None:
        self._complete = complete
        """Completes the handle of a run that has ended; returns False if that has to wait."""
        self._scheduler = scheduler
        self._now = now
        self._make_queue = make_queue
        self.idle: QueueT = make_queue()
        """The callers that wait for the map to be idle or empty."""
        self.ending: dict[RunT, None] = {}
        """Runs that have ended, and whose Task or future is not done yet."""
        self.starters: dict[Hashable, QueueT] = {}
        """The callers that wait for the wait of a name to be over."""

    def abandon(self) -> None:
        """Drop everything, in a forked child: no thread waits there."""
        self.idle = self._make_queue()
        self.ending = {}
        self.starters = {}

    def until_idle(self) -> WaitCondition[QueueT] | None:
        """Return what keeps the map from being idle: a run, or a pending run.

        Raises:
            ClosedError: the map was opened in the parent process.
        """
        if self._scheduler.forked:
            raise ClosedError(None, None, True)
        if self._scheduler.is_idle() and not self.ending:
            return None
        return WaitCondition(self.idle, math.inf)

    def until_ended(self) -> WaitCondition[QueueT] | None:
        """Return what keeps a Task or future of an ended run from being done."""
        return WaitCondition(self.idle, math.inf) if self.ending else None

    def until_empty(self) -> WaitCondition[QueueT] | None:
        """Return what keeps the map from being idle and without a waiting failure."""
        condition = self.until_idle()
        if condition is not None:
            return condition
        expiry = self._scheduler.records.next_expiry(self._now())
        return None if expiry is None else WaitCondition(self.idle, expiry)

    def until_free(self, name: Hashable, operation: str | None) -> WaitCondition[QueueT] | None:
        """Return what is in the way of a start of *name*.

        Raises:
            GaveUpError: the policy gave the name up.
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
        if isinstance(conflict, Closed) or conflict.retry_at == math.inf:
            raise refusal(conflict, name, operation, self._now())
        queue = self.starters.get(name)
        if queue is None:
            queue = self.starters[name] = self._make_queue()
        return WaitCondition(queue, conflict.retry_at)

    def leave(self, name: Hashable) -> None:
        """Drop the queue of *name* if nobody waits in it any more."""
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
            self.ending[run] = None  # and those who wait are woken when that is done
        elif run.waiters is not None:
            run.waiters.unpark_all()
        scheduler = self._scheduler
        if self.idle and not scheduler.running and not scheduler.pending:
            self.idle.unpark_all()

    def note_ended(self, *ended: RunT) -> None:
        """Do the same for several runs."""
        for run in ended:
            self.note_end(run)

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
        f"{verb} from inside a task of the same map would wait for itself: "
        "call it from outside, or wait for the handles that are meant"
    )


def waits_for_its_run(run: Run, verb: str) -> RuntimeError:
    """Return the error of a wait for *run* inside it."""
    return RuntimeError(
        f"{verb} from inside task {safe_repr(run.name)} would wait for itself: call it from outside"
    )


# Acting


class Backend(Protocol[RunT]):
    """The part of a map that acts, in one dialect."""

    scheduler: Scheduler[RunT]
    waits: Waits[RunT, Any]
    now: Callable[[], float]
    lock: Any
    block_done: bool

    def call(self, verb: Callable[[], T]) -> T:
        """Call *verb*, which changes the scheduler, if the caller may call it here and now."""
        ...

    def call_or_postpone(self, verb: Callable[[], T], answer: T, /) -> T:
        """Call *verb*; where its thread is inside the map, return *answer*, and call it later."""
        ...

    def can_drop(self, run: RunT) -> bool:
        """Return whether the body of *run* can be kept from beginning. Under the lock."""
        ...

    def spawn(self, run: RunT) -> BaseException | None:
        """Let the body of *run* begin, or return the error why it never will."""

    def interrupt(self, run: RunT) -> None:
        """Ask the body of *run* to stop, by the means that there are."""

    def discard(self, run: RunT) -> None:
        """Close the body of *run*, which has ended without having begun, and its handle."""

    def statistics(self) -> TaskMapStatistics:
        """Count what is in the map, at one moment."""
        ...

    def timeout_error(self, message: str) -> Exception:
        """Return the error of a run that its own deadline has stopped."""
        ...

    def finished(self, *ended: RunT) -> None:
        """Set the timer, complete the handles of runs that have *ended*, deliver events."""


def apply_effects(backend: Backend[RunT], effects: Effects[RunT], *ended: RunT) -> None:
    """Carry out *effects* of a change by which the runs in *ended* have ended.

    The names are released and the waiters are awake. Not under the lock.
    """
    over = list(ended)
    changes = [effects]
    for change in changes:
        for run in change.dropped:
            backend.discard(run)
        over += change.dropped
        for run in change.begin:
            error = backend.spawn(run)
            if error is not None:  # which makes room for the next
                changes.append(settle(backend, run, error))
                over.append(run)
    backend.finished(*over)
    if effects.replaced:
        cancel_runs(backend, effects.replaced, "replaced by a newer start")


def finish_run(
    backend: Backend[RunT], run: RunT, error: BaseException | None, *, cancelled: bool = False
) -> None:
    """End *run* by what came out of its body, and carry out what follows.

    Args:
        backend: The backend of the map.
        run: Has a value if there is no error and it was not cancelled.
        error: The error that the body raised.
        cancelled: True if the body was cancelled and has stopped.
    """
    apply_effects(backend, settle(backend, run, error, cancelled=cancelled), run)


def settle(
    backend: Backend[RunT], run: RunT, error: BaseException | None, *, cancelled: bool = False
) -> Effects[RunT]:
    """End *run* as `finish_run` does, and return the effects."""
    if cancelled or run.acknowledges_cancel(error):
        if not run.timed_out():
            return end_run(backend, run, _CANCELLED)
        error = backend.timeout_error(timeout_message(run))
    if error is None:
        return end_run(backend, run, _SUCCEEDED)
    run.error = error
    scheduler = backend.scheduler
    while True:
        retry = scheduler.decide_retry(run, error)
        with backend.lock:
            if retry.failures == run.failures + 1:  # else they were forgotten meanwhile
                effects = scheduler.finish(run, _FAILED, backend.now, error, retry)
                backend.waits.note_ended(run, *effects.dropped)
                return effects


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
            effects = backend.scheduler.drop(run, reason, backend.now())
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

    First the pending runs, those that queue before those that replace, for which they may wait;
    then those that wait for a slot. So none of them begins because of the others.
    """
    order = {"queue": 0, "replace": 1, None: 2}
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
    scheduler = backend.scheduler
    return list({**dict(scheduler.pending), **dict(scheduler.running)})


def run_due(backend: Backend[RunT]) -> None:
    """Begin the runs that have sat out a wait, and mark the overdue runs."""
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


def close(backend: Backend[RunT]) -> None:
    """Refuse new starts, wake the callers that wait to make one, and drop waiting runs."""
    with backend.lock:
        mark_closed(backend)
        effects = backend.scheduler.drain(backend.now())
        backend.waits.note_ended(*effects.dropped)
    apply_effects(backend, effects)


def mark_closed(backend: Backend[RunT]) -> None:
    """Refuse new starts. Under the lock."""
    if not backend.scheduler.closed:
        backend.scheduler.closed = True
        backend.scheduler.on_running_changed()
        backend.waits.wake_starters()


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
    if error is not None:
        backend.finished()
        if action is StartAction.REFUSE:
            raise error
    return action


def drain(backend: Backend[RunT]) -> None:
    """Drop the pending runs that would have to sit out a wait: the map's block is done."""
    with backend.lock:
        effects = backend.scheduler.drain(backend.now())
        backend.waits.note_ended(*effects.dropped)
    apply_effects(backend, effects)


_backends: WeakSet[Any] = WeakSet()
"""The backends of all maps."""


def _close_in_child() -> None:
    """Close all maps in a forked child, and give each a lock that no thread holds."""
    for backend in list(_backends):
        backend.lock = type(backend.lock)()
        backend.scheduler.abandon()
        backend.waits.abandon()


with contextlib.suppress(AttributeError):  # where there is no fork
    os.register_at_fork(after_in_child=_close_in_child)


# The map


class BaseTaskMap(Mapping[Hashable, HandleT]):
    """The part of a map that does not wait; as a mapping it is what runs now.

    Iterating goes over a snapshot. A map is always true, equal only to itself, and hashable.
    Looks (the mapping, `check`, `state`, `failure`, `statistics`) may be called from any thread.
    """

    __slots__ = ("__dict__", "__weakref__", "_contains")

    def __init__(self, backend: Any) -> None:
        self._backend: Backend[Any] = backend
        _backends.add(backend)
        self._now: Callable[[], float] = backend.now
        note = WeakMethod(self._note_running)  # no cycle: a map goes when it is dropped
        backend.scheduler.on_running_changed = lambda: (method := note()) and method()
        self._note_running()

    def _note_running(self) -> None:
        scheduler = self._backend.scheduler
        self._tables = scheduler.records.tables
        self._running: dict[Hashable, Any] = scheduler.running
        self._contains: Callable[[object], bool] = self._running.__contains__
        is_plain = not scheduler.closed and "task_refused" not in scheduler.events.listeners
        self._refused_at_once: dict[Hashable, Any] = self._running if is_plain else {}
        """The running names, if a refusal of them is nothing but an error."""
        self._waits_at_once = self._tables if is_plain else {}
        """The failures on record, likewise."""

    def _refuse_waiting(self, name: Hashable, operation: str | None, if_busy: str) -> bool:
        """Refuse a start of a name that waits, if that is the only thing in its way.

        `_start` does the same in four calls more: a skip then costs 25 times a bare look-up, and
        7 times with this.

        Returns:
            True if the start is skipped; False if `_start` has to decide.

        Raises:
            BackoffError: the start is refused.
        """
        table = self._waits_at_once.get(operation)
        record = None if table is None else table.records.get(name)
        if record is None or self._backend.scheduler.overlaps.in_use:
            return False
        now = self._now()
        if not now < record.retry_at < math.inf:
            return False
        if if_busy == "refuse":
            raise refusal(record, name, operation, now)
        return if_busy == "skip"

    # Asking

    def check(self, name: Hashable, *, operation: str | None = None) -> RefusedError | None:
        """Return the refusal that a start would raise now; None if it would be admitted.

        Changes nothing, and emits no event. Not a checkpoint.

        Raises:
            TypeError: *name* cannot be hashed, or *operation* is no text.
            ValueError: `namedtasks.ANY` stands where it means nothing.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> type(tasks.check("pvc-1"))
            <class 'namedtasks.AlreadyRunningError'>
            >>> tasks.check("pvc-2").retry_in <= 0.5  # seconds
            True
            >>> tasks.check("pvc-3") is None
            True
        """
        check_start(name, operation)
        now = self._now()
        conflict = self._backend.scheduler.look_for_conflict(name, operation, now)
        return None if conflict is None else refusal(conflict, name, operation, now)

    def state(self, name: Hashable, *, operation: str | None = None) -> State:
        """Return the state of *name*; its failures are those of exactly *operation*.

        Not a checkpoint.

        Raises:
            TypeError: *name* cannot be hashed.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.state("pvc-1")
            <State.RUNNING: 'running'>
            >>> tasks.state("pvc-2")
            <State.WAITING: 'waiting'>
            >>> tasks.state("pvc-2", operation="detach")
            <State.FREE: 'free'>
        """
        if name in self._running:
            return _RUNNING
        table = self._tables.get(operation)
        record = None if table is None else table.records.get(name)
        if record is None:
            return _FREE
        if self._now() < record.retry_at < math.inf:
            return _WAITING
        return self._backend.scheduler.state(name, operation, self._now())

    def failure(self, name: Hashable, *, operation: str | None = None) -> Failure | None:
        """Return the failures on record of *name* with exactly this *operation*.

        None if there are none. While the name runs, those before the run. Not a checkpoint.

        Raises:
            TypeError: *name* cannot be hashed.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> failure = tasks.failure("pvc-2")
            >>> failure.failures, failure.error
            (1, OSError('device busy'))
            >>> tasks.failure("pvc-1") is None
            True
        """
        return self._backend.scheduler.failure(name, operation, self._now())

    def statistics(self) -> TaskMapStatistics:
        """Count what runs, waits and so on. Its cost does not grow. Not a checkpoint.

        In a `ThreadTaskMap` all counts are of one moment.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> counts = tasks.statistics()
            >>> counts.running, counts.waiting, counts.limit
            (1, 1, None)
        """
        return self._backend.statistics()

    # Stopping

    def cancel(self, name: Hashable, *, reason: str | None = None) -> bool:
        """Ask the run of *name* to stop, and end its pending one. Not a checkpoint.

        The run ends when its body stops; a run that has not begun ends at
        once. A body that returns or raises regardless has succeeded or failed.
        The first reason given counts.

        Returns:
            True if there was a run or a pending one.

        Raises:
            TypeError: *name* cannot be hashed, or *reason* is no text.
            RuntimeError: the caller is not in the event loop run that opened the
                map; a `ThreadTaskMap` has none, and any thread may call it.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.cancel("pvc-1", reason="the pod is gone")
            True
            >>> tasks.cancel("pvc-2")  # nothing of it runs
            False
        """
        check_reason(reason)
        verb = partial(cancel_names, self._backend, [name], reason)
        is_there = name in self._running or name in self._backend.scheduler.pending
        return bool(self._backend.call_or_postpone(verb, int(is_there)))

    def cancel_matching(
        self, predicate: Callable[[Hashable], object], *, reason: str | None = None
    ) -> int:
        """Cancel the names for which *predicate* returns true. Not a checkpoint.

        Names with a run or a pending run are passed to it. If it raises, nothing is cancelled.

        Returns:
            The number of names that were cancelled.

        Raises:
            TypeError: *reason* is no text.
            RuntimeError: as `cancel`.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.cancel_matching(lambda name: name.startswith("pvc-"))
            1
        """
        check_reason(reason)
        names = [name for name in all_names(self._backend) if predicate(name)]
        verb = partial(cancel_names, self._backend, names, reason)
        return self._backend.call_or_postpone(verb, len(names))

    def cancel_all(self, *, reason: str | None = None) -> int:
        """Cancel all names that run or are pending; return their number. Not a checkpoint.

        Raises:
            TypeError: *reason* is no text.
            RuntimeError: as `cancel`.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.cancel_all(reason="the node is drained")
            1
        """
        return self.cancel_matching(lambda _: True, reason=reason)

    def forget(self, name: Hashable, *, operation: str | None = None) -> bool:
        """Drop the failures on record of *name*, of all operations unless one is given.

        A name that waits or was given up is free; one that runs goes on, with
        no failures before it. Not a checkpoint.

        Returns:
            True if there was anything to forget.

        Raises:
            TypeError: *name* cannot be hashed.
            RuntimeError: as `cancel`.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.forget("pvc-2")
            True
            >>> tasks.state("pvc-2")
            <State.FREE: 'free'>
            >>> tasks.forget("pvc-1")  # its run goes on
            False
        """
        return self._backend.call(partial(forget, self._backend, name, operation))

    def close(self) -> None:
        """Refuse new starts from now on; admitted runs go on. Not a checkpoint.

        Raises:
            RuntimeError: as `cancel`.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.close()
            >>> type(tasks.check("pvc-3"))
            <class 'namedtasks.ClosedError'>
            >>> "pvc-1" in tasks
            True
        """
        self._backend.call_or_postpone(partial(close, self._backend), None)

    # The mapping of what runs

    def __getitem__(self, name: Hashable) -> HandleT:
        handle: HandleT | None = self._running[name].handle
        if handle is None:  # its start is just making it, or it is just ending
            raise KeyError(name)
        return handle

    def __iter__(self) -> Iterator[Hashable]:
        return iter(list(self._running))

    def __len__(self) -> int:
        return len(self._running)

    def __bool__(self) -> bool:
        return True

    def keys(self) -> KeysView[Hashable]:
        """Return a snapshot of the names that run now.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> wanted = {"pvc-1", "pvc-2", "pvc-3"}
            >>> sorted(wanted - tasks.keys())
            ['pvc-2', 'pvc-3']
        """
        return self._snapshot().keys()

    def values(self) -> ValuesView[HandleT]:
        """Return a snapshot of the handles of what runs now.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> list(tasks.values()) == [tasks["pvc-1"]]
            True
        """
        return self._snapshot().values()

    def items(self) -> ItemsView[Hashable, HandleT]:
        """Return a snapshot of the names and handles of what runs now.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> for name, handle in tasks.items():
            ...     print(name, tasks.cancel(name))
            pvc-1 True
        """
        return self._snapshot().items()

    def _snapshot(self) -> dict[Hashable, HandleT]:
        # Copied in one step, as another thread may change the dict meanwhile.
        handles = [(name, run.handle) for name, run in list(self._running.items())]
        return {name: handle for name, handle in handles if handle is not None}

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        scheduler = self._backend.scheduler
        kind = type(self)
        return (
            f"<{kind.__module__}.{kind.__qualname__} running={len(self._running)} "
            f"waiting={scheduler.records.waiting}{' closed' if scheduler.closed else ''}>"
        )


# Each `in` calls the method of the dict that it finds in this slot: half the cost of a method.
BaseTaskMap.__contains__ = BaseTaskMap.__dict__["_contains"]  # type: ignore[method-assign]
