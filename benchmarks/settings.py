"""How a measurement is made: how often, how large, and how our maps are opened."""

from __future__ import annotations

import inspect
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs

import namedtasks
import namedtasks.asyncio
from namedtasks import Backoff, TaskMap

FOR_A_DAY = Backoff(initial=86_400.0, maximum=86_400.0)
"""So that a name that failed waits for as long as anything is measured."""

HAS_WORKERS = "workers" in inspect.signature(namedtasks.open_task_map).parameters
"""Whether a map on trio can be told to reuse its tasks, or not to."""


@attrs.frozen(kw_only=True)
class Settings:
    """What the command line asked for."""

    rounds: int = 60
    """How often each side of a row is measured."""
    quick: bool = False
    """Whether it is a trial: everything small."""
    workers: bool = True
    """Whether maps on trio reuse their tasks, where they know how to."""

    def batch(self, count: int) -> int:
        """How many to do in a row, in place of *count*."""
        return max(10, count // 20) if self.quick else count

    def many(self, count: int) -> int:
        """How many names to fill a map with, in place of *count*."""
        return min(count, max(10, count // 1000)) if self.quick else count

    def names(self, count: int) -> list[str]:
        """The names of a batch of *count*."""
        return [f"volume-{number}" for number in range(self.batch(count))]

    def open_map(
        self, backoff: Backoff = FOR_A_DAY, retention: float | None = None
    ) -> AbstractAsyncContextManager[TaskMap, None]:
        """Open a map on trio: no instruments, and a failed name waits for a day."""
        more: dict[str, Any] = {"workers": self.workers} if HAS_WORKERS else {}
        return namedtasks.open_task_map(
            backoff=backoff, retention=retention, instruments=(), **more
        )

    def open_thread_map(
        self,
        executor: Any = None,
        backoff: Backoff = FOR_A_DAY,
        limit: int | None = None,
        retention: float | None = None,
    ) -> namedtasks.ThreadTaskMap:
        """Open the same for threads, on threads of its own or on *executor*."""
        return namedtasks.ThreadTaskMap(
            backoff=backoff,
            instruments=(),
            executor=executor,
            limit=limit,
            retention=retention,
        )

    def open_asyncio_map(self) -> AbstractAsyncContextManager[namedtasks.asyncio.TaskMap, None]:
        """Open the same on asyncio."""
        return namedtasks.asyncio.open_task_map(backoff=FOR_A_DAY, instruments=())
