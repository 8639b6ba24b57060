"""The guard of a map that is not thread-safe: it belongs to one run of one event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

_STACK_TO_UNDO = 60
"""Frames, more than enough to roll a start back, and to begin what gets its slot by that."""


@final
class OwnThread:
    """Lets in calls from the run of the event loop that the map was opened in, and no others.

    It also keeps what is to be undone but could not be: at the end of the stack
    nothing can be called. So there it is only put down, and is undone when
    there is stack for it, by the next who comes in or by the loop.
    """

    __slots__ = ("_call_soon", "_cure", "_is_here", "_undo", "to_undo")

    def __init__(
        self,
        cure: str,
        *,
        is_here: Callable[[], bool],
        undo: Callable[[Any], object],
        call_soon: Callable[[Callable[[], object]], object],
    ) -> None:
        self._cure = cure
        """What another thread should do."""
        self._is_here = is_here
        """Returns whether the caller is in the right run."""
        self._undo = undo
        self._call_soon = call_soon
        """Has the loop call something."""
        self.to_undo: tuple[Any, Any] | None = None
        """What is to be undone, and the same of what was to be undone before it."""

    def __enter__(self) -> None:
        self.check()
        if self.to_undo is not None:
            self.undo()

    def check(self) -> None:
        """Refuse a call from another thread, or from another run of an event loop.

        Raises:
            RuntimeError: it is one.
        """
        if not self._is_here():
            raise RuntimeError(
                "a task map is used only in the event loop run that opened it: from elsewhere "
                f"{self._cure}"
            )

    def undo(self) -> None:
        """Undo what is to be undone, now or where there is stack for it."""
        try:
            try:
                _dig(_STACK_TO_UNDO)
            except RecursionError:
                self._call_soon(self.undo)
                return
        except RecursionError:
            return  # not even for that: who comes next does it
        while self.to_undo is not None:
            last, self.to_undo = self.to_undo
            self._undo(last)

    def __exit__(self, *exc_info: object) -> None:
        """Nothing is to be done."""


def _dig(frames: int) -> None:
    if frames:
        _dig(frames - 1)
