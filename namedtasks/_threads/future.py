"""The future of a run in a thread map."""
# ruff: noqa: SLF001 - a property that is set outside its class

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Hashable
from concurrent.futures import CancelledError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import Any, Final, TypeVar, cast, final

from namedtasks._state import Run, RunStatus
from namedtasks._threads.sigint import critical, deferred_sigint, get_frame
from namedtasks._validation import REQUIRED, not_called, reports_missing, safe_repr
from namedtasks._version import publish

T = TypeVar("T")

DONE: Final = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})
_SUCCEEDED, _CANCELLED = RunStatus.SUCCEEDED, RunStatus.CANCELLED


@final
class TaskFuture(concurrent.futures.Future[T]):
    """One run of a named task, as `ThreadTaskMap.submit` returns it: a future that knows its task.

    It is done when the work has really ended and the name is free. `result` raises

    - the error of the function, if the run failed;
    - `concurrent.futures.CancelledError`, if the run was cancelled before it began, or
      by `cancel` while a retry waited. If there was a reason, ``__cause__`` is a
      `TaskCancelledError` with it, for example for a deferred run that a newer start
      superseded, or that was dropped because its map closed;
    - `TaskCancelledError`, if the function stopped when it was asked to, or if a
      waiting retry was dropped.

    Example:
        >>> import concurrent.futures
        >>> def attach(volume):
        ...     if volume == "pvc-2":
        ...         raise OSError("device busy")
        >>> with ThreadTaskMap(instruments=()) as tasks:
        ...     futures = [tasks.submit(volume, attach, volume) for volume in ("pvc-1", "pvc-2")]
        ...     done, _ = concurrent.futures.wait(futures)
        >>> [future.name for future in done if future.exception()]
        ['pvc-2']

    .. versionadded:: 0.1
    """

    # The attributes of `concurrent.futures.Future`, whose `__init__` is not called: a Condition
    # and two lists for each run cost more than the rest of the future. They are made, under the
    # map's lock, when the Condition is first used, for example by `concurrent.futures.wait`.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _waiters: Any = ()
    _done_callbacks: Any = ()
    _made_condition: threading.Condition | None = None

    _is_joined: bool = False
    """True if a start with ``if_busy="join"`` returned it: it shares the run."""
    _has_left: bool = False
    """True if only this future was cancelled: the run that it shared continues."""

    @reports_missing
    def __init__(self, run: Any) -> None:
        if run is REQUIRED:
            raise not_called("TaskFuture", "submit() of a ThreadTaskMap returns one")
        self._run: Run = run

    @property
    def name(self) -> Hashable:
        """The task's name."""
        return self._run.name

    @property
    def operation(self) -> str | None:
        """The operation that the start named, if any."""
        return self._run.operation

    @property
    def started_at(self) -> float | None:
        """The time at which the body began, in seconds on the map's clock; None before that.

        In a pool that does not report it, such as a pool of processes, the time of the
        submission to the pool.
        """
        return self._run.started_at

    @property
    def failures(self) -> int:
        """The number of runs of the name that failed in a row before this one; 0 once forgotten."""
        return self._run.failures

    @property
    def attempts(self) -> int:
        """The number of bodies that have begun: more than 1 only with ``retry=True``."""
        return self._run.attempts

    @property
    def overdue(self) -> bool:
        """True if the run did not stop in time after it was cancelled or reached its deadline."""
        return self._run.overdue

    def done(self) -> bool:
        """Return whether the run has ended and its outcome is known.

        Example:
            >>> with ThreadTaskMap() as tasks:
            ...     future = tasks.submit("pvc-1", len, "superblock")
            >>> future.done()  # the block has waited for it
            True
        """
        return self._state in DONE

    def cancelled(self) -> bool:
        """Return whether the run was cancelled before its body began, or while a retry waited.

        Example:
            >>> with ThreadTaskMap() as tasks:
            ...     future = tasks.submit("pvc-1", len, "superblock")
            >>> future.cancelled()  # the block has waited for it
            False
        """
        return self._state == CANCELLED_AND_NOTIFIED

    def running(self) -> bool:
        """Return whether the body has begun and has not ended.

        Example:
            >>> with ThreadTaskMap() as tasks:
            ...     future = tasks.submit("pvc-1", len, "superblock")
            >>> future.running()  # the block has waited for it
            False
        """
        return self._run.status is RunStatus.BEGUN and not self.done()

    def cancel(self) -> bool:
        """Cancel the run if its body has not begun; `ThreadTaskMap.cancel` asks a body to stop.

        The future of a start with ``if_busy="join"`` cancels only itself, and not the
        run that others wait for. Never waits.

        Returns:
            True if it is cancelled. If it is the run's own future, the body never
            runs, and the name is free.

        Example:
            >>> import threading
            >>> attached = threading.Event()
            >>> with ThreadTaskMap(limit=1) as tasks:
            ...     _ = tasks.submit("pvc-1", attached.wait)
            ...     future = tasks.submit("pvc-2", attached.wait)  # waits for its turn
            ...     future.cancel(), "pvc-2" in tasks
            ...     attached.set()
            (True, False)
        """
        backend = self._run.backend
        try:
            return cast("bool", backend.cancel_future(self))
        finally:
            backend.after_call()

    def result(self, timeout: float | None = None) -> T:
        """Wait at most *timeout* seconds, if given, and return the function's value.

        Raises:
            TimeoutError: the time is over; the run continues.
            concurrent.futures.CancelledError: the run was cancelled before it began.
            TaskCancelledError: the run was asked to stop, and stopped.
            ClosedError: the map was opened in the parent process, before a fork.
            RuntimeError: the caller is inside this run, or inside the run that it
                is queued behind.
            TypeError: *timeout* is not a number.
            BaseException: the error of the function.

        Example:
            >>> def attach():
            ...     raise OSError("device busy")
            >>> with ThreadTaskMap(instruments=()) as tasks:
            ...     tasks.submit("pvc-1", attach).result(timeout=30)
            Traceback (most recent call last):
                ...
            OSError: device busy
        """
        if self._state not in DONE:
            _check_timeout(timeout)
            self._run.backend.wait_for_future(self, "result()", timeout)
        if self._state != FINISHED:
            raise self._no_outcome()
        if self._exception is None:
            return cast("T", self._result)
        try:
            raise self._exception
        finally:
            del self  # no cycle through the error's traceback

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait like `result`, and return the error that `result` would raise; None for a value.

        Raises:
            TimeoutError: the time is over; the run continues.
            concurrent.futures.CancelledError: the run was cancelled before it began.
            ClosedError: the map was opened in the parent process, before a fork.
            RuntimeError: the caller is inside this run, or inside the run that it
                is queued behind.
            TypeError: *timeout* is not a number.

        Example:
            >>> def attach():
            ...     raise OSError("device busy")
            >>> with ThreadTaskMap(instruments=()) as tasks:
            ...     tasks.submit("pvc-1", attach).exception()
            ...     tasks.submit("pvc-2", len, "superblock").exception() is None
            OSError('device busy')
            True
        """
        if self._state not in DONE:
            _check_timeout(timeout)
            self._run.backend.wait_for_future(self, "exception()", timeout)
        if self._state != FINISHED:
            raise self._no_outcome()
        return self._exception

    def _no_outcome(self) -> BaseException:
        """Return the error for a caller that gets neither a value nor the run's own error."""
        if self._state not in DONE:
            return TimeoutError()
        error = CancelledError()
        if self._run.reason is not None and not self._has_left:
            error.__cause__ = self._run.cancelled_error()
        return error

    # What the backend calls

    def _publish(self) -> None:
        """Write the outcome under the Condition, and wake its waiters. Not under the lock."""
        with self._condition:
            self._write()
            for waiter in self._waiters:
                if self._state != FINISHED:
                    waiter.add_cancelled(self)
                elif self._exception is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            self._condition.notify_all()

    def _write(self) -> None:
        """Write the outcome of the run, which has ended.

        Call it under the Condition, or if there is none, under the map's lock.
        """
        run: Any = self._run
        if run.status is _SUCCEEDED and not self._has_left:
            self._result = run.value
        elif self._has_left or (run.status is _CANCELLED and self._is_cancelled_with(run)):
            self._state = CANCELLED_AND_NOTIFIED
            return
        else:
            self._exception = run.cancelled_error() if run.error is None else run.error
        self._state = FINISHED

    def _is_cancelled_with(self, run: Any) -> bool:
        """Return whether this future of the cancelled *run* is cancelled, and holds no error."""
        if self._is_joined:
            return False
        return run.is_future_cancelled or not (run.has_run or run.attempt)

    def __repr__(self) -> str:
        if self.cancelled():
            state = "cancelled"
        elif self.done():
            state = self._run.status.name.lower()
        elif self._run.overdue:
            state = "overdue"
        elif self._run.deferred == "retry":
            state = "waiting to retry"
        else:
            state = "not begun" if self._run.started_at is None else "running"
        return f"<namedtasks.TaskFuture {safe_repr(self.name)} {state}>"


def _check_timeout(timeout: float | None) -> None:
    """Raise `TypeError` if *timeout* is not a number; of any kind, as for any future."""
    try:
        _ = timeout is None or timeout + 0.0
    except TypeError:
        raise TypeError(f"timeout must be a number or None, not {safe_repr(timeout)}") from None


@critical
def _condition_of(future: Any) -> threading.Condition:
    """Return the Condition of *future*, which is made under the lock of its map."""
    try:
        with future._run.backend.lock:
            if future._made_condition is None:
                future._waiters, future._done_callbacks = [], []
                future._made_condition = threading.Condition()
            made: threading.Condition = future._made_condition
            return made
    finally:
        if deferred_sigint.pending:
            deferred_sigint.deliver(get_frame(1))


# Outside the class, because for type checkers it is a plain attribute, as in the base class.
TaskFuture._condition = property(  # type: ignore[assignment]
    _condition_of  # pyright: ignore[reportAttributeAccessIssue]
)


publish(TaskFuture)
