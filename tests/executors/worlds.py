"""The same few lines in each dialect: start something in a pool, and get its error."""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any

import trio

import namedtasks
import namedtasks.asyncio
from namedtasks.executors import from_pool
from tests.executors.operation import LOOK_EVERY, SOON

Use = Callable[["World"], Awaitable[None]]


class World(abc.ABC):
    """An open map, whose executor is the pool of the test."""

    tasks: Any

    @abc.abstractmethod
    def start(self, name: str, fn: Callable[..., Any], *args: Any) -> Any:
        """Start ``fn(*args)`` in the pool; returns the handle."""

    @abc.abstractmethod
    async def error(self, handle: Any) -> BaseException | None:
        """Wait for the end of a run; returns what it failed with."""

    async def start_error(self, name: str, fn: Callable[..., Any], *args: Any) -> object:
        """Start something; returns the error that is raised there, or at the end of the run."""
        try:
            handle = self.start(name, fn, *args)
        except Exception as error:
            return error
        return await self.error(handle)

    @abc.abstractmethod
    async def result(self, handle: Any) -> Any:
        """Wait for the end of a run; returns what its function gave."""

    @abc.abstractmethod
    async def _sleep(self, seconds: float) -> None: ...

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until *condition* holds, which other processes see to."""
        limit = time.monotonic() + SOON
        while not condition():
            assert time.monotonic() < limit
            await self._sleep(LOOK_EVERY)


class TrioWorld(World):
    def __init__(self, tasks: Any) -> None:
        self.tasks = tasks

    def start(self, name: str, fn: Callable[..., Any], *args: Any) -> Any:
        return self.tasks.start_thread_soon(name, fn, *args)

    async def error(self, handle: Any) -> BaseException | None:
        try:
            await handle.wait()
        except namedtasks.TaskFailedError as error:
            return error.__cause__
        return None

    async def result(self, handle: Any) -> Any:
        return await handle.wait()

    async def _sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class AsyncioWorld(World):
    def __init__(self, tasks: Any) -> None:
        self.tasks = tasks

    def start(self, name: str, fn: Callable[..., Any], *args: Any) -> Any:
        return self.tasks.run_in_executor(name, fn, *args)

    async def error(self, handle: Any) -> BaseException | None:
        await asyncio.wait([handle])
        error: BaseException | None = handle.exception()
        return error

    async def result(self, handle: Any) -> Any:
        return await handle

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ThreadWorld(World):
    """Its coroutines never suspend."""

    def __init__(self, tasks: Any) -> None:
        self.tasks = tasks

    def start(self, name: str, fn: Callable[..., Any], *args: Any) -> Any:
        return self.tasks.submit(name, fn, *args)

    async def error(self, handle: Any) -> BaseException | None:
        error: BaseException | None = handle.exception()
        return error

    async def result(self, handle: Any) -> Any:
        return handle.result(SOON)

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def run_in_trio(use: Use, pool: Executor, **settings: Any) -> None:
    async def main() -> None:
        async with namedtasks.open_task_map(
            executor=from_pool(pool), instruments=(), **settings
        ) as tasks:
            await use(TrioWorld(tasks))

    trio.run(main)


def run_in_asyncio(use: Use, pool: Executor, **settings: Any) -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(
            executor=pool, instruments=(), **settings
        ) as tasks:
            await use(AsyncioWorld(tasks))

    asyncio.run(main())


def run_in_threads(use: Use, pool: Executor, **settings: Any) -> None:
    with namedtasks.ThreadTaskMap(executor=pool, instruments=(), **settings) as tasks:
        awaitable: Any = use(ThreadWorld(tasks))
        try:
            awaitable.send(None)
        except StopIteration:
            return
        raise AssertionError("it waits for something")


RUNS = {"trio": run_in_trio, "asyncio": run_in_asyncio, "threads": run_in_threads}
"""How to use a map, by its dialect."""
