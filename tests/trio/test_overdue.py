"""Runs that do not stop when they should, in virtual time."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import current_run
from namedtasks.instruments import Instrument, TaskOverdue
from namedtasks.testing import RecordingInstrument


async def shielded(seconds: float) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)


async def test_overdue_is_told_once_and_exactly_when_it_is_due(autojump_clock: MockClock) -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard], overdue_after=2.0) as tasks:
        tasks.start_soon("timeout", shielded, 10, timeout=3)
        tasks.start_soon("cancel", shielded, 10)
        tasks.start_soon("in time", shielded, 2.5)
        await trio.sleep(1)
        tasks.cancel("cancel")
        tasks.cancel("in time")
        await trio.sleep(1)
        tasks.cancel("cancel")
        await tasks.wait_idle()
    assert heard.of(TaskOverdue) == [
        TaskOverdue(name="cancel", operation=None, at=3.0, duration=3.0, asked_at=1.0),
        TaskOverdue(name="timeout", operation=None, at=5.0, duration=5.0, asked_at=3.0),
    ]


async def test_an_earlier_time_wakes_the_alarm_earlier(autojump_clock: MockClock) -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        tasks.start_soon("late", shielded, 200, timeout=100)
        await trio.sleep(1)
        tasks.start_soon("soon", shielded, 200, timeout=10)
        await tasks.wait_idle()
    assert [(event.name, event.at) for event in heard.of(TaskOverdue)] == [
        ("soon", 12.0),
        ("late", 101.0),
    ]


async def test_the_alarm_ends_with_what_it_watches(autojump_clock: MockClock) -> None:
    """A timeout of an hour does not hold the block open for an hour."""
    async with namedtasks.open_task_map() as tasks:
        for number in range(10):
            await tasks.start_soon(number, trio.sleep, 1, timeout=3600).wait()
            await wait_all_tasks_blocked()
            names = {task.name for task in tasks._backend.nursery.child_tasks}
            assert "namedtasks: the map's timer" not in names
    assert trio.current_time() == 10


async def test_the_alarm_that_was_just_sent_home_comes_back(autojump_clock: MockClock) -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        first = tasks.start_soon("first", trio.sleep, 1, timeout=100)
        await first.wait()
        tasks.start_soon("second", shielded, 10, timeout=1)
        await tasks.wait_idle()
    assert [event.name for event in heard.of(TaskOverdue)] == ["second"]


async def test_the_alarm_works_on_under_a_cancelled_surrounding(autojump_clock: MockClock) -> None:
    heard = RecordingInstrument()
    with trio.move_on_after(5):
        async with namedtasks.open_task_map(instruments=[heard]) as tasks:
            tasks.start_soon("a", shielded, 20, timeout=6)
    assert [(event.name, event.at) for event in heard.of(TaskOverdue)] == [("a", 6.0)]


async def test_an_overdue_run_stays_overdue_in_its_handle(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        handle = tasks.start_soon("a", shielded, 20)
        await wait_all_tasks_blocked()
        handle.cancel()
        await tasks.wait_idle()
        assert handle.overdue


@pytest.mark.parametrize("timeout", [0, 0.0, 1e-9])
async def test_a_timeout_of_nothing_ends_a_run_at_its_first_checkpoint(
    timeout: float, autojump_clock: MockClock
) -> None:
    steps: list[str] = []

    async def body() -> None:
        steps.append("before")
        await trio.sleep(1)
        steps.append("after")

    async with namedtasks.open_task_map(instruments=()) as tasks:
        handle = tasks.start_soon("a", body, timeout=timeout)
        with pytest.raises(namedtasks.TaskFailedError):
            await handle.wait()
    assert steps == ["before"]


async def test_the_alarm_has_a_context_of_its_own(autojump_clock: MockClock) -> None:
    """It serves all runs; what it tells of is not part of the one that woke it."""
    seen: list[object] = []

    class Looks(Instrument):
        def task_overdue(self, event: TaskOverdue, /) -> None:
            try:
                seen.append(current_run().name)
            except RuntimeError:
                seen.append(None)

    async def starts_another() -> None:
        tasks.start_soon("a", shielded, 10, timeout=1)

    async with namedtasks.open_task_map(instruments=[Looks()]) as tasks:
        tasks.start_soon("other", starts_another)
    assert seen == [None]


async def test_a_timer_that_was_wanted_and_is_not_needed(autojump_clock: MockClock) -> None:
    """What ends a wait may leave nothing that is due, and no task that watches it."""
    async with namedtasks.open_task_map() as tasks:
        tasks._backend.scheduler.timers.changed = True
        await tasks.start_soon("a", trio.sleep, 1).wait()
        assert not tasks._backend.scheduler.timers.changed
        assert tasks._backend._timer is None
