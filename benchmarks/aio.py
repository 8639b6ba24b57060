"""Runs that start and finish on asyncio, beside their floor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import attrs

import namedtasks.asyncio
from benchmarks.measure import Work, each
from benchmarks.settings import Settings
from benchmarks.starts import noop


@attrs.frozen
class Loop:
    """A map on asyncio in which nothing runs."""

    settings: Settings
    tasks: namedtasks.asyncio.TaskMap

    def names(self, count: int = 1000) -> list[str]:
        """The names of a batch of *count*."""
        return self.settings.names(count)


@asynccontextmanager
async def loop(settings: Settings) -> AsyncGenerator[Loop]:
    """Open a map on asyncio."""
    async with settings.open_asyncio_map() as tasks:
        yield Loop(settings, tasks)


def batch(stage: Loop) -> Work:
    """Start a batch, and await each Task."""
    tasks, names = stage.tasks, stage.names()

    async def do() -> None:
        for task in [tasks.create_task(name, noop) for name in names]:
            await task

    return each(len(names), do)


def bare_batch(stage: Loop) -> Work:
    """The same in a TaskGroup, with a dict of names that is kept by callbacks."""
    names = stage.names()

    async def do() -> None:
        running: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            for name in names:
                task = running[name] = group.create_task(noop())
                task.add_done_callback(partial(running.pop, name))

    return each(len(names), do)
