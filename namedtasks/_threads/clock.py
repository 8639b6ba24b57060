"""The time that goes by when nobody injects another."""

from __future__ import annotations

import threading
import time
from typing import final


@final
class MonotonicClock:
    """The system's monotonic clock, which no change of the date or time moves."""

    __slots__ = ()

    def now(self) -> float:
        """Tell the time, in seconds since some moment."""
        return time.monotonic()

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        """Acquire *wake*, or give up when it is *until*."""
        seconds = until - time.monotonic()
        if seconds > threading.TIMEOUT_MAX:
            wake.acquire()
        else:
            wake.acquire(timeout=max(seconds, 0.0))
