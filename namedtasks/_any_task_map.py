"""The type of a map of any dialect, as an instrument gets it."""

from __future__ import annotations

from collections.abc import Hashable, ItemsView, Iterator, KeysView, ValuesView
from typing import Any, Protocol

from namedtasks._errors import RefusedError
from namedtasks._state import Failure, Outcome, PendingRun, State, TaskMapStatistics
from namedtasks._version import publish


class AnyTaskMap(Protocol):
    """The read-only methods of a map of any dialect: what `Instrument.map_opened` gets.

    Every `namedtasks.asyncio.TaskMap`, `ThreadTaskMap` and `namedtasks.TaskMap` is one. These
    methods do not wait for tasks. Any thread may call them, also after the map was closed. As a
    mapping, a map contains what runs now: names and their Tasks, futures or handles. A map is
    hashable, equal only to itself, and can be referenced weakly.

    Example:
        >>> from namedtasks import TaskMap, ThreadTaskMap
        >>> def describe(tasks: AnyTaskMap) -> str:
        ...     counts = tasks.statistics()
        ...     return f"{counts.running} run, {counts.waiting} wait"
        >>> def attach():
        ...     raise OSError("device busy")
        >>> with ThreadTaskMap(instruments=()) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     describe(tasks)
        '0 run, 1 wait'

    .. versionadded:: 0.1
    """

    def check(self, name: Hashable, *, operation: str | None = None) -> RefusedError | None:
        """Return the refusal that a start would raise now; None if it would be admitted."""
        ...

    def state(self, name: Hashable, *, operation: str | None = None) -> State:
        """Return the state of *name*; its failures are those of exactly *operation*."""
        ...

    def failure(self, name: Hashable, *, operation: str | None = None) -> Failure | None:
        """Return the failures on record of *name* with exactly this *operation*."""
        ...

    def failures(self, *, state: State | None = None) -> Iterator[Failure]:
        """Return an iterator over all failures on record, as they are at this call."""
        ...

    def pending(self) -> list[PendingRun]:
        """Return the runs that wait for their turn to take their names."""
        ...

    def outcomes(self) -> list[Outcome]:
        """Return the last outcomes, the newest last; empty without ``keep_outcomes``."""
        ...

    def statistics(self) -> TaskMapStatistics:
        """Count what runs, waits and so on. Its cost does not grow."""
        ...

    def keys(self) -> KeysView[Hashable]:
        """Return a snapshot of the names that run now."""
        ...

    def values(self) -> ValuesView[Any]:
        """Return a snapshot of the handles of what runs now."""
        ...

    def items(self) -> ItemsView[Hashable, Any]:
        """Return a snapshot of the names and handles of what runs now."""
        ...

    def __getitem__(self, name: Hashable, /) -> Any: ...

    def __contains__(self, name: object, /) -> bool: ...

    def __iter__(self) -> Iterator[Hashable]: ...

    def __len__(self) -> int: ...


publish(AnyTaskMap, module="namedtasks.abc")
