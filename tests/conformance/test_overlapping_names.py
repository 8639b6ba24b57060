"""Part B of the conformance list: NestedPendingOperations, P01 to P23, and its faults.

A volume is ("v", ANY), a pod of it ("v", "pod"); with nodes, the third field is the node.
"""

from typing import Any

import pytest

from namedtasks import ANY, AlreadyRunningError, Backoff, State
from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, Job, World

ON = Backoff()
OFF = None
VOLUME = ("v", ANY)
POD = ("v", "pod-1")
V, VP, VN = ("v", ANY, ANY), ("v", "pod", ANY), ("v", ANY, "node")


async def one_start(driver: Driver, backoff: Backoff | None) -> None:
    async with driver.open(backoff=backoff) as world:
        assert world.attempt(VOLUME) == "accepted"


@behaviour
async def test_P01_without_backoff_a_start_on_a_volume_is_accepted(driver: Driver) -> None:
    await one_start(driver, OFF)


@behaviour
async def test_P02_without_backoff_starts_on_two_volumes_are_accepted(driver: Driver) -> None:
    async with driver.open(backoff=OFF) as world:
        assert world.attempt(("v", ANY), Job()) == "accepted"
        assert world.attempt(("w", ANY), Job()) == "accepted"


@behaviour
async def test_P03_without_backoff_starts_on_two_pods_of_a_volume_are_accepted(
    driver: Driver,
) -> None:
    async with driver.open(backoff=OFF) as world:
        assert world.attempt(("v", "pod-1"), Job()) == "accepted"
        assert world.attempt(("v", "pod-2"), Job()) == "accepted"


@behaviour
async def test_P04_with_backoff_a_start_on_a_volume_is_accepted(driver: Driver) -> None:
    await one_start(driver, ON)


async def again_after(driver: Driver, backoff: Backoff | None, job: Job) -> None:
    async with driver.open(backoff=backoff) as world:
        await world.run(VOLUME, job)
        if backoff is not None:
            await world.advance(0.5)
        assert world.attempt(VOLUME) == "accepted"


@behaviour
async def test_P05_without_backoff_a_start_after_a_success_is_accepted(driver: Driver) -> None:
    await again_after(driver, OFF, Job().succeed())


@behaviour
async def test_P06_with_backoff_a_start_after_a_success_is_accepted(driver: Driver) -> None:
    await again_after(driver, ON, Job().succeed())


@behaviour
async def test_P07_without_backoff_a_start_after_a_crash_is_accepted(driver: Driver) -> None:
    await again_after(driver, OFF, Job().fail(ZeroDivisionError("crash")))


@behaviour
async def test_P08_with_backoff_a_start_after_a_crash_and_the_wait_is_accepted(
    driver: Driver,
) -> None:
    await again_after(driver, ON, Job().fail(ZeroDivisionError("crash")))


async def blocked(driver: Driver, backoff: Backoff | None, name: Any) -> None:
    async with driver.open(backoff=backoff) as world:
        world.start(name, Job())
        await world.settle()
        assert world.attempt(name) == "busy"


@behaviour
async def test_P09_without_backoff_a_start_on_a_busy_volume_is_refused(driver: Driver) -> None:
    await blocked(driver, OFF, VOLUME)


@behaviour
async def test_P10_with_backoff_a_failed_mount_does_not_delay_an_unmount(driver: Driver) -> None:
    async with driver.open(backoff=ON) as world:
        await world.run(POD, Job().fail(), operation="mount_volume")
        assert world.attempt(POD, operation="mount_volume") == "backing off"
        assert world.attempt(POD, operation="unmount_volume") == "accepted"


@behaviour
async def test_P11_without_backoff_a_start_on_a_busy_pod_is_refused(driver: Driver) -> None:
    await blocked(driver, OFF, POD)


@behaviour
async def test_P12_with_backoff_a_start_on_a_busy_pod_is_refused(driver: Driver) -> None:
    await blocked(driver, ON, POD)


@behaviour
async def test_P13_with_backoff_a_start_on_a_busy_volume_is_refused(driver: Driver) -> None:
    await blocked(driver, ON, VOLUME)


async def third(driver: Driver, backoff: Backoff | None) -> None:
    async with driver.open(backoff=backoff) as world:
        first = Job()
        world.start(VOLUME, first)
        await world.settle()
        assert world.attempt(POD) == "busy"
        first.succeed()
        await world.settle()
        assert world.attempt(POD) == "accepted"


@behaviour
async def test_P14_without_backoff_a_refused_volume_starts_after_the_run_has_ended(
    driver: Driver,
) -> None:
    await third(driver, OFF)


@behaviour
async def test_P15_with_backoff_a_refused_volume_starts_after_the_run_has_ended(
    driver: Driver,
) -> None:
    await third(driver, ON)


async def wait_empty(driver: Driver, backoff: Backoff | None, job: Job | None) -> None:
    async with driver.open(backoff=backoff) as world:
        if job is not None:
            world.start(VOLUME, job)
        waiter = world.wait_in_background("wait_empty")
        await world.settle()
        assert waiter.returned == (job is None)
        if job is not None:
            job.succeed()
            await world.settle()
            assert waiter.returned


@behaviour
async def test_P16_without_backoff_wait_empty_on_an_empty_map_returns(driver: Driver) -> None:
    await wait_empty(driver, OFF, None)


@behaviour
async def test_P17_with_backoff_wait_empty_on_an_empty_map_returns(driver: Driver) -> None:
    await wait_empty(driver, ON, None)


@behaviour
async def test_P18_without_backoff_wait_empty_returns_when_the_run_ends(driver: Driver) -> None:
    await wait_empty(driver, OFF, Job())


@behaviour
async def test_P19_with_backoff_wait_empty_returns_when_the_run_ends(driver: Driver) -> None:
    await wait_empty(driver, ON, Job())


@behaviour
async def test_P20_without_backoff_overlapping_keys_exclude_each_other(driver: Driver) -> None:
    for first, second in [(V, VP), (V, VN), (VP, V), (VN, V), (VN, VN), (V, V), (VP, VN)]:
        async with driver.open(backoff=OFF) as world:
            world.start(first, Job())
            await world.settle()
            assert world.attempt(second) == "busy"
            refusal = world.tasks.check(second)
            assert isinstance(refusal, AlreadyRunningError)
            assert refusal.holders == (first,)
            assert world.attempt("a name without a volume", Job()) == "accepted"
            assert world.attempt(("w", ANY, "node")) == "accepted"


@behaviour
async def test_P21_with_backoff_each_key_keeps_its_own_record(driver: Driver) -> None:
    async with driver.open(backoff=ON) as world:
        v0, n1, n2 = ("v0", ANY, ANY), ("v1", ANY, "n1"), ("v1", ANY, "n2")
        jobs = {name: Job() for name in (v0, n1, n2)}
        for name, job in jobs.items():
            world.start(name, job)
        await world.settle()
        for name, end in ((v0, Job.succeed), (n2, Job.fail), (n1, Job.succeed)):
            end(jobs[name])
            await world.settle()
        again = Job()
        while (verdict := world.attempt(n2, again)) != "accepted":
            assert verdict == "backing off"
            await world.advance(0.05)
        again.succeed()
        await world.settle()
        await world.advance(0.05)
        assert world.attempt(n2) == "accepted"


@behaviour
async def test_P22_with_backoff_the_map_checks_for_runs_before_failures(driver: Driver) -> None:
    async with driver.open(backoff=ON) as world:
        for pod in ("pod-1", "pod-2"):
            await world.run(("v", pod), Job().fail(), operation="umount")
        world.start(("v", "pod-3"), Job(), operation="umount")
        await world.settle()
        assert world.attempt(VOLUME, operation="mount") == "busy"


@behaviour
async def test_P23_with_backoff_a_volume_does_not_change_the_records_of_its_pods(
    driver: Driver,
) -> None:
    async with driver.open(backoff=ON) as world:
        for pod in ("pod-1", "pod-2", "pod-3"):
            await world.run(("v", pod), Job().fail(), operation="umount")
        job = Job().fail()
        assert world.attempt(VOLUME, job, operation="mount") == "accepted"
        await world.settle()
        assert job.ended == 1
        await world.advance(0.5)
        await world.run(("v", "pod-2"), Job().succeed(), operation="umount")
        assert world.tasks.failure(("v", "pod-2"), operation="umount") is None
        assert world.tasks.failure(("v", "pod-1"), operation="umount") is not None


@behaviour
async def test_N03_a_run_on_a_whole_volume_erases_no_wait_of_a_pod(driver: Driver) -> None:
    async with driver.open(backoff=ON) as world:
        await world.run(POD, Job().fail())
        await world.run(VOLUME, Job().succeed())
        assert world.attempt(POD) == "backing off"
        failure = world.tasks.failure(POD)
        assert failure is not None
        assert failure.failures == 1


@behaviour
async def test_N04_failing_runs_with_unique_names_leave_records_that_expire(driver: Driver) -> None:
    """A start without exclusion uses a unique name, and its record expires like any other."""
    async with driver.open(backoff=ON, retention=1.0) as world:
        for number in range(20):
            await world.run(("no volume", number), Job().fail())
        await world.advance(1.5)
        for number in range(20):
            assert world.tasks.state(("no volume", number)) is State.FREE


@behaviour
async def test_N06_a_start_costs_the_same_at_any_number_of_runs(driver: Driver) -> None:
    """It counts comparisons of names and takes no time; the figures are in the benchmarks."""
    compared = 0

    class Volume:
        def __init__(self, number: int) -> None:
            self.number = number

        def __hash__(self) -> int:
            return hash(self.number)

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return isinstance(other, Volume) and other.number == self.number

    async with driver.open() as world:
        costs: list[int] = []
        for number in range(300):
            compared = 0
            world.start((Volume(number), "pod"), Job())
            assert world.attempt((Volume(number), ANY)) == "busy"
            costs.append(compared)
        assert max(costs[1:]) <= costs[1] + 3, "a few for colliding hashes"


@behaviour
async def test_the_mapping_matches_names_exactly(driver: Driver) -> None:
    async with driver.open() as world:
        world.start(POD, Job())
        assert POD in world.tasks
        assert VOLUME not in world.tasks
        assert world.tasks.state(VOLUME) is State.FREE
        assert not world.tasks.cancel(VOLUME)
        assert list(world.tasks) == [POD]


@behaviour
async def test_wait_free_of_a_volume_waits_for_all_its_pods(driver: Driver) -> None:
    async with driver.open() as world:
        jobs = [Job(), Job()]
        for number, job in enumerate(jobs):
            world.start(("v", number), job)
        waiter = world.wait_in_background("wait_free", VOLUME)
        await world.settle()
        for job in jobs:
            assert not waiter.returned
            job.succeed()
            await world.settle()
        assert waiter.returned


async def replaced(world: World) -> None:
    jobs = [Job(), Job(), Job()]
    for number, job in enumerate(jobs):
        world.start(("v", number), job)
    other, new = Job(), Job()
    world.start(("w", 0), other)
    await world.settle()
    world.start(VOLUME, new, if_busy="replace")
    await world.settle()
    assert [job.ended for job in jobs] == [0, 0, 0]
    assert list(world.tasks) == [("w", 0), VOLUME]
    assert new.begun == 1


@behaviour
async def test_a_replacement_cancels_all_overlapping_runs_and_begins_after_the_last_one(
    driver: Driver,
) -> None:
    async with driver.open() as world:
        await replaced(world)


@behaviour
async def test_join_and_queue_need_exactly_one_running_run_of_the_same_name(driver: Driver) -> None:
    async with driver.open() as world:
        world.start(POD, Job())
        await world.settle()
        assert world.attempt(VOLUME, if_busy="join") == "busy"
        assert world.attempt(VOLUME, if_busy="queue") == "busy"
        assert world.attempt(POD, if_busy="join") == "accepted"
        assert world.attempt(POD, if_busy="queue") == "accepted"


@behaviour
async def test_a_waiting_name_is_not_replaced_even_while_an_overlapping_name_runs(
    driver: Driver,
) -> None:
    async with driver.open() as world:
        await world.run(VOLUME, Job().fail())
        pod = Job()
        world.start(POD, pod)
        await world.settle()
        assert world.attempt(VOLUME, if_busy="replace") == "backing off"
        await world.settle()
        assert (pod.begun, pod.ended) == (1, 0)
        await world.advance(100)
        assert world.attempt(VOLUME, if_busy="replace") == "accepted"


@behaviour
async def test_a_name_with_a_misplaced_ANY_is_refused_at_the_call(driver: Driver) -> None:
    async with driver.open() as world:
        for name in (ANY, ("a", "b", "c", "d", ANY)):
            with pytest.raises(ValueError, match=r"^(namedtasks\.ANY is no name|a name with )"):
                world.start(name, Job())
        assert len(world.tasks) == 0
