"""Interfaces that you may implement: backoff policies, clocks and instruments.

`BackoffPolicy` and `Clock` are protocols: any object with the methods is one.
`Instrument` is a base class: override the methods for the events that you want.
The events are in `namedtasks.instruments`. `AnyTaskMap` is what an instrument
gets of its map.
"""

from __future__ import annotations

import threading
from typing import Protocol

from namedtasks._any_task_map import AnyTaskMap as AnyTaskMap
from namedtasks._backoff import BackoffPolicy as BackoffPolicy, FailedRun as FailedRun
from namedtasks._events import Instrument as Instrument


class Clock(Protocol):
    """A source of time for a `ThreadTaskMap`, for example `namedtasks.testing.ManualClock`.

    Many threads call both methods at once. The map calls ``now`` under its lock, so
    ``now`` must be quick, must not raise, and must not call the map.

    Example:
        On this clock, time passes a thousand times as fast: the name waits for 0.5 ms.

        >>> import threading
        >>> import time
        >>> from namedtasks import ThreadTaskMap
        >>> class Fast:
        ...     def now(self):
        ...         return time.monotonic() * 1000
        ...     def wait(self, wake, until):
        ...         seconds = min((until - self.now()) / 1000, threading.TIMEOUT_MAX)
        ...         wake.acquire(timeout=max(seconds, 0))
        >>> def attach():
        ...     raise OSError("device busy")
        >>> with ThreadTaskMap(clock=Fast(), instruments=()) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     tasks.wait_free("pvc-1")
        True

    .. versionadded:: 0.1
    """

    def now(self) -> float:
        """Return the seconds since a fixed moment; they never decrease."""
        ...

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        """Acquire *wake*, or return at the time *until* on this clock; infinite for never.

        The lock is held when this is called, and another thread releases it to end
        the wait. The caller checks its own condition after that, so it does not
        matter why this method returned.

        The caller that waits gets the errors of this method. The map's own timer
        thread logs them, and starts again with the next change of a timer.
        """
        ...
