"""Stops at a signal, at any moment: the first one cancels, further ones change nothing."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from volume_controller.signals import heard_signals, hold_signals, release_signals


@attrs.define(eq=False)
class Stop:
    """What a signal cancels, and which one it was."""

    tell: Callable[[signal.Signals], None]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """Put the work into it, and the clean-up behind it."""
    signal: int | None = attrs.field(default=None, init=False)
    """The first signal that came, if any."""

    async def listen(self, signals: AsyncIterator[int]) -> None:
        """Cancel at the first signal. The clean-up is not to be hurried by a second one."""
        async for number in signals:
            if self.signal is None:
                self.signal = number
                self.scope.cancel()
                self.tell(signal.Signals(number))


@asynccontextmanager
async def stop_on_signals(tell: Callable[[signal.Signals], None]) -> AsyncGenerator[Stop]:
    """Take over the signals for as long as the block lasts."""
    stop = Stop(tell)
    with trio.open_signal_receiver(*heard_signals()) as signals:
        release_signals()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop.listen, signals)
            yield stop
            hold_signals()
            nursery.cancel_scope.cancel()
