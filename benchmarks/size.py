"""Bytes per name, and whether anything gets slower with very many names."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import trio
import trio.testing

import namedtasks
from benchmarks.measure import Comparison, Work, compare, summary
from namedtasks import Backoff, TaskMap

CALLS = 200
"""Calls of a wait in a row."""

AT_ONCE = 10_000
"""Failing runs that are started before their end is waited for."""

FOR_A_DAY = Backoff(initial=86_400.0, maximum=86_400.0)
"""So that nothing lapses while it is measured."""

SHARED = ValueError("the disk is full")


async def fail() -> None:
    """Fail with one and the same error as all the others."""
    raise SHARED


async def bytes_each(
    count: int, fill: Callable[[list[str]], Awaitable[object]]
) -> tuple[float, object]:
    """What *fill* allocates and keeps for each of *count* names; the names are not counted."""
    names = [f"volume-{number}" for number in range(count)]
    gc.collect()
    tracemalloc.start()
    kept = await fill(names)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / count, kept


async def fill_waiting(tasks: TaskMap, names: list[str]) -> None:
    """Have each of *names* fail once."""
    for start in range(0, len(names), AT_ONCE):
        for name in names[start : start + AT_ONCE]:
            tasks.start_soon(name, fail)
        await tasks.wait_idle()


async def waiting(count: int) -> AsyncIterator[Comparison]:
    """Bytes per waiting name, beside the ancestor's 165."""
    async with namedtasks.open_task_map(backoff=FOR_A_DAY, instruments=()) as tasks:
        mine, _ = await bytes_each(count, lambda names: fill_waiting(tasks, names))
        what = f"bytes per waiting name, {count:,} names".replace(",", " ")
        yield summary(what, "the ancestor, in Go (read off)", "B", [(mine, 165.0)])


async def running(count: int) -> AsyncIterator[Comparison]:
    """Bytes per running name, beside a bare trio task."""
    event = trio.Event()
    async with namedtasks.open_task_map(instruments=()) as tasks, trio.open_nursery() as nursery:

        async def bare(names: list[str]) -> None:
            for _ in names:
                nursery.start_soon(event.wait)
            await trio.testing.wait_all_tasks_blocked()

        async def ours(names: list[str]) -> None:
            for name in names:
                tasks.start_soon(name, event.wait)
            await trio.testing.wait_all_tasks_blocked()

        its, _ = await bytes_each(count, bare)
        mine, _ = await bytes_each(count, ours)
        event.set()
        what = f"bytes per running name, {count:,} names".replace(",", " ")
        yield summary(what, "a task that waits for an event", "B", [(mine, its)])


async def flatness(counts: list[int], rounds: int) -> AsyncIterator[Comparison]:
    """`wait_idle` with more and more failures on record, beside a look-up at the same size."""
    async with namedtasks.open_task_map(backoff=FOR_A_DAY, instruments=()) as tasks:
        names: list[str] = []
        table: dict[str, int] = {}
        for count in counts:
            more = [f"volume-{number}" for number in range(len(names), count)]
            await fill_waiting(tasks, more)
            names += more
            table.update((name, 0) for name in more)
            what = f"wait_idle() with {count:,} failures on record".replace(",", " ")

            yield await compare(
                what, "checkpoint + look-up", waits(tasks), look_ups(table), rounds=rounds
            )


def waits(tasks: TaskMap) -> Work:
    """Wait for a map that is idle."""

    async def work() -> int:
        for _ in range(CALLS):
            await tasks.wait_idle()
        return CALLS

    return work


def look_ups(table: dict[str, int]) -> Work:
    """Go once through the scheduler, and look something up, all over the table."""

    async def work() -> int:
        for number in range(CALLS):
            await trio.lowlevel.checkpoint()
            table.get(f"volume-{number * 7919 % (len(table) or 1)}")
        return CALLS

    return work
