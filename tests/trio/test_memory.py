"""What is kept, and what is not."""

import gc
import sys
import weakref

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import State, TaskFailedError
from tests.memory import no_garbage_collection


class Local:
    """Something that a body has in a local variable."""


async def test_a_failed_tasks_locals_are_collectable_while_its_name_waits(
    autojump_clock: MockClock,
) -> None:
    references: list[weakref.ref[Local]] = []

    async def body() -> None:
        local = Local()
        references.append(weakref.ref(local))
        await trio.lowlevel.checkpoint()
        raise ValueError("boom")

    async with namedtasks.open_task_map(instruments=()) as tasks:
        with no_garbage_collection():
            tasks.start_soon("a", body)
            await tasks.wait_idle()
            await wait_all_tasks_blocked()
            assert tasks.state("a") is State.WAITING
            assert references[0]() is None, "not even a garbage collection was needed"


async def test_a_handle_keeps_the_failure_and_dropping_it_lets_go(
    autojump_clock: MockClock,
) -> None:
    references: list[weakref.ref[Local]] = []

    async def body() -> None:
        local = Local()
        references.append(weakref.ref(local))
        raise ValueError("boom")

    async with namedtasks.open_task_map(instruments=()) as tasks:
        with no_garbage_collection():
            handle = tasks.start_soon("a", body)
            await tasks.wait_idle()
            await wait_all_tasks_blocked()
            assert references[0]() is not None
            del handle
            assert references[0]() is None


async def test_a_waiter_of_a_failed_run_leaves_nothing(autojump_clock: MockClock) -> None:
    references: list[weakref.ref[Local]] = []

    async def body() -> None:
        local = Local()
        references.append(weakref.ref(local))
        await trio.sleep(1)
        raise ValueError("boom")

    async with namedtasks.open_task_map(instruments=()) as tasks:
        with pytest.raises(TaskFailedError):
            await tasks.start_soon("a", body).wait()
        gc.collect()
        assert references[0]() is None


async def test_a_result_nobody_keeps_is_let_go(autojump_clock: MockClock) -> None:
    async def body() -> Local:
        return Local()

    async with namedtasks.open_task_map() as tasks:
        with no_garbage_collection():
            handle = tasks.start_soon("a", body)
            reference = weakref.ref(await handle.wait())
            await wait_all_tasks_blocked()
            assert reference() is not None
            del handle
            assert reference() is None


async def test_a_run_leaves_no_cycle(autojump_clock: MockClock) -> None:
    async def fine() -> None:
        await trio.lowlevel.checkpoint()

    async with namedtasks.open_task_map() as tasks:
        with no_garbage_collection():
            reference = weakref.ref(tasks.start_soon("a", fine))
            await tasks.wait_idle()
            await wait_all_tasks_blocked()
            assert reference() is None


async def test_20_000_names_that_failed_once_leave_nothing(autojump_clock: MockClock) -> None:
    """Once their retention is over and enough runs have settled."""

    async def fail() -> None:
        raise ValueError

    async def fine() -> None: ...

    async with namedtasks.open_task_map(instruments=()) as tasks:
        for number in range(20_000):
            tasks.start_soon(number, fail)
        await tasks.wait_idle()
        scheduler = tasks._backend.scheduler
        assert tasks.statistics().waiting > 19_990
        full = sys.getsizeof(scheduler.records.tables[None].records)
        assert full > 500_000
        await trio.sleep(0.5 + 244)
        runs = 0
        while tasks.statistics().waiting:
            await tasks.start_soon("other", fine).wait()
            runs += 1
        assert runs <= 20_000 / 4
        assert scheduler.records.tables == {}
        assert len(scheduler.records.turn) == 0
        assert sys.getsizeof(scheduler.running) < 10_000, "the memory of the running names is back"
