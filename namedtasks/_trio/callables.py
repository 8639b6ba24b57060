"""What users give us to call: which mistakes can be told, and told at the call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from trio.lowlevel import disable_ki_protection

from namedtasks._core.coroutines import Words

WORDS = Words("start_soon", "start_thread_soon")

Executor = Callable[..., Awaitable[Any]]
"""Anything shaped like `trio.to_thread.run_sync`: takes a function and its arguments."""


@disable_ki_protection
def call(async_fn: Callable[..., object], args: tuple[object, ...]) -> object:
    """Call the user's function where Ctrl-C may interrupt it."""
    return async_fn(*args)


async def call_in_executor(
    executor: Executor, fn: Callable[..., object], args: tuple[object, ...]
) -> object:
    """The body of a run that has a function run elsewhere."""
    return await executor(fn, *args)
