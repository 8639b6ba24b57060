"""The default instrument of every map: it logs failures and overdue runs."""

from __future__ import annotations

import logging
import math
from typing import Any, Literal, final

from namedtasks._events import Instrument, TaskFailed, TaskGaveUp, TaskOverdue
from namedtasks._logging import exc_info_of, has_details, one_line, record_fields, type_name
from namedtasks._validation import error_text, name_text, safe_repr, seconds_text, task_text
from namedtasks._version import publish


@final
class LoggingInstrument(Instrument):
    """An instrument that logs failures, names given up and overdue runs.

    Each failure is one line: the name, the failures in a row, when the name may start again, and
    the error. The first failure in a row also has its traceback. Giving up is one more line, at
    the level ERROR. Successes, cancellations and refusals are not logged: a reconcile loop causes
    thousands of refusals, and they are no errors.

    Characters that could end a line are escaped in messages and fields. Tracebacks leave out the
    frames of namedtasks, and those of the threads and pools that called the function. The error
    itself, in the handle, future or Task, keeps them.

    A slow log handler delays the map: see `logging.handlers.QueueHandler`.

    Each record has these fields as attributes, for a format string or a JSON formatter. They are
    strings, numbers and bools, or None where they do not apply. The records of errors of other
    code, such as an instrument that raises, have them, too.

    ===================  ===========================================================
    ``task_event``       ``"failed"``, ``"gave_up"`` or ``"overdue"``; ``"error"``
                         for an error of other code, such as an instrument
    ``task_name``        the name, if it is a str; else its repr
    ``task_operation``   the operation
    ``task_failures``    the number of failures in a row
    ``task_retry_in``    seconds until the name may start again: 0 if at once, None
                         if it gave up
    ``task_will_retry``  True if the map itself starts another attempt then
    ``task_duration``    seconds since the body began
    ``task_asked_ago``   seconds since an overdue run was asked to stop
    ``task_error``       the error, for example ``OSError: device busy``
    ``task_error_type``  the error's class, for example ``OSError`` or ``zlib.error``
    ===================  ===========================================================

    Args:
        logger: The logger; None for the one called ``namedtasks``.
        level: The level of failures and overdue runs: a number or a name, such as ``"INFO"``.
            The level of names given up is ERROR, or this one if it is higher.
        traceback: ``"first"`` logs the traceback of the first failure in a row, and of each
            failure that does not count (``backoff=None``, or an exempt error); ``"always"`` logs
            all tracebacks, and ``"never"`` none. An error without a traceback to show, such as
            the map's own timeout, is one line in any case.

    Raises:
        TypeError: *logger* is no logger, or *level* is neither a number nor a name.
        ValueError: *level* is no name of a level, or *traceback* is none of the three.

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

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        level: int | str = logging.WARNING,
        traceback: Literal["first", "always", "never"] = "first",
    ) -> None:
        """Log to *logger*, by default the one called ``namedtasks``."""
        logger = logging.getLogger("namedtasks") if logger is None else logger
        self._logger: logging.Logger = _checked_logger(logger)
        self._level = _checked_level(level)
        if traceback not in ("first", "always", "never"):
            raise ValueError(
                f"traceback must be 'first', 'always' or 'never', not {safe_repr(traceback)}"
            )
        self._traceback = traceback

    def task_failed(self, event: TaskFailed, /) -> None:
        """Log a failure, and the time until its name may start again."""
        if not self._logger.isEnabledFor(self._level):
            return
        error, retry_in = one_line(error_text(event.error)), event.retry_in
        fields = record_fields(
            "failed",
            name=name_text(event.name),
            operation=event.operation,
            failures=event.failures,
            retry_in=0.0 if retry_in is None else None if retry_in == math.inf else retry_in,
            will_retry=event.will_retry,
            duration=event.duration,
            error=error,
            error_type=type_name(event.error),
        )
        self._logger.log(
            self._level,
            "%s failed after %s (%s): %s",
            one_line(task_text(event.name, event.operation)),
            seconds_text(event.duration),
            _what_next(event),
            error,
            exc_info=self._exc_info(event),
            extra=fields,
        )

    def task_gave_up(self, event: TaskGaveUp, /) -> None:
        """Log that a name starts again only after it was forgotten."""
        level = max(logging.ERROR, self._level)
        if not self._logger.isEnabledFor(level):
            return
        error = one_line(error_text(event.error))
        fields = record_fields(
            "gave_up",
            name=name_text(event.name),
            operation=event.operation,
            failures=event.failures,
            will_retry=False,
            error=error,
            error_type=type_name(event.error),
        )
        self._logger.log(
            level,
            "%s gave up (failures in a row: %d) and starts again only after forget(): %s",
            one_line(task_text(event.name, event.operation)),
            event.failures,
            error,
            extra=fields,
        )

    def task_overdue(self, event: TaskOverdue, /) -> None:
        """Log that a run still runs although it was asked to stop."""
        if not self._logger.isEnabledFor(self._level):
            return
        asked_ago = event.at - event.asked_at
        fields = record_fields(
            "overdue",
            name=name_text(event.name),
            operation=event.operation,
            duration=event.duration,
            asked_ago=asked_ago,
        )
        self._logger.log(
            self._level,
            "%s was asked to stop %s ago and still runs: its name stays taken",
            one_line(task_text(event.name, event.operation)),
            seconds_text(asked_ago),
            extra=fields,
        )

    def _exc_info(self, event: TaskFailed) -> Any:
        """Return the ``exc_info`` of the record of a failure; None if it is one line."""
        is_first = event.failures <= 1 or event.retry_in is None  # None: it does not count
        if self._traceback == "never" or (self._traceback == "first" and not is_first):
            return None
        try:
            exc_info = exc_info_of(event.error)
            return exc_info if has_details(exc_info) else None
        except Exception:  # the error's class has a __getattr__ or a __cause__ that raises
            return None

    def __repr__(self) -> str:
        text = f"logger={self._logger.name!r}"
        if self._level != logging.WARNING:
            text += f" level={logging.getLevelName(self._level)}"
        if self._traceback != "first":
            text += f" traceback={self._traceback!r}"
        return f"<namedtasks.LoggingInstrument {text}>"


def _checked_logger(logger: object) -> Any:
    if hasattr(logger, "isEnabledFor"):
        return logger
    cure = f": pass logging.getLogger({logger!r})" if isinstance(logger, str) else ""
    raise TypeError(f"logger must be a logging.Logger or None, not {safe_repr(logger)}{cure}")


def _checked_level(level: object) -> int:
    if isinstance(level, str):
        known = logging.getLevelNamesMapping()
        if level not in known:
            raise ValueError(
                "level must be the name of a level, such as 'WARNING', or a number, "
                f"not {safe_repr(level)}"
            )
        return known[level]
    if isinstance(level, bool) or not isinstance(level, int):
        raise TypeError(
            "level must be a level of logging, such as logging.WARNING or 'WARNING', "
            f"not {safe_repr(level)}"
        )
    return level


def _what_next(event: TaskFailed) -> str:
    if event.retry_in is None:
        return "not counted; it may start again at once"
    if event.retry_in == math.inf:
        return f"failures in a row: {event.failures}; it gives up"
    what = "it is retried" if event.will_retry else "it may start again"
    return f"failures in a row: {event.failures}; {what} in {seconds_text(event.retry_in)}"


publish(LoggingInstrument)
