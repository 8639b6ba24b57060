"""Part C of the conformance list, on busy names: the promises of workqueue and singleflight."""

import pytest

from namedtasks import Backoff, State
from namedtasks.instruments import TaskCancelled, TaskQueued, TaskSuperseded
from namedtasks.testing import RecordingInstrument
from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, Job


@behaviour
async def test_Q01_any_number_of_queued_starts_gives_exactly_one_more_run(driver: Driver) -> None:
    heard = RecordingInstrument()
    async with driver.open(instruments=[heard]) as world:
        first = Job()
        world.start("a", first)
        await world.settle()
        jobs = [Job().succeed() for _ in range(10)]
        handles = [world.start("a", job, if_busy="queue") for job in jobs]
        assert world.tasks.statistics().pending == 1
        first.succeed()
        await world.settle()
        assert [job.ended for job in jobs] == [0] * 9 + [1]
        for handle in handles[:-1]:
            assert await world.was_cancelled(handle) == "superseded by a newer start of its name"
    assert len(heard.of(TaskQueued)) == 10
    assert len(heard.of(TaskSuperseded)) == 9


@behaviour
async def test_Q02_shutdown_loses_no_queued_run_silently(driver: Driver) -> None:
    heard = RecordingInstrument()
    async with driver.open(instruments=[heard]) as world:
        first = Job()
        world.start("a", first)
        await world.run("b", Job().fail())
        next_one, waits = Job().succeed(), Job().succeed()
        world.start("a", next_one, if_busy="queue")
        handle = world.start("b", waits, if_busy="queue")
        waiter = world.wait_in_background("shutdown")
        await world.settle()
        assert await world.was_cancelled(handle) == "the map is closing"
        assert not waiter.returned
        first.succeed()
        await world.settle()
        assert waiter.returned
        assert (next_one.ended, waits.begun) == (1, 0)
    (dropped,) = heard.of(TaskCancelled)
    assert (dropped.name, dropped.duration, dropped.reason) == ("b", None, "the map is closing")


@behaviour
async def test_S01_all_callers_that_join_get_the_same_value(driver: Driver) -> None:
    async with driver.open() as world:
        job = Job()
        handles = [world.start("a", job)]
        await world.settle()
        handles += [world.start("a", Job(), if_busy="join") for _ in range(3)]
        job.succeed("the value")
        await world.settle()
        assert [await world.result(handle) for handle in handles] == ["the value"] * 4
        assert job.begun == 1


@behaviour
async def test_S01_all_callers_that_join_a_failing_run_get_its_error(driver: Driver) -> None:
    async with driver.open() as world:
        job = Job()
        world.start("a", job)
        await world.settle()
        joined = [world.start("a", Job(), if_busy="join") for _ in range(2)]
        job.fail(OSError("disk"))
        await world.settle()
        for handle in joined:
            with pytest.raises(OSError, match=r"^disk$"):
                await world.result(handle)
        assert world.attempt("a", if_busy="join") == "backing off"


@behaviour
async def test_S01_all_callers_that_join_a_cancelled_run_get_the_reason(driver: Driver) -> None:
    async with driver.open() as world:
        world.start("a", Job())
        await world.settle()
        joined = world.start("a", Job(), if_busy="join")
        world.tasks.cancel("a", reason="enough")
        await world.settle()
        assert await world.was_cancelled(joined) == "enough"


@behaviour
async def test_S02_forget_never_leads_to_two_runs_of_a_name(driver: Driver) -> None:
    async with driver.open() as world:
        job = Job()
        world.start("a", job)
        await world.settle()
        world.tasks.forget("a")
        other = Job()
        assert world.attempt("a", other) == "busy"
        world.start("a", other, if_busy="join")
        await world.settle()
        assert (job.begun, other.begun) == (1, 0)


@behaviour
async def test_a_replacement_begins_when_the_old_run_has_really_ended(driver: Driver) -> None:
    async with driver.open() as world:
        old, new = Job(), Job()
        handle = world.start("a", old)
        await world.settle()
        world.start("a", new, if_busy="replace")
        assert new.begun == 0
        await world.settle()
        assert (old.ended, new.begun) == (0, 1)
        assert await world.was_cancelled(handle) == "replaced by a newer start"
        new.succeed()
        await world.settle()
        assert world.tasks.state("a") is State.FREE


@behaviour
async def test_a_newer_replacement_supersedes_a_pending_one(driver: Driver) -> None:
    async with driver.open() as world:
        stubborn, second, third = Job(), Job(), Job()
        world.start("a", stubborn, heeds=False)
        await world.settle()
        superseded = world.start("a", second, if_busy="replace")
        world.start("a", third, if_busy="replace")
        await world.settle()
        assert await world.was_cancelled(superseded) == "superseded by a newer start of its name"
        assert (second.begun, third.begun) == (0, 0), "the old one does not stop"
        stubborn.succeed()
        await world.settle()
        assert (second.begun, third.begun) == (0, 1)


@behaviour
async def test_a_replacement_begins_even_if_the_old_run_makes_its_name_give_up(
    driver: Driver,
) -> None:
    async with driver.open(backoff=Backoff(give_up_after=1)) as world:
        old, new = Job(), Job()
        world.start("a", old, heeds=False)
        await world.settle()
        world.start("a", new, if_busy="replace")
        old.fail()
        await world.settle()
        assert new.begun == 1
        new.succeed()
        await world.settle()
        assert world.tasks.state("a") is State.FREE, "success forgets"


@behaviour
async def test_a_waiting_name_can_be_queued_but_not_replaced_or_joined(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail())
        assert world.attempt("a", if_busy="replace") == "backing off"
        assert world.attempt("a", if_busy="join") == "backing off"
        job = Job().succeed()
        assert world.attempt("a", job, if_busy="queue") == "accepted"
        idle = world.wait_in_background("wait_idle")
        await world.advance(0.4)
        assert (job.ended, idle.returned) == (0, False), "pending is not idle"
        await world.advance(0.2)
        assert (job.ended, idle.returned) == (1, True)


@behaviour
async def test_forget_begins_a_run_that_is_queued_behind_a_wait(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail())
        job = Job().succeed()
        world.start("a", job, if_busy="queue")
        world.tasks.forget("a")
        await world.settle()
        assert job.ended == 1


@behaviour
async def test_a_name_that_gave_up_refuses_a_queued_start_and_drops_a_pending_one(
    driver: Driver,
) -> None:
    async with driver.open(backoff=Backoff(give_up_after=1)) as world:
        old, queued = Job(), Job()
        world.start("a", old)
        await world.settle()
        handle = world.start("a", queued, if_busy="queue")
        old.fail()
        await world.settle()
        assert await world.was_cancelled(handle) == "its name gave up"
        assert world.attempt("a", if_busy="queue") == "gave up"
        assert queued.begun == 0


@behaviour
async def test_cancel_ends_the_pending_run_too(driver: Driver) -> None:
    async with driver.open() as world:
        old, queued = Job(), Job()
        world.start("a", old)
        await world.settle()
        handle = world.start("a", queued, if_busy="queue")
        assert world.tasks.cancel("a", reason="both")
        await world.settle()
        assert await world.was_cancelled(handle) == "both"
        assert queued.begun == 0
        assert world.tasks.state("a") is State.FREE
        await world.run("b", Job().fail())
        world.start("b", Job(), if_busy="queue")
        assert world.tasks.cancel_all() == 1
        assert not world.tasks.cancel("b")


@behaviour
async def test_a_queued_run_waits_in_line_for_its_slot(driver: Driver) -> None:
    async with driver.open(limit=1) as world:
        first, queued, in_line = Job(), Job(), Job()
        world.start("a", first)
        await world.settle()
        world.start("b", in_line)
        world.start("a", queued, if_busy="queue")
        first.succeed()
        await world.settle()
        assert (in_line.begun, queued.begun) == (1, 0)
        in_line.succeed()
        await world.settle()
        assert queued.begun == 1


@behaviour
async def test_a_replacement_gets_the_slot_straight_from_the_old_run(driver: Driver) -> None:
    async with driver.open(limit=1) as world:
        old, new, in_line = Job(), Job(), Job()
        world.start("a", old)
        await world.settle()
        world.start("b", in_line)
        world.start("a", new, if_busy="replace")
        await world.settle()
        assert (new.begun, in_line.begun) == (1, 0)


@behaviour
async def test_a_run_may_queue_its_own_name(driver: Driver) -> None:
    async with driver.open() as world:
        again = Job().succeed("again")
        handle = world.start_callback(
            "a", lambda: world.start("a", again, if_busy="queue") is not None
        )
        assert await world.result(handle)
        await world.settle()
        assert again.ended == 1


@behaviour
async def test_refuse_and_skip_ignore_a_pending_run(driver: Driver) -> None:
    async with driver.open() as world:
        world.start("a", Job())
        await world.settle()
        world.start("a", Job(), if_busy="queue")
        assert world.attempt("a") == "busy"
        assert world.start("a", Job(), if_busy="skip") is None
        assert len(world.tasks) == 1


@behaviour
async def test_waiting_for_a_run_that_is_queued_behind_the_caller_raises(driver: Driver) -> None:
    async with driver.open() as world:
        handle = world.start_waiting("a", lambda: world.start("a", Job(), if_busy="queue"))
        await world.settle()
        with pytest.raises(RuntimeError, match="would wait for the task itself"):
            await world.result(handle)


@behaviour
async def test_a_run_that_joins_itself_cannot_wait_for_itself(driver: Driver) -> None:
    async with driver.open() as world:
        handle = world.start_waiting("a", lambda: world.start("a", Job(), if_busy="join"))
        await world.settle()
        with pytest.raises(RuntimeError, match="would wait for the task itself"):
            await world.result(handle)
