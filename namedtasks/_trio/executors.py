"""Functions that run elsewhere: on the map's own threads, or on an executor of the user's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Executor = Callable[..., Awaitable[Any]]
"""Anything shaped like `trio.to_thread.run_sync`: takes a function and its arguments."""


async def call_in_executor(
    executor: Executor, fn: Callable[..., object], args: tuple[object, ...]
) -> object:
    """The body of a run that has a function run elsewhere."""
    return await executor(fn, *args)
