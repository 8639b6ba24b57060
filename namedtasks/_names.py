"""Names that overlap: ``ANY`` in a tuple matches every value of that field.

Two tuples of the same length overlap if each field is equal in both, or `ANY`
in one of them.

Theory of operation. The *shape* of a name is its length and the positions of its
fields that are ANY. Two names overlap if they agree in the fields that are ANY in
neither of them. The index knows the shapes that were used, and has one table for
each pair of them: the runs of the one shape, by the fields that are ANY in neither.
A run is entered in at most one table for each shape of its length, and
`OverlapIndex.find` reads one table for each shape. So the cost of both does not
depend on the number of runs. A map in which ANY is not used has no entries in its
index.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable
from itertools import islice
from operator import itemgetter
from typing import Any, Final, Generic, Literal, Protocol, TypeGuard, TypeVar, final

from namedtasks._validation import check_hashable, safe_repr


class _Named(Protocol):
    @property
    def name(self) -> Hashable: ...


RunT = TypeVar("RunT", bound=_Named)
K = TypeVar("K")
V = TypeVar("V")

MAX_FIELDS = 4
"""The largest number of fields of a tuple with ANY. Its index has up to 16 shapes."""


@final
class _Any(enum.Enum):
    """The type of `ANY`: an enum, so that a copy or a pickle is the same object."""

    ANY = "any value"

    def __repr__(self) -> str:
        return "namedtasks.ANY"


ANY: Final[Literal[_Any.ANY]] = _Any.ANY
"""A field of a tuple that is a task's name: it matches every value of that field.

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


def is_tuple(name: Hashable) -> TypeGuard[Tuple]:
    """Return whether *name* has fields."""
    return isinstance(name, tuple)


def check_name(name: Hashable) -> None:
    """Raise an error if *name* is None or ANY, or has too many fields for ANY.

    Raises:
        TypeError: *name* is None.
        ValueError: *name* is ANY itself, or has ANY among more than four fields.
    """
    if name is None:
        raise TypeError("a task's name must not be None: use any other hashable, such as a str")
    if name is ANY:
        raise ValueError(
            "namedtasks.ANY is no name: it stands for a field of a tuple, as in ('vol-1', ANY)"
        )
    if is_tuple(name) and len(name) > MAX_FIELDS and has_any(name):
        raise ValueError(
            f"a name with namedtasks.ANY may have at most {MAX_FIELDS} fields, "
            f"and {safe_repr(name)} has {len(name)}"
        )


def check_start(name: Hashable, operation: str | None) -> None:
    """Raise an error if nothing can be started under *name* and *operation*.

    Call it outside all locks: the message contains the repr of the name.

    Raises:
        TypeError: *name* is None or cannot be hashed, or *operation* is not a str.
        ValueError: *name* is ANY itself, or has ANY among more than four fields.
    """
    if type(name) is not str or operation is not None:
        check_hashable(name, operation)
        check_name(name)


def has_any(name: Tuple) -> bool:
    """Return whether a field of *name* is ANY."""
    # The first test is quick, but a field with its own equality may claim to equal ANY.
    return ANY in name and any(field is ANY for field in name)


def names_overlap(one: Hashable, other: Hashable) -> bool:
    """Return whether a run of *one* and a run of *other* exclude each other."""
    if not (is_tuple(one) and is_tuple(other)):
        return one == other
    return len(one) == len(other) and all(
        mine is ANY or its is ANY or mine == its for mine, its in zip(one, other, strict=True)
    )


@final
class _Table(Generic[K, V]):
    """A dict that is replaced with a copy when it has become small.

    A dict never shrinks by deletion. Another thread that reads the dict while it is
    replaced finds the old one complete.
    """

    __slots__ = ("entries", "peak")

    def __init__(self, entries: dict[K, V]) -> None:
        self.entries = entries
        self.peak: int = 0

    def remove(self, key: K) -> None:
        """Remove the entry of *key*, which must be there."""
        del self.entries[key]
        size = len(self.entries)
        if size & 63 == 1:  # at any other size, a look at the peak would be wasted
            if size > self.peak:
                self.peak = size
            elif size * 8 < self.peak:
                self.entries = self.entries.copy()
                self.peak = size


_Shape = tuple[bool, ...]
"""For each field of a name: True if it is ANY."""
_GetKey = Callable[[Tuple], Hashable]
_RunTable = _Table[Hashable, RunT | _Table[RunT, None]]
"""A run by its key, or several runs in order of entry."""
_Tables = dict[int | _Shape, list[tuple[_GetKey, _RunTable[RunT]]]]
"""Tables, each with the function that makes a key of a name; by what `_kind` returns."""


@final
class OverlapIndex(Generic[RunT]):
    """Finds the runs whose names overlap a name.

    Any thread may call `knows` and `find`; the other methods are for one thread at a time.
    """

    __slots__ = ("_entered", "_searched", "_shapes", "in_use")

    def __init__(self) -> None:
        self.in_use: bool = False
        """True after a name with ANY was learned: from then on, runs are added and discarded."""
        self._shapes: defaultdict[int, set[_Shape]] = defaultdict(set)
        """The shapes of each length."""
        self._entered: _Tables[RunT] = {}
        """The tables that a run is entered in, by the kind of its name."""
        self._searched: _Tables[RunT] = {}
        """The tables that `find` reads, by the kind of the name."""

    def knows(self, name: Tuple) -> bool:
        """Return whether `find` can be called for *name*, because its shape was learned."""
        return _kind(name) in self._searched

    def learn(self, name: Tuple, runs: Iterable[RunT]) -> None:
        """Index the names of the shape of *name*.

        Args:
            name: A name that the index does not know.
            runs: All runs that `find` has to find from now on, with names of any shape.
        """
        self.in_use = True
        length = len(name)
        shapes = self._shapes[length]
        shapes |= {(False,) * length, tuple(field is ANY for field in name)}
        tables: defaultdict[tuple[_Shape, _Shape], _RunTable[RunT]]
        tables = defaultdict(lambda: _Table({}))
        searched: _Tables[RunT] = {}
        for one in shapes:
            kind = length if True not in one else one
            both = {other: tuple(map(any, zip(one, other, strict=True))) for other in shapes}
            self._entered[kind] = [
                (_key_getter(key), tables[one, key]) for key in set(both.values())
            ]
            searched[kind] = [(_key_getter(key), tables[other, key]) for other, key in both.items()]
        for run in runs:
            self.add(run)
        self._searched |= searched  # last, because another thread may be in `find`

    def find(self, name: Tuple, most: int) -> list[RunT]:
        """Return up to *most* runs whose names overlap *name*, or are *name* itself.

        Raises:
            KeyError: the index does not know *name*.
            RuntimeError: another thread has changed the index meanwhile.
        """
        found: list[RunT] = []
        for get_key, table in self._searched[_kind(name)]:
            entry = table.entries.get(get_key(name))
            if entry is not None:
                found += islice(entry.entries, most) if isinstance(entry, _Table) else (entry,)
        return found[:most] if found else found

    def add(self, run: RunT) -> None:
        """Enter *run*; no effect if it is there, or if no name of its shape was learned.

        For a name with ANY that the index does not know, call `learn` first. A name
        without ANY is known as soon as any name of its length is.
        """
        name: Any = run.name
        if not isinstance(run.name, tuple):
            return
        for get_key, table in self._entered.get(_kind(name), ()):
            entry = table.entries.setdefault(get_key(name), run)
            if entry is not run:
                if isinstance(entry, _Table):
                    entry.entries[run] = None
                else:
                    # Not a dict: after many deletions, its first entries are slow to reach.
                    table.entries[get_key(name)] = _Table(OrderedDict.fromkeys((entry, run)))

    def discard(self, run: RunT) -> None:
        """Remove *run*; no effect if it is not there."""
        name: Any = run.name
        if not isinstance(run.name, tuple):
            return
        for get_key, table in self._entered.get(_kind(name), ()):
            key = get_key(name)
            entry = table.entries.get(key)
            if entry is run:
                table.remove(key)
            elif isinstance(entry, _Table) and run in entry.entries:
                entry.remove(run)
                if not entry.entries:
                    table.remove(key)


def _kind(name: Tuple) -> int | _Shape:
    """Return the shape of *name*; if no field is ANY, return its length, which is faster."""
    for field in name:
        if field is ANY:
            return tuple(each is ANY for each in name)
    return len(name)


def _key_getter(shape: _Shape) -> _GetKey:
    """Return a function that returns the fields of a name that are not ANY in *shape*."""
    if True not in shape:
        return tuple
    fields = [index for index, is_any in enumerate(shape) if not is_any]
    return itemgetter(*fields) if fields else itemgetter(slice(0))
