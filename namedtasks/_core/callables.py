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
    if type(fn) is types.FunctionType and not fn.__code__.co_flags & _ASYNC and not fn.__dict__:
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
    if _is_async(inner) or _is_async(call):
        raise TypeError(f"{verb} takes a plain function, and {repr_of(fn)} is async: {cure}")


def _is_async(fn: object) -> bool:
    """Return whether a call of *fn* is known to give a coroutine or an async generator."""
    if isinstance(fn, types.MethodType):
        fn = fn.__func__
    if type(fn) is types.FunctionType and fn.__code__.co_flags & _ASYNC:
        return True
    if "__wrapped__" in getattr(fn, "__dict__", ()):
        # `functools.wraps` also copies the mark of `inspect.markcoroutinefunction`. Whether the
        # wrapper is async as well is known when it returns: see `coroutine_error`.
        return False
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def coroutine_error(
    verb: str, fn: object, value: object, cure: str, complain: Complain
) -> TypeError | None:
    """Return the error of a run whose function returned a coroutine, which is closed.

    Args:
        verb: The verb that was given the function: ``submit()``.
        fn: The function, which should be a plain one.
        value: What it returned.
        cure: What to do with an async function.
        complain: Called if the coroutine is of a type of the user's own and cannot be closed.

    Returns:
        None if *value* is no coroutine.
    """
    # Not isinstance(), which asks the value for its __class__.
    if not issubclass(type(value), Coroutine) and not _is_generator_based(value):
        return None
    close_unbegun(cast("Body", value), lambda: repr_of(fn), complain)
    return TypeError(
        f"{verb} takes a plain function, and {repr_of(fn)} returned a coroutine, "
        f"which was not awaited: {cure}"
    )


def plain_result(verb: str, fn: object, value: object, cure: str, complain: Complain) -> object:
    """Return *value*, which *fn* gave.

    Raises:
        TypeError: it is a coroutine; see `coroutine_error`.
    """
    error = coroutine_error(verb, fn, value, cure, complain)
    if error is None:
        return value
    try:
        raise error
    finally:
        del error  # no cycle through its traceback


def _is_generator_based(value: object) -> TypeGuard[types.GeneratorType[Any, Any, Any]]:
    """Return whether *value* is what a generator function under `types.coroutine` gives."""
    return type(value) is types.GeneratorType and bool(
        value.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE
    )


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
    if _is_generator_based(body):
        raise TypeError(
            f"{words.start}() takes an async function, and {repr_of(async_fn)} gives "
            "generator-based coroutines (types.coroutine): await it in an async function"
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


def is_begun(body: object) -> bool:
    """Return whether *body* has taken its first step; False for a type of the user's own."""
    if inspect.iscoroutine(body):
        return inspect.getcoroutinestate(body) != inspect.CORO_CREATED
    return inspect.isgenerator(body) and inspect.getgeneratorstate(body) != inspect.GEN_CREATED


def close_unbegun(body: Body | None, what: Callable[[], str], complain: Complain) -> None:
    """Let go of a *body* that never began; closed, so that nobody is warned of it.

    Args:
        body: None if there is none.
        what: Whose body it is, in words.
        complain: Hears of a coroutine of a type of the user's own that cannot be closed.
    """
    if body is None or is_begun(body):
        return  # somebody else's: an async function gave out the same coroutine twice
    try:
        body.close()
    except BaseException as error:
        complain(f"closing the body of {what()} failed", error)
