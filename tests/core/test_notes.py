"""What is told of a run: all of its facts, to whoever hears that event, and nothing to nobody."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from namedtasks import ClosedError
from namedtasks._core.dispatch import Dispatch
from namedtasks._core.notes import Notes
from namedtasks._core.records import Record
from namedtasks._core.runs import Run
from namedtasks._core.slots import Slots
from namedtasks.instruments import (
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskForgotten,
    TaskGaveUp,
    TaskOverdue,
    TaskQueued,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks.testing import RecordingInstrument

NAME = ("v", 1)
ERROR = ValueError("boom")
REFUSAL = ClosedError("b", "umount")
ABOUT: dict[str, Any] = {"name": NAME, "operation": "mount", "at": 9.0}


def complain(what: str, error: BaseException) -> None:
    raise AssertionError(what) from error


def notes_for(instruments: Iterable[Any]) -> tuple[Notes, Dispatch]:
    dispatch = Dispatch(instruments, complain)
    return Notes(dispatch), dispatch


def begun(at: float | None) -> Run:
    """A run of *NAME* that began at *at*, if it did."""
    run = Run(NAME, "mount", math.inf, Slots(None))
    run.started_at = at
    run.failures = 3
    run.reason = "enough"
    run.put_off = "queue"
    return run


Tell = Callable[[Notes, Run], None]

OF_A_RUN: list[tuple[Tell, float | None, list[TaskEvent]]] = [
    (lambda notes, run: notes.started(run, 9.0), 9.0, [TaskStarted(**ABOUT, failures=3)]),
    (lambda notes, run: notes.succeeded(run, 9.0), 7.0, [TaskSucceeded(**ABOUT, duration=2.0)]),
    (lambda notes, run: notes.succeeded(run, 9.0), None, [TaskSucceeded(**ABOUT, duration=0.0)]),
    (
        lambda notes, run: notes.overdue(run, 9.0, 8.5),
        7.0,
        [TaskOverdue(**ABOUT, duration=2.0, asked_at=8.5)],
    ),
    (
        lambda notes, run: notes.failed(run, ERROR, 9.0, 4, 0.5),
        7.0,
        [TaskFailed(**ABOUT, duration=2.0, error=ERROR, failures=4, retry_at=9.5, retry_in=0.5)],
    ),
    (
        lambda notes, run: notes.failed(run, ERROR, 9.0, 3, None),
        7.0,
        [TaskFailed(**ABOUT, duration=2.0, error=ERROR, failures=3, retry_at=None, retry_in=None)],
    ),
    (
        lambda notes, run: notes.failed(run, ERROR, 9.0, 4, math.inf),
        7.0,
        [
            TaskFailed(
                **ABOUT, duration=2.0, error=ERROR, failures=4, retry_at=math.inf, retry_in=math.inf
            ),
            TaskGaveUp(**ABOUT, failures=4, error=ERROR),
        ],
    ),
    (
        lambda notes, run: notes.cancelled(run, 9.0),
        7.0,
        [TaskCancelled(**ABOUT, duration=2.0, reason="enough")],
    ),
    (
        lambda notes, run: notes.cancelled(run, 9.0),
        None,
        [TaskCancelled(**ABOUT, duration=None, reason="enough")],
    ),
    (lambda notes, run: notes.queued(run, 9.0), None, [TaskQueued(**ABOUT, if_busy="queue")]),
    (lambda notes, run: notes.superseded(run, 9.0), None, [TaskSuperseded(**ABOUT)]),
]


@pytest.mark.parametrize(("tell", "started_at", "events"), OF_A_RUN)
def test_each_event_has_all_the_facts_and_the_run(
    tell: Tell, started_at: float | None, events: list[TaskEvent]
) -> None:
    """The run goes along, for the shell: it calls some instruments in that run's context."""
    heard = RecordingInstrument()
    notes, dispatch = notes_for([heard])
    run = begun(started_at)
    tell(notes, run)
    assert list(dispatch.take()) == [(heard, event, run) for event in events]


@pytest.mark.parametrize(("tell", "started_at", "events"), OF_A_RUN)
def test_nothing_is_made_for_nobody(
    tell: Tell, started_at: float | None, events: list[TaskEvent]
) -> None:
    notes, dispatch = notes_for([])
    tell(notes, begun(started_at))
    assert events, "to a listener there was something to tell"
    assert not dispatch.take()


def test_who_was_not_put_off_is_not_told_to_be() -> None:
    notes, dispatch = notes_for([RecordingInstrument()])
    run = begun(None)
    run.put_off = None
    notes.queued(run, 9.0)
    assert not dispatch.take()


@pytest.mark.parametrize("skipped", [True, False])
def test_a_refusal_is_about_no_run(skipped: bool) -> None:
    heard = RecordingInstrument()
    notes, dispatch = notes_for([heard])
    assert notes.hears_refusals()
    notes.refused(NAME, "mount", 9.0, REFUSAL, skipped=skipped)
    event = TaskRefused(**ABOUT, error=REFUSAL, skipped=skipped)
    assert list(dispatch.take()) == [(heard, event, None)]


def test_what_was_forgotten_is_told_record_by_record() -> None:
    heard = RecordingInstrument()
    notes, dispatch = notes_for([heard])
    one, other = Record(NAME, "mount"), Record(NAME, None)
    one.failures, other.failures = 2, 5
    notes.forgotten([one, other], 9.0)
    assert list(dispatch.take()) == [
        (heard, TaskForgotten(**ABOUT, failures=2), None),
        (heard, TaskForgotten(name=NAME, operation=None, at=9.0, failures=5), None),
    ]


def test_refusals_and_what_was_forgotten_are_not_made_for_nobody_either() -> None:
    notes, dispatch = notes_for([])
    assert not notes.hears_refusals()
    notes.refused(NAME, None, 9.0, REFUSAL, skipped=False)
    notes.forgotten([Record(NAME, None)], 9.0)
    assert not dispatch.take()
