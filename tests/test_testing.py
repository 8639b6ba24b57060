"""What we give to the tests of others."""

import trio
from trio.testing import MockClock

import namedtasks
from namedtasks.instruments import (
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskForgotten,
    TaskGaveUp,
    TaskOverdue,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
)
from namedtasks.testing import RecordingInstrument


async def test_a_recording_instrument_keeps_every_event_in_order(
    autojump_clock: MockClock,
) -> None:
    async def boom() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        raise ValueError

    heard = RecordingInstrument()
    backoff = namedtasks.Backoff(give_up_after=1)
    async with namedtasks.open_task_map(backoff=backoff, instruments=[heard]) as tasks:
        tasks.start_soon("a", boom, timeout=1)
        tasks.start_soon("a", boom, if_busy="skip")
        await tasks.wait_idle()
        tasks.forget("a")
        tasks.start_soon("a", trio.sleep, 1)
        await tasks.wait_idle()
        tasks.start_soon("a", trio.sleep, 1).cancel()
        await tasks.wait_idle()
    kinds: list[type[TaskEvent]] = [
        TaskRefused,
        TaskStarted,
        TaskOverdue,
        TaskFailed,
        TaskGaveUp,
        TaskForgotten,
        TaskStarted,
        TaskSucceeded,
        TaskStarted,
        TaskCancelled,
    ]
    assert [type(event) for event in heard.events] == kinds
    assert len(heard.of(TaskStarted)) == 3
    assert heard.of(TaskEvent) == heard.events
