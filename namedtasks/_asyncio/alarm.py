"""The one timer of an asyncio map: wakes for waits that are over, and for who does not stop."""

from __future__ import annotations

import asyncio
import contextvars
import math
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from namedtasks._asyncio.shell import Shell


@final
class Alarm:
    """Has the loop call when something is due, and only while something will be.

    Then a run that has sat out a wait begins, or one that did not stop is overdue.
    """

    __slots__ = ("_due", "_shell", "_timer")

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def update(self) -> None:
        """Call this when the timers have changed."""
        due = self._shell.engine.timers.next_due()
        if due is None:
            self._disarm()
        elif due < self._due:
            self._disarm()
            self._due = due
            # In a context of its own: it serves all, not only who woke it.
            self._timer = self._shell.loop.call_at(due, self._wake, context=contextvars.Context())

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = math.inf

    def _wake(self) -> None:
        self._disarm()
        self._shell.on_time()
        self.update()
