"""Starts posted from foreign threads."""

import contextvars
import logging
import threading
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import namedtasks
from namedtasks import ClosedError
from namedtasks.instruments import TaskRefused, TaskSucceeded
from namedtasks.testing import RecordingInstrument


async def noop(*args: object) -> None:
    await trio.lowlevel.checkpoint()


async def in_thread(fn: Any) -> None:
    await trio.to_thread.run_sync(fn)
    await wait_all_tasks_blocked()


async def test_any_thread_may_post() -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:

        def poster() -> None:
            for number in range(100):
                tasks.post(number, noop, number)

        await in_thread(poster)
        tasks.post("from the map's own thread", noop)
        await wait_all_tasks_blocked()
        await tasks.wait_idle()
        assert len(heard.of(TaskSucceeded)) == 101


async def test_posts_of_one_thread_start_in_their_order() -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard], limit=1) as tasks:

        def post(number: int) -> None:
            tasks.post(number, noop)

        await in_thread(lambda: [*map(post, range(50))])
        await tasks.wait_idle()
    assert [event.name for event in heard.of(TaskSucceeded)] == list(range(50))


async def test_the_context_is_the_posters_own() -> None:
    color: contextvars.ContextVar[str] = contextvars.ContextVar("color")
    seen: list[str] = []

    async def body() -> None:
        seen.append(color.get())

    async with namedtasks.open_task_map() as tasks:

        def poster() -> None:
            color.set("red")
            tasks.post("a", body)
            color.set("blue")

        await in_thread(poster)
        await tasks.wait_idle()
    assert seen == ["red"]


async def test_a_refusal_goes_to_the_instruments_only() -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        tasks.start_soon("a", trio.sleep_forever)
        await in_thread(lambda: tasks.post("a", noop))
        await in_thread(lambda: tasks.post("a", noop, if_busy="skip"))
        assert [event.skipped for event in heard.of(TaskRefused)] == [False, True]
        tasks.cancel_all()


async def test_what_fails_later_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def not_async() -> Any:
        return 5

    async with namedtasks.open_task_map() as tasks:
        with caplog.at_level(logging.ERROR, "namedtasks"):
            await in_thread(lambda: tasks.post("a", not_async))
        assert tasks.check("a") is None
    (record,) = caplog.records
    assert record.getMessage() == "the posted start of task 'a' failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TypeError)


MISTAKES: list[tuple[Any, Any, type[Exception]]] = [
    (([], noop), {}, TypeError),
    (("a", 5), {}, TypeError),
    (("a", noop), {"timeout": -1}, ValueError),
    (("a", noop), {"if_busy": "wait"}, ValueError),
    (("a", noop), {"operation": 5}, TypeError),
]


@pytest.mark.parametrize(("args", "options", "kind"), MISTAKES)
async def test_mistakes_that_can_be_seen_are_raised_at_the_call(
    args: Any, options: Any, kind: type[Exception]
) -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        with pytest.raises(kind):
            tasks.post(*args, **options)
        await wait_all_tasks_blocked()
    assert heard.events == []


async def test_posting_to_a_closed_map_is_refused() -> None:
    async with namedtasks.open_task_map() as tasks:
        tasks.close()
        with pytest.raises(ClosedError):
            tasks.post("a", noop)


def test_posting_to_a_run_that_is_over_is_refused() -> None:
    async def main() -> namedtasks.TaskMap:
        async with namedtasks.open_task_map() as tasks:
            return tasks

    tasks = trio.run(main)
    with pytest.raises(ClosedError):
        tasks.post("a", noop)
    tasks._backend.scheduler.closed = False  # as a thread may see it that is just too late
    with pytest.raises(ClosedError):
        tasks.post("a", noop)


async def test_a_map_that_closes_between_post_and_start_refuses_quietly() -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        tasks.post("a", noop)
        tasks.close()
        await wait_all_tasks_blocked()
    (refused,) = heard.of(TaskRefused)
    assert isinstance(refused.error, ClosedError)


async def test_from_thread_run_sync_is_the_way_to_get_an_answer() -> None:
    async with namedtasks.open_task_map() as tasks:

        def worker() -> str:
            handle = trio.from_thread.run_sync(tasks.start_soon, "a", noop)
            trio.from_thread.run(handle.wait)
            return threading.current_thread().name

        assert await trio.to_thread.run_sync(worker)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_is_no_exception_goes_up_through_the_map(kind: type[BaseException]) -> None:
    def exits() -> Any:
        raise kind

    with pytest.raises(kind):
        async with namedtasks.open_task_map() as tasks:
            tasks.start_soon("other", trio.sleep_forever)
            tasks.post("a", exits)
    assert len(tasks) == 0
