"""A pool as an executor of the trio map."""

import signal
import weakref
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import namedtasks
from namedtasks import (
    State,
    TaskCancelledError,
    TaskFailedError,
    TaskMap,
    current_run,
    open_task_map,
)
from namedtasks.executors import _Wait, from_pool
from tests.executors.pools import SOON, AtOnce, ByHand, Gate
from tests.memory import free_those_of_other_threads, no_garbage_collection


async def is_running(gate: Gate) -> None:
    assert await trio.to_thread.run_sync(gate.running.wait, SOON)


async def test_it_gives_and_raises_what_the_function_does() -> None:
    with ThreadPoolExecutor() as pool:
        executor = from_pool(pool)
        assert await executor(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await executor(divmod, 7, 0)


async def test_a_pool_that_runs_at_once_does_no_harm() -> None:
    assert await from_pool(AtOnce())(divmod, 7, 2) == (3, 1)


async def test_a_function_in_a_pool_of_threads_knows_its_run() -> None:
    with ThreadPoolExecutor() as pool:
        async with namedtasks.open_task_map(executor=from_pool(pool)) as tasks:
            assert await tasks.start_thread_soon("a", lambda: current_run().name).wait() == "a"


async def test_a_function_in_a_pool_of_threads_can_stop_when_it_should() -> None:
    gate = Gate()

    def willing() -> None:
        gate()
        current_run().check_cancelled()

    with ThreadPoolExecutor() as pool:
        async with namedtasks.open_task_map(executor=from_pool(pool), instruments=()) as tasks:
            handle = tasks.start_thread_soon("a", willing)
            await is_running(gate)
            handle.cancel("enough")
            gate.go.set()
            with pytest.raises(TaskCancelledError, match=r"^task 'a' was cancelled: enough$"):
                await handle.wait()


async def test_work_that_has_not_begun_is_taken_back() -> None:
    """The name is free at once, though the pool is busy for long."""
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        async with namedtasks.open_task_map(executor=from_pool(pool)) as tasks:
            tasks.start_thread_soon("first", gate)
            await is_running(gate)
            handle = tasks.start_thread_soon("second", pytest.fail, "it ran")
            await wait_all_tasks_blocked()
            handle.cancel()
            with pytest.raises(TaskCancelledError):
                await handle.wait()
            assert tasks.state("second") is State.FREE
            assert tasks.state("first") is State.RUNNING
            gate.go.set()


async def test_work_that_runs_keeps_its_name_and_may_succeed_late() -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        async with namedtasks.open_task_map(
            executor=from_pool(pool), overdue_after=0.0, instruments=()
        ) as tasks:
            handle = tasks.start_thread_soon("a", gate, "late")
            await is_running(gate)
            handle.cancel()
            await wait_all_tasks_blocked(0.01)
            assert handle.overdue
            assert tasks.state("a") is State.RUNNING
            gate.go.set()
            assert await handle.wait() == "late"


async def test_a_pool_that_is_not_believed_is_waited_for() -> None:
    pool = ByHand()
    async with namedtasks.open_task_map(executor=from_pool(pool)) as tasks:
        handle = tasks.start_thread_soon("a", str, 5)
        await wait_all_tasks_blocked()
        handle.cancel()
        await wait_all_tasks_blocked()
        assert not handle.done
        pool.futures[0].set_result("late")
        assert await handle.wait() == "late"


async def test_a_call_that_was_cancelled_before_submits_nothing() -> None:
    pool = ByHand()
    with trio.CancelScope() as scope:
        scope.cancel()
        await from_pool(pool)(print)
    assert scope.cancelled_caught
    assert pool.futures == []


async def test_a_job_that_its_pool_drops_has_failed() -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        async with namedtasks.open_task_map(executor=from_pool(pool), instruments=()) as tasks:
            tasks.start_thread_soon("first", gate)
            await is_running(gate)
            handle = tasks.start_thread_soon("second", gate)
            await wait_all_tasks_blocked()
            pool.shutdown(wait=False, cancel_futures=True)
            with pytest.raises(TaskFailedError) as caught:
                await handle.wait()
            assert type(caught.value.__cause__) is CancelledError
            gate.go.set()


async def test_a_pool_that_was_shut_down_fails_its_runs() -> None:
    pool = ThreadPoolExecutor()
    pool.shutdown()
    async with namedtasks.open_task_map(executor=from_pool(pool), instruments=()) as tasks:
        with pytest.raises(TaskFailedError) as caught:
            await tasks.start_thread_soon("a", print).wait()
        assert type(caught.value.__cause__) is RuntimeError


async def test_the_factory_is_called_in_trios_thread_for_each_run() -> None:
    tokens: list[trio.lowlevel.TrioToken] = []
    with ThreadPoolExecutor() as pool:

        def factory() -> Executor:
            tokens.append(trio.lowlevel.current_trio_token())
            return pool

        executor = from_pool(factory)
        for _ in range(2):
            await executor(print)
    assert tokens == [trio.lowlevel.current_trio_token()] * 2


async def test_the_factory_may_be_interrupted_by_ctrl_c() -> None:
    """It is the user's, and no work is on its way yet."""
    protected: list[bool] = []
    with ThreadPoolExecutor() as pool:

        def factory() -> Executor:
            protected.append(trio.lowlevel.currently_ki_protected())
            return pool

        await from_pool(factory)(print)
    assert protected == [False]


def test_ctrl_c_in_the_factory_of_a_maps_executor_interrupts_the_program() -> None:
    """Though what an executor raises is a failure of its run only."""

    def factory() -> Executor:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("Python handles the signal before this")

    async def main() -> None:
        async with open_task_map(executor=from_pool(factory), instruments=()) as tasks:
            maps.append(tasks)
            tasks.start_thread_soon("a", print)
            await trio.sleep_forever()

    maps: list[TaskMap] = []
    with pytest.raises(KeyboardInterrupt):
        trio.run(from_pool(factory), print)  # without a map
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    failure = maps[0].failure("a")
    assert failure is not None
    assert isinstance(failure.error, KeyboardInterrupt)


def test_an_end_after_the_trio_run_is_nobodys_business() -> None:
    async def start() -> _Wait:
        return _Wait()

    with ThreadPoolExecutor() as pool:
        future = pool.submit(print)
        future.result()
        wait = trio.run(start)
        wait.in_trio(wait.end, future)


async def test_a_failure_is_in_no_cycle() -> None:
    class Local:
        pass

    gone: list[weakref.ref[Local]] = []

    def fail() -> None:
        local = Local()
        gone.append(weakref.ref(local))
        raise ValueError("boom")

    with ThreadPoolExecutor(1) as pool, no_garbage_collection():
        try:  # pytest.raises() would keep it
            await from_pool(pool)(fail)
        except ValueError as error:
            assert str(error) == "boom"
        await from_pool(pool)(print)  # the worker's thread has let go of the job before
        free_those_of_other_threads()
        assert gone[0]() is None


@pytest.mark.parametrize("pool", [5, ThreadPoolExecutor])
def test_what_is_no_pool_is_refused_at_the_call(pool: Any) -> None:
    with pytest.raises(TypeError):
        from_pool(pool)
