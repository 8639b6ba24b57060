"""Interfaces that you may implement: backoff policies, clocks and instruments.

`BackoffPolicy` and `Clock` are protocols: any object with the methods is one.
`Instrument` is a base class: override the methods for the events that you want.
The events are in `namedtasks.instruments`.
"""

from __future__ import annotations

import threading
from typing import Protocol

from namedtasks._backoff import BackoffPolicy as BackoffPolicy, FailedRun as FailedRun
from namedtasks._events import Instrument as Instrument


class Clock(Protocol):
    """A source of time for a `ThreadTaskMap`, for example `namedtasks.testing.ManualClock`.

    Many threads call both methods at once, and ``now`` is called under the map's
    lock: it must be quick, and must neither raise nor call the map.

    Example:
        On this clock time passes a thousand times as fast: the name waits for 0.5 ms.

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
        """Return the seconds since some fixed moment; they never decrease."""
        ...

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        """Acquire *wake*, or return at the time *until* on this clock; infinite for never.

        The lock is held when this is called, and another thread releases it to
        end the wait. It does not matter which of the two came first: the caller
        checks its own condition again.

        An error of this method is raised to the caller that waits. The map's own
        timer thread logs it and starts again with the next change of the map;
        until then the threads that wait do the timer's work.
        """
        ...
