"""The helpers for the tests of programs that use namedtasks."""

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


async def test_a_recording_instrument_keeps_every_event_in_order(autojump_clock: MockClock) -> None:
    async def boom() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        raise ValueError

    recorder = RecordingInstrument()
    backoff = namedtasks.Backoff(give_up_after=1)
    async with namedtasks.open_task_map(backoff=backoff, instruments=[recorder]) as tasks:
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
    assert [type(event) for event in recorder.events] == kinds
    assert len(recorder.of(TaskStarted)) == 3
    assert recorder.of(TaskEvent) == recorder.events
