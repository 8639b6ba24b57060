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
        """
        ...
