"""The one timer of a thread map: wakes for waits that are over, and for who does not stop."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, final

from namedtasks._log import complain
from namedtasks._threads import turnstile
from namedtasks._threads.locking import Lot

if TYPE_CHECKING:
    from namedtasks._threads.shell import Shell


@final
class Alarm:
    """Sleeps until something is due, in a daemon thread that exists while something will be.

    Then a run that has sat out a wait begins, or one that did not stop is overdue.
    """

    __slots__ = ("_bed", "_due", "_exists", "_shell")

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._bed = Lot()
        self._exists = False
        self._due = math.inf

    def update(self) -> None:
        """Call this when the timers have changed; not under the guard."""
        if not self._exists and not self._shell.engine.timers:
            return  # who changes that meanwhile, calls this too
        with self._shell.guard:
            due = self._shell.engine.timers.next_due()
            if self._exists or due is None:
                if due is None or due < self._due:
                    self._bed.unpark_all()
                return
            self._exists = True
        if not turnstile.put_off(self._shell, self._start):
            self._start()

    def _start(self) -> None:
        turnstile.enter(self._shell)
        try:
            threading.Thread(
                target=self._keep_time, name="namedtasks: the map's timer", daemon=True
            ).start()
        except Exception as error:
            with self._shell.guard:
                self._exists = False
            # At the interpreter's exit there are none to be had (from Python 3.12 on): who
            # shuts the map down then looks for itself what is overdue.
            if threading.main_thread().is_alive():
                complain("no thread can be started for a map's timer", error)
        finally:
            turnstile.leave()

    def _keep_time(self) -> None:
        shell = self._shell
        while True:
            with shell.guard:
                due = shell.engine.timers.next_due()
                if due is None:
                    self._exists = False
                    return
                self._due = due
                sleeper = self._bed.enter()
            shell.clock.wait(sleeper.lock, due)
            with shell.guard:
                self._bed.leave(sleeper)
            shell.on_time()
