"""Who is told what, and in which order: the futures of a run, and the instruments.

Each thread tells the instruments what it has itself brought about. But what is
about a name of which another thread is just telling something, that one will tell,
too: so the events of one name are heard in order, though no lock is held meanwhile.
"""

from __future__ import annotations

import abc
import math
import threading
from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING

from namedtasks._core.conductor import Conductor
from namedtasks._core.dispatch import Noted
from namedtasks._core.engine import Engine
from namedtasks._core.holds import Hold
from namedtasks._core.text import task_text
from namedtasks._core.turns import Turn
from namedtasks._log import complain
from namedtasks._threads.locking import Guard, Lot
from namedtasks._threads.run import ThreadRun

if TYPE_CHECKING:
    from namedtasks.abc import Clock


class _ToTell(threading.local):
    """What the calling thread has yet to tell the instruments."""

    def __init__(self) -> None:
        self.noted: deque[Noted] = deque()
        self.names: list[Hashable] = []
        """The names whose events this thread delivers."""
        self.is_telling = False
        self.is_settling = False
        """Whether it is just telling futures."""


class Telling(Conductor[ThreadRun, Lot], abc.ABC):
    """The part of the shell that lets futures and instruments know, and waits for that."""

    __slots__ = ("_behind", "_guard", "_to_tell", "_unfinished", "all_told", "clock")

    def __init__(self, engine: Engine[ThreadRun], clock: Clock) -> None:
        guard = Guard(self._take_events)
        super().__init__(
            engine,
            now=clock.now,
            make_lot=Lot,
            guard=guard,
            reads_freely=False,
            complain=complain,
        )
        self._guard = guard
        self.clock: Clock = clock
        self._to_tell = _ToTell()
        self._behind: dict[Hashable, deque[Noted]] = {}
        """The events that a thread has to deliver after those that it is delivering, by the
        names of their runs. Guarded."""
        self._unfinished = 0
        """The number of runs that have ended before their futures are done, and of names whose
        events a thread is delivering: the end of the block waits for both."""
        self.all_told: Lot = Lot()
        """Who waits until there are none."""

    # The futures

    def _woken(self, turn: Turn[ThreadRun], *ended: ThreadRun) -> Turn[ThreadRun]:
        self._unfinished += len(ended) + len(turn.dropped)
        return super()._woken(turn, *ended)

    def _tell(self, run: ThreadRun) -> None:
        """Tell the end of *run* to its futures, and to the instruments."""
        futures, run.futures, run.job = run.futures, [], None
        # Each run that ends comes here exactly once.
        has_begun = futures[0].running() or run.returned
        to_tell = self._to_tell
        was_settling, to_tell.is_settling = to_tell.is_settling, True
        try:
            for future in futures:
                try:
                    future._settle(has_begun=has_begun)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
                except BaseException as error:  # no Exception: the future has caught those
                    text = task_text(run.name, run.operation)
                    complain(f"a callback of the future of {text} failed", error)
        finally:
            to_tell.is_settling = was_settling
        run.value = None
        self.deliver()
        with self.guard:
            self._count_finished(1)

    def _count_finished(self, number: int) -> None:
        """So many of `_unfinished` are none any more. Under the guard."""
        self._unfinished -= number
        if not self._unfinished:
            self._close_if_over()
            self.all_told.unpark_all()

    # The instruments

    def _take_events(self) -> None:
        """The guard is about to be left: what this thread has noted, it will tell.

        An event of a name whose events another thread is delivering is delivered by
        that one, after those: the events of a name keep their order.
        """
        for noted in self.engine.dispatch.take():
            run = noted[2]
            if not isinstance(run, ThreadRun):
                self._to_tell.noted.append(noted)
            elif run.name in self._behind:
                self._behind[run.name].append(noted)
            else:
                self._behind[run.name] = deque()
                self._unfinished += 1
                self._to_tell.names.append(run.name)
                self._to_tell.noted.append(noted)

    def deliver(self) -> None:
        """Let the instruments hear what this thread has to tell."""
        to_tell = self._to_tell
        if to_tell.is_telling:  # an instrument calls the map
            self.engine.dispatch.deliver(to_tell.noted)
            return
        to_tell.is_telling = True
        try:
            while self._has_more(to_tell):
                self.engine.dispatch.deliver(to_tell.noted)
        finally:
            to_tell.is_telling = False

    def _has_more(self, to_tell: _ToTell) -> bool:
        if not to_tell.noted and to_tell.names:
            with self.guard:
                for name in to_tell.names:
                    to_tell.noted.extend(self._behind[name])
                    self._behind[name].clear()
                if not to_tell.noted:
                    for name in to_tell.names:
                        del self._behind[name]
                    self._count_finished(len(to_tell.names))
                    to_tell.names.clear()
        return bool(to_tell.noted)

    # Waiting for that

    def tells_here(self) -> bool:
        """Whether this thread is just telling something: the end of the block waits for that."""
        return self._to_tell.is_settling or self._to_tell.is_telling

    def hold_all_told(self) -> Hold[Lot] | None:
        """Keep a wait until nothing runs and all has been told."""
        return Hold(self.all_told, math.inf) if self._unfinished else self.hold_idle()

    def hold_telling(self) -> Hold[Lot] | None:
        """Keep a wait until nobody is telling anything, whatever runs."""
        return Hold(self.all_told, math.inf) if self._unfinished else None

    def wake_all(self) -> None:
        """Wake all who wait, for whatever it is: they look again. Under the guard."""
        self._wake_starters()
        self.quiet.unpark_all()
        self.all_told.unpark_all()

    def close_if_over(self) -> None:
        """Close if nothing runs and nobody is being told who may start something yet."""
        with self.guard:
            self._close_if_over()

    def _close_if_over(self) -> None:
        if self.block_done and not self._unfinished and self.is_idle():
            self._close()
