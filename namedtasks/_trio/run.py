"""One run in the trio shell: its body, and what came out of it."""

from __future__ import annotations

import contextlib
import inspect
import types
from collections.abc import Callable, Hashable
from contextvars import Context
from typing import Any, cast, final

import trio
from trio.lowlevel import ParkingLot, Task, disable_ki_protection

from namedtasks._core.errors import TaskFailedError
from namedtasks._core.runs import LiveRun
from namedtasks._core.slots import Slots
from namedtasks._core.text import task_text
from namedtasks._log import complain
from namedtasks._trio.callables import Body


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
        if body is None or (inspect.iscoroutine(body) and is_begun(body)):
            return  # somebody else's: an async function gave out the same coroutine twice
        try:
            body.close()
        except BaseException as error:  # a coroutine of a type of the user's own
            complain(f"closing the body of {task_text(self.name, self.operation)} failed", error)

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


def is_begun(body: types.CoroutineType[Any, Any, Any]) -> bool:
    """Whether a coroutine has taken its first step."""
    return inspect.getcoroutinestate(body) != inspect.CORO_CREATED


@disable_ki_protection
async def unprotected(body: Body) -> object:
    """Await *body* where Ctrl-C may interrupt it: our own frames around it are protected."""
    return await body


def without_our_frames(error: BaseException) -> BaseException:
    """Start *error*'s traceback at the body: shorter to read, and no cycle through our frames."""
    ours = {unprotected.__code__}
    traceback = error.__traceback__
    assert traceback is not None  # it was just caught
    traceback = traceback.tb_next  # after the frame that caught it
    while traceback is not None and traceback.tb_frame.f_code in ours:
        traceback = traceback.tb_next
    return BaseException.with_traceback(error, traceback)  # past what its class makes of that


def parted(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Part what came out of a body: the run's own failure, and what goes on up."""
    return _split(error, Exception)


def is_cancellation(error: BaseException) -> bool:
    """Whether *error* is nothing but trio's cancellation of an enclosing scope."""
    return _split(error, trio.Cancelled)[1] is None


def has_cancellation(error: BaseException) -> bool:
    """Whether *error* is, or holds, trio's cancellation of an enclosing scope."""
    return _split(error, trio.Cancelled)[0] is not None


def _split(
    error: BaseException, kind: type[BaseException]
) -> tuple[BaseException | None, BaseException | None]:
    """Part what is of this *kind*, in a group or bare, from what is not."""
    if isinstance(error, kind):
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    group = cast("BaseExceptionGroup[BaseException]", error)
    try:
        return group.split(kind)
    except BaseException:  # splitting runs the group's own derive()
        return None, group
