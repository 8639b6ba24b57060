"""What you may plug in: the interfaces that a map asks for.

`BackoffPolicy` and `Clock` are structural: anything with the matching methods is
one. `Instrument` is a base class: override what you want to hear. What its
methods are given is in `namedtasks.instruments`.
"""

from __future__ import annotations

import threading
from typing import Protocol

from namedtasks._core.backoff import BackoffPolicy as BackoffPolicy
from namedtasks._core.events import Instrument as Instrument


class Clock(Protocol):
    """The time that a `ThreadTaskMap` lives in, and how it goes by.

    `namedtasks.testing.ManualClock` is one. Both methods are called from many
    threads at once, and ``now`` under the map's lock: it must neither raise nor
    call the map, and be quick.

    Example:
        A clock on which all is a thousand times as fast: the name waits for 0.5 ms.

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
        """Tell the time: seconds since some moment, never going back."""
        ...

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        """Acquire *wake*, or give up when this clock says *until*; infinite for never.

        The lock is held when this is called, and somebody else releases it to
        end the wait. Whether it came to that or not is nobody's concern: who
        calls this looks again.

        What it raises, who waits raises. The map's own timer logs it, and begins
        anew with the next change; till then those who wait do what is due.
        """
        ...
