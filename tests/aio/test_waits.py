"""The waits: their conditions hold when they return; none waits for its caller."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from namedtasks import ANY, Backoff, ClosedError, GaveUpError, State
from namedtasks.asyncio import TaskMap, open_task_map
from tests.virtual_loop import loop_now, virtual


async def boom() -> None:
    raise ValueError("boom")


INSIDE_MAP = (
    r"^inside a task of the same map, {} would wait for the task itself: "
    r"call it outside the tasks of the map, or wait for single runs$"
)


@pytest.mark.parametrize("verb", ["wait_idle", "wait_empty", "shutdown"])
def test_a_wait_for_the_map_from_inside_is_refused_at_the_call(verb: str) -> None:
    """From the body, and from what it has started; in a map that a body has opened, too."""

    @virtual()
    async def main() -> None:
        async with open_task_map() as tasks:

            async def wait() -> None:
                with pytest.raises(RuntimeError, match=INSIDE_MAP.format(rf"{verb}\(\)")):
                    await getattr(tasks, verb)()

            async def in_a_child() -> None:
                await asyncio.create_task(wait())

            async def in_an_inner_map() -> None:
                async with open_task_map() as inner:
                    await inner.create_task("inner", wait)
                    await inner.wait_idle()

            for body in (wait, in_a_child, in_an_inner_map):
                await tasks.create_task("a", body)
            assert tasks.check("a") is None, "shutdown() has not closed it"

    main()


@virtual()
async def test_the_copied_context_of_a_run_that_has_ended_does_not_count() -> None:
    contexts: list[contextvars.Context] = []

    async def body() -> None:
        contexts.append(contextvars.copy_context())

    async with open_task_map() as tasks:
        await tasks.create_task("a", body)
        await asyncio.create_task(tasks.wait_idle(), context=contexts[0])


@virtual()
async def test_a_task_of_another_map_may_wait() -> None:
    async with open_task_map() as tasks, open_task_map() as others:

        async def wait() -> None:
            await tasks.wait_idle()

        tasks.create_task("a", asyncio.sleep, 1)
        await others.create_task("waits", wait)
        assert len(tasks) == 0


@virtual()
async def test_a_run_may_wait_for_another_maps_idleness_though_it_was_started_from_there() -> None:
    """A start is no waiting: who was started from inside a run is not inside of it."""
    async with open_task_map() as tasks, open_task_map() as others:

        async def start() -> None:
            others.create_task("waits", tasks.wait_idle)
            await asyncio.sleep(1)

        await tasks.create_task("a", start)
        await others.wait_idle()


@virtual()
async def test_wait_free_of_a_name_that_overlaps_ones_own_is_refused() -> None:
    async with open_task_map() as tasks:

        async def wait() -> None:
            with pytest.raises(RuntimeError, match=r"^inside task .*, wait_free\(\) would "):
                await tasks.wait_free(("vol", 1))
            await tasks.wait_free(("other", 1))

        await tasks.create_task(("vol", ANY), wait)


@virtual()
async def test_wait_free_of_ones_own_name_is_refused() -> None:
    async with open_task_map() as tasks:

        async def wait() -> None:
            with pytest.raises(
                RuntimeError,
                match=r"^inside task 'a', wait_free\(\) would wait for the task itself: "
                r"call it outside the task$",
            ):
                await tasks.wait_free("a")
            await tasks.wait_free("b")

        tasks.create_task("b", asyncio.sleep, 5)
        await tasks.create_task("a", wait)


@virtual()
async def test_wait_free_waits_for_the_run_and_for_the_wait() -> None:
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("a", boom)
        begun = loop_now().time()
        await tasks.wait_free("a")
        assert loop_now().time() == begun + 0.5
        assert tasks.state("a") is State.READY
        tasks.create_task("a", asyncio.sleep, 1)
        assert tasks._backend.waits.starters == {}


@virtual()
async def test_wait_free_ends_when_the_name_is_forgotten() -> None:
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("a", boom)
        await tasks.wait_idle()
        waiters = [asyncio.create_task(tasks.wait_free("a")) for _ in range(2)]
        await loop_now().settle()
        begun = loop_now().time()
        tasks.forget("a")
        await asyncio.gather(*waiters)
        assert loop_now().time() == begun


@virtual()
async def test_wait_free_of_what_never_gets_free_raises() -> None:
    async with open_task_map(backoff=Backoff(give_up_after=1), instruments=()) as tasks:
        tasks.create_task("a", boom)
        with pytest.raises(GaveUpError):
            await tasks.wait_free("a")
        tasks.create_task("b", asyncio.sleep, 5)
        waiter = asyncio.create_task(tasks.wait_free("b"))
        await loop_now().settle()
        tasks.close()
        with pytest.raises(ClosedError):
            await waiter


@virtual()
async def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("a", boom)
        await tasks.wait_idle()
        waiter = asyncio.create_task(tasks.wait_free("a"))
        await loop_now().settle()
        waiter.cancel()
        await asyncio.wait([waiter])
        assert tasks._backend.waits.starters == {}


@pytest.mark.parametrize("verb", ["wait_idle", "wait_empty"])
def test_on_return_the_condition_holds_until_the_next_suspension(verb: str) -> None:
    """Though between the waking and the waiter's step others have run, and started things."""

    @virtual()
    async def main() -> None:
        async with open_task_map() as tasks:
            seen: list[int] = []

            async def wait() -> None:
                await getattr(tasks, verb)()
                seen.append(len(tasks))

            async def starts_another() -> None:
                await asyncio.sleep(1)
                loop_now().call_soon(tasks.create_task, "b", asyncio.sleep, 1)

            tasks.create_task("a", starts_another)
            waiters = [asyncio.create_task(wait()) for _ in range(3)]
            await asyncio.gather(*waiters)
            assert seen == [0, 0, 0]
            assert tasks.statistics().running == 0

    main()


@virtual()
async def test_wait_free_on_return_admits_a_start() -> None:
    """Two that wait for one name: the second waits for the first's run."""
    order: list[str] = []
    async with open_task_map() as tasks:

        async def take(who: str) -> None:
            await tasks.wait_free("a")
            order.append(who)
            await tasks.create_task("a", asyncio.sleep, 1)

        await asyncio.gather(*(take(who) for who in "xyz"))
    assert order == ["x", "y", "z"]


@virtual()
async def test_wait_empty_waits_for_the_record_to_lapse() -> None:
    async with open_task_map(retention=10.0, instruments=()) as tasks:
        tasks.create_task("a", boom)
        begun = loop_now().time()
        await tasks.wait_empty()
        assert loop_now().time() == begun + 10.5


@virtual()
async def test_shutdown_waits_and_closes() -> None:
    async with open_task_map() as tasks:
        task = tasks.create_task("a", asyncio.sleep, 10, "value")
        assert await tasks.shutdown() == ()
        assert task.result() == "value"
        with pytest.raises(ClosedError):
            tasks.create_task("a", boom)


@virtual()
async def test_shutdown_cancels_what_does_not_end_in_its_grace() -> None:
    async with open_task_map() as tasks:
        task = tasks.create_task("a", asyncio.sleep, 10)
        begun = loop_now().time()
        assert await tasks.shutdown(grace=2) == ()
        assert loop_now().time() == begun + 2
        assert task.cancelled()


@virtual()
async def test_shutdown_tells_who_does_not_stop() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(50)

    async with open_task_map(overdue_after=3, instruments=()) as tasks:
        tasks.create_task("a", stubborn)
        begun = loop_now().time()
        assert await tasks.shutdown(grace=2) == ("a",)
        assert loop_now().time() == begun + 5
        assert tasks.statistics().overdue == 1
        with pytest.raises(ValueError, match=r"^grace must be at least 0, not -1$"):
            await tasks.shutdown(grace=-1)


async def nothing_runs(tasks: TaskMap) -> None:
    await tasks.wait_idle()


Wait = Callable[[TaskMap], Awaitable[None]]


@pytest.mark.parametrize("wait", [nothing_runs, TaskMap.wait_empty])
def test_a_wait_for_what_is_so_already_comes_back_at_once(wait: Wait) -> None:
    @virtual()
    async def main() -> None:
        async with open_task_map() as tasks:
            steps: list[int] = []
            loop_now().call_soon(steps.append, 1)
            await wait(tasks)
            assert steps == []

    main()


@virtual(autojump=False)
async def test_a_wait_that_ends_early_takes_its_timer_back() -> None:
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("a", boom)
        await tasks.wait_idle()
        waiter = asyncio.create_task(tasks.wait_free("a"))
        await loop_now().settle()
        loop: Any = loop_now()
        (timer,) = loop._scheduled
        tasks.forget("a")
        await waiter
        assert timer.cancelled()
