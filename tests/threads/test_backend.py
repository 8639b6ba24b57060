"""Rare ways through the backend: in place, in a forked child, with a clock that fails."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

from namedtasks import ClosedError, ThreadTaskMap
from namedtasks.testing import ManualClock
from tests.threads.helpers import PATIENCE, Gate, HandPool, boom


def test_a_timer_that_changes_inside_the_submit_of_a_pool() -> None:
    """It is set when that `submit` is over, as a thread may have to start for it."""
    pool = HandPool()

    def cancel_and_run(job: Any) -> None:
        assert waits.cancel()
        job.run()

    pool.on_submit = cancel_and_run
    with ThreadTaskMap(clock=ManualClock(), instruments=()) as tasks:
        tasks.submit("a", boom).exception(PATIENCE)
        waits = tasks.submit("a", int, if_busy="queue")
        tasks.submit("b", int, executor=pool).result(PATIENCE)
        assert waits.cancelled()
        assert not tasks._backend.scheduler.timers.changed


@pytest.mark.parametrize("readings", [0, 1])
def test_a_clock_that_raises_in_a_start(readings: int) -> None:
    """The error is that of the clock, and nothing is started."""

    class Broken:
        readings_left = math.inf

        def now(self) -> float:
            self.readings_left -= 1
            if self.readings_left < 0:
                raise OSError("no time")
            return 0.0

        def wait(self, wake: threading.Lock, until: float) -> None:
            raise NotImplementedError

    clock = Broken()
    with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        tasks.submit("a", boom).exception(PATIENCE)
        tasks.wait_idle(PATIENCE)
        clock.readings_left = readings
        with pytest.raises(OSError, match="no time"):
            tasks.submit("a", int, if_busy="queue")
        clock.readings_left = math.inf
        assert len(tasks) == 0
        assert tasks.forget("a")
        assert tasks.submit("a", int).result(PATIENCE) == 0


def test_in_a_forked_child_no_future_is_waited_for_and_a_block_ends_at_once() -> None:
    """As in `tests/test_fork.py`, but here the lines are seen by coverage."""
    gate = Gate()
    tasks = ThreadTaskMap(instruments=())
    with tasks:
        future = tasks.submit("a", gate)
        gate.wait_begun()
        tasks._backend.scheduler.forked = True
        with pytest.raises(ClosedError):
            future.result()
    assert not future.done()
    tasks._backend.scheduler.forked = False
    gate.open()
    assert future.result(PATIENCE) is None
    tasks.shutdown()
