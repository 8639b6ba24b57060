"""Defers Ctrl-C while a call of a thread map must not be interrupted.

Python runs signal handlers in the main thread, between any two of its steps. A
``KeyboardInterrupt`` raised there while a map's tables change would leave a name taken,
or lose a job. So while the main thread is inside a block of a `ThreadTaskMap`, `deferred_sigint`
handles SIGINT. It walks the frames, beginning with the interrupted one, which is the innermost. At
a function that runs code of the user's it stops, and calls the previous handler. At a *critical*
function it sets a flag and returns; the public call passes the signal on at its end. So a call
costs one check of the flag.

Critical functions are found by the identity of their code objects: every function that acquires
the lock of a map, and every function between the admission of a run and the moment at which a
worker has it. The sleeps of the waits are not critical. A second Ctrl-C is passed on at once only
inside the `submit` of a pool, which is the one place where a critical function may hang.
"""

from __future__ import annotations

import contextlib
import enum
import signal
import sys
import threading
from collections.abc import Callable
from threading import get_ident
from types import CodeType, FrameType
from typing import Any, TypeVar, final

get_frame: Callable[[int], FrameType] = getattr(sys, "_getframe")  # noqa: B009 - for pyright
FnT = TypeVar("FnT", bound=Callable[..., Any])


class Place(enum.Enum):
    """The kinds of functions at which the handler of SIGINT stops its walk."""

    CRITICAL = enum.auto()
    """A function that must not be interrupted."""
    SUBMIT = enum.auto()
    """The `submit` of a user's pool, which may hang: critical, but a second Ctrl-C ends it."""
    SLEEP = enum.auto()
    """A wait, which Ctrl-C ends."""
    USER_CODE = enum.auto()
    """A function that calls code of the user's, and catches its errors."""


PLACES: dict[CodeType, Place] = {}
SHARED: set[CodeType] = set()
"""Functions that are critical if their backend is that of a thread map."""


def critical(fn: FnT) -> FnT:
    """Mark *fn* as a function that Ctrl-C must not interrupt."""
    PLACES[fn.__code__] = Place.CRITICAL
    return fn


def _is_main_thread() -> bool:
    return get_ident() == threading.main_thread().ident


@final
class SigintHandler:
    """A handler of SIGINT, with the previous handler."""

    defers_sigint_for_namedtasks = True

    def __init__(self, previous: Callable[[int, FrameType | None], object]) -> None:
        self.previous: Callable[[int, FrameType | None], object] = previous

    def __call__(self, _signum: int, frame: FrameType | None) -> None:
        """Defer the signal or pass it on; a second one is passed on inside a pool's `submit`."""
        place = _find_place(frame)
        if place is Place.CRITICAL or (place is Place.SUBMIT and not deferred_sigint.pending):
            deferred_sigint.pending = self
            return
        try:
            self.previous(signal.SIGINT, frame)
        except KeyboardInterrupt:
            # The caller of code of the user's catches and logs it. So the call of the map around
            # that raises it again at its end.
            if place is Place.USER_CODE:
                deferred_sigint.pending = self
            raise


@final
class DeferredSigint:
    """The deferred SIGINT: one object for the process."""

    def __init__(self) -> None:
        self.pending: SigintHandler | None = None
        """The handler that has deferred a signal; None if none is deferred."""
        self._handler: SigintHandler | None = None
        """The handler that was installed last."""
        self._blocks = 0

    @critical
    def install(self) -> bool:
        """Handle SIGINT until `uninstall`; return False if that is not possible."""
        present = signal.getsignal(signal.SIGINT)
        # SIG_IGN, SIG_DFL, and None for a handler that is not Python's, cannot be called.
        if not callable(present) or not _is_main_thread():
            return False
        if present is not self._handler:
            handler = SigintHandler(present)
            try:
                signal.signal(signal.SIGINT, handler)
            except ValueError:  # a sub-interpreter
                return False
            self._handler = handler
        self._blocks += 1
        return True

    @critical
    def uninstall(self) -> None:
        """Leave a block; the last one restores the previous handler, if ours is still installed."""
        self._blocks -= 1
        if self._blocks or self._handler is None:
            return
        previous = self._handler.previous
        if signal.getsignal(signal.SIGINT) is self._handler:
            with contextlib.suppress(ValueError):  # not the main thread: ours passes signals on
                signal.signal(signal.SIGINT, previous)

    def merge(self) -> None:
        """Drop the deferred signal after the last block, because another one is being raised."""
        if not self._blocks:
            self.pending = None

    def deliver(self, frame: FrameType | None = None) -> None:
        """Pass the deferred signal on, if this is the main thread and *frame* is not critical.

        By default *frame* is the caller's.
        """
        frame = frame or get_frame(1)
        handler, place = self.pending, _find_place(frame)
        if handler is None or place in (Place.CRITICAL, Place.SUBMIT) or not _is_main_thread():
            return
        try:
            handler.previous(signal.SIGINT, frame)
        except BaseException:  # another signal during the call is merged with this one
            self.pending = handler if place is Place.USER_CODE else None
            raise
        self.pending = None


def _find_place(frame: FrameType | None) -> Place | None:
    """Return the kind of the innermost marked function at *frame*; None if none is marked."""
    while frame is not None:
        code = frame.f_code
        if code in PLACES:
            return PLACES[code]
        if code in SHARED and hasattr(frame.f_locals.get("backend"), "defers_sigint"):
            return Place.CRITICAL
        frame = frame.f_back
    return None


deferred_sigint = DeferredSigint()
