"""Tasks, callbacks and functions that call the map while it calls them."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import AlreadyRunningError, State, TaskCancelledError
from namedtasks.abc import FailedRun
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskFailed,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
)
from namedtasks.testing import RecordingInstrument


async def noop() -> None:
    await trio.lowlevel.checkpoint()


async def test_starting_ones_own_name_is_busy(autojump_clock: MockClock) -> None:
    async def body() -> None:
        with pytest.raises(AlreadyRunningError):
            tasks.start_soon("a", noop)

    async with namedtasks.open_task_map() as tasks:
        await tasks.start_soon("a", body).wait()


async def test_cancelling_ones_own_name(autojump_clock: MockClock) -> None:
    async def body() -> None:
        assert tasks.cancel("a", reason="my own")
        await trio.sleep_forever()

    async with namedtasks.open_task_map() as tasks:
        with pytest.raises(TaskCancelledError, match="my own"):
            await tasks.start_soon("a", body).wait()


async def test_forgetting_ones_own_name(autojump_clock: MockClock) -> None:
    """The count becomes 0 and stays 0: a failure after that is the first."""
    counts: list[int] = []

    async def body() -> None:
        if handles[-1].failures:
            assert tasks.forget("a")
        counts.append(handles[-1].failures)
        raise ValueError

    handles: list[namedtasks.TaskHandle[None]] = []
    async with namedtasks.open_task_map(instruments=()) as tasks:
        for _ in range(3):
            handles.append(tasks.start_soon("a", body))
            await tasks.wait_free("a")
        failure = tasks.failure("a")
        assert failure is not None
        assert failure.failures == 1
    assert counts == [0, 0, 0]


async def test_closing_from_inside(autojump_clock: MockClock) -> None:
    async def body() -> str:
        tasks.close()
        await trio.sleep(1)
        return "done"

    async with namedtasks.open_task_map() as tasks:
        assert await tasks.start_soon("a", body).wait() == "done"


async def test_every_method_may_be_called_from_inside(autojump_clock: MockClock) -> None:
    async def body() -> None:
        assert "a" in tasks
        assert len(tasks) == 1
        assert tasks.state("a") is State.RUNNING
        assert isinstance(tasks.check("a"), AlreadyRunningError)
        assert tasks.failure("a") is None
        assert not tasks.forget("a")
        assert tasks.statistics().running == 1
        assert tasks.cancel_matching(lambda name: name == "b") == 0
        await tasks.wait_free("b")
        tasks.post("b", noop)

    async with namedtasks.open_task_map() as tasks:
        await tasks.start_soon("a", body).wait()


# The function is called before the name is taken


@pytest.mark.parametrize("limit", [1, None])
async def test_a_function_that_cancels_its_own_name_finds_nothing_to_cancel(
    limit: int | None, autojump_clock: MockClock
) -> None:
    def cancels_itself() -> Any:
        assert not tasks.cancel("a", reason="by itself")
        return noop()

    async with namedtasks.open_task_map(limit=limit) as tasks:
        tasks.start_soon("other", trio.sleep, 1)
        await tasks.start_soon("a", cancels_itself).wait()


async def test_a_function_that_starts_another_and_raises_has_taken_nothing(
    autojump_clock: MockClock,
) -> None:
    def starts_another() -> Any:
        handles.append(tasks.start_soon("b", noop))
        assert "a" not in tasks
        raise ZeroDivisionError

    handles: list[namedtasks.TaskHandle[Any]] = []
    async with namedtasks.open_task_map(limit=1) as tasks:
        with pytest.raises(ZeroDivisionError):
            tasks.start_soon("a", starts_another)
        assert list(tasks) == ["b"]
        await handles[0].wait()


async def test_functions_that_start_others_get_their_slots_in_the_order_of_admission(
    autojump_clock: MockClock,
) -> None:
    def cancels_the_one_before() -> Any:
        assert tasks.cancel("b")
        return noop()

    def starts_two() -> Any:
        tasks.start_soon("b", noop)
        tasks.start_soon("c", cancels_the_one_before)
        raise ZeroDivisionError

    async with namedtasks.open_task_map(limit=1) as tasks:
        with pytest.raises(ZeroDivisionError):
            tasks.start_soon("a", starts_two)
        await tasks["c"].wait()


async def test_an_instrument_may_do_anything_to_the_map(autojump_clock: MockClock) -> None:
    """Restart what ended, forget what failed, cancel what starts: states stay true."""

    class Meddler(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            if event.name == "doomed":
                tasks.cancel("doomed", reason="meddled")

        def task_failed(self, event: TaskFailed, /) -> None:
            assert tasks.state(event.name) is State.WAITING
            assert tasks.forget(event.name)
            tasks.start_soon(event.name, noop)

        def task_cancelled(self, event: TaskCancelled, /) -> None:
            assert event.name not in tasks

        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            assert event.name not in tasks
            done.append(event.name)

    async def boom() -> None:
        raise ValueError

    done: list[object] = []
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[Meddler(), heard]) as tasks:
        tasks.start_soon("a", boom)
        doomed = tasks.start_soon("doomed", trio.sleep_forever)
        await tasks.wait_idle()
        with pytest.raises(TaskCancelledError, match="meddled"):
            await doomed.wait()
    assert done == ["a"]


async def test_an_instrument_that_refuses_itself_for_ever_is_unplugged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Loop(Instrument):
        def task_refused(self, event: TaskRefused, /) -> None:
            tasks.start_soon("a", noop)

    async with namedtasks.open_task_map(instruments=[Loop()]) as tasks:
        tasks.start_soon("a", trio.sleep, 1)
        with pytest.raises(AlreadyRunningError):
            tasks.start_soon("a", noop)
    assert "was unplugged" in caplog.text


async def test_a_policy_may_call_the_map(autojump_clock: MockClock) -> None:
    class Meddler:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            assert tasks.state("a") is State.RUNNING, "not free before its fate is known"
            with pytest.raises(AlreadyRunningError):
                tasks.start_soon("a", noop)
            tasks.start_soon("b", noop)
            tasks.forget("a")
            return 1.0

    async def boom() -> None:
        raise ValueError

    async with namedtasks.open_task_map(backoff=Meddler(), instruments=()) as tasks:
        tasks.start_soon("a", boom)
        await tasks.wait_free("a")
        assert trio.current_time() == 1.0


async def test_a_broken_policy_loses_no_name(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            raise SystemExit

    async def boom() -> None:
        raise ValueError

    async with namedtasks.open_task_map(backoff=Broken(), instruments=()) as tasks:
        tasks.start_soon("a", boom)
        await tasks.wait_free("a")
        assert trio.current_time() == 0.5
    assert "the default figures apply" in caplog.text


async def test_a_start_from_a_waiter_that_has_just_been_woken(autojump_clock: MockClock) -> None:
    async def restart(handle: namedtasks.TaskHandle[None]) -> None:
        await handle.wait()
        tasks.start_soon("a", noop)

    async with trio.open_nursery() as nursery, namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", trio.sleep, 1)
        nursery.start_soon(restart, handle)
        await wait_all_tasks_blocked()
        await handle.wait()
        await wait_all_tasks_blocked()
        assert tasks.check("a") is None


async def test_a_policy_that_forgets_the_name_is_asked_again() -> None:
    """So the wait is the one for the number of failures that is on record."""
    asked: list[int] = []

    class Forgets:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            asked.append(failures)
            if failures > 1:
                tasks.forget("a")
            return 0.0

    async def fails() -> None:
        raise ValueError("boom")

    async with namedtasks.open_task_map(backoff=Forgets(), instruments=()) as tasks:
        for _ in range(2):
            tasks.start_soon("a", fails)
            await tasks.wait_idle()
        failure = tasks.failure("a")
        assert failure is not None
        assert failure.failures == 1
    assert asked == [1, 2, 1]
