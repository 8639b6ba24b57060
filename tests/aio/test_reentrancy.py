"""Tasks and instruments that call the map they belong to."""

from __future__ import annotations

import asyncio

import pytest

from namedtasks import AlreadyRunningError, State
from namedtasks.abc import FailedRun
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import Instrument, TaskCancelled, TaskFailed, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import virtual


@virtual()
async def test_a_task_that_starts_its_own_name_is_refused() -> None:
    async with open_task_map() as tasks:

        async def body() -> None:
            with pytest.raises(AlreadyRunningError):
                tasks.create_task("a", body)

        await tasks.create_task("a", body)


@virtual()
async def test_a_task_that_cancels_itself_is_cancelled_at_its_next_await() -> None:
    reached: list[int] = []
    async with open_task_map() as tasks:

        async def body() -> None:
            assert tasks.cancel("a")
            reached.append(1)
            await asyncio.sleep(0)
            reached.append(2)

        task = tasks.create_task("a", body)
        await asyncio.wait([task])
        assert task.cancelled()
    assert reached == [1]


@virtual()
async def test_a_task_that_forgets_its_own_name_begins_to_count_anew() -> None:
    async with open_task_map(instruments=()) as tasks:

        async def boom() -> None:
            raise ValueError("boom")

        async def body() -> None:
            assert tasks.forget("a")
            raise ValueError("boom")

        tasks.create_task("a", boom)
        await tasks.wait_free("a")
        tasks.create_task("a", body)
        await tasks.wait_idle()
        failure = tasks.failure("a")
        assert failure is not None
        assert failure.failures == 1


class Restarts(Instrument):
    """Starts the name again whenever its run ends."""

    def __init__(self) -> None:
        self.tasks: TaskMap | None = None
        self.left = 3

    def _again(self) -> None:
        self.left -= 1
        if self.left and self.tasks is not None:
            self.tasks.forget("a")
            self.tasks.create_task("a", asyncio.sleep, 1)

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        self._again()

    def task_failed(self, event: TaskFailed, /) -> None:
        self._again()

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        self._again()


@virtual()
async def test_an_instrument_may_start_the_name_that_has_just_ended() -> None:
    async def boom() -> None:
        raise ValueError("boom")

    restarts, heard = Restarts(), RecordingInstrument()
    async with open_task_map(instruments=[restarts, heard]) as tasks:
        restarts.tasks = tasks
        tasks.create_task("a", boom)
        await tasks.wait_idle()
    assert [type(event) for event in heard.events if not isinstance(event, TaskStarted)][:1] == [
        TaskFailed
    ]
    assert len(heard.of(TaskSucceeded)) == 2


class CancelsAll(Instrument):
    def __init__(self) -> None:
        self.tasks: TaskMap | None = None

    def task_started(self, event: TaskStarted, /) -> None:
        assert self.tasks is not None
        self.tasks.cancel_all(reason="the instrument says so")


@virtual()
async def test_an_instrument_may_cancel_what_is_about_to_begin() -> None:
    begun: list[str] = []

    async def body() -> None:
        begun.append("a")
        await asyncio.sleep(1)
        begun.append("never")

    cancels = CancelsAll()
    async with open_task_map(instruments=[cancels]) as tasks:
        cancels.tasks = tasks
        task = tasks.create_task("a", body)
        await asyncio.wait([task])
        assert task.cancelled()
    assert begun == ["a"]


class Raises(Instrument):
    def task_started(self, event: TaskStarted, /) -> None:
        raise KeyboardInterrupt


@virtual()
async def test_an_instrument_that_raises_is_unplugged(caplog: pytest.LogCaptureFixture) -> None:
    async with open_task_map(instruments=[Raises()]) as tasks:
        assert await tasks.create_task("a", asyncio.sleep, 1, "value") == "value"
    assert "was unplugged" in caplog.text


@virtual()
async def test_a_policy_that_calls_the_map_meets_a_name_that_runs_still() -> None:
    states: list[State] = []

    class Policy:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            states.append(tasks.state("a"))
            tasks.cancel("a")
            return 1.0

    async def boom() -> None:
        raise ValueError("boom")

    async with open_task_map(backoff=Policy(), instruments=()) as tasks:
        task = tasks.create_task("a", boom)
        with pytest.raises(ValueError, match=r"^boom$"):
            await task
        assert states == [State.RUNNING]
        assert tasks.state("a") is State.WAITING


@virtual()
async def test_a_policy_that_forgets_the_name_is_asked_again() -> None:
    asked: list[int] = []

    class Policy:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            asked.append(failures)
            tasks.forget("a")
            return 1.0

    async def boom() -> None:
        raise ValueError("boom")

    async with open_task_map(backoff=Policy(), instruments=()) as tasks:
        for _ in range(2):
            await tasks.wait_free("a")
            tasks.create_task("a", boom)
            await tasks.wait_idle()
    assert asked == [1, 2, 1]


@virtual()
async def test_a_policy_whose_end_is_a_base_exception_frees_the_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Policy:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            raise KeyboardInterrupt

    async def boom() -> None:
        raise ValueError("boom")

    async with open_task_map(backoff=Policy(), instruments=()) as tasks:
        task = tasks.create_task("a", boom)
        await asyncio.wait([task])
        assert "a" not in tasks
        assert isinstance(task.exception(), ValueError)


@virtual()
async def test_a_limited_map_may_be_started_from_its_tasks() -> None:
    async with open_task_map(limit=1) as tasks:
        order: list[str] = []

        async def body(name: str) -> None:
            order.append(name)
            if name == "a":
                tasks.create_task("b", body, "b")
                assert order == ["a"]

        await tasks.create_task("a", body, "a")
        await tasks.wait_idle()
    assert order == ["a", "b"]
