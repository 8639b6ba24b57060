"""What a record keeps in an error's place: a copy that keeps no frame alive."""

import copy
import weakref
from itertools import takewhile
from typing import Any, Final, cast

from namedtasks._core.errors import RecordedError
from namedtasks._core.text import str_of


def stand_in(error: BaseException) -> BaseException:
    """A copy of *error* that keeps no frame alive: no traceback, no cause, no context.

    Its arguments are the original's own, and what they refer to stays alive. A
    `RecordedError` has the type name and text of what cannot be copied: where
    copying raises, or gives the original itself or something else.
    """
    kind = type(error)
    # A metaclass of its own may have no hash.
    plain = _plain_kinds.get(kind) if type(kind) is type else False
    if plain is None:
        plain = _plain_kinds[kind] = _is_plain(kind)
    if plain:
        return _copy_of_plain(error)
    copied = (_copy_of_group if _is_group(error) else _copy_of)(error)
    for attribute in ("__cause__", "__context__", "__traceback__"):
        # Past the error's own __setattr__: a frozen class has one that raises.
        BaseException.__setattr__(copied, attribute, None)
    BaseException.__setattr__(copied, "__suppress_context__", False)
    return copied


_ALL_IN_ARGS: Final = frozenset(
    {
        ArithmeticError,
        AssertionError,
        BufferError,
        EOFError,
        Exception,
        IndexError,
        KeyError,
        LookupError,
        NotImplementedError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    }
)
"""Built-in errors that have nothing but their arguments and their attributes."""

_WAYS_OF_ITS_OWN: Final = frozenset(
    {
        "__copy__",
        "__getattribute__",
        "__getstate__",
        "__init__",
        "__new__",
        "__reduce__",
        "__reduce_ex__",
        "__setattr__",
        "__setstate__",
    }
)
"""What a class has that wants a say in how its instances are copied."""

_plain_kinds: weakref.WeakKeyDictionary[type[BaseException], bool] = weakref.WeakKeyDictionary()
"""Which types of errors are copied without a word from them; as it is asked at each failure."""


def _is_plain(kind: type[BaseException]) -> bool:
    """Whether errors of this *kind* are but arguments and attributes, with no ways of their own."""
    own = list(takewhile(lambda one: one not in _ALL_IN_ARGS, kind.__mro__))
    ways = [one for one in own if not _WAYS_OF_ITS_OWN.isdisjoint(vars(one))]
    slots = [one for one in own if vars(one).get("__slots__")]
    return len(own) < len(kind.__mro__) and not ways and not slots


def _copy_of_plain(error: BaseException) -> BaseException:
    copied: BaseException = BaseException.__new__(type(error))
    BaseException.__setattr__(copied, "args", error.args)  # the very tuple, at no further bytes
    state = error.__reduce__()[2:]  # which, unlike vars(), makes no dict where there is none
    if state:
        vars(copied).update(cast("tuple[dict[str, Any]]", state)[0])
    return copied


def _is_group(error: BaseException) -> bool:
    return isinstance(error, BaseExceptionGroup)


def _copy_of(error: BaseException) -> BaseException:
    try:
        copied: BaseException = copy.copy(error)
        if _is_faithful(copied, error):
            return copied
    except BaseException:  # copying runs the error's own code, which may raise anything
        pass
    try:
        copied = _copy_past_init(error)
        if _is_faithful(copied, error) and str_of(copied) == str_of(error):
            return copied
    except BaseException:  # not every type can be made so
        pass
    return RecordedError.of(error)


def _copy_past_init(error: BaseException) -> BaseException:
    """Copy *error* where its ``__init__`` takes something else than its ``args``.

    That is so for all that format their message: ``super().__init__(f"...")``.
    """
    copied: BaseException = BaseException.__new__(type(error), *error.args)
    vars(copied).update(vars(error))
    return copied


def _is_faithful(copied: BaseException, error: BaseException) -> bool:
    return (
        copied is not error
        and type(copied) is type(error)
        and len(copied.args) == len(error.args)
        and all(one is other for one, other in zip(copied.args, error.args, strict=True))
    )


def _copy_of_group(error: BaseException) -> BaseException:
    group = cast("BaseExceptionGroup[BaseException]", error)
    try:
        derived = group.derive([stand_in(member) for member in group.exceptions])
        if type(derived) is type(group) and derived is not group:
            for note in getattr(group, "__notes__", ()):
                derived.add_note(note)
            return derived
    except BaseException:  # as above: derive() is the group's own
        pass
    return RecordedError.of(error)
