"""Work in threads: from trio, in the thread map, and starts that come from another thread."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Literal

import attrs
import trio

from benchmarks.measure import Work, each
from benchmarks.refusals import Busy
from benchmarks.settings import Kind, Settings
from benchmarks.starts import Idle
from namedtasks import RefusedError, ThreadTaskMap

BURST = 500
"""Functions that are started before the first of them is waited for."""

ONE_BY_ONE = 200
"""Functions that are waited for one by one; few, as each takes long."""

POSTS = 5000
"""Starts that another thread makes in a row."""


def nothing() -> None:
    """Do nothing, as a function."""


# Threads of a map on trio


def burst(stage: Idle) -> Work:
    """Start many functions at once, and wait for all."""
    tasks, names = stage.tasks, stage.names(BURST)

    async def do() -> None:
        for name in names:
            tasks.start_thread_soon(name, nothing)
        await tasks.wait_idle()

    return each(len(names), do)


def bare_burst(stage: Idle) -> Work:
    """Start a task for each, which waits for its thread."""
    names = stage.names(BURST)

    async def do() -> None:
        async with trio.open_nursery() as nursery:
            for _ in names:
                nursery.start_soon(trio.to_thread.run_sync, nothing)

    return each(len(names), do)


def one_by_one(stage: Idle) -> Work:
    """Wait for each function before the next."""
    tasks, names = stage.tasks, stage.names(ONE_BY_ONE)

    async def do() -> None:
        for name in names:
            await tasks.start_thread_soon(name, nothing).wait()

    return each(len(names), do)


def bare_one_by_one(stage: Idle) -> Work:
    """Wait for each function in a thread of trio's."""
    names = stage.names(ONE_BY_ONE)

    async def do() -> None:
        for _ in names:
            await trio.to_thread.run_sync(nothing)

    return each(len(names), do)


# The thread map


@attrs.frozen
class Pools:
    """A thread map of its own threads, one on the pool, and the pool."""

    settings: Settings
    tasks: ThreadTaskMap
    on_pool: ThreadTaskMap
    pool: concurrent.futures.ThreadPoolExecutor

    def names(self, count: int, kind: Kind = "text") -> list[Hashable]:
        """Return the names of a batch of *count*."""
        return self.settings.names(count, kind)


@asynccontextmanager
async def pools(settings: Settings) -> AsyncGenerator[Pools]:
    """Open two maps and a pool of the usual size."""
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        settings.open_thread_map() as tasks,
        settings.open_thread_map(executor=pool) as on_pool,
    ):
        yield Pools(settings, tasks, on_pool, pool)


Map = Literal["tasks", "on_pool"]
"""The map with threads of its own, or the one on a pool."""


def submit(which: Map, kind: Kind = "text") -> Callable[[Pools], Work]:
    """Submit a batch of functions to a map, then wait for each result."""

    def work(stage: Pools) -> Work:
        tasks: ThreadTaskMap = getattr(stage, which)
        names = stage.names(BURST, kind)

        async def do() -> None:
            for future in [tasks.submit(name, nothing) for name in names]:
                future.result()

        return each(len(names), do)

    return work


def bare_submit(stage: Pools) -> Work:
    """Submit a batch to the pool itself."""
    pool, names = stage.pool, stage.names(BURST)

    async def do() -> None:
        for future in [pool.submit(nothing) for _ in names]:
            future.result()

    return each(len(names), do)


def submit_one_by_one(which: Map) -> Callable[[Pools], Work]:
    """Submit a function, and wait for its result before the next."""

    def work(stage: Pools) -> Work:
        tasks: ThreadTaskMap = getattr(stage, which)
        names = stage.names(ONE_BY_ONE)

        async def do() -> None:
            for name in names:
                tasks.submit(name, nothing).result()

        return each(len(names), do)

    return work


def bare_submit_one_by_one(stage: Pools) -> Work:
    """Submit to the pool itself, one by one."""
    pool, names = stage.pool, stage.names(ONE_BY_ONE)

    async def do() -> None:
        for _ in names:
            pool.submit(nothing).result()

    return each(len(names), do)


def refuse(stage: Busy) -> Work:
    """Start a running name of a thread map, and catch the refusal."""
    calls = range(stage.calls)

    async def work() -> float:
        end = concurrent.futures.Future[None]()
        with stage.settings.open_thread_map() as tasks:
            tasks.submit("runs", end.result)
            begin = time.perf_counter()
            for _ in calls:
                try:  # noqa: SIM105 - suppress() would cost more than what is measured
                    tasks.submit("runs", nothing)
                except RefusedError:
                    pass
            taken = time.perf_counter() - begin
            end.set_result(None)
        return taken / len(calls)

    return work


# Starts from another thread

Part = Literal["poster", "whole"]
"""The time of the posting thread, or of all until the last body has run."""


def posted(part: Part) -> Callable[[Idle], Work]:
    """Post starts from another thread."""

    def work(stage: Idle) -> Work:
        tasks, names = stage.tasks, stage.names(POSTS)

        def post(body: _Countdown) -> None:
            for name in names:
                tasks.post(name, body.run)

        async def measured() -> float:
            taken = await _post(post, len(names), part)
            await tasks.wait_idle()
            return taken

        return measured

    return work


def bare_posted(part: Part) -> Callable[[Idle], Work]:
    """Start as many bare tasks through trio from another thread."""

    def work(stage: Idle) -> Work:
        start, names = stage.nursery.start_soon, stage.names(POSTS)
        token = trio.lowlevel.current_trio_token()

        def post(body: _Countdown) -> None:
            for _ in names:
                token.run_sync_soon(start, body.run)

        async def measured() -> float:
            return await _post(post, len(names), part)

        return measured

    return work


@attrs.define
class _Countdown:
    """A body that sets an event when it has run a number of times."""

    left: int
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        self.left -= 1
        if not self.left:
            self.ended.set()


async def _post(post: Callable[[_Countdown], None], count: int, part: Part) -> float:
    body = _Countdown(count)

    def poster() -> float:
        begin = time.perf_counter()
        post(body)
        return time.perf_counter() - begin

    begin = time.perf_counter()
    taken = await trio.to_thread.run_sync(poster)
    await body.ended.wait()
    whole = time.perf_counter() - begin
    return (taken if part == "poster" else whole) / count
