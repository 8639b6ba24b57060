"""Runs that start and finish on trio, each with its floor."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager

import attrs
import trio
import trio.testing

from benchmarks.handwritten import HandWrittenMap
from benchmarks.measure import Work, each
from benchmarks.settings import Kind, Settings
from namedtasks import TaskMap


@attrs.frozen
class Idle:
    """A map in which nothing runs, and a nursery."""

    settings: Settings
    tasks: TaskMap
    nursery: trio.Nursery

    def names(self, count: int = 1000, kind: Kind = "text") -> list[Hashable]:
        """Return the names of a batch of *count*."""
        return self.settings.names(count, kind)


@asynccontextmanager
async def idle(settings: Settings) -> AsyncGenerator[Idle]:
    """Open a map in which nothing runs."""
    async with settings.open_map() as tasks, trio.open_nursery() as nursery:
        yield Idle(settings, tasks, nursery)


async def noop() -> None:
    """Do nothing, as a body."""


async def boom() -> None:
    """Fail, as a body."""
    raise ValueError("boom")


def batch(kind: Kind = "text") -> Callable[[Idle], Work]:
    """Start a batch, and wait until nothing runs."""

    def work(stage: Idle) -> Work:
        tasks, names = stage.tasks, stage.names(kind=kind)

        async def do() -> None:
            for name in names:
                tasks.start_soon(name, noop)
            await tasks.wait_idle()

        return each(len(names), do)

    return work


def observed_batch(stage: Idle) -> Work:
    """Start a batch while an observation is open, and wait until nothing runs."""
    tasks, names = stage.tasks, stage.names()

    async def do() -> None:
        with tasks.observe():
            for name in names:
                tasks.start_soon(name, noop)
            await tasks.wait_idle()

    return each(len(names), do)


def bare_batch(stage: Idle) -> Work:
    """Start a batch in a nursery, and wait for its end."""
    names = stage.names()

    async def do() -> None:
        async with trio.open_nursery() as nursery:
            for _ in names:
                nursery.start_soon(noop)

    return each(len(names), do)


def batch_by_hand(stage: Idle) -> Work:
    """Start a batch in the hand-written map."""
    by_hand, names = HandWrittenMap(stage.nursery), stage.names()

    async def do() -> None:
        for name in names:
            by_hand.start_soon(name, noop)
        await by_hand.wait_idle()

    return each(len(names), do)


def cold(stage: Idle) -> Work:
    """Open a map for 10 000 runs, in batches."""
    settings, batches = stage.settings, _batches(stage)

    async def do() -> None:
        async with settings.open_map() as tasks:
            for names in batches:
                for name in names:
                    tasks.start_soon(name, noop)
                await tasks.wait_idle()

    return each(sum(map(len, batches)), do)


def bare_cold(stage: Idle) -> Work:
    """Start as many bare tasks, in the same batches."""
    batches = _batches(stage)

    async def do() -> None:
        for names in batches:
            async with trio.open_nursery() as nursery:
                for _ in names:
                    nursery.start_soon(noop)

    return each(sum(map(len, batches)), do)


def _batches(stage: Idle) -> list[list[Hashable]]:
    names = stage.names(10_000)
    size = len(stage.names())
    return [names[start : start + size] for start in range(0, len(names), size)]


def cold_at_once(stage: Idle) -> Work:
    """Open a map for 10 000 runs, all started before the first one begins."""
    settings, names = stage.settings, stage.names(10_000)

    async def do() -> None:
        async with settings.open_map() as tasks:
            for name in names:
                tasks.start_soon(name, noop)

    return each(len(names), do)


def bare_cold_at_once(stage: Idle) -> Work:
    """Open a nursery for 10 000 tasks."""
    names = stage.names(10_000)

    async def do() -> None:
        async with trio.open_nursery() as nursery:
            for _ in names:
                nursery.start_soon(noop)

    return each(len(names), do)


def one_by_one(stage: Idle) -> Work:
    """Start, and wait for the handle, before the next one."""
    tasks, names = stage.tasks, stage.names()

    async def do() -> None:
        for name in names:
            await tasks.start_soon(name, noop).wait()

    return each(len(names), do)


def bare_one_by_one(stage: Idle) -> Work:
    """Start a task that sets an event, and wait for that, before the next one."""
    nursery, names = stage.nursery, stage.names()

    async def tell(event: trio.Event) -> None:
        await noop()
        event.set()

    async def do() -> None:
        for _ in names:
            event = trio.Event()
            nursery.start_soon(tell, event)
            await event.wait()

    return each(len(names), do)


def failing(stage: Idle) -> Work:
    """Start a batch of new names that fail."""
    tasks, names, numbers = stage.tasks, stage.names(), itertools.count()

    async def work() -> float:
        number = next(numbers)
        fresh = [f"{name}-{number}" for name in names]
        begin = time.perf_counter()
        for name in fresh:
            tasks.start_soon(name, boom)
        await tasks.wait_idle()
        taken = time.perf_counter() - begin
        if stage.settings.size is None:  # a count of instructions would have this in it
            for name in fresh:
                tasks.forget(name)
        return taken / len(fresh)

    return work


# From the end of the last run to the wait

_TRIES = 5
"""Batches in a round, of which the median counts."""


def end_to_wait_idle(stage: Idle) -> Work:
    """End a batch at once, and time the return of `wait_idle`."""
    tasks, names = stage.tasks, stage.names()

    async def once() -> float:
        ends: list[float] = []
        go = trio.Event()

        async def body() -> None:
            await go.wait()
            ends.append(time.perf_counter())

        for name in names:
            tasks.start_soon(name, body)
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        await tasks.wait_idle()
        return time.perf_counter() - ends[-1]

    return _median_of(once)


def end_to_event(stage: Idle) -> Work:
    """End a batch of bare tasks at once; the last one sets an event."""
    count = len(stage.names())

    async def once() -> float:
        ends: list[float] = []
        go, ended = trio.Event(), trio.Event()

        async def body() -> None:
            await go.wait()
            ends.append(time.perf_counter())
            if len(ends) == count:
                ended.set()

        for _ in range(count):
            stage.nursery.start_soon(body)
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        await ended.wait()
        return time.perf_counter() - ends[-1]

    return _median_of(once)


def _median_of(once: Callable[[], Awaitable[float]]) -> Work:
    async def work() -> float:
        return statistics.median([await once() for _ in range(_TRIES)])

    return work
