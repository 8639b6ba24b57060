"""Whatever an executor raises is a failure of the run, and ends neither loop nor program."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import anyio
import pytest

from namedtasks import Backoff, State, TaskFailedError, _base
from namedtasks.asyncio import open_task_map
from namedtasks.instruments import TaskFailed
from namedtasks.testing import RecordingInstrument
from tests.executors.pools import ByHand
from tests.virtual_loop import loop_now, virtual

KINDS = [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]
each_kind = pytest.mark.parametrize("kind", KINDS)


def raises(kind: type[BaseException]) -> NoReturn:
    raise kind("stop")


def raises_a_group() -> NoReturn:
    raise BaseExceptionGroup("both", [SystemExit(3), ValueError("boom")])


@each_kind
@pytest.mark.parametrize("pool", ["own threads", "a pool of threads"])
@virtual(autojump=False)
async def test_a_base_exception_out_of_a_thread_is_a_failure(
    kind: type[BaseException], pool: str
) -> None:
    heard = RecordingInstrument()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        executor = threads if pool == "a pool of threads" else None
        async with open_task_map(executor=executor, instruments=[heard]) as tasks:
            other = tasks.create_task("other", asyncio.sleep, 0, "not cancelled")
            task = tasks.run_in_executor("a", raises, kind)
            joined = tasks.run_in_executor("a", raises, kind, if_busy="join")
            for future in (task, joined):
                with pytest.raises(TaskFailedError, match=r"^task 'a' failed: ") as caught:
                    await future
                assert type(caught.value.__cause__) is kind
            assert await other == "not cancelled"
            failure = tasks.failure("a")
            assert failure is not None
            assert (failure.failures, type(failure.error)) == (1, kind)
            assert tasks.state("a") is State.WAITING
    assert [type(event.error) for event in heard.of(TaskFailed)] == [kind]


@virtual(autojump=False)
async def test_a_group_with_a_base_exception_is_a_failure_as_a_whole() -> None:
    async with open_task_map(instruments=()) as tasks:
        task = tasks.run_in_executor("a", raises_a_group)
        with pytest.raises(TaskFailedError) as caught:
            await task
        assert isinstance(caught.value.__cause__, BaseExceptionGroup)
        assert tasks.state("a") is State.WAITING


class InPlace(concurrent.futures.Executor):
    """A pool that calls the function inside `submit`, and lets through what it raises."""

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        raise AssertionError(fn(*args))


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, StopIteration])
@virtual()
async def test_what_a_pools_submit_raises_is_a_failure(kind: type[BaseException]) -> None:
    async with open_task_map(executor=InPlace(), instruments=()) as tasks:
        task = tasks.run_in_executor("a", raises, kind)
        with pytest.raises((TaskFailedError, RuntimeError)) as caught:
            await task
        assert type(caught.value.__cause__) is kind
        failure = tasks.failure("a")
        assert failure is not None
        assert type(failure.error) is kind


def test_ctrl_c_in_a_pools_submit_ends_the_program() -> None:
    @virtual()
    async def main() -> None:
        async with open_task_map(executor=InPlace(), instruments=()) as tasks:
            tasks.run_in_executor("a", raises, KeyboardInterrupt)

    with pytest.raises(KeyboardInterrupt):
        main()


@virtual(autojump=False)
async def test_an_exit_in_a_process_is_a_failure() -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        async with open_task_map(executor=pool, instruments=()) as tasks:
            task = tasks.run_in_executor("a", sys.exit, 3)
            with pytest.raises(TaskFailedError) as caught:
                await task
            assert isinstance(caught.value.__cause__, SystemExit)
            assert await tasks.run_in_executor("b", os.getpid) != os.getpid()


@virtual(autojump=False)
async def test_the_policy_is_asked_with_a_threads_stop_iteration() -> None:
    """The Task cannot raise it; it raises a RuntimeError from it, as an async function does."""
    heard = RecordingInstrument()
    async with open_task_map(
        backoff=Backoff(exempt=(StopIteration,)), instruments=[heard]
    ) as tasks:
        with pytest.raises(RuntimeError, match=r"^coroutine raised StopIteration$") as caught:
            await tasks.run_in_executor("a", next, iter(()))
        assert isinstance(caught.value.__cause__, StopIteration)
        assert tasks.state("a") is State.FREE
    assert [type(event.error) for event in heard.of(TaskFailed)] == [StopIteration]


# A cancellation that is delivered again and again, as anyio does in each turn of the loop


class Thread:
    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self) -> str:
        assert self.go.wait(20)
        return "late"


@virtual()
async def test_leaving_a_block_does_not_turn_the_loop_over_and_over_under_anyio() -> None:
    """Inside a scope of anyio that is cancelled, while a thread that cannot be stopped runs."""
    loop, thread = loop_now(), Thread()
    loop.call_later(5, thread.go.set)
    with anyio.move_on_after(1):
        async with open_task_map(instruments=()) as tasks:
            task = tasks.run_in_executor("a", thread)
            before = loop.turns
    assert task.result() == "late"
    assert loop.turns - before < 40


@virtual()
async def test_a_shield_around_the_wait_for_a_threads_task_keeps_the_loop_quiet_under_anyio() -> (
    None
):
    """Without it anyio cancels the waiting task again and again, as it does with any Task."""
    loop, thread = loop_now(), Thread()
    loop.call_later(5, thread.go.set)
    async with open_task_map(instruments=()) as tasks:
        task = tasks.run_in_executor("a", thread)
        before = loop.turns
        with anyio.move_on_after(1), anyio.CancelScope(shield=True):
            assert await task == "late"
    assert loop.turns - before < 40


@virtual(autojump=False)
async def test_repeated_cancellations_wake_a_threads_task_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cancels: list[Any] = []
    cancel: Callable[..., bool] = _base.cancel_run

    def counted(of: Any, run: Any, reason: str | None) -> bool:
        cancels.append(reason)
        return cancel(of, run, reason)

    monkeypatch.setattr("namedtasks._base.cancel_run", counted)
    thread = Thread()
    async with open_task_map(instruments=()) as tasks:
        task = tasks.run_in_executor("a", thread)
        for number in range(100):
            await loop_now().settle()
            task.cancel(f"reason {number}")
        await loop_now().settle()
        thread.go.set()
        assert await task == "late"
    assert cancels == ["reason 0"]


@virtual()
async def test_a_result_that_comes_with_a_cancellation_is_the_runs_result() -> None:
    """The loop learns of the result first; the cancellation wakes the Task before that."""
    pool = ByHand()
    async with open_task_map(executor=pool, instruments=()) as tasks:
        task = tasks.run_in_executor("a", len, "abc")
        await loop_now().settle()
        pool.futures[0].set_result(3)
        task.cancel()
        assert await task == 3
