"""Task factories of somebody else's, eager ones among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from namedtasks import State, TaskCancelledError
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import TaskFailed, TaskStarted
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, virtual


async def double(number: int) -> int:
    await asyncio.sleep(1)
    return 2 * number


@virtual()
async def test_a_task_factory_of_somebody_elses_is_used() -> None:
    class MyTask(asyncio.Task[Any]):
        pass

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return MyTask(coro, loop=loop, **options)

    loop_now().set_task_factory(make)
    async with open_task_map() as tasks:
        task = tasks.create_task("a", double, 1)
        assert isinstance(task, MyTask)
        assert await task == 2


async def awaits(coro: Any) -> Any:
    return await coro


def as_it_is(coro: Any) -> Any:
    return coro


@pytest.mark.parametrize("wrap", [as_it_is, awaits])
@virtual()
async def test_what_is_dropped_before_its_first_step_is_cancelled(
    wrap: Callable[[Any], Any],
) -> None:
    """With a factory a Task may be cancelled before it begins to step the map's coroutine."""

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(wrap(coro), loop=loop, **options)

    loop_now().set_task_factory(make)
    async with open_task_map(limit=1) as tasks:
        first = tasks.create_task("a", double, 1)
        superseded = tasks.create_task("a", double, 2, if_busy="queue")
        last = tasks.create_task("a", double, 3, if_busy="queue")
        queued = tasks.create_task("b", double, 4)
        joined = tasks.create_task("b", double, 4, if_busy="join")
        tasks.cancel("b")
        assert await first == 2
        assert await last == 6
        for future in (superseded, queued):
            with pytest.raises(asyncio.CancelledError):
                await future
        with pytest.raises(TaskCancelledError, match=r"^task 'b' was cancelled$"):
            await joined


@virtual()
async def test_a_task_factory_that_raises_leaves_no_name_taken() -> None:
    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        raise OSError("no task today")

    loop = loop_now()
    async with open_task_map() as tasks:
        loop.set_task_factory(make)
        with pytest.raises(OSError, match=r"^no task today$"):
            tasks.create_task("a", double, 1)
        loop.set_task_factory(None)
        assert tasks.state("a") is State.FREE
        assert await tasks.create_task("a", double, 1) == 2


def eager(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """What `asyncio.eager_task_factory` does, on any Python, for calls from no task."""
    task = asyncio.Task(coro, loop=loop, **options)
    any_loop: Any = loop
    first_step = any_loop._ready.pop()
    first_step._run()
    return task


async def called_from_no_task(call: Callable[[], Any]) -> Any:
    loop = loop_now()
    result: asyncio.Future[Any] = loop.create_future()

    def run() -> None:
        loop.set_task_factory(eager)
        try:
            result.set_result(call())
        finally:
            loop.set_task_factory(None)

    loop.call_soon(run)
    return await result


@virtual()
async def test_an_eager_body_begins_inside_of_the_call() -> None:
    heard = RecordingInstrument()

    async def body() -> str:
        me = asyncio.current_task()
        assert me is not None
        assert me is tasks["a"]
        assert me.get_name() == "a"
        await asyncio.sleep(1)
        return "value"

    async with open_task_map(instruments=[heard]) as tasks:
        task = await called_from_no_task(lambda: tasks.create_task("a", body))
        assert len(heard.of(TaskStarted)) == 1
        assert await task == "value"
        assert tasks.state("a") is State.FREE


@virtual()
async def test_an_eager_body_may_be_over_when_the_call_returns() -> None:
    heard = RecordingInstrument()

    async def boom() -> None:
        raise ValueError("boom")

    def start(tasks: TaskMap) -> State:
        tasks.create_task("a", boom)
        return tasks.state("a")

    async with open_task_map(instruments=[heard]) as tasks:
        assert await called_from_no_task(lambda: start(tasks)) is State.WAITING
        assert len(heard.of(TaskFailed)) == 1


@virtual()
async def test_a_cancellation_of_the_block_that_comes_after_it_is_absorbed() -> None:
    """The map's own, for an eager run's `BaseException` that was the block's last act."""

    class Escape(BaseException):
        pass

    with pytest.raises(Escape):
        async with open_task_map() as tasks:
            me = asyncio.current_task()
            assert me is not None
            tasks._backend.propagate("task 'a' raised Escape", Escape())
    assert me is not None
    assert me.cancelling() == 0
    await asyncio.sleep(1)


@virtual()
async def test_a_tracer_that_wraps_coroutines_in_create_task_of_the_loop_is_no_hindrance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may wrap some only: ddtrace does where there is a trace."""
    loop = loop_now()
    create_task = loop.create_task
    wraps = False

    def traced_create_task(coro: Any, **options: Any) -> asyncio.Task[Any]:
        async def traced() -> Any:
            return await coro

        return create_task(traced() if wraps else coro, **options)

    monkeypatch.setattr(loop, "create_task", traced_create_task)
    async with open_task_map() as tasks:
        for wraps in (False, True, False, True):  # noqa: B007 - the tracer looks at it
            task = tasks.create_task("a", double, 1)
            pending = tasks.create_task("a", double, 2, if_busy="queue")
            cancelled = tasks.create_task("b", double, 3)
            cancelled.cancel()
            await tasks.wait_idle()
            assert (task.result(), pending.result(), cancelled.cancelled()) == (2, 4, True)
            assert tasks.state("a") is tasks.state("b") is State.FREE
    assert asyncio.all_tasks() == {asyncio.current_task()}
