"""Stops the program at a signal, at any moment; only the first signal counts."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from volume_controller.signals import heard_signals, hold_signals, release_signals


@attrs.define(eq=False)
class Stop:
    """The scope that a signal cancels, and the signal."""

    tell: Callable[[signal.Signals], None]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """A scope for the work; do the clean-up after it."""
    signal: int | None = attrs.field(default=None, init=False)
    """The first signal that arrived, if any."""

    async def listen(self, signals: AsyncIterator[int]) -> None:
        """Cancel at the first signal. A second one must not interrupt the clean-up."""
        async for number in signals:
            if self.signal is None:
                self.signal = number
                self.scope.cancel()
                self.tell(signal.Signals(number))


@asynccontextmanager
async def stop_on_signals(tell: Callable[[signal.Signals], None]) -> AsyncGenerator[Stop]:
    """Handle the signals inside the block."""
    stop = Stop(tell)
    with trio.open_signal_receiver(*heard_signals()) as signals:
        release_signals()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop.listen, signals)
            yield stop
            hold_signals()
            nursery.cancel_scope.cancel()
