"""Turns users' objects into text, whatever their ``repr`` and ``str`` do: those are their code.

Only Ctrl-C goes through. A sentence is worth no other exception, of any kind.
"""

from __future__ import annotations

from collections.abc import Hashable


def repr_of(value: object) -> str:
    """The *value*'s repr; a stand-in where that raises."""
    try:
        return repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<{type(value).__name__} whose repr raises>"


def str_of(value: object) -> str:
    """The *value*'s str; a stand-in where that raises."""
    try:
        return str(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<{type(value).__name__} whose str raises>"


def error_text(error: BaseException) -> str:
    """An error as the last line of a traceback shows it: ``ValueError: boom``."""
    text = str_of(error)
    kind = type(error).__qualname__
    return f"{kind}: {text}" if text else kind


def task_text(name: Hashable, operation: str | None) -> str:
    """How our sentences call a task: ``task 'vol-1'``, ``task 'vol-1' (operation 'mount')``."""
    if operation is None:
        return f"task {repr_of(name)}"
    return f"task {repr_of(name)} (operation {repr_of(operation)})"


def name_text(name: Hashable) -> str:
    """What the thing is called that runs a task: a trio task, a Task."""
    return name if isinstance(name, str) else repr_of(name)


def seconds_text(seconds: float) -> str:
    """Seconds for people: three significant digits, no exponent: ``0.5 s``, ``122 s``."""
    digits = 0 if seconds >= 100 else 1 if seconds >= 10 else 2 if seconds >= 1 else 3
    text = f"{seconds:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} s"
