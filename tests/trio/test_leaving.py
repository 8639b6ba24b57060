"""What leaves the block, and what is left behind: nothing."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import ClosedError, State, TaskCancelledError, TaskFailedError
from namedtasks.instruments import Instrument, TaskFailed, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument


async def raises(error: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise error


async def raises_at_once(error: BaseException) -> None:
    raise error


async def outcome(handle: namedtasks.TaskHandle[Any]) -> BaseException:
    with pytest.raises((TaskFailedError, TaskCancelledError)) as caught:
        await handle.wait()
    return caught.value


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_a_base_exception_leaves_bare_and_cancels_what_runs(
    kind: type[BaseException],
) -> None:
    error = kind()
    heard = RecordingInstrument()
    with pytest.raises(kind) as caught:
        async with namedtasks.open_task_map(instruments=[heard]) as tasks:
            sibling = tasks.start_soon("sibling", trio.sleep_forever)
            handle = tasks.start_soon("a", raises, error)
            await trio.sleep_forever()
    assert caught.value is error
    failed = await outcome(handle)
    assert isinstance(failed, TaskFailedError)
    assert failed.__cause__ is error
    assert isinstance(await outcome(sibling), TaskCancelledError)
    assert [event.error for event in heard.of(TaskFailed)] == [error]
    assert tasks.state("a") is State.FREE, "its record is as before"
    assert len(tasks) == 0


async def test_several_leave_as_a_group() -> None:
    first, second = SystemExit(1), SystemExit(2)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with namedtasks.open_task_map() as tasks:
            tasks.start_soon("a", raises_at_once, first)
            tasks.start_soon("b", raises_at_once, second)
    assert set(caught.value.exceptions) == {first, second}


async def test_the_blocks_exception_and_a_runs_leave_as_a_group_of_both() -> None:
    mine, its = KeyError("mine"), SystemExit(1)

    async def exits() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise its

    with pytest.raises(BaseExceptionGroup) as caught:
        async with namedtasks.open_task_map() as tasks:
            tasks.start_soon("a", exits)
            await wait_all_tasks_blocked()
            raise mine
    assert caught.value.exceptions == (mine, its)


async def test_a_mixed_group_is_split() -> None:
    """Its Exception part is the run's failure, the rest goes up."""
    mixed = BaseExceptionGroup("mixed", [ValueError("boom"), SystemExit(1)])
    with pytest.raises(BaseExceptionGroup) as caught:
        async with namedtasks.open_task_map(instruments=()) as tasks:
            handle = tasks.start_soon("a", raises, mixed)
    assert [repr(one) for one in caught.value.exceptions] == ["SystemExit(1)"]
    failed = await outcome(handle)
    assert repr(failed.__cause__) == "ExceptionGroup('mixed', [ValueError('boom')])"
    assert tasks.failure("a") is not None


async def test_a_group_that_cannot_be_split_goes_up_whole() -> None:
    class Odd(BaseExceptionGroup[BaseException]):
        def derive(self, excs: Any) -> Any:
            raise ZeroDivisionError

    odd = Odd("odd", [ValueError("boom"), SystemExit(1)])
    with pytest.raises(BaseException) as caught:
        async with namedtasks.open_task_map(instruments=()) as tasks:
            tasks.start_soon("a", raises, odd)
    assert len(tasks) == 0
    del caught


async def test_the_cancellation_of_an_enclosing_scope_goes_up(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with namedtasks.open_task_map() as tasks:
            handle = tasks.start_soon("a", trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    cancelled = await outcome(handle)
    assert isinstance(cancelled, TaskCancelledError)
    assert len(tasks) == 0


async def test_it_goes_up_also_while_the_block_waits_for_its_end(
    autojump_clock: MockClock,
) -> None:
    with trio.move_on_after(1) as scope:
        async with namedtasks.open_task_map() as tasks:
            handle = tasks.start_soon("a", trio.sleep_forever)
    assert scope.cancelled_caught
    cancelled = await outcome(handle)
    assert isinstance(cancelled, TaskCancelledError)
    assert cancelled.reason == "an enclosing cancel scope was cancelled"


async def test_a_run_that_fails_while_the_surroundings_are_cancelled_has_failed(
    autojump_clock: MockClock,
) -> None:
    async def body() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("clean-up")

    with trio.move_on_after(1) as scope:
        async with namedtasks.open_task_map(instruments=()) as tasks:
            handle = tasks.start_soon("a", body)
    assert scope.cancelled_caught
    failed = await outcome(handle)
    assert isinstance(failed, TaskFailedError)


async def test_a_block_that_raises_while_its_surroundings_are_cancelled(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(KeyError):
        with trio.move_on_after(1):
            async with namedtasks.open_task_map() as tasks:
                tasks.start_soon("a", trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise KeyError("mine")


async def test_a_group_with_a_cancellation_in_it_is_absorbed_to_its_rest(
    autojump_clock: MockClock,
) -> None:
    """A run's SystemExit cancels the block; what the block makes of that comes out beside it."""

    async def fails_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("mine")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with namedtasks.open_task_map() as tasks:
            tasks.start_soon("a", raises, SystemExit(1))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails_when_cancelled)
                nursery.start_soon(trio.sleep_forever)
    kinds = {type(one) for one in caught.value.exceptions}
    assert SystemExit in kinds
    assert trio.Cancelled not in kinds


async def test_no_body_begins_once_something_goes_up(autojump_clock: MockClock) -> None:
    heard = RecordingInstrument()
    with pytest.raises(SystemExit):
        async with namedtasks.open_task_map(limit=1, instruments=[heard]) as tasks:
            tasks.start_soon("a", raises, SystemExit(1))
            waiting = tasks.start_soon("b", trio.sleep, 1)
    assert [event.name for event in heard.of(TaskStarted)] == ["a"]
    assert isinstance(await outcome(waiting), TaskCancelledError)


async def test_nor_once_the_block_has_raised(autojump_clock: MockClock) -> None:
    heard = RecordingInstrument()
    with pytest.raises(KeyError):
        async with namedtasks.open_task_map(limit=1, instruments=[heard]) as tasks:
            tasks.start_soon("a", trio.sleep, 1)
            tasks.start_soon("b", trio.sleep, 1)
            await wait_all_tasks_blocked()
            raise KeyError
    assert [event.name for event in heard.of(TaskStarted)] == ["a"]


async def test_a_map_is_closed_after_its_block(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        pass
    assert isinstance(tasks.check("a"), ClosedError)
    with pytest.raises(ClosedError):
        tasks.post("a", trio.sleep, 1)
    with pytest.raises(ClosedError):
        await tasks.wait_free("a")
    await tasks.wait_idle()
    await tasks.wait_empty()
    assert await tasks.shutdown() == ()


async def test_a_map_is_closed_as_soon_as_its_last_run_after_the_block_has_ended(
    autojump_clock: MockClock,
) -> None:
    """A start from outside, in the instant before the block returns, is refused and not lost."""
    refused: list[BaseException | None] = []

    async def outsider(handle: namedtasks.TaskHandle[None]) -> None:
        await handle.wait()
        refused.append(tasks.check("late"))
        with pytest.raises(ClosedError):
            tasks.start_soon("late", trio.sleep, 1)

    async with trio.open_nursery() as nursery, namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", trio.sleep, 1)
        nursery.start_soon(outsider, handle)
    assert isinstance(refused[0], ClosedError)


async def test_an_instrument_may_start_another_run_at_the_last_moment(
    autojump_clock: MockClock,
) -> None:
    class Restarts(Instrument):
        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            if event.name == "a":
                handles.append(tasks.start_soon("b", trio.sleep, 1))

    handles: list[namedtasks.TaskHandle[None]] = []
    async with namedtasks.open_task_map(instruments=[Restarts()]) as tasks:
        tasks.start_soon("a", trio.sleep, 1)
    assert handles[0].done
    assert trio.current_time() == 2


async def test_an_instrument_that_exits_the_program_loses_no_name(
    autojump_clock: MockClock,
) -> None:
    class Exits(Instrument):
        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        async with namedtasks.open_task_map(instruments=[Exits()]) as tasks:
            handle = tasks.start_soon("a", trio.sleep, 1)
            await trio.sleep_forever()
    assert handle.done
    assert len(tasks) == 0
    await handle.wait()


async def test_an_instrument_that_exits_at_a_start_ends_the_run_before_its_body(
    autojump_clock: MockClock,
) -> None:
    class Exits(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        async with namedtasks.open_task_map(instruments=[Exits()]) as tasks:
            handle = tasks.start_soon("a", trio.sleep, 1)
            await trio.sleep_forever()
    assert isinstance(await outcome(handle), TaskFailedError)
    assert len(tasks) == 0


async def test_a_map_can_be_opened_only_once() -> None:
    opening = namedtasks.open_task_map()
    async with opening:
        pass
    with pytest.raises(
        RuntimeError, match=r"^a task map can be opened only once: call open_task_map\(\) again$"
    ):
        async with opening:
            pass


async def test_ctrl_c_while_the_block_waits_leaves_bare_and_leaks_nothing() -> None:
    handle: namedtasks.TaskHandle[None] | None = None

    async def interrupted() -> None:
        nonlocal handle
        async with namedtasks.open_task_map() as tasks:
            handle = tasks.start_soon("a", trio.sleep_forever)
            tasks.start_soon("b", raises, KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        await interrupted()
    assert handle is not None
    assert handle.done
