"""Starts with ``retry=True``: one handle for all attempts."""

from typing import Any

import pytest

from namedtasks import Backoff, State
from namedtasks.instruments import TaskFailed, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument
from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, FalsyPool, Job, World

ANSWERS = OSError("no answer"), OSError("no answer yet")


async def failed_once(world: World, *ends: Any, **options: Any) -> tuple[Any, Job]:
    """Start a retried run whose first attempt fails at once; the others have the given *ends*."""
    job = Job().each(OSError("disk"), *ends)
    handle = world.start("a", job, retry=True, **options)
    await world.settle()
    assert job.begun == 1
    return handle, job


@behaviour
async def test_a_retried_run_has_one_handle_with_the_value_of_its_last_attempt(
    driver: Driver,
) -> None:
    heard = RecordingInstrument()
    async with driver.open(instruments=[heard]) as world:
        handle, job = await failed_once(world, OSError("disk"), "attached")
        await world.advance(0.5)
        assert job.begun == 2
        await world.advance(0.999)
        assert job.begun == 2, "the second wait is twice as long"
        await world.advance(0.001)
        assert await world.result(handle) == "attached"
        assert job.attempts == [1, 2, 3]
        assert getattr(handle, "attempts", 3) == 3  # an asyncio Task has no such attribute
        assert world.tasks.state("a") is State.FREE
    assert [event.will_retry for event in heard.of(TaskFailed)] == [True, True]
    assert [event.failures for event in heard.of(TaskFailed)] == [1, 2]
    assert [event.failures for event in heard.of(TaskStarted)] == [0, 1, 2]
    assert len(heard.of(TaskSucceeded)) == 1


@behaviour
async def test_a_name_with_a_waiting_retry_is_waiting_and_refuses_a_plain_start(
    driver: Driver,
) -> None:
    async with driver.open() as world:
        handle, job = await failed_once(world, "attached")
        assert world.tasks.state("a") is State.WAITING
        assert "a" not in world.tasks
        assert world.attempt("a") == "backing off"
        assert world.attempt("a", if_busy="replace") == "backing off"
        assert world.start("a", Job(), if_busy="skip") is None
        assert world.tasks.statistics().pending == 1
        await world.advance(0.5)
        assert await world.result(handle) == "attached"
        assert job.begun == 2


@behaviour
async def test_wait_idle_waits_for_a_retry(driver: Driver) -> None:
    async with driver.open() as world:
        handle, _ = await failed_once(world, "attached")
        waiter = world.wait_in_background("wait_idle")
        await world.advance(0.4)
        assert not waiter.returned
        await world.advance(0.1)
        assert waiter.returned
        assert await world.result(handle) == "attached"


@behaviour
async def test_wait_free_waits_for_the_attempt_of_a_retry(driver: Driver) -> None:
    async with driver.open() as world:
        _, job = await failed_once(world, None)
        await world.advance(0.5)
        waiter = world.wait_in_background("wait_free", "a")
        await world.advance(1.0)
        assert (job.begun, waiter.returned) == (2, False)
        job.succeed()
        await world.settle()
        assert waiter.returned


@behaviour
async def test_the_end_of_the_block_waits_for_retries(driver: Driver) -> None:
    """A retry is accepted work that is not done; a queued run behind a wait is dropped."""
    async with driver.open() as world:
        job, handles = Job().each(*ANSWERS, "attached"), list[Any]()
        waiter = world.block_in_background(
            lambda other: handles.append(other.start("a", job, retry=True))
        )
        await world.advance(0.5)
        await world.advance(0.999)
        assert (job.begun, waiter.returned) == (2, False)
        await world.advance(0.001)
        assert (job.begun, waiter.returned) == (3, True)
        assert await world.result(handles[0]) == "attached"


@behaviour
async def test_a_caller_that_joins_a_waiting_retry_gets_its_outcome(driver: Driver) -> None:
    async with driver.open() as world:
        handle, job = await failed_once(world, OSError("disk"), "attached")
        never = Job()
        joined = [world.start("a", never, if_busy="join")]
        await world.advance(0.5)
        joined.append(world.start("a", never, if_busy="join"))
        await world.advance(1.0)
        results = [await world.result(one) for one in (handle, *joined)]
        assert results == ["attached"] * 3
        assert (job.begun, never.begun) == (3, 0)


@behaviour
async def test_the_first_caller_of_a_shared_retried_run_gets_its_outcome_too(
    driver: Driver,
) -> None:
    async with driver.open() as world:
        first, job = await failed_once(world, "attached", if_busy="join")
        second = world.start("a", Job(), if_busy="join", retry=True)
        await world.advance(0.5)
        assert [await world.result(one) for one in (first, second)] == ["attached"] * 2
        assert job.begun == 2


@behaviour
async def test_all_callers_of_a_shared_retry_get_the_reason_if_it_is_cancelled_during_the_wait(
    driver: Driver,
) -> None:
    async with driver.open() as world:
        handle, _ = await failed_once(world)
        joined = world.start("a", Job(), if_busy="join")
        world.tasks.cancel("a", reason="enough")
        await world.settle()
        assert await world.was_cancelled(handle) == "enough"
        assert await world.was_cancelled(joined) == "enough"


@behaviour
async def test_a_newer_queued_start_supersedes_a_waiting_retry(driver: Driver) -> None:
    async with driver.open() as world:
        handle, job = await failed_once(world)
        newer = world.start("a", Job().succeed("newer"), if_busy="queue")
        await world.settle()
        error = await world.error_of_dropped(handle)
        assert error.reason == "superseded by a newer start of its name"
        assert repr(error.__cause__) == "OSError('disk')"
        assert world.tasks.statistics().pending == 1
        await world.advance(0.5)
        assert await world.result(newer) == "newer"
        assert job.begun == 1


@behaviour
async def test_a_newer_queued_start_during_an_attempt_takes_the_place_of_its_retry(
    driver: Driver,
) -> None:
    heard = RecordingInstrument()
    async with driver.open(instruments=[heard]) as world:
        job, next_one = Job(), Job().succeed("newer")
        handle = world.start("a", job, retry=True)
        await world.settle()
        newer = world.start("a", next_one, if_busy="queue")
        job.fail(OSError("disk"))
        await world.settle()
        with pytest.raises(OSError, match=r"^disk$"):
            await world.result(handle)
        assert next_one.begun == 0, "it sits out the wait"
        await world.advance(0.5)
        assert await world.result(newer) == "newer"
        assert job.begun == 1
    assert [event.will_retry for event in heard.of(TaskFailed)] == [False]


@behaviour
async def test_forget_begins_the_next_attempt_at_once(driver: Driver) -> None:
    async with driver.open() as world:
        handle, job = await failed_once(world, OSError("disk"), "attached")
        assert world.tasks.forget("a")
        await world.settle()
        assert job.begun == 2
        failure = world.tasks.failure("a")
        assert failure is not None
        assert (failure.failures, failure.retry_at - world.now()) == (1, 0.5)
        await world.advance(0.5)
        assert await world.result(handle) == "attached"
        assert job.attempts == [1, 2, 3]


@behaviour
async def test_cancel_during_the_wait_ends_a_retry_at_once(driver: Driver) -> None:
    async with driver.open() as world:
        handle, job = await failed_once(world)
        idle = world.wait_in_background("wait_idle")
        await world.settle()
        assert world.tasks.cancel("a", reason="enough")
        await world.settle()
        assert await world.was_cancelled(handle) == "enough"
        assert idle.returned
        assert world.tasks.state("a") is State.WAITING, "the failure stays on record"
        await world.advance(10.0)
        assert job.begun == 1
        assert world.tasks.state("a") is State.READY
        await world.advance(1000.0)
        assert world.tasks.state("a") is State.FREE, "its record expires as any other"
        assert world.attempt("a") == "accepted"


@behaviour
async def test_cancel_during_an_attempt_ends_a_retried_run(driver: Driver) -> None:
    async with driver.open() as world:
        handle, job = await failed_once(world, None)
        await world.advance(0.5)
        assert job.begun == 2
        assert world.tasks.cancel("a", reason="enough")
        await world.settle()
        assert await world.was_cancelled(handle) == "enough"
        assert (job.ended, world.tasks.statistics().pending) == (1, 0)
        await world.advance(10.0)
        assert job.begun == 2


@behaviour
async def test_an_attempt_that_was_asked_to_stop_and_fails_is_the_last_one(driver: Driver) -> None:
    heard = RecordingInstrument()
    async with driver.open(instruments=[heard]) as world:
        job = Job()
        handle = world.start("a", job, retry=True, heeds=False)
        await world.settle()
        world.tasks.cancel("a")
        await world.settle()
        job.fail(OSError("disk"))
        await world.settle()
        with pytest.raises(OSError, match=r"^disk$"):
            await world.result(handle)
        assert world.tasks.statistics().pending == 0
        await world.advance(10.0)
        assert job.begun == 1
    assert [event.will_retry for event in heard.of(TaskFailed)] == [False]


@behaviour
async def test_the_timeout_of_an_attempt_does_not_stop_the_next_one(driver: Driver) -> None:
    """Each attempt has its own timeout."""
    async with driver.open() as world:
        job = Job()
        handle = world.start("a", job, retry=True, timeout=2.0)
        await world.advance(2.0)
        assert job.begun == 1
        assert world.tasks.state("a") is State.WAITING
        await world.advance(0.5)
        assert job.begun == 2
        await world.advance(1.9)
        assert "a" in world.tasks
        job.succeed("attached")
        await world.settle()
        assert await world.result(handle) == "attached"
        assert job.attempts == [1, 2]


@behaviour
async def test_the_timeout_of_an_attempt_is_a_failure_that_is_retried(driver: Driver) -> None:
    async with driver.open(backoff=Backoff(give_up_after=2)) as world:
        job = Job()
        handle = world.start("a", job, retry=True, timeout=2.0)
        await world.advance(2.0)
        await world.advance(0.5)
        await world.advance(2.0)
        assert job.begun == 2
        with pytest.raises(Exception, match=r"^it took longer than its timeout of 2 s$"):
            await world.result(handle)
        assert world.tasks.state("a") is State.GAVE_UP


@behaviour
async def test_close_drops_a_waiting_retry_and_reports_its_last_failure(driver: Driver) -> None:
    async with driver.open() as world:
        handle, job = await failed_once(world)
        joined = world.start("a", Job(), if_busy="join")
        world.tasks.close()
        await world.settle()
        for one in (handle, joined):
            error = await world.error_of_dropped(one)
            assert error.reason == "the map is closing"
            assert repr(error.__cause__) == "OSError('disk')"
        await world.advance(10.0)
        assert job.begun == 1


@behaviour
async def test_shutdown_drops_a_waiting_retry(driver: Driver) -> None:
    async with driver.open() as world:
        handle, job = await failed_once(world)
        waiter = world.wait_in_background("shutdown")
        await world.settle()
        assert waiter.returned
        assert (await world.error_of_dropped(handle)).reason == "the map is closing"
        assert job.begun == 1


@behaviour
async def test_an_attempt_that_fails_in_a_closed_map_is_the_last_one(driver: Driver) -> None:
    async with driver.open() as world:
        job = Job()
        handle = world.start("a", job, retry=True)
        await world.settle()
        world.tasks.close()
        job.fail(OSError("disk"))
        await world.settle()
        with pytest.raises(OSError, match=r"^disk$"):
            await world.result(handle)
        assert job.begun == 1


@behaviour
async def test_a_name_that_gives_up_ends_its_retries_with_the_last_failure(driver: Driver) -> None:
    heard = RecordingInstrument()
    async with driver.open(backoff=Backoff(give_up_after=2), instruments=[heard]) as world:
        handle, job = await failed_once(world, OSError("the second"), "never")
        await world.advance(0.5)
        with pytest.raises(OSError, match=r"^the second$"):
            await world.result(handle)
        assert world.tasks.state("a") is State.GAVE_UP
        assert job.begun == 2
    assert [event.will_retry for event in heard.of(TaskFailed)] == [True, False]


@behaviour
async def test_an_error_without_a_wait_is_not_retried(driver: Driver) -> None:
    async with driver.open(backoff=Backoff(exempt=(KeyError,))) as world:
        handle, job = await failed_once(world, KeyError("not ready"), "never")
        await world.advance(0.5)
        with pytest.raises(KeyError, match=r"^'not ready'$"):
            await world.result(handle)
        await world.advance(100.0)
        assert job.begun == 2
        failure = world.tasks.failure("a")
        assert failure is not None
        assert failure.failures == 1, "the record is as it was before"


@behaviour
async def test_a_run_that_failed_without_retry_is_not_retried(driver: Driver) -> None:
    async with driver.open() as world:
        job = Job().fail()
        await world.run("a", job)
        await world.advance(10.0)
        assert job.begun == 1


@behaviour
async def test_a_retried_run_releases_its_slot_between_attempts(driver: Driver) -> None:
    async with driver.open(limit=1) as world:
        handle, job = await failed_once(world, "attached")
        other = Job()
        world.start("b", other)
        await world.advance(0.5)
        assert (other.begun, job.begun) == (1, 1)
        statistics = world.tasks.statistics()
        assert (statistics.running, statistics.waiting_for_slot, statistics.pending) == (2, 1, 0)
        other.succeed()
        await world.settle()
        assert await world.result(handle) == "attached"


@behaviour
async def test_a_cancellation_drops_a_retry_that_waits_for_its_slot(driver: Driver) -> None:
    async with driver.open(limit=1) as world:
        handle, job = await failed_once(world, "never")
        other = Job()
        world.start("b", other)
        await world.advance(0.5)
        world.tasks.cancel("a", reason="enough")
        await world.settle()
        assert await world.was_cancelled(handle) == "enough"
        other.succeed()
        await world.settle()
        assert job.begun == 1


@behaviour
async def test_a_retry_waits_for_a_run_of_another_operation(driver: Driver) -> None:
    async with driver.open() as world:
        handle, job = await failed_once(world, "attached", operation="attach")
        other = Job()
        assert world.attempt("a", other, operation="detach") == "accepted"
        await world.advance(10.0)
        assert (other.begun, job.begun) == (1, 1)
        other.succeed()
        await world.settle()
        assert await world.result(handle) == "attached"


@behaviour
async def test_the_failures_of_a_late_retry_still_count(driver: Driver) -> None:
    """Its record does not expire while it waits, even if it waits for another run."""
    async with driver.open(retention=1.0) as world:
        _, job = await failed_once(world, OSError("disk"), operation="attach")
        other = Job()
        world.start("a", other, operation="detach")
        await world.advance(1000.0)
        failure = world.tasks.failure("a", operation="attach")
        assert failure is not None
        other.succeed()
        await world.settle()
        assert job.begun == 2
        failure = world.tasks.failure("a", operation="attach")
        assert failure is not None
        assert (failure.failures, failure.retry_at - world.now()) == (2, 1.0)


@behaviour
async def test_the_failures_of_a_retry_count_even_without_retention(driver: Driver) -> None:
    async with driver.open(retention=0.0) as world:
        await failed_once(world, OSError("disk"))
        await world.advance(0.5)
        failure = world.tasks.failure("a")
        assert failure is not None
        assert (failure.failures, failure.retry_at - world.now()) == (2, 1.0)


@behaviour
async def test_a_function_on_an_executor_is_retried(driver: Driver) -> None:
    ends = [OSError("disk"), OSError("disk")]

    def attach() -> str:
        if ends:
            raise ends.pop()
        return "attached"

    pool = FalsyPool()
    async with driver.open() as world:
        executor = driver.executor(pool)
        handle = world.start_elsewhere("a", attach, executor=executor, retry=True)
        for wait in (0.5, 1.0, 0.0):
            await world.settle()
            assert len(pool.jobs) == 1
            pool.work()
            await world.advance(wait)
        assert await world.result(handle) == "attached"


@behaviour
async def test_retry_without_a_policy_is_refused_at_the_call(driver: Driver) -> None:
    wrong = r"^retry=True needs a backoff policy, but backoff is None$"
    async with driver.open() as world:
        with pytest.raises(ValueError, match=wrong):
            world.start("a", Job(), retry=True, backoff=None)
        assert world.tasks.state("a") is State.FREE
    async with driver.open(backoff=None) as world:
        with pytest.raises(ValueError, match=wrong):
            world.start("a", Job(), retry=True)
        job = Job().each(OSError("disk"), "attached")
        handle = world.start("a", job, retry=True, backoff=Backoff(initial=3.0))
        await world.advance(3.0)
        assert await world.result(handle) == "attached"


@behaviour
async def test_a_queued_start_may_be_retried_too(driver: Driver) -> None:
    async with driver.open() as world:
        first, job = Job(), Job().each(OSError("disk"), "attached")
        world.start("a", first)
        await world.settle()
        handle = world.start("a", job, if_busy="queue", retry=True)
        first.succeed()
        await world.settle()
        assert (job.begun, world.tasks.state("a")) == (1, State.WAITING)
        await world.advance(0.5)
        assert await world.result(handle) == "attached"


@behaviour
async def test_a_replacement_during_an_attempt_ends_the_retried_run(driver: Driver) -> None:
    async with driver.open() as world:
        handle, job = await failed_once(world, None)
        await world.advance(0.5)
        newer = world.start("a", Job().succeed("newer"), if_busy="replace")
        await world.settle()
        assert await world.was_cancelled(handle) == "replaced by a newer start"
        assert await world.result(newer) == "newer"
        assert job.begun == 2
