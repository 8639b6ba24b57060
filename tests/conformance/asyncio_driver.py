"""Runs the conformance suite on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, cast, final

import pytest

import namedtasks.asyncio
from namedtasks import IfBusy
from tests.conformance.driver import AsyncWorld, Driver, Job
from tests.virtual_loop import VirtualLoop, loop_now, run


@final
class AsyncioWorld(AsyncWorld):
    """An asyncio map on a loop whose time only goes by when told to."""

    def __init__(self, tasks: namedtasks.asyncio.TaskMap, loop: VirtualLoop) -> None:
        self.tasks = tasks
        self._map = tasks
        self._loop = loop
        self.background: list[asyncio.Task[None]] = []

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
            event = asyncio.Event()
            job.wake = event.set
            while job.order is None:
                try:
                    await event.wait()
                except asyncio.CancelledError:
                    if heeds:
                        raise
            return job.finish()

        return cast("Any", self._map).create_task(
            name, body, if_busy=if_busy, operation=operation, timeout=timeout, **options
        )

    def start_elsewhere(self, name: Hashable, fn: Callable[[], Any], **options: Any) -> Any:
        return cast("Any", self._map).run_in_executor(name, fn, **options)

    def _start(self, name: Hashable, body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return self._map.create_task(name, body)

    def _spawn(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.background.append(asyncio.create_task(wait()))

    async def result(self, handle: Any) -> Any:
        return await handle

    async def was_cancelled(self, handle: Any) -> str | None:
        if isinstance(handle, asyncio.Task):
            with pytest.raises(asyncio.CancelledError) as caught:
                await handle
            return str(caught.value) or None
        # A joined future is not cancelled with its run: its waiter is not, either.
        with pytest.raises(namedtasks.TaskCancelledError) as raised:
            await handle
        assert not handle.cancelled()
        return raised.value.reason

    async def error_of_dropped(self, handle: Any) -> namedtasks.TaskCancelledError:
        with pytest.raises(namedtasks.TaskCancelledError) as caught:
            await handle
        return caught.value

    @asynccontextmanager
    async def _open(self, **settings: Any) -> AsyncGenerator[AsyncioWorld]:
        async with namedtasks.asyncio.open_task_map(**settings) as tasks:
            yield AsyncioWorld(tasks, self._loop)

    async def settle(self) -> None:
        await self._loop.settle()

    async def advance(self, seconds: float) -> None:
        await self._loop.advance(seconds)

    def now(self) -> float:
        return self._loop.time()


class AsyncioDriver(Driver):
    """The asyncio shell."""

    name = "asyncio"
    departures: dict[str, str] = {  # noqa: RUF012 - read only
        "waiting": "asyncio awaits a Task without calling the map, so the wait hangs"
    }
    remarks: dict[str, str] = {  # noqa: RUF012 - read only
        "A01": "under an eager task factory, which a program has to choose, the body may begin "
        "inside the call"
    }
    eager = False

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncGenerator[AsyncioWorld]:
        settings.setdefault("instruments", ())
        async with namedtasks.asyncio.open_task_map(**settings) as tasks:
            world = AsyncioWorld(tasks, loop_now())
            yield world
            tasks.cancel_all()
        for task in world.background:
            task.cancel()

    def run(self, behaviour: Callable[[Driver], Awaitable[None]]) -> None:
        async def main() -> None:
            await behaviour(self)

        run(main, autojump=False, eager=self.eager)


@final
class EagerAsyncioDriver(AsyncioDriver):
    """The asyncio shell on a loop that makes eager tasks: Python 3.12 and newer."""

    name = "asyncio with eager tasks"
    departures: dict[str, str] = {  # noqa: RUF012 - read only
        **AsyncioDriver.departures,
        "A01": "an eager task begins its body inside the call",
        "A12": "an eager task that starts inside another one is over when the call returns",
    }
    eager = True
