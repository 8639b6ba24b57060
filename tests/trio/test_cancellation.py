"""Cancellation at every checkpoint: of the body, of who waits, of the surroundings."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import State, TaskCancelledError, TaskFailedError, _base as base
from namedtasks.instruments import TaskCancelled, TaskFailed, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument

STEPS = 12


async def body(steps: int) -> str:
    """Runs through *steps* checkpoints, of all kinds."""
    for step in range(steps):
        if step % 3 == 0:
            await trio.lowlevel.checkpoint()
        elif step % 3 == 1:
            await trio.sleep(1)
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 1)
    return "done"


async def user(tasks: namedtasks.TaskMap) -> None:
    """Does all that waits."""
    handle = tasks.start_soon("a", body, 4)
    await tasks.wait_free("a")
    await tasks.wait_idle()
    await handle.wait()
    tasks.start_soon("b", body, 4)
    await tasks.wait_empty()
    await tasks.start_soon("c", body, 2, timeout=100).wait()
    await tasks.shutdown(grace=1)


class CancelAtCheckpoint(trio.abc.Instrument):
    """Cancels a scope just before the main task's given step."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps = 0
        self.task: trio.lowlevel.Task | None = None
        self.scope = trio.CancelScope()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            if self.steps == self.at:
                self.scope.cancel()
            self.steps += 1


def assert_settled(tasks: namedtasks.TaskMap, heard: RecordingInstrument) -> None:
    """Each run that started has ended exactly once, and nothing is held."""
    started = [event.name for event in heard.of(TaskStarted)]
    ended = [
        event.name
        for event in heard.events
        if isinstance(event, TaskSucceeded | TaskFailed | TaskCancelled)
    ]
    assert sorted(map(str, started)) == sorted(map(str, ended))
    assert len(tasks) == 0
    scheduler, waits = tasks._backend.scheduler, tasks._backend.waits
    assert scheduler.slots is None or scheduler.slots.used == 0
    assert waits.starters == {}
    assert len(waits.idle) == 0
    assert len(scheduler.timers) == 0


@pytest.mark.parametrize("where", ["around the map", "around the user"])
def test_the_user_may_be_cancelled_at_any_of_its_steps(where: str) -> None:
    async def main(instrument: CancelAtCheckpoint) -> None:
        instrument.task = trio.lowlevel.current_task()
        heard = RecordingInstrument()
        if where == "around the map":
            with instrument.scope:
                async with namedtasks.open_task_map(instruments=[heard]) as tasks:
                    await user(tasks)
        else:
            async with namedtasks.open_task_map(instruments=[heard]) as tasks:
                with instrument.scope:
                    await user(tasks)
                instrument.task = None
        assert_settled(tasks, heard)

    step = 0
    while True:
        instrument = CancelAtCheckpoint(step)
        trio.run(main, instrument, clock=MockClock(autojump_threshold=0), instruments=[instrument])
        if instrument.steps <= step:
            break
        step += 1
    assert step >= 8, "the user has that many steps"


@pytest.mark.parametrize("step", range(STEPS + 6))
def test_a_run_may_be_cancelled_at_any_of_its_steps(step: int) -> None:
    class CancelRun(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task.name == "a":
                if self.steps == step:
                    maps[0].cancel("a", reason="here")
                self.steps += 1

    async def main() -> None:
        heard = RecordingInstrument()
        async with namedtasks.open_task_map(instruments=[heard], limit=1) as tasks:
            maps.append(tasks)
            handle = tasks.start_soon("a", body, STEPS)
            after = tasks.start_soon("after", body, 2)
            with contextlib.suppress(TaskCancelledError):
                assert await handle.wait() == "done"
            assert handle.done
            assert await after.wait() == "done"
            assert tasks.state("a") is State.FREE
        assert_settled(tasks, heard)

    maps: list[namedtasks.TaskMap] = []
    trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[CancelRun()])


WAITS: dict[str, Callable[[namedtasks.TaskMap], Awaitable[object]]] = {
    "wait_idle": lambda tasks: tasks.wait_idle(),
    "wait_empty": lambda tasks: tasks.wait_empty(),
    "wait_free": lambda tasks: tasks.wait_free("a"),
    "shutdown": lambda tasks: tasks.shutdown(),
    "handle": lambda tasks: tasks["a"].wait(),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
async def test_one_waiter_that_leaves_takes_nobody_along(
    wait: Callable[[namedtasks.TaskMap], Awaitable[object]], autojump_clock: MockClock
) -> None:
    returned: list[float] = []

    async def stays() -> None:
        await wait(tasks)
        returned.append(trio.current_time())

    async with trio.open_nursery() as nursery, namedtasks.open_task_map() as tasks:
        tasks.start_soon("a", trio.sleep, 5)
        nursery.start_soon(stays)
        with trio.move_on_after(1) as scope:
            await wait(tasks)
        assert scope.cancelled_caught
        await tasks.wait_idle()
        await wait_all_tasks_blocked()
    assert returned == [5] or wait is WAITS["wait_free"]


async def test_cancel_and_deadline_while_shielded(autojump_clock: MockClock) -> None:
    async def body() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        await trio.sleep(5)

    async with namedtasks.open_task_map(instruments=()) as tasks:
        cancelled = tasks.start_soon("cancelled", body)
        late = tasks.start_soon("late", body, timeout=1)
        await trio.sleep(1)
        cancelled.cancel()
        with pytest.raises(TaskCancelledError):
            await cancelled.wait()
        with pytest.raises(TaskFailedError):
            await late.wait()
        assert trio.current_time() == 5


async def test_a_cancellation_between_the_admission_and_the_spawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A finalizer can call the map there."""
    apply_effects = base.apply_effects

    def cancels_first(*args: Any) -> None:
        tasks.cancel("b")
        apply_effects(*args)

    async with namedtasks.open_task_map(limit=1) as tasks:
        tasks.start_soon("a", trio.sleep, 0)
        queued = tasks.start_soon("b", trio.sleep_forever)
        monkeypatch.setattr(base, "apply_effects", cancels_first)
        await tasks.wait_idle()
        monkeypatch.undo()
    with pytest.raises(namedtasks.TaskCancelledError):
        await queued.wait()
