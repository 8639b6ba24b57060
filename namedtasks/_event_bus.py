"""The delivery of events: which instrument gets which event, when, and in which order."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from contextvars import Context
from threading import Lock
from typing import Any, final
from weakref import ref

from namedtasks._any_task_map import AnyTaskMap
from namedtasks._events import EVENTS, Instrument, TaskEvent
from namedtasks._logging import log_error
from namedtasks._validation import check_flag, safe_repr

_IN_CONTEXT = {"task_started", "task_refused", "task_joined", "task_queued"}
"""The methods that are called at once, in the context that they are about, if an instrument has
`Instrument.in_context`."""


@final
class _MapClosed(Instrument):
    """The last call of an instrument, in the queue of the events.

    It takes the place of the event, and that of the instrument, too: so it is made after
    the instrument has raised and gets no events.
    """

    hook = "map_closed"

    def __init__(
        self, instrument: Instrument, tasks: AnyTaskMap, remove: Callable[[Instrument], object]
    ) -> None:
        self._instrument = instrument
        self._tasks = tasks
        self._remove = remove

    def map_closed(self, _: object, /) -> None:
        self._remove(self._instrument)
        self._instrument.map_closed(self._tasks)

    def __repr__(self) -> str:
        return repr(self._instrument)


_Queued = tuple[Instrument, TaskEvent | _MapClosed, Any, Context | None]
"""An instrument, an event for it, the run of the event, or None, and the context in which the
instrument is called, or None if any will do."""


@final
class EventBus:
    """Delivers events to the instruments, one at a time and in the order of their emission.

    Emitting only queues an event, and runs no code of the user's. A thread, or a call, delivers
    the events if no other one is delivering. So an instrument that calls the map gets the events
    of that call later and in order, not inside the call.
    """

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._given = given = _check_instruments(instruments)
        for instrument in given:
            check_instrument(instrument)
        self.closing: tuple[Instrument, ...] = ()
        """The instruments that get `Instrument.map_closed`, once the map is open."""
        self._map: Callable[[], AnyTaskMap | None] = _no_map
        """Returns the map, unless it was dropped; set only if `closing` is not empty."""
        self._is_closed = False
        self.listeners: dict[str, tuple[Instrument, ...]] = {}
        """The instruments that override a method, by its name; no entry is empty."""
        for hook in EVENTS:
            listeners = tuple(one for one in given if _overrides(one, hook))
            if listeners:
                self.listeners[hook] = listeners
        self.direct: dict[str, tuple[Instrument, ...]] = {}
        """Those among them that get the event at once, in its context; no entry is empty."""
        self._queued: dict[str, tuple[Instrument, ...]] = {}
        """The others, which get it in order."""
        self._find_direct()
        self._direct_event: TaskEvent | None = None
        self.queued: deque[_Queued] = deque()
        """The events that are to be delivered. Whoever emits one sees it here."""
        self._delivering = Lock()
        self._removed: list[Instrument] = []

    def open(self, tasks: AnyTaskMap) -> None:
        """Call `Instrument.map_opened`. What that raises is raised: close the map then."""
        opened: list[Instrument] = []
        try:
            for instrument in self._given:
                instrument.map_opened(tasks)
                if _overrides(instrument, "map_closed"):
                    opened.append(instrument)
        finally:
            if opened:
                self._map = ref(tasks)  # no cycle: a map goes when it is dropped
                self.closing = tuple(opened)

    def keep_map(self) -> None:
        """Keep the map, which is being closed, until `queue_closed`."""
        tasks = self._map()
        self._map = lambda: tasks

    def queue_closed(self) -> None:
        """Queue the calls of `Instrument.map_closed`, the first time."""
        tasks = self._map()
        if tasks is not None and not self._is_closed:
            self._is_closed = True
            calls = [_MapClosed(instrument, tasks, self._remove) for instrument in self.closing]
            self.queued.extend([(call, call, None, None) for call in calls])
            self._map = _no_map

    def emit(
        self,
        hook: str,
        name: Hashable,
        operation: str | None,
        at: float,
        run: Any = None,
        **fields: Any,
    ) -> None:
        """Queue an event about *run* for the instruments that override *hook*, if any do.

        For those in `direct` it is kept until `take_direct`.
        """
        if hook in self.listeners:
            if run is not None:
                fields["run_id"] = run.id
                fields["attempts"] = run.attempts
            self.queue(EVENTS[hook](name=name, operation=operation, at=at, **fields), run)

    def queue(self, event: TaskEvent, run: Any = None) -> None:
        """Queue *event*, which is about *run*."""
        if event.hook in self.direct:
            self._direct_event = event
        for instrument in self._queued.get(event.hook, ()):
            self.queued.append((instrument, event, run, None))

    def take_direct(self) -> TaskEvent | None:
        """Return the event for those in `direct`, if the change that was just made has one.

        Called under the same lock as the change.
        """
        event, self._direct_event = self._direct_event, None
        return event

    def queue_in(self, context: Context, event: TaskEvent, run: Any) -> None:
        """Queue *event* for the instruments in `direct`, to be called in *context*."""
        for instrument in self.direct.get(event.hook, ()):
            self.queued.append((instrument, event, run, context))

    def call_direct(self, event: TaskEvent) -> None:
        """Call those in `direct` for *event*: the current context is the one that it is about."""
        for instrument in self.direct.get(event.hook, ()):
            self.call(instrument, event)

    def deliver(self, most: float = math.inf, keep: Callable[[Any], bool] | None = None) -> None:
        """Deliver the queued events, unless an outer call or another thread is delivering.

        Args:
            most: The number of deliveries after which the rest is left to the next caller.
            keep: Returns True if the events of a run must wait for a later call. Such an event
                delays all later ones, so their order does not change.
        """
        queue = self.queued
        while most > 0 and self._delivering.acquire(blocking=False):
            try:
                while queue and most > 0:
                    entry = queue.popleft()
                    if keep is not None and entry[2] is not None and keep(entry[2]):
                        queue.appendleft(entry)
                        return
                    self.call(*entry)
                    most -= 1
            finally:
                self._delivering.release()
            if self._is_empty():
                return

    def join(self, check: Callable[[], object] = int) -> None:
        """Deliver the queued events, and wait while another thread delivers them.

        Args:
            check: Called every 0.1 s of that wait. An error that it raises ends the wait.
        """
        while True:
            self.deliver()
            if self._delivering.acquire(timeout=0.1):
                self._delivering.release()
                if self._is_empty():
                    return
            check()

    def _is_empty(self) -> bool:
        """Return whether no event was queued before the release, which this call has to deliver.

        Reading an entry locks the deque, and reading its length does not.
        """
        try:
            _ = self.queued[0]
        except IndexError:
            return True
        return False

    def call(
        self,
        instrument: Instrument,
        event: TaskEvent | _MapClosed,
        _run: Any = None,
        context: Context | None = None,
    ) -> None:
        """Call the method of *instrument* for *event*; remove an instrument that raises."""
        if self._removed and any(one is instrument for one in self._removed):
            return
        try:
            method = getattr(instrument, event.hook)
            if context is None:
                method(event)
            else:
                context.run(method, event)
        except BaseException as error:  # of any kind: the map continues
            self._remove(instrument)
            what = f"instrument {safe_repr(instrument)} raised in {event.hook}()"
            log_error(f"{what} and was unplugged", error)

    def _remove(self, broken: Instrument) -> None:
        self._removed.append(broken)
        left = {
            hook: tuple(one for one in listeners if one is not broken)
            for hook, listeners in self.listeners.items()
        }
        self.listeners = {hook: listeners for hook, listeners in left.items() if listeners}
        self._find_direct()

    def _find_direct(self) -> None:
        direct: dict[str, tuple[Instrument, ...]] = {}
        queued = self.listeners.copy()
        for hook in _IN_CONTEXT & self.listeners.keys():
            found = tuple(one for one in self.listeners[hook] if one.in_context)
            if found:
                direct[hook] = found
                queued[hook] = tuple(one for one in self.listeners[hook] if not one.in_context)
        self.direct, self._queued = direct, queued

    def after_fork(self) -> None:
        """Drop the events of the parent process, and a lock that one of its threads may hold."""
        self.queued.clear()
        self._delivering = Lock()
        self.closing = ()
        self._map = _no_map


def _check_instruments(instruments: Iterable[Instrument]) -> tuple[Instrument, ...]:
    """Return *instruments* as a tuple.

    Raises:
        TypeError: it is not iterable: a single instrument, or None.
    """
    try:
        return tuple(instruments)
    except TypeError:
        raise TypeError(
            f"instruments must be a list of instruments, not {safe_repr(instruments)}: "
            "write instruments=[...], or instruments=() for none"
        ) from None


def check_instrument(instrument: object) -> None:
    """Raise an error if *instrument* is not an instrument.

    Raises:
        TypeError: it is not an `Instrument`, its `in_context` is not a bool, or one of its methods
            is async.
    """
    if not isinstance(instrument, Instrument):
        cure = ""
        if inspect.isclass(instrument) and issubclass(instrument, Instrument):
            cure = f": write {instrument.__name__}()"
        raise TypeError(f"an instrument must be an Instrument, not {safe_repr(instrument)}{cure}")
    check_flag("in_context", instrument.in_context)
    for hook in ("map_opened", "map_closed", *EVENTS):
        if inspect.iscoroutinefunction(getattr(instrument, hook)):
            raise TypeError(
                f"{hook}() of {safe_repr(instrument)} must be a plain function, not async"
            )


def _no_map() -> None:
    pass


def _overrides(instrument: Instrument, hook: str) -> bool:
    method = getattr(instrument, hook)
    return getattr(method, "__func__", method) is not getattr(Instrument, hook)
