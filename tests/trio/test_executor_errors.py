"""Whatever an executor raises is a failure of the run, and does not leave the map's block."""

import concurrent.futures
import multiprocessing
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import trio
from trio.testing import MockClock

import namedtasks
from namedtasks import Backoff, State, TaskFailedError
from namedtasks.executors import from_pool
from namedtasks.instruments import TaskFailed
from namedtasks.testing import RecordingInstrument

KINDS = [SystemExit, KeyboardInterrupt, GeneratorExit]
each_kind = pytest.mark.parametrize("kind", KINDS)


def raises(kind: type[BaseException]) -> NoReturn:
    raise kind("stop")


async def in_place(fn: Callable[..., Any], *args: Any) -> Any:
    """An executor of the user's."""
    await trio.lowlevel.checkpoint()
    return fn(*args)


async def check_failure(tasks: namedtasks.TaskMap, kind: type[BaseException]) -> None:
    other = tasks.start_soon("other", trio.sleep, 0)
    handle = tasks.start_thread_soon("a", raises, kind)
    with pytest.raises(TaskFailedError, match=r"^task 'a' failed: ") as caught:
        await handle.wait()
    assert type(caught.value.__cause__) is kind
    await other.wait()
    failure = tasks.failure("a")
    assert failure is not None
    assert (failure.failures, type(failure.error)) == (1, kind)
    assert tasks.state("a") is State.WAITING


@each_kind
@pytest.mark.parametrize("workers", [True, False], ids=["workers", "own tasks"])
@pytest.mark.parametrize("executor", [None, in_place], ids=["threads", "of the user's"])
async def test_a_base_exception_is_a_failure(
    kind: type[BaseException], executor: Any, workers: bool
) -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(
        executor=executor, instruments=[heard], workers=workers
    ) as tasks:
        await check_failure(tasks, kind)
    assert [type(event.error) for event in heard.of(TaskFailed)] == [kind]


@each_kind
async def test_a_base_exception_out_of_a_pool_of_threads_is_a_failure(
    kind: type[BaseException],
) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        async with namedtasks.open_task_map(executor=from_pool(pool), instruments=()) as tasks:
            await check_failure(tasks, kind)


async def test_an_exit_in_a_process_is_a_failure() -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        async with namedtasks.open_task_map(executor=from_pool(pool), instruments=()) as tasks:
            with pytest.raises(TaskFailedError) as caught:
                await tasks.start_thread_soon("a", sys.exit, 3).wait()
            assert isinstance(caught.value.__cause__, SystemExit)
            assert await tasks.start_thread_soon("b", len, "abc").wait() == 3


async def test_a_group_with_a_base_exception_is_a_failure_as_a_whole() -> None:
    def raises_a_group() -> NoReturn:
        raise BaseExceptionGroup("both", [SystemExit(3), ValueError("boom")])

    async with namedtasks.open_task_map(instruments=()) as tasks:
        with pytest.raises(TaskFailedError) as caught:
            await tasks.start_thread_soon("a", raises_a_group).wait()
        assert repr(caught.value.__cause__) == (
            "BaseExceptionGroup('both', [SystemExit(3), ValueError('boom')])"
        )


async def test_a_cancelled_executor_that_raises_as_well_is_cancelled_and_has_failed(
    autojump_clock: MockClock,
) -> None:
    """The cancellation of an enclosing scope propagates, what the function raised does not."""

    async def raises_when_cancelled(fn: Callable[..., Any], *args: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                fn(*args)

    heard = RecordingInstrument()
    with trio.move_on_after(1) as scope:
        async with namedtasks.open_task_map(
            executor=raises_when_cancelled, instruments=[heard]
        ) as tasks:
            tasks.start_thread_soon("a", sys.exit, 3)
    assert scope.cancelled_caught
    (failed,) = heard.of(TaskFailed)
    assert repr(failed.error).endswith("[SystemExit(3)])")


@pytest.mark.parametrize("executor", [None, in_place], ids=["threads", "of the user's"])
async def test_the_policy_is_asked_with_a_threads_stop_iteration(executor: Any) -> None:
    """An async function cannot raise it; waiters get the RuntimeError that Python makes of it."""
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(
        backoff=Backoff(exempt=(StopIteration,)), executor=executor, instruments=[heard]
    ) as tasks:
        with pytest.raises(TaskFailedError) as caught:
            await tasks.start_thread_soon("a", next, iter(())).wait()
        assert repr(caught.value.__cause__) == "RuntimeError('coroutine raised StopIteration')"
        assert tasks.state("a") is State.FREE
    assert [type(event.error) for event in heard.of(TaskFailed)] == [StopIteration]


async def test_a_thread_that_fails_after_its_deadline_has_its_own_error() -> None:
    """And one that stops when asked is too slow, also with the executors' rule."""

    def stops() -> None:
        while True:
            namedtasks.current_run().check_cancelled()

    async with namedtasks.open_task_map(instruments=()) as tasks:
        with pytest.raises(TaskFailedError) as caught:
            await tasks.start_thread_soon("a", stops, timeout=0).wait()
        assert isinstance(caught.value.__cause__, trio.TooSlowError)
