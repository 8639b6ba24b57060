"""The same on uvloop, in real time: what depends on the loop, and no more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from namedtasks import State, current_run
from namedtasks.abc import FailedRun
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import TaskOverdue
from namedtasks.testing import RecordingInstrument

uvloop = pytest.importorskip("uvloop", reason="needs uvloop: pip install uvloop")


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def run_main() -> None:
        await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_main())


async def boom() -> None:
    raise ValueError("boom")


def test_values_failures_and_waits() -> None:
    async def main() -> None:
        async with open_task_map(instruments=()) as tasks:
            assert await tasks.create_task("a", asyncio.sleep, 0, "value") == "value"
            with pytest.raises(ValueError, match=r"^boom$"):
                await tasks.create_task("a", boom)
            assert tasks.state("a") is State.WAITING
            tasks.forget("a")
            await tasks.wait_free("a")
            await tasks.wait_empty()

    run(main)


def test_a_short_wait_is_waited_for() -> None:
    """Though uvloop rounds times to milliseconds."""

    class Short:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            return 0.0123

    async def main() -> None:
        async with open_task_map(backoff=Short(), instruments=()) as tasks:
            for _ in range(3):
                tasks.create_task("a", boom)
                await tasks.wait_free("a")
                assert tasks.check("a") is None

    run(main)


def test_deadlines_cancellations_and_overdue_runs() -> None:
    async def stubborn(let_go: asyncio.Event) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await let_go.wait()

    async def main() -> None:
        heard = RecordingInstrument()
        async with open_task_map(overdue_after=0.01, instruments=[heard]) as tasks:
            with pytest.raises(TimeoutError):
                await tasks.create_task("a", asyncio.sleep, 100, timeout=0.01)
            let_go = asyncio.Event()
            task = tasks.create_task("b", stubborn, let_go)
            await asyncio.sleep(0)
            tasks.cancel("b")
            assert await tasks.shutdown(grace=0) == ("b",)
            let_go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert len(heard.of(TaskOverdue)) == 1

    run(main)


def test_a_listening_thread_meets_its_deadline() -> None:
    """Though the time of a loop that sleeps stands still."""

    def body() -> None:
        while True:
            current_run().check_cancelled()

    async def main() -> None:
        async with open_task_map(instruments=()) as tasks:
            with pytest.raises(TimeoutError):
                await tasks.run_in_executor("a", body, timeout=0.01)

    run(main)


def test_a_block_is_cancelled_and_left() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                async with open_task_map() as tasks:
                    tasks.create_task("a", asyncio.sleep, 100)

    run(main)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_one_that_stops_the_loop_frees_the_name(kind: type[BaseException]) -> None:
    maps: list[TaskMap] = []

    async def interrupted() -> None:
        raise kind("stop")

    async def main() -> None:
        async with open_task_map(instruments=()) as tasks:
            maps.append(tasks)
            tasks.create_task("a", interrupted)
            await asyncio.sleep(100)

    with pytest.raises(kind, match=r"^stop$"):
        run(main)
    assert maps[0].state("a") is State.FREE


def test_a_post_from_a_thread() -> None:
    async def main() -> None:
        async with open_task_map() as tasks:
            done = asyncio.Event()

            async def body() -> None:
                done.set()

            def elsewhere() -> None:
                tasks.post("a", body)

            thread: Any = threading.Thread(target=elsewhere)
            thread.start()
            await done.wait()
            thread.join()

    run(main)
