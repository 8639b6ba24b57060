"""Checks of what callers pass in: each gives the value back or raises with the cure."""

from __future__ import annotations

import math

from namedtasks._core.text import repr_of


def number(what: str, value: object, *, least: float = 0.0, most: float = math.inf) -> float:
    """*value* as a float in [*least*, *most*].

    Raises:
        TypeError: it is no number (a bool is none).
        ValueError: it is NaN, or outside of the range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number, not {repr_of(value)}")
    if not least <= value <= most:
        upper = "" if most == math.inf else f" and at most {most:g}"
        raise ValueError(f"{what} must be at least {least:g}{upper}, not {repr_of(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{what} is too large for a float") from None


def finite(what: str, value: object, *, least: float = 0.0) -> float:
    """*value* as a finite float that is at least *least*.

    Raises:
        TypeError: it is no number (a bool is none).
        ValueError: it is infinite, NaN, or below the least.
    """
    checked = number(what, value, least=least)
    if checked == math.inf:
        raise ValueError(f"{what} must be finite, not inf")
    return checked


def count(what: str, value: object, *, none_means: str) -> int | None:
    """*value* as a whole number of at least 1, or None.

    Raises:
        TypeError: it is neither None nor a whole number (a bool is none).
        ValueError: it is below 1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be a whole number or None, not {repr_of(value)}")
    if value < 1:
        raise ValueError(f"{what} must be at least 1, or None for {none_means}, not {value}")
    return value


def flag(what: str, value: object) -> bool:
    """*value*, which must be True or False.

    Raises:
        TypeError: it is neither.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{what} must be True or False, not {repr_of(value)}")
    return value


def hashable(name: object, operation: object) -> None:
    """Whether *name* can be a task's name and *operation* its operation.

    Raises:
        TypeError: the name cannot be hashed, or the operation is no text.
    """
    if operation is not None and not isinstance(operation, str):
        raise TypeError(f"operation must be a str or None, not {repr_of(operation)}")
    try:
        hash(name)
    except TypeError as error:
        raise TypeError(
            f"a task's name must be hashable, and {type(name).__name__} is not: {repr_of(name)}; "
            "use a str, a tuple or a frozen class"
        ) from error


def function(what: str, value: object) -> None:
    """Whether *value* can be called.

    Raises:
        TypeError: it cannot.
    """
    if not callable(value):
        raise TypeError(f"{what} must be callable, not {repr_of(value)}")


def executor(value: object) -> None:
    """Whether *value* can be an executor, or is None.

    Raises:
        TypeError: it cannot.
    """
    if value is not None and not callable(value):
        raise TypeError(
            "executor must be an async callable such as trio.to_thread.run_sync, "
            f"not {repr_of(value)}"
        )


def policy(value: object) -> None:
    """Whether *value* can be a backoff policy, or is None.

    Raises:
        TypeError: it has no method ``delay``.
    """
    if value is not None and (
        isinstance(value, type) or not callable(getattr(value, "delay", None))
    ):
        raise TypeError(
            f"backoff must be a Backoff, None, or have a method delay(), not {repr_of(value)}"
        )


def timeout(value: float | None) -> float:
    """A timeout in seconds, infinite for None.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative or NaN.
    """
    return math.inf if value is None else number("timeout", value)


def if_busy(value: object) -> None:
    """Whether *value* says what to do about a name that cannot start now.

    Raises:
        ValueError: it does not.
    """
    if value not in ("refuse", "skip", "join", "replace", "queue"):
        raise ValueError(
            f"if_busy must be 'refuse', 'skip', 'join', 'replace' or 'queue', not {repr_of(value)}"
        )


def reason(value: object) -> None:
    """Whether *value* can be why a run was cancelled.

    Raises:
        TypeError: it is neither text nor None.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError(f"reason must be a str or None, not {repr_of(value)}")
