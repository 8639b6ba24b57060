"""Eager tasks (Python 3.12 and newer): the body may begin, and end, inside of the call."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from typing import Any, NoReturn

import pytest

from namedtasks import AlreadyRunningError, State
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import TaskCancelled, TaskFailed
from namedtasks.testing import RecordingInstrument
from tests.conformance.asyncio_driver import EagerAsyncioDriver
from tests.conformance.behaviour import Conform
from tests.virtual_loop import loop_now, run, virtual

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="eager tasks came with Python 3.12: make matrix"
)


def behaviours() -> dict[str, Any]:
    return {
        name: value
        for module in ("test_ancestor_cases", "test_ancestor_rules", "test_ancestor_faults")
        for name, value in vars(importlib.import_module(f"tests.conformance.{module}")).items()
        if name.startswith("test_") and inspect.isfunction(value)
    }


@pytest.mark.parametrize("name", behaviours())
def test_it_conforms(name: str) -> None:
    driver = EagerAsyncioDriver()
    reason = driver.departures.get(name.split("_")[1])
    if reason is not None:
        pytest.skip(f"{name} on {driver.name}: {reason}")
    conform: Conform = driver.run
    behaviours()[name](conform)


async def boom() -> None:
    raise ValueError("boom")


@virtual(eager=True)
async def test_a_body_that_does_not_wait_is_over_when_the_call_returns() -> None:
    """And its name is free, and all has been heard."""
    heard = RecordingInstrument()
    async with open_task_map(instruments=[heard]) as tasks:
        task = tasks.create_task("a", asyncio.sleep, 0, "value", timeout=5)
        assert not task.done()
        assert task.get_name() == "a"
        assert await task == "value"

        async def at_once() -> str:
            return "at once"

        task = tasks.create_task("a", at_once)
        assert task.done()
        assert tasks.state("a") is State.FREE
        assert task.result() == "at once"
    kinds = [type(event).__name__ for event in heard.events]
    assert kinds == ["TaskStarted", "TaskSucceeded"] * 2


@virtual(eager=True)
async def test_a_body_that_raises_eagerly_has_failed_when_the_call_returns() -> None:
    heard = RecordingInstrument()
    async with open_task_map(instruments=[heard]) as tasks:
        task = tasks.create_task("a", boom)
        assert task.done()
        assert tasks.state("a") is State.WAITING
        assert len(heard.of(TaskFailed)) == 1
        with pytest.raises(ValueError, match=r"^boom$"):
            await task


@virtual(eager=True)
async def test_nobody_needs_to_look_at_it() -> None:
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("a", boom)


@virtual(eager=True)
async def test_an_eager_body_starts_cancels_and_forgets_its_own_name() -> None:
    heard = RecordingInstrument()
    reached: list[int] = []
    async with open_task_map(instruments=[heard]) as tasks:

        async def body() -> None:
            me = asyncio.current_task()
            assert me is not None
            assert tasks["a"] is me
            assert me.get_name() == "a"
            with pytest.raises(AlreadyRunningError):
                tasks.create_task("a", body)
            assert not tasks.forget("a")
            assert tasks.cancel("a")
            reached.append(1)
            await asyncio.sleep(0)
            reached.append(2)

        task = tasks.create_task("a", body)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tasks.state("a") is State.FREE
    assert reached == [1]
    assert [type(event) for event in heard.events][-1] is TaskCancelled


@virtual(eager=True)
async def test_a_cancellation_that_an_eager_body_raises_is_a_failure() -> None:
    async def body() -> None:
        raise asyncio.CancelledError

    async with open_task_map(instruments=()) as tasks:
        task = tasks.create_task("a", body)
        assert task.cancelled()
        assert tasks.state("a") is State.WAITING


@virtual(eager=True)
async def test_an_eager_run_waits_for_its_slot() -> None:
    async with open_task_map(limit=1) as tasks:
        first = tasks.create_task("first", asyncio.sleep, 1)
        second = tasks.create_task("second", asyncio.sleep, 1)
        third = tasks.create_task("third", asyncio.sleep, 1)
        assert second.get_name() == "second"
        assert tasks.cancel("second")
        third.cancel()
        await asyncio.wait([second, third])
        assert second.cancelled()
        assert third.cancelled()
        await first


@virtual(eager=True)
async def test_what_starts_while_something_goes_up_is_cancelled() -> None:
    class Escape(BaseException):
        pass

    async def escape() -> None:
        raise Escape

    made: list[asyncio.Task[Any]] = []
    with pytest.raises(Escape):
        async with open_task_map() as tasks:
            made.append(tasks.create_task("a", escape))
            made.append(tasks.create_task("b", asyncio.sleep, 100))
            await asyncio.sleep(100)
    assert [task.cancelled() for task in made] == [False, True]
    await asyncio.sleep(1)


@virtual(eager=True)
async def test_a_base_exception_of_an_eager_run_as_the_blocks_last_act() -> None:
    """The block's cancellation is on its way, and does not come after the block."""

    class Escape(BaseException):
        pass

    async def escape() -> None:
        raise Escape

    with pytest.raises(Escape):
        async with open_task_map() as tasks:
            tasks.create_task("a", escape)
    await asyncio.sleep(1)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_one_that_stops_the_loop_comes_out_of_the_call(kind: type[BaseException]) -> None:
    maps: list[TaskMap] = []

    async def interrupted() -> NoReturn:
        raise kind("stop")

    async def main() -> None:
        async with open_task_map(instruments=()) as tasks:
            maps.append(tasks)
            tasks.create_task("other", asyncio.sleep, 100)
            with pytest.raises(kind, match=r"^stop$"):
                tasks.create_task("a", interrupted)
            assert tasks.state("a") is State.FREE
            await asyncio.sleep(100)

    with pytest.raises(kind, match=r"^stop$"):
        run(main, eager=True)
    assert maps[0].state("other") is State.FREE


@virtual(eager=True, autojump=False)
async def test_a_thread_may_be_begun_eagerly() -> None:
    async with open_task_map() as tasks:
        task = tasks.run_in_executor("a", lambda: "value")
        assert task.get_name() == "a"
        assert await task == "value"
        await loop_now().settle()
