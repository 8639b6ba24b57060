"""What `check_executor` has an executor run: plain functions, found by their names anywhere."""

from __future__ import annotations

import pathlib
import threading
import time
from collections.abc import Callable

LOOK_EVERY = 0.005
"""Seconds between two looks for the file that lets a job go; short beside all waits for it."""


class JobError(Exception):
    """What `fail` raises."""


class NotLetGoError(Exception):
    """Nobody let a job go in time."""


def echo(*args: object) -> tuple[object, ...]:
    """Give the arguments back."""
    return args


def fail(*args: object) -> None:
    """Raise."""
    raise JobError(*args)


def give_error(*args: object) -> JobError:
    """Give an exception back, without raising it."""
    return JobError(*args)


def give_lock(*_: object) -> object:
    """Give something back that cannot be pickled."""
    return threading.Lock()


def hold(folder: str, name: str, patience: float, now: Callable[[], float] = time.monotonic) -> str:
    """Write down the start; run until a file says that it may end; write down the end.

    Files, because they are the same for threads, processes and interpreters. The
    clock is a default, because freezegun replaces ``time.monotonic`` and module globals.
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
    """Write down that *what* has come."""
    with path_of(folder, name, "log").open("a", encoding="utf-8") as log:
        log.write(f"{what}\n")


def notes(folder: str, name: str) -> list[str]:
    """What the job *name* has written down."""
    path = path_of(folder, name, "log")
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def path_of(folder: str, name: str, kind: str) -> pathlib.Path:
    """A file of the job *name*."""
    return pathlib.Path(folder, f"{name}.{kind}")
