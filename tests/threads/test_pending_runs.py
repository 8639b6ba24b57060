"""Pending runs of a thread map, seen from inside the run that they wait for."""

import threading
from typing import Any

import pytest

import namedtasks
from tests.threads.helpers import PATIENCE, Gate


@pytest.mark.parametrize("verb", ["result", "exception"])
def test_a_run_that_waits_for_what_queues_behind_it_is_refused(verb: str) -> None:
    """It would wait for its own end."""

    def body() -> None:
        future = tasks.submit("a", lambda: "next", if_busy="queue")
        with pytest.raises(RuntimeError, match=message):
            getattr(future, verb)(timeout=10)
        futures.append(future)

    message = rf"^inside task 'a', {verb}\(\) of a run that is queued behind it would wait for the "
    futures: list[Any] = []
    with namedtasks.ThreadTaskMap() as tasks:
        tasks.submit("a", body).result(PATIENCE)
        assert futures[0].result(PATIENCE) == "next"


@pytest.mark.parametrize("name", ["a", "another"])
def test_a_run_may_wait_for_other_runs(name: str) -> None:
    """Those queued behind another one, and those that are under way."""
    gate = Gate()

    def body() -> Any:
        future = tasks.submit(name, gate, 1, if_busy="queue")
        threading.Timer(0.1, gate.open).start()
        return future.result(PATIENCE)

    with namedtasks.ThreadTaskMap() as tasks:
        tasks.submit("a", gate)
        gate.wait_begun()
        assert tasks.submit("b", body).result(PATIENCE) == 1
