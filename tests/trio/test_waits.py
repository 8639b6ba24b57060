"""Waiting for the map, for a name, for a handle."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

import namedtasks
from namedtasks import Backoff, ClosedError, GaveUpError, State, TaskCancelledError


async def boom() -> None:
    raise ValueError("boom")


async def start_failed(tasks: namedtasks.TaskMap, name: object = "a") -> None:
    tasks.start_soon(name, boom)
    await tasks.wait_idle()


async def test_every_wait_is_a_checkpoint_also_if_there_is_nothing_to_wait_for() -> None:
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", trio.lowlevel.checkpoint)
        await handle.wait()
        for wait in (tasks.wait_idle, tasks.wait_empty, handle.wait):
            with assert_checkpoints():
                await wait()
        with assert_checkpoints():
            await tasks.wait_free("a")
        with assert_checkpoints():
            await tasks.shutdown()


async def test_one_end_wakes_every_waiter(autojump_clock: MockClock) -> None:
    woken: list[str] = []

    async def waiter(name: str, wait: Callable[[], Awaitable[Any]]) -> None:
        await wait()
        woken.append(name)

    async with trio.open_nursery() as nursery, namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", trio.sleep, 1)
        for number in range(3):
            nursery.start_soon(waiter, f"idle {number}", tasks.wait_idle)
            nursery.start_soon(waiter, f"empty {number}", tasks.wait_empty)
            nursery.start_soon(waiter, f"handle {number}", handle.wait)
            nursery.start_soon(waiter, f"free {number}", lambda: tasks.wait_free("a"))
        await wait_all_tasks_blocked()
        assert woken == []
        await trio.sleep(1)
        await wait_all_tasks_blocked()
        assert len(woken) == 12


async def test_starts_made_meanwhile_are_waited_for_too(autojump_clock: MockClock) -> None:
    async def chain(left: int) -> None:
        await trio.sleep(1)
        if left:
            tasks.start_soon(left, chain, left - 1)

    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("first", chain, 3)
        await tasks.wait_idle()
        assert trio.current_time() == 4


async def test_when_a_wait_returns_its_condition_holds(autojump_clock: MockClock) -> None:
    """Who takes the name first has it; the other waiter goes on waiting."""
    got: list[float] = []

    async def taker() -> None:
        while True:
            await tasks.wait_free("a")
            if tasks.start_soon("a", trio.sleep, 1, if_busy="skip"):
                got.append(trio.current_time())
                return
            raise AssertionError("the name was not free")

    async with namedtasks.open_task_map() as tasks, trio.open_nursery() as nursery:
        tasks.start_soon("a", trio.sleep, 1)
        for _ in range(3):
            nursery.start_soon(taker)
    assert got == [1, 2, 3]


async def test_wait_idle_never_looks_at_failures(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        await start_failed(tasks)
        await tasks.wait_idle()
        assert trio.current_time() == 0


async def test_wait_empty_returns_when_a_record_lapses(autojump_clock: MockClock) -> None:
    """Also if nothing else ever runs and nobody retries."""
    async with namedtasks.open_task_map(instruments=(), retention=7.0) as tasks:
        await start_failed(tasks)
        await trio.sleep(0.25)
        await start_failed(tasks, "b")
        await tasks.wait_empty()
        assert trio.current_time() == 0.25 + 0.5 + 7.0
        assert tasks.statistics().waiting == 0


async def test_wait_empty_returns_when_the_last_failure_is_forgotten(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        async with namedtasks.open_task_map(instruments=()) as tasks:
            await start_failed(tasks)
            await start_failed(tasks, "b")
            nursery.start_soon(tasks.wait_empty)
            await wait_all_tasks_blocked()
            tasks.forget("a")
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            tasks.forget("b")
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 0


async def test_wait_empty_waits_for_a_retry_that_succeeds(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with namedtasks.open_task_map(instruments=()) as tasks:
            await start_failed(tasks)
            nursery.start_soon(tasks.wait_empty)
            await tasks.wait_free("a")
            handle = tasks.start_soon("a", trio.sleep, 1000)
            await trio.sleep(999)
            assert len(nursery.child_tasks) == 1
            await handle.wait()
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 0


async def test_names_given_up_do_not_hold_wait_empty(autojump_clock: MockClock) -> None:
    backoff = Backoff(give_up_after=1)
    async with namedtasks.open_task_map(backoff=backoff, instruments=()) as tasks:
        await start_failed(tasks)
        assert tasks.state("a") is State.GAVE_UP
        await tasks.wait_empty()
        assert trio.current_time() == 0
        assert tasks.statistics().gave_up == 1


async def test_wait_empty_on_very_many_records_lets_others_run(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map(instruments=(), retention=0.0) as tasks:
        for number in range(5000):
            tasks.start_soon(number, boom)
        await tasks.wait_idle()
        assert tasks.statistics().waiting >= 4990
        await tasks.wait_empty()
        assert trio.current_time() == 0.5
        assert tasks.statistics().waiting == 0


async def test_wait_free_waits_for_the_end_and_for_the_wait_after_it(
    autojump_clock: MockClock,
) -> None:
    async def slow_boom() -> None:
        await trio.sleep(1)
        raise ValueError

    async with namedtasks.open_task_map(instruments=()) as tasks:
        tasks.start_soon("a", slow_boom)
        await tasks.wait_free("a")
        assert trio.current_time() == 1.5
        assert tasks.check("a") is None


async def test_wait_free_returns_when_the_name_is_forgotten(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery, namedtasks.open_task_map(instruments=()) as tasks:
        await start_failed(tasks)
        nursery.start_soon(tasks.wait_free, "a")
        nursery.start_soon(tasks.wait_free, "a")
        await wait_all_tasks_blocked()
        tasks.forget("a")
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 0
        assert trio.current_time() == 0


async def test_wait_free_raises_for_a_name_that_gave_up(autojump_clock: MockClock) -> None:
    backoff = Backoff(give_up_after=1)
    async with namedtasks.open_task_map(backoff=backoff, instruments=()) as tasks:
        tasks.start_soon("a", boom)
        with pytest.raises(GaveUpError):
            await tasks.wait_free("a")
        tasks.forget("a")
        await tasks.wait_free("a")


async def test_wait_free_raises_when_the_map_closes(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery, namedtasks.open_task_map() as tasks:

        async def waiter() -> None:
            with pytest.raises(ClosedError):
                await tasks.wait_free("a")

        tasks.start_soon("a", trio.sleep, 1)
        nursery.start_soon(waiter)
        await wait_all_tasks_blocked()
        tasks.close()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 0


async def test_so_it_does_while_it_sits_out_a_wait(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery, namedtasks.open_task_map(instruments=()) as tasks:

        async def waiter() -> None:
            with pytest.raises(ClosedError):
                await tasks.wait_free("a")

        await start_failed(tasks)
        nursery.start_soon(waiter)
        await wait_all_tasks_blocked()
        tasks.close()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 0
        assert trio.current_time() == 0


async def test_wait_free_is_per_operation(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        tasks.start_soon("a", boom, operation="attach")
        await tasks.wait_free("a", operation="detach")
        assert trio.current_time() == 0
        await tasks.wait_free("a", operation="attach")
        assert trio.current_time() == 0.5


async def test_a_waiter_that_leaves_takes_its_traces_along(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        tasks.start_soon("a", trio.sleep, 5)
        with trio.move_on_after(1):
            await tasks.wait_free("a")
        tasks.cancel("a")
        assert tasks._backend.waits.starters == {}
        await start_failed(tasks, "b")
        with trio.move_on_after(0.1):
            await tasks.wait_free("b")
        assert tasks._backend.waits.starters == {}
        await tasks.wait_free("b")
        assert tasks._backend.waits.starters == {}


async def test_a_waiter_that_leaves_leaves_the_others_their_place(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery, namedtasks.open_task_map(instruments=()) as tasks:
        await start_failed(tasks)
        nursery.start_soon(tasks.wait_free, "a")
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.1):
            await tasks.wait_free("a")
        tasks.forget("a")
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 0
        assert trio.current_time() == 0.1


SELF_WAITS: dict[str, Callable[[namedtasks.TaskMap], Awaitable[object]]] = {
    "wait_idle": lambda tasks: tasks.wait_idle(),
    "wait_empty": lambda tasks: tasks.wait_empty(),
    "shutdown": lambda tasks: tasks.shutdown(),
    "wait_free": lambda tasks: tasks.wait_free("me"),
    "handle": lambda tasks: tasks["me"].wait(),
}


@pytest.mark.parametrize("wait", SELF_WAITS.values(), ids=SELF_WAITS)
@pytest.mark.parametrize("where", ["directly", "in a nursery", "in another map", "in a thread"])
async def test_a_task_that_would_wait_for_itself_is_told_so(
    wait: Callable[[namedtasks.TaskMap], Awaitable[object]], where: str
) -> None:
    """At the call, before anything happened: no deadlock."""

    async def attempt() -> None:
        with pytest.raises(RuntimeError, match=r"would wait for the task itself: "):
            await wait(tasks)
        told.append(where)

    async def body() -> None:
        if where == "directly":
            await attempt()
        elif where == "in a nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attempt)
        elif where == "in another map":
            async with namedtasks.open_task_map() as other:
                other.start_soon("other", attempt)
        else:
            await trio.to_thread.run_sync(trio.from_thread.run, attempt)

    told: list[str] = []
    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("me", body)
        await tasks.wait_idle()
        assert told == [where]
        assert tasks.check("me") is None, "a refused shutdown did not close the map"


async def test_waiting_for_others_from_inside_a_task_is_fine(autojump_clock: MockClock) -> None:
    async def body() -> None:
        await other.wait()
        await tasks.wait_free("b")

    async with namedtasks.open_task_map() as tasks:
        other = tasks.start_soon("b", trio.sleep, 1)
        await tasks.start_soon("a", body).wait()
        assert trio.current_time() == 1


async def test_a_task_started_in_a_foreign_nursery_may_wait_for_the_map(
    autojump_clock: MockClock,
) -> None:
    """A context variable would have been copied there, and would be wrong."""

    returned: list[float] = []

    async def waits() -> None:
        await tasks.wait_idle()
        returned.append(trio.current_time())

    async def body() -> None:
        nursery.start_soon(waits)
        await trio.sleep(1)

    async with trio.open_nursery() as nursery, namedtasks.open_task_map() as tasks:
        tasks.start_soon("a", body)
    assert returned == [1]


async def test_shutdown_waits_and_then_cancels(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        quick = tasks.start_soon("quick", trio.sleep, 1)
        slow = tasks.start_soon("slow", trio.sleep, 100)
        assert await tasks.shutdown(grace=2) == ()
        assert trio.current_time() == 2
        await quick.wait()
        with pytest.raises(TaskCancelledError) as caught:
            await slow.wait()
        assert caught.value.reason == "the map is shutting down"
        with pytest.raises(ClosedError):
            tasks.start_soon("late", trio.sleep, 1)


async def test_shutdown_without_grace_cancels_nothing(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("slow", trio.sleep, 100)
        assert await tasks.shutdown() == ()
        assert trio.current_time() == 100
        await handle.wait()


async def test_shutdown_gives_back_the_names_that_cannot_be_stopped(
    autojump_clock: MockClock,
) -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(50)

    async with namedtasks.open_task_map(overdue_after=3.0, instruments=()) as tasks:
        handle = tasks.start_soon("stubborn", stubborn)
        tasks.start_soon("willing", trio.sleep_forever)
        assert await tasks.shutdown(grace=2) == ("stubborn",)
        assert trio.current_time() == 5
        assert handle.overdue


@pytest.mark.parametrize("grace", [-1, math.nan])
async def test_a_bad_grace_is_refused_and_closes_nothing(grace: float) -> None:
    async with namedtasks.open_task_map() as tasks:
        with pytest.raises(ValueError, match=r"^grace must be at least 0, not "):
            await tasks.shutdown(grace=grace)
        assert tasks.check("a") is None
