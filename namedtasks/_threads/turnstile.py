"""Lets a thread do one thing at a time that takes locks which are not ours.

To start a thread, or to submit to somebody's pool, takes locks that a thread
must not ask for again while it holds them. A signal handler, or a ``__del__``,
may come in between and call a map, this one or another:

1. What would need such a lock is done when the first is done, by the same thread.
2. A submit to the *same* map is refused, and so is a wait that what is deferred
   here would have to end: it would never come back.

From its admission until it is handed over a run counts as inside. Each thread
has a turnstile of its own, so nothing here is shared.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from namedtasks._threads.shell import Shell

_Deed = Callable[[], None]


class _Inside(threading.local):
    def __init__(self) -> None:
        self.shells: list[Shell] = []
        self.is_catching_up = False
        self.deferred: deque[tuple[Shell, _Deed]] = deque()


_mine = _Inside()


def is_inside(shell: Shell) -> bool:
    """Whether this thread is just handing something over for *shell*."""
    return any(one is shell for one in _mine.shells)


def delays(shell: Shell) -> bool:
    """Whether this thread will do something for *shell* only when it gets on."""
    return is_inside(shell) or has_deferred(shell)


def has_deferred(shell: Shell) -> bool:
    """Whether something for *shell* waits until this thread comes out."""
    return any(one is shell for one, _ in list(_mine.deferred))


def enter(shell: Shell) -> None:
    """Go inside, for *shell*; `leave` follows."""
    _mine.shells.append(shell)


def leave() -> None:
    """Come out, and if that was the outermost time, do what was deferred."""
    _mine.shells.pop()
    if _mine.is_catching_up:
        return
    _mine.is_catching_up = True
    try:
        while _mine.deferred and not _mine.shells:
            _, deed = _mine.deferred.popleft()
            deed()
    finally:
        _mine.is_catching_up = False


def is_outermost() -> bool:
    """Whether this thread, which is inside, was outside before."""
    return len(_mine.shells) == 1


def defer(shell: Shell, deed: _Deed) -> bool:
    """Have *deed*, which raises nothing, done later if this thread is inside; whether it is."""
    if not _mine.shells:
        return False
    _mine.deferred.append((shell, deed))
    return True


def step_out() -> list[Shell]:
    """Be outside for a while: a pool runs one of our bodies in place. `step_in` ends that."""
    shells, _mine.shells = _mine.shells, []
    return shells


def step_in(shells: list[Shell]) -> None:
    """Be inside again as before."""
    _mine.shells = shells
