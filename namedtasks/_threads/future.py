"""A run as its starter sees it."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Hashable
from typing import TypeVar, cast, final

from namedtasks._core.holds import queued_behind
from namedtasks._core.text import repr_of
from namedtasks._threads import waits
from namedtasks._threads.run import ThreadRun

T = TypeVar("T")


@final
class TaskFuture(concurrent.futures.Future[T]):
    """One run of a named task, as `ThreadTaskMap.submit` gives it: a future that knows its task.

    It is completed after the work has really ended and its name is free. A run
    that failed raises from `result` what its function raised; one that was
    cancelled before it began raises `concurrent.futures.CancelledError`, one
    that heeded a cancellation `TaskCancelledError`. If there was a reason, the
    ``__cause__`` of the former is the latter, which tells it: so it is with a
    run that was put off and then superseded, or dropped as its map closed.

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

    def __init__(self, run: ThreadRun, *, is_mirror: bool = False) -> None:
        super().__init__()
        self._run = run
        self._is_mirror = is_mirror
        self._was_dropped = False
        self._notified_by: dict[str, object] = {}  # setdefault() is a single step, for all threads

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
        """When the body began, in seconds on the map's clock; None until it does.

        In a pool that does not tell, such as one of processes, when it was handed over.
        """
        return self._run.started_at

    @property
    def failures(self) -> int:
        """How many runs of the name failed in a row before this one; 0 once it was forgotten."""
        return self._run.failures

    @property
    def overdue(self) -> bool:
        """Whether the run went on for too long after it was asked to stop, or met its deadline."""
        return self._run.overdue

    def cancel(self) -> bool:
        """Cancel the run if its body has not begun; `ThreadTaskMap.cancel` asks a body to stop.

        A future that came of ``if_busy="join"`` cancels only itself, not the
        run that others wait for. Never waits.

        Returns:
            Whether it is cancelled. If it is the run's own, the body never
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
        run = self._run
        if self._is_mirror:
            return self._cancel()
        return run.shell.cancel_unbegun(run) or self.cancelled()

    def result(self, timeout: float | None = None) -> T:
        """Wait at most *timeout* seconds, if given, and give back what the function returned.

        If the system gives the map no thread for its timer, as at the
        interpreter's exit, who begins to wait after that does what is due. Who
        waits here already does not learn of it; `ThreadTaskMap.wait_idle` does.

        Raises:
            TimeoutError: the time is over; the run goes on.
            concurrent.futures.CancelledError: it was cancelled before it began.
            TaskCancelledError: it was asked to stop, and stopped.
            RuntimeError: the caller is inside this very run, or the one that it
                is queued behind.
            BaseException: whatever the function raised.

        Example:
            >>> def attach():
            ...     raise OSError("device busy")
            >>> with ThreadTaskMap(instruments=()) as tasks:
            ...     tasks.submit("pvc-1", attach).result(timeout=30)
            Traceback (most recent call last):
                ...
            OSError: device busy
        """
        left = self._before_waiting("result()", timeout)
        try:
            return super().result(left)
        except concurrent.futures.CancelledError as error:
            self._add_reason(error)
            raise
        finally:
            del self  # no cycle through the error's traceback

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait like `result`, and give back the error that it would raise; None for a value.

        Raises:
            TimeoutError: the time is over; the run goes on.
            concurrent.futures.CancelledError: it was cancelled before it began.
            RuntimeError: the caller is inside this very run, or the one that it
                is queued behind.

        Example:
            >>> def attach():
            ...     raise OSError("device busy")
            >>> with ThreadTaskMap(instruments=()) as tasks:
            ...     tasks.submit("pvc-1", attach).exception()
            ...     tasks.submit("pvc-2", len, "superblock").exception() is None
            OSError('device busy')
            True
        """
        left = self._before_waiting("exception()", timeout)
        try:
            return super().exception(left)
        except concurrent.futures.CancelledError as error:
            self._add_reason(error)
            raise

    def _add_reason(self, error: BaseException) -> None:
        if self._was_dropped and self._run.reason is not None:
            error.__cause__ = self._run.cancelled_error()

    def _before_waiting(self, what: str, timeout: float | None) -> float | None:
        """Refuse to wait for oneself; what is left of the *timeout* if there is no need to."""
        if self.done():
            return timeout
        waits.refuse_inside_run(self._run, f"{what} of its own future")
        before = queued_behind(self._run)
        if before is not None:
            waits.refuse_inside_run(before, f"{what} of what is queued behind it")
        shell = self._run.shell
        if not shell.alarm.is_missing:
            return timeout
        return waits.stand_in_for_the_alarm(shell, self, timeout)

    def _settle(self, *, has_begun: bool) -> None:
        """Tell what the run came to; it has ended. Called by the map alone.

        Who waits wakes, and callbacks are called: the name is free by then.
        """
        run = self._run
        if not has_begun and run.error is None:
            self._was_dropped = not self.cancelled()  # one that joined may have left before
            self._cancel()
        elif self._is_mirror and not (self._may_notify() and self.set_running_or_notify_cancel()):
            return  # who joined has left
        elif run.error is not None:
            self.set_exception(run.error)
        elif run.returned:
            self.set_result(cast(T, run.value))
        else:
            self.set_exception(run.cancelled_error())

    def _cancel(self) -> bool:
        """Be cancelled, if that is possible yet; whether it is."""
        try:
            return super().cancel()
        finally:  # whatever a callback raises
            if self.cancelled() and self._may_notify():
                self.set_running_or_notify_cancel()  # wakes who is in wait() or as_completed()

    def _may_notify(self) -> bool:
        """Take it upon us, if nobody else has: a cancellation must be told only once."""
        me = object()
        return self._notified_by.setdefault("by", me) is me

    def __repr__(self) -> str:
        return f"<namedtasks.TaskFuture {repr_of(self.name)} {self._tells()}>"

    def _tells(self) -> str:
        if not self.done():
            if self._run.overdue:
                return "overdue"
            return "not begun" if self._run.started_at is None else "running"
        if self.cancelled() or (self._run.error is None and not self._run.returned):
            return "cancelled"
        return "failed" if self._run.error is not None else "succeeded"
