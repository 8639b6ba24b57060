"""Runs that start and finish on asyncio, and their floor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager
from functools import partial

import attrs

import namedtasks.asyncio
from benchmarks.measure import Work, each
from benchmarks.settings import Kind, Settings
from benchmarks.starts import noop


@attrs.frozen
class Loop:
    """A map on asyncio in which nothing runs."""

    settings: Settings
    tasks: namedtasks.asyncio.TaskMap

    def names(self, count: int = 1000, kind: Kind = "text") -> list[Hashable]:
        """Return the names of a batch of *count*."""
        return self.settings.names(count, kind)


@asynccontextmanager
async def loop(settings: Settings) -> AsyncGenerator[Loop]:
    """Open a map on asyncio."""
    async with settings.open_asyncio_map() as tasks:
        yield Loop(settings, tasks)


def batch(kind: Kind) -> Callable[[Loop], Work]:
    """Start a batch, and await each Task."""

    def work(stage: Loop) -> Work:
        tasks, names = stage.tasks, stage.names(kind=kind)

        async def do() -> None:
            for task in [tasks.create_task(name, noop) for name in names]:
                await task

        return each(len(names), do)

    return work


def bare_batch(kind: Kind) -> Callable[[Loop], Work]:
    """Start the same in a TaskGroup, with a dict of names that callbacks keep."""

    def work(stage: Loop) -> Work:
        names = stage.names(kind=kind)

        async def do() -> None:
            running: dict[Hashable, asyncio.Task[None]] = {}
            async with asyncio.TaskGroup() as group:
                for name in names:
                    task = running[name] = group.create_task(noop())
                    task.add_done_callback(partial(running.pop, name))

        return each(len(names), do)

    return work
