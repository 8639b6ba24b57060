"""`post`: a start from any thread, and from signal handlers."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from typing import Any

import pytest

from namedtasks import ClosedError, State
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import TaskRefused, TaskStarted
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, virtual


async def nothing() -> None:
    pass


@virtual(autojump=False)
async def test_posts_of_a_thread_are_started_in_their_order() -> None:
    """In a copy of its context."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[tuple[int, str]] = []
    done = asyncio.Event()

    async def body(number: int) -> None:
        seen.append((number, variable.get()))
        if number == 4:
            done.set()

    def elsewhere(tasks: TaskMap) -> None:
        variable.set("there")
        for number in range(5):
            tasks.post(number, body, number)

    async with open_task_map() as tasks:
        thread = threading.Thread(target=elsewhere, args=(tasks,))
        thread.start()
        await done.wait()
        thread.join()
    assert seen == [(number, "there") for number in range(5)]


@virtual()
async def test_a_refusal_is_told_to_the_instruments_only() -> None:
    heard = RecordingInstrument()
    async with open_task_map(instruments=[heard]) as tasks:
        tasks.create_task("a", asyncio.sleep, 1)
        tasks.post("a", nothing)
        tasks.post("a", nothing, if_busy="skip")
        await tasks.wait_idle()
    assert [event.skipped for event in heard.of(TaskRefused)] == [False, True]
    assert len(heard.of(TaskStarted)) == 1


@virtual()
async def test_what_can_only_be_seen_at_the_start_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def plain() -> Any:
        return 5

    async with open_task_map() as tasks:
        tasks.post("a", plain)
        await loop_now().settle()
        assert tasks.state("a") is State.FREE
    (record,) = caplog.records
    assert record.getMessage() == "the posted start of task 'a' failed"
    assert "for a plain function use run_in_executor()" in caplog.text


@virtual()
async def test_a_closed_map_is_told_at_the_call() -> None:
    heard = RecordingInstrument()
    async with open_task_map(instruments=[heard]) as tasks:
        tasks.post("a", nothing)
        tasks.close()
        with pytest.raises(ClosedError):
            tasks.post("a", nothing)
    await asyncio.sleep(0)
    (refused,) = heard.of(TaskRefused)
    assert isinstance(refused.error, ClosedError)


def test_a_closed_loop_is_told_at_the_call() -> None:
    maps: list[TaskMap] = []

    async def main() -> None:
        maps.append(await open_task_map().__aenter__())

    asyncio.run(main())
    with pytest.raises(
        ClosedError, match=r"^task 'a' may not start: the map is closed; open a new one$"
    ):
        maps[0].post("a", nothing)


@virtual()
async def test_another_error_of_the_loop_is_not_mistaken_for_that() -> None:
    def refuse(*args: object) -> None:
        raise RuntimeError("not today")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_now(), "call_soon_threadsafe", refuse)
        async with open_task_map() as tasks:
            with pytest.raises(RuntimeError, match=r"^not today$"):
                tasks.post("a", nothing)


@virtual(autojump=False)
async def test_it_is_safe_in_a_signal_handler() -> None:
    async with open_task_map() as tasks:
        done = asyncio.Event()

        async def body() -> None:
            done.set()

        def handle(number: int, frame: object) -> None:
            tasks.post("a", body)

        before = signal.signal(signal.SIGTERM, handle)
        try:
            signal.raise_signal(signal.SIGTERM)
            await done.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
