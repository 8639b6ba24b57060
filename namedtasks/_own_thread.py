"""The guard of a map that is not thread-safe."""

from __future__ import annotations

from threading import get_ident
from typing import final


@final
class OwnThread:
    """Lets in the thread that it was made in, and no other."""

    __slots__ = ("_cure", "ident")

    def __init__(self, cure: str) -> None:
        self.ident: int = get_ident()
        self._cure = cure
        """What another thread should do."""

    def __enter__(self) -> None:
        self.check()

    def check(self) -> None:
        """Whether the calling thread is the one.

        Raises:
            RuntimeError: it is not.
        """
        if get_ident() != self.ident:
            raise RuntimeError(
                f"a task map is used from its own thread only: from another one {self._cure}"
            )

    def __exit__(self, *exc_info: object) -> None:
        """Nothing is to be done."""
