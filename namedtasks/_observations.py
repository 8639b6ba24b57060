"""Observations: the ends of runs since a listing began, so that no start acts on an old listing.

Everything here is called under the map's lock, if it has one. Each end has a number, and an
observation is the number of the last end before it. While no observation is open, the ends are
neither counted nor kept.
"""

from __future__ import annotations

import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, Literal, Self, final

from namedtasks._names import OverlapIndex, Tuple, has_any, is_tuple, names_overlap
from namedtasks._state import read_shared
from namedtasks._validation import REQUIRED, not_called, reports_missing, safe_repr
from namedtasks._version import publish


class Mark:
    """The beginning of an observation, and its state."""

    __slots__ = ("began", "ends", "key", "observation", "state")

    observation: weakref.ref[Observation]

    def __init__(self, ends: Ends, key: int) -> None:
        self.ends: Ends = ends
        self.key: int = key
        self.began: int = ends.number
        """The number of the last end before it."""
        self.state: Literal["open", "expired", "closed"] = "open"


@final
class Observation:
    """A moment before a listing, so that no start acts on an old listing.

    A map's ``observe()`` returns it. A start with ``since=`` an observation raises
    `StaleLookError` if a run of the name, or of a name that overlaps it, has ended since the
    observation began. Begin it *before* you request the listing, and list from a source that
    shows the effects of all runs that had ended by then.

    It ends with its ``with`` block, with `close`, or when it is garbage-collected, which the map
    notices within 64 further ends. While it is open, the map remembers the names whose runs end,
    at most ``keep_ends`` of them. Beyond that the oldest observation expires, and every start
    with it is refused.

    Example:
        The listing says that the volume has to be attached. A run attaches it while the listing
        is requested.

        >>> with ThreadTaskMap() as tasks, tasks.observe() as look:
        ...     tasks.submit("pvc-1", print, "pvc-1 is attached").result()
        ...     tasks.submit("pvc-1", print, "again", since=look, if_busy="skip") is None
        ...     tasks.check("pvc-1", since=look)
        pvc-1 is attached
        True
        StaleLookError('pvc-1', None, False)

    .. versionadded:: 0.1
    """

    __slots__ = ("__weakref__", "_close", "_mark")

    @reports_missing
    def __init__(self, mark: Mark, close: Callable[[Mark], object]) -> None:
        if mark is REQUIRED:
            raise not_called("Observation", "write 'with tasks.observe() as look:'")
        self._mark = mark
        self._close = close

    @property
    def expired(self) -> bool:
        """True if more runs ended than the map remembers: list again, with a new observation."""
        return self._mark.state == "expired"

    def close(self) -> None:
        """End the observation; later starts with it raise `ValueError`. Not a checkpoint.

        Raises:
            RuntimeError: the caller is not in the event loop run that opened the
                map; with a `ThreadTaskMap` any thread may call it.

        Example:
            >>> with ThreadTaskMap() as tasks:
            ...     look = tasks.observe()
            ...     tasks.submit("pvc-1", print, "attached", since=look).result()
            ...     look.close()
            attached
        """
        if self._mark.state != "closed":
            self._close(self._mark)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<namedtasks.Observation {self._mark.state}>"


class _Ended:
    """A name with fields, for the index of overlapping names."""

    __slots__ = ("name",)

    def __init__(self, name: Tuple) -> None:
        self.name: Tuple = name


_LOOKS_AT_EACH = 64
"""The number of ends between two checks for dropped observations."""


@final
class Ends:
    """The last ends of the names whose runs have ended since the oldest open observation."""

    def __init__(self, most: int) -> None:
        self.most: int = most
        """The number of names that are remembered."""
        self.number: int = 0
        """The number of ends, counted while an observation is open."""
        # An OrderedDict removes its first entry at a constant cost, and a dict does not.
        self._last: OrderedDict[Hashable, int] = OrderedDict()
        """The number of the last end of each name, in order."""
        self._index: OverlapIndex[Any] = OverlapIndex()
        self._indexed: dict[Tuple, _Ended] = {}
        """The names in the index: those with fields, after the first name with ANY."""
        self._open: OrderedDict[int, Mark] = OrderedDict()
        self._opened = 0
        self._purge_at = 16

    def __len__(self) -> int:
        return len(self._last)

    @property
    def is_observed(self) -> bool:
        """True if an observation is open."""
        return bool(self._open)

    def open(self, close: Callable[[Mark], object]) -> Observation:
        """Return a new observation, which calls *close* to be closed."""
        self._trim()
        if len(self._open) >= self._purge_at:  # remove those that were dropped
            alive = [
                (key, mark) for key, mark in self._open.items() if mark.observation() is not None
            ]
            self._open = OrderedDict(alive)
            self._purge_at = 2 * len(alive) + 16
        self._opened += 1
        mark = Mark(self, self._opened)
        look = Observation(mark, close)
        mark.observation = weakref.ref(look)
        self._open[mark.key] = mark  # last, when the mark is complete
        return look

    def close(self, mark: Mark) -> None:
        """Close the observation of *mark*, and forget the ends that no other observation needs."""
        mark.state = "closed"
        self._open.pop(mark.key, None)
        self._trim()

    def note(self, name: Hashable, overlaps: bool) -> None:
        """Note that a run of *name* has ended; *overlaps* is true if names may overlap."""
        self.number = number = self.number + 1
        last = self._last
        last[name] = number
        last.move_to_end(name)
        if overlaps and is_tuple(name) and name not in self._indexed:
            self._add_to_index(name)
        if len(last) > self.most or not number % _LOOKS_AT_EACH:
            self._trim()

    def _add_to_index(self, name: Tuple) -> None:
        ended = self._indexed[name] = _Ended(name)
        if self._index.knows(name):
            self._index.add(ended)
            return
        for one in self._last:  # also the names from before the first one with ANY
            if is_tuple(one) and one not in self._indexed:
                self._indexed[one] = _Ended(one)
        self._index.learn(name, self._indexed.values())

    def has_ended(self, name: Hashable, since: Mark, *, overlaps: bool) -> bool:
        """Return whether a run of *name*, or of a name that overlaps it, has ended since a mark.

        Changes nothing. Another thread may note ends meanwhile.
        """
        if is_tuple(name) and (overlaps or has_any(name)):
            return read_shared(lambda: self._has_overlapping_ended(name, since.began))
        return self._last.get(name, 0) > since.began

    def _has_overlapping_ended(self, name: Tuple, began: int) -> bool:
        index, last = self._index, self._last
        if index.knows(name):
            found = index.find(name, sys.maxsize)
            return any(last.get(ended.name, 0) > began for ended in found)
        return any(
            number > began and names_overlap(one, name) for one, number in list(last.items())
        )

    def _trim(self) -> None:
        """Forget the ends before the oldest open observation; expire it if too many are left."""
        while self._open:
            key, oldest = next(iter(self._open.items()))
            if oldest.observation() is not None:
                self._forget_until(oldest.began)
                if len(self._last) <= self.most:
                    return
                oldest.state = "expired"
            del self._open[key]
        self.forget_all()

    def forget_all(self) -> None:
        """Forget all ends and observations."""
        self._open.clear()
        if self._last:
            self._last.clear()
            self._index = OverlapIndex()
            self._indexed = {}

    def _forget_until(self, number: int) -> None:
        """Forget the ends up to *number*."""
        while self._last:
            name, last = next(iter(self._last.items()))
            if last > number:
                return
            del self._last[name]
            if is_tuple(name) and name in self._indexed:
                self._index.discard(self._indexed.pop(name))


def check_observation(since: object, ends: Ends) -> Mark:
    """Return the mark of *since*, an open observation of the map whose ends are *ends*.

    Raises:
        TypeError: it is not an `Observation`.
        ValueError: it is an observation of another map, or is closed.
    """
    if not isinstance(since, Observation):
        raise TypeError(
            f"since must be an Observation, as observe() returns it, not {safe_repr(since)}"
        )
    mark = since._mark  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    if mark.ends is not ends:
        raise ValueError("since is an observation of another map: call observe() of this one")
    if mark.state == "closed":
        raise ValueError("since is closed: start inside its with block, or call observe() again")
    return mark


publish(Observation)
