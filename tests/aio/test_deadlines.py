"""Timeouts: a run that is stopped by its own deadline has failed, and its Task says so."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from namedtasks import State, current_run
from namedtasks.asyncio import open_task_map
from namedtasks.instruments import TaskCancelled, TaskFailed
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, virtual

TOO_SLOW = r"^it took longer than its timeout of 5 s$"


async def cleans_up(seconds: float) -> None:
    try:
        await asyncio.sleep(100)
    finally:
        await asyncio.sleep(seconds)


@virtual()
async def test_awaiting_a_run_that_was_too_slow_raises_timeout_error() -> None:
    heard = RecordingInstrument()
    async with open_task_map(instruments=[heard]) as tasks:
        begun = loop_now().time()
        task = tasks.create_task("a", asyncio.sleep, 100, timeout=5)
        with pytest.raises(TimeoutError, match=TOO_SLOW) as caught:
            await task
        assert loop_now().time() == begun + 5
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert tasks.state("a") is State.WAITING
    (failed,) = heard.of(TaskFailed)
    assert failed.error is caught.value


@virtual()
async def test_a_body_that_is_quick_enough_does_not_notice() -> None:
    async with open_task_map() as tasks:
        task = tasks.create_task("a", asyncio.sleep, 4.9, "value", timeout=5)
        assert await task == "value"
        await asyncio.sleep(1)


@virtual()
async def test_a_value_that_comes_late_is_a_success() -> None:
    async def late() -> str:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return "late"

    async with open_task_map() as tasks:
        assert await tasks.create_task("a", late, timeout=5) == "late"
        assert tasks.state("a") is State.FREE


@virtual()
async def test_it_counts_from_the_bodys_first_step() -> None:
    """Not from waiting for a slot."""
    async with open_task_map(limit=1) as tasks:
        tasks.create_task("first", asyncio.sleep, 10)
        assert await tasks.create_task("a", asyncio.sleep, 4, "value", timeout=5) == "value"


@virtual()
async def test_a_timeout_of_nothing_stops_a_body_at_its_first_await() -> None:
    async with open_task_map(instruments=()) as tasks:
        with pytest.raises(TimeoutError):
            await tasks.create_task("a", asyncio.sleep, 1, timeout=0)


@pytest.mark.parametrize("by_the_map", [True, False])
@pytest.mark.parametrize(("cancel_at", "kind"), [(4, asyncio.CancelledError), (6, TimeoutError)])
def test_who_came_first_decides(
    by_the_map: bool, cancel_at: float, kind: type[BaseException]
) -> None:
    """The deadline at 5 s, or a cancel at 4 s or 6 s, in a clean-up that each interrupts."""

    async def body() -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(100)
        raise asyncio.CancelledError

    @virtual(autojump=False)
    async def main() -> None:
        heard = RecordingInstrument()
        async with open_task_map(instruments=[heard]) as tasks:
            task = tasks.create_task("a", body, timeout=5)
            for second in range(7):
                if second == cancel_at:
                    assert tasks.cancel("a") if by_the_map else task.cancel()
                await loop_now().advance(1)
            with pytest.raises(kind):
                await task
        assert len(heard.of(TaskFailed)) == (kind is TimeoutError)
        assert len(heard.of(TaskCancelled)) == (kind is not TimeoutError)

    main()


@virtual()
async def test_an_async_body_that_looks_by_itself_has_timed_out_too() -> None:
    async def body() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            assert current_run().cancel_requested
            current_run().check_cancelled()

    async with open_task_map(instruments=()) as tasks:
        with pytest.raises(TimeoutError, match=TOO_SLOW):
            await tasks.create_task("a", body, timeout=5)


@virtual()
async def test_the_bodys_own_timeout_error_is_its_own() -> None:
    async def body() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(100)

    async with open_task_map(instruments=()) as tasks:
        with pytest.raises(TimeoutError, match=r"^$"):
            await tasks.create_task("a", body, timeout=5)


@virtual()
async def test_a_deadline_passes_through_timeouts_and_groups_of_the_body() -> None:
    async def in_timeout() -> None:
        async with asyncio.timeout(50):
            await asyncio.sleep(100)

    async def in_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(100))
            await asyncio.sleep(100)

    async with open_task_map(instruments=()) as tasks:
        for number, body in enumerate((in_timeout, in_group)):
            with pytest.raises(TimeoutError, match=TOO_SLOW):
                await tasks.create_task(number, body, timeout=5)


@virtual()
async def test_a_clean_up_after_the_deadline_holds_the_name() -> None:
    async with open_task_map(instruments=()) as tasks:
        begun = loop_now().time()
        with pytest.raises(TimeoutError):
            await tasks.create_task("a", cleans_up, 3, timeout=5)
        assert loop_now().time() == begun + 8


@virtual()
async def test_a_deadline_is_no_cancellation_of_who_awaits_the_task() -> None:
    """It is told by its own count: nothing is left to uncancel."""
    counts: list[Any] = []

    async def body() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await asyncio.sleep(100)
        finally:
            counts.append(task.cancelling())

    async with open_task_map(instruments=()) as tasks:
        with pytest.raises(TimeoutError):
            await tasks.create_task("a", body, timeout=5)
        me = asyncio.current_task()
        assert me is not None
        counts.append(me.cancelling())
    assert counts == [1, 0]


@virtual(autojump=False)
async def test_a_body_that_looks_by_itself_was_cancelled_if_that_came_first() -> None:
    """By its Task, of which the map knows only then."""

    async def body() -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(100)
        current_run().check_cancelled()

    async with open_task_map() as tasks:
        task = tasks.create_task("a", body, timeout=5)
        await loop_now().advance(4)
        task.cancel()
        await loop_now().advance(1)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tasks.state("a") is State.FREE
