"""Cancellation is counted as asyncio counts it, in the body and around the map."""

from __future__ import annotations

import asyncio

import pytest

from namedtasks import State
from namedtasks.asyncio import open_task_map
from tests.virtual_loop import loop_now, virtual


@virtual()
async def test_a_timeout_inside_of_a_body_is_the_bodys_affair() -> None:
    async def body() -> str:
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(100)
        except TimeoutError:
            return "in time"
        return "never"

    async with open_task_map() as tasks:
        assert await tasks.create_task("a", body) == "in time"
        assert tasks.state("a") is State.FREE


@virtual()
async def test_a_group_inside_of_a_body_fails_the_body() -> None:
    async def boom() -> None:
        raise ValueError("boom")

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(boom())
            await asyncio.sleep(100)

    async with open_task_map(instruments=()) as tasks:
        with pytest.raises(ExceptionGroup):
            await tasks.create_task("a", body)
        assert tasks.state("a") is State.WAITING


@virtual()
async def test_what_was_uncancelled_is_no_request_any_more() -> None:
    """A body that took the request back, and is then cancelled by nobody, has failed."""

    async def body() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            assert task.uncancel() == 0
        await asyncio.sleep(1)
        raise asyncio.CancelledError

    async with open_task_map(instruments=()) as tasks:
        task = tasks.create_task("a", body)
        await loop_now().settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tasks.state("a") is State.WAITING


@virtual()
async def test_a_timeout_around_a_wait_leaves_the_run_alone() -> None:
    async with open_task_map() as tasks:
        task = tasks.create_task("a", asyncio.sleep, 10, "value")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await tasks.wait_idle()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.shield(task)
        assert await task == "value"


@virtual()
async def test_a_timeout_around_the_await_of_a_task_cancels_it_as_asyncio_does() -> None:
    async with open_task_map() as tasks:
        task = tasks.create_task("a", asyncio.sleep, 10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await task
        assert task.cancelled()
        assert tasks.state("a") is State.FREE


@virtual()
async def test_a_timeout_around_the_block_cancels_what_runs() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            async with open_task_map() as tasks:
                task = tasks.create_task("a", asyncio.sleep, 10)
                await asyncio.sleep(100)
    assert task.cancelled()
    me = asyncio.current_task()
    assert me is not None
    assert me.cancelling() == 0


@virtual()
async def test_a_timeout_while_the_block_is_left_cancels_what_runs() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            async with open_task_map() as tasks:
                task = tasks.create_task("a", asyncio.sleep, 10)
    assert task.cancelled()


@virtual()
async def test_a_map_in_a_group_is_cancelled_with_it() -> None:
    states: list[bool] = []

    async def with_map() -> None:
        async with open_task_map() as tasks:
            task = tasks.create_task("a", asyncio.sleep, 100)
            try:
                await asyncio.sleep(100)
            finally:
                states.append(task.done())
        states.append(task.cancelled())

    async def boom() -> None:
        await asyncio.sleep(1)
        raise ValueError("boom")

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(with_map())
            group.create_task(boom())
    assert states == [False]


@virtual()
async def test_a_failed_task_cancels_no_sibling_and_no_block() -> None:
    async def boom() -> None:
        raise ValueError("boom")

    async with open_task_map(instruments=()) as tasks:
        sibling = tasks.create_task("a", asyncio.sleep, 10, "value")
        tasks.create_task("b", boom)
        await asyncio.sleep(5)
    assert sibling.result() == "value"


@virtual()
async def test_gather_and_wait_work_on_the_tasks() -> None:
    async with open_task_map() as tasks:
        made = [tasks.create_task(n, asyncio.sleep, n, n) for n in range(3)]
        done, pending = await asyncio.wait(made, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(pending)) == (1, 2)
        assert await asyncio.gather(*made) == [0, 1, 2]
