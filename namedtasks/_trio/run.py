"""One run in the trio shell: its body, and what came out of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from contextvars import Context
from typing import Any, final

import trio
from trio.lowlevel import ParkingLot, Task, disable_ki_protection

from namedtasks._core.coroutines import Body, close_unbegun
from namedtasks._core.errors import TaskFailedError
from namedtasks._core.groups import parted
from namedtasks._core.runs import LiveRun
from namedtasks._core.slots import Slots
from namedtasks._core.text import task_text
from namedtasks._log import complain


@final
class TrioRun(LiveRun[ParkingLot]):
    """A run with what trio needs to run it."""

    __slots__ = ("body", "context", "scope", "task")

    def __init__(
        self,
        name: Hashable,
        operation: str | None,
        timeout: float,
        slots: Slots[TrioRun],
        now: Callable[[], float],
    ) -> None:
        super().__init__(name, operation, timeout, slots, now)
        self.body: Body | None = None
        """What to await; made when the run is admitted."""
        self.context: Context | None = None
        """The caller's context, kept only for a run that has to wait for a slot."""
        self.scope: trio.CancelScope | None = None
        self.task: Task | None = None
        """The trio task that the body runs in, while it does."""

    def close_body(self) -> None:
        """Let go of a body that never began; closed, so that nobody is warned of it."""
        body, self.body = self.body, None
        close_unbegun(body, lambda: task_text(self.name, self.operation), complain)

    def result(self) -> Any:
        """What the run gave back; it has ended.

        Raises:
            TaskFailedError: from what the body raised.
            TaskCancelledError: it was cancelled.
        """
        if self.error is not None:
            raise TaskFailedError(self.name, self.operation) from self.error
        if not self.returned:
            raise self.cancelled_error()
        return self.value

    def check_cancelled(self) -> None:
        """Raise in a body that should stop. Callable from any thread."""
        # Not a thread that trio runs? Then only our own word counts.
        with contextlib.suppress(RuntimeError):
            trio.from_thread.check_cancelled()
        super().check_cancelled()


@disable_ki_protection
async def unprotected(body: Body) -> object:
    """Await *body* where Ctrl-C may interrupt it: our own frames around it are protected."""
    return await body


OUR_FRAMES = frozenset({unprotected.__code__})
"""What stands between who catches a body's error and the body."""


def is_cancellation(error: BaseException) -> bool:
    """Whether *error* is nothing but trio's cancellation of an enclosing scope."""
    return parted(error, trio.Cancelled)[1] is None


def has_cancellation(error: BaseException) -> bool:
    """Whether *error* is, or holds, trio's cancellation of an enclosing scope."""
    return parted(error, trio.Cancelled)[0] is not None
