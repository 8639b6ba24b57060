"""Ctrl-C and `SystemExit`: they stop the loop on the spot, and no name stays taken."""

from __future__ import annotations

import asyncio
import signal
from typing import NoReturn

import pytest

from namedtasks import State
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import TaskCancelled, TaskFailed
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import VirtualLoop, run, virtual

both = pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])


async def interrupted(kind: type[BaseException]) -> NoReturn:
    await asyncio.sleep(0)
    raise kind("stop")


@both
def test_one_that_a_run_raises_goes_up_and_stops_the_others(kind: type[BaseException]) -> None:
    maps: list[TaskMap] = []
    heard = RecordingInstrument()

    async def main() -> None:
        async with open_task_map(instruments=[heard]) as tasks:
            maps.append(tasks)
            tasks.create_task("other", asyncio.sleep, 100)
            tasks.create_task("a", interrupted, kind)
            await asyncio.sleep(100)

    with pytest.raises(kind, match=r"^stop$"):
        run(main)
    assert maps[0].state("a") is State.FREE
    assert maps[0].state("other") is State.FREE
    assert [event.name for event in heard.of(TaskFailed)] == ["a"]
    assert [event.name for event in heard.of(TaskCancelled)] == ["other"]


@both
def test_the_name_is_free_though_the_loop_never_runs_again(kind: type[BaseException]) -> None:
    async def open_one() -> tuple[TaskMap, asyncio.Task[None]]:
        tasks = await open_task_map().__aenter__()
        joined.append(tasks.create_task("a", interrupted, kind, if_busy="join"))
        return tasks, tasks["a"]

    joined: list[asyncio.Future[None]] = []
    loop = VirtualLoop()
    tasks, task = loop.run_until_complete(open_one())
    with pytest.raises(kind):
        loop.run_until_complete(asyncio.sleep(100))
    assert tasks.state("a") is State.FREE
    assert task.done()
    assert joined[0].done()
    pending = asyncio.all_tasks(loop)
    for one in pending:
        one.cancel()
    loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    loop.close()


def test_a_group_that_holds_one_goes_up_too() -> None:
    """asyncio does not stop the loop for a group; the block raises what goes up."""

    async def body() -> None:
        raise BaseExceptionGroup("both", [KeyboardInterrupt("stop"), ValueError("boom")])

    @virtual()
    async def main() -> None:
        async with open_task_map(instruments=()) as tasks:
            tasks.create_task("a", body)

    with pytest.raises(BaseExceptionGroup) as caught:
        main()
    assert [type(error) for error in caught.value.exceptions] == [KeyboardInterrupt]


def test_ctrl_c_cancels_the_main_task_and_so_the_block() -> None:
    """As `asyncio.run` does it: what runs is cancelled and waited for."""
    ends: list[str] = []

    async def body() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(5)
            ends.append("cleaned up")

    async def main() -> None:
        try:
            async with open_task_map() as tasks:
                tasks.create_task("a", body)
                asyncio.get_running_loop().call_later(1, signal.raise_signal, signal.SIGINT)
                await asyncio.sleep(50)
        finally:
            ends.append(f"left with {len(tasks)}")

    with pytest.raises(KeyboardInterrupt):
        run(main)
    assert ends == ["cleaned up", "left with 0"]


@both
def test_one_in_the_block_itself(kind: type[BaseException]) -> None:
    maps: list[TaskMap] = []

    async def main() -> None:
        async with open_task_map() as tasks:
            maps.append(tasks)
            tasks.create_task("a", asyncio.sleep, 100)
            await asyncio.sleep(1)
            raise kind("stop")

    with pytest.raises(kind, match=r"^stop$"):
        run(main)
    assert maps[0].state("a") is State.FREE


@both
def test_one_that_a_posted_start_raises(kind: type[BaseException]) -> None:
    def call() -> NoReturn:
        raise kind("stop")

    maps: list[TaskMap] = []

    async def main() -> None:
        async with open_task_map() as tasks:
            maps.append(tasks)
            tasks.create_task("other", asyncio.sleep, 100)
            tasks.post("a", call)
            await asyncio.sleep(100)

    with pytest.raises(kind, match=r"^stop$"):
        run(main)
    assert maps[0].state("a") is State.FREE
    assert maps[0].state("other") is State.FREE


def test_another_base_exception_of_a_posted_start_leaves_the_block() -> None:
    class Escape(BaseException):
        pass

    def call() -> NoReturn:
        raise Escape

    @virtual()
    async def main() -> None:
        async with open_task_map() as tasks:
            tasks.post("a", call)
            await asyncio.sleep(100)

    with pytest.raises(Escape):
        main()
