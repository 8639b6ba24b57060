"""Calls near the end of the stack."""

from collections.abc import Callable


def dig(left: int, call: Callable[[], object]) -> None:
    """Call from so many frames further down."""
    if left:
        dig(left - 1, call)
    else:
        call()
