"""Named threads, and what can and cannot be done about them."""

import functools
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import AlreadyRunningError, State, TaskCancelledError, TaskFailedError, current_run
from namedtasks.executors import from_pool
from namedtasks.instruments import TaskOverdue
from namedtasks.testing import RecordingInstrument
from tests.executors.pools import AtOnce

SOON = 5.0
"""Seconds after which a test of threads gives up: never reached when all is well."""


class Gate:
    """A function for a thread, which says that it runs, and runs until it is let go."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.go = threading.Event()

    def __call__(self, result: Any = None) -> Any:
        self.running.set()
        assert self.go.wait(SOON)
        if isinstance(result, BaseException):
            raise result
        return result

    async def is_running(self) -> None:
        assert await trio.to_thread.run_sync(self.running.wait, SOON)


async def test_a_thread_gives_back_its_result() -> None:
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_thread_soon("a", lambda left, right: left + right, 1, 2)
        assert await handle.wait() == 3
        ident = await tasks.start_thread_soon("b", threading.get_ident).wait()
        assert ident != threading.get_ident()


async def test_a_thread_holds_its_name_and_fails_like_a_task() -> None:
    gate = Gate()
    async with namedtasks.open_task_map(instruments=()) as tasks:
        handle = tasks.start_thread_soon("a", gate, ValueError("boom"))
        with pytest.raises(AlreadyRunningError):
            tasks.start_soon("a", trio.sleep, 1)
        assert tasks.start_thread_soon("a", gate, if_busy="skip") is None
        gate.go.set()
        with pytest.raises(TaskFailedError) as caught:
            await handle.wait()
        assert repr(caught.value.__cause__) == "ValueError('boom')"
        assert tasks.state("a") is State.WAITING


async def test_a_thread_that_was_cancelled_keeps_its_name_until_it_is_over() -> None:
    """It is overdue meanwhile, and what it returns is its result."""
    gate, heard = Gate(), RecordingInstrument()
    async with namedtasks.open_task_map(overdue_after=0.0, instruments=[heard]) as tasks:
        handle = tasks.start_thread_soon("a", gate, "late")
        await gate.is_running()
        assert handle.cancel()
        await wait_all_tasks_blocked(0.01)
        assert handle.overdue
        assert not handle.done
        assert repr(handle) == "<namedtasks.TaskHandle 'a' overdue>"
        assert tasks.statistics().overdue == 1
        assert tasks.state("a") is State.RUNNING
        assert [event.name for event in heard.of(TaskOverdue)] == ["a"]
        gate.go.set()
        assert await handle.wait() == "late"
        assert tasks.statistics().overdue == 0


async def test_a_thread_past_its_timeout_is_overdue_and_may_still_succeed(
    mock_clock: MockClock,
) -> None:
    gate = Gate()
    async with namedtasks.open_task_map(instruments=()) as tasks:
        handle = tasks.start_thread_soon("a", gate, "late", timeout=1.0)
        await gate.is_running()
        mock_clock.jump(2.0)
        await wait_all_tasks_blocked(0.01)
        assert handle.overdue
        gate.go.set()
        assert await handle.wait() == "late"


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_a_thread_that_is_willing_stops_when_it_should(
    how: str, mock_clock: MockClock
) -> None:
    running, turns = threading.Event(), 0

    def willing() -> None:
        nonlocal turns
        running.set()
        while True:
            current_run().check_cancelled()
            turns += 1

    async with namedtasks.open_task_map(instruments=()) as tasks:
        handle = tasks.start_thread_soon("a", willing, timeout=1.0)
        assert await trio.to_thread.run_sync(running.wait, SOON)
        if how == "cancel":
            handle.cancel("enough")
        else:
            mock_clock.jump(1.0)
        expected = TaskCancelledError if how == "cancel" else TaskFailedError
        with pytest.raises(expected) as caught:
            await handle.wait()
        if isinstance(caught.value, TaskFailedError):
            assert type(caught.value.__cause__) is trio.TooSlowError


async def test_a_thread_is_told_that_the_surroundings_were_cancelled() -> None:
    running = threading.Event()

    def willing() -> None:
        running.set()
        while True:
            current_run().check_cancelled()

    with trio.CancelScope() as scope:
        async with namedtasks.open_task_map(instruments=()) as tasks:
            handle = tasks.start_thread_soon("a", willing)
            assert await trio.to_thread.run_sync(running.wait, SOON)
            scope.cancel()
    assert handle.done


async def test_an_executor_of_ones_own_runs_the_function() -> None:
    calls: list[tuple[Any, ...]] = []

    async def executor(fn: Callable[..., Any], *args: Any) -> Any:
        calls.append((fn, *args))
        await trio.lowlevel.checkpoint()
        return fn(*args)

    async with namedtasks.open_task_map(executor=executor) as tasks:
        assert await tasks.start_thread_soon("a", divmod, 7, 2).wait() == (3, 1)

    async def another(fn: Callable[..., Any], *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return "another"

    async with namedtasks.open_task_map(executor=executor) as tasks:
        assert (
            str(await tasks.start_thread_soon("a", divmod, 7, 2, executor=another).wait())
            == "another"
        )
    assert calls == [(divmod, 7, 2)]


async def test_a_body_outside_of_trios_threads_can_stop_too() -> None:
    """In an executor that carries the context over, `check_cancelled` raises our own error."""

    async def executor(fn: Callable[..., Any], *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        with trio.CancelScope(shield=True):
            handle.cancel("enough")
            return fn(*args)

    def willing() -> None:
        assert current_run().cancel_requested
        current_run().check_cancelled()

    async with namedtasks.open_task_map(instruments=()) as tasks:
        handle = tasks.start_thread_soon("a", willing, executor=executor)
        with pytest.raises(TaskCancelledError, match=r"^task 'a' was cancelled: enough$"):
            await handle.wait()
        assert tasks.state("a") is State.FREE


async def test_the_limit_holds_for_threads_and_tasks_together() -> None:
    gate = Gate()
    async with namedtasks.open_task_map(limit=1) as tasks:
        thread = tasks.start_thread_soon("thread", gate)
        task = tasks.start_soon("task", trio.lowlevel.checkpoint)
        await gate.is_running()
        assert tasks.statistics().waiting_for_slot == 1
        assert not task.done
        gate.go.set()
        await thread.wait()
        await task.wait()


async def test_a_map_does_not_compete_for_trios_threads() -> None:
    """All of a program shares trio's default limiter; a map's threads are its own."""
    limiter = trio.to_thread.current_default_thread_limiter()
    gate = Gate()
    async with namedtasks.open_task_map() as tasks:
        tasks.start_thread_soon("a", gate)
        while not gate.running.is_set():
            await trio.lowlevel.checkpoint()
        assert limiter.borrowed_tokens == 0
        gate.go.set()


async def async_fn() -> None: ...


async def async_gen() -> Any:
    yield


@types.coroutine
def generator_based() -> Any:
    yield


@functools.wraps(async_fn)
def decorated() -> Any:
    return async_fn()


class AsyncCall:
    async def __call__(self) -> None: ...

    def __repr__(self) -> str:
        return "AsyncCall"


@pytest.mark.parametrize(
    "fn",
    [
        async_fn,
        functools.partial(functools.partial(async_fn)),
        async_gen,
        AsyncCall(),
        generator_based,
    ],
    ids=["function", "partial", "generator", "callable", "generator-based"],
)
async def test_an_async_function_is_refused_at_the_call(fn: Any) -> None:
    async with namedtasks.open_task_map() as tasks:
        with pytest.raises(
            TypeError,
            match=r"^start_thread_soon\(\) takes a plain function, and .* is async: "
            r"use start_soon\(\)$",
        ):
            tasks.start_thread_soon("a", fn)
        assert tasks.check("a") is None


@pytest.mark.parametrize("fn", [decorated, lambda: generator_based()])
@pytest.mark.parametrize("executor", [None, trio.to_thread.run_sync, from_pool(AtOnce())])
async def test_a_coroutine_as_a_result_fails_the_run(fn: Any, executor: Any) -> None:
    """trio's own words come from its own function only, and for an `async def` only."""
    async with namedtasks.open_task_map(instruments=()) as tasks:
        with pytest.raises(namedtasks.TaskFailedError) as caught:
            await tasks.start_thread_soon("a", fn, executor=executor).wait()
        assert type(caught.value.__cause__) is TypeError
        message = str(caught.value.__cause__)
        if executor is trio.to_thread.run_sync and fn is decorated:
            assert message.startswith("Trio expected a sync function, but 'async_fn' appears")
        else:
            assert message == (
                f"start_thread_soon() takes a plain function, and {fn!r} returned a coroutine, "
                "which was not awaited: use start_soon()"
            )
        assert tasks.state("a") is State.WAITING


async def test_the_thread_bears_the_names_of_the_function_and_of_the_run() -> None:
    def name_of_the_thread() -> str:
        return threading.current_thread().name

    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_thread_soon("a", name_of_the_thread)
        assert await handle.wait() == "name_of_the_thread from a"


async def test_a_class_is_called_plainly_whatever_its_instances_do() -> None:
    async with namedtasks.open_task_map() as tasks:
        assert isinstance(await tasks.start_thread_soon("a", AsyncCall).wait(), AsyncCall)


async def test_what_cannot_be_called_is_refused_at_the_call() -> None:
    async with namedtasks.open_task_map() as tasks:
        start_anything: Any = tasks.start_thread_soon
        with pytest.raises(
            TypeError,
            match=r"^start_thread_soon\(\) takes a name and then a plain function, but 5 cannot be "
            r"called: write start_thread_soon\(name, fn, arg\), not "
            r"start_thread_soon\(name, fn\(arg\)\)$",
        ):
            start_anything("a", 5)
        with pytest.raises(
            TypeError,
            match=r"^start_thread_soon\(\) takes a plain function and its arguments, not a "
            r"coroutine: use start_soon\(\)$",
        ):
            start_anything("a", async_fn())
        with pytest.raises(
            TypeError,
            match=r"^executor must be an async callable such as trio\.to_thread\.run_sync, not 5$",
        ):
            start_anything("a", print, executor=5)
        assert tasks.check("a") is None
