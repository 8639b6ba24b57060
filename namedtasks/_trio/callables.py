"""What users give us to call: which mistakes can be told, and told at the call."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeGuard, cast

from trio.lowlevel import disable_ki_protection

from namedtasks._core.text import repr_of

Body = Coroutine[Any, Any, Any]
"""What an async function gives when it is called."""

Executor = Callable[..., Awaitable[Any]]
"""Anything shaped like `trio.to_thread.run_sync`: takes a function and its arguments."""


def _is_coroutine(value: object) -> TypeGuard[Body]:
    return type(value) is types.CoroutineType or isinstance(value, Coroutine)


@disable_ki_protection
def _call(async_fn: Callable[..., object], args: tuple[object, ...]) -> object:
    return async_fn(*args)


def body_of(async_fn: Callable[..., object], args: tuple[object, ...]) -> Body:
    """Call *async_fn* for its coroutine.

    Raises:
        TypeError: what it gives is no coroutine.
    """
    body = _call(async_fn, args)
    if _is_coroutine(body):
        return body
    if isinstance(body, types.AsyncGeneratorType):
        raise TypeError(
            f"start_soon() takes an async function, and {repr_of(async_fn)} is an async "
            "generator: it must not yield"
        )
    raise TypeError(
        f"start_soon() takes an async function, and {repr_of(async_fn)} gave {repr_of(body)}; "
        "for a plain function use start_thread_soon()"
    )


def check_async_fn(async_fn: object) -> None:
    """Whether *async_fn* can be called.

    Raises:
        TypeError: it cannot; a coroutine that was given in its place is closed.
    """
    if callable(async_fn):
        return
    if _is_coroutine(async_fn):
        async_fn.close()
        raise TypeError(
            "start_soon() takes an async function and its arguments, not a coroutine: "
            "write start_soon(name, fn, arg), not start_soon(name, fn(arg))"
        )
    raise TypeError(f"start_soon() takes an async function, not {repr_of(async_fn)}")


def check_plain_fn(fn: object) -> None:
    """Whether *fn* can be called, and is not async, also inside of `functools.partial`.

    Raises:
        TypeError: it cannot, or is.
    """
    if not callable(fn):
        if _is_coroutine(fn):
            fn.close()
        raise TypeError(f"start_thread_soon() takes a plain function, not {repr_of(fn)}")
    inner: object = fn
    while isinstance(inner, functools.partial):
        inner = cast("functools.partial[object]", inner).func
    call = None if isinstance(inner, type) else type(inner).__call__  # a class is called plainly
    for one in (inner, call):
        if inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one):
            raise TypeError(
                f"start_thread_soon() takes a plain function, and {repr_of(fn)} is async: "
                "use start_soon()"
            )


async def call_in_executor(
    executor: Executor, fn: Callable[..., object], args: tuple[object, ...]
) -> object:
    """The body of a run that has a function run elsewhere."""
    return await executor(fn, *args)
