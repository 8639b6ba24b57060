"""What follows from a change: which runs begin because of it, and which never will."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from namedtasks._core.runs import Run

RunT = TypeVar("RunT", bound=Run)


class Turn(NamedTuple, Generic[RunT]):
    """What follows from a change: for the shell to carry out."""

    begin: tuple[RunT, ...] = ()
    """Runs whose bodies begin now: they have their names and their slots."""
    dropped: tuple[RunT, ...] = ()
    """Pending runs that never will; they have ended."""


NOTHING: Turn[Any] = Turn()
"""What mostly follows; always this object, so that it is told by a look."""


def together(*turns: Turn[RunT]) -> Turn[RunT]:
    """What follows from several changes, in their order."""
    begin = [run for turn in turns for run in turn.begin]
    dropped = [run for turn in turns for run in turn.dropped]
    return Turn(tuple(begin), tuple(dropped)) if begin or dropped else NOTHING
