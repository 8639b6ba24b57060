"""Keeps Ctrl-C out of what must not be left half done.

Python runs signal handlers in the main thread, between any two of its steps. A
``KeyboardInterrupt`` raised there while a map's tables change would leave a name
taken for ever, or a lock. So while a map's block is open a handler of ours
stands before the one that was there: inside of a call to a map it only takes a
note, and the call ends by doing what the other handler does. Anywhere else, and
where a call sleeps, it passes the signal on at once. A second Ctrl-C is passed
on, too, but never while a lock of ours is held.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, final

from namedtasks._threads.main_thread import become_main, is_main

_Handler = Callable[[int, FrameType | None], Any]


@final
class Interrupts:
    """How deep the main thread is inside of maps, and what it will do when it is out."""

    __slots__ = ("_asleep", "_depth", "_guards", "_held_back", "_over")

    def __init__(self) -> None:
        self._over: list[Hook] = []
        self.start_outside()

    def start_outside(self) -> None:
        """Be outside of all maps, with nothing kept out."""
        self._depth = 0
        # The depth at which the thread sleeps: as good as outside.
        self._asleep = 0
        self._guards = 0
        self._held_back: Hook | None = None

    def __enter__(self) -> None:
        if is_main():
            self._depth += 1

    def __exit__(self, *exc_info: object) -> None:
        if is_main():
            self._depth -= 1
            if self._depth <= self._asleep:
                self._come_out()

    # These two do not call the two above: where there was stack enough to go in,
    # there must be enough to come out. Else a RecursionError would leave us inside.

    def enter_guard(self) -> None:
        """A lock is about to be held: from here on no Ctrl-C at all is passed on."""
        if is_main():
            self._depth += 1
            self._guards += 1

    def leave_guard(self) -> None:
        """The lock is not held any more."""
        if is_main():
            self._guards -= 1
            self._depth -= 1
            if self._depth <= self._asleep:
                self._come_out()

    def _come_out(self) -> None:
        self._asleep = self._depth
        while self._over and not self._depth:
            self._over.pop().uninstall()
        self._pass_on()

    def uninstall_outside(self, hook: Hook) -> None:
        """Uninstall *hook* when this thread is outside: nothing else keeps Ctrl-C out till then."""
        self._over.append(hook)

    def sleep(self, wait: Callable[[], object]) -> None:
        """Call *wait*, and let in there what else is kept out.

        Raises:
            BaseException: what the signal's handler raises.
        """
        if not is_main():
            wait()
            return
        before, self._asleep = self._asleep, self._depth
        try:
            self._pass_on()
            wait()
        finally:
            self._asleep = before

    def postpones(self, hook: Hook, frame: FrameType | None) -> bool:
        """Whether the signal that *hook* has just got is passed on later."""
        is_inside = self._depth > self._asleep or (not self._depth and hook.is_being_left(frame))
        if not is_inside or (self._held_back is not None and not self._guards):
            return False
        self._held_back = hook
        return True

    def _pass_on(self) -> None:
        hook = self._held_back
        if hook is not None:
            self._held_back = None
            hook.pass_on(signal.SIGINT, None)


uninterrupted = Interrupts()
"""What must be whole runs ``with uninterrupted``; in other threads that does nothing."""


def _after_fork() -> None:
    if become_main():  # what the parent's main thread was inside of, nobody will come out of
        uninterrupted.start_outside()


with contextlib.suppress(AttributeError):  # where there is no fork
    os.register_at_fork(after_in_child=_after_fork)


@final
class Hook:
    """The handler of SIGINT while one block is open; it knows the one that was there before."""

    __slots__ = ("_block", "_is_over", "_previous")

    def __init__(self, block: contextlib.AbstractContextManager[object, None]) -> None:
        self._block: contextlib.AbstractContextManager[object, None] | None = block
        self._is_over = False
        self._previous: _Handler | None = None

    def install(self) -> None:
        """Stand before the present handler of SIGINT, if this is where that can be done."""
        present = signal.getsignal(signal.SIGINT) if is_main() else None
        if callable(present):  # not SIG_IGN or SIG_DFL, and Python's
            self._previous = present
            with contextlib.suppress(ValueError):  # only the main interpreter can
                signal.signal(signal.SIGINT, self)

    def uninstall_soon(self) -> None:
        """`uninstall` as soon as Ctrl-C may come through again."""
        if is_main():
            uninterrupted.uninstall_outside(self)
        else:
            self.uninstall()

    def uninstall(self) -> None:
        """End that. If somebody has put another handler there, that one stays before ours."""
        self._is_over = True
        present = signal.getsignal(signal.SIGINT) if is_main() else None
        handler: Any = present
        while isinstance(handler, Hook) and handler._is_over:  # noqa: SLF001
            handler = handler._previous  # noqa: SLF001
        if handler is not present:
            signal.signal(signal.SIGINT, handler)
        self._block = None  # not before: till then a Ctrl-C in here is kept out

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if not uninterrupted.postpones(self, frame):
            self.pass_on(signum, frame)

    def pass_on(self, signum: int, frame: FrameType | None) -> None:
        """Do what the handler does that was there before."""
        assert self._previous is not None
        self._previous(signum, frame)

    def is_being_left(self, frame: FrameType | None) -> bool:
        """Whether *frame* is in the block's ``__exit__``, which may have just begun."""
        code = type(self._block).__exit__.__code__ if self._block is not None else None
        while code is not None and frame is not None:
            if frame.f_code is code and frame.f_locals.get("self") is self._block:
                return True
            frame = frame.f_back
        return False
