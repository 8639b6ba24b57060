"""What users give us to call: the mistakes that can be told at the call, and bodies never begun."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Coroutine
from typing import Any, TypeGuard, cast

import attrs

from namedtasks._core.complaints import Complain
from namedtasks._core.text import repr_of

Body = Coroutine[Any, Any, Any]
"""What an async function gives when it is called."""

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR


@attrs.frozen
class Words:
    """What a dialect calls its two ways to start."""

    start: str
    """The one that takes an async function: ``start_soon``."""
    start_plain: str
    """The one that takes a plain function: ``start_thread_soon``."""


def is_coroutine(value: object) -> TypeGuard[Body]:
    """Whether *value* is what an async function gives."""
    return type(value) is types.CoroutineType or isinstance(value, Coroutine)


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


def check_body(words: Words, async_fn: Callable[..., object], body: object) -> Body:
    """Whether *body*, which *async_fn* gave, is a coroutine.

    Raises:
        TypeError: it is none.
    """
    if is_coroutine(body):
        return body
    if isinstance(body, types.AsyncGeneratorType):
        raise TypeError(
            f"{words.start}() takes an async function, and {repr_of(async_fn)} is an async "
            "generator: it must not yield"
        )
    raise TypeError(
        f"{words.start}() takes an async function, and {repr_of(async_fn)} gave {repr_of(body)}; "
        f"for a plain function use {words.start_plain}()"
    )


def check_async_fn(words: Words, async_fn: object) -> None:
    """Whether *async_fn* can be called.

    Raises:
        TypeError: it cannot; a coroutine that was given in its place is closed.
    """
    if callable(async_fn):
        return
    if is_coroutine(async_fn):
        async_fn.close()
        raise TypeError(
            f"{words.start}() takes an async function and its arguments, not a coroutine: "
            f"write {words.start}(name, fn, arg), not {words.start}(name, fn(arg))"
        )
    raise TypeError(f"{words.start}() takes an async function, not {repr_of(async_fn)}")


def is_begun(body: types.CoroutineType[Any, Any, Any]) -> bool:
    """Whether a coroutine has taken its first step."""
    return inspect.getcoroutinestate(body) != inspect.CORO_CREATED


def close_unbegun(body: Body | None, what: Callable[[], str], complain: Complain) -> None:
    """Let go of a *body* that never began; closed, so that nobody is warned of it.

    Args:
        body: None if there is none.
        what: Whose body it is, in words.
        complain: Hears of a coroutine of a type of the user's own that cannot be closed.
    """
    if body is None or (inspect.iscoroutine(body) and is_begun(body)):
        return  # somebody else's: an async function gave out the same coroutine twice
    try:
        body.close()
    except BaseException as error:
        complain(f"closing the body of {what()} failed", error)
