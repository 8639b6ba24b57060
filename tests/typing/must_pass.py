"""Calls that type checkers must accept, with the types that they must find.

Checked by mypy and pyright, both strict; never run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Literal, NewType, assert_type

import attrs
import trio

import namedtasks.asyncio
from namedtasks import (
    ANY,
    AlreadyRunningError,
    Failure,
    IfBusy,
    LoggingInstrument,
    RefusedError,
    State,
    TaskFuture,
    TaskHandle,
    TaskMap,
    TaskMapStatistics,
    ThreadTaskMap,
)
from namedtasks.abc import AnyTaskMap, BackoffPolicy, FailedRun, Instrument
from namedtasks.executors import from_pool
from namedtasks.instruments import TaskFailed


async def fetch(url: str, retries: int) -> bytes:
    raise NotImplementedError(url, retries)


def compute(number: int) -> float:
    return number / 2


class Fibonacci:
    """A policy is structural."""

    def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float | None:
        return float(failures)


class Meter(Instrument):
    def map_opened(self, tasks: AnyTaskMap, /) -> None:
        assert_type(tasks.statistics(), TaskMapStatistics)

    def task_failed(self, event: TaskFailed, /) -> None:
        assert_type(event.error, BaseException)
        assert_type(event.retry_in, float | None)


async def starts(tasks: TaskMap) -> None:
    handle = tasks.start_soon("a", fetch, "https://example.org", 3)
    assert_type(handle, TaskHandle[bytes])
    assert_type(await handle.wait(), bytes)
    assert_type(
        tasks.start_soon(("vol", 1), fetch, "x", 3, if_busy="skip"), TaskHandle[bytes] | None
    )
    assert_type(
        tasks.start_soon("a", fetch, "x", 3, if_busy="refuse", timeout=1, operation="get"),
        TaskHandle[bytes],
    )
    assert_type(tasks.start_soon("a", partial(fetch, "x", retries=1)), TaskHandle[bytes])
    tasks.post("a", fetch, "x", 3)


async def threads(tasks: TaskMap) -> None:
    handle = tasks.start_thread_soon("a", compute, 3)
    assert_type(await handle.wait(), float)
    assert_type(tasks.start_thread_soon("a", compute, 3, if_busy="skip"), TaskHandle[float] | None)
    tasks.start_thread_soon("a", compute, 3, executor=trio.to_thread.run_sync)
    limiter = trio.CapacityLimiter(3)
    tasks.start_thread_soon(
        "a", compute, 3, executor=partial(trio.to_thread.run_sync, limiter=limiter)
    )


async def partials(tasks: TaskMap, in_threads: ThreadTaskMap) -> None:
    """mypy does not check the arguments that are handed over with a `partial`; pyright does."""
    tasks.start_soon("a", partial(fetch, "x"), "3")  # pyright: ignore[reportArgumentType]
    tasks.start_thread_soon("a", partial(compute), "3")  # pyright: ignore[reportArgumentType]
    in_threads.submit("a", partial(compute), "3")  # pyright: ignore[reportArgumentType]


async def pools(tasks: TaskMap, pool: ThreadPoolExecutor) -> None:
    def get_pool(workers: int = 2) -> Executor:
        raise NotImplementedError(workers)

    tasks.start_thread_soon("a", compute, 3, executor=from_pool(pool))
    tasks.start_thread_soon("a", compute, 3, executor=from_pool(get_pool))
    tasks.start_thread_soon("a", compute, 3, executor=from_pool(partial(get_pool, workers=3)))
    namedtasks.open_task_map(executor=from_pool(lambda: pool))


def busy_names(tasks: TaskMap, in_threads: ThreadTaskMap, said: IfBusy) -> None:
    """What is never None is typed so; who cannot say which it is must look."""
    assert_type(tasks.start_soon("a", fetch, "x", 3, if_busy="join"), TaskHandle[bytes])
    assert_type(tasks.start_soon("a", fetch, "x", 3, if_busy="replace"), TaskHandle[bytes])
    assert_type(tasks.start_soon("a", fetch, "x", 3, if_busy="queue"), TaskHandle[bytes])
    assert_type(tasks.start_soon("a", fetch, "x", 3, if_busy=said), TaskHandle[bytes] | None)
    assert_type(tasks.start_thread_soon("a", compute, 3, if_busy="join"), TaskHandle[float])
    assert_type(tasks.start_thread_soon("a", compute, 3, if_busy="replace"), TaskHandle[float])
    assert_type(tasks.start_thread_soon("a", compute, 3, if_busy="queue"), TaskHandle[float])
    assert_type(tasks.start_thread_soon("a", compute, 3, if_busy=said), TaskHandle[float] | None)
    assert_type(in_threads.submit("a", compute, 3), TaskFuture[float])
    assert_type(in_threads.submit("a", compute, 3, if_busy="refuse"), TaskFuture[float])
    assert_type(in_threads.submit("a", compute, 3, if_busy="join"), TaskFuture[float])
    assert_type(in_threads.submit("a", compute, 3, if_busy="replace"), TaskFuture[float])
    assert_type(in_threads.submit("a", compute, 3, if_busy="queue"), TaskFuture[float])
    assert_type(in_threads.submit("a", compute, 3, if_busy="skip"), TaskFuture[float] | None)
    assert_type(in_threads.submit("a", compute, 3, if_busy=said), TaskFuture[float] | None)
    tasks.post("a", fetch, "x", 3, if_busy=said)


def futures(tasks: ThreadTaskMap, pool: ThreadPoolExecutor) -> None:
    future = tasks.submit(("vol", ANY), compute, 3, if_busy="replace", timeout=1, operation="get")
    assert_type(future, TaskFuture[float])
    assert_type(future.result(1), float)
    assert_type(future.exception(), BaseException | None)
    either: Literal["join", "queue"] = "join" if future.done() else "queue"
    assert_type(tasks.submit("a", compute, 3, if_busy=either), TaskFuture[float])
    assert_type(
        tasks.submit("a", partial(compute, number=3), executor=pool, if_busy="queue"),
        TaskFuture[float],
    )
    assert_type(
        tasks.submit("a", compute, 3, executor=lambda: pool, if_busy="skip"),
        TaskFuture[float] | None,
    )
    mapping: Mapping[Hashable, TaskFuture[Any]] = tasks
    plain: Future[float] = tasks.submit("a", compute, 3, if_busy="join")
    print(mapping, plain)


VolumeId = NewType("VolumeId", str)


@attrs.frozen
class PodOf:
    volume: VolumeId
    pod: str


def names(tasks: TaskMap, refusal: AlreadyRunningError) -> None:
    tasks.start_soon(VolumeId("vol-1"), fetch, "x", 3)
    tasks.start_soon(PodOf(VolumeId("vol-1"), "pod-a"), fetch, "x", 3)
    tasks.start_soon((VolumeId("vol-1"), ANY), fetch, "x", 3)
    whole: tuple[VolumeId, Hashable] = (VolumeId("vol-1"), ANY)
    assert_type(tasks.check(whole), RefusedError | None)
    assert_type(refusal.holders, tuple[Hashable, ...])


async def looks(tasks: TaskMap) -> None:
    mapping: Mapping[Hashable, TaskHandle[Any]] = tasks
    assert_type(mapping["a"], TaskHandle[Any])
    assert_type(tasks.check("a"), RefusedError | None)
    assert_type(tasks.state("a"), State)
    assert_type(tasks.failure("a"), Failure | None)
    assert_type(tasks.statistics(), TaskMapStatistics)
    assert_type(await tasks.shutdown(grace=1), tuple[Hashable, ...])
    assert_type(tasks.cancel_matching(lambda name: name == "a"), int)


async def opens() -> int:
    policy: BackoffPolicy = Fibonacci()
    opening = namedtasks.open_task_map(backoff=policy, instruments=[Meter()], limit=3)
    assert_type(opening, AbstractAsyncContextManager[TaskMap, None])
    namedtasks.open_task_map(instruments=[LoggingInstrument(level="INFO", traceback="never")])
    LoggingInstrument(logging.getLogger("volumes"), level=logging.INFO, traceback="always")
    namedtasks.open_task_map(backoff=namedtasks.Backoff(exempt=(ValueError,)))
    namedtasks.open_task_map(backoff=None, executor=trio.to_thread.run_sync)
    async with namedtasks.open_task_map() as tasks:
        bound_inside = len(tasks)
    print(bound_inside)  # no "possibly unbound": the block swallows nothing
    return bound_inside


def handles_are_covariant(handle: TaskHandle[bool]) -> TaskHandle[int]:
    return handle


async def on_asyncio(tasks: namedtasks.asyncio.TaskMap) -> None:
    task = tasks.create_task("a", fetch, "https://example.org", 3)
    assert_type(task, asyncio.Task[bytes])
    assert_type(await task, bytes)
    assert_type(
        tasks.create_task(("vol", 1), fetch, "x", 3, if_busy="skip"), asyncio.Task[bytes] | None
    )
    assert_type(
        tasks.create_task("a", fetch, "x", 3, if_busy="refuse", timeout=1, operation="get"),
        asyncio.Task[bytes],
    )
    assert_type(tasks.create_task("a", partial(fetch, "x", retries=1)), asyncio.Task[bytes])
    assert_type(tasks.run_in_executor("a", compute, 3), asyncio.Task[float])
    assert_type(
        tasks.run_in_executor("a", compute, 3, executor=ThreadPoolExecutor(), if_busy="skip"),
        asyncio.Task[float] | None,
    )
    assert_type(
        tasks.run_in_executor("a", compute, 3, executor=lambda: ThreadPoolExecutor()),
        asyncio.Task[float],
    )
    tasks.post("a", fetch, "x", 3)
    tasks.create_task((VolumeId("vol-1"), ANY), fetch, "x", 3)
    mapping: Mapping[Hashable, asyncio.Task[Any]] = tasks
    assert_type(mapping["a"], asyncio.Task[Any])
    assert_type(await tasks.shutdown(grace=1), tuple[Hashable, ...])


async def busy_names_on_asyncio(tasks: namedtasks.asyncio.TaskMap, said: IfBusy) -> None:
    """Who joins shares a run, and so gets a future of one's own; all others get the Task."""
    assert_type(tasks.create_task("a", fetch, "x", 3, if_busy="replace"), asyncio.Task[bytes])
    assert_type(tasks.create_task("a", fetch, "x", 3, if_busy="queue"), asyncio.Task[bytes])
    joined = tasks.create_task("a", fetch, "x", 3, if_busy="join")
    assert_type(joined, asyncio.Future[bytes])
    assert_type(await joined, bytes)
    assert_type(tasks.create_task("a", fetch, "x", 3, if_busy=said), asyncio.Future[bytes] | None)
    assert_type(tasks.run_in_executor("a", compute, 3, if_busy="refuse"), asyncio.Task[float])
    assert_type(tasks.run_in_executor("a", compute, 3, if_busy="replace"), asyncio.Task[float])
    assert_type(tasks.run_in_executor("a", compute, 3, if_busy="queue"), asyncio.Task[float])
    assert_type(tasks.run_in_executor("a", compute, 3, if_busy="join"), asyncio.Future[float])
    assert_type(tasks.run_in_executor("a", compute, 3, if_busy=said), asyncio.Future[float] | None)
    tasks.post("a", fetch, "x", 3, if_busy=said)


async def opens_on_asyncio() -> int:
    opening = namedtasks.asyncio.open_task_map(backoff=None, executor=ThreadPoolExecutor())
    assert_type(opening, AbstractAsyncContextManager[namedtasks.asyncio.TaskMap, None])
    async with namedtasks.asyncio.open_task_map(instruments=[Meter()], limit=3) as tasks:
        bound_inside = len(tasks)
    print(bound_inside)  # no "possibly unbound": the block swallows nothing
    return bound_inside


def any_map(trio: TaskMap, threads: ThreadTaskMap, asyncio: namedtasks.asyncio.TaskMap) -> None:
    """An instrument may be told of a map of any dialect."""
    maps: list[AnyTaskMap] = [trio, threads, asyncio]
    for tasks in maps:
        Meter().map_opened(tasks)
        assert_type(tasks.outcomes(), list[namedtasks.Outcome])
