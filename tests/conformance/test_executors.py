"""Where functions run: what holds for executors in every dialect."""

import functools

import pytest

from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, FalsyPool, Job


async def fetch() -> str:
    return "fetched"


@functools.wraps(fetch)
def decorated() -> object:
    """A plain function, as far as can be seen before it returns."""
    return fetch()


@behaviour
async def test_an_executor_whose_truth_is_false_is_an_executor(driver: Driver) -> None:
    """One that has a length, say, and nothing to do yet."""
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
async def test_a_coroutine_as_a_result_fails_the_run(driver: Driver) -> None:
    """The body never ran: to succeed would drop the earlier failures as well."""
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
