"""Part C of the conformance list: the ancestor's faults, each as the behaviour that we have."""

import gc
import math
import sys
import weakref
from typing import NoReturn

from namedtasks import Backoff, BackoffError, ClosedError, State
from namedtasks.instruments import Instrument, TaskFailed, TaskSucceeded
from namedtasks.testing import RecordingInstrument
from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, Job


@behaviour
async def test_W01_one_end_wakes_every_waiter(driver: Driver) -> None:
    async with driver.open() as world:
        job = Job()
        world.start("a", job)
        waiters = [world.wait_in_background("wait_idle") for _ in range(5)]
        await world.settle()
        job.succeed()
        await world.settle()
        assert all(waiter.returned for waiter in waiters)


@behaviour
async def test_W02_no_waiter_takes_the_signal_of_another(driver: Driver) -> None:
    """Waiters for other conditions, which wait first, do not take it."""
    async with driver.open() as world:
        await world.run("failed", Job().fail())
        job = Job()
        world.start("a", job)
        others = [world.wait_in_background("wait_empty") for _ in range(3)]
        await world.settle()
        idle = world.wait_in_background("wait_idle")
        free = world.wait_in_background("wait_free", "a")
        await world.settle()
        job.succeed()
        await world.settle()
        assert idle.returned
        assert free.returned
        assert not any(waiter.returned for waiter in others)


@behaviour
async def test_W03_wait_empty_returns_when_the_record_expires_or_is_forgotten(
    driver: Driver,
) -> None:
    async with driver.open(retention=10.0) as world:
        await world.run("a", Job().fail())
        lapses = world.wait_in_background("wait_empty")
        await world.advance(10.4)
        assert not lapses.returned
        await world.advance(0.2)
        assert lapses.returned
        await world.run("a", Job().fail())
        forgotten = world.wait_in_background("wait_empty")
        await world.settle()
        assert not forgotten.returned
        world.tasks.forget("a")
        await world.settle()
        assert forgotten.returned


@behaviour
async def test_W04_only_a_return_counts_as_success(driver: Driver) -> None:
    """A cancelled run is no success: its earlier failures stay on record."""
    async with driver.open() as world:
        await world.run("a", Job().fail())
        await world.advance(0.5)
        world.start("a", Job())
        await world.settle()
        assert world.tasks.cancel("a")
        await world.settle()
        failure = world.tasks.failure("a")
        assert failure is not None
        assert failure.failures == 1
        for error in (StopIteration(), StopAsyncIteration(), GeneratorExit):
            if isinstance(error, Exception):
                await world.run("a", Job().fail(error))
                failure = world.tasks.failure("a")
                assert failure is not None
                assert failure.failures > 1
                await world.advance(failure.retry_at - world.now())


class Local:
    """A large object in a local variable of a body."""


@behaviour
async def test_W05_a_record_keeps_neither_a_traceback_nor_a_frame_nor_a_local(
    driver: Driver,
) -> None:
    references: list[weakref.ref[Local]] = []

    def crash() -> NoReturn:
        local = Local()
        references.append(weakref.ref(local))
        raise ValueError("boom")

    async with driver.open() as world:
        world.start_callback("a", crash)
        await world.settle()
        failure = world.tasks.failure("a")
        assert failure is not None
        assert failure.error.__traceback__ is None
        gc.collect()
        assert references[0]() is None


@behaviour
async def test_W06_memory_is_freed(driver: Driver) -> None:
    """The counts fall when runs end; the tests of the tables show how these shrink."""
    async with driver.open(retention=0.0) as world:
        for number in range(2000):
            world.start(number, Job().fail())
        await world.settle()
        assert world.tasks.statistics().waiting > 1900
        await world.advance(0.5)
        for _ in range(500):
            await world.run("other", Job().succeed())
        assert world.tasks.statistics().waiting == 0


@behaviour
async def test_W07_a_record_expires(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail())
        await world.advance(0.5 + 243.9)
        assert world.tasks.state("a") is State.READY
        await world.advance(0.1)
        assert world.tasks.state("a") is State.FREE
        assert world.tasks.failure("a") is None


@behaviour
async def test_W08_an_instrument_that_raises_affects_nothing_else(driver: Driver) -> None:
    """It is called after the name is free and the waiters are woken."""
    states: list[State] = []

    class Raises(Instrument):
        def task_failed(self, event: TaskFailed, /) -> None:
            states.append(world.tasks.state(event.name))
            raise ValueError("a broken log handler")

    async with driver.open(instruments=[Raises()]) as world:
        await world.run("a", Job().fail())
        assert states == [State.WAITING]
        assert world.attempt("b") == "accepted"


@behaviour
async def test_W09_a_refusal_has_fields_and_a_cause(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail(OSError("disk")), operation="mount")
        now = world.now()
        await world.advance(0.25)
        error = world.tasks.check("a", operation="mount")
        assert isinstance(error, BackoffError)
        assert (error.name, error.operation, error.failures) == ("a", "mount", 1)
        assert (error.retry_at, error.retry_in) == (now + 0.5, 0.25)
        assert repr(error.__cause__) == "OSError('disk')"


@behaviour
async def test_W10_wait_free_waits_for_one_name_only(driver: Driver) -> None:
    """Under a constant stream of overlapping runs wait_idle never returns, but wait_free does."""
    async with driver.open() as world:
        mine = Job()
        world.start("mine", mine)
        free = world.wait_in_background("wait_free", "mine")
        idle = world.wait_in_background("wait_idle")
        others = [Job() for _ in range(4)]
        for number, job in enumerate(others):
            world.start(number, job)
            if number:
                others[number - 1].succeed()
            await world.settle()
        assert not free.returned
        mine.succeed()
        await world.settle()
        assert free.returned
        assert not idle.returned


@behaviour
async def test_W11_a_run_that_waits_for_itself_raises_at_the_call(driver: Driver) -> None:
    async with driver.open() as world:
        for verb in ("wait_idle", "wait_empty", "shutdown"):
            error = await world.wait_inside(verb)
            assert isinstance(error, RuntimeError)
            assert "would wait for the task itself" in str(error)


@behaviour
async def test_W12_an_expired_failure_does_not_double_the_next_wait(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail())
        await world.advance(3600.0)
        await world.run("a", Job().fail())
        failure = world.tasks.failure("a")
        assert failure is not None
        assert (failure.failures, failure.retry_at) == (1, world.now() + 0.5)


@behaviour
async def test_W13_jitter_separates_names_that_failed_together(driver: Driver) -> None:
    numbers = iter([0.25, 0.75])
    backoff = Backoff(initial=8.0, jitter=0.5)
    async with driver.open(backoff=backoff, random=lambda: next(numbers)) as world:
        await world.run("a", Job().fail())
        await world.run("b", Job().fail())
        waits = [
            failure.retry_at - world.now()
            for failure in map(world.tasks.failure, "ab")
            if failure is not None
        ]
        assert waits == [7.0, 5.0]


@behaviour
async def test_W14_the_waits_are_settings_and_the_clock_can_be_replaced(driver: Driver) -> None:
    async with driver.open(backoff=Backoff(initial=3.0, factor=3.0, maximum=5.0)) as world:
        for wait in (3.0, 5.0):
            await world.run("a", Job().fail())
            failure = world.tasks.failure("a")
            assert failure is not None
            assert failure.retry_at == world.now() + wait
            await world.advance(wait)


@behaviour
async def test_W15_a_timeout_or_a_cancellation_stops_a_hung_operation(driver: Driver) -> None:
    async with driver.open() as world:
        world.start("slow", Job(), timeout=5.0)
        world.start("cancelled", Job())
        await world.advance(4.9)
        assert world.tasks.state("slow") is State.RUNNING
        await world.advance(0.2)
        assert world.tasks.state("slow") is State.WAITING
        assert world.tasks.cancel("cancelled")
        await world.settle()
        assert world.tasks.state("cancelled") is State.FREE


@behaviour
async def test_W16_the_result_is_kept(driver: Driver) -> None:
    async with driver.open() as world:
        handle = world.start("a", Job().succeed(42))
        await world.settle()
        assert await world.result(handle) == 42


@behaviour
async def test_W17_a_map_can_be_inspected_and_controlled(driver: Driver) -> None:
    heard = RecordingInstrument()
    async with driver.open(instruments=[heard]) as world:
        await world.run("a", Job().fail())
        assert world.tasks.forget("a")
        assert world.tasks.state("a") is State.FREE
        job = Job()
        world.start("b", job)
        assert list(world.tasks) == ["b"]
        assert world.tasks.statistics().running == 1
        waiter = world.wait_in_background("shutdown")
        await world.settle()
        assert world.attempt("c") == "closed"
        job.succeed()
        await world.settle()
        assert waiter.returned
    assert [event.name for event in heard.of(TaskSucceeded)] == ["b"]


@behaviour
async def test_W18_at_most_limit_bodies_run_at_once(driver: Driver) -> None:
    async with driver.open(limit=2) as world:
        jobs = [Job() for _ in range(5)]
        for number, job in enumerate(jobs):
            world.start(number, job)
        await world.settle()
        assert [job.begun for job in jobs] == [1, 1, 0, 0, 0]
        assert world.attempt(4) == "busy", "all hold their names"
        jobs[1].succeed()
        await world.settle()
        assert [job.begun for job in jobs] == [1, 1, 1, 0, 0]


@behaviour
async def test_W19_wait_idle_ignores_failed_names(driver: Driver) -> None:
    """It returns at once with any number of them on record; the benchmarks measure its cost."""
    async with driver.open() as world:
        for number in range(3000):
            world.start(number, Job().fail())
        await world.settle()
        calls = 0

        def count(frame: object, event: str, arg: object) -> None:
            nonlocal calls
            calls += event == "call"

        waiter = world.wait_in_background("wait_idle")
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            await world.settle()
        finally:
            sys.setprofile(before)
        assert waiter.returned
        assert calls < 1000


class NotReady(Exception):
    pass


@behaviour
async def test_W20_an_exempt_error_starts_no_wait(driver: Driver) -> None:
    async with driver.open(backoff=Backoff(exempt=(NotReady,))) as world:
        for _ in range(3):
            await world.run("a", Job().fail(NotReady()))
            assert world.tasks.state("a") is State.FREE


@behaviour
async def test_N01_alternating_operations_do_not_defeat_the_wait(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail(), operation="mount")
        await world.run("a", Job().fail(), operation="umount")
        assert world.attempt("a", operation="mount") == "backing off"
        assert world.attempt("a", operation="umount") == "backing off"
        await world.advance(0.5)
        for operation in ("mount", "umount"):
            await world.run("a", Job().fail(), operation=operation)
            failure = world.tasks.failure("a", operation=operation)
            assert failure is not None
            assert failure.failures == 2


@behaviour
async def test_N02_a_record_never_moves_to_another_operation(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail(), operation="mount")
        await world.advance(0.5)
        await world.run("a", Job().fail(), operation="umount")
        assert world.attempt("a", operation="mount") == "accepted"


@behaviour
async def test_N05_instruments_get_the_error_of_a_crash(driver: Driver) -> None:
    heard = RecordingInstrument()
    error = ZeroDivisionError("crash")
    async with driver.open(instruments=[heard]) as world:
        await world.run("a", Job().fail(error))
    (failed,) = heard.of(TaskFailed)
    assert failed.error is error
    assert heard.of(TaskSucceeded) == []


@behaviour
async def test_Q02_a_run_admitted_before_the_close_still_runs(driver: Driver) -> None:
    """A drain does not lose a run that waits for its slot."""
    async with driver.open(limit=1) as world:
        first, second = Job(), Job().succeed()
        world.start("a", first)
        world.start("b", second)
        await world.settle()
        world.tasks.close()
        first.succeed()
        await world.settle()
        assert second.ended == 1


@behaviour
async def test_a_closed_map_and_a_name_that_gave_up_have_refusals_of_their_own(
    driver: Driver,
) -> None:
    async with driver.open(backoff=Backoff(give_up_after=1)) as world:
        await world.run("a", Job().fail())
        assert world.attempt("a") == "gave up"
        await world.advance(1e6)
        assert world.attempt("a") == "gave up"
        assert world.attempt("b", if_busy="skip") == "accepted"
        failure = world.tasks.failure("a")
        assert failure is not None
        assert failure.retry_at == math.inf
        world.tasks.close()
        assert isinstance(world.tasks.check("a"), ClosedError)
        assert world.attempt("a", if_busy="skip") == "closed"


@behaviour
async def test_skip_returns_None_in_every_state_that_refuses_a_start(driver: Driver) -> None:
    async with driver.open(backoff=Backoff(give_up_after=2)) as world:
        world.start("runs", Job())
        await world.run("waits", Job().fail())
        await world.run("gave up", Job().fail())
        await world.advance(0.5)
        await world.run("gave up", Job().fail())
        await world.run("waits again", Job().fail())
        jobs = [Job() for _ in range(3)]
        names = ("runs", "waits again", "gave up")
        assert [
            world.start(name, job, if_busy="skip") for name, job in zip(names, jobs, strict=True)
        ] == [None, None, None]
        await world.settle()
        assert [job.begun for job in jobs] == [0, 0, 0]
