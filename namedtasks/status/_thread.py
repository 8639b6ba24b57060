"""Threads of the page's own, so that it answers while all threads of the program are busy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync

T = TypeVar("T")

MOST_THREADS: Final = 4
"""Threads in one event loop. Arbitrary: they wait for one lock most of the time."""

_limiters: RunVar[CapacityLimiter] = RunVar("namedtasks.status")
"""The limiter of each event loop."""


async def in_thread(fn: Callable[[], T]) -> T:
    """Call *fn* in a thread: with 10 000 names it would block the event loop for 15 to 50 ms."""
    limiter = _limiters.get(None)
    if limiter is None:
        limiter = CapacityLimiter(MOST_THREADS)
        _limiters.set(limiter)
    return await run_sync(fn, limiter=limiter)
