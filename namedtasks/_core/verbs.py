"""The verbs that are the same in every dialect, and never wait."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Hashable,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from typing import Any, TypeVar

from namedtasks._core.conductor import Conductor
from namedtasks._core.errors import RefusedError
from namedtasks._core.ledger import State
from namedtasks._core.names import check_start
from namedtasks._core.obstacles import refusal
from namedtasks._core.records import Failure
from namedtasks._core.statistics import TaskMapStatistics

HandleT = TypeVar("HandleT")

# To look up a member of an enum costs more than the question.
_FREE, _RUNNING = State.FREE, State.RUNNING


class Verbs(Mapping[Hashable, HandleT]):
    """What a map says and does without waiting; as a mapping it is what runs right now.

    Iterating goes over a snapshot. A map is always true, equal only to itself,
    and hashable.
    """

    __slots__ = ("__weakref__", "_shell")

    def __init__(self, shell: Conductor[Any, Any]) -> None:
        self._shell = shell

    # Asking

    def check(self, name: Hashable, *, operation: str | None = None) -> RefusedError | None:
        """Tell what a start would be refused with now; None if it would be admitted.

        Changes nothing, and no instrument hears of it. Not a checkpoint.

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
        shell = self._shell
        with shell.reading:
            now = shell.now()
            obstacle = shell.engine.ledger.look(name, operation, now)
            return None if obstacle is None else refusal(obstacle, name, operation, now)

    def state(self, name: Hashable, *, operation: str | None = None) -> State:
        """Tell what *name* is doing; its failures are those of exactly *operation*.

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
        shell = self._shell
        if shell.reads_freely:
            if name in shell.running_now:
                return _RUNNING
            table = shell.failed_now.get(operation)
            if table is None or name not in table:
                return _FREE
        with shell.reading:
            return shell.engine.ledger.state(name, operation, shell.now())

    def failure(self, name: Hashable, *, operation: str | None = None) -> Failure | None:
        """Tell what is on record of *name*'s failures with exactly this *operation*.

        None if nothing is. While the name runs, it is what was before the run.
        Not a checkpoint.

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
        shell = self._shell
        with shell.reading:
            return shell.engine.ledger.failure(name, operation, shell.now())

    def statistics(self) -> TaskMapStatistics:
        """Count what runs, waits and so on. Its cost does not grow. Not a checkpoint.

        Any thread may call it. In a `ThreadTaskMap` all counts are of one moment.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> counts = tasks.statistics()
            >>> counts.running, counts.waiting, counts.limit
            (1, 1, None)
        """
        shell = self._shell
        with shell.reading:
            return shell.engine.statistics()

    # Stopping

    def cancel(self, name: Hashable, *, reason: str | None = None) -> bool:
        """Ask the run of *name* to stop, and end its pending one. Not a checkpoint.

        The run ends when its body heeds that; one that has not begun ends at
        once. A body that returns or raises regardless has succeeded or failed.
        The first reason given counts.

        Returns:
            Whether there was a run or a pending one.

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
        return self._shell.cancel_name(name, reason)

    def cancel_matching(
        self, predicate: Callable[[Hashable], object], *, reason: str | None = None
    ) -> int:
        """Cancel the names that *predicate* likes; tell how many. Not a checkpoint.

        Those with a run or a pending run are asked. If the predicate raises,
        nothing is cancelled.

        Raises:
            TypeError: *reason* is no text.
            RuntimeError: as `cancel`.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.cancel_matching(lambda name: name.startswith("pvc-"))
            1
        """
        return self._shell.cancel_names(predicate, reason)

    def cancel_all(self, *, reason: str | None = None) -> int:
        """Cancel all names that run or are pending; tell how many. Not a checkpoint.

        Raises:
            TypeError: *reason* is no text.
            RuntimeError: as `cancel`.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> tasks.cancel_all(reason="the node is drained")
            1
        """
        return self._shell.cancel_all(reason)

    def forget(self, name: Hashable, *, operation: str | None = None) -> bool:
        """Drop what is on record of *name*, of all operations unless one is given.

        A name that waits or was given up is free; one that runs goes on, with
        no failures before it. Not a checkpoint.

        Returns:
            Whether there was anything to forget.

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
        return self._shell.forget(name, operation)

    def close(self) -> None:
        """Refuse new starts from now on; what was admitted goes on. Not a checkpoint.

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
        self._shell.close()

    # The mapping of what runs

    def __getitem__(self, name: Hashable) -> HandleT:
        with self._shell.reading:
            handle: HandleT | None = self._shell.engine.ledger.running[name].handle
        if handle is None:  # its start is just making it
            raise KeyError(name)
        return handle

    def __contains__(self, name: object) -> bool:
        shell = self._shell
        if shell.reads_freely:
            return name in shell.running_now
        with shell.reading:
            return name in shell.running_now

    def __iter__(self) -> Iterator[Hashable]:
        with self._shell.reading:
            return iter(list(self._shell.engine.ledger.running))

    def __len__(self) -> int:
        with self._shell.reading:
            return len(self._shell.engine.ledger.running)

    def __bool__(self) -> bool:
        return True

    def keys(self) -> KeysView[Hashable]:
        """The names that run now: a snapshot.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> wanted = {"pvc-1", "pvc-2", "pvc-3"}
            >>> sorted(wanted - tasks.keys())
            ['pvc-2', 'pvc-3']
        """
        return self._snapshot().keys()

    def values(self) -> ValuesView[HandleT]:
        """The handles of what runs now: a snapshot.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> list(tasks.values()) == [tasks["pvc-1"]]
            True
        """
        return self._snapshot().values()

    def items(self) -> ItemsView[Hashable, HandleT]:
        """The names and handles of what runs now: a snapshot.

        Example:
            ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.

            >>> for name, handle in tasks.items():
            ...     print(name, tasks.cancel(name))
            pvc-1 True
        """
        return self._snapshot().items()

    def _snapshot(self) -> dict[Hashable, HandleT]:
        with self._shell.reading:
            running = self._shell.engine.ledger.running
            # In one step, as another thread may change the dict meanwhile.
            handles = [(name, run.handle) for name, run in list(running.items())]
        return {name: handle for name, handle in handles if handle is not None}

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        with self._shell.reading:
            ledger = self._shell.engine.ledger
            running, waiting, closed = len(ledger.running), ledger.records.waiting, ledger.closed
        kind = type(self)
        return (
            f"<{kind.__module__}.{kind.__qualname__} running={running} "
            f"waiting={waiting}{' closed' if closed else ''}>"
        )
