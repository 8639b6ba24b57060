"""What can stand in the way of a start, and the error that says so."""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import Generic, TypeAlias, TypeVar, Union, final

import attrs

from namedtasks._core.errors import (
    AlreadyRunningError,
    BackoffError,
    ClosedError,
    GaveUpError,
    RefusedError,
    new_error,
)
from namedtasks._core.records import Record
from namedtasks._core.runs import Run

RunT = TypeVar("RunT", bound=Run)


@final
class Closed(enum.Enum):
    """The one obstacle that is no object of its own."""

    CLOSED = enum.auto()


@final
@attrs.frozen(eq=False)
class Overlapping(Generic[RunT]):
    """The obstacle of runs under other names, which overlap the one that is asked for."""

    runs: list[RunT]
    """They, or the first few of them: at least one."""


Obstacle: TypeAlias = Union[RunT, Record, Closed, Overlapping[RunT]]  # noqa: UP007 - for mypy
"""What can stand in the way of a start."""


def refusal(
    obstacle: Obstacle[RunT], name: Hashable, operation: str | None, now: float
) -> RefusedError:
    """The error that says what an *obstacle* means for a start of *name*."""
    if isinstance(obstacle, Run):
        return AlreadyRunningError(name, operation, obstacle.started_at, (obstacle.name,))
    if isinstance(obstacle, Overlapping):
        runs = obstacle.runs
        names = tuple(run.name for run in runs)
        return AlreadyRunningError(name, operation, runs[0].started_at, names)
    if isinstance(obstacle, Closed):
        return ClosedError(name, operation)
    if not obstacle.gave_up:
        return backoff_error(obstacle, name, operation, now)
    error = GaveUpError(name, operation, obstacle.failures)
    error.__cause__ = obstacle.error
    return error


def backoff_error(
    record: Record, name: Hashable, operation: str | None, now: float
) -> BackoffError:
    """The error that says that *record* waits."""
    retry_at = record.retry_at
    error = new_error(BackoffError, name, operation, record.failures, retry_at, retry_at - now)
    error.__cause__ = record.error
    return error
