"""What other threads ask to be started: handed over in bursts.

To wake an event loop costs ten times as much as to start a task. So who posts
puts its start into a line, and wakes the loop only if nobody has since the loop
has last begun to look. Then the loop starts all that is in line.

None of this leans on the GIL but for what a deque does in one step, which it
does in one step without the GIL, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Final, final

from namedtasks._core.complaints import Complain
from namedtasks._core.errors import RefusedError
from namedtasks._core.text import task_text

_MOST_AT_ONCE: Final = 1_000
"""Starts in one step of the loop; others get their turn in between."""

Post = tuple[Context, Callable[..., object], tuple[Any, ...], dict[str, Any]]
"""The context of who posts, and the start that is to be called in it; its first argument is
the name, and ``operation`` is among the others."""


@final
class Posts:
    """The line of one map."""

    __slots__ = ("_complain", "_is_woken", "_let_out", "_posts", "_wake")

    def __init__(
        self,
        *,
        wake: Callable[[Callable[[], None]], object],
        complain: Complain,
        let_out: Callable[[BaseException, str], None],
    ) -> None:
        self._wake = wake
        """Has a function called by the loop, soon; callable from any thread."""
        self._complain = complain
        self._let_out = let_out
        """Takes what a start has raised that is no `Exception`, and whose start it was."""
        self._posts: deque[Post] = deque()
        self._is_woken: bool = False
        """Whether the loop is going to look into the line."""

    def add(self, start: Callable[..., object], args: tuple[Any, ...], kwargs: Any) -> None:
        """Have *start* called in a copy of the caller's context. Callable from any thread.

        Raises:
            Exception: the loop cannot be woken, says *wake*; nothing is in line.
        """
        self._posts.append((copy_context(), start, args, kwargs))
        if not self._is_woken:
            self._wake_up()

    def _wake_up(self) -> None:
        succeeded = False
        try:
            self._is_woken = True  # first: the loop may look at once
            self._wake(self._look)
            succeeded = True
        except Exception:  # the loop is over
            self._posts.clear()
            raise
        finally:
            if not succeeded:  # Ctrl-C, perhaps: the next one to post wakes it
                self._is_woken = False

    def _look(self) -> None:
        """Start what is in line. In the loop's thread."""
        self._is_woken = False  # first: who comes later wakes the loop again
        posts = self._posts
        try:
            for _ in range(min(len(posts), _MOST_AT_ONCE)):
                self._start(*posts.popleft())
        finally:
            if posts and not self._is_woken:
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
            pass  # the instruments have heard of it
        except BaseException as error:
            text = task_text(args[0], kwargs["operation"])
            if isinstance(error, Exception):
                self._complain(f"the posted start of {text} failed", error)
            else:  # a Ctrl-C, say, in the function that was to give the body
                self._let_out(error, text)
