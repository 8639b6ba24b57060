"""Texts and times for the page and its API. Names and errors may be of any kind and length."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from namedtasks._validation import error_text, name_text, safe_repr

MOST_NAME: Final = 200
"""Characters of a name. A guess: they fill five lines of a phone."""

MOST_ERROR: Final = 300
"""Characters of the text of an error; the log has the rest."""


def plain(text: str, most: int) -> str:
    r"""Return at most *most* characters of *text*, with an escape for each that is not printable.

    Line breaks, control characters, lone surrogates and characters that change the direction of
    the text get the escapes of a Python literal, for example ``\n`` and ``\u202e``. So the result
    can always be encoded, and cannot hide or move the text around it.
    """
    text = str.__str__(text)  # a subclass may have methods of its own
    if len(text) > most:
        text = text[: most - 1] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def name_of(name: Hashable) -> str:
    """Return *name* for people: a text as it is, anything else by its repr."""
    return plain(name_text(name), MOST_NAME)


def error_of(error: BaseException) -> str:
    """Return the type and the text of *error*, for example ``OSError: device busy``."""
    return plain(safe_repr(error, _error_text), MOST_ERROR)


def _error_text(error: object) -> str:
    assert isinstance(error, BaseException)
    return error_text(error)


def seconds_of(moment: float | None) -> float | None:
    """Return *moment* to the millisecond; None if there is none, or it is infinite."""
    return None if moment is None or not math.isfinite(moment) else round(moment, 3)


def time_of_day(moment: float | None, now: float, at: datetime) -> str | None:
    """Return the date and time of *moment*, a time of a clock that shows *now* at the time *at*.

    Returns:
        None if there is no moment, or no calendar has it.
    """
    if moment is None:
        return None
    try:
        return iso(at + timedelta(seconds=moment - now))
    except (OverflowError, ValueError):
        return None


def iso(moment: datetime) -> str:
    """Return *moment* in the form of RFC 3339, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encoded(value: Mapping[str, object]) -> bytes:
    """Return *value* in JSON, without any spaces. All texts in it are `plain`."""
    return _encode(value).encode()


# json.dumps() would make an encoder for each call: that costs more than the encoding.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
