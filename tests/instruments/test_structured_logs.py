"""The fields of the log in JSON and in structlog, and what a page says of both.

A test of what another package does tells when the page is out of date.
"""

from __future__ import annotations

import io
import json
import logging
import logging.handlers
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from pythonjsonlogger.json import JsonFormatter
from rich.console import Console
from rich.logging import RichHandler
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level

from namedtasks import Backoff, LoggingInstrument, ThreadTaskMap
from namedtasks.testing import ManualClock

FIELDS = {
    "task_event": "failed",
    "task_name": "('vol', 1)",
    "task_operation": "mount",
    "task_failures": 1,
    "task_retry_in": 0.5,
    "task_will_retry": False,
    "task_duration": 0.0,
    "task_asked_ago": None,
    "task_error": "OSError: device busy",
    "task_error_type": "OSError",
}
MESSAGE = (
    "task ('vol', 1) (operation 'mount') failed after 0 s (failures in a row: 1; it may start "
    "again in 0.5 s): OSError: device busy"
)


def mount() -> None:
    password = "secret"
    raise OSError("device busy" if password else "")


def fail(logger: logging.Logger, name: Any = ("vol", 1), **settings: Any) -> None:
    """Log one failure."""
    instruments = [LoggingInstrument(logger, **settings)]
    with ThreadTaskMap(clock=ManualClock(), instruments=instruments) as tasks:
        tasks.submit(name, mount, operation="mount").exception()


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("namedtasks.structured")
    logger.propagate = False
    yield logger
    logger.handlers = []


@pytest.fixture
def log_with(logger: logging.Logger) -> Callable[[logging.Formatter], io.StringIO]:
    """Return a function that sends the records to a text."""

    def log_with(formatter: logging.Formatter) -> io.StringIO:
        stream = io.StringIO()
        logger.handlers = [logging.StreamHandler(stream)]
        logger.handlers[0].setFormatter(formatter)
        return stream

    return log_with


Lines = Callable[[logging.Formatter], io.StringIO]


def structured(*processors: Any) -> ProcessorFormatter:
    return ProcessorFormatter(
        foreign_pre_chain=[add_log_level, ExtraAdder()],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            *processors,
            structlog.processors.JSONRenderer(),
        ],
    )


def test_a_line_of_json_has_all_fields(logger: logging.Logger, log_with: Lines) -> None:
    lines = log_with(JsonFormatter(["message"]))
    fail(logger, traceback="never")
    assert json.loads(lines.getvalue()) == {"message": MESSAGE, **FIELDS}


def test_so_has_a_line_of_structlog(logger: logging.Logger, log_with: Lines) -> None:
    """No field takes the place of the message or of the level."""
    lines = log_with(structured())
    fail(logger, traceback="never")
    assert json.loads(lines.getvalue()) == {"event": MESSAGE, "level": "warning", **FIELDS}


def test_a_name_given_up_has_no_infinite_number(logger: logging.Logger, log_with: Lines) -> None:
    lines = log_with(JsonFormatter(["message"], json_indent=None))
    policy = Backoff(give_up_after=1)
    with ThreadTaskMap(backoff=policy, instruments=[LoggingInstrument(logger)]) as tasks:
        tasks.submit("a", mount).exception()
    for line in lines.getvalue().splitlines():
        assert "Infinity" not in line
        assert json.loads(line)["task_retry_in"] is None


def test_the_traceback_is_one_string_of_json(logger: logging.Logger, log_with: Lines) -> None:
    lines = log_with(JsonFormatter(["message"]))
    fail(logger)
    (line,) = lines.getvalue().splitlines()
    assert json.loads(line)["exc_info"].splitlines()[-1] == "OSError: device busy"


def test_structlog_shows_local_variables_unless_told_not_to(
    logger: logging.Logger, log_with: Lines
) -> None:
    quiet = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    for renderer, shows in [
        (structlog.processors.dict_tracebacks, True),
        (structlog.processors.ExceptionRenderer(quiet), False),
    ]:
        lines = log_with(structured(renderer))
        fail(logger)
        assert ("secret" in lines.getvalue()) is shows


def test_extras_without_a_prefix_replace_what_structlog_has(
    logger: logging.Logger, log_with: Lines
) -> None:
    """As the page says of a program's own extras."""
    lines = log_with(structured())
    logger.warning("the message", extra={"event": "other", "level": "another"})
    assert json.loads(lines.getvalue()) == {"event": "other", "level": "another"}


class QueueAsItIs(logging.handlers.QueueHandler):
    """As on the page."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


def queued(logger: logging.Logger, handler: type[logging.handlers.QueueHandler]) -> Any:
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logger.handlers = [handler(records)]
    fail(logger)
    return records.get_nowait()


def test_a_queue_handler_puts_the_traceback_into_the_message(logger: logging.Logger) -> None:
    record = queued(logger, logging.handlers.QueueHandler)
    line = json.loads(structured().format(record))
    assert record.exc_info is None
    assert line["message"] == line["event"] == record.msg
    assert record.msg.splitlines()[1] == "Traceback (most recent call last):"
    assert line["task_name"] == "('vol', 1)"


def test_a_queue_may_carry_the_record_as_it_is(logger: logging.Logger) -> None:
    record = queued(logger, QueueAsItIs)
    assert record.exc_info[0] is OSError
    line = json.loads(structured(structlog.processors.format_exc_info).format(record))
    assert line["event"] == MESSAGE
    assert line["exception"].splitlines()[-1] == "OSError: device busy"
    assert "message" not in line


def test_json_knows_no_tuples_as_keys(logger: logging.Logger, log_with: Lines) -> None:
    """A handler prints that error, and the record is lost."""
    log_with(JsonFormatter(["message"]))
    record = logging.LogRecord("a", logging.INFO, __file__, 1, "text", (), None)
    record.__dict__["sizes"] = {("vol", 1): 3}
    with pytest.raises(TypeError):
        logger.handlers[0].format(record)


@pytest.mark.parametrize(
    ("name", "markup", "shown"),
    [("[vol-1]", False, "task '[vol-1]' "), ("[vol-1]", True, "task '' "), ("[/]", True, "")],
)
def test_markup_of_rich_takes_names_for_tags(
    name: str, markup: bool, shown: str, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """It raises for some, and then the map unplugs the instrument."""
    out = io.StringIO()
    logger.handlers = [RichHandler(console=Console(file=out, width=300), markup=markup)]
    fail(logger, name, traceback="never")
    assert shown in out.getvalue()
    assert ("unplugged" in caplog.text) is (name == "[/]")
