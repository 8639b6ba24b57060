"""Runs the conformance suite on trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, cast, final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import IfBusy
from namedtasks.executors import from_pool
from tests.conformance.driver import AsyncWorld, Driver, FalsyPool, Job


@final
class TrioWorld(AsyncWorld):
    """A trio map on a clock that only moves when told to."""

    def __init__(self, tasks: namedtasks.TaskMap, nursery: trio.Nursery, clock: MockClock) -> None:
        self.tasks = tasks
        self._map = tasks
        self._nursery = nursery
        self._clock = clock

    def start(
        self,
        name: Hashable,
        job: Job,
        *,
        if_busy: IfBusy = "refuse",
        operation: str | None = None,
        timeout: float | None = None,
        heeds: bool = True,
        **options: Any,
    ) -> Any:
        async def body() -> Any:
            job.begin()
            event = trio.Event()
            job.wake = event.set
            if job.order is None:
                with trio.CancelScope(shield=not heeds):
                    await event.wait()
            return job.finish()

        return cast("Any", self._map).start_soon(
            name, body, if_busy=if_busy, operation=operation, timeout=timeout, **options
        )

    def start_elsewhere(self, name: Hashable, fn: Callable[[], Any], **options: Any) -> Any:
        return self._map.start_thread_soon(name, fn, **options)

    def _start(self, name: Hashable, body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return self._map.start_soon(name, body)

    def _spawn(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._nursery.start_soon(wait)

    async def result(self, handle: Any) -> Any:
        try:
            return await handle.wait()
        except namedtasks.TaskFailedError as error:
            assert error.__cause__ is not None
            raise error.__cause__ from None

    async def was_cancelled(self, handle: Any) -> str | None:
        with pytest.raises(namedtasks.TaskCancelledError) as caught:
            await handle.wait()
        return caught.value.reason

    async def error_of_dropped(self, handle: Any) -> namedtasks.TaskCancelledError:
        with pytest.raises(namedtasks.TaskCancelledError) as caught:
            await handle.wait()
        return caught.value

    @asynccontextmanager
    async def _open(self, **settings: Any) -> AsyncGenerator[TrioWorld]:
        async with namedtasks.open_task_map(**settings) as tasks:
            yield TrioWorld(tasks, self._nursery, self._clock)

    async def settle(self) -> None:
        await wait_all_tasks_blocked()

    async def advance(self, seconds: float) -> None:
        await wait_all_tasks_blocked()
        self._clock.jump(seconds)
        await wait_all_tasks_blocked()

    def now(self) -> float:
        return trio.current_time()


@final
class FalsyExecutor:
    """A pool as an executor, with the pool's length."""

    def __init__(self, pool: FalsyPool) -> None:
        self._pool = pool

    def __len__(self) -> int:
        return len(self._pool)

    async def __call__(self, fn: Callable[..., Any], *args: Any) -> Any:
        return await from_pool(self._pool)(fn, *args)


class TrioDriver(Driver):
    """The trio shell."""

    name = "trio"
    departures: dict[str, str] = {}  # noqa: RUF012 - read only
    remarks: dict[str, str] = {}  # noqa: RUF012 - read only

    workers = True

    def __init__(self) -> None:
        self._clock = MockClock()

    def executor(self, pool: FalsyPool) -> Any:
        return FalsyExecutor(pool)

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncGenerator[TrioWorld]:
        settings.setdefault("instruments", ())
        settings.setdefault("workers", self.workers)
        async with trio.open_nursery() as nursery:
            async with namedtasks.open_task_map(**settings) as tasks:
                yield TrioWorld(tasks, nursery, self._clock)
                tasks.cancel_all()
            nursery.cancel_scope.cancel()

    def run(self, behaviour: Callable[[Driver], Awaitable[None]]) -> None:
        trio.run(behaviour, self, clock=self._clock)


@final
class TrioDriverWithoutWorkers(TrioDriver):
    """The trio shell, with a trio task of its own for each run."""

    workers = False
