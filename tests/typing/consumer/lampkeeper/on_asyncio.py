"""The keeper on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, assert_type

import namedtasks.asyncio
from namedtasks import IfBusy
from namedtasks.abc import Instrument

T = TypeVar("T")
Args = TypeVarTuple("Args")


def create(
    tasks: namedtasks.asyncio.TaskMap,
    name: Hashable,
    coro_fn: Callable[[*Args], Coroutine[Any, Any, T]],
    *args: *Args,
    if_busy: IfBusy = "refuse",
) -> asyncio.Future[T] | None:
    """Any function with any arguments, passed along; the type of its result arrives."""
    return tasks.create_task(name, coro_fn, *args, if_busy=if_busy)


class AsyncioKeeper:
    """Opens a map for each of its nights."""

    def __init__(self, instrument: Instrument, pool: Executor | None = None) -> None:
        self._instrument = instrument
        self._pool = pool

    async def _light(self, lamp: str, watts: int) -> float:
        await asyncio.sleep(0)
        return 1000 / watts

    async def night(self, lamps: dict[str, int], *, if_busy: IfBusy = "join") -> float:
        opening = namedtasks.asyncio.open_task_map(
            instruments=[self._instrument], executor=self._pool, limit=10
        )
        async with opening as tasks:
            started = [
                create(tasks, lamp, self._light, lamp, watts, if_busy=if_busy)
                for lamp, watts in lamps.items()
            ]
            assert_type(started, list[asyncio.Future[float] | None])
            weight = tasks.run_in_executor("weight", sum, list(lamps.values()))
            assert_type(weight, asyncio.Task[int])
            plain = tasks.create_task("plain", self._light, "a", 40)
            assert_type(plain, asyncio.Task[float])
            hours = await asyncio.gather(*(one for one in started if one is not None), plain)
            assert_type(hours, list[float])
            return sum(hours) + await weight
