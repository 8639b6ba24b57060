"""Runs each keeper once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import trio

from lampkeeper import AsyncioKeeper, Patience, Tally, ThreadKeeper, open_keeper
from lampkeeper.plugs import (
    LIMITER,
    BrokenLamp,
    CountingPool,
    executor_of,
    policy_for,
    run_in_two_threads,
)
from namedtasks import open_task_map
from namedtasks.abc import FailedRun


async def in_trio() -> None:
    tally = Tally()
    async with open_keeper(backoff=Patience(), instruments=[tally]) as keeper:
        lit = keeper.light("a", 40)
        assert lit is not None
        assert await lit.wait() == 25
        assert await keeper.burn("b", 100) == 10
        assert await keeper.weigh("long").wait() == 4
        assert keeper.why_not("a") == "it may"
        assert keeper.put_out_all() == 0
        assert len(keeper.lit) == 0
    assert tally.counts["task_succeeded"] == 3
    LIMITER.set(trio.CapacityLimiter(2))
    with ThreadPoolExecutor() as pool:
        async with open_task_map(executor=executor_of(pool), backoff=policy_for("usual")) as tasks:
            assert await tasks.start_thread_soon("a", divmod, 7, 2).wait() == (3, 1)
            other = tasks.start_thread_soon("b", divmod, 7, 2, executor=run_in_two_threads)
            assert await other.wait() == (3, 1)


def in_threads() -> None:
    tally, pool = Tally(), CountingPool()
    with ThreadKeeper(instruments=[tally], executor=pool) as keeper:
        future = keeper.light("a", 40)
        assert future is not None
        assert future.result() == 25
        assert keeper.light_all({"a": 40, "b": 100}) == 35
        assert not keeper.lit()
    assert tally.counts["task_succeeded"] == pool.submitted == 3
    pool.shutdown()


def on_asyncio() -> None:
    tally = Tally()
    assert asyncio.run(AsyncioKeeper(tally).night({"a": 40, "b": 100})) == 25 + 10 + 25 + 140
    assert tally.counts["task_succeeded"] == 4


if __name__ == "__main__":
    trio.run(in_trio)
    in_threads()
    on_asyncio()
    assert Patience().delay(3, BrokenLamp(), FailedRun("a", None, 1.0, 2.0)) is None
    print("each keeper has kept its lamps lit")
