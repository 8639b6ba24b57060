"""The methods of a map that are the same on asyncio, in threads and on trio."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import partial
from typing import Any, TypeVar
from weakref import WeakMethod

from namedtasks._base import (
    Backend,
    all_names,
    backends,
    cancel_names,
    close,
    forget,
    next_retry_at,
    observe,
)
from namedtasks._decisions import refusal
from namedtasks._errors import RefusedError
from namedtasks._names import check_start
from namedtasks._observations import Observation, check_observation
from namedtasks._state import (
    Failure,
    FailureRecord,
    FailureRecords,
    Outcome,
    PendingRun,
    State,
    TaskMapStatistics,
)
from namedtasks._validation import check_callable, check_reason, safe_repr

HandleT = TypeVar("HandleT")

# A member of an enum is slower to look up than a global.
_FREE, _RUNNING, _WAITING, _READY = State.FREE, State.RUNNING, State.WAITING, State.READY


class BaseTaskMap(Mapping[Hashable, HandleT]):
    """The part of a map that does not wait; as a mapping it contains the current runs.

    Iterating goes over a snapshot. A map is always true, equal only to itself, and hashable. Any
    thread may call the methods that only read: the mapping, `check`, `state`, `failure`,
    `failures`, `pending`, `outcomes` and `statistics`.
    """

    __slots__ = ("__dict__", "__weakref__", "_contains")

    def __init__(self, backend: Any) -> None:
        self._backend: Backend[Any] = backend
        backends.add(backend)
        self._now: Callable[[], float] = backend.now
        note = WeakMethod(self._note_running)  # no cycle, so a dropped map is freed at once
        backend.scheduler.on_running_changed = lambda: (method := note()) and method()
        self._note_running()

    def _note_running(self) -> None:
        scheduler = self._backend.scheduler
        self._tables = scheduler.records.tables
        self._running: dict[Hashable, Any] = scheduler.running
        self._contains: Callable[[object], bool] = self._running.__contains__
        is_plain = not scheduler.closed and "task_refused" not in scheduler.events.listeners
        self._refused_at_once: dict[Hashable, Any] = self._running if is_plain else {}
        """The running names, if a refusal of them emits no event; else empty."""
        self._waits_at_once = self._tables if is_plain else {}
        """The failures on record, on the same condition."""

    def _refuse_waiting(self, name: Hashable, operation: str | None, if_busy: str) -> bool:
        """Refuse a start of a name that waits, if there is no other conflict.

        `_start` does the same with four more calls: a skip then costs 25 times a bare look-up,
        and 7 times with this.

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

    # Reading

    def check(
        self, name: Hashable, *, operation: str | None = None, since: Observation | None = None
    ) -> RefusedError | None:
        """Return the refusal that a start would raise now; None if it would be admitted.

        Changes nothing, and emits no event. Not a checkpoint.

        Raises:
            TypeError: *name* is None or cannot be hashed, or *operation* is not a str.
            ValueError: *name* is `namedtasks.ANY` itself or has ANY among more than four
                fields, or *since* is closed or an observation of another map.

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
        scheduler = self._backend.scheduler
        mark = None if since is None else check_observation(since, scheduler.ends)
        now = self._now()
        conflict = scheduler.look_for_conflict(name, operation, now, mark)
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

        None if there are none. While the name runs, the failures before the run. Not a checkpoint.

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

    def failures(self, *, state: State | None = None) -> Iterator[Failure]:
        """Return an iterator over all failures on record, as they are at this call.

        It skips the failures of names that run: `failure` returns those. They come in the order
        of the last failures of each operation. Each `Failure` is made when the iteration reaches
        it, so the first few of a million are quick to get. Not a checkpoint.

        Args:
            state: `State.WAITING`, `State.READY` or `State.GAVE_UP`, to get only those.

        Raises:
            TypeError: *state* is not a `State`.
            ValueError: *state* is FREE or RUNNING, which no failure on record has.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> from namedtasks import State
            >>> for failure in tasks.failures(state=State.WAITING):
            ...     print(failure.name, failure.failures, failure.error)
            pvc-2 1 device busy
        """
        if state is not None and not isinstance(state, State):
            raise TypeError(f"state must be a State or None, not {safe_repr(state)}")
        if state in (State.FREE, State.RUNNING):
            raise ValueError(f"state must be WAITING, READY or GAVE_UP, not {state.name}")
        records = self._backend.scheduler.records
        tables = self._backend.look(records.snapshot)
        return _iterate_failures(records, tables, state, self._now())

    def pending(self) -> list[PendingRun]:
        """Return the runs that wait to take their names. Not a checkpoint.

        These are the starts that replace or queue, and the retries that wait.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.pending()
            []
        """
        return self._backend.look(self._backend.scheduler.list_pending)

    def next_retry_at(self) -> float | None:
        """Return the time at which the next wait ends; None if no name waits.

        It is in seconds on the map's clock. A loop that retries can sleep exactly until then. The
        first call sorts all waits, and later changes keep them sorted. Not a checkpoint.

        Raises:
            RuntimeError: as for `cancel`.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.next_retry_at() == tasks.failure("pvc-2").retry_at
            True
        """
        return self._backend.call(partial(next_retry_at, self._backend))

    def outcomes(self) -> list[Outcome]:
        """Return the last outcomes, the newest last. Not a checkpoint.

        Empty unless the map was opened with ``keep_outcomes=N``, which keeps the last outcome of
        each of the last N names and operations that ended. A run whose body never began has no
        outcome.

        Example:
            >>> from namedtasks import ThreadTaskMap
            >>> with ThreadTaskMap(keep_outcomes=1) as tasks_with_outcomes:
            ...     for volume in ("pvc-1", "pvc-2"):
            ...         _ = tasks_with_outcomes.submit(volume, len, volume).result()
            ...     [(one.name, one.status) for one in tasks_with_outcomes.outcomes()]
            [('pvc-2', 'succeeded')]
        """
        outcomes = self._backend.scheduler.outcomes
        return [] if outcomes is None else self._backend.look(outcomes.snapshot)

    def observe(self) -> Observation:
        """Begin to note which runs end, for starts with ``since=``. Not a checkpoint.

        Call it before you request the listing for those starts: a listing that awaits is
        out of date by one round trip.

        Raises:
            RuntimeError: as for `cancel`.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> with tasks.observe() as look:
            ...     tasks.check("pvc-3", since=look) is None
            True
        """
        return self._backend.call(partial(observe, self._backend))

    def statistics(self) -> TaskMapStatistics:
        """Count the runs and failures, at a constant cost on average. Not a checkpoint.

        In a `ThreadTaskMap` all counts are of one moment.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> counts = tasks.statistics()
            >>> counts.running, counts.waiting, counts.limit
            (1, 1, None)
        """
        backend = self._backend
        return backend.look(lambda: backend.scheduler.statistics(backend.now()))

    # Stopping

    def cancel(self, name: Hashable, *, reason: str | None = None) -> bool:
        """Ask the run of *name* to stop, and end its pending run. Not a checkpoint.

        The run ends when its body stops. A run that has not begun ends at once. If
        the body returns or raises an error instead, the run has succeeded or failed.
        The first reason counts.

        Returns:
            True if there was a run or a pending run.

        Raises:
            TypeError: *name* cannot be hashed, or *reason* is neither a str nor None.
            RuntimeError: the caller is not in the event loop run that opened the
                map; a `ThreadTaskMap` has none, and any thread may call it.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.cancel("pvc-1", reason="the pod is gone")
            True
            >>> tasks.cancel("pvc-2")  # it does not run
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

        It gets each name with a run or a pending run. If it raises, nothing is cancelled.

        Returns:
            The number of names that were cancelled.

        Raises:
            TypeError: *predicate* cannot be called, or *reason* is neither a str nor None.
            RuntimeError: as for `cancel`.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.cancel_matching(lambda name: name.startswith("pvc-"))
            1
        """
        check_reason(reason)
        check_callable("predicate", predicate)
        names = [name for name in all_names(self._backend) if predicate(name)]
        verb = partial(cancel_names, self._backend, names, reason)
        return self._backend.call_or_postpone(verb, len(names))

    def cancel_all(self, *, reason: str | None = None) -> int:
        """Cancel all names that run or are pending; return their number. Not a checkpoint.

        Raises:
            TypeError: *reason* is neither a str nor None.
            RuntimeError: as for `cancel`.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.cancel_all(reason="the node is drained")
            1
        """
        return self.cancel_matching(lambda _: True, reason=reason)

    def forget(self, name: Hashable, *, operation: str | None = None) -> bool:
        """Drop the failures on record of *name*, of all operations unless one is given.

        A name that waits or gave up becomes free. A name that runs continues, with no
        failures before its run. Not a checkpoint.

        Returns:
            True if there were failures to forget.

        Raises:
            TypeError: *name* cannot be hashed.
            RuntimeError: as for `cancel`.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.forget("pvc-2")
            True
            >>> tasks.state("pvc-2")
            <State.FREE: 'free'>
            >>> tasks.forget("pvc-1")  # its run continues
            False
        """
        return self._backend.call(partial(forget, self._backend, name, operation))

    def close(self) -> None:
        """Refuse new starts from now on; admitted runs continue. Not a checkpoint.

        Raises:
            RuntimeError: as for `cancel`.

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
        if handle is None:  # the start or the end of the run is not complete
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
        """Return a snapshot of the handles of the current runs.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> list(tasks.values()) == [tasks["pvc-1"]]
            True
        """
        return self._snapshot().values()

    def items(self) -> ItemsView[Hashable, HandleT]:
        """Return a snapshot of the names and handles of the current runs.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> for name, handle in tasks.items():
            ...     print(name, tasks.cancel(name))
            pvc-1 True
        """
        return self._snapshot().items()

    def _snapshot(self) -> dict[Hashable, HandleT]:
        # Copied in one step, because another thread may change the dict meanwhile.
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


def _iterate_failures(
    records: FailureRecords,
    tables: list[tuple[str | None, list[tuple[Hashable, FailureRecord]]]],
    state: State | None,
    now: float,
) -> Iterator[Failure]:
    for operation, found in tables:
        for name, record in found:
            if record.retry_at == math.inf:
                its_state = State.GAVE_UP
            elif now < record.retry_at:
                its_state = State.WAITING
            elif not records.has_expired(record, now):
                its_state = State.READY
            else:
                continue
            if state is None or state is its_state:
                yield Failure(name, operation, record.failures, record.error, record.retry_at)


# Each `in` calls the method of the dict that it finds in this slot: half the cost of a method.
BaseTaskMap.__contains__ = BaseTaskMap.__dict__["_contains"]  # type: ignore[method-assign]
