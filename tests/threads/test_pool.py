"""The map's own threads."""

import threading
from typing import Any

from namedtasks import ThreadTaskMap
from namedtasks.testing import ManualClock
from tests.threads.helpers import Gate, HandPool


def test_the_timer_is_not_started_while_the_thread_is_inside_of_somebodys_pool() -> None:
    """To start a thread takes locks that this thread may hold: it is done a moment later."""
    pool, gate, clock = HandPool(), Gate(), ManualClock()
    with ThreadTaskMap(instruments=(), clock=clock, overdue_after=1.0) as tasks:
        future = tasks.submit("deaf", gate)
        gate.wait_begun()

        def cancel_and_run(job: Any) -> None:
            tasks.cancel("deaf")
            job.run()

        pool.on_submit = cancel_and_run
        tasks.submit("a", int, executor=pool)
        clock.advance(1.0)
        while not future.overdue:
            threading.Event().wait(0.0005)
        gate.open()


def test_a_run_with_a_timeout_keeps_the_timer_when_another_ends() -> None:
    gate = Gate()
    with ThreadTaskMap(instruments=()) as tasks:
        future = tasks.submit("slow", gate, "in time", timeout=1000)
        gate.wait_begun()
        assert tasks.submit("a", int).result() == 0
        gate.open()
        assert future.result() == "in time"


def test_a_manual_clock_tells_its_time() -> None:
    clock = ManualClock(2.5)
    assert repr(clock) == "<namedtasks.testing.ManualClock 2.5 s, 0 wait>"
