"""Part A of the conformance list: the test cases of GoRoutineMap, G01 to G16."""

from namedtasks import Backoff
from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, Job

ON = Backoff()
OFF = None


@behaviour
async def test_G01_without_backoff_a_start_is_accepted(driver: Driver) -> None:
    async with driver.open(backoff=OFF) as world:
        assert world.attempt("a") == "accepted"


@behaviour
async def test_G02_without_backoff_starts_of_two_names_are_accepted(driver: Driver) -> None:
    async with driver.open(backoff=OFF) as world:
        assert world.attempt("a", Job()) == "accepted"
        assert world.attempt("b", Job()) == "accepted"


@behaviour
async def test_G03_with_backoff_a_start_is_accepted(driver: Driver) -> None:
    async with driver.open(backoff=ON) as world:
        assert world.attempt("a") == "accepted"


@behaviour
async def test_G04_without_backoff_a_start_after_a_success_is_accepted(driver: Driver) -> None:
    async with driver.open(backoff=OFF) as world:
        await world.run("a", Job().succeed())
        assert world.attempt("a") == "accepted"


@behaviour
async def test_G05_with_backoff_a_success_leaves_no_wait(driver: Driver) -> None:
    async with driver.open(backoff=ON) as world:
        await world.run("a", Job().succeed())
        assert world.attempt("a") == "accepted"


@behaviour
async def test_G06_without_backoff_the_name_is_free_after_a_crash(driver: Driver) -> None:
    async with driver.open(backoff=OFF) as world:
        await world.run("a", Job().fail(ZeroDivisionError("crash")))
        assert world.attempt("a") == "accepted"


@behaviour
async def test_G07_with_backoff_a_start_after_a_crash_and_the_wait_is_accepted(
    driver: Driver,
) -> None:
    async with driver.open(backoff=ON) as world:
        await world.run("a", Job().fail(ZeroDivisionError("crash")))
        await world.advance(0.5)
        assert world.attempt("a") == "accepted"


@behaviour
async def test_G08_without_backoff_a_start_of_a_running_name_is_refused(driver: Driver) -> None:
    async with driver.open(backoff=OFF) as world:
        world.start("a", Job())
        await world.settle()
        assert world.attempt("a") == "busy"


@behaviour
async def test_G09_with_backoff_a_start_of_a_running_name_is_refused(driver: Driver) -> None:
    async with driver.open(backoff=ON) as world:
        world.start("a", Job())
        await world.settle()
        assert world.attempt("a") == "busy"


async def blocked_then_let_go(driver: Driver, backoff: Backoff | None) -> None:
    async with driver.open(backoff=backoff) as world:
        first = Job()
        world.start("a", first)
        await world.settle()
        assert world.attempt("a") == "busy"
        first.succeed()
        await world.settle()
        assert world.attempt("a") == "accepted"


@behaviour
async def test_G10_without_backoff_a_refused_name_starts_after_the_run_has_ended(
    driver: Driver,
) -> None:
    await blocked_then_let_go(driver, OFF)


@behaviour
async def test_G11_with_backoff_a_refused_name_starts_after_the_run_has_ended(
    driver: Driver,
) -> None:
    await blocked_then_let_go(driver, ON)


async def wait_empty_on_an_empty_map(driver: Driver, backoff: Backoff | None) -> None:
    async with driver.open(backoff=backoff) as world:
        waiter = world.wait_in_background("wait_empty")
        await world.settle()
        assert waiter.returned


@behaviour
async def test_G12_without_backoff_wait_empty_on_an_empty_map_returns(driver: Driver) -> None:
    await wait_empty_on_an_empty_map(driver, OFF)


@behaviour
async def test_G13_with_backoff_wait_empty_on_an_empty_map_returns(driver: Driver) -> None:
    await wait_empty_on_an_empty_map(driver, ON)


async def wait_empty_until_the_run_ends(driver: Driver, backoff: Backoff | None) -> None:
    async with driver.open(backoff=backoff) as world:
        job = Job()
        world.start("a", job)
        waiter = world.wait_in_background("wait_empty")
        await world.settle()
        assert not waiter.returned
        job.succeed()
        await world.settle()
        assert waiter.returned


@behaviour
async def test_G14_without_backoff_wait_empty_returns_when_the_run_ends(driver: Driver) -> None:
    await wait_empty_until_the_run_ends(driver, OFF)


@behaviour
async def test_G15_with_backoff_wait_empty_returns_when_the_run_ends(driver: Driver) -> None:
    await wait_empty_until_the_run_ends(driver, ON)


@behaviour
async def test_G16_with_backoff_wait_idle_returns_when_the_run_fails(driver: Driver) -> None:
    async with driver.open(backoff=ON) as world:
        job = Job()
        world.start("a", job)
        waiter = world.wait_in_background("wait_idle")
        await world.settle()
        assert not waiter.returned
        job.fail()
        await world.settle()
        assert waiter.returned
