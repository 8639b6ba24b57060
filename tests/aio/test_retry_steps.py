"""A retried run that is cancelled at each turn of the loop: it ends once, and leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from namedtasks import Backoff, State, TaskCancelledError
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import TaskCancelled, TaskFailed, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, run

Cancel = Callable[[TaskMap, asyncio.Task[Any]], object]
TURNS = 16
"""The turns of the loop that the run takes if nobody cancels it, and a few more."""


def by_the_map(tasks: TaskMap, _: asyncio.Task[Any]) -> None:
    tasks.cancel("a", reason="enough")


def by_the_task(_: TaskMap, task: asyncio.Task[Any]) -> None:
    task.cancel()


def by_the_close(tasks: TaskMap, _: asyncio.Task[Any]) -> None:
    tasks.close()


async def awaits(coro: Any) -> Any:
    return await coro


def no_factory(loop: asyncio.AbstractEventLoop) -> None:
    loop.set_task_factory(None)


def factory_that_wraps(loop: asyncio.AbstractEventLoop) -> None:
    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(awaits(coro), loop=loop, **options)

    loop.set_task_factory(make)


@pytest.mark.parametrize("cancel", [by_the_map, by_the_task, by_the_close])
@pytest.mark.parametrize("factory", [no_factory, factory_that_wraps])
@pytest.mark.parametrize("turns", range(TURNS))
def test_a_retried_run_is_cancelled_at_each_turn(
    cancel: Cancel, factory: Callable[[asyncio.AbstractEventLoop], None], turns: int
) -> None:
    async def main() -> None:
        heard = RecordingInstrument()
        ends: list[Any] = [OSError("one"), OSError("two"), "attached"]
        bodies: list[object] = []

        async def body() -> str:
            bodies.append(asyncio.current_task())
            await asyncio.sleep(0)
            end = ends[len(bodies) - 1]
            if isinstance(end, OSError):
                raise end
            return str(end)

        loop = loop_now()
        factory(loop)
        async with open_task_map(backoff=Backoff(initial=1.0), instruments=[heard]) as tasks:
            task: Any = tasks.create_task("a", body, retry=True)
            joined = tasks.create_task("a", body, if_busy="join", retry=True)
            begun = loop.turns

            def on_turn() -> None:
                if loop.turns - begun == turns:
                    cancel(tasks, task)

            loop.on_turn = on_turn
            await asyncio.wait([task, joined])
            loop.on_turn = lambda: None
            await tasks.wait_idle()
            scheduler = tasks._backend.scheduler
            assert scheduler.records.held == set()
            assert len(scheduler.timers) == 0
            assert tasks.state("a") is not State.RUNNING
            if task.cancelled():
                assert isinstance(joined.exception(), TaskCancelledError)
            elif task.exception() is None:
                assert task.result() == joined.result() == "attached"
                assert len(bodies) == 3
            else:
                assert type(joined.exception()) is type(task.exception())
                assert isinstance(task.exception(), TaskCancelledError | OSError)
            assert set(bodies) <= {task}, "one Task for all attempts"
            assert len(heard.of(TaskStarted)) == len(bodies)
            retried = sum(event.will_retry for event in heard.of(TaskFailed))
            ended = [*heard.of(TaskSucceeded), *heard.of(TaskCancelled), *heard.of(TaskFailed)]
            assert len(ended) == retried + 1

    run(main)
