"""Names that overlap: ``ANY`` in a tuple stands for every value of that field.

Two tuples of the same length overlap if each field is equal in both, or `ANY`
in one of them.

Theory of operation. A name's *shape* says which of its fields are not ANY. Two
names overlap if they agree in the fields that both shapes have. So a name is
entered once for each subset of its shape, under its shape, the subset and the
values there; and who looks for what overlaps a name looks, for each shape that
there is, at the one entry for what both shapes have. That are 2 to the power
of the number of fields of entries, and at most as many looks, at any number of
names. It is done for the lengths in which ANY has been used: who uses none,
pays for none.
"""

from __future__ import annotations

import contextlib
import enum
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from itertools import islice
from typing import Any, Final, Generic, Literal, TypeGuard, TypeVar, final

from namedtasks._core import checks
from namedtasks._core.runs import Run
from namedtasks._core.text import repr_of

RunT = TypeVar("RunT", bound=Run)

MAX_FIELDS = 4
"""Fields of a tuple in which ANY may stand: 16 entries for a name."""


@final
class _Any(enum.Enum):
    """The type of `ANY`: an enum, so that copies and pickles are the one and only."""

    ANY = "any value"

    def __repr__(self) -> str:
        return "namedtasks.ANY"


ANY: Final[Literal[_Any.ANY]] = _Any.ANY
"""In a tuple that is a task's name: every value of that field.

``("vol-1", ANY)`` and ``("vol-1", "pod-a")`` exclude each other.

Example:
    >>> async with open_task_map() as tasks:
    ...     _ = tasks.start_soon(("vol-1", "pod-a"), trio.sleep, 5)
    ...     tasks.check(("vol-1", ANY)).holders
    ...     tasks.check(("vol-2", ANY)) is None
    (('vol-1', 'pod-a'),)
    True

.. versionadded:: 0.1
"""

Tuple = tuple[Hashable, ...]
_Key = tuple[int, int, Tuple]
"""A shape, a subset of it, and the values of the fields in that subset."""
_Entry = tuple[int, _Key]
"""A length, and a key."""

_SMALL = 64
"""An index of this size is never rebuilt."""


def is_tuple(name: Hashable) -> TypeGuard[Tuple]:
    """Whether *name* has fields."""
    return isinstance(name, tuple)


def check_name(name: Hashable) -> None:
    """Whether ANY stands in *name* only where it means something.

    Raises:
        ValueError: it is a name of its own, or in a tuple of more than four fields.
    """
    if name is ANY:
        raise ValueError(
            "namedtasks.ANY is no name: it stands for a field of a tuple, as in ('vol-1', ANY)"
        )
    if is_tuple(name) and len(name) > MAX_FIELDS and has_any(name):
        raise ValueError(
            f"a name with namedtasks.ANY may have at most {MAX_FIELDS} fields, "
            f"and {repr_of(name)} has {len(name)}"
        )


def check_start(name: Hashable, operation: str | None) -> None:
    """Whether something can be started under *name* and *operation* at all.

    To be asked outside of all locks: the error shows the name.

    Raises:
        TypeError: the name cannot be hashed, or the operation is no text.
        ValueError: ANY stands in the name where it may not.
    """
    if type(name) is not str or operation is not None:
        checks.hashable(name, operation)
        check_name(name)


def has_any(name: Tuple) -> bool:
    """Whether a field of *name* is ANY."""
    for field in name:  # noqa: SIM110 - for speed: each start under a tuple comes here
        if field is ANY:
            return True
    return False


def overlap(one: Hashable, other: Hashable) -> bool:
    """Return whether a run of *one* and a run of *other* exclude each other."""
    if not (is_tuple(one) and is_tuple(other)):
        return one == other
    return len(one) == len(other) and all(
        mine is ANY or its is ANY or mine == its for mine, its in zip(one, other, strict=True)
    )


@final
class Overlaps(Generic[RunT]):
    """Finds the runs whose names overlap a name; knows the lengths in which ANY was used."""

    __slots__ = ("_entries", "_lengths", "_peak", "_shapes", "in_use")

    def __init__(self) -> None:
        self.in_use: bool = False
        """Whether ANY has been used at all."""
        self._lengths: frozenset[int] = frozenset()
        self._shapes: dict[tuple[int, int], int] = {}
        """How many names there are of each length and shape."""
        # A dict's first entry is the dearer the more were deleted before it: so an OrderedDict,
        # and one only where there is more than one run.
        self._entries: dict[_Entry, RunT | OrderedDict[RunT, None]] = {}
        self._peak = 0

    def covers(self, name: Hashable) -> TypeGuard[Tuple]:
        """Whether names as long as *name* are entered here."""
        return self.in_use and is_tuple(name) and len(name) in self._lengths

    def wants(self, name: Hashable) -> TypeGuard[Tuple]:
        """Whether *name* is the first with ANY of its length: then call `cover`."""
        return is_tuple(name) and len(name) not in self._lengths and has_any(name)

    def cover(self, name: Tuple, runs: Iterable[RunT]) -> None:
        """Enter those of *runs* whose names are as long as *name*, and all that come."""
        self.in_use = True
        self._lengths |= {len(name)}
        for run in runs:
            if self.covers(run.name) and len(run.name) == len(name):
                self.add(run)

    def add(self, run: RunT) -> None:
        """Enter *run*, whose name is covered."""
        name: Any = run.name
        shape, keys = _keys(name)
        kind = len(name), shape
        try:
            for key in keys:
                entry = len(name), key
                bucket = self._entries.get(entry)
                if bucket is None:
                    self._entries[entry] = run
                elif isinstance(bucket, OrderedDict):
                    bucket[run] = None
                else:
                    self._entries[entry] = OrderedDict.fromkeys((bucket, run))
        except BaseException:  # a field's own __hash__ or __eq__: all or nothing
            self._take_out_all(run, keys)
            raise
        self._shapes[kind] = self._shapes.get(kind, 0) + 1
        self._peak = max(self._peak, len(self._entries))

    def discard(self, run: RunT) -> None:
        """Take *run* out, if it is here."""
        name: Any = run.name
        shape, keys = _keys(name)
        kind = len(name), shape
        if not self._take_out_all(run, keys):
            return
        self._shapes[kind] -= 1
        if not self._shapes[kind]:
            del self._shapes[kind]
        if len(self._entries) * 8 <= self._peak and self._peak > _SMALL:
            self._entries = dict(self._entries)  # a dict never shrinks by deletion
            self._peak = len(self._entries)

    def _take_out_all(self, run: RunT, keys: list[_Key]) -> bool:
        """Take *run* out of all that it is entered under; whether there was anything."""
        name: Any = run.name
        was_there = [self._take_out((len(name), key), run) for key in keys]
        return all(was_there) or self._rebuild(run) or any(was_there)

    def _take_out(self, entry: _Entry, run: RunT) -> bool:
        """Take *run* out of one entry; whether it was there, and is not any more."""
        is_out = False
        try:
            bucket = self._entries.get(entry)
            if isinstance(bucket, OrderedDict) and run in bucket:
                del bucket[run]
                is_out = True
            elif bucket is not run:
                return False
            if bucket is run or not bucket:
                del self._entries[entry]
                is_out = True
        except BaseException:  # a field's own __hash__ or __eq__
            pass
        return is_out

    def _rebuild(self, without: RunT) -> bool:
        """Take out *without* wherever it is: a field of its name has changed its hash."""
        was_there = False
        for bucket in self._entries.values():
            if isinstance(bucket, OrderedDict):
                was_there |= without in bucket
                bucket.pop(without, None)
            else:
                was_there |= bucket is without
        kept = [one for one in self._entries.items() if one[1] is not without and one[1]]
        self._entries.clear()
        for entry, bucket in kept:
            with contextlib.suppress(BaseException):  # as above; that one is not found any more
                self._entries[entry] = bucket
        return was_there

    def is_empty(self) -> bool:
        """Whether nothing is entered here."""
        return not self._entries and not self._shapes

    def holders(self, name: Tuple, most: int) -> list[RunT]:
        """Up to *most* runs whose names overlap *name*, those of its own name included."""
        found: list[RunT] = []
        own = _shape(name)
        for shape in _SHAPES[len(name)]:
            if (len(name), shape) not in self._shapes:
                continue
            both = shape & own
            bucket = self._entries.get((len(name), (shape, both, _at(name, both))))
            if bucket is not None:
                runs = bucket if isinstance(bucket, OrderedDict) else (bucket,)
                found += islice(runs, most - len(found))
        return found


_SHAPES: Final = [range(2**length) for length in range(MAX_FIELDS + 1)]


def _shape(name: Tuple) -> int:
    shape = 0
    for index, field in enumerate(name):
        if field is not ANY:
            shape |= 1 << index
    return shape


def _at(name: Tuple, subset: int) -> Tuple:
    return tuple(field for index, field in enumerate(name) if subset >> index & 1)


def _keys(name: Any) -> tuple[int, list[_Key]]:
    """The shape of *name*, and what to enter it under."""
    shape = _shape(name)
    subsets = [subset for subset in _SHAPES[len(name)] if subset & shape == subset]
    return shape, [(shape, subset, _at(name, subset)) for subset in subsets]
