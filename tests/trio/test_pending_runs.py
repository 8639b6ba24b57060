"""Pending runs in the trio shell, in the places where they might be lost or left to wait."""

import gc
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import ANY, ClosedError, TaskCancelledError, TaskHandle
from namedtasks.instruments import TaskStarted
from namedtasks.testing import RecordingInstrument


async def value(what: str) -> str:
    await trio.lowlevel.checkpoint()
    return what


async def boom() -> None:
    await trio.lowlevel.checkpoint()
    raise ValueError("boom")


async def stubborn(event: trio.Event) -> None:
    with trio.CancelScope(shield=True):
        await event.wait()


async def why(handle: TaskHandle[Any]) -> str | None:
    """Why a run was cancelled."""
    with trio.fail_after(5), pytest.raises(TaskCancelledError) as caught:
        await handle.wait()
    return caught.value.reason


# A function that starts again while it is called


@pytest.mark.parametrize("inner", [("v", 1), ("v", ANY)])
async def test_a_start_replaces_what_its_function_has_started(inner: Any) -> None:
    """The outer start is the newer one: it is deferred after its function was called."""
    handles: list[TaskHandle[str]] = []
    async with namedtasks.open_task_map() as tasks:

        def gives() -> Any:
            handles.append(tasks.start_soon(inner, value, "inner", if_busy="replace"))
            return value("outer")

        event = trio.Event()
        tasks.start_soon(("v", 1), stubborn, event)
        await wait_all_tasks_blocked()
        outer = tasks.start_soon(("v", ANY), gives, if_busy="replace")
        assert handles[0].done
        event.set()
        with trio.fail_after(5):
            assert await outer.wait() == "outer"
        assert "newer start" in str(await why(handles[0]))
    gc.collect()


async def test_a_function_may_cancel_what_its_own_run_waits_for() -> None:
    """Nothing is in its way any more when it has given its body: it is not deferred."""
    event = trio.Event()
    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon(("v", 1), stubborn, event)
        await wait_all_tasks_blocked()
        claim = tasks.start_soon(("v", ANY), value, "claim", if_busy="replace")

        def gives() -> Any:
            assert claim.cancel("in the way")
            return value("mine")

        handle = tasks.start_soon(("v", 2), gives, if_busy="replace")
        assert tasks[("v", 2)] is handle
        assert await handle.wait() == "mine"
        assert await why(claim) == "in the way"
        event.set()


# The end


async def test_what_queues_behind_a_wait_after_the_block_is_dropped_at_once(
    autojump_clock: MockClock,
) -> None:
    """A run that goes on after the block may start others, but none that would keep it open."""
    handles: list[TaskHandle[str]] = []

    async def late() -> None:
        await trio.sleep(0.1)
        handles.append(tasks.start_soon("fails", value, "never", if_busy="queue"))
        assert handles[0].done

    async with namedtasks.open_task_map(instruments=[]) as tasks:
        tasks.start_soon("fails", boom)
        await tasks.wait_idle()
        tasks.start_soon("late", late)
    assert trio.current_time() == 0.1
    assert await why(handles[0]) == "the map is closing"
    gc.collect()


async def test_close_tells_who_waits_for_a_claim_to_go() -> None:
    async def wait_for_it() -> None:
        with pytest.raises(ClosedError):
            await tasks.wait_free(("v", 2))
        event.set()

    event = trio.Event()
    async with trio.open_nursery() as nursery, namedtasks.open_task_map() as tasks:
        tasks.start_soon(("v", 1), stubborn, event)
        await wait_all_tasks_blocked()
        tasks.start_soon(("v", ANY), value, "new", if_busy="replace")
        nursery.start_soon(wait_for_it)
        await wait_all_tasks_blocked()
        tasks.close()
        with trio.fail_after(5):
            await event.wait()


async def test_cancel_all_lets_nothing_begin_that_was_pending() -> None:
    """Not even for its first step: whatever else is cancelled before it."""
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        events = trio.Event(), trio.Event()
        for pod in (0, 1):
            tasks.start_soon(("v", pod), stubborn, events[pod])
        await wait_all_tasks_blocked()
        claim = tasks.start_soon(("v", ANY), value, "claim", if_busy="replace")
        queued = tasks.start_soon(("v", 0), value, "queued", if_busy="queue")
        events[0].set()
        await wait_all_tasks_blocked()
        assert tasks.statistics().pending == 2
        assert tasks.cancel_all(reason="all of it") == 3
        assert (claim.done, queued.done) == (True, True)
        events[1].set()
    assert len(heard.of(TaskStarted)) == 2
    assert [await why(handle) for handle in (claim, queued)] == ["all of it"] * 2


# Waiting for oneself


async def test_a_run_that_waits_for_what_queues_behind_it_is_refused() -> None:
    """It would wait for its own end."""

    async def body() -> None:
        handle = tasks.start_soon("a", value, "next", if_busy="queue")
        message = r"^inside task 'a', wait\(\) of a run that is queued behind it would wait for "
        with pytest.raises(RuntimeError, match=message):
            await handle.wait()
        handles.append(handle)

    handles: list[TaskHandle[str]] = []
    async with namedtasks.open_task_map() as tasks:
        with trio.fail_after(5):
            await tasks.start_soon("a", body).wait()
            assert await handles[0].wait() == "next"


async def test_a_run_that_joins_itself_may_not_wait() -> None:
    async def body() -> None:
        with pytest.raises(RuntimeError, match=r"^inside task 'a', wait\(\) of its own handle "):
            await tasks.start_soon("a", body, if_busy="join").wait()

    async with namedtasks.open_task_map() as tasks:
        await tasks.start_soon("a", body).wait()


async def test_a_run_that_replaces_itself_is_cancelled_when_it_waits() -> None:
    async def body() -> None:
        handles.append(tasks.start_soon("a", value, "new", if_busy="replace"))
        await handles[0].wait()

    handles: list[TaskHandle[str]] = []
    async with namedtasks.open_task_map() as tasks:
        assert await why(tasks.start_soon("a", body)) == "replaced by a newer start"
        assert await handles[0].wait() == "new"
