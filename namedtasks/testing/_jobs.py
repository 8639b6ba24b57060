"""The functions that `check_executor` gives to an executor.

Other processes and interpreters import them by name, so each is a plain
function at the top level of this module.
"""

from __future__ import annotations

import pathlib
import pkgutil
import threading
import time
from collections.abc import Callable

LOOK_EVERY = 0.005
"""Seconds between two checks for the file that ends a job; far less than all waits for it."""


class JobError(Exception):
    """The error of `fail`."""


class NotLetGoError(Exception):
    """The file that ends a job did not appear in time."""


def echo(*args: object) -> tuple[object, ...]:
    """Return the arguments."""
    return args


def fail(*args: object) -> None:
    """Raise a `JobError`."""
    raise JobError(*args)


def give_error(*args: object) -> JobError:
    """Return a `JobError`, without raising it."""
    return JobError(*args)


def give_lock(*_: object) -> object:
    """Return an object that cannot be pickled."""
    return threading.Lock()


def hold(folder: str, name: str, patience: float, now: Callable[[], float] = time.monotonic) -> str:
    """Note the start, run until a file appears that ends the job, and note the end.

    Files work the same for threads, processes and interpreters. The clock is a
    default argument, because freezegun replaces ``time.monotonic`` and module globals.
    """
    note(folder, name, "start")
    limit = now() + patience
    while not path_of(folder, name, "go").exists():
        if now() > limit:
            raise NotLetGoError(name)
        time.sleep(LOOK_EVERY)
    note(folder, name, "end")
    return f"the result of {name}"


def note(folder: str, name: str, what: str) -> None:
    """Add *what* to the notes of the job *name*."""
    with path_of(folder, name, "log").open("a", encoding="utf-8") as log:
        log.write(f"{what}\n")


def notes(folder: str, name: str) -> list[str]:
    """Return the notes of the job *name*."""
    path = path_of(folder, name, "log")
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def path_of(folder: str, name: str, kind: str) -> pathlib.Path:
    """Return the path of a file of the job *name*."""
    return pathlib.Path(folder, f"{name}.{kind}")


async def use(importable: str) -> None:
    """Run `echo` on the executor at *importable*, in a new interpreter that then exits.

    Raises:
        ValueError: the result is wrong.
    """
    given = await pkgutil.resolve_name(importable)(echo, 1, 2)
    if given != (1, 2):
        raise ValueError(f"echo(1, 2) returned {given!r}")
