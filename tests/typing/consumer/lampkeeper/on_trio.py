"""The keeper in trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar, TypeVarTuple, assert_type

import trio

import namedtasks
from namedtasks import ANY, IfBusy, TaskHandle, TaskMap
from namedtasks.abc import BackoffPolicy, Instrument

T = TypeVar("T")
Args = TypeVarTuple("Args")


def start(
    tasks: TaskMap,
    name: Hashable,
    async_fn: Callable[[*Args], Awaitable[T]],
    *args: *Args,
    if_busy: IfBusy = "refuse",
) -> TaskHandle[T] | None:
    """Any function with any arguments, passed along; the type of its result arrives."""
    return tasks.start_soon(name, async_fn, *args, if_busy=if_busy)


class TrioKeeper:
    """Keeps lamps lit; lighting one gives the hours that it will burn."""

    def __init__(self, tasks: TaskMap) -> None:
        self._tasks = tasks

    async def _light(self, lamp: str, watts: int) -> float:
        await trio.sleep(0)
        return 1000 / watts

    def light(self, lamp: str, watts: int, *, if_busy: IfBusy = "join") -> TaskHandle[float] | None:
        handle = start(self._tasks, ("lamp", lamp), self._light, lamp, watts, if_busy=if_busy)
        assert_type(handle, TaskHandle[float] | None)
        return handle

    def light_surely(self, lamp: str, watts: int) -> TaskHandle[float]:
        how: Literal["replace", "queue"] = "replace" if watts > 60 else "queue"
        return self._tasks.start_soon(("lamp", lamp), self._light, lamp, watts, if_busy=how)

    def weigh(self, lamp: str) -> TaskHandle[int]:
        handle = self._tasks.start_thread_soon(
            ("lamp", lamp, "weight"), len, lamp, executor=trio.to_thread.run_sync, timeout=5
        )
        assert_type(handle, TaskHandle[int])
        return handle

    async def burn(self, lamp: str, watts: int) -> float:
        try:
            return await self.light_surely(lamp, watts).wait()
        except namedtasks.TaskFailedError as failure:
            assert_type(failure.name, Hashable)
            raise
        except namedtasks.TaskCancelledError as cancelled:
            assert_type(cancelled.reason, str | None)
            return 0.0

    def why_not(self, lamp: str) -> str:
        refusal = self._tasks.check(("lamp", lamp))
        match refusal:
            case None:
                return "it may"
            case namedtasks.BackoffError():
                return f"in {refusal.retry_in:.1f} s"
            case namedtasks.AlreadyRunningError():
                return f"after {refusal.holders!r}"
            case _:
                return str(refusal)

    def put_out_all(self) -> int:
        return self._tasks.cancel_matching(lambda name: name == ("lamp", ANY), reason="dawn")

    @property
    def lit(self) -> Mapping[Hashable, TaskHandle[Any]]:
        return self._tasks


@asynccontextmanager
async def open_keeper(
    *, backoff: BackoffPolicy | None = None, instruments: list[Instrument] | None = None
) -> AsyncGenerator[TrioKeeper, None]:
    """A block of one's own around the map's."""
    async with namedtasks.open_task_map(backoff=backoff, instruments=instruments or ()) as tasks:
        yield TrioKeeper(tasks)
        assert_type(tasks.statistics().limit, int | None)
        assert_type(tasks.state("a"), namedtasks.State)
        assert_type(await tasks.shutdown(grace=1), tuple[Hashable, ...])
