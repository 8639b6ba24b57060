"""Parts what came out of a body, and joins what leaves a block."""

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


def let_out(left: list[BaseException], raised_in_block: BaseException | None) -> None:
    """Raise what is *left* to leave a map's block: one bare, several as a group.

    What the block raised, and leaves alone, goes on by itself. Takes *left* apart.
    """
    # A group keeps the list that it is made of: for its repr, and to be copied and pickled.
    error = left[0] if len(left) == 1 else BaseExceptionGroup("exceptions from a task map", [*left])
    if error is raised_in_block:
        return
    context = error.__context__
    try:
        raise error
    finally:
        # As trio does: what the block raised is no context of it.
        BaseException.__setattr__(error, "__context__", context)
        left.clear()
        del error, context, raised_in_block  # no cycle through the error's traceback
