"""Functions that run elsewhere: on the map's own threads, or on an executor of the user's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from trio.lowlevel import enable_ki_protection

Executor = Callable[..., Awaitable[Any]]
"""Anything shaped like `trio.to_thread.run_sync`: takes a function and its arguments."""


@enable_ki_protection
async def call_in_executor(
    executor: Executor, fn: Callable[..., object], args: tuple[object, ...]
) -> object:
    """Run a function elsewhere: the body of a run of `start_thread_soon`.

    Protected from Ctrl-C, so that a KeyboardInterrupt that *executor* raises comes from the
    function, and is a failure of the run.
    """
    return await executor(fn, *args)
