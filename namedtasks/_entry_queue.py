"""Starts that other threads request from a map that belongs to an event loop.

Waking an event loop costs ten times as much as starting a task. So a thread queues its start, and
wakes the loop only if no other thread has done so since the loop last began to read the queue.
Then the loop makes all starts in the queue. Appending to a deque and popping from it are single
steps, with and without the GIL.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Final, final

from namedtasks._errors import RefusedError
from namedtasks._logging import log_error
from namedtasks._validation import task_text

_MOST_AT_ONCE: Final = 1_000
"""The number of starts in one step of the loop; other callbacks and tasks run after them."""


@final
class EntryQueue:
    """The queue of one map."""

    def __init__(
        self,
        wake: Callable[[Callable[[], None]], object],
        propagate: Callable[[BaseException, str], None],
    ) -> None:
        self._wake = wake
        """Schedules a call in the loop; callable from any thread."""
        self._propagate = propagate
        """Called with an error of a start that is not an `Exception`, and a text for the task."""
        self._entries: deque[
            tuple[Context, Callable[..., object], tuple[Any, ...], dict[str, Any]]
        ] = deque()
        self._is_woken: bool = False
        """True if the loop is going to read the queue."""

    def add(self, start: Callable[..., object], args: tuple[Any, ...], kwargs: Any) -> None:
        """Queue a call of *start* in a copy of the caller's context. Callable from any thread.

        Raises:
            Exception: *wake* could not wake the loop; nothing is queued.
        """
        self._entries.append((copy_context(), start, args, kwargs))
        if not self._is_woken:
            self._wake_up()

    def _wake_up(self) -> None:
        succeeded = False
        try:
            self._is_woken = True  # first, because the loop may read the queue at once
            self._wake(self._run)
            succeeded = True
        except Exception:  # the loop is over
            self._entries.clear()
            raise
        finally:
            if not succeeded:  # because of Ctrl-C, for example: the next thread wakes the loop
                self._is_woken = False

    def _run(self) -> None:
        """Make the starts in the queue. In the loop's thread."""
        self._is_woken = False  # first, so that a later thread wakes the loop again
        entries = self._entries
        try:
            for _ in range(min(len(entries), _MOST_AT_ONCE)):
                self._start(*entries.popleft())
        finally:
            if entries and not self._is_woken:
                self._wake_up()

    def _start(
        self,
        context: Context,
        start: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        try:
            context.run(start, *args, **kwargs)
        except RefusedError:
            pass  # the instruments get it
        except BaseException as error:
            text = task_text(args[0], kwargs["operation"])
            if isinstance(error, Exception):
                log_error(f"the posted start of {text} failed", error)
            else:  # for example Ctrl-C, in the function that returns the body
                self._propagate(error, text)


def affinity_error(cure: str) -> RuntimeError:
    """Return the error of a method that is called outside the event loop run of its map."""
    return RuntimeError(
        "a task map may be used only in the event loop run that opened it: from another thread "
        f"{cure}; in another run open a new map"
    )
