"""Leaving the block, in every way: what is waited for, what is cancelled, what comes out."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from namedtasks import ClosedError, State
from namedtasks.abc import AnyTaskMap
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import Instrument, TaskCancelled
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, virtual


class Escape(BaseException):
    """What is no `Exception`, and that asyncio has no rule for."""


async def escape(error: BaseException | None = None, after: float = 0) -> None:
    await asyncio.sleep(after)
    raise error or Escape("up")


async def nothing() -> None:
    pass


def me() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


@virtual()
async def test_leaving_waits_for_what_runs() -> None:
    async with open_task_map() as tasks:
        task = tasks.create_task("a", asyncio.sleep, 10, "value")
    assert task.result() == "value"
    with pytest.raises(ClosedError):
        tasks.create_task("a", nothing)


@virtual()
async def test_what_is_started_while_it_waits_is_waited_for_too() -> None:
    async with open_task_map() as tasks:
        made: list[asyncio.Task[str]] = []

        async def body() -> None:
            await asyncio.sleep(1)
            made.append(tasks.create_task("b", asyncio.sleep, 10, "value"))

        tasks.create_task("a", body)
    assert made[0].result() == "value"


@virtual()
async def test_an_exception_in_the_block_cancels_what_runs_and_leaves_bare() -> None:
    heard = RecordingInstrument()
    error = ValueError("mine")
    with pytest.raises(ValueError, match=r"^mine$") as caught:
        async with open_task_map(instruments=[heard]) as tasks:
            task = tasks.create_task("a", asyncio.sleep, 10)
            await loop_now().settle()
            raise error
    assert caught.value is error
    assert error.__context__ is None
    assert task.cancelled()
    (cancelled,) = heard.of(TaskCancelled)
    assert cancelled.reason == "the map's block raised ValueError: mine"


@virtual()
async def test_it_waits_for_a_clean_up_after_an_exception() -> None:
    async def body() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(5)

    begun = loop_now().time()
    with pytest.raises(ValueError, match=r"^mine$"):
        async with open_task_map() as tasks:
            tasks.create_task("a", body)
            await loop_now().settle()
            raise ValueError("mine")
    assert loop_now().time() == begun + 5


async def cancelled_block(tasks_out: list[TaskMap], cleans_up: float) -> None:
    async def body() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(cleans_up)

    async with open_task_map() as tasks:
        tasks_out.append(tasks)
        tasks.create_task("a", body)
        await asyncio.sleep(50)


@virtual(autojump=False)
async def test_a_cancelled_block_cancels_what_runs_and_waits() -> None:
    out: list[TaskMap] = []
    block = asyncio.create_task(cancelled_block(out, 5))
    await loop_now().settle()
    block.cancel()
    await loop_now().advance(4)
    assert not block.done()
    block.cancel()
    await loop_now().advance(0)
    assert not block.done(), "a second cancellation does not make it leave its runs alone"
    await loop_now().advance(2)
    assert block.cancelled()
    assert out[0].state("a") is State.FREE


@virtual(autojump=False)
async def test_a_cancellation_while_leaving_cancels_what_runs() -> None:
    async def block() -> None:
        async with open_task_map() as tasks:
            tasks.create_task("a", asyncio.sleep, 100)

    task = asyncio.create_task(block())
    await loop_now().settle()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match=r"^enough$"):
        await task


@virtual(autojump=False)
async def test_the_blocks_own_exception_outranks_a_cancellation_that_comes_later() -> None:
    """And the cancellation is not lost: the next await raises it."""
    seen: list[str] = []

    async def body() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(5)

    async def block() -> None:
        try:
            async with open_task_map() as tasks:
                tasks.create_task("a", body)
                await asyncio.sleep(0)
                raise ValueError("mine")
        except ValueError:
            seen.append("mine")
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            seen.append(f"cancelled {me().cancelling()}")
            raise

    task = asyncio.create_task(block())
    await loop_now().settle()
    task.cancel()
    await loop_now().advance(5)
    assert task.cancelled()
    assert seen == ["mine", "cancelled 1"]


@virtual()
async def test_a_base_exception_of_a_run_cancels_all_and_leaves_bare() -> None:
    """The block is cancelled for it, and that is not told outside."""
    heard = RecordingInstrument()
    error = Escape("up")
    with pytest.raises(Escape, match=r"^up$") as caught:
        async with open_task_map(instruments=[heard]) as tasks:
            sibling = tasks.create_task("sibling", asyncio.sleep, 100)
            tasks.create_task("a", escape, error)
            await asyncio.sleep(100)
            raise AssertionError
    assert caught.value is error
    assert sibling.cancelled()
    assert me().cancelling() == 0
    assert tasks.state("a") is State.FREE, "the record is as before"
    (cancelled,) = heard.of(TaskCancelled)
    assert cancelled.reason == "task 'a' raised Escape: up"


@virtual()
async def test_a_generator_exit_of_a_run_goes_up_too() -> None:
    async def body() -> None:
        raise GeneratorExit

    with pytest.raises(GeneratorExit):
        async with open_task_map() as tasks:
            task = tasks.create_task("a", body, timeout=5)
            await asyncio.sleep(100)
    assert isinstance(task.exception(), GeneratorExit)
    assert tasks.state("a") is State.FREE


@virtual()
async def test_a_base_exception_while_the_block_is_left() -> None:
    with pytest.raises(Escape):
        async with open_task_map() as tasks:
            sibling = tasks.create_task("sibling", asyncio.sleep, 100)
            tasks.create_task("a", escape, None, 1)
    assert sibling.cancelled()
    assert me().cancelling() == 0


@virtual()
async def test_a_base_exception_that_nobody_had_time_to_hear_of() -> None:
    """The block ends in the very step in which its cancellation is on its way."""
    done = asyncio.Event()
    with pytest.raises(Escape):
        async with open_task_map() as tasks:

            async def body() -> None:
                done.set()
                raise Escape("up")

            tasks.create_task("a", body)
            with contextlib.suppress(asyncio.CancelledError):
                await done.wait()
    assert me().cancelling() == 0
    await asyncio.sleep(1)


@virtual()
async def test_several_base_exceptions_leave_as_a_group() -> None:
    with pytest.raises(BaseExceptionGroup, match=r"^exceptions from a task map") as caught:
        async with open_task_map() as tasks:

            async def also() -> None:
                try:
                    await asyncio.sleep(100)
                finally:
                    raise Escape("too")

            tasks.create_task("b", also)
            tasks.create_task("a", escape)
    assert [str(error) for error in caught.value.exceptions] == ["up", "too"]


@virtual()
async def test_the_blocks_exception_and_a_runs_leave_as_a_group() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_task_map() as tasks:
            tasks.create_task("a", escape)
            try:
                await asyncio.sleep(100)
            finally:
                raise ValueError("mine")
    assert [str(error) for error in caught.value.exceptions] == ["mine", "up"]


@virtual()
async def test_a_mixed_group_is_split() -> None:
    """Its `Exception` part is the run's failure, the rest goes up."""

    async def body() -> None:
        raise BaseExceptionGroup("mixed", [ValueError("boom"), Escape("up")])

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_task_map(instruments=()) as tasks:
            tasks.create_task("a", body)
    assert [str(error) for error in caught.value.exceptions] == ["up"]
    assert tasks.state("a") is State.WAITING


@virtual()
async def test_a_base_exception_beside_a_cancellation_from_outside() -> None:
    """The exception leaves, and the cancellation is still requested."""
    seen: list[object] = []

    async def block() -> None:
        try:
            async with open_task_map() as tasks:
                tasks.create_task("a", escape, None, 1)
                await asyncio.sleep(100)
        except Escape:
            seen.append(me().cancelling())
        try:
            await asyncio.sleep(100)
        finally:
            seen.append("cancelled")

    task = asyncio.create_task(block())
    await asyncio.sleep(0.5)
    loop_now().call_later(0.5, lambda: loop_now().call_soon(task.cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [1, "cancelled"]


@virtual()
async def test_what_starts_while_something_goes_up_is_cancelled() -> None:
    """In whatever clean-up it is started: as in a group that is shutting down."""
    made: list[asyncio.Task[None]] = []
    with pytest.raises(Escape):
        async with open_task_map() as tasks:
            tasks.create_task("a", escape)
            try:
                await asyncio.sleep(100)
            finally:
                made.append(tasks.create_task("b", asyncio.sleep, 100))
    assert made[0].cancelled()


@virtual()
async def test_a_block_in_which_nothing_runs_is_left_at_once() -> None:
    async with open_task_map() as tasks:
        pass
    assert tasks.state("a") is State.FREE
    with pytest.raises(asyncio.CancelledError):
        async with open_task_map():
            raise asyncio.CancelledError


@virtual()
async def test_what_is_cancelled_in_the_block_leaves_the_block() -> None:
    """A cancellation that the block raises by itself is not swallowed."""
    with pytest.raises(asyncio.CancelledError, match=r"^mine$"):
        async with open_task_map() as tasks:
            task = tasks.create_task("a", asyncio.sleep, 100)
            raise asyncio.CancelledError("mine")
    assert task.cancelled()


@virtual(autojump=False)
async def test_of_two_cancellations_while_leaving_the_first_is_told() -> None:
    async def body() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(5)

    async def block() -> None:
        async with open_task_map() as tasks:
            tasks.create_task("a", body)

    task = asyncio.create_task(block())
    await loop_now().settle()
    for message in ("first", "second"):
        task.cancel(message)
        await loop_now().settle()
    await loop_now().advance(5)
    with pytest.raises(asyncio.CancelledError, match=r"^first$"):
        await task


@virtual()
async def test_an_instrument_that_refuses_a_map_raises_its_error_bare() -> None:
    """And no Task is left, and no cancellation."""

    class Refuses(Instrument):
        def map_opened(self, tasks: Any, /) -> None:
            tasks.create_task("a", asyncio.sleep, 100)
            raise ValueError("one map is enough")

    with pytest.raises(ValueError, match=r"^one map is enough$"):
        async with open_task_map(instruments=[Refuses()]):
            raise AssertionError("it is not open")
    assert asyncio.all_tasks() == {me()}
    assert not me().cancelling()


@virtual()
async def test_a_block_without_a_name_for_its_map_tells_of_its_end() -> None:
    ended: list[object] = []

    class Ends(Instrument):
        def map_closed(self, tasks: AnyTaskMap, /) -> None:
            ended.append(tasks.statistics().running)

    async with open_task_map(instruments=[Ends()]):
        pass
    assert ended == [0]
