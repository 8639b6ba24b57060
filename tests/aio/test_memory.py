"""What is kept alive: nothing but what the Task that its starter has keeps."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest

from namedtasks import State
from namedtasks.asyncio import open_task_map
from tests.memory import free_those_of_other_threads
from tests.virtual_loop import loop_now, virtual


class Local:
    """Something big that a body has in a local variable."""


@pytest.fixture
def no_gc() -> Generator[None]:
    """What is freed now is freed by its count: there is no cycle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def crash(references: list[weakref.ref[Any]]) -> None:
    local = Local()
    references.append(weakref.ref(local))
    raise ValueError("boom")


async def async_crash(references: list[weakref.ref[Any]]) -> None:
    local = Local()
    references.append(weakref.ref(local))
    await asyncio.sleep(1)
    crash(references)


async def too_slow(references: list[weakref.ref[Any]]) -> None:
    local = Local()
    references.append(weakref.ref(local))
    await asyncio.sleep(100)


@pytest.mark.usefixtures("no_gc")
@virtual()
async def test_a_failed_tasks_locals_are_freed_while_its_name_waits() -> None:
    references: list[weakref.ref[Any]] = []
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("a", async_crash, references)
        tasks.create_task("b", too_slow, references, timeout=2)
        await tasks.wait_idle()
        await loop_now().settle()
        assert tasks.failure("a")
        assert tasks.state("b") is State.WAITING
        assert [reference() for reference in references] == [None] * 3


@pytest.mark.usefixtures("no_gc")
@virtual(autojump=False)
async def test_a_failed_threads_locals_are_freed_while_its_name_waits() -> None:
    references: list[weakref.ref[Any]] = []
    async with open_task_map(instruments=()) as tasks:
        tasks.run_in_executor("a", crash, references)
        await tasks.wait_idle()
        await loop_now().settle()
        assert tasks.state("a") is State.WAITING
        # The thread, which lingers for another job, may be a moment behind.
        await asyncio.get_running_loop().run_in_executor(None, _until, references)
        assert [reference() for reference in references] == [None]


@pytest.mark.usefixtures("no_gc")
@virtual(autojump=False)
async def test_the_locals_of_a_thread_that_exits_are_freed_with_its_task() -> None:
    references: list[weakref.ref[Any]] = []

    def leave(error: type[BaseException]) -> None:
        local = Local()
        references[:] = [weakref.ref(local)]
        raise error

    async with open_task_map(backoff=None, instruments=()) as tasks:
        for error in (SystemExit, StopIteration):
            tasks.run_in_executor("a", leave, error)
            await tasks.wait_idle()
            await loop_now().settle()
            await asyncio.get_running_loop().run_in_executor(None, _until, references)
            assert references[0]() is None


def _until(references: list[weakref.ref[Any]]) -> None:
    for _ in range(10_000_000):
        free_those_of_other_threads()
        if references[0]() is None:
            return


@pytest.mark.usefixtures("no_gc")
@virtual()
async def test_a_tasks_result_and_arguments_are_freed_with_it() -> None:
    references: list[weakref.ref[Any]] = []

    async def body(local: Local) -> Local:
        references.append(weakref.ref(local))
        return local

    async with open_task_map() as tasks:
        task = tasks.create_task("a", body, Local())
        await tasks.wait_idle()
        await loop_now().settle()
        assert references[0]() is task.result()
        del task
        assert references[0]() is None


@pytest.mark.usefixtures("no_gc")
@virtual()
async def test_a_run_that_never_began_keeps_nothing() -> None:
    async def body(local: Local) -> None:
        pass

    cancels: list[Callable[[Any, asyncio.Task[None]], object]] = [
        lambda tasks, task: tasks.cancel("a"),
        lambda tasks, task: task.cancel(),
    ]
    async with open_task_map(limit=1) as tasks:
        tasks.create_task("first", asyncio.sleep, 100)
        for cancel in cancels:
            local = Local()
            reference = weakref.ref(local)
            task = tasks.create_task("a", body, local)
            del local
            await loop_now().settle()
            cancel(tasks, task)
            await loop_now().settle()
            del task
            assert reference() is None
        tasks.cancel_all()


@pytest.mark.usefixtures("no_gc")
@virtual()
async def test_a_task_that_was_superseded_or_cancelled_before_its_first_step_is_in_no_cycle() -> (
    None
):
    async with open_task_map(limit=1, instruments=()) as tasks:
        tasks.create_task("a", asyncio.sleep, 1)
        superseded = weakref.ref(tasks.create_task("a", asyncio.sleep, 1, if_busy="queue"))
        tasks.create_task("a", asyncio.sleep, 1, if_busy="queue")
        in_line = weakref.ref(tasks.create_task("b", asyncio.sleep, 1))
        tasks.cancel("b")
        await tasks.wait_idle()
        await loop_now().settle()
        assert superseded() is None
        assert in_line() is None


def test_what_is_left_when_the_loop_is_gone_goes_without_a_word() -> None:
    """A body that nobody will ever wake is closed; nothing is done on a loop that is closed."""
    ends: list[str] = []

    async def body() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ends.append("closed")

    async def open_one() -> None:
        tasks = await open_task_map().__aenter__()
        tasks.create_task("a", body, timeout=1000)
        tasks.create_task("b", body)
        await asyncio.sleep(0)

    def ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Task was destroyed but it is pending."""

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(ignore)
    loop.run_until_complete(open_one())
    loop.close()
    del loop
    gc.collect()
    assert ends == ["closed", "closed"]


@virtual()
async def test_a_context_that_outlives_its_run_keeps_no_error() -> None:
    """A child that a body has left behind holds the run, and the run holds nothing."""
    references: list[weakref.ref[Any]] = []
    children: list[asyncio.Task[None]] = []

    async def body() -> None:
        children.append(asyncio.create_task(asyncio.sleep(100)))
        crash(references)

    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("a", body)
        await tasks.wait_idle()
        await loop_now().settle()
        gc.collect()
        assert references[0]() is None
    children[0].cancel()
