"""What a run says of itself, to its body and to who waits for it."""

import math
from typing import Any

import attrs
import pytest

from namedtasks import TaskCancelledError
from namedtasks._core.runs import LiveRun, Run
from namedtasks._core.slots import Slots

SLOTS: Slots[Run] = Slots(None)


@attrs.define
class Shell:
    """A map of which a run knows the clock."""

    time: float = 0.0

    def now(self) -> float:
        return self.time


def live(name: Any = "a", *, timeout: float = math.inf) -> LiveRun[Any]:
    run: LiveRun[Any] = LiveRun(name, "mount", timeout, SLOTS, Shell())
    run.deadline = timeout
    return run


def test_a_new_run_has_nothing_yet() -> None:
    run = Run("a", "mount", 3.0, SLOTS)
    assert (run.name, run.operation, run.timeout, run.slots) == ("a", "mount", 3.0, SLOTS)
    assert (run.failures, run.deadline) == (0, math.inf)
    flags = run.has_slot, run.overdue, run.done, run.is_pending, run.returned
    assert flags == (False, False, False, False, False)
    for what in (
        *("record", "started_at", "stop_asked_at", "reason", "put_off", "blocker", "awaited_by"),
        *("supersedes", "value", "error", "handle", "waiters", "body", "context", "worker"),
    ):
        assert getattr(run, what) is None, what


def test_who_waits_for_a_cancelled_run_is_told_which_and_why() -> None:
    run = Run("a", "mount", math.inf, SLOTS)
    run.reason = "not needed"
    error = run.cancelled_error()
    assert error.args == ("a", "mount", "not needed")
    assert run.cancelled_error() is not error, "each waiter's traceback is its own"


def test_a_run_should_stop_from_exactly_its_deadline_on() -> None:
    run = live(timeout=2.0)
    run.shell.time = math.nextafter(2.0, 0)
    assert not run.is_asked_to_stop()
    run.check_cancelled()
    run.shell.time = 2.0
    assert run.is_asked_to_stop()
    with pytest.raises(TaskCancelledError):
        run.check_cancelled()


def test_a_run_without_a_timeout_never_looks_at_the_clock() -> None:
    class Timeless:
        def now(self) -> float:
            raise AssertionError("nobody asked")

    run = live()
    run.shell = Timeless()
    assert run.is_asked_to_stop() is False
    run.stop_asked_at = 0.0
    assert run.is_asked_to_stop() is True


def test_only_its_own_error_of_a_body_that_should_stop_heeds_a_cancellation() -> None:
    name = ("v", 1)
    run = live(name)
    own = run.cancelled_error()
    assert not run.heeded(own), "nobody asked it to stop: it is a failure then"
    run.stop_asked_at = 0.0
    assert run.heeded(own)
    assert not run.heeded(None)
    assert not run.heeded(ValueError("boom"))
    assert not run.heeded(TaskCancelledError("b", "mount")), "what another task's waiter is told"


def test_a_run_shows_its_name_and_whether_it_ended() -> None:
    run = live("a")
    assert repr(run) == "'a' running"
    run.done = True
    assert repr(run) == "'a' done"
