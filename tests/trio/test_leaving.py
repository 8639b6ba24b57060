"""What leaves the block, and what is left behind: nothing."""

import logging
import signal
import threading
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import ClosedError, State, TaskCancelledError, TaskFailedError, current_run
from namedtasks.abc import AnyTaskMap, FailedRun
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskFailed,
    TaskOverdue,
    TaskStarted,
    TaskSucceeded,
)
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


async def test_it_goes_up_also_while_the_block_waits_for_its_end(autojump_clock: MockClock) -> None:
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


async def test_an_instrument_that_raises_anything_loses_no_name(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start, at the end, while runs are cancelled because the block raised."""

    class Exits(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            raise SystemExit(3)

    class ExitsLater(Instrument):
        def task_cancelled(self, event: TaskCancelled, /) -> None:
            raise KeyboardInterrupt

    instruments = [Exits(), ExitsLater()]
    with pytest.raises(KeyError):
        async with namedtasks.open_task_map(instruments=instruments, limit=1) as tasks:
            handle = tasks.start_soon("a", trio.sleep, 1)
            tasks.start_soon("b", trio.sleep, 1)
            await wait_all_tasks_blocked()
            raise KeyError
    assert handle.done
    assert len(tasks) == 0
    assert caplog.text.count("and was unplugged") == 2


async def test_it_all_holds_in_a_run_with_loose_exception_groups() -> None:
    """`strict_exception_groups=False` is the caller's choice for their own nurseries."""

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with namedtasks.open_task_map() as tasks:
                tasks.start_soon("a", trio.sleep, 5)
                await trio.lowlevel.checkpoint()
                scope.cancel()
                raise KeyError("mine")

    def in_another_run() -> None:
        with pytest.warns(trio.TrioDeprecationWarning), pytest.raises(KeyError):
            trio.run(main, strict_exception_groups=False)

    await trio.to_thread.run_sync(in_another_run)


async def test_the_blocks_exception_leaves_bare_also_if_runs_hold_nurseries() -> None:
    async def body() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)

    with pytest.raises(KeyError), trio.CancelScope() as scope:
        async with namedtasks.open_task_map() as tasks:
            tasks.start_soon("a", body)
            await wait_all_tasks_blocked()
            scope.cancel()
            raise KeyError("mine")


class FrozenError(Exception):
    """Nothing can be set on it, as on a frozen dataclass; and worse."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    def with_traceback(self, tb: object) -> Any:
        raise SystemExit

    def __str__(self) -> str:
        raise SystemExit

    def __copy__(self) -> Any:
        raise SystemExit


@pytest.mark.parametrize("settings", [{}, {"instruments": ()}])
async def test_no_error_whatever_its_ways_loses_its_name(
    settings: Any, autojump_clock: MockClock
) -> None:
    async with namedtasks.open_task_map(**settings) as tasks:
        sibling = tasks.start_soon("sibling", trio.sleep, 1)
        failed = await outcome(tasks.start_soon("a", raises, FrozenError()))
        assert isinstance(failed.__cause__, FrozenError)
        assert tasks.state("a") is State.WAITING
        await sibling.wait()


async def test_a_block_that_raises_an_error_that_cannot_be_spoken_of() -> None:
    with pytest.raises(FrozenError):
        async with namedtasks.open_task_map(instruments=()) as tasks:
            tasks.start_soon("a", trio.sleep_forever)
            await wait_all_tasks_blocked()
            raise FrozenError
    assert len(tasks) == 0


async def test_a_log_that_raises_stops_nobody(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    class FullDisk(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    class BrokenPolicy:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            raise ValueError("broken policy")

    handler = FullDisk()
    logger = logging.getLogger("namedtasks")
    logger.addHandler(handler)
    try:
        async with namedtasks.open_task_map(backoff=BrokenPolicy()) as tasks:
            sibling = tasks.start_soon("sibling", trio.sleep, 1)
            tasks.start_soon("a", raises, ValueError("boom"))
            await sibling.wait()
            assert tasks.check("a") is None
    finally:
        logger.removeHandler(handler)
    assert "broken policy" in capsys.readouterr().err


async def test_whoever_goes_up_everyone_is_asked_to_stop(mock_clock: MockClock) -> None:
    """Also while the block waits for its end: threads are told, and may fall overdue."""
    heard = RecordingInstrument()
    running, go = threading.Event(), threading.Event()

    def thread() -> bool:
        running.set()
        assert go.wait(5)
        return current_run().cancel_requested

    async def exits() -> None:
        assert await trio.to_thread.run_sync(running.wait, 5)
        nursery.start_soon(let_go)
        raise SystemExit

    async def let_go() -> None:
        await wait_all_tasks_blocked()
        mock_clock.jump(1.0)
        await wait_all_tasks_blocked()
        go.set()

    async with trio.open_nursery() as nursery:
        with pytest.raises(SystemExit):
            async with namedtasks.open_task_map(instruments=[heard]) as tasks:
                handle = tasks.start_thread_soon("thread", thread)
                tasks.start_soon("exits", exits)
    assert await handle.wait() is True
    assert [event.name for event in heard.of(TaskOverdue)] == ["thread"]


async def test_surroundings_cancelled_at_the_end_of_the_block_ask_everyone_to_stop(
    mock_clock: MockClock,
) -> None:
    heard = RecordingInstrument()
    running, go = threading.Event(), threading.Event()

    def thread() -> bool:
        running.set()
        assert go.wait(5)
        return current_run().cancel_requested

    async def cancels(scope: trio.CancelScope) -> None:
        assert await trio.to_thread.run_sync(running.wait, 5)
        scope.cancel()
        await wait_all_tasks_blocked()
        mock_clock.jump(1.0)
        await wait_all_tasks_blocked()
        go.set()

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancels, scope)
            async with namedtasks.open_task_map(instruments=[heard]) as tasks:
                handle = tasks.start_thread_soon("thread", thread)
    assert await handle.wait() is True
    assert [event.name for event in heard.of(TaskOverdue)] == ["thread"]


async def test_the_end_of_very_many_is_not_slower_for_each_one() -> None:
    """Who goes up asks all the others to stop once, not once each."""
    calls = 0

    class Counts(Instrument):
        def task_cancelled(self, event: TaskCancelled, /) -> None:
            nonlocal calls
            calls += 1

    scans = 0
    with pytest.raises(KeyError):
        async with namedtasks.open_task_map(instruments=[Counts()]) as tasks:
            for number in range(2000):
                tasks.start_soon(number, trio.sleep_forever)
            await wait_all_tasks_blocked()
            running = tasks._backend.scheduler.running
            really = type(running).values

            def values(table: Any) -> Any:
                nonlocal scans
                scans += 1
                return really(table)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(running), "values", values)
                raise KeyError
    assert calls == 2000
    assert scans <= 2


async def test_a_map_can_be_opened_only_once() -> None:
    opening = namedtasks.open_task_map()
    async with opening:
        pass
    with pytest.raises(
        RuntimeError, match=r"^a task map can be opened only once: call open_task_map\(\) again$"
    ):
        async with opening:
            pass


def test_ctrl_c_while_the_block_waits_leaves_bare_and_leaks_nothing() -> None:
    """A real one, which trio delivers to the main task: to the block, at its end."""
    handles: list[namedtasks.TaskHandle[None]] = []

    @trio.lowlevel.enable_ki_protection
    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    async def interrupts() -> None:
        interrupt()
        await trio.sleep_forever()

    async def main() -> None:
        async with namedtasks.open_task_map() as tasks:
            handles.append(tasks.start_soon("a", interrupts))

    with pytest.raises(KeyboardInterrupt) as caught:
        trio.run(main)
    assert caught.value.__context__ is None
    assert handles[0].done


async def test_an_instrument_that_refuses_a_map_raises_its_error_bare() -> None:
    """And no nursery is left open."""

    class Refuses(Instrument):
        def map_opened(self, tasks: Any, /) -> None:
            tasks.start_soon("a", trio.sleep_forever)
            raise ValueError("one map is enough")

    before = list(trio.lowlevel.current_task().child_nurseries)
    with pytest.raises(ValueError, match=r"^one map is enough$"):
        async with namedtasks.open_task_map(instruments=[Refuses()]):
            raise AssertionError("it is not open")
    assert trio.lowlevel.current_task().child_nurseries == before


async def test_a_block_without_a_name_for_its_map_tells_of_its_end() -> None:
    ended: list[object] = []

    class Ends(Instrument):
        def map_closed(self, tasks: AnyTaskMap, /) -> None:
            ended.append(tasks.statistics().running)

    async with namedtasks.open_task_map(instruments=[Ends()]):
        pass
    assert ended == [0]
