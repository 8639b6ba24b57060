"""The log of errors that no caller gets."""

import logging
from typing import Any

import pytest

import namedtasks
from namedtasks import _logging
from namedtasks._logging import log_error
from namedtasks.instruments import Instrument, TaskSucceeded
from namedtasks.testing import ManualClock


def test_an_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("boom")
    log_error("the policy failed", error)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("namedtasks", "ERROR")
    assert record.getMessage() == "the policy failed"
    assert record.exc_info == (ValueError, error, None)


def test_an_error_of_our_own_code_is_logged_with_its_frames(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It would be lost otherwise: nobody else gets it."""
    namespace: dict[str, Any] = {}
    exec(compile("def fail():\n    {}['vol-1']", _logging.__file__, "exec"), namespace)
    with pytest.raises(KeyError) as caught:
        namespace["fail"]()
    error = caught.value
    assert error.__traceback__ is not None
    error = error.with_traceback(error.__traceback__.tb_next)
    log_error("the policy failed", error)
    (record,) = caplog.records
    assert record.exc_info == (KeyError, error, error.__traceback__)


def test_it_has_the_fields_of_all_records(caplog: pytest.LogCaptureFixture) -> None:
    """So a format string that names one is no error for this record."""
    log_error("the policy failed", ValueError("boom\nERROR"))
    log_error("the policy failed", KeyError())
    fields = [
        {key: value for key, value in vars(record).items() if key.startswith("task_")}
        for record in caplog.records
    ]
    others = {
        "task_event": "error",
        "task_name": None,
        "task_operation": None,
        "task_failures": None,
        "task_retry_in": None,
        "task_will_retry": None,
        "task_duration": None,
        "task_asked_ago": None,
    }
    assert fields == [
        {**others, "task_error": r"ValueError: boom\nERROR", "task_error_type": "ValueError"},
        {**others, "task_error": "KeyError", "task_error_type": "KeyError"},
    ]


def test_it_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    log_error("instrument <Pager\nERROR> raised", ValueError("boom"))
    assert caplog.records[0].getMessage() == r"instrument <Pager\nERROR> raised"


class NotesRaise(Exception):
    def __getattr__(self, name: str) -> object:
        raise LookupError(name)


def test_an_error_that_cannot_be_read_is_logged_with_its_class(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else it would be lost: the fallback could not print it either."""
    log_error("the policy failed", NotesRaise("boom"))
    (record,) = caplog.records
    assert record.getMessage() == f"the policy failed ({__name__}.NotesRaise)"
    assert record.exc_info is None
    assert vars(record)["task_error"] == "NotesRaise: boom"


class Unreadable(Exception):
    def __init__(self, why: BaseException) -> None:
        super().__init__()
        self.why = why

    def __str__(self) -> str:
        raise self.why


def test_an_error_that_cannot_be_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    log_error("the policy failed", Unreadable(SystemExit()))
    fields: Any = caplog.records[0]
    assert fields.task_error == "Unreadable: <Unreadable whose str raises>"
    with pytest.raises(KeyboardInterrupt):
        log_error("the policy failed", Unreadable(KeyboardInterrupt()))


def test_nothing_is_made_while_the_logger_is_off(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("namedtasks"), "disabled", True)
    log_error("the policy failed", Unreadable(KeyboardInterrupt()))
    assert caplog.records == []


class Pager(Instrument):
    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        raise OSError("no network")

    def __repr__(self) -> str:
        return "<Pager>"


def test_the_traceback_begins_in_the_code_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    with namedtasks.ThreadTaskMap(clock=ManualClock(), instruments=[Pager()]) as tasks:
        tasks.submit("a", int)
    (record,) = caplog.records
    text = logging.Formatter("%(message)s").format(record)
    line = Pager.task_succeeded.__code__.co_firstlineno + 1
    assert text == (
        "instrument <Pager> raised in task_succeeded() and was unplugged\n"
        "Traceback (most recent call last):\n"
        f'  File "{__file__}", line {line}, in task_succeeded\n'
        '    raise OSError("no network")\n'
        "OSError: no network"
    )


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("disk full")


def test_a_log_handler_that_raises_leaves_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("namedtasks"), "handlers", [Broken()])
    log_error("the policy failed", ValueError("boom"))
    assert capsys.readouterr().err == "ValueError: boom\n"
