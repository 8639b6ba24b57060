"""Functions that run elsewhere: on the map's own threads, or on an executor of the user's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from trio.lowlevel import enable_ki_protection

from namedtasks._core.callables import plain_result
from namedtasks._current import executed_for, running_in
from namedtasks._log import complain

VERB, CURE = "start_thread_soon()", "use start_soon()"
"""The method and the cure that the error for an async function names."""

Executor = Callable[..., Awaitable[Any]]
"""Anything shaped like `trio.to_thread.run_sync`: takes a function and its arguments."""


@enable_ki_protection
async def call_in_executor(
    executor: Executor, fn: Callable[..., object], args: tuple[object, ...]
) -> object:
    """Run a function elsewhere: the body of a run of `start_thread_soon`.

    Protected from Ctrl-C, so that a KeyboardInterrupt that *executor* raises comes from the
    function, and is a failure of the run.

    Raises:
        TypeError: the function returned a coroutine.
    """
    executed_for.set(running_in.get())
    return plain_result(VERB, fn, await executor(fn, *args), CURE, complain)


def call_in_thread(fn: Callable[..., object], args: tuple[object, ...]) -> object:
    """Call *fn* in a thread of trio's, before trio refuses a coroutine in its own words.

    Raises:
        TypeError: the function returned a coroutine.
    """
    return plain_result(VERB, fn, fn(*args), CURE, complain)
