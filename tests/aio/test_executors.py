"""Functions in threads and pools: asked, not stopped; the name is held until they are over."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from namedtasks import State, current_run
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import TaskCancelled, TaskFailed, TaskOverdue, TaskSucceeded
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, virtual


class Gate:
    """A thread says that it is here, and waits to be let go."""

    def __init__(self) -> None:
        self.here = threading.Event()
        self.let_go = threading.Event()

    def deaf(self) -> str:
        self.here.set()
        assert self.let_go.wait(20)
        return "late"

    def listening(self) -> str:
        self.here.set()
        assert self.let_go.wait(20)
        current_run().check_cancelled()
        return "late"

    async def arrive(self) -> None:
        """Wait for the thread, in a thread of the loop's."""
        assert await asyncio.get_running_loop().run_in_executor(None, self.here.wait, 20)


def boom() -> None:
    raise ValueError("boom")


@virtual(autojump=False)
async def test_it_runs_in_a_thread_of_the_maps_own() -> None:
    """A daemon, in a copy of the caller's context."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("here")

    def body(number: int) -> tuple[object, ...]:
        thread = threading.current_thread()
        return (number, variable.get(), thread.daemon, current_run().name)

    async with open_task_map() as tasks:
        assert await tasks.run_in_executor("a", body, 3) == (3, "here", True, "a")


@virtual(autojump=False)
async def test_what_it_raises_is_what_the_task_raises() -> None:
    async with open_task_map(instruments=()) as tasks:
        with pytest.raises(ValueError, match=r"^boom$"):
            await tasks.run_in_executor("a", boom)
        assert tasks.state("a") is State.WAITING
        assert tasks.check("a") is not None


@virtual(autojump=False)
async def test_a_deaf_thread_keeps_its_name_however_often_it_is_cancelled() -> None:
    """By the map, by its Task, by who awaits it; what it returns late is its result."""
    heard = RecordingInstrument()
    gate = Gate()
    async with open_task_map(instruments=[heard]) as tasks:
        task = tasks.run_in_executor("a", gate.deaf)
        await gate.arrive()
        waiter = asyncio.create_task(_await(task))
        await loop_now().settle()
        for _ in range(2):
            assert task.cancel("enough")
            assert tasks.cancel("a")
            waiter.cancel()
            await loop_now().settle()
            assert not task.done()
            assert tasks.state("a") is State.RUNNING
        await loop_now().advance(1)
        assert len(heard.of(TaskOverdue)) == 1
        gate.let_go.set()
        assert await task == "late"
        assert tasks.state("a") is State.FREE
    assert len(heard.of(TaskSucceeded)) == 1


async def _await(task: asyncio.Task[str]) -> str:
    return await task


@pytest.mark.parametrize("by_the_map", [True, False])
def test_a_listening_thread_ends_as_cancelled(by_the_map: bool) -> None:
    @virtual(autojump=False)
    async def main() -> None:
        heard = RecordingInstrument()
        gate = Gate()
        async with open_task_map(instruments=[heard]) as tasks:
            task = tasks.run_in_executor("a", gate.listening)
            await gate.arrive()
            if by_the_map:
                tasks.cancel("a", reason="enough")
            else:
                task.cancel("enough")
            await loop_now().settle()
            gate.let_go.set()
            with pytest.raises(asyncio.CancelledError, match=r"^enough$"):
                await task
        (cancelled,) = heard.of(TaskCancelled)
        assert cancelled.reason == "enough"

    main()


@virtual(autojump=False)
async def test_a_cancel_with_something_else_than_a_text() -> None:
    gate = Gate()
    async with open_task_map() as tasks:
        for message in (None, 5):
            task = tasks.run_in_executor("a", gate.listening)
            await gate.arrive()
            task.cancel(message)
            await loop_now().settle()
            gate.let_go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.here.clear()
            gate.let_go.clear()


@virtual(autojump=False)
async def test_a_listening_thread_that_meets_its_deadline_has_failed() -> None:
    heard = RecordingInstrument()
    gate = Gate()
    async with open_task_map(instruments=[heard]) as tasks:
        task = tasks.run_in_executor("a", gate.listening, timeout=5)
        await gate.arrive()
        await loop_now().advance(5)
        assert not task.done()
        gate.let_go.set()
        with pytest.raises(TimeoutError, match=r"^it took longer than its timeout of 5 s$"):
            await task
    assert len(heard.of(TaskFailed)) == 1


@virtual(autojump=False)
async def test_a_deaf_thread_that_meets_its_deadline_is_overdue_and_succeeds() -> None:
    gate = Gate()
    async with open_task_map(instruments=()) as tasks:
        task = tasks.run_in_executor("a", gate.deaf, timeout=5)
        await gate.arrive()
        await loop_now().advance(5)
        await loop_now().advance(1)
        assert tasks.statistics().overdue == 1
        gate.let_go.set()
        assert await task == "late"


@virtual(autojump=False)
async def test_a_cancel_before_the_first_step_keeps_it_from_its_thread() -> None:
    gate = Gate()
    async with open_task_map() as tasks:
        for cancel in (tasks.cancel_all, None):
            task = tasks.run_in_executor("a", gate.deaf)
            if cancel is None:
                task.cancel()
            else:
                cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not gate.here.is_set()


@virtual(autojump=False)
async def test_threads_wait_for_their_slots() -> None:
    gates = [Gate() for _ in range(3)]
    async with open_task_map(limit=2) as tasks:
        made = [tasks.run_in_executor(n, gate.deaf) for n, gate in enumerate(gates)]
        await gates[0].arrive()
        await gates[1].arrive()
        assert not gates[2].here.is_set()
        assert tasks.statistics().waiting_for_slot == 1
        gates[0].let_go.set()
        await gates[2].arrive()
        for gate in gates:
            gate.let_go.set()
        assert await asyncio.gather(*made) == ["late"] * 3


@virtual(autojump=False)
async def test_a_pool_of_threads_may_be_given() -> None:
    """To the map or to the run; `current_run` works there, too."""
    with ThreadPoolExecutor(1, "mine") as pool, ThreadPoolExecutor(1, "other") as other:

        def where() -> tuple[object, str]:
            return current_run().name, threading.current_thread().name

        async with open_task_map(executor=pool) as tasks:
            assert await tasks.run_in_executor("a", where) == ("a", "mine_0")
            assert await tasks.run_in_executor("a", where, executor=other) == ("a", "other_0")
            assert await tasks.run_in_executor("a", where, executor=lambda: other) == (
                "a",
                "other_0",
            )


@virtual(autojump=False)
async def test_a_job_that_waits_in_a_pool_is_taken_back() -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        async with open_task_map(executor=pool) as tasks:
            first = tasks.run_in_executor("first", gate.deaf)
            await gate.arrive()
            second = tasks.run_in_executor("second", boom)
            third = tasks.run_in_executor("third", boom, timeout=5)
            await loop_now().settle()
            tasks.cancel("second", reason="enough")
            with pytest.raises(asyncio.CancelledError, match=r"^enough$"):
                await second
            await loop_now().advance(5)
            with pytest.raises(TimeoutError):
                await third
            gate.let_go.set()
            assert await first == "late"


@virtual(autojump=False)
async def test_a_job_that_somebody_else_took_back_has_failed() -> None:
    gate = Gate()
    pool = ThreadPoolExecutor(1)
    async with open_task_map(executor=pool, instruments=()) as tasks:
        first = tasks.run_in_executor("first", gate.deaf)
        await gate.arrive()
        second = tasks.run_in_executor("second", boom)
        await loop_now().settle()
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(concurrent.futures.CancelledError):
            await second
        assert tasks.state("second") is State.WAITING
        with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
            await tasks.run_in_executor("third", boom)
        gate.let_go.set()
        await first


def square(number: int) -> int:
    return number * number


@virtual(autojump=False)
async def test_a_pool_of_processes_may_be_given() -> None:
    with ProcessPoolExecutor(1) as pool:
        async with open_task_map(executor=pool) as tasks:
            assert await tasks.run_in_executor("a", square, 7) == 49


@virtual(autojump=False)
async def test_leaving_the_block_waits_for_a_thread_that_was_cancelled() -> None:
    gate = Gate()
    maps: list[TaskMap] = []

    async def block() -> None:
        async with open_task_map(instruments=()) as tasks:
            maps.append(tasks)
            tasks.run_in_executor("a", gate.deaf)
            await asyncio.sleep(100)

    task = asyncio.create_task(block())
    await gate.arrive()
    task.cancel()
    await loop_now().advance(2)
    assert not task.done()
    assert maps[0].state("a") is State.RUNNING
    gate.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@virtual(autojump=False)
async def test_a_wait_for_the_map_from_one_of_its_threads_is_refused() -> None:
    loop = asyncio.get_running_loop()

    def body(tasks: TaskMap) -> str:
        waiting = asyncio.run_coroutine_threadsafe(tasks.wait_idle(), loop)
        return str(waiting.exception(20))

    async with open_task_map() as tasks:
        assert "would wait for the task itself" in await tasks.run_in_executor("a", body, tasks)


@virtual(autojump=False)
async def test_a_stop_iteration_is_told_as_what_it_does_to_a_coroutine() -> None:
    def body() -> Any:
        return next(iter(()))

    async with open_task_map(instruments=()) as tasks:
        with pytest.raises(RuntimeError, match=r"^coroutine raised StopIteration$"):
            await tasks.run_in_executor("a", body)


@virtual(autojump=False)
async def test_the_end_may_come_just_as_the_task_is_cancelled() -> None:
    """The value counts: the thread has done its work."""
    gate = Gate()
    async with open_task_map() as tasks:
        task = tasks.run_in_executor("a", gate.deaf)
        await gate.arrive()
        gate.let_go.set()
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.result() == "late"


@virtual(autojump=False)
async def test_the_maps_threads_go_when_the_block_is_left() -> None:
    async with open_task_map() as tasks:
        thread = await tasks.run_in_executor("a", threading.current_thread)
    thread.join(5)
    assert not thread.is_alive()


@virtual(autojump=False)
async def test_a_thread_hears_of_its_deadline_though_the_loops_time_stands_still() -> None:
    """uvloop's does while it sleeps, and its timers may come half a millisecond early."""
    gate = Gate()
    async with open_task_map(instruments=()) as tasks:
        task = tasks.run_in_executor("a", gate.listening, timeout=5)
        await gate.arrive()
        await loop_now().advance(5)
        loop_now().virtual_now -= 0.0005
        gate.let_go.set()
        with pytest.raises(TimeoutError):
            await task
