"""A dict that gives memory back, and that a key with a changed hash cannot break."""

from __future__ import annotations

from typing import Final, TypeVar, cast, final

K = TypeVar("K")
V = TypeVar("V")

_SMALL = 64
"""A dict of this size is never rebuilt: it holds under 10 KB."""

CONSIDERED: Final = _SMALL - 1
"""A size with none of these bits is a multiple of that: then a larger one is considered."""


@final
class Table(dict[K, V]):
    """A dict whose entries are taken out with `discard`, which may shrink it.

    A plain dict never shrinks by deletion: after a million names it keeps its
    30 MB and more for ever. This one is rebuilt when it is under an eighth of its peak,
    so that rebuilding costs a deletion less than one re-insertion. It is rebuilt in
    place: who holds it keeps it.
    """

    __slots__ = ("_peak",)

    def __init__(self) -> None:
        super().__init__()
        self._peak = 0

    def discard(self, key: K, value: V) -> None:
        """Take out the entry that holds *value*; it was put under *key*.

        Needs no look at all entries, unless the key's hash or equality has
        changed since: then the entry is found by its value.
        """
        is_out = False
        try:
            if self.get(key) is value:
                del self[key]
                is_out = True
        except BaseException:  # the key's own __hash__ or __eq__
            pass
        if not is_out:
            self._rebuild(without=value)
        if not len(self) & CONSIDERED:
            self.consider()

    def keep(self, key: K, value: V) -> None:
        """Enter *value*, whatever has become of its *key*: the entry must not be lost.

        It has a key of ours if its own cannot be looked up, or is another one's equal by now.
        """
        try:
            if self.setdefault(key, value) is value:
                return
        except BaseException:  # the key's own __hash__ or __eq__
            pass
        self[cast(K, object())] = value

    def consider(self) -> None:
        """Give memory back if there is much of it; see `CONSIDERED`."""
        size = len(self)
        if size > self._peak:
            self._peak = size
        elif size * 8 <= self._peak and self._peak > _SMALL:
            self._rebuild()

    def _rebuild(self, without: V | None = None) -> None:
        kept = [(key, value) for key, value in self.items() if value is not without]
        self.clear()
        for key, value in kept:
            self.keep(key, value)
        self._peak = len(kept)
