"""Errors of classes that raise when a log handler reads them."""

import logging
from typing import Any

import pytest

from namedtasks import LoggingInstrument, ThreadTaskMap


class RecursiveError(Exception):
    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class CauseError(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override] # pyright: ignore[reportIncompatibleVariableOverride]
        raise RuntimeError("no cause")


@pytest.mark.parametrize("kind", [RecursiveError, CauseError])
def test_an_error_that_cannot_be_read_is_one_line(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise the map would not call the instrument again."""

    def fail(error: Exception) -> None:
        raise error

    with ThreadTaskMap(instruments=[LoggingInstrument()]) as tasks:
        tasks.submit("a", fail, kind("x")).exception()
        tasks.submit("b", fail, OSError("y")).exception()
    first, second = sorted(caplog.records, key=logging.LogRecord.getMessage)
    assert first.getMessage().endswith(f"{kind.__qualname__}: x")
    assert first.exc_info is None
    assert second.exc_info is not None
