"""Cancellation at every checkpoint while runs are pending; and who starts again from a callback."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import TaskCancelledError, TaskHandle, TaskMap
from namedtasks.abc import FailedRun
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskFailed,
    TaskQueued,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks.testing import RecordingInstrument
from tests.trio.test_cancellation import body

How = Literal["join", "replace", "queue"]
each = pytest.mark.parametrize("how", ["join", "replace", "queue"])


async def fails() -> None:
    await trio.sleep(1)
    raise ValueError("boom")


class AtEachStep(trio.abc.Instrument):
    """Does something just before a given step of one task."""

    def __init__(self, at: int, do: Callable[[], object]) -> None:
        self.at = at
        self.do = do
        self.steps = 0
        self.task: trio.lowlevel.Task | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            if self.steps == self.at:
                self.do()
            self.steps += 1


def assert_settled(
    tasks: TaskMap, heard: RecordingInstrument, handles: list[TaskHandle[Any]]
) -> None:
    """Each run has ended exactly once, and nothing is held."""
    assert all(handle.done for handle in handles)
    ends = TaskSucceeded | TaskFailed | TaskCancelled | TaskSuperseded
    ended = [event for event in heard.events if isinstance(event, ends)]
    assert len(ended) == len(set(handles))
    assert len(heard.of(TaskStarted)) <= len(ended)
    scheduler = tasks._backend.scheduler
    assert (len(tasks), len(scheduler.pending)) == (0, 0)
    assert scheduler.slots is None or scheduler.slots.used == 0
    assert (len(scheduler.timers), tasks._backend.waits.starters) == (0, {})


async def user(tasks: TaskMap, how: How, handles: list[TaskHandle[Any]]) -> None:
    """Does all that puts off, and waits for it."""
    for name in ("a", "b", "a", "a", "b"):
        handles.append(tasks.start_soon(name, body, 2, if_busy=how))
        await trio.lowlevel.checkpoint()
    await handles[-1].wait()
    handles.append(tasks.start_soon("c", fails))
    await tasks.wait_free("c")
    if how == "queue":
        handles.append(tasks.start_soon("d", fails))
        handles.append(tasks.start_soon("d", body, 2, if_busy=how))
        await handles[-1].wait()
    await tasks.wait_idle()


@each
@pytest.mark.parametrize("where", ["around the map", "around the user"])
def test_who_puts_off_may_be_cancelled_at_any_of_its_steps(where: str, how: How) -> None:
    async def main(instrument: AtEachStep) -> None:
        instrument.task = trio.lowlevel.current_task()
        heard = RecordingInstrument()
        handles: list[TaskHandle[Any]] = []
        with scope if where == "around the map" else trio.CancelScope():
            async with namedtasks.open_task_map(instruments=[heard], limit=1) as tasks:
                with trio.CancelScope() if where == "around the map" else scope:
                    await user(tasks, how, handles)
                if where == "around the user":
                    instrument.task = None
        assert_settled(tasks, heard, handles)

    step = 0
    while True:
        scope = trio.CancelScope()
        instrument = AtEachStep(step, scope.cancel)
        trio.run(main, instrument, clock=MockClock(autojump_threshold=0), instruments=[instrument])
        if instrument.steps <= step:
            break
        step += 1
    assert step >= 8, "the user has that many steps"


@each
@pytest.mark.parametrize("whole_name", [True, False])
def test_a_run_may_be_cancelled_at_any_of_its_steps_with_one_behind_it(
    how: How, whole_name: bool
) -> None:
    """The one behind it goes with its name, or begins."""

    async def main(instrument: AtEachStep, cancel: list[Callable[[], object]]) -> None:
        async def first() -> str:
            instrument.task = trio.lowlevel.current_task()
            return await body(6)

        heard = RecordingInstrument()
        async with namedtasks.open_task_map(instruments=[heard], limit=1) as tasks:
            old = tasks.start_soon("a", first)
            cancel.append((lambda: tasks.cancel("a")) if whole_name else old.cancel)
            await wait_all_tasks_blocked()
            behind = tasks.start_soon("a", body, 2, if_busy=how)
            after = tasks.start_soon("after", body, 2)
            try:
                assert await behind.wait() == "done"
            except TaskCancelledError:
                assert whole_name or how == "join"
            assert await after.wait() == "done"
        assert_settled(tasks, heard, [old, behind, after])

    step = 0
    while True:
        cancel: list[Callable[[], object]] = []
        instrument = AtEachStep(step, lambda: cancel[0]())  # noqa: B023 - called in this turn
        trio.run(
            main,
            instrument,
            cancel,
            clock=MockClock(autojump_threshold=0),
            instruments=[instrument],
        )
        if instrument.steps <= step:
            break
        step += 1
    assert step >= 2


# Callbacks that start again


@pytest.mark.parametrize("how", ["replace", "queue"])
async def test_an_instrument_may_put_off_another_start_of_what_it_hears(
    how: Literal["replace", "queue"], autojump_clock: MockClock
) -> None:
    """Of what was put off, superseded, cancelled, and has begun or ended."""

    class Again(Instrument):
        left = 40

        def again(self, name: Any) -> None:
            if self.left:
                self.left -= 1
                handles.append(tasks.start_soon(name, body, 3, if_busy=how))

        def task_started(self, event: TaskStarted, /) -> None:
            self.again(event.name)

        def task_queued(self, event: TaskQueued, /) -> None:
            self.again(event.name)

        def task_superseded(self, event: TaskSuperseded, /) -> None:
            self.again(event.name)

        def task_cancelled(self, event: TaskCancelled, /) -> None:
            self.again(event.name)

        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            self.again(event.name)

    handles: list[TaskHandle[Any]] = []
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[Again(), heard], limit=1) as tasks:
        handles.append(tasks.start_soon("a", body, 3))
        await tasks.wait_idle()
        assert len(handles) == 41
    assert_settled(tasks, heard, handles)


@pytest.mark.parametrize("event", ["task_queued", "task_superseded"])
async def test_an_instrument_that_raises_about_a_pending_run_harms_none(
    event: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: object, event: object, /) -> None:
        raise SystemExit

    kind = type("Broken", (Instrument,), {event: broken})
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[kind(), heard]) as tasks:
        handles = [tasks.start_soon("a", trio.sleep, 0)]
        handles += [tasks.start_soon("a", trio.sleep, 0, if_busy="queue") for _ in range(2)]
    assert_settled(tasks, heard, handles)
    assert "was unplugged" in caplog.text


@each
async def test_a_policy_may_put_off_a_start_of_the_name_that_it_judges(
    how: How, autojump_clock: MockClock
) -> None:
    """The name is still taken then: so what it starts comes next, after the wait if it queues."""

    class Again:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            handles.append(tasks.start_soon("a", body, 0, if_busy=how))
            return 3.0

    handles: list[TaskHandle[Any]] = []
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(backoff=Again(), instruments=[heard]) as tasks:
        handles.append(tasks.start_soon("a", fails))
        await tasks.wait_idle()
        assert trio.current_time() == (4 if how == "queue" else 1)
    assert_settled(tasks, heard, handles)
    assert (handles[1] is handles[0]) == (how == "join")


async def test_a_policy_that_gives_up_drops_what_it_has_queued_itself(
    autojump_clock: MockClock,
) -> None:
    class GivesUp:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            handles.append(tasks.start_soon("a", body, 0, if_busy="queue"))
            return float("inf")

    handles: list[TaskHandle[Any]] = []
    async with namedtasks.open_task_map(backoff=GivesUp(), instruments=[]) as tasks:
        tasks.start_soon("a", fails)
        await tasks.wait_idle()
        with pytest.raises(TaskCancelledError, match="its name gave up"):
            await handles[0].wait()
