"""One run in the trio shell: its body, and what came out of it."""

from __future__ import annotations

import contextlib
from contextvars import Context
from typing import TYPE_CHECKING, NoReturn, final

import trio

from namedtasks._core.callables import Body, close_unbegun
from namedtasks._core.errors import TaskFailedError
from namedtasks._core.groups import parted
from namedtasks._core.runs import LiveRun
from namedtasks._core.text import task_text
from namedtasks._log import complain
from namedtasks._trio.lots import Lot

if TYPE_CHECKING:
    from namedtasks._trio.shell import Shell
    from namedtasks._trio.workers import Worker


class TrioRun(LiveRun[Lot]):
    """A run with what trio needs to run it."""

    __slots__ = ()

    shell: Shell

    body: Body | None
    """What to await; made when the run is admitted."""
    context: Context | None
    """The caller's context, kept only for a run that has to wait for a slot."""
    worker: Worker | None
    """The trio task that the body runs in, from when that is known to its end."""

    def failure_in(self, error: BaseException) -> tuple[BaseException | None, BaseException | None]:
        """Split *error*, which left the body, into the run's failure and what propagates."""
        return parted(error, Exception)

    def original_of(self, error: BaseException) -> BaseException:
        """Return the error that the policy, the record and the instruments get for *error*."""
        return error

    def close_body(self) -> None:
        """Let go of a body that never began; closed, so that nobody is warned of it."""
        body, self.body = self.body, None
        close_unbegun(body, lambda: task_text(self.name, self.operation), complain)

    def raise_error(self) -> NoReturn:
        """Tell why the run has no value; it has ended.

        Raises:
            TaskFailedError: from what the body raised.
            TaskCancelledError: it was cancelled.
        """
        if self.error is not None:
            raise TaskFailedError(self.name, self.operation) from self.error
        raise self.cancelled_error()

    def check_cancelled(self) -> None:
        """Raise in a body that should stop. Callable from any thread."""
        # Not a thread that trio runs? Then only our own word counts.
        with contextlib.suppress(RuntimeError):
            trio.from_thread.check_cancelled()
        super().check_cancelled()


@final
class ExecutorRun(TrioRun):
    """A run of a function on an executor: whatever the function raises is the run's failure."""

    __slots__ = ()

    def failure_in(self, error: BaseException) -> tuple[BaseException | None, BaseException | None]:
        """Split *error*: only the cancellation of an enclosing scope propagates."""
        rest, failure = parted(error, trio.Cancelled)
        return failure, rest

    def original_of(self, error: BaseException) -> BaseException:
        """Return *error*, or the StopIteration that an async function cannot raise (PEP 479)."""
        cause = error.__cause__
        is_made_of_it = isinstance(cause, StopIteration) and str(error) == _NO_STOP_ITERATION
        return cause if cause is not None and is_made_of_it else error


_NO_STOP_ITERATION = "coroutine raised StopIteration"
"""The text of the RuntimeError that Python makes of a StopIteration, its cause."""


def is_cancellation(error: BaseException) -> bool:
    """Whether *error* is nothing but trio's cancellation of an enclosing scope."""
    return parted(error, trio.Cancelled)[1] is None


def has_cancellation(error: BaseException) -> bool:
    """Whether *error* is, or holds, trio's cancellation of an enclosing scope."""
    return parted(error, trio.Cancelled)[0] is not None
