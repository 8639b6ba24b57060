"""The logger ``namedtasks``, for errors that no caller gets, and the form of log records.

A record is one line, but for its traceback: `one_line` escapes what could begin another one. It
carries the `record_fields`. Its traceback, from `exc_info_of`, has no frames of this package.
"""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Iterator
from itertools import groupby
from types import TracebackType
from typing import TypeAlias, cast

logger = logging.getLogger("namedtasks")


def log_error(what: str, error: BaseException) -> None:
    """Log *error*, which code outside this package raised, with its traceback.

    If a log handler raises, the traceback goes to standard error; of an error that cannot be
    read, such as one with a ``__cause__`` that raises, only the class is logged.
    """
    if not logger.isEnabledFor(logging.ERROR):
        return
    try:
        fields = record_fields("error", error=_error_text(error), error_type=type_name(error))
        exc_info = _readable_exc_info(error)
        if exc_info is None:
            what = f"{what} ({type_name(error)})"
        logger.error("%s", one_line(what), exc_info=exc_info, extra=fields)
    except Exception:
        with contextlib.suppress(Exception):
            traceback.print_exception(error)


def _readable_exc_info(error: BaseException) -> ExcInfo | None:
    try:
        exc_info = exc_info_of(error)
        has_details(exc_info)  # raises if a formatter would
    except Exception:
        return None
    # Without a frame it comes from our own code: a bug, perhaps.
    return exc_info if exc_info[2] is not None else (type(error), error, error.__traceback__)


# Lines and fields

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters, with the ends of lines and the escape of terminals
    "\u2028\u2029"  # ends of lines to `str.splitlines`
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that reverse the order of what follows
    "\ud800-\udfff]"  # surrogates, which no handler can encode
)


def one_line(text: str) -> str:
    r"""Return *text* with all that could end its line, or hide in it, as an escape: ``\n``."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


_FIELDS: dict[str, object] = {
    "task_event": None,
    "task_name": None,
    "task_operation": None,
    "task_failures": None,
    "task_retry_in": None,
    "task_will_retry": None,
    "task_duration": None,
    "task_asked_ago": None,
    "task_error": None,
    "task_error_type": None,
}
"""The fields of every record. `LoggingInstrument` documents them."""


def record_fields(event: str, **known: float | str | None) -> dict[str, object]:
    """Return the fields of a record, for ``extra=``: those that are *known*, and None for others.

    All records have all fields, so that a format string may name any of them. Their values are
    plain, so that each formatter and each queue takes them.
    """
    fields = {**_FIELDS, "task_event": event}
    for key, value in known.items():
        fields[f"task_{key}"] = one_line(value) if isinstance(value, str) else value
    return fields


def type_name(error: BaseException) -> str:
    """Return the name of the error's class as a traceback has it, for example ``zlib.error``."""
    kind = type(error)
    is_short = kind.__module__ in ("builtins", "__main__")
    return kind.__qualname__ if is_short else f"{kind.__module__}.{kind.__qualname__}"


def _error_text(error: BaseException) -> str:
    # As `error_text`, which is in a module above this one.
    kind = type(error)
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        text = f"<{kind.__name__} whose str raises>"
    return f"{kind.__qualname__}: {text}" if text else kind.__qualname__


# Tracebacks

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]

_PACKAGE = log_error.__code__.co_filename.removesuffix("_logging.py")
"""The beginning of the file names of our code."""

_RELAYS = (
    "concurrent.futures._base",
    "concurrent.futures.thread",
    "outcome._impl",
    "trio._threads",
)
"""The modules through which our code calls functions elsewhere, and gets their errors."""

_CANCELLATIONS = ("CancelledError", "TaskCancelledError")


def exc_info_of(error: BaseException) -> ExcInfo:
    """Return *error* for the ``exc_info`` of a log record, its traceback without our frames.

    Left out are the frames of this package, wherever they are, and those of the modules beside
    them that carry calls to other threads: a reader of logs looks for a mistake in the code of the
    program. The error in the handle, future or Task keeps all frames.

    The error itself is left as it is. Those that are logged with it, its causes, contexts and the
    members of groups, lose our frames from their tracebacks: a formatter looks there.
    """
    for one in _logged_with(error):
        clean = _without_our_frames(one)
        if clean is not one.__traceback__:
            # The error's class may override with_traceback().
            BaseException.with_traceback(one, clean)
    return type(error), error, _without_our_frames(error)


def has_details(exc_info: ExcInfo) -> bool:
    """Return whether a formatter shows more of *exc_info* than a line with the error.

    A cancellation that no function of the user's has seen says nothing about a timeout.
    """
    _, error, clean = exc_info
    notes = getattr(error, "__notes__", None)  # first: if this raises, a formatter would, too
    if clean is not None or isinstance(error, (BaseExceptionGroup, SyntaxError)):
        return True
    return bool(notes) or any(
        one.__traceback__ is not None or type(one).__name__ not in _CANCELLATIONS
        for one in _logged_with(error)
    )


def _next_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that are shown directly with *error*."""
    if error.__cause__ is not None:
        yield error.__cause__
    elif error.__context__ is not None and not error.__suppress_context__:
        yield error.__context__
    if isinstance(error, BaseExceptionGroup):
        yield from cast("BaseExceptionGroup[BaseException]", error).exceptions


def _logged_with(error: BaseException) -> Iterator[BaseException]:
    """Yield all other errors that are shown with *error*, each once."""
    seen = {id(error)}
    left = [error]
    while left:
        for one in _next_errors(left.pop()):
            if id(one) not in seen:
                seen.add(id(one))
                left.append(one)
                yield one


def _without_our_frames(error: BaseException) -> TracebackType | None:
    """Return the error's traceback, or one without our frames if it has any."""
    full = error.__traceback__
    entries = list(_entries_of(full))
    kept: list[TracebackType] = []
    for is_between, part in groupby(entries, _is_ours_or_relay):
        frames = list(part)
        if not is_between or not any(map(_is_ours, frames)):
            kept += frames
    if len(kept) == len(entries):
        return full
    clean: TracebackType | None = None
    for entry in reversed(kept):
        clean = TracebackType(clean, entry.tb_frame, entry.tb_lasti, entry.tb_lineno or -1)
    return clean


def _entries_of(entry: TracebackType | None) -> Iterator[TracebackType]:
    while entry is not None:
        yield entry
        entry = entry.tb_next


def _is_ours(entry: TracebackType) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(_PACKAGE)


def _is_ours_or_relay(entry: TracebackType) -> bool:
    return _is_ours(entry) or entry.tb_frame.f_globals.get("__name__") in _RELAYS
