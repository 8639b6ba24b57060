"""Where functions run: what holds for executors in every dialect."""

from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, FalsyPool


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
