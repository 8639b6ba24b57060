"""Observations: a start with ``since=`` never acts on a listing that is out of date."""

import pytest

from namedtasks import ANY, StaleLookError, State
from namedtasks.instruments import TaskRefused
from namedtasks.testing import RecordingInstrument
from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, Job


@behaviour
async def test_a_name_whose_run_succeeded_after_the_observation_is_refused(driver: Driver) -> None:
    heard = RecordingInstrument()
    async with driver.open(instruments=[heard]) as world:
        with world.tasks.observe() as look:
            await world.run("a", Job().succeed())
            job = Job().succeed()
            assert world.attempt("a", job, since=look) == "stale"
            error = world.tasks.check("a", since=look)
            assert isinstance(error, StaleLookError)
            assert not error.expired
            assert world.tasks.check("a") is None
            assert world.attempt("b", since=look) == "accepted"
            await world.settle()
            assert job.begun == 0
        assert world.attempt("a") == "accepted"
    (refused,) = heard.of(TaskRefused)
    assert isinstance(refused.error, StaleLookError)
    assert (refused.name, refused.skipped) == ("a", False)


@behaviour
async def test_a_run_that_ended_before_the_observation_makes_no_listing_stale(
    driver: Driver,
) -> None:
    async with driver.open() as world:
        with world.tasks.observe():
            await world.run("a", Job().succeed())
            with world.tasks.observe() as look:
                assert world.tasks.check("a", since=look) is None
                assert world.attempt("a", since=look) == "accepted"


@behaviour
async def test_failures_make_a_listing_stale_too(driver: Driver) -> None:
    """The map looks for the old listing before it looks for the wait."""
    async with driver.open() as world:
        with world.tasks.observe() as look:
            await world.run("a", Job().fail())
            await world.run("b", Job().fail(), backoff=None)
            assert world.attempt("a", since=look) == "stale"
            assert world.attempt("b", since=look) == "stale"
            assert world.attempt("a") == "backing off"
            await world.advance(0.5)
            assert world.attempt("a", since=look) == "stale"


@behaviour
async def test_cancelled_runs_make_a_listing_stale_too(driver: Driver) -> None:
    async with driver.open() as world:
        with world.tasks.observe() as look:
            world.start("a", Job())
            await world.settle()
            world.tasks.cancel("a")
            await world.settle()
            assert world.attempt("a", since=look) == "stale"


@behaviour
async def test_timed_out_runs_make_a_listing_stale_when_they_really_end(driver: Driver) -> None:
    async with driver.open(backoff=None) as world:
        with world.tasks.observe() as look:
            world.start("a", Job(), timeout=1.0)
            stubborn = Job()
            world.start("b", stubborn, timeout=1.0, heeds=False)
            await world.advance(1.0)
            assert world.attempt("a", since=look) == "stale"
            assert world.attempt("b", since=look) == "busy"
        with world.tasks.observe() as look:
            stubborn.succeed()
            await world.settle()
            assert world.attempt("a", since=look) == "accepted"
            assert world.attempt("b", since=look) == "stale"


@behaviour
async def test_a_run_that_never_began_makes_no_listing_stale(driver: Driver) -> None:
    async with driver.open(limit=1) as world:
        world.start("holds the slot", Job())
        await world.settle()
        with world.tasks.observe() as look:
            world.start("a", Job())
            world.start("holds the slot", Job(), if_busy="queue")
            world.start("holds the slot", Job(), if_busy="queue")
            await world.settle()
            world.tasks.cancel("a")
            await world.settle()
            assert world.attempt("a", since=look) == "accepted"
            assert world.attempt("holds the slot", since=look) == "busy"


@behaviour
async def test_an_old_listing_is_refused_before_anything_but_a_closed_map(driver: Driver) -> None:
    async with driver.open() as world:
        with world.tasks.observe() as look:
            world.start("a", Job())
            await world.settle()
            assert world.attempt("a", since=look) == "busy", "it has not ended"
            world.tasks.cancel("a")
            await world.settle()
            job = Job()
            world.start("a", job)
            await world.settle()
            assert world.attempt("a", since=look) == "stale", "not busy"
            world.tasks.close()
            assert world.attempt("a", since=look) == "closed"


@behaviour
async def test_skip_returns_None_for_an_old_listing_and_other_values_refuse_it(
    driver: Driver,
) -> None:
    heard = RecordingInstrument()
    async with driver.open(instruments=[heard]) as world:
        with world.tasks.observe() as look:
            await world.run("a", Job().succeed())
            for is_running in (False, True):
                if is_running:
                    world.start("a", Job())
                    await world.settle()
                assert world.start("a", Job(), since=look, if_busy="skip") is None
                for how in ("refuse", "join", "replace", "queue"):
                    assert world.attempt("a", since=look, if_busy=how) == "stale"
            statistics = world.tasks.statistics()
            assert (statistics.running, statistics.pending) == (1, 0)
    assert [event.skipped for event in heard.of(TaskRefused)] == [True, *[False] * 4] * 2


@behaviour
async def test_if_busy_works_as_usual_for_a_listing_that_is_not_old(driver: Driver) -> None:
    async with driver.open() as world:
        job = Job()
        handle = world.start("a", job)
        await world.settle()
        with world.tasks.observe() as look:
            assert world.start("a", Job(), since=look, if_busy="skip") is None
            joined = world.start("a", Job(), since=look, if_busy="join")
            queued = world.start("a", Job().succeed("next"), since=look, if_busy="queue")
            job.succeed("the value")
            await world.settle()
        assert [await world.result(one) for one in (handle, joined)] == ["the value"] * 2
        assert await world.result(queued) == "next"


@behaviour
async def test_the_end_of_a_run_makes_listings_of_overlapping_names_stale(driver: Driver) -> None:
    async with driver.open() as world:
        with world.tasks.observe() as look:
            await world.run(("v", "pod-1"), Job().succeed())
            assert world.attempt(("v", ANY), since=look) == "stale"
            assert world.attempt((ANY, ANY), since=look) == "stale"
            assert world.attempt(("v", "pod-1"), since=look) == "stale"
            assert world.tasks.check(("v", "pod-2"), since=look) is None
            assert world.tasks.check(("w", ANY), since=look) is None
            assert world.tasks.check(("v", "pod-1", ANY), since=look) is None
        with world.tasks.observe() as look:
            await world.run(("v", ANY), Job().succeed())
            assert world.attempt(("v", "pod-2"), since=look) == "stale"
            assert world.attempt((ANY, "pod-2"), since=look) == "stale"
            assert world.attempt(("w", "pod-2"), since=look) == "accepted"


@behaviour
async def test_the_first_name_with_ANY_knows_of_earlier_ends(driver: Driver) -> None:
    """The first such name builds the index of overlapping names, for ends as well."""
    async with driver.open() as world:
        with world.tasks.observe() as look:
            for name in [("v", "pod-1"), ("w", "pod-1"), ("v", "pod-1")]:
                await world.run(name, Job().succeed())
            assert world.tasks.check(("v", ANY), since=look) is not None
            with world.tasks.observe() as later:
                assert world.attempt(("v", ANY), Job(), since=later) == "accepted"
                await world.settle()
                await world.run(("w", "pod-2"), Job().succeed())
                assert world.attempt(("w", ANY), since=later) == "stale"
            assert world.attempt((ANY, "pod-1"), since=look) == "stale"


@behaviour
async def test_nested_observations_each_count_from_their_own_beginning(driver: Driver) -> None:
    async with driver.open() as world:
        with world.tasks.observe() as outer:
            await world.run("a", Job().succeed())
            with world.tasks.observe() as inner:
                await world.run("b", Job().succeed())
                assert world.tasks.check("a", since=inner) is None
                assert world.attempt("b", since=inner) == "stale"
                assert world.attempt("a", since=outer) == "stale"
                assert world.attempt("b", since=outer) == "stale"
            assert world.attempt("a", since=outer) == "stale"
            assert world.attempt("b", since=outer) == "stale"


@behaviour
async def test_overlapping_observations_may_end_in_any_order(driver: Driver) -> None:
    async with driver.open() as world:
        older = world.tasks.observe()
        await world.run("a", Job().succeed())
        newer = world.tasks.observe()
        await world.run("b", Job().succeed())
        older.close()
        assert world.tasks.check("a", since=newer) is None
        assert world.attempt("b", since=newer) == "stale"
        newer.close()
        assert repr(newer) == "<namedtasks.Observation closed>"
        newer.close()


@behaviour
async def test_a_dropped_observation_hides_nothing_from_the_others(driver: Driver) -> None:
    async with driver.open() as world:
        world.tasks.observe()
        await world.run("a", Job().succeed())
        look = world.tasks.observe()
        world.tasks.observe()
        await world.run("b", Job().succeed())
        assert world.tasks.check("a", since=look) is None
        assert world.attempt("b", since=look) == "stale"


@behaviour
async def test_beyond_keep_ends_the_oldest_observation_expires_and_admits_nothing(
    driver: Driver,
) -> None:
    async with driver.open(keep_ends=2) as world:
        old = world.tasks.observe()
        await world.run("a", Job().succeed())
        new = world.tasks.observe()
        for name in ("b", "b", "b"):
            await world.run(name, Job().succeed())
        assert not old.expired
        await world.run("c", Job().succeed())
        assert (old.expired, new.expired) == (True, False)
        for name in ("a", "c", "it never ran"):
            assert world.attempt(name, since=old) == "stale"
        assert world.start("a", Job(), since=old, if_busy="skip") is None
        error = world.tasks.check("it never ran", since=old)
        assert isinstance(error, StaleLookError)
        assert error.expired
        assert world.attempt("b", since=new) == "stale"
        assert world.attempt("a", since=new) == "accepted"
        old.close()
        assert not old.expired


@behaviour
async def test_a_closed_observation_and_one_of_another_map_are_refused_at_the_call(
    driver: Driver,
) -> None:
    async with driver.open() as world, driver.open() as other:
        with world.tasks.observe() as look:
            with pytest.raises(ValueError, match=r"^since is an observation of another map: "):
                other.start("a", Job(), since=look)
            with pytest.raises(ValueError, match=r"^since is an observation of another map: "):
                other.tasks.check("a", since=look)
        for how in ("refuse", "skip"):
            with pytest.raises(ValueError, match=r"^since is closed: "):
                world.start("a", Job(), since=look, if_busy=how)
        with pytest.raises(ValueError, match=r"^since is closed: "):
            world.tasks.check("a", since=look)
        with pytest.raises(TypeError, match=r"^since must be an Observation, "):
            world.start("a", Job(), since=0.0)
        assert world.tasks.state("a") is State.FREE


@behaviour
async def test_each_attempt_of_a_retried_run_makes_a_listing_stale(driver: Driver) -> None:
    async with driver.open() as world:
        first = world.tasks.observe()
        world.start("a", Job().each(OSError("disk"), OSError("disk"), "attached"), retry=True)
        await world.settle()
        assert world.attempt("a", since=first) == "stale"
        second = world.tasks.observe()
        assert world.attempt("a", since=second) == "backing off"
        await world.advance(0.5)
        assert world.attempt("a", since=second) == "stale"


async def reconcile(driver: Driver, *, observes: bool) -> list[int]:
    """Work on listings that are one round trip old; return how often each piece of work ran."""
    jobs = {name: Job() for name in range(20)}
    async with driver.open() as world:
        while not all(job.ended for job in jobs.values()):
            look = world.tasks.observe()
            listing = [name for name, job in jobs.items() if not job.ended]
            for name in world.tasks:  # it ends while the listing is under way
                assert isinstance(name, int)
                jobs[name].succeed()
            await world.settle()
            for name in listing:
                world.attempt(name, jobs[name], since=look if observes else None)
            await world.settle()
            look.close()
        await world.settle()
    return [job.begun for job in jobs.values()]


@behaviour
async def test_a_reconcile_loop_on_old_listings_does_each_piece_of_work_once(
    driver: Driver,
) -> None:
    assert await reconcile(driver, observes=True) == [1] * 20
    assert await reconcile(driver, observes=False) == [2] * 20
