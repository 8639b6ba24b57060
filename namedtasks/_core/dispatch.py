"""Takes events to the instruments that want them."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable
from typing import final

from namedtasks._core.complaints import Complain
from namedtasks._core.events import EVENTS, Instrument, TaskEvent
from namedtasks._core.runs import Run
from namedtasks._core.text import repr_of

Noted = tuple[Instrument, TaskEvent, Run | None]
"""Who is to hear an event, the event, and the run that it is about, if it is about one."""


@final
class Dispatch:
    """Notes events, and delivers them when its owner says so.

    Noting is the core's part and runs no code but ours; delivering is the
    shell's, at a moment when nothing is half done. Events are delivered in the
    order in which they were noted, also if an instrument's own calls cause more.
    Nothing that an instrument raises gets out of here.
    """

    __slots__ = ("_complain", "_noted", "_unplugged", "listeners")

    def __init__(self, instruments: Iterable[Instrument], complain: Complain) -> None:
        self._complain = complain
        self._noted: deque[Noted] = deque()
        # Grows only: two threads may find out at once, and each sees its own entry.
        self._unplugged: list[Instrument] = []
        self.listeners: dict[type[TaskEvent], tuple[Instrument, ...]] = {}
        """Who hears what; an event that nobody hears is not in here."""
        given = tuple(instruments)
        for instrument in given:
            check_instrument(instrument)
        for event in EVENTS:
            who = tuple(one for one in given if _overrides(one, event.hook))
            if who:
                self.listeners[event] = who

    def wants(self, event: type[TaskEvent]) -> bool:
        """Whether anyone listens: who notes an event asks first, and makes none for nobody."""
        return event in self.listeners

    def note(self, event: TaskEvent, run: Run | None = None) -> None:
        """Have *event*, which is about *run*, delivered next time."""
        for instrument in self.listeners.get(type(event), ()):
            self._noted.append((instrument, event, run))

    def take(self) -> deque[Noted]:
        """Take away what was noted, to `deliver` it elsewhere."""
        noted = self._noted
        if noted:
            self._noted = deque()
        return noted

    def deliver(
        self, noted: deque[Noted] | None = None, keep: Callable[[Run], bool] | None = None
    ) -> None:
        """Tell the instruments what was noted; one that raises is unplugged and complained of.

        Called again by an instrument, it goes on where that call left off: the
        other instruments hear first what this one is hearing.

        Args:
            noted: The events to deliver; by default those of `note`.
            keep: Returns whether the events of a run must wait for a later call. Such an
                event holds back all later ones, so their order does not change.
        """
        if noted is None:
            noted = self._noted
        while noted:
            # Taken before anything is called: a signal handler may call this in between.
            first = noted.popleft()
            instrument, event, run = first
            if keep is not None and run is not None and keep(run):
                noted.appendleft(first)
                return
            if not self._is_plugged_in(instrument):
                continue
            try:
                getattr(instrument, event.hook)(event)
            except BaseException as error:  # whatever it is, the map goes on
                self._unplug(instrument)
                what = f"instrument {repr_of(instrument)} raised in {event.hook}()"
                self._complain(f"{what} and was unplugged", error)

    def _is_plugged_in(self, instrument: Instrument) -> bool:
        return not any(one is instrument for one in self._unplugged)

    def _unplug(self, broken: Instrument) -> None:
        self._unplugged.append(broken)
        left = {
            event: tuple(one for one in who if self._is_plugged_in(one))
            for event, who in self.listeners.items()
        }
        self.listeners = {event: who for event, who in left.items() if who}


def check_instrument(instrument: object) -> None:
    """Whether *instrument* can be one.

    Raises:
        TypeError: it is no `Instrument`, or one of its methods is async.
    """
    if not isinstance(instrument, Instrument):
        raise TypeError(f"an instrument must be an Instrument, not {repr_of(instrument)}")
    for event in EVENTS:
        if inspect.iscoroutinefunction(getattr(instrument, event.hook)):
            raise TypeError(
                f"{event.hook}() of {repr_of(instrument)} must be a plain function, not async"
            )


def _overrides(instrument: Instrument, hook: str) -> bool:
    method = getattr(instrument, hook)
    return getattr(method, "__func__", method) is not getattr(Instrument, hook)
