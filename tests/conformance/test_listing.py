"""The lists of a map: failures, pending runs, the next retry, outcomes, counts."""

import pytest

from namedtasks import Backoff, State
from namedtasks.instruments import TaskExpired
from namedtasks.testing import RecordingInstrument
from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, Job, World


def names_of(world: World, state: State | None = None) -> list[object]:
    return [failure.name for failure in world.tasks.failures(state=state)]


@behaviour
async def test_the_list_of_failures_has_waiting_and_ready_names_and_names_that_gave_up(
    driver: Driver,
) -> None:
    async with driver.open(retention=100.0) as world:
        await world.run("ready", Job().fail(OSError("disk")))
        await world.run("gave up", Job().fail(), backoff=Backoff(give_up_after=1))
        await world.run("runs", Job().fail())
        await world.advance(0.5)
        await world.run("waits", Job().fail(), operation="attach")
        world.start("runs", Job())
        await world.settle()
        assert set(names_of(world)) == {"ready", "gave up", "waits"}
        assert names_of(world, State.READY) == ["ready"]
        assert names_of(world, State.GAVE_UP) == ["gave up"]
        assert names_of(world, State.WAITING) == ["waits"]
        (failure,) = world.tasks.failures(state=State.WAITING)
        assert failure == world.tasks.failure("waits", operation="attach")
        (failure,) = world.tasks.failures(state=State.READY)
        assert (failure.failures, repr(failure.error)) == (1, "OSError('disk')")
        await world.advance(99.999)
        assert "ready" in names_of(world)
        await world.advance(0.001)
        assert "ready" not in names_of(world), "it has expired"
        assert names_of(world, State.GAVE_UP) == ["gave up"]


@behaviour
async def test_the_list_of_failures_is_a_snapshot_of_the_time_of_the_call(driver: Driver) -> None:
    """Changes of the map during the iteration do not affect it."""
    async with driver.open() as world:
        for name in ("a", "b"):
            await world.run(name, Job().fail())
        found = world.tasks.failures()
        world.tasks.forget("b")
        await world.run("c", Job().fail())
        assert [failure.name for failure in found] == ["a", "b"]
        assert names_of(world) == ["a", "c"]


@behaviour
async def test_the_list_of_failures_refuses_a_state_that_no_record_can_have(driver: Driver) -> None:
    async with driver.open() as world:
        for state in (State.FREE, State.RUNNING):
            with pytest.raises(ValueError, match=r"^state must be WAITING, READY or GAVE_UP, not "):
                world.tasks.failures(state=state)


@behaviour
async def test_the_list_of_pending_runs_says_what_each_run_waits_for(driver: Driver) -> None:
    async with driver.open() as world:
        assert world.tasks.pending() == []
        old = Job(), Job()
        for name, job in zip("ab", old, strict=True):
            world.start(name, job, heeds=False)
        await world.settle()
        world.start("a", Job(), if_busy="queue", operation="attach")
        world.start("b", Job(), if_busy="replace")
        await world.run("c", Job().fail())
        world.start("c", Job(), if_busy="queue")
        world.start("d", Job().fail(), retry=True)
        await world.settle()
        at = world.now() + 0.5
        assert {
            (run.name, run.operation, run.kind, run.holder, run.retry_at)
            for run in world.tasks.pending()
        } == {
            ("a", "attach", "queue", "a", None),
            ("b", None, "replace", "b", None),
            ("c", None, "queue", None, at),
            ("d", None, "retry", None, at),
        }
        world.tasks.cancel("a")
        world.tasks.cancel("b")
        assert {run.name for run in world.tasks.pending()} == {"c", "d"}
        world.tasks.forget("c")
        world.tasks.forget("d")
        await world.settle()
        (again,) = world.tasks.pending()
        assert (again.name, again.kind) == ("d", "retry")
        for job in old:
            job.succeed()


@behaviour
async def test_the_list_of_pending_runs_includes_a_retry_that_waits_for_another_run(
    driver: Driver,
) -> None:
    """The holder of a retry that waits for a run of another operation is that run."""
    async with driver.open() as world:
        world.start("a", Job().fail(), retry=True, operation="attach")
        await world.settle()
        world.start("a", Job(), operation="detach")
        await world.advance(0.5)
        (run,) = world.tasks.pending()
        assert (run.kind, run.holder, run.retry_at) == ("retry", "a", None)


@behaviour
async def test_next_retry_at_returns_the_earliest_end_of_a_wait(driver: Driver) -> None:
    async with driver.open() as world:
        start = world.now()
        assert world.tasks.next_retry_at() is None
        await world.run("late", Job().fail(), backoff=Backoff(initial=8.0))
        assert world.tasks.next_retry_at() == start + 8.0
        await world.run("soon", Job().fail(), backoff=Backoff(initial=2.0))
        await world.run("never", Job().fail(), backoff=Backoff(give_up_after=1))
        assert world.tasks.next_retry_at() == start + 2.0
        await world.advance(1.0)
        world.tasks.forget("soon")
        assert world.tasks.next_retry_at() == start + 8.0
        await world.run("between", Job().fail(), backoff=Backoff(initial=4.0))
        assert world.tasks.next_retry_at() == start + 5.0
        await world.advance(4.0)
        assert world.tasks.next_retry_at() == start + 8.0, "a name that is ready waits no more"
        await world.run("between", Job().fail(), backoff=Backoff(initial=1.0, factor=1.0))
        assert world.tasks.next_retry_at() == start + 6.0
        await world.advance(3.0)
        assert world.tasks.next_retry_at() is None


@behaviour
async def test_next_retry_at_includes_failures_from_before_its_first_call(driver: Driver) -> None:
    async with driver.open() as world:
        for name, wait in (("a", 4.0), ("b", 2.0), ("c", 3.0)):
            await world.run(name, Job().fail(), backoff=Backoff(initial=wait), operation=name)
        start = world.now()
        for wait in (2.0, 3.0, 4.0):
            assert world.tasks.next_retry_at() == start + wait
            await world.advance(1.0 if wait > 2.0 else 2.0)
        assert world.tasks.next_retry_at() is None


@behaviour
async def test_a_loop_may_sleep_until_the_next_retry(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().fail())
        at = world.tasks.next_retry_at()
        assert at is not None
        await world.advance(at - world.now())
        assert world.attempt("a") == "accepted"


@behaviour
async def test_outcomes_are_the_last_ones_of_the_names_that_ended_last(driver: Driver) -> None:
    async with driver.open(keep_outcomes=3) as world:
        start = world.now()
        await world.run("a", Job().succeed())
        job = Job()
        world.start("b", job)
        await world.advance(2.0)
        job.fail(OSError("disk"))
        await world.settle()
        world.start("c", Job())
        await world.advance(1.0)
        world.tasks.cancel("c")
        await world.settle()
        assert [
            (one.name, one.status, one.ended_at - start, one.duration, repr(one.error))
            for one in world.tasks.outcomes()
        ] == [
            ("a", "succeeded", 0.0, 0.0, "None"),
            ("b", "failed", 2.0, 2.0, "OSError('disk')"),
            ("c", "cancelled", 3.0, 1.0, "None"),
        ]
        await world.run("b", Job().succeed())
        assert [one.name for one in world.tasks.outcomes()] == ["a", "c", "b"]
        await world.run("b", Job().fail(), operation="detach")
        assert [(one.name, one.operation) for one in world.tasks.outcomes()] == [
            ("c", None),
            ("b", None),
            ("b", "detach"),
        ]


@behaviour
async def test_outcomes_are_off_by_default(driver: Driver) -> None:
    async with driver.open() as world:
        await world.run("a", Job().succeed())
        assert world.tasks.outcomes() == []


@behaviour
async def test_an_error_without_a_wait_is_in_the_outcomes_and_not_in_the_failures(
    driver: Driver,
) -> None:
    async with driver.open(backoff=None, keep_outcomes=1) as world:
        await world.run("a", Job().fail(OSError("disk")))
        (outcome,) = world.tasks.outcomes()
        assert (outcome.status, repr(outcome.error)) == ("failed", "OSError('disk')")
        assert names_of(world) == []


@behaviour
async def test_a_run_that_never_began_has_no_outcome(driver: Driver) -> None:
    async with driver.open(limit=1, keep_outcomes=10) as world:
        world.start("holds the slot", Job())
        await world.settle()
        world.start("a", Job())
        await world.settle()
        world.tasks.cancel("a")
        await world.settle()
        assert world.tasks.outcomes() == []


@behaviour
async def test_each_attempt_has_an_outcome_and_the_last_one_is_kept(driver: Driver) -> None:
    async with driver.open(keep_outcomes=10) as world:
        world.start("a", Job().each(OSError("disk"), "attached"), retry=True)
        await world.settle()
        assert [one.status for one in world.tasks.outcomes()] == ["failed"]
        await world.advance(0.5)
        assert [one.status for one in world.tasks.outcomes()] == ["succeeded"]


@behaviour
async def test_statistics_count_failures_in_a_row(driver: Driver) -> None:
    async with driver.open(failure_threshold=2) as world:

        def counts() -> tuple[int, int]:
            statistics = world.tasks.statistics()
            return statistics.max_failures, statistics.failing

        assert counts() == (0, 0)
        for number in (1, 2, 3):
            await world.run("a", Job().fail())
            assert counts() == (number, int(number >= 2))
            await world.advance(2.0)
        await world.run("b", Job().fail())
        assert counts() == (3, 1)
        await world.advance(1.0)
        await world.run("b", Job().fail())
        assert counts() == (3, 2)
        job = Job()
        world.start("a", job)
        await world.settle()
        assert counts() == (3, 2), "a name that runs counts, too"
        job.succeed()
        await world.settle()
        assert counts() == (2, 1)
        world.tasks.forget("b")
        assert counts() == (0, 0)


@behaviour
async def test_statistics_have_the_age_of_the_oldest_run_and_the_longest_wait_for_a_slot(
    driver: Driver,
) -> None:
    async with driver.open(limit=1) as world:

        def ages() -> tuple[float, float]:
            statistics = world.tasks.statistics()
            return statistics.oldest_run_age, statistics.longest_slot_wait

        assert ages() == (0.0, 0.0)
        first = Job()
        world.start("a", first)
        await world.advance(1.0)
        world.start("b", Job())
        await world.advance(2.0)
        world.start("c", Job())
        await world.advance(4.0)
        assert ages() == (7.0, 6.0)
        first.succeed()
        await world.settle()
        assert ages() == (0.0, 4.0)
        await world.advance(1.0)
        assert ages() == (1.0, 5.0)
        world.tasks.cancel("c")
        assert ages() == (1.0, 0.0)


@behaviour
async def test_the_removal_of_an_expired_record_is_reported(driver: Driver) -> None:
    heard = RecordingInstrument()
    async with driver.open(instruments=[heard], retention=2.0) as world:
        ends = world.now() + 2.5
        await world.run("a", Job().fail(), operation="attach")
        await world.advance(2.5)
        await world.run("b", Job().succeed())
        (event,) = heard.of(TaskExpired)
        assert (event.name, event.operation) == ("a", "attach")
        assert (event.failures, event.expired_at) == (1, ends)
