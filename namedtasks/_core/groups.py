"""Parts what came out of a body: its own failure, and what is not its own affair."""

from __future__ import annotations

from typing import cast

Kind = type[BaseException] | tuple[type[BaseException], ...]


def parted(error: BaseException, kind: Kind) -> tuple[BaseException | None, BaseException | None]:
    """Part what is of this *kind*, in a group or bare, from what is not."""
    if isinstance(error, kind):
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    group = cast("BaseExceptionGroup[BaseException]", error)
    try:
        return group.split(kind)
    except BaseException:  # splitting runs the group's own derive()
        return None, group
