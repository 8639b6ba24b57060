"""The default instrument: what it logs, and what it does not."""

from __future__ import annotations

import enum
import json
import logging
import logging.handlers
import queue
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import namedtasks
from namedtasks import Backoff, LoggingInstrument, ThreadTaskMap
from namedtasks.instruments import TaskFailed, TaskGaveUp, TaskOverdue
from namedtasks.testing import ManualClock

FIELDS = (
    "task_event",
    "task_name",
    "task_operation",
    "task_failures",
    "task_retry_in",
    "task_will_retry",
    "task_duration",
    "task_asked_ago",
    "task_error",
    "task_error_type",
)


async def boom() -> None:
    raise ValueError("boom")


def fail() -> None:
    raise OSError("device busy")


def fail_with(error: Exception) -> None:
    raise error


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The fields of the record that are not None."""
    found = {name: getattr(record, name) for name in FIELDS}
    return {name: value for name, value in found.items() if value is not None}


def has_traceback(caplog: pytest.LogCaptureFixture) -> list[bool]:
    return [record.exc_info is not None for record in caplog.records]


def failed(error: BaseException | None = None, **changes: Any) -> TaskFailed:
    fields: dict[str, Any] = {
        "name": "a",
        "operation": None,
        "at": 100.0,
        "duration": 2.0,
        "error": ValueError("boom") if error is None else error,
        "failures": 2,
        "retry_at": 101.0,
        "retry_in": 1.0,
    }
    return TaskFailed(**{**fields, **changes})


# Lines


async def test_a_failure_is_a_warning(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon(("vol", 1), boom, operation="mount")
    assert said(caplog) == [
        (
            "WARNING",
            "task ('vol', 1) (operation 'mount') failed after 0 s (failures in a row: 1; "
            "it may start again in 0.5 s): ValueError: boom",
        )
    ]
    (record,) = caplog.records
    assert record.name == "namedtasks"
    assert record.exc_info is not None
    assert record.exc_info[2] is not None


async def test_giving_up_is_an_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with namedtasks.open_task_map(backoff=Backoff(give_up_after=1)) as tasks:
        tasks.start_soon("a", boom)
    assert said(caplog) == [
        (
            "WARNING",
            "task 'a' failed after 0 s (failures in a row: 1; it gives up): ValueError: boom",
        ),
        (
            "ERROR",
            "task 'a' gave up (failures in a row: 1) and starts again only after forget(): "
            "ValueError: boom",
        ),
    ]
    assert has_traceback(caplog) == [True, False]


async def test_without_backoff_it_may_start_again_at_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with namedtasks.open_task_map(backoff=None) as tasks:
        tasks.start_soon("a", boom)
    assert said(caplog)[0][1] == (
        "task 'a' failed after 0 s (not counted; it may start again at once): ValueError: boom"
    )


async def test_a_retried_run_says_when_it_is_retried(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with namedtasks.open_task_map(backoff=Backoff(give_up_after=2)) as tasks:
        tasks.start_soon("a", boom, retry=True)
        await trio.sleep(5)
    assert [text for _, text in said(caplog)] == [
        "task 'a' failed after 0 s (failures in a row: 1; it is retried in 0.5 s): "
        "ValueError: boom",
        "task 'a' failed after 0 s (failures in a row: 2; it gives up): ValueError: boom",
        "task 'a' gave up (failures in a row: 2) and starts again only after forget(): "
        "ValueError: boom",
    ]


async def test_an_overdue_run_is_a_warning(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    async with namedtasks.open_task_map(overdue_after=2.5) as tasks:
        tasks.start_soon("a", stubborn, timeout=1)
    assert said(caplog) == [
        ("WARNING", "task 'a' was asked to stop 2.5 s ago and still runs: its name stays taken")
    ]


async def test_refusals_successes_and_cancellations_are_quiet(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "namedtasks")
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", trio.sleep, 1)
        tasks.start_soon("a", trio.sleep, 1, if_busy="skip")
        handle.cancel()
        tasks.start_soon("b", trio.sleep, 1)
    assert said(caplog) == []


class Named:
    def __repr__(self) -> str:
        return "<vol-1\nERROR>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "no such user: eve\nWARNING task 'root' failed",
            r"no such user: eve\nWARNING task 'root' failed",
        ),
        ("\x1b[2J\r\t\x00\x7f\x85", r"\x1b[2J\r\t\x00\x7f\x85"),
        ("\u2028\u202e\ud800", r"\u2028\u202e\ud800"),
        ("C:\\new é 世\xa0界", "C:\\new é 世\xa0界"),
    ],
)
def test_no_text_makes_another_line(
    text: str, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does it clear the terminal, reverse the line, or fail to be encoded."""
    instrument = LoggingInstrument()
    instrument.task_failed(failed(ValueError(text), name=Named(), operation=text))
    instrument.task_gave_up(
        TaskGaveUp(name=text, operation=None, at=1.0, failures=3, error=ValueError(text))
    )
    instrument.task_overdue(
        TaskOverdue(name=Named(), operation=text, at=5.0, duration=4.0, asked_at=3.0)
    )
    first, second, third = (record.getMessage() for record in caplog.records)
    task = rf"task <vol-1\nERROR> (operation {text!r})"
    assert first == (
        f"{task} failed after 2 s (failures in a row: 2; it may start again in 1 s): "
        f"ValueError: {shown}"
    )
    assert second == (
        f"task {text!r} gave up (failures in a row: 3) and starts again only after forget(): "
        f"ValueError: {shown}"
    )
    assert third == f"{task} was asked to stop 2 s ago and still runs: its name stays taken"
    fields = [fields_of(record) for record in caplog.records]
    named = r"<vol-1\nERROR>"
    assert [field["task_name"] for field in fields] == [named, shown, named]
    assert fields[0]["task_operation"] == shown


# Tracebacks


@pytest.mark.parametrize(
    ("traceback", "expected"),
    [("first", [True, False, False]), ("always", [True] * 3), ("never", [False] * 3)],
)
def test_the_first_failure_in_a_row_has_its_traceback(
    traceback: Any, expected: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    instruments = [LoggingInstrument(traceback=traceback)]
    with ThreadTaskMap(clock=clock, instruments=instruments) as tasks:
        for _ in range(3):
            assert tasks.submit("a", fail).exception() is not None
            clock.advance(100)
    assert has_traceback(caplog) == expected
    assert [fields_of(record)["task_failures"] for record in caplog.records] == [1, 2, 3]


def test_a_success_ends_the_row(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    with ThreadTaskMap(clock=clock) as tasks:
        for fn in (fail, fail, int, fail):
            tasks.submit("a", fn).exception()
            clock.advance(100)
    assert has_traceback(caplog) == [True, False, True]


def test_each_operation_has_a_row_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    with ThreadTaskMap(clock=clock) as tasks:
        for operation in ("attach", "detach", "attach"):
            tasks.submit("a", fail, operation=operation).exception()
            clock.advance(100)
    assert has_traceback(caplog) == [True, True, False]


def test_forgetting_begins_a_new_row(caplog: pytest.LogCaptureFixture) -> None:
    with ThreadTaskMap(clock=ManualClock()) as tasks:
        for _ in range(2):
            tasks.submit("a", fail).exception()
            tasks.forget("a")
    assert has_traceback(caplog) == [True, True]


def test_a_reset_begins_a_new_row(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()

    def fail_late() -> None:
        clock.advance(60)
        fail()

    with ThreadTaskMap(clock=clock, backoff=Backoff(reset_after=60)) as tasks:
        for fn in (fail, fail, fail_late):
            tasks.submit("a", fn).exception()
            clock.advance(100)
    assert has_traceback(caplog) == [True, False, True]


def test_a_failure_that_does_not_count_is_always_the_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a count, nothing says that the same was logged before."""
    clock = ManualClock()
    with ThreadTaskMap(clock=clock, backoff=Backoff(exempt=(ValueError,))) as tasks:
        for exempt in (False, False, True, True):
            tasks.submit("a", fail_with, ValueError() if exempt else OSError()).exception()
            clock.advance(100)
        for _ in range(2):
            tasks.submit("b", fail, backoff=None).exception()
    rows = [fields_of(record)["task_failures"] for record in caplog.records]
    assert rows == [1, 2, 2, 2, 0, 0]
    assert has_traceback(caplog) == [True, False, True, True, True, True]


def test_the_attempts_of_one_run_are_a_row(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with namedtasks.open_task_map(backoff=Backoff(give_up_after=3)) as tasks:
            tasks.start_soon("a", boom, retry=True)
            await trio.sleep(30)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert has_traceback(caplog) == [True, False, False, False]


# Fields


def test_a_failure_has_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    instrument = LoggingInstrument()
    instrument.task_failed(failed(name=("vol", 1), operation="mount", will_retry=True))
    assert fields_of(caplog.records[0]) == {
        "task_event": "failed",
        "task_name": "('vol', 1)",
        "task_operation": "mount",
        "task_failures": 2,
        "task_retry_in": 1.0,
        "task_will_retry": True,
        "task_duration": 2.0,
        "task_error": "ValueError: boom",
        "task_error_type": "ValueError",
    }


def test_a_name_given_up_has_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    error = trio.TooSlowError("it took longer than its timeout of 5 s")
    event = TaskGaveUp(name="a", operation=None, at=1.0, failures=3, error=error)
    LoggingInstrument().task_gave_up(event)
    assert fields_of(caplog.records[0]) == {
        "task_event": "gave_up",
        "task_name": "a",
        "task_failures": 3,
        "task_will_retry": False,
        "task_error": "TooSlowError: it took longer than its timeout of 5 s",
        "task_error_type": "trio.TooSlowError",
    }


def test_an_overdue_run_has_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    event = TaskOverdue(name="a", operation="mount", at=31.0, duration=31.0, asked_at=30.0)
    LoggingInstrument().task_overdue(event)
    assert fields_of(caplog.records[0]) == {
        "task_event": "overdue",
        "task_name": "a",
        "task_operation": "mount",
        "task_duration": 31.0,
        "task_asked_ago": 1.0,
    }


@pytest.mark.parametrize(("retry_in", "expected"), [(None, 0.0), (float("inf"), None), (1.5, 1.5)])
def test_the_next_try_is_a_number_that_json_knows(
    retry_in: float | None, expected: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    LoggingInstrument().task_failed(failed(retry_in=retry_in))
    (record,) = caplog.records
    fields = {name: getattr(record, name) for name in FIELDS}
    assert fields["task_retry_in"] == expected
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields


def test_a_format_string_may_name_any_field(caplog: pytest.LogCaptureFixture) -> None:
    formatter = logging.Formatter(" ".join(f"%({name})s" for name in FIELDS))
    event = TaskOverdue(name="a", operation=None, at=31.0, duration=31.0, asked_at=30.0)
    LoggingInstrument().task_overdue(event)
    assert formatter.format(caplog.records[0]) == (
        "overdue a None None None None 31.0 1.0 None None"
    )


class Volume(str, enum.Enum):  # noqa: UP042 - its str is not its value
    FIRST = "vol-1"


def test_the_fields_pass_a_queue(caplog: pytest.LogCaptureFixture) -> None:
    """A `QueueHandler` formats the record for another thread; its fields stay."""
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logger = logging.getLogger("queued")
    logger.handlers = [logging.handlers.QueueHandler(records)]
    LoggingInstrument(logger).task_failed(failed(name=Volume.FIRST))
    record = records.get_nowait()
    assert record.exc_info is None
    assert type(fields_of(record)["task_name"]) is str
    assert fields_of(record)["task_name"] == "vol-1"
    assert fields_of(record)["task_error"] == "ValueError: boom"


# Settings


async def test_a_logger_of_ones_own(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    mine = LoggingInstrument(logging.getLogger("mine"))
    async with namedtasks.open_task_map(instruments=[mine]) as tasks:
        tasks.start_soon("a", boom)
    assert [record.name for record in caplog.records] == ["mine"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("INFO", ["INFO", "ERROR", "INFO"]),
        (logging.ERROR, ["ERROR", "ERROR", "ERROR"]),
        (logging.CRITICAL, ["CRITICAL", "CRITICAL", "CRITICAL"]),
        (25, ["Level 25", "ERROR", "Level 25"]),
    ],
)
def test_a_level_of_ones_own(
    level: int | str, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Giving up is an error, or as grave as a failure if that is graver."""
    caplog.set_level(logging.DEBUG, "namedtasks")
    instrument = LoggingInstrument(level=level)
    instrument.task_failed(failed())
    instrument.task_gave_up(
        TaskGaveUp(name="a", operation=None, at=1.0, failures=3, error=ValueError("boom"))
    )
    instrument.task_overdue(
        TaskOverdue(name="a", operation=None, at=5.0, duration=4.0, asked_at=3.0)
    )
    assert [record.levelname for record in caplog.records] == expected


class Unreadable(Exception):
    def __str__(self) -> str:
        raise AssertionError("it was read")


def test_nothing_is_made_for_a_logger_that_is_off(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("off")
    logger.setLevel(logging.CRITICAL)
    instrument = LoggingInstrument(logger)
    instrument.task_failed(failed(Unreadable()))
    instrument.task_gave_up(
        TaskGaveUp(name="a", operation=None, at=1.0, failures=3, error=Unreadable())
    )
    overdue: Any = None  # would have no attributes
    instrument.task_overdue(overdue)
    assert said(caplog) == []


def test_an_error_that_cannot_be_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    LoggingInstrument().task_failed(failed(Unreadable()))
    assert caplog.records[0].getMessage().endswith("): Unreadable: <Unreadable whose str raises>")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"traceback": True}, "traceback must be 'first', 'always' or 'never', not True"),
        ({"traceback": "all"}, "traceback must be 'first', 'always' or 'never', not 'all'"),
        ({"traceback": []}, "traceback must be 'first', 'always' or 'never', not []"),
        (
            {"level": True},
            "level must be a level of logging, such as logging.WARNING or 'WARNING', not True",
        ),
        (
            {"level": 20.5},
            "level must be a level of logging, such as logging.WARNING or 'WARNING', not 20.5",
        ),
        (
            {"level": "info"},
            "level must be the name of a level, such as 'WARNING', or a number, not 'info'",
        ),
        (
            {"logger": "volumes"},
            "logger must be a logging.Logger or None, not 'volumes': "
            "pass logging.getLogger('volumes')",
        ),
        ({"logger": 3}, "logger must be a logging.Logger or None, not 3"),
    ],
)
def test_a_wrong_setting_is_refused_at_the_call(settings: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        LoggingInstrument(**settings)
    assert str(caught.value) == error


def test_the_repr_shows_what_is_not_the_default() -> None:
    assert repr(LoggingInstrument()) == "<namedtasks.LoggingInstrument logger='namedtasks'>"
    mine = LoggingInstrument(logging.getLogger("mine"), level="INFO", traceback="never")
    assert repr(mine) == (
        "<namedtasks.LoggingInstrument logger='mine' level=INFO traceback='never'>"
    )
