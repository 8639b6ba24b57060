"""The one timer of a thread map: wakes for waits that are over, and for who does not stop."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, final

from namedtasks._daemons import make_daemon
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

    __slots__ = ("_bed", "_due", "_exists", "_shell", "is_missing")

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._bed = Lot()
        self._exists = False
        self._due = math.inf
        self.is_missing: bool = False
        """Whether there should be a thread, and is none: then who waits does what is due."""

    def update(self) -> None:
        """Call this when the timers have changed; not under the guard."""
        if not self._exists and not self._shell.engine.timers:
            # Who changes the timers meanwhile calls this too, and the thread says that it is no
            # more only under the guard, having seen that there are none.
            return
        is_mine = False
        try:
            with self._shell.guard:
                due = self._shell.engine.timers.next_due()
                if self._exists or due is None:
                    if due is None or due < self._due:
                        self._bed.unpark_all()
                    return
                self._exists = is_mine = True
            if not turnstile.defer(self._shell, self._start):
                self._start()
        except RecursionError:
            if is_mine:
                self._exists = False  # at the end of the stack nothing can be called
            raise

    def due_unseen(self) -> float:
        """When something is due that who sleeps must look after himself; under the guard."""
        due = self._shell.engine.timers.next_due() if self.is_missing else None
        return math.inf if due is None else due

    def stand_in(self) -> None:
        """Do what is due, if there is no thread that does."""
        if self.is_missing:
            with self._shell.guard:
                is_due = self.due_unseen() <= self._shell.now()
            if is_due:
                self._shell.on_time()

    def _start(self) -> None:
        turnstile.enter(self._shell)
        try:
            make_daemon("namedtasks: the map's timer", self._keep_time).start()
        except Exception as error:
            # First what calls nothing: the rest fails at the end of the stack. There the thread
            # may have begun all the same; then there are two for a while, which does no harm.
            self._exists = False
            self.is_missing = True
            self._do_without("no thread can be started for a map's timer", error)
        finally:
            turnstile.leave()

    def _keep_time(self) -> None:
        try:
            while self._sleep():
                self._shell.on_time()
        except BaseException as error:  # the clock's, as a rule
            self._do_without("a map's timer has failed", error)

    def _sleep(self) -> bool:
        """Sleep until something is due; False if there is nothing to wait for any more."""
        shell = self._shell
        with shell.guard:
            self.is_missing = False  # not before: who does what is due looks at it at any time
            due = shell.engine.timers.next_due()
            if due is None:
                self._exists = False
                return False
            self._due = due
            sleeper = self._bed.enter()
        try:
            shell.clock.wait(sleeper.lock, due)
        finally:
            with shell.guard:
                self._bed.leave(sleeper)
        return True

    def _do_without(self, what: str, error: BaseException) -> None:
        """There is no thread. Until one can be had, those who wait do what is due."""
        with self._shell.guard:
            self._exists = False
            self.is_missing = True
            self._shell.wake_all()
        # At the interpreter's exit there are none to be had, from Python 3.12 on.
        if threading.main_thread().is_alive():
            complain(
                f"{what}: until one can be had, queued runs begin, and overdue ones are told, "
                "only when the map is called",
                error,
            )
