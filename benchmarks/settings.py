"""The settings of a measurement: rounds, sizes, and our maps, opened in the same way each time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import attrs

import namedtasks
import namedtasks.asyncio
from namedtasks import Backoff, TaskMap
from namedtasks.abc import Instrument

FOR_A_DAY = Backoff(initial=86_400.0, maximum=86_400.0)
"""Keeps a name that failed waiting for as long as anything is measured."""

Kind = Literal["text", "integers", "tuples"]

KINDS: dict[Kind, Callable[[int], Hashable]] = {
    "text": "volume-{}".format,
    "integers": int,
    "tuples": lambda number: (f"volume-{number}", "node-1"),
}
"""Kinds of names, each with a function that makes the name of a number."""


@attrs.frozen(kw_only=True)
class Settings:
    """The choices of the command line."""

    rounds: int = 60
    """Measurements of each side of a row."""
    quick: bool = False
    """True for a trial, with everything small."""
    workers: bool = True
    """True if maps on trio reuse their tasks."""
    size: int | None = None
    """Operations in each batch; None for as many as the row asks for."""

    def batch(self, count: int) -> int:
        """Return the number of operations in a batch, instead of *count*."""
        if self.size is not None:
            return self.size
        return max(10, count // 20) if self.quick else count

    def many(self, count: int) -> int:
        """Return the number of names to fill a map with, instead of *count*."""
        return min(count, max(10, count // 1000)) if self.quick else count

    def names(self, count: int, kind: Kind = "text") -> list[Hashable]:
        """Return the names of a batch of *count*."""
        return [KINDS[kind](number) for number in range(self.batch(count))]

    def open_map(
        self,
        instruments: Iterable[Instrument] = (),
        backoff: Backoff = FOR_A_DAY,
        retention: float | None = None,
    ) -> AbstractAsyncContextManager[TaskMap, None]:
        """Open a map on trio: no instruments, and a failed name waits for a day."""
        return namedtasks.open_task_map(
            backoff=backoff, retention=retention, instruments=instruments, workers=self.workers
        )

    def open_thread_map(
        self,
        instruments: Iterable[Instrument] = (),
        executor: Any = None,
        backoff: Backoff = FOR_A_DAY,
        limit: int | None = None,
        retention: float | None = None,
    ) -> namedtasks.ThreadTaskMap:
        """Open the same for threads, on threads of its own or on *executor*."""
        return namedtasks.ThreadTaskMap(
            backoff=backoff,
            instruments=instruments,
            executor=executor,
            limit=limit,
            retention=retention,
        )

    def open_asyncio_map(
        self, instruments: Iterable[Instrument] = ()
    ) -> AbstractAsyncContextManager[namedtasks.asyncio.TaskMap, None]:
        """Open the same on asyncio."""
        return namedtasks.asyncio.open_task_map(backoff=FOR_A_DAY, instruments=instruments)
