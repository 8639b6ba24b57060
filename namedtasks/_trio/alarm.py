"""The one timer of a trio map: wakes for waits that are over, and for who does not stop."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import enable_ki_protection

if TYPE_CHECKING:
    from namedtasks._trio.shell import Shell


@final
class Alarm:
    """Sleeps until something is due, in a task that exists only while something will be.

    Then a run that has sat out a wait begins, or one that did not stop is
    overdue. The task is shielded: what is cancelled is just what it is to watch.
    It ends when nothing will be due, so it never holds the block open.
    """

    __slots__ = ("_shell", "_sleep")

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._sleep: trio.CancelScope | None = None

    def update(self) -> None:
        """Call this when the timers have changed."""
        due = self._shell.engine.timers.next_due()
        if self._sleep is None:
            if due is not None:
                self._spawn()
                self._sleep = trio.CancelScope(shield=True, deadline=due)
        elif due is None:
            self._sleep.cancel("nothing will be due")
        elif due < self._sleep.deadline:
            self._sleep.deadline = due

    def _spawn(self) -> None:
        """Start the task in a context of its own: it serves all, not only who woke it."""
        start_soon = self._shell.nursery.start_soon
        contextvars.Context().run(
            lambda: start_soon(self._keep_time, name="namedtasks: the map's timer")
        )

    @enable_ki_protection
    async def _keep_time(self) -> None:
        engine = self._shell.engine
        try:
            while (due := engine.timers.next_due()) is not None:
                self._sleep = trio.CancelScope(shield=True, deadline=due)
                with self._sleep:
                    await trio.sleep_forever()
                self._shell.on_time()
        finally:
            self._sleep = None
