"""A clock that moves when the test says so."""

from __future__ import annotations

import contextlib
import threading
from typing import final

from namedtasks._core import checks


@final
class ManualClock:
    """The time of a `ThreadTaskMap` under test: it stands still until `advance`.

    Args:
        start: What it shows at first, in seconds.

    Raises:
        TypeError: *start* is no number.
        ValueError: it is negative, infinite or NaN.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> def attach():
        ...     raise OSError("device busy")
        >>> clock = ManualClock()
        >>> with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     tasks.state("pvc-1")
        ...     clock.advance(0.5)
        ...     tasks.state("pvc-1")
        <State.WAITING: 'waiting'>
        <State.READY: 'ready'>

    .. versionadded:: 0.1
    """

    def __init__(self, start: float = 0.0) -> None:
        """Start at *start* seconds."""
        self._now = checks.finite("start", start)
        self._lock = threading.Lock()
        self._sleepers: dict[threading.Lock, float] = {}

    def now(self) -> float:
        """Tell the time, in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let *seconds* go by, and wake who has waited for that.

        Those wake in their own threads: they may do so a moment after this
        returns.

        Raises:
            TypeError: *seconds* is no number.
            ValueError: it is negative, infinite or NaN.
        """
        seconds = checks.finite("seconds", seconds)
        with self._lock:
            self._now += seconds
            due = [wake for wake, until in self._sleepers.items() if until <= self._now]
            for wake in due:
                del self._sleepers[wake]
                # Somebody else may wake it at the same moment.
                with contextlib.suppress(RuntimeError):
                    wake.release()

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        """Acquire *wake*, or give up when the clock has been advanced to *until*."""
        with self._lock:
            if until <= self._now:
                return
            self._sleepers[wake] = until
        try:
            wake.acquire()
        finally:
            with self._lock:
                self._sleepers.pop(wake, None)

    def __repr__(self) -> str:
        return f"<namedtasks.testing.ManualClock {self._now:g} s, {len(self._sleepers)} wait>"
