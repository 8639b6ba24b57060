"""When a Task is done its name is free, and when a wait returns all that it waited for is done."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest

from namedtasks import ANY, Backoff, State
from namedtasks._asyncio.backend import JoinedFuture
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, run, virtual

Futures = list[asyncio.Future[Any]]
Scenario = Callable[[TaskMap], Futures]


async def fetch() -> str:
    await asyncio.sleep(1)
    return "page"


async def boom() -> None:
    await asyncio.sleep(1)
    raise ValueError("boom")


async def cancels_itself() -> str:
    """Return a value though asyncio has a cancellation in store, which it delivers."""
    task = asyncio.current_task()
    assert task is not None
    await asyncio.sleep(1)
    task.cancel()
    return "value"


def joins(body: Callable[[], Coroutine[Any, Any, Any]]) -> Scenario:
    def scenario(tasks: TaskMap) -> Futures:
        first = tasks.create_task("page", body, if_busy="join")
        return [first, tasks.create_task("page", body, if_busy="join"), tasks["page"]]

    return scenario


def cancelled_before_its_first_step(tasks: TaskMap) -> Futures:
    futures = joins(fetch)(tasks)
    tasks.cancel("page")
    return futures


def cancelled_by_asyncio_before_its_first_step(tasks: TaskMap) -> Futures:
    futures = joins(fetch)(tasks)
    futures[-1].cancel()
    return futures


def cancelled_while_it_runs(tasks: TaskMap) -> Futures:
    futures = joins(fetch)(tasks)
    loop_now().call_later(0.5, tasks.cancel, "page")
    return futures


def cancelled_while_it_waits_for_a_slot(tasks: TaskMap) -> Futures:
    tasks.create_task("other", fetch)
    futures = joins(fetch)(tasks)
    loop_now().call_later(0.5, tasks.cancel, "page")
    return futures


def cancelled_by_asyncio_while_it_waits_for_a_slot(tasks: TaskMap) -> Futures:
    tasks.create_task("other", fetch)
    futures = joins(fetch)(tasks)
    loop_now().call_later(0.5, futures[-1].cancel)
    return futures


def superseded(tasks: TaskMap) -> Futures:
    first = tasks.create_task("page", fetch)
    queued = [tasks.create_task("page", fetch, if_busy="queue") for _ in range(3)]
    return [first, *queued]


def replaced(tasks: TaskMap) -> Futures:
    return [*joins(fetch)(tasks), tasks.create_task("page", fetch, if_busy="replace")]


def pending_and_cancelled(tasks: TaskMap) -> Futures:
    futures = [*joins(fetch)(tasks), tasks.create_task("page", fetch, if_busy="queue")]
    loop_now().call_later(0.5, tasks.cancel_all)
    return futures


def pending_and_cancelled_by_asyncio(tasks: TaskMap) -> Futures:
    queued = [tasks.create_task("page", fetch), tasks.create_task("page", fetch, if_busy="queue")]
    loop_now().call_later(0.5, queued[1].cancel)
    return cast(Futures, queued)


SCENARIOS: dict[str, Scenario] = {
    "returns": joins(fetch),
    "fails": joins(boom),
    "cancels itself": joins(cancels_itself),
    **{
        scenario.__name__.replace("_", " "): scenario
        for scenario in (
            cancelled_before_its_first_step,
            cancelled_by_asyncio_before_its_first_step,
            cancelled_while_it_runs,
            cancelled_while_it_waits_for_a_slot,
            cancelled_by_asyncio_while_it_waits_for_a_slot,
            superseded,
            replaced,
            pending_and_cancelled,
            pending_and_cancelled_by_asyncio,
        )
    },
}

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)

WAITS: dict[str, Callable[[TaskMap], Awaitable[object]]] = {
    "wait_idle": lambda tasks: tasks.wait_idle(),
    "wait_empty": lambda tasks: tasks.wait_empty(),
    "wait_free": lambda tasks: tasks.wait_free("page"),
    "shutdown": lambda tasks: tasks.shutdown(),
}

EAGER = pytest.param(
    True,
    marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12"),
    id="eager",
)


@pytest.mark.parametrize("eager", [pytest.param(False, id="plain"), EAGER])
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
@each_scenario
def test_what_a_wait_has_waited_for_is_done(
    scenario: Scenario, wait: Callable[[TaskMap], Awaitable[object]], eager: bool
) -> None:
    """The Tasks, those of pending runs among them, and the futures of those who joined."""

    async def main() -> None:
        async with open_task_map(
            limit=1, backoff=Backoff(initial=0.1), retention=1, instruments=()
        ) as tasks:
            futures = scenario(tasks)
            await wait(tasks)
            assert [future.done() for future in futures] == [True] * len(futures)

    run(main, eager=eager)


@virtual()
async def test_a_wait_for_an_overlapping_name_waits_for_the_task_too() -> None:
    """Of a run that is cancelled while it waits for a slot."""
    async with open_task_map(limit=1, instruments=()) as tasks:
        tasks.create_task("other", fetch)
        task = tasks.create_task(("page", 1), fetch)
        waits = asyncio.create_task(tasks.wait_free(("page", ANY)))
        await asyncio.sleep(0.5)
        assert not waits.done()
        tasks.cancel(("page", 1))
        assert not task.done()
        await waits
        assert task.done()


@virtual()
async def test_a_shutdown_without_patience_waits_for_the_tasks_of_runs_that_have_ended() -> None:
    async with open_task_map(limit=1, overdue_after=0, instruments=()) as tasks:
        runs = tasks.create_task("a", ignores_a_cancellation)
        in_line = tasks.create_task("b", fetch)
        await asyncio.sleep(0.5)
        assert await tasks.shutdown(grace=0) == ("a",)
        assert in_line.cancelled()
        assert not runs.done()


async def ignores_a_cancellation() -> None:
    while True:
        try:
            await asyncio.sleep(1)
            return
        except asyncio.CancelledError:
            pass


@virtual()
async def test_leaving_the_block_waits_for_the_joined_futures() -> None:
    async with open_task_map() as tasks:
        page = tasks.create_task("page", fetch, if_busy="join")
    assert page.result() == "page"


@pytest.mark.parametrize("body", [fetch, boom])
@pytest.mark.parametrize("instruments", [(), (Instrument(),), (RecordingInstrument(),)])
@virtual()
async def test_the_done_callbacks_of_tasks_are_called_before_a_wait_and_the_block_are_over(
    body: Callable[[], Coroutine[Any, Any, Any]], instruments: tuple[Instrument, ...]
) -> None:
    called: list[asyncio.Task[Any]] = []
    async with open_task_map(backoff=None, instruments=instruments) as tasks:
        first = tasks.create_task("page", body)
        first.add_done_callback(called.append)
        await tasks.wait_idle()
        assert called == [first]
        second = tasks.create_task("page", body)
        second.add_done_callback(called.append)
    assert called == [first, second]


@each_scenario
@virtual()
async def test_the_name_of_a_task_that_is_done_is_free_or_held_by_the_next_run(
    scenario: Scenario,
) -> None:
    """Looked at between all turns of the loop: also before a Task's done-callbacks are called."""
    futures: Futures = []
    wrong: list[asyncio.Future[Any]] = []

    def look() -> None:
        wrong.extend(future for future in futures if future.done() and holds_its_name(future))

    def holds_its_name(future: asyncio.Future[Any]) -> bool:
        if isinstance(future, JoinedFuture):  # of the run whose Task is the last of the three
            return tasks.get("page") is futures[2]
        return future in tasks.values()

    async with open_task_map(limit=1, backoff=None, instruments=()) as tasks:
        futures += scenario(tasks)
        loop_now().on_turn = look
        await asyncio.wait(futures)
        look()
        assert wrong == []
        assert tasks.state("page") is State.FREE


@virtual()
async def test_a_queued_run_begins_after_its_predecessors_task_is_done() -> None:
    seen: list[bool] = []

    async def looks_back() -> None:
        seen.append(first.done())

    async with open_task_map(instruments=()) as tasks:
        for body in (fetch, boom, cancels_itself):
            first = tasks.create_task("page", body)
            tasks.create_task("page", looks_back, if_busy="replace")
            await tasks.wait_idle()
            first = tasks.create_task("page", body)
            tasks.create_task("page", looks_back, if_busy="queue")
            await tasks.wait_idle()
    assert seen == [True] * 6


class Checks(Instrument):
    """Looks at the Task of each run whose end it gets."""

    def __init__(self) -> None:
        self.futures: Futures = []
        self.ends: list[type[TaskEvent]] = []
        self.not_done: list[TaskEvent] = []
        self.tasks: TaskMap | None = None

    def _look(self, event: TaskEvent) -> None:
        assert self.tasks is not None
        self.ends.append(type(event))
        done = [future for future in self.futures if future.done()]
        if len(done) < len(self.ends):
            self.not_done.append(event)

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        self._look(event)

    def task_failed(self, event: TaskFailed, /) -> None:
        self._look(event)

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        self._look(event)

    def task_superseded(self, event: TaskSuperseded, /) -> None:
        self._look(event)


@pytest.mark.parametrize("eager", [pytest.param(False, id="plain"), EAGER])
@each_scenario
def test_an_instrument_gets_the_end_of_a_run_after_its_task_is_done(
    scenario: Scenario, eager: bool
) -> None:
    checks = Checks()

    async def main() -> None:
        async with open_task_map(limit=1, backoff=None, instruments=[checks]) as tasks:
            checks.tasks = tasks
            checks.futures += scenario(tasks)
            if "other" in tasks:
                checks.futures.append(tasks["other"])
        assert checks.ends != []
        assert checks.not_done == []

    run(main, eager=eager)


@virtual()
async def test_events_are_delivered_in_order_though_one_has_to_wait_for_its_task() -> None:
    heard = RecordingInstrument()
    async with open_task_map(limit=1, instruments=[heard]) as tasks:
        tasks.create_task("runs", fetch)
        tasks.create_task("in line", fetch)
        await asyncio.sleep(0.5)
        tasks.cancel("in line")
        tasks.create_task("runs", fetch, if_busy="skip")
        assert [type(event) for event in heard.events] == [TaskStarted]
        await tasks.wait_idle()
    assert [(type(event), event.name) for event in heard.events][1:2] == [
        (TaskCancelled, "in line")
    ]


# Task factories that put a coroutine of their own around ours


@pytest.mark.parametrize("then", ["begins", "returns", "raises"])
@virtual()
async def test_a_coroutine_that_a_task_factory_has_not_begun_is_closed(then: str) -> None:
    """Nothing warns that it was never awaited, and the name is free."""

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        async def around() -> object:
            await asyncio.sleep(1)
            if then == "raises":
                raise ValueError("not today")
            return await coro if then == "begins" else None

        return asyncio.Task(around(), loop=loop, **options)

    async with open_task_map(limit=3, backoff=None, instruments=()) as tasks:
        tasks.create_task("long", asyncio.sleep, 10)
        loop_now().set_task_factory(make)
        queued = tasks.create_task("long", fetch, if_busy="queue")
        cancelled = tasks.create_task("a", fetch)
        cancelled.cancel()
        asked = tasks.create_task("b", fetch)
        in_line = tasks.create_task("c", fetch)
        await asyncio.sleep(0.5)
        tasks.cancel("b")
        tasks.cancel("c")
        await tasks.wait_idle()
        assert [one.cancelled() for one in (cancelled, asked)] == [True, True]
        assert in_line.done()
        assert queued.done()
        assert list(tasks) == []
        again = [tasks.create_task("a", fetch), tasks.create_task("a", fetch, if_busy="queue")]
        await tasks.wait_idle()
        assert [one.done() for one in again] == [True, True]
        assert (again[0].exception() is not None) is (then == "raises")
    loop_now().set_task_factory(None)


@virtual()
async def test_a_task_factory_may_run_the_coroutine_in_another_task() -> None:
    """The run ends with its own Task; the other one disturbs no later run."""

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        async def around() -> None:
            others.append(asyncio.Task(coro, loop=loop))
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        return asyncio.Task(around(), loop=loop, **options)

    others: list[asyncio.Task[Any]] = []
    async with open_task_map(instruments=()) as tasks:
        for body in (fetch, boom):
            loop_now().set_task_factory(make)
            await tasks.create_task("page", body)
            loop_now().set_task_factory(None)
            later = tasks.create_task("page", asyncio.sleep, 10)
            await asyncio.wait(others)
            assert tasks["page"] is later
            later.cancel()
            await tasks.wait_idle()
            assert others.pop().exception() is None or body is boom


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
@each_scenario
@virtual()
async def test_waits_wait_for_the_coroutine_that_a_task_factory_has_put_around_ours(
    scenario: Scenario, wait: Callable[[TaskMap], Awaitable[object]]
) -> None:
    """Also where that goes on after ours, as an ``async with`` around it does."""

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        async def around() -> object:
            try:
                return await coro
            finally:
                await asyncio.sleep(1)

        return asyncio.Task(around(), loop=loop, **options)

    checks = Checks()
    async with open_task_map(
        limit=1, backoff=Backoff(initial=0.1), retention=1, instruments=[checks]
    ) as tasks:
        loop_now().set_task_factory(make)
        checks.tasks = tasks
        futures = scenario(tasks)
        checks.futures = [*futures, *([tasks["other"]] if "other" in tasks else [])]
        loop_now().set_task_factory(None)
        await wait(tasks)
        assert [future.done() for future in futures] == [True] * len(futures)
    assert checks.not_done == []
