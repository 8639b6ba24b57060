"""The log of errors that no caller gets."""

import logging

import pytest

from namedtasks._logging import log_error


def test_an_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("boom")
    log_error("the policy failed", error)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("namedtasks", "ERROR")
    assert record.getMessage() == "the policy failed"
    assert record.exc_info == (ValueError, error, None)


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("disk full")


def test_a_log_handler_that_raises_leaves_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("namedtasks"), "handlers", [Broken()])
    log_error("the policy failed", ValueError("boom"))
    assert capsys.readouterr().err == "ValueError: boom\n"
