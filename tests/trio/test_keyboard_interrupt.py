"""Ctrl-C at any step leaks no name.

A tracer counts the lines that are executed in the package and in the tasks'
bodies, and sends a real SIGINT at one of them; the test does that for each line
in turn.
"""

import gc
import os
import pathlib
import signal
import sys
from contextlib import AbstractAsyncContextManager
from types import FrameType
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

import namedtasks
from namedtasks import NamedTasksError, State, TaskFailedError
from namedtasks.testing import RecordingInstrument

STRIDE = int(os.environ.get("NAMEDTASKS_STRIDE", "1"))
"""Only one in so many lines is tried, another one on each Python. noxfile.py sets it: all lines
take a minute, and the gate tries them on the Python of .venv."""

PACKAGE = str(pathlib.Path(namedtasks.__file__).parent)


@attrs.define
class Interrupter:
    """A trace function that sends SIGINT at the given line, counted from 0."""

    at: int
    seen: int = 0
    fired: bool = False

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith((PACKAGE, __file__)):
            return None
        return self.line

    def line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line" and not is_between_block_and_exit(frame):
            self.seen += 1
            if self.seen == self.at + 1:
                self.fired = True
                signal.raise_signal(signal.SIGINT)
        return self.line


def is_between_block_and_exit(frame: FrameType) -> bool:
    """Whether it is the ``async with`` statement itself that is being executed.

    A Ctrl-C there keeps Python from calling ``__aexit__`` at all. No code of the
    map's is running then, and none can help: a nursery's block has the same hole.
    """
    code = scenario.__code__
    return frame.f_code is code and frame.f_lineno == code.co_firstlineno + 1


async def fine() -> str:
    await trio.sleep(1)
    return "fine"


async def boom() -> None:
    await trio.sleep(1)
    raise ValueError("boom")


def open_map(limit: int | None, workers: bool) -> AbstractAsyncContextManager[namedtasks.TaskMap]:
    """A map that is limited and heard, or neither."""
    # An instrument for each map: it keeps what it has heard of, errors and all.
    instruments = [] if limit is None else [RecordingInstrument()]
    return namedtasks.open_task_map(limit=limit, workers=workers, instruments=instruments)


async def scenario(maps: list[namedtasks.TaskMap], settings: dict[str, Any]) -> None:
    async with open_map(**settings) as tasks:
        maps.append(tasks)
        handle = tasks.start_soon("fine", fine)
        tasks.start_soon("boom", boom, timeout=50)
        tasks.start_soon("cancelled", trio.sleep_forever)
        tasks.start_soon("waits for a slot", trio.sleep, 1)
        tasks.start_soon("dropped", fine)
        tasks.start_soon("fine", fine, if_busy="skip")
        tasks.start_soon("cancelled", trio.sleep_forever, if_busy="replace")
        tasks.start_soon("fine", fine, if_busy="queue")
        tasks.start_soon("fine", fine, if_busy="queue")
        tasks.cancel("dropped")
        assert await handle.wait() == "fine"
        tasks.cancel("cancelled")
        await tasks.wait_free("boom")
        tasks.forget("boom")
        await tasks.wait_empty()
        await tasks.shutdown(grace=1)


def run_with_interrupt_at(step: int, settings: dict[str, Any]) -> tuple[bool, bool]:
    """Run the scenario; tell whether the step was reached, and whether it was interrupted."""
    maps: list[namedtasks.TaskMap] = []
    interrupter = Interrupter(step)
    interrupted = False
    before = sys.gettrace()
    sys.settrace(interrupter)
    try:
        trio.run(scenario, maps, settings, clock=MockClock(autojump_threshold=0))
    except KeyboardInterrupt:
        interrupted = True
    except BaseExceptionGroup as group:  # with what the block made of its task's end
        kinds = {type(error) for error in group.exceptions}
        assert kinds == {KeyboardInterrupt, TaskFailedError}
        interrupted = True
    finally:
        sys.settrace(before)
    for tasks in maps:
        assert_nothing_leaked(tasks)
    return interrupter.fired, interrupted


def assert_nothing_leaked(tasks: namedtasks.TaskMap) -> None:
    scheduler = tasks._backend.scheduler
    assert len(tasks) == 0
    if scheduler.slots is not None:
        assert scheduler.slots.used == 0
        assert scheduler.slots.queued == 0
    assert len(scheduler.timers) == 0
    assert len(scheduler.pending) == 0
    for name in ("fine", "cancelled", "dropped", "waits for a slot"):
        assert tasks.state(name) is State.FREE
    assert isinstance(tasks.check("new"), NamedTasksError), "the map is closed"


@pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited:RuntimeWarning")
# A Ctrl-C inside of a coroutine that the interpreter finalizes is swallowed by the interpreter.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("plain", "workers"), [(True, True), (True, False), (False, True)])
def test_ctrl_c_at_any_step_leaks_no_name(plain: bool, workers: bool) -> None:
    settings: dict[str, Any] = {"workers": workers, "limit": None if plain else 3}
    step, interruptions = sys.version_info[1] % STRIDE, 0
    while True:
        reached, interrupted = run_with_interrupt_at(step, settings)
        if not reached:
            break
        interruptions += interrupted
        step += STRIDE
    gc.collect()  # what an interrupted call never awaited warns now, and not in another test
    assert step > 300, "the scenario has that many lines"
    assert interruptions > 100 / STRIDE
