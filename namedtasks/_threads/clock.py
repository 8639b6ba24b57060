"""The default clock of a thread map.

freezegun replaces ``time.monotonic`` and every module global that refers to it, and a
wait on a clock that stands still never times out. So the function is bound to a class
attribute, which freezegun leaves alone.
"""

from __future__ import annotations

import threading
import time
from typing import final

from namedtasks._threads.main_thread import is_main

_LONGEST_IN_MAIN_THREAD = 1.0
"""Seconds for which Ctrl-C may be unheard there: a signal that comes just before a lock
is waited for does not interrupt that wait, and Python looks at signals only then."""


@final
class MonotonicClock:
    """The system's monotonic clock, which no change of the date or time moves."""

    __slots__ = ()

    _read = staticmethod(time.monotonic)

    def now(self) -> float:
        """Tell the time, in seconds since some moment."""
        return self._read()

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        """Acquire *wake*, or give up when it is *until*; in the main thread after a second."""
        seconds = until - self._read()
        if is_main():
            seconds = min(seconds, _LONGEST_IN_MAIN_THREAD)
        if seconds > threading.TIMEOUT_MAX:
            wake.acquire()
        else:
            wake.acquire(timeout=max(seconds, 0.0))
