"""Pending runs of a thread map, seen from inside the run that they wait for."""

from typing import Any

import pytest

import namedtasks


@pytest.mark.parametrize("verb", ["result", "exception"])
def test_a_run_that_waits_for_what_queues_behind_it_is_refused(verb: str) -> None:
    """It would wait for its own end."""

    def body() -> None:
        future = tasks.submit("a", lambda: "next", if_busy="queue")
        with pytest.raises(RuntimeError, match=message):
            getattr(future, verb)(timeout=10)
        futures.append(future)

    message = rf"^{verb}\(\) of what is queued behind it from inside task 'a' would wait for itself"
    futures: list[Any] = []
    with namedtasks.ThreadTaskMap() as tasks:
        tasks.submit("a", body).result(timeout=10)
        assert futures[0].result(timeout=10) == "next"
