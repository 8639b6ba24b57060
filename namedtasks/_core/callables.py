"""Which mistakes in what users give us to call can be told at the call."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Coroutine
from typing import cast

from namedtasks._core.text import repr_of

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR


def check_plain_fn(verb: str, fn: object, cure: str) -> None:
    """Whether *fn* can be called, and is not async, also inside of `functools.partial`.

    Args:
        verb: Who is given it: ``submit()``.
        fn: What should be a plain function.
        cure: What to do with an async one.

    Raises:
        TypeError: it cannot, or is.
    """
    if type(fn) is types.FunctionType and not fn.__code__.co_flags & _ASYNC:
        return  # what it mostly is
    if not callable(fn):
        given = repr_of(fn)
        if isinstance(fn, Coroutine):
            cast("Coroutine[object, object, object]", fn).close()
        raise TypeError(f"{verb} takes a plain function, not {given}")
    inner: object = fn
    while isinstance(inner, functools.partial):
        inner = cast("functools.partial[object]", inner).func
    call = None if isinstance(inner, type) else type(inner).__call__  # a class is called plainly
    for one in (inner, call):
        if inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one):
            raise TypeError(f"{verb} takes a plain function, and {repr_of(fn)} is async: {cure}")
