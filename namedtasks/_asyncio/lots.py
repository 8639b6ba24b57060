"""Where those sleep who wait for one thing."""

from __future__ import annotations

import asyncio
import contextvars
import math
from typing import Any, final


@final
class UncancellableFuture(asyncio.Future[None]):
    """A future that a cancelled Task goes on waiting for, without being woken.

    anyio cancels a Task again in each turn of the loop until it leaves the scope. For a
    Task that has taken note of its cancellation, and has to wait all the same, each of
    those would be a step that changes nothing.
    """

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002 - asyncio's signature
        """Do nothing; the True makes `asyncio.Task.cancel` take the request for delivered."""
        return True


@final
class Lot:
    """Who sleeps until woken, or until a time on the loop's clock.

    Being woken is no promise: others may run before the sleeper does. So who
    sleeps here looks again.
    """

    __slots__ = ("_loop", "_sleepers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sleepers: dict[asyncio.Future[None], None] = {}

    def __len__(self) -> int:
        return len(self._sleepers)

    def unpark_all(self) -> None:
        """Wake all who sleep here now."""
        for sleeper in self._sleepers:
            _wake(sleeper)

    async def park(self, until: float = math.inf, *, is_uncancellable: bool = False) -> None:
        """Sleep until woken, or until a time; if *is_uncancellable*, also through cancellations."""
        sleeper: asyncio.Future[None] = (
            UncancellableFuture(loop=self._loop) if is_uncancellable else self._loop.create_future()
        )
        timer = None
        if until != math.inf:
            timer = self._loop.call_at(until, _wake, sleeper, context=contextvars.Context())
        self._sleepers[sleeper] = None
        try:
            await sleeper
        finally:
            del self._sleepers[sleeper]
            if timer is not None:
                timer.cancel()


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
