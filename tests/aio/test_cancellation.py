"""Who asked, and what came of it: cancellation by asyncio's rules."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from namedtasks import State, TaskCancelledError, current_run
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import TaskCancelled, TaskFailed, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, virtual

Cancel = Callable[[TaskMap, asyncio.Task[Any]], object]

BY_THE_MAP: Cancel = lambda tasks, task: tasks.cancel("a")  # noqa: E731
BY_THE_TASK: Cancel = lambda tasks, task: task.cancel()  # noqa: E731
both = pytest.mark.parametrize("cancel", [BY_THE_MAP, BY_THE_TASK])


def kinds(heard: RecordingInstrument) -> list[type]:
    return [type(event) for event in heard.events]


@both
@pytest.mark.parametrize("steps", range(4))
def test_a_body_is_cancelled_at_each_of_its_awaits(cancel: Cancel, steps: int) -> None:
    """Before its first step, too: then it never begins."""
    begun: list[int] = []

    async def body() -> None:
        for number in range(5):
            begun.append(number)
            await asyncio.sleep(0)

    @virtual()
    async def main() -> None:
        heard = RecordingInstrument()
        async with open_task_map(instruments=[heard]) as tasks:
            task = tasks.create_task("a", body)
            for _ in range(steps):
                await asyncio.sleep(0)
            assert cancel(tasks, task)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert tasks.state("a") is State.FREE
            assert "a" not in tasks
        assert len(begun) == steps
        assert kinds(heard) == ([TaskStarted] if steps else []) + [TaskCancelled]

    main()


@both
def test_a_run_that_waits_for_its_slot_ends_at_once(cancel: Cancel) -> None:
    """Its body is closed, un-begun and without a warning; the line moves on."""

    @virtual()
    async def main() -> None:
        heard = RecordingInstrument()
        async with open_task_map(limit=1, instruments=[heard]) as tasks:
            let_go = asyncio.Event()
            tasks.create_task("first", let_go.wait)
            task = tasks.create_task("a", let_go.wait)
            last = tasks.create_task("last", let_go.wait)
            await loop_now().settle()
            cancel(tasks, task)
            await loop_now().settle()
            assert task.cancelled()
            assert tasks.state("a") is State.FREE
            (cancelled,) = heard.of(TaskCancelled)
            assert cancelled.duration is None
            let_go.set()
            assert await last

    main()


@both
def test_a_run_that_just_got_its_slot_gives_it_on(cancel: Cancel) -> None:
    @virtual()
    async def main() -> None:
        async with open_task_map(limit=1) as tasks:
            let_go = asyncio.Event()
            first = tasks.create_task("first", let_go.wait)
            task = tasks.create_task("a", asyncio.sleep, 100)
            last = tasks.create_task("last", asyncio.sleep, 0, "done")
            await loop_now().settle()
            first.add_done_callback(lambda _: cancel(tasks, task))
            let_go.set()
            assert await last == "done"
            assert task.cancelled()

    main()


@virtual()
async def test_a_run_that_waits_and_is_cancelled_before_its_first_step() -> None:
    async with open_task_map(limit=1) as tasks:
        let_go = asyncio.Event()
        tasks.create_task("first", let_go.wait)
        one = tasks.create_task("a", let_go.wait)
        two = tasks.create_task("b", let_go.wait)
        assert tasks.cancel("a")
        assert tasks.state("a") is State.FREE, "at once"
        two.cancel()
        await loop_now().settle()
        assert one.cancelled()
        assert two.cancelled()
        let_go.set()


@virtual()
async def test_the_slot_comes_while_the_task_is_on_its_way_out() -> None:
    """Cancelled, but not done yet, it is given a slot: it gives it on."""
    async with open_task_map(limit=1) as tasks:
        first = asyncio.Event()
        tasks.create_task("first", first.wait)
        task = tasks.create_task("a", asyncio.sleep, 100)
        last = tasks.create_task("last", asyncio.sleep, 0, "done")
        await loop_now().settle()
        first.set()
        await asyncio.sleep(0)  # the first one's body ends now, its done-callback comes next
        task.cancel()
        assert await last == "done"


@both
def test_what_a_body_makes_of_it_counts(cancel: Cancel) -> None:
    """It returns: success. It raises: failure."""

    async def returns() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(100)
        return "late"

    async def raises() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            raise OSError("in the clean-up")

    @virtual()
    async def main() -> None:
        heard = RecordingInstrument()
        async with open_task_map(instruments=[heard]) as tasks:
            task: asyncio.Task[Any] = tasks.create_task("a", returns)
            await loop_now().settle()
            cancel(tasks, task)
            assert await task == "late"
            task = tasks.create_task("a", raises)
            await loop_now().settle()
            cancel(tasks, task)
            with pytest.raises(OSError, match=r"^in the clean-up$"):
                await task
            assert tasks.state("a") is State.WAITING
        assert kinds(heard) == [TaskStarted, TaskSucceeded, TaskStarted, TaskFailed]

    main()


@both
def test_a_clean_up_that_awaits_holds_the_name(cancel: Cancel) -> None:
    async def body() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(5)

    @virtual(autojump=False)
    async def main() -> None:
        async with open_task_map() as tasks:
            task = tasks.create_task("a", body)
            await loop_now().settle()
            cancel(tasks, task)
            await loop_now().advance(4.9)
            assert tasks.state("a") is State.RUNNING
            await loop_now().advance(0.2)
            assert task.cancelled()
            assert tasks.state("a") is State.FREE

    main()


@virtual()
async def test_a_cancellation_that_nobody_requested_is_a_failure() -> None:
    """Awaiting the task raises what asyncio raises; the name waits."""
    heard = RecordingInstrument()

    async def body() -> None:
        raise asyncio.CancelledError("out of the blue")

    async with open_task_map(instruments=[heard]) as tasks:
        task = tasks.create_task("a", body)
        with pytest.raises(asyncio.CancelledError, match=r"^out of the blue$"):
            await task
        assert tasks.state("a") is State.WAITING
        (failed,) = heard.of(TaskFailed)
        assert isinstance(failed.error, asyncio.CancelledError)
        assert failed.error.__traceback__ is not None


@virtual()
async def test_awaiting_what_others_cancelled_is_a_failure_too() -> None:
    async with open_task_map(instruments=()) as tasks:
        other: asyncio.Future[None] = loop_now().create_future()

        async def body() -> None:
            await other

        task = tasks.create_task("a", body)
        await loop_now().settle()
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tasks.state("a") is State.WAITING


@virtual()
async def test_a_cancellation_in_a_group_is_a_failure() -> None:
    async def body() -> None:
        raise BaseExceptionGroup("both", [asyncio.CancelledError(), ValueError("boom")])

    async with open_task_map(instruments=()) as tasks:
        task = tasks.create_task("a", body)
        with pytest.raises(BaseExceptionGroup, match=r"^both"):
            await task
        assert tasks.state("a") is State.WAITING


@virtual()
async def test_an_async_body_may_look_by_itself() -> None:
    """What `check_cancelled` raises ends the run as cancelled, in asyncio's words."""
    heard = RecordingInstrument()

    async def body() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            current_run().check_cancelled()

    async with open_task_map(instruments=[heard]) as tasks:
        for reason in ("enough", None):
            task = tasks.create_task("a", body)
            await loop_now().settle()
            tasks.cancel("a", reason=reason)
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert caught.value.args == ((reason,) if reason else ())
    assert kinds(heard) == [TaskStarted, TaskCancelled] * 2


@virtual()
async def test_a_cancelled_error_of_another_run_is_a_failure() -> None:
    async def body() -> None:
        raise namedtasks_error()

    async with open_task_map(instruments=()) as tasks:
        task = tasks.create_task("a", body)
        with pytest.raises(type(namedtasks_error())):
            await task
        assert tasks.state("a") is State.WAITING


def namedtasks_error() -> Exception:
    return TaskCancelledError("another")


@virtual()
async def test_each_request_cancels_again_as_is_asyncios_way() -> None:
    async def stubborn() -> str:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(100)
        return "at last"

    async with open_task_map() as tasks:
        task = tasks.create_task("a", stubborn)
        await loop_now().settle()
        for _ in range(2):
            assert tasks.cancel("a")
            await loop_now().settle()
        assert await task == "at last"
        assert not tasks.cancel("a")


@virtual()
async def test_when_a_task_is_done_its_name_is_free_also_for_who_only_looks() -> None:
    """Whoever runs before the Task's done-callbacks do, woken by the body's last act, say."""
    done = asyncio.Event()

    async def body() -> str:
        done.set()
        return "value"

    async with open_task_map() as tasks:
        task = tasks.create_task("a", body)
        await done.wait()
        assert task.done()
        assert tasks.state("a") is State.FREE
        assert not tasks.cancel("a")
        assert await task == "value"


@virtual()
async def test_a_body_that_cancels_its_own_task_and_returns_is_cancelled() -> None:
    """So asyncio says, and so does the map."""
    heard = RecordingInstrument()

    async def body() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "value"

    async with open_task_map(instruments=[heard]) as tasks:
        task = tasks.create_task("a", body)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tasks.state("a") is State.FREE
    assert kinds(heard) == [TaskStarted, TaskCancelled]


@virtual()
async def test_a_slot_that_comes_for_a_task_that_was_just_cancelled_is_given_on() -> None:
    """Cancelled by the last act of the very body that gives the slot up."""
    async with open_task_map(limit=1) as tasks:

        async def body() -> str:
            await loop_now().settle()
            second.cancel()
            return "well"

        first = tasks.create_task("first", body)
        second = tasks.create_task("second", asyncio.sleep, 100)
        last = tasks.create_task("last", asyncio.sleep, 0, "done")
        assert await last == "done"
        assert second.cancelled()
        assert await first == "well"
