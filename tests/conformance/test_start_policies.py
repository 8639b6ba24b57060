"""Starts with ``backoff=``, and the arguments that a policy gets."""

import attrs

from namedtasks import Backoff, State
from namedtasks.abc import FailedRun
from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, Job, World


def wait_of(world: World, name: str, operation: str | None = None) -> tuple[int, float]:
    """Return the failures in a row, and the remaining seconds of the wait."""
    failure = world.tasks.failure(name, operation=operation)
    assert failure is not None
    return failure.failures, failure.retry_at - world.now()


@behaviour
async def test_a_start_may_have_its_own_policy(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail(), backoff=Backoff(initial=10.0))
        await world.run("b", Job().fail())
        await world.run("c", Job().fail(), backoff="map")
        assert [wait_of(world, name)[1] for name in "abc"] == [10.0, 0.5, 0.5]


@behaviour
async def test_the_record_is_shared_and_the_policy_of_the_failed_start_decides(
    driver: Driver,
) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail())
        await world.advance(0.5)
        await world.run("a", Job().fail(), backoff=Backoff(initial=10.0, factor=3.0))
        assert wait_of(world, "a") == (2, 30.0)
        await world.advance(30.0)
        await world.run("a", Job().fail())
        assert wait_of(world, "a") == (3, 2.0)
        await world.advance(2.0)
        await world.run("a", Job().fail(), backoff=Backoff(give_up_after=4))
        assert world.tasks.state("a") is State.GAVE_UP


@behaviour
async def test_a_start_without_a_policy_has_no_wait_and_no_count(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail(), backoff=None)
        assert world.tasks.state("a") is State.FREE
        await world.run("a", Job().fail())
        await world.advance(0.5)
        await world.run("a", Job().fail(), backoff=None)
        assert world.tasks.state("a") is State.READY
        assert wait_of(world, "a") == (1, 0.0)


@behaviour
async def test_a_map_without_a_policy_may_have_starts_with_one(driver: Driver) -> None:
    async with driver.open(backoff=None) as world:
        await world.run("a", Job().fail(), backoff=Backoff())
        assert wait_of(world, "a") == (1, 0.5)
        assert world.attempt("a") == "backing off"
        await world.advance(0.5)
        await world.run("a", Job().succeed())
        assert world.tasks.state("a") is State.FREE


@behaviour
async def test_the_policy_of_a_pending_run_is_that_of_its_own_start(driver: Driver) -> None:
    async with driver.open() as world:
        old, new = Job(), Job().fail()
        world.start("a", old, backoff=Backoff(initial=50.0))
        await world.settle()
        world.start("a", new, if_busy="queue", backoff=Backoff(initial=7.0, factor=1.0))
        old.fail()
        await world.settle()
        assert wait_of(world, "a") == (1, 50.0)
        await world.advance(50.0)
        assert wait_of(world, "a") == (2, 7.0)
        replaced = Job()
        await world.advance(7.0)
        world.start("a", replaced)
        await world.settle()
        world.start("a", Job().fail(), if_busy="replace", backoff=Backoff(initial=9.0, factor=1.0))
        await world.settle()
        assert wait_of(world, "a") == (3, 9.0)


@behaviour
async def test_all_retries_of_a_run_have_the_policy_of_its_start(driver: Driver) -> None:
    async with driver.open() as world:
        job = Job().each(*[OSError("disk")] * 3, "attached")
        handle = world.start("a", job, retry=True, backoff=Backoff(initial=3.0))
        for number, wait in enumerate((3.0, 6.0, 12.0), start=1):
            await world.settle()
            assert wait_of(world, "a") == (number, wait)
            await world.advance(wait)
        assert await world.result(handle) == "attached"


@attrs.define
class Watching:
    """A policy that keeps the arguments of its calls."""

    calls: list[tuple[int, BaseException, FailedRun]] = attrs.Factory(
        list[tuple[int, BaseException, FailedRun]]
    )

    def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
        self.calls.append((failures, error, run))
        return 10.0 if run.operation == "attach" else 20.0


@behaviour
async def test_a_policy_gets_the_facts_of_the_run(driver: Driver) -> None:
    policy = Watching()
    async with driver.open(backoff=policy) as world:
        began = world.now()
        job, error = Job(), OSError("disk")
        world.start(("vol", 1), job, operation="attach")
        await world.advance(5.0)
        job.fail(error)
        await world.settle()
        assert policy.calls == [(1, error, FailedRun(("vol", 1), "attach", began, began + 5.0))]
        await world.run("a", Job().fail())
        assert wait_of(world, "a") == (1, 20.0)
        failure = world.tasks.failure(("vol", 1), operation="attach")
        assert failure is not None
        assert failure.retry_at - world.now() == 10.0


@behaviour
async def test_a_policy_gets_each_attempt_as_a_run(driver: Driver) -> None:
    policy = Watching()
    async with driver.open() as world:
        began = world.now()
        job = Job().each(OSError("one"), OSError("two"), "attached")
        world.start("a", job, retry=True, backoff=policy)
        await world.advance(20.0)
        await world.advance(20.0)
        assert job.begun == 3
    assert [(failures, run.started_at) for failures, _, run in policy.calls] == [
        (1, began),
        (2, began + 20.0),
    ]


async def fail_after(world: World, seconds: float) -> int:
    """Let the name fail after *seconds*; return the failures in a row."""
    job = Job()
    world.start("a", job)
    await world.advance(seconds)
    job.fail()
    await world.settle()
    failures, wait = wait_of(world, "a")
    assert wait == 2.0 ** (failures - 1)
    await world.advance(wait)
    return failures


@behaviour
async def test_a_failure_after_a_long_run_counts_as_the_first(driver: Driver) -> None:
    async with driver.open(backoff=Backoff(initial=1.0, reset_after=10.0)) as world:
        assert [await fail_after(world, seconds) for seconds in (0.0, 9.875, 9.75)] == [1, 2, 3]
        assert [await fail_after(world, seconds) for seconds in (10.0, 1.0, 300.0)] == [1, 2, 1]


@behaviour
async def test_reset_after_applies_to_each_attempt_and_not_to_all_together(driver: Driver) -> None:
    async with driver.open(backoff=Backoff(initial=8.0, reset_after=10.0)) as world:
        job = Job().each(OSError("one"), OSError("two"), None)
        world.start("a", job, retry=True)
        await world.settle()
        await world.advance(8.0)
        assert wait_of(world, "a") == (2, 16.0)
        await world.advance(16.0)
        assert job.begun == 3
        await world.advance(10.0)
        job.fail()
        await world.settle()
        assert wait_of(world, "a") == (1, 8.0)
