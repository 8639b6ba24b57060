"""The guard, which no thread enters twice, and where waits sleep.

Why there is no deadlock. The lock is held for a few steps of our own code, with
no user's code under it but ``__hash__`` and ``__eq__`` of names, and the clock's
``now``. What Python may run in between in the same thread (a signal handler, a
``__del__``, those two) finds the lock its own already, as it is a re-entrant one,
and is told so by an error. No other lock that a user's code may hold is asked for
under it. Who sleeps holds nothing: a sleeper is registered under the guard in the
step that found a reason to sleep, so nobody can wake it too early or too late.

None of this leans on the GIL: all that is shared is under the guard.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from threading import get_ident
from typing import final

from namedtasks._threads.interrupts import uninterrupted

REENTERED = (
    "a task map was called from inside of one of its own calls, by a signal handler, a "
    "__del__, a name's __eq__, or a pool that runs functions in place: there only close() "
    "and cancel_all() may be called"
)


def check_threading_is_as_imported() -> None:
    """Refuse to go on if the functions of `threading` were replaced after the import.

    Locks and thread-local objects of both kinds do not go together: what is stored for
    one thread would be found by another.

    Raises:
        RuntimeError: gevent, or a library like it, has replaced them.
    """
    if threading.get_ident is not get_ident:
        raise RuntimeError(
            "the functions of threading were replaced after namedtasks was imported: "
            "call gevent.monkey.patch_all(), or what else replaces them, before the import"
        )


@final
class Guard:
    """The lock of a map, which refuses to be entered again by the thread that is inside.

    Ctrl-C waits until it is left.
    """

    __slots__ = ("_before_release", "_lock", "_owner", "_when_left")

    def __init__(self, before_release: Callable[[], None]) -> None:
        self._lock = threading.RLock()
        # Re-entrant, so that a signal handler in the holder's thread gets in, and is told
        # of it by `_owner`. In C, so that no signal handler comes while it is half taken.
        self._owner: int | None = None
        self._before_release = before_release
        self._when_left: list[Callable[[], object]] = []

    def is_mine(self) -> bool:
        """Whether the calling thread is inside."""
        return self._owner == get_ident()

    def when_left(self, verb: Callable[[], object]) -> None:
        """Have *verb* done by this thread, which is inside, when it has left."""
        self._when_left.append(verb)

    def __enter__(self) -> None:
        uninterrupted.enter_guard()
        self._lock.acquire()
        if self._owner is not None:
            self._lock.release()
            uninterrupted.leave_guard()
            raise RuntimeError(REENTERED)
        self._owner = get_ident()

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._before_release()
        finally:
            # From here on a signal handler may enter; nothing comes to `_when_left` any more.
            self._owner = None
            verbs = self._when_left
            if verbs:
                self._when_left = []
            self._lock.release()
            try:
                for verb in verbs:
                    verb()
            finally:
                uninterrupted.leave_guard()


@final
class Sleeper:
    """One thread that sleeps until it is woken; it was put to bed under the guard."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock: threading.Lock = threading.Lock()
        self.lock.acquire()

    def wake(self) -> None:
        """Let the thread go on; it may be awake already, as its time had come."""
        with contextlib.suppress(RuntimeError):
            self.lock.release()


@final
class Lot:
    """Where those sleep who wait for one thing. Under the guard."""

    __slots__ = ("_sleepers",)

    def __init__(self) -> None:
        self._sleepers: dict[Sleeper, None] = {}

    def enter(self) -> Sleeper:
        """Make a bed for the calling thread, which goes to sleep outside of the guard."""
        sleeper = Sleeper()
        self._sleepers[sleeper] = None
        return sleeper

    def leave(self, sleeper: Sleeper) -> None:
        """Take the bed away, if it was not when all were woken."""
        self._sleepers.pop(sleeper, None)

    def unpark_all(self) -> None:
        """Wake all who sleep here now."""
        sleepers, self._sleepers = self._sleepers, {}
        for sleeper in sleepers:
            sleeper.wake()

    def __len__(self) -> int:
        return len(self._sleepers)
