"""Instruments are told when their map is opened, and when it has ended."""

from typing import Any

import pytest

from namedtasks.abc import AnyTaskMap
from namedtasks.instruments import Instrument, TaskFailed, TaskRefused, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument
from tests.conformance.behaviour import behaviour
from tests.conformance.driver import Driver, Job


class Ends(Instrument):
    """Notes the ends of its map, and nothing of its runs."""

    def __init__(self, told: list[Any] | None = None) -> None:
        self.told = [] if told is None else told
        self.maps: list[AnyTaskMap] = []

    def map_opened(self, tasks: AnyTaskMap, /) -> None:
        self.maps.append(tasks)
        self.told.append(f"opened with {tasks.statistics().running} running")

    def map_closed(self, tasks: AnyTaskMap, /) -> None:
        assert tasks is self.maps.pop()
        self.told.append(f"closed with {tasks.statistics().running} running")


class Everything(Ends):
    """Notes runs, too."""

    def task_started(self, event: TaskStarted, /) -> None:
        self.told.append(f"{event.name} started")

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        self.told.append(f"{event.name} succeeded")

    def task_failed(self, event: TaskFailed, /) -> None:
        self.told.append(f"{event.name} failed")

    def task_refused(self, event: TaskRefused, /) -> None:
        self.told.append(f"{event.name} refused: {type(event.error).__name__}")


class ClosesAtOnce(Ends):
    """Closes its map at once."""

    def map_opened(self, tasks: AnyTaskMap, /) -> None:
        super().map_opened(tasks)
        everything: Any = tasks
        everything.close()


class Refuses(Ends):
    """Refuses its map."""

    def map_opened(self, tasks: AnyTaskMap, /) -> None:
        raise ValueError("one map is enough")


OPEN, CLOSED = "opened with 0 running", "closed with 0 running"


@behaviour
async def test_an_instrument_is_told_of_its_map_before_all_events_and_after_them(
    driver: Driver,
) -> None:
    everything, ends = Everything(), Ends()
    async with driver.open(instruments=[everything, ends]) as world:
        opened: list[object] = [*everything.maps, *ends.maps]
        assert opened == [world.tasks, world.tasks]
        await world.run("a", Job().succeed())
        await world.run("b", Job().fail())
        assert ends.told == [OPEN]
    assert everything.told == [OPEN, "a started", "a succeeded", "b started", "b failed", CLOSED]
    assert ends.told == [OPEN, CLOSED]


@behaviour
async def test_an_instrument_without_methods_for_events_costs_a_run_nothing(driver: Driver) -> None:
    async with driver.open(instruments=[Ends()]) as world:
        tasks: Any = world.tasks
        assert tasks._backend.scheduler.events.listeners == {}
        assert not tasks._backend.ends_when_idle


@behaviour
async def test_a_closed_map_has_ended_when_its_last_run_has(driver: Driver) -> None:
    for told in (Ends(), Everything()):
        told.told = events = [] if type(told) is Ends else [OPEN]
        async with driver.open(instruments=[told]) as world:
            jobs = Job(), Job()
            for name, job in zip("ab", jobs, strict=True):
                world.start(name, job)
            world.start("a", jobs[0], if_busy="queue")
            await world.settle()
            world.tasks.close()
            for job in jobs:
                assert CLOSED not in events
                job.succeed()
                await world.settle()
            assert events[-1] == CLOSED
            assert world.attempt("c") == "closed"
        assert events.count(CLOSED) == 1


@behaviour
async def test_a_map_that_is_closed_while_nothing_runs_has_ended_at_once(driver: Driver) -> None:
    ends = Ends()
    async with driver.open(instruments=[ends]) as world:
        await world.run("a", Job().succeed())
        world.tasks.close()
        assert ends.told == [OPEN, CLOSED]


@behaviour
async def test_shutdown_returns_after_the_last_call(driver: Driver) -> None:
    told: list[str] = []
    async with driver.open(instruments=[Everything(told)]) as world:
        job = Job()
        world.start("a", job)
        await world.settle()
        shutdown = world.wait_in_background("shutdown")
        await world.settle()
        assert told == [OPEN, "a started"]
        job.succeed()
        await world.settle()
        assert shutdown.returned
        assert told == [OPEN, "a started", "a succeeded", CLOSED]


@behaviour
async def test_a_run_that_does_not_stop_keeps_a_map_from_its_end(driver: Driver) -> None:
    ends = Ends()
    async with driver.open(instruments=[ends]) as world:
        job = Job()
        world.start("a", job, heeds=False)
        await world.settle()
        world.tasks.cancel("a")
        world.tasks.close()
        await world.advance(100.0)
        assert ends.told == [OPEN]
        job.succeed()
        await world.settle()
        assert ends.told == [OPEN, CLOSED]


@behaviour
async def test_nothing_comes_after_the_last_call(driver: Driver) -> None:
    """So an instrument may serve the next map, and does not hear of the old one any more."""
    everything, refusals = Everything(), RecordingInstrument()
    async with driver.open(instruments=[everything, refusals]) as world:
        await world.run("b", Job().fail())
        before = list(everything.told)
        world.tasks.close()
        assert world.attempt("a") == "closed"
        world.tasks.forget("b")
    assert everything.told == [*before, CLOSED]
    assert len(refusals.of(TaskRefused)) == 1, "an instrument without a last call hears of it"


@behaviour
async def test_an_instrument_may_refuse_a_map(driver: Driver) -> None:
    """Those before it are told that it is closed, and those after it never know of it."""

    ends, refuses, after = Ends(), Refuses(), Ends()
    with pytest.raises((ValueError, ExceptionGroup)) as caught:
        async with driver.open(instruments=[ends, refuses, after]):
            raise AssertionError("it is not open")
    error: Any = caught.value
    while hasattr(error, "exceptions"):  # the groups of the driver's own nursery
        (error,) = error.exceptions
    assert repr(error) == "ValueError('one map is enough')"
    assert error.__cause__ is error.__context__ is None
    assert ends.told == [OPEN, CLOSED]
    assert refuses.told == []
    assert after.told == []


@behaviour
async def test_an_instrument_that_was_unplugged_gets_the_last_call(driver: Driver) -> None:
    class Broken(Everything):
        def task_started(self, event: TaskStarted, /) -> None:
            raise ValueError("broken")

    broken = Broken()
    async with driver.open(instruments=[broken]) as world:
        await world.run("a", Job().succeed())
    assert broken.told == [OPEN, CLOSED]


@behaviour
async def test_an_error_of_the_last_call_changes_nothing(driver: Driver) -> None:
    class Broken(Ends):
        def map_closed(self, tasks: AnyTaskMap, /) -> None:
            raise ValueError("broken")

    ends = Ends()
    async with driver.open(instruments=[Broken(), ends]) as world:
        await world.run("a", Job().succeed())
    assert ends.told == [OPEN, CLOSED]


@behaviour
async def test_one_instrument_may_have_several_maps(driver: Driver) -> None:
    ends = Ends()
    async with driver.open(instruments=[ends]) as world:
        done = world.block_in_background(lambda _: None, instruments=[ends])
        await world.settle()
        assert done.returned
        assert ends.told == [OPEN, OPEN, CLOSED]
    assert ends.told == [OPEN, OPEN, CLOSED, CLOSED]


@behaviour
async def test_an_instrument_may_close_its_map(driver: Driver) -> None:
    class Closes(Everything):
        def task_failed(self, event: TaskFailed, /) -> None:
            super().task_failed(event)
            tasks.close()

    closes = Closes()
    async with driver.open(instruments=[closes]) as world:
        tasks = world.tasks
        await world.run("a", Job().fail())
        assert closes.told == [OPEN, "a started", "a failed", CLOSED]


@behaviour
async def test_an_instrument_may_close_its_map_while_it_is_opened(driver: Driver) -> None:
    """All instruments are told of the opening, and then of the end."""

    told: list[str] = []
    async with driver.open(instruments=[Ends(told), ClosesAtOnce(told), Ends(told)]) as world:
        assert told == [*[OPEN] * 3, *[CLOSED] * 3]
        assert world.attempt("a") == "closed"
    assert len(told) == 6


@behaviour
async def test_one_instrument_may_close_a_map_and_the_next_refuse_it(driver: Driver) -> None:
    closes, ends = ClosesAtOnce(), Ends()
    with pytest.raises((ValueError, ExceptionGroup)):
        async with driver.open(instruments=[closes, Refuses(), ends]):
            raise AssertionError("it is not open")
    assert closes.told == [OPEN, CLOSED]
    assert ends.told == []
