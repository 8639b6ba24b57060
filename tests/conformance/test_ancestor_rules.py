"""Part A of the conformance list: the ancestor's rules beyond its tests, A01 to A14."""

import time

import pytest

from namedtasks import AlreadyRunningError, BackoffError, State
from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, Job


@behaviour
async def test_A01_a_start_never_waits_for_the_work(driver: Driver) -> None:
    async with driver.open() as world:
        job = Job()
        world.start("a", job)
        assert job.begun == 0, "it comes back before the body has begun"
        await world.settle()
        assert job.begun == 1


@behaviour
async def test_A02_the_map_checks_for_runs_before_waits(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail(), operation="mount")
        world.start("a", Job(), operation="umount")
        await world.settle()
        assert world.attempt("a", operation="mount") == "busy"


@behaviour
async def test_A03_a_refusal_changes_nothing(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail())
        for _ in range(10):
            assert world.attempt("a") == "backing off"
        await world.advance(0.5)
        job = Job()
        assert world.attempt("a", job) == "accepted"
        await world.settle()
        for _ in range(10):
            assert world.attempt("a") == "busy"
        job.succeed()
        await world.settle()
        assert job.ended == 1


@behaviour
async def test_A04_the_waits_double_up_to_two_minutes_and_two_seconds(driver: Driver) -> None:
    """They begin when the failed run ends."""
    async with driver.open() as world:
        for wait in (0.5, 1, 2, 4, 8, 16, 32, 64, 122, 122, 122):
            job = Job()
            assert world.attempt("a", job) == "accepted"
            await world.advance(1000.0)
            job.fail()
            await world.settle()
            failure = world.tasks.failure("a")
            assert failure is not None
            assert failure.retry_at - world.now() == wait
            await world.advance(wait * 0.999)
            assert world.attempt("a") == "backing off"
            await world.advance(failure.retry_at - world.now())


@behaviour
async def test_A05_a_start_keeps_the_count_of_failures_and_a_success_resets_it(
    driver: Driver,
) -> None:
    async with driver.open() as world:
        for wait in (0.5, 1.0):
            await world.run("a", Job().fail())
            await world.advance(wait)
        await world.run("a", Job().succeed())
        assert world.tasks.state("a") is State.FREE
        await world.run("a", Job().fail())
        failure = world.tasks.failure("a")
        assert failure is not None
        assert failure.failures == 1


@behaviour
async def test_A06_a_failure_makes_only_its_own_name_wait(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail())
        assert world.attempt("b") == "accepted"
        assert world.attempt("a") == "backing off"


@behaviour
async def test_A07_without_backoff_a_failure_is_only_reported(driver: Driver) -> None:
    async with driver.open(backoff=None) as world:
        handle = world.start("a", Job().fail(OSError("disk")))
        await world.settle()
        assert world.tasks.state("a") is State.FREE
        with pytest.raises(OSError, match=r"^disk$"):
            await world.result(handle)


@behaviour
async def test_A08_a_crash_is_a_failure_that_keeps_its_text(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail(RecursionError("too deep")))
        failure = world.tasks.failure("a")
        assert failure is not None
        assert repr(failure.error) == "RecursionError('too deep')"
        refusal = world.tasks.check("a")
        assert str(refusal).endswith(": RecursionError: too deep")


@behaviour
async def test_A09_a_waiting_name_is_not_running(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail())
        assert "a" not in world.tasks
        assert len(world.tasks) == 0
        world.start("b", Job())
        assert "b" in world.tasks
        assert len(world.tasks) == 1


@behaviour
async def test_A10_the_wall_clock_does_not_matter(driver: Driver) -> None:
    """Waits count on the map's own clock, which is not `time.time`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 0.0)
        async with driver.open() as world:
            await world.run("a", Job().fail())
            patch.setattr(time, "time", lambda: 1e12)
            assert world.attempt("a") == "backing off"
            patch.setattr(time, "time", lambda: -1e12)
            await world.advance(0.5)
            assert world.attempt("a") == "accepted"


@behaviour
async def test_A11_the_empty_string_is_an_ordinary_name(driver: Driver) -> None:
    async with driver.open() as world:
        world.start("", Job())
        assert world.attempt("") == "busy"
        assert world.attempt("a") == "accepted"


@behaviour
async def test_A12_every_method_may_be_called_inside_a_task(driver: Driver) -> None:
    async with driver.open() as world:
        tasks = world.tasks

        def inside() -> list[object]:
            return [
                world.attempt("a"),
                world.attempt("b", Job()),
                tasks.state("a"),
                type(tasks.check("a")),
                tasks.failure("a"),
                tasks.forget("a"),
                tasks.cancel("c"),
                tasks.statistics().running,
                "a" in tasks,
            ]

        handle = world.start_callback("a", inside)
        assert await world.result(handle) == [
            "busy",
            "accepted",
            State.RUNNING,
            AlreadyRunningError,
            None,
            False,
            False,
            2,
            True,
        ]


@behaviour
async def test_A13_one_line_distinguishes_the_two_refusals(driver: Driver) -> None:
    async with driver.open() as world:
        world.start("runs", Job())
        await world.run("waits", Job().fail())
        assert isinstance(world.tasks.check("runs"), AlreadyRunningError)
        assert isinstance(world.tasks.check("waits"), BackoffError)


@behaviour
async def test_A14_a_wait_includes_runs_that_start_meanwhile(driver: Driver) -> None:
    async with driver.open() as world:
        first, second = Job(), Job()
        world.start("a", first)
        waiters = [world.wait_in_background(verb) for verb in ("wait_idle", "wait_empty")]
        await world.settle()
        world.start("b", second)
        first.succeed()
        await world.settle()
        assert not any(waiter.returned for waiter in waiters)
        second.succeed()
        await world.settle()
        assert all(waiter.returned for waiter in waiters)
