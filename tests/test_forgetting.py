"""Forgotten records take no memory, in any dialect."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Generator, Hashable
from contextlib import contextmanager

import trio
from trio.testing import MockClock

import namedtasks
import namedtasks.asyncio
from namedtasks.testing import ManualClock
from tests.threads.helpers import boom

NAMES: list[Hashable] = [f"vol-{number}" for number in range(2_000)]
LEFT_PER_NAME = 20
"""Bytes; the record of a failure takes several times that."""


@contextmanager
def nothing_left(*, warm: bool) -> Generator[None]:
    """Check what the block leaves, unless it is the first: that one makes caches grow."""
    if not warm:
        yield
        return
    gc.collect()
    tracemalloc.start()
    try:
        yield
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < LEFT_PER_NAME * len(NAMES), f"{left / len(NAMES):.0f} bytes for each name"


async def boom_in_task() -> None:
    boom()


def test_forgotten_failures_take_no_memory_on_trio() -> None:
    async def main() -> None:
        async with namedtasks.open_task_map(instruments=()) as tasks:
            for warm in (False, True):
                with nothing_left(warm=warm):
                    for name in NAMES:
                        tasks.start_soon(name, boom_in_task)
                        await tasks.wait_idle()
                    assert all(tasks.forget(name) for name in NAMES)
                    await trio.testing.wait_all_tasks_blocked()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_forgotten_failures_take_no_memory_on_asyncio() -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(instruments=()) as tasks:
            for warm in (False, True):
                with nothing_left(warm=warm):
                    for name in NAMES:
                        _ = tasks.create_task(name, boom_in_task)
                        await tasks.wait_idle()
                    assert all(tasks.forget(name) for name in NAMES)
                    await asyncio.sleep(0)

    asyncio.run(main())


def test_forgotten_failures_take_no_memory_in_threads() -> None:
    with namedtasks.ThreadTaskMap(instruments=(), clock=ManualClock()) as tasks:
        for warm in (False, True):
            with nothing_left(warm=warm):
                for name in NAMES:
                    tasks.submit(name, boom).exception()
                    tasks.wait_idle()
                assert all(tasks.forget(name) for name in NAMES)
