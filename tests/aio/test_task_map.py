"""The asyncio map: what comes back, what runs when, and what it looks like."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import Any

import pytest

import namedtasks.asyncio
from namedtasks import AlreadyRunningError, BackoffError, State, current_run
from namedtasks.asyncio import open_task_map
from namedtasks.instruments import TaskCancelled, TaskFailed, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, virtual


async def double(number: int) -> int:
    await asyncio.sleep(1)
    return 2 * number


async def boom() -> None:
    raise ValueError("boom")


@virtual()
async def test_a_start_gives_a_real_task() -> None:
    """Awaiting it gives the value; it bears the run's name as text."""
    async with open_task_map() as tasks:
        task = tasks.create_task("a", double, 21)
        assert isinstance(task, asyncio.Task)
        assert task.get_name() == "a"
        assert tasks["a"] is task
        assert await task == 42
        assert tasks.create_task(("vol", 1), double, 1).get_name() == "('vol', 1)"


@virtual(debug=True)
async def test_it_works_in_debug_mode() -> None:
    async with open_task_map(limit=1) as tasks:
        first, second = tasks.create_task("a", double, 1), tasks.create_task("b", double, 2)
        assert [await first, await second] == [2, 4]


@virtual()
async def test_awaiting_a_failed_task_raises_its_own_exception() -> None:
    async with open_task_map(instruments=()) as tasks:
        task = tasks.create_task("a", boom)
        with pytest.raises(ValueError, match=r"^boom$"):
            await task
        assert tasks.state("a") is State.WAITING
        with pytest.raises(BackoffError, match=r"another 0.5 s .*: ValueError: boom$"):
            tasks.create_task("a", boom)


@virtual()
async def test_nobody_needs_to_look_at_a_failed_task() -> None:
    """The instruments have heard of it: the loop has nothing to complain about."""
    heard = RecordingInstrument()
    async with open_task_map(instruments=[heard]) as tasks:
        tasks.create_task("a", boom)
    (failed,) = heard.of(TaskFailed)
    assert str(failed.error) == "boom"
    assert loop_now().complaints == []


@virtual()
async def test_when_a_task_is_done_for_who_awaits_it_its_name_is_free() -> None:
    async with open_task_map() as tasks:
        task = tasks.create_task("a", double, 1)
        seen: list[bool] = []
        task.add_done_callback(lambda _: seen.append("a" in tasks))
        await task
        assert tasks.state("a") is State.FREE
        assert seen == [False]


@virtual()
async def test_the_context_is_copied_at_the_call() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def read() -> str:
        return variable.get()

    async with open_task_map(limit=1) as tasks:
        variable.set("at the call")
        first, second = tasks.create_task("a", read), tasks.create_task("b", read)
        variable.set("later")
        assert [await first, await second] == ["at the call"] * 2


@virtual()
async def test_a_body_knows_its_run() -> None:
    async def body() -> tuple[Any, ...]:
        run = current_run()
        return run.name, run.operation, run.failures, run.cancel_requested

    async with open_task_map() as tasks:
        assert await tasks.create_task("a", body, operation="get") == ("a", "get", 0, False)


@virtual()
async def test_a_run_that_waits_for_its_slot_has_its_task_from_the_start() -> None:
    events: list[str] = []

    async def body(name: str) -> None:
        events.append(f"{name} begins")
        await asyncio.sleep(1)

    def call(name: str) -> Any:
        events.append(f"{name} is called")
        return body(name)

    async with open_task_map(limit=1) as tasks:
        first = tasks.create_task("a", call, "a")
        second = tasks.create_task("b", call, "b")
        assert events == ["a is called", "b is called"]
        await first
        assert not second.done()
        await second
    assert events == ["a is called", "b is called", "a begins", "b begins"]


@virtual()
async def test_slots_go_by_order_of_admission() -> None:
    order: list[int] = []

    async def body(number: int) -> None:
        order.append(number)
        await asyncio.sleep(1)

    async with open_task_map(limit=2) as tasks:
        for number in range(9):
            tasks.create_task(number, body, number)
    assert order == list(range(9))


@virtual()
async def test_what_is_heard_of_runs() -> None:
    heard = RecordingInstrument()
    async with open_task_map(instruments=[heard]) as tasks:
        tasks.create_task("a", double, 1)
        tasks.create_task("b", boom)
        cancelled = tasks.create_task("c", double, 1)
        await loop_now().settle()
        tasks.cancel("c", reason="enough")
        with pytest.raises(asyncio.CancelledError, match=r"^enough$"):
            await cancelled
    assert [(type(event), event.name) for event in heard.events] == [
        (TaskStarted, "a"),
        (TaskStarted, "b"),
        (TaskFailed, "b"),
        (TaskStarted, "c"),
        (TaskCancelled, "c"),
        (TaskSucceeded, "a"),
    ]
    assert heard.of(TaskSucceeded)[0].duration == 1.0


@virtual()
async def test_a_busy_name_is_refused_or_skipped() -> None:
    async with open_task_map() as tasks:
        tasks.create_task("a", double, 1)
        with pytest.raises(AlreadyRunningError):
            tasks.create_task("a", double, 1)
        assert tasks.create_task("a", double, 1, if_busy="skip") is None
        assert tasks.run_in_executor("a", len, "", if_busy="skip") is None


@virtual()
async def test_a_partial_and_a_method_are_fine() -> None:
    class Thing:
        async def method(self) -> str:
            return "method"

    async with open_task_map() as tasks:
        assert await tasks.create_task("a", functools.partial(double, 4)) == 8
        assert await tasks.create_task("b", Thing().method) == "method"


@virtual()
async def test_it_says_what_it_is() -> None:
    async with open_task_map() as tasks:
        tasks.create_task("a", double, 1)
        assert repr(tasks) == "<namedtasks.asyncio.TaskMap running=1 waiting=0>"
        assert repr(namedtasks.asyncio.TaskMap) == "<class 'namedtasks.asyncio.TaskMap'>"
        assert open_task_map.__module__ == "namedtasks.asyncio"
    assert repr(tasks) == "<namedtasks.asyncio.TaskMap running=0 waiting=0 closed>"


@virtual()
async def test_a_run_whose_task_is_just_being_made_has_none_to_give() -> None:
    """Its name is taken; the mapping does not give None for a task."""
    seen: list[object] = []

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        seen.extend(["a" in tasks, tasks.get("a"), list(tasks.values()), dict(tasks.items())])
        with pytest.raises(KeyError):
            tasks["a"]
        return asyncio.Task(coro, loop=loop, **options)

    async def nothing() -> None:
        pass

    async with open_task_map() as tasks:
        asyncio.get_running_loop().set_task_factory(make)
        task = tasks.create_task("a", nothing)
        asyncio.get_running_loop().set_task_factory(None)
        await task
    assert seen == [True, None, [], {}]
