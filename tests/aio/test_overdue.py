"""Overdue: who was asked to stop, or met the deadline, and goes on regardless."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from namedtasks.asyncio import open_task_map
from namedtasks.instruments import TaskOverdue
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, virtual


async def stubborn(seconds: float) -> None:
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(seconds)


def timers() -> int:
    loop: Any = loop_now()
    return sum(1 for timer in loop._scheduled if not timer.cancelled())


@virtual(autojump=False)
async def test_a_cancelled_run_that_goes_on_is_told_once() -> None:
    heard = RecordingInstrument()
    async with open_task_map(overdue_after=2, instruments=[heard]) as tasks:
        tasks.create_task("a", stubborn, 10)
        await loop_now().settle()
        asked_at = loop_now().time()
        tasks.cancel("a")
        await loop_now().advance(1.9)
        assert heard.of(TaskOverdue) == []
        await loop_now().advance(0.2)
        assert tasks.statistics().overdue == 1
        await loop_now().advance(9)
        assert tasks.statistics().overdue == 0
    (overdue,) = heard.of(TaskOverdue)
    assert overdue.asked_at == asked_at


@virtual(autojump=False)
async def test_a_run_that_met_its_deadline_and_goes_on_is_overdue() -> None:
    heard = RecordingInstrument()
    async with open_task_map(instruments=[heard]) as tasks:
        tasks.create_task("a", stubborn, 10, timeout=5)
        await loop_now().advance(5)
        await loop_now().advance(0.9)
        assert tasks.statistics().overdue == 0
        await loop_now().advance(0.2)
        assert tasks.statistics().overdue == 1
        await loop_now().advance(10)


@virtual(autojump=False)
async def test_there_is_one_timer_and_only_while_there_may_be_need_of_it() -> None:
    async with open_task_map(instruments=()) as tasks:
        ended = asyncio.Event()
        for name in "abc":
            tasks.create_task(name, ended.wait)
        await loop_now().settle()
        assert timers() == 0

        async def deaf() -> None:
            while not ended.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await ended.wait()

        for name in "xyz":
            tasks.create_task(name, deaf)
        await loop_now().settle()
        assert tasks.cancel_all() == 6
        await loop_now().settle()
        assert timers() == 1
        ended.set()
        await loop_now().settle()
        assert timers() == 0


@virtual(autojump=False)
async def test_the_timer_serves_whoever_is_due_first() -> None:
    heard = RecordingInstrument()
    async with open_task_map(overdue_after=10, instruments=[heard]) as tasks:
        tasks.create_task("late", stubborn, 100, timeout=50)
        await loop_now().advance(1)
        tasks.create_task("early", stubborn, 100)
        await loop_now().settle()
        tasks.cancel("early")
        await loop_now().advance(10)
        assert [event.name for event in heard.of(TaskOverdue)] == ["early"]
        await loop_now().advance(39)
        await loop_now().advance(10)
        assert [event.name for event in heard.of(TaskOverdue)] == ["early", "late"]
        await loop_now().advance(100)


@virtual(autojump=False)
async def test_a_timer_that_comes_too_early_is_set_again() -> None:
    """uvloop rounds to milliseconds."""
    async with open_task_map(overdue_after=1, instruments=()) as tasks:
        tasks.create_task("a", stubborn, 10)
        await loop_now().settle()
        tasks.cancel("a")
        tasks._backend._run_due()
        assert tasks.statistics().overdue == 0
        await loop_now().advance(1)
        assert tasks.statistics().overdue == 1
        await loop_now().advance(20)
