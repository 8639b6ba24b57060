"""Executors: the rules that hold in every dialect."""

import functools

import pytest

from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, FalsyPool, Job


async def fetch() -> str:
    return "fetched"


@functools.wraps(fetch)
def decorated() -> object:
    """Look like a plain function, until it returns."""
    return fetch()


@behaviour
async def test_a_falsy_executor_is_an_executor(driver: Driver) -> None:
    """For example, one that has a length and nothing to do yet."""
    opened_with, given = FalsyPool(), FalsyPool()
    async with driver.open(executor=driver.executor(opened_with)) as world:
        first = world.start_elsewhere("a", lambda: "of the map")
        second = world.start_elsewhere("b", lambda: "of the call", executor=driver.executor(given))
        await world.settle()
        assert (len(opened_with.jobs), len(given.jobs)) == (1, 1)
        opened_with.work()
        given.work()
        await world.settle()
        assert await world.result(first) == "of the map"
        assert await world.result(second) == "of the call"


@behaviour
async def test_a_run_whose_result_is_a_coroutine_fails(driver: Driver) -> None:
    """The body never ran, and a success would drop the earlier failures."""
    pool = FalsyPool()
    async with driver.open() as world:
        await world.run("a", Job().fail())
        await world.advance(0.5)
        handle = world.start_elsewhere("a", decorated, executor=driver.executor(pool))
        await world.settle()
        pool.work()
        await world.settle()
        with pytest.raises(
            TypeError,
            match=r"^\w+\(\) takes a plain function, and <function fetch at 0x\w+> returned a "
            r"coroutine, which was not awaited: use .+$",
        ):
            await world.result(handle)
        failure = world.tasks.failure("a")
        assert failure is not None
        assert failure.failures == 2
