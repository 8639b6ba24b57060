"""What a task may know of its own run."""

import pytest
import trio
from trio.testing import MockClock

import namedtasks
from namedtasks import TaskCancelledError, TaskFailedError, current_run


async def test_a_task_knows_its_run(autojump_clock: MockClock) -> None:
    seen: list[tuple[object, ...]] = []

    async def body() -> None:
        run = current_run()
        seen.append((run.name, run.operation, run.failures, run.cancel_requested))
        assert repr(run) == "<namedtasks.CurrentRun 'a' running>"
        if run.failures == 0:
            raise ValueError

    async with namedtasks.open_task_map(instruments=()) as tasks:
        tasks.start_soon("a", body, operation="op")
        await tasks.wait_free("a", operation="op")
        await tasks.start_soon("a", body, operation="op").wait()
    assert seen == [("a", "op", 0, False), ("a", "op", 1, False)]


async def test_so_do_its_children_and_threads(autojump_clock: MockClock) -> None:
    async def child() -> None:
        names.append(current_run().name)

    async def body() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
        names.append(await trio.to_thread.run_sync(lambda: current_run().name))

    names: list[object] = []
    async with namedtasks.open_task_map() as tasks:
        await tasks.start_soon("a", body).wait()
    assert names == ["a", "a"]


async def test_an_inner_map_has_runs_of_its_own(autojump_clock: MockClock) -> None:
    names: list[object] = []

    async def inner() -> None:
        names.append(current_run().name)

    async def outer() -> None:
        async with namedtasks.open_task_map() as tasks:
            await tasks.start_soon("inner", inner).wait()
        names.append(current_run().name)

    async with namedtasks.open_task_map() as tasks:
        await tasks.start_soon("outer", outer).wait()
    assert names == ["inner", "outer"]


def test_outside_of_a_task_there_is_none() -> None:
    with pytest.raises(RuntimeError, match=r"^current_run\(\) must be called from inside a task$"):
        current_run()


async def test_the_block_is_no_task() -> None:
    async with namedtasks.open_task_map() as tasks:
        await tasks.start_soon("a", trio.lowlevel.checkpoint).wait()
        with pytest.raises(RuntimeError):
            current_run()


async def test_a_task_sees_that_it_should_stop(autojump_clock: MockClock) -> None:
    async def body() -> None:
        run = current_run()
        run.check_cancelled()
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        assert run.cancel_requested
        run.check_cancelled()

    async def looks_exactly_at_its_deadline() -> bool:
        with trio.CancelScope(shield=True):
            await trio.sleep_until(start + 1)
        return current_run().cancel_requested

    start = trio.current_time()
    async with namedtasks.open_task_map(instruments=(), overdue_after=9) as tasks:
        by_cancel = tasks.start_soon("cancel", body)
        by_deadline = tasks.start_soon("deadline", body, timeout=1)
        exactly = tasks.start_soon("exactly", looks_exactly_at_its_deadline, timeout=1)
        await trio.sleep(1)
        by_cancel.cancel("enough")
        with pytest.raises(TaskCancelledError, match=r"^task 'cancel' was cancelled: enough$"):
            await by_cancel.wait()
        with pytest.raises(TaskFailedError) as caught:
            await by_deadline.wait()
        assert type(caught.value.__cause__) is trio.TooSlowError
        assert await exactly.wait()


async def test_an_error_of_the_same_kind_from_elsewhere_is_a_failure(
    autojump_clock: MockClock,
) -> None:
    """Who waits for another run that was cancelled was not cancelled itself."""

    async def body() -> None:
        await other.wait()

    async with namedtasks.open_task_map(instruments=()) as tasks:
        other = tasks.start_soon("other", trio.sleep_forever)
        handle = tasks.start_soon("a", body)
        await trio.sleep(1)
        other.cancel()
        with pytest.raises(TaskFailedError) as caught:
            await handle.wait()
        assert isinstance(caught.value.__cause__, TaskCancelledError)
