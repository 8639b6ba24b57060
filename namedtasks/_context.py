"""The current run, for the code of a task, in every dialect."""

from __future__ import annotations

from collections.abc import Hashable
from contextvars import ContextVar
from typing import Protocol, final

from namedtasks._validation import REQUIRED, not_called, reports_missing
from namedtasks._version import publish


class _Run(Protocol):
    """The part of a dialect's run that its body may use."""

    @property
    def name(self) -> Hashable: ...
    @property
    def operation(self) -> str | None: ...
    @property
    def failures(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def overdue_after(self) -> float: ...
    def is_asked_to_stop(self) -> bool: ...
    def check_cancelled(self) -> None: ...
    @property
    def attempt(self) -> int: ...
    def note_lost_worker(self, attempt: int | None = None, /) -> None: ...


running_in: ContextVar[_Run] = ContextVar("namedtasks.running_in")
"""The run that the calling code belongs to; each dialect sets it before a body begins."""

executed_for: ContextVar[_Run] = ContextVar("namedtasks.executed_for")
"""The run whose function an executor is called for; set while the executor is called."""


@final
class CurrentRun:
    """The run that the calling code belongs to; `current_run` returns it.

    Example:
        A thread cannot be stopped from outside, but its function may ask if it should stop.

        >>> import time
        >>> def copy():
        ...     while not current_run().cancel_requested:
        ...         time.sleep(0.01)  # copies a block
        ...     return "copied a part"
        >>> async with open_task_map() as tasks:
        ...     await tasks.start_thread_soon("pvc-1", copy, timeout=1).wait()
        'copied a part'

    .. versionadded:: 0.1
    """

    __slots__ = ("_run",)

    @reports_missing
    def __init__(self, run: _Run) -> None:
        if run is REQUIRED:
            raise not_called("CurrentRun", "call namedtasks.current_run() inside a task")
        self._run = run

    @property
    def name(self) -> Hashable:
        """The task's name."""
        return self._run.name

    @property
    def operation(self) -> str | None:
        """The operation that the start named, if any."""
        return self._run.operation

    @property
    def failures(self) -> int:
        """The number of runs of the name that failed in a row before this one; 0 once forgotten."""
        return self._run.failures

    @property
    def attempts(self) -> int:
        """The number of bodies that have begun, this one included: 1 without ``retry=True``."""
        return self._run.attempts

    @property
    def cancel_requested(self) -> bool:
        """True if the run should stop, because it was cancelled or its deadline has passed."""
        return self._run.is_asked_to_stop()

    def check_cancelled(self) -> None:
        """Raise an error if the run should stop: call it where a function can stop.

        Any thread may call it. In an async body, every checkpoint does the same.

        Raises:
            trio.Cancelled: in a thread that trio runs for the task.
            TaskCancelledError: elsewhere. Do not catch it. It ends the run as
                cancelled; if the deadline came first, as failed by its timeout.

        Example:
            >>> import time
            >>> def copy():
            ...     while True:
            ...         current_run().check_cancelled()
            ...         time.sleep(0.01)  # copies a block
            >>> async with open_task_map() as tasks:
            ...     handle = tasks.start_thread_soon("pvc-1", copy, timeout=1)
            ...     await tasks.wait_idle()
            ...     tasks.failure("pvc-1").error
            TooSlowError('it took longer than its timeout of 1 s')
        """
        self._run.check_cancelled()

    def __repr__(self) -> str:
        return f"<namedtasks.CurrentRun {self._run!r}>"


def current_run() -> CurrentRun:
    """Return the run that the calling code belongs to.

    It works in the body of a task, in the functions that the body calls, and in the
    tasks and trio threads that it starts, but not in other processes.

    Raises:
        RuntimeError: the caller is not inside a task.

    Example:
        >>> async def attach():
        ...     run = current_run()
        ...     print(f"{run.operation} {run.name}, after {run.failures} failures")
        >>> async with open_task_map() as tasks:
        ...     _ = tasks.start_soon("pvc-1", attach, operation="attach")
        attach pvc-1, after 0 failures

    .. versionadded:: 0.1
    """
    run = running_in.get(None)
    if run is None:
        raise RuntimeError("current_run() must be called from inside a task")
    return CurrentRun(run)


def is_sigint_deferred(handler: object) -> bool:
    """Return whether *handler* is the handler with which a `ThreadTaskMap` defers Ctrl-C."""
    return getattr(handler, "defers_sigint_for_namedtasks", False) is True


publish(CurrentRun, current_run)
