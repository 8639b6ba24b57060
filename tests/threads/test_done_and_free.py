"""When a wait returns, the futures of the runs that it waited for are done.

A test holds the condition of a future, so that nobody can write the future's state, until
the wait has answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from namedtasks import ThreadTaskMap
from tests.threads.helpers import Gate, InThread, WatchedClock, wait_until

futures = pytest.mark.parametrize("which", ["the run's own", "joined"])


def started(tasks: ThreadTaskMap, gate: Gate, which: str) -> Any:
    """The future of a run that has begun, or one that joined it."""
    own = tasks.submit("a", gate)
    gate.wait_begun()
    return own if which == "the run's own" else tasks.submit("a", gate, if_busy="join")


def wait_idle(tasks: ThreadTaskMap) -> bool:
    return tasks.wait_idle(timeout=0)


def wait_empty(tasks: ThreadTaskMap) -> bool:
    return tasks.wait_empty(timeout=0)


def wait_free(tasks: ThreadTaskMap) -> bool:
    return tasks.wait_free("a", timeout=0)


@futures
@pytest.mark.parametrize("wait", [wait_idle, wait_empty, wait_free])
def test_a_wait_goes_on_until_the_future_is_done(
    wait: Callable[[ThreadTaskMap], bool], which: str
) -> None:
    gate = Gate()
    with ThreadTaskMap(instruments=()) as tasks:
        future = started(tasks, gate, which)
        with future._condition:
            gate.open()
            wait_until(lambda: "a" not in tasks)
            assert not wait(tasks)
            assert not future.done()
        assert future.result() is None
        assert tasks.wait_idle()


@futures
def test_shutdown_goes_on_until_the_future_is_done(which: str) -> None:
    gate, clock = Gate(), WatchedClock()
    tasks = ThreadTaskMap(instruments=(), clock=clock)
    future = started(tasks, gate, which)
    with future._condition:
        gate.open()
        wait_until(lambda: "a" not in tasks)
        shutdown = InThread(tasks.shutdown)
        wait_until(lambda: shutdown.is_done or clock.has_sleeper())
        assert not shutdown.is_done
    assert shutdown.result() == ()
    assert future.done()
