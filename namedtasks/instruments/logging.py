"""The default instrument of every map: it logs failures and overdue runs."""

from __future__ import annotations

import logging
import math
from typing import final

from namedtasks._events import Instrument, TaskFailed, TaskGaveUp, TaskOverdue
from namedtasks._validation import error_text, seconds_text, task_text
from namedtasks._version import publish


@final
class LoggingInstrument(Instrument):
    """An instrument that logs failures, names given up and overdue runs.

    A failure is a warning, with its traceback; giving up is an error; an
    overdue run is a warning. Refusals are not logged: they are no errors, and a
    reconcile loop causes thousands. A slow log handler delays the map: see
    `logging.handlers.QueueHandler`.

    Args:
        logger: The logger; None for the one called ``namedtasks``.

    Example:
        >>> import logging
        >>> import textwrap
        >>> from namedtasks.testing import ManualClock
        >>> class Printing(logging.Handler):
        ...     def emit(self, record):
        ...         print(f"{record.levelname}:", textwrap.fill(record.getMessage()))
        >>> logger = logging.getLogger("volumes")
        >>> logger.handlers = [Printing()]
        >>> def attach():
        ...     raise OSError("device busy")
        >>> instruments = [LoggingInstrument(logger)]
        >>> with ThreadTaskMap(clock=ManualClock(), instruments=instruments) as tasks:
        ...     _ = tasks.submit("pvc-1", attach)
        WARNING: task 'pvc-1' failed after 0 s (failures in a row: 1; it may start
        again in 0.5 s): OSError: device busy

    .. versionadded:: 0.1
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        """Log to *logger*, by default the one called ``namedtasks``."""
        self._logger = logging.getLogger("namedtasks") if logger is None else logger

    def task_failed(self, event: TaskFailed, /) -> None:
        """Log a failure, and the time until its name may start again."""
        self._logger.warning(
            "%s failed after %s (%s): %s",
            task_text(event.name, event.operation),
            seconds_text(event.duration),
            _what_next(event.failures, event.retry_in),
            error_text(event.error),
            exc_info=event.error,
        )

    def task_gave_up(self, event: TaskGaveUp, /) -> None:
        """Log that a name starts again only after it was forgotten."""
        self._logger.error(
            "%s gave up (failures in a row: %d) and starts again only after forget(): %s",
            task_text(event.name, event.operation),
            event.failures,
            error_text(event.error),
        )

    def task_overdue(self, event: TaskOverdue, /) -> None:
        """Log that a run still runs although it was asked to stop."""
        self._logger.warning(
            "%s was asked to stop %s ago and still runs: its name stays taken",
            task_text(event.name, event.operation),
            seconds_text(event.at - event.asked_at),
        )

    def __repr__(self) -> str:
        return f"<namedtasks.LoggingInstrument logger={self._logger.name!r}>"


def _what_next(failures: int, retry_in: float | None) -> str:
    if retry_in is None:
        return "not counted; it may start again at once"
    if retry_in == math.inf:
        return f"failures in a row: {failures}; it gives up"
    return f"failures in a row: {failures}; it may start again in {seconds_text(retry_in)}"


publish(LoggingInstrument)
