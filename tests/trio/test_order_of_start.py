"""The order of a start: look for a conflict, call the function, look again."""

import gc
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import (
    ANY,
    AlreadyRunningError,
    BackoffError,
    ClosedError,
    IfBusy,
    RefusedError,
    TaskCancelledError,
    TaskHandle,
    TaskMap,
)

ALL: list[IfBusy] = ["refuse", "skip", "join", "replace", "queue"]


async def value(what: str) -> str:
    await trio.lowlevel.checkpoint()
    return what


async def fail() -> None:
    raise ValueError("boom")


def must_not_be_called() -> Any:
    raise AssertionError("the function of a start that is not made was called")


def start(tasks: TaskMap, name: Any, fn: Any, if_busy: IfBusy) -> TaskHandle[Any] | None:
    """Start with any value of *if_busy*."""
    return tasks.start_soon(name, fn, if_busy=if_busy)


# The first look


async def test_a_start_that_is_refused_skipped_or_joined_does_not_call_the_function() -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        handle = tasks.start_soon("a", trio.sleep_forever)
        with pytest.raises(AlreadyRunningError):
            start(tasks, "a", must_not_be_called, "refuse")
        assert start(tasks, "a", must_not_be_called, "skip") is None
        assert start(tasks, "a", must_not_be_called, "join") is handle
        tasks.cancel_all()


@pytest.mark.parametrize("if_busy", ALL)
async def test_a_closed_map_does_not_call_the_function(if_busy: IfBusy) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        tasks.close()
        with pytest.raises(ClosedError):
            start(tasks, "a", must_not_be_called, if_busy)


@pytest.mark.parametrize("if_busy", ["refuse", "skip", "join", "replace"])
async def test_a_name_that_waits_does_not_call_the_function(
    if_busy: IfBusy, autojump_clock: MockClock
) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        tasks.start_soon("a", fail)
        await tasks.wait_idle()
        if if_busy == "skip":
            assert start(tasks, "a", must_not_be_called, if_busy) is None
        else:
            with pytest.raises(BackoffError):
                start(tasks, "a", must_not_be_called, if_busy)


@pytest.mark.parametrize("if_busy", ["refuse", "join", "queue"])
async def test_a_name_that_overlaps_does_not_call_the_function(if_busy: IfBusy) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        tasks.start_soon(("a", 1), trio.sleep_forever)
        with pytest.raises(AlreadyRunningError):
            start(tasks, ("a", ANY), must_not_be_called, if_busy)
        tasks.cancel_all()


async def test_a_function_without_a_coroutine_is_not_reported_while_the_name_is_busy() -> None:
    plain: Any = dict
    async with namedtasks.open_task_map(instruments=()) as tasks:
        handle = tasks.start_soon("a", trio.sleep_forever)
        with pytest.raises(AlreadyRunningError):
            start(tasks, "a", plain, "refuse")
        assert start(tasks, "a", plain, "skip") is None
        assert start(tasks, "a", plain, "join") is handle
        with pytest.raises(TypeError, match=r"^start_soon\(\) takes an async function"):
            start(tasks, "a", plain, "queue")
        with pytest.raises(TypeError, match=r"^start_soon\(\) takes an async function"):
            start(tasks, "b", plain, "refuse")
        assert (list(tasks), tasks.statistics().pending) == (["a"], 0)
        tasks.cancel_all()


# The second look. A coroutine that is not awaited would warn, and fail the test.


@pytest.mark.parametrize("if_busy", ALL)
async def test_a_function_may_start_its_own_name_and_that_start_wins(if_busy: IfBusy) -> None:
    def gives() -> Any:
        inner.append(tasks.start_soon("a", value, "inner"))
        return value("outer")

    inner: list[TaskHandle[str]] = []
    async with namedtasks.open_task_map(instruments=()) as tasks:
        if if_busy == "refuse":
            with pytest.raises(AlreadyRunningError) as caught:
                start(tasks, "a", gives, if_busy)
            assert (caught.value.started_at, caught.value.holders) == (None, ("a",))
        elif if_busy == "skip":
            assert start(tasks, "a", gives, if_busy) is None
        else:
            outer = start(tasks, "a", gives, if_busy)
            assert outer is not None
            if if_busy == "join":
                assert outer is inner[0]
            else:
                assert await outer.wait() == "outer"
        assert len(inner) == 1
        if if_busy == "replace":
            with pytest.raises(TaskCancelledError, match="replaced by a newer start"):
                await inner[0].wait()
        else:
            assert await inner[0].wait() == "inner"
    gc.collect()


@pytest.mark.parametrize("if_busy", ALL)
async def test_a_function_may_close_the_map(if_busy: IfBusy) -> None:
    def closes() -> Any:
        tasks.close()
        return value("never")

    async with namedtasks.open_task_map(instruments=()) as tasks:
        with pytest.raises(ClosedError):
            start(tasks, "a", closes, if_busy)
        assert len(tasks) == 0
    gc.collect()


@pytest.mark.parametrize("if_busy", ["refuse", "join", "queue", "replace"])
async def test_a_function_may_start_a_name_that_overlaps(if_busy: IfBusy) -> None:
    def gives() -> Any:
        inner.append(tasks.start_soon(("a", 1), trio.sleep_forever))
        return value("outer")

    inner: list[TaskHandle[None]] = []
    async with namedtasks.open_task_map(instruments=()) as tasks:
        if if_busy == "replace":
            outer = start(tasks, ("a", ANY), gives, if_busy)
            assert outer is not None
            assert await outer.wait() == "outer"
            assert inner[0].done
        else:
            with pytest.raises(RefusedError):
                start(tasks, ("a", ANY), gives, if_busy)
        tasks.cancel_all()
    gc.collect()


async def test_a_name_that_is_free_by_the_second_look_starts_at_once() -> None:
    def frees() -> Any:
        assert tasks.cancel("a")
        return value("new")

    async with namedtasks.open_task_map(limit=1, instruments=()) as tasks:
        tasks.start_soon("other", trio.sleep_forever)
        tasks.start_soon("a", value, "waits for its slot")
        handle = tasks.start_soon("a", frees, if_busy="queue")
        assert tasks["a"] is handle
        assert tasks.cancel("other")
        await wait_all_tasks_blocked()
        assert await handle.wait() == "new"


async def test_a_posted_start_is_looked_at_in_the_maps_thread() -> None:
    """So a name that is busy at the call and free later is started."""
    async with namedtasks.open_task_map(instruments=()) as tasks:
        handle = tasks.start_soon("a", value, "first")
        tasks.post("a", must_not_be_called)
        await handle.wait()
        called = trio.Event()

        async def body() -> None:
            called.set()

        tasks.post("a", body)
        await called.wait()
