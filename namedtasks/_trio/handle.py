"""A run as its starter sees it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar, cast, final

from trio.lowlevel import checkpoint, enable_ki_protection

from namedtasks._core.text import repr_of
from namedtasks._trio import waits
from namedtasks._trio.lots import Lot
from namedtasks._trio.run import TrioRun

T_co = TypeVar("T_co", covariant=True)


@final
class TaskHandle(Generic[T_co]):
    """One run of a named task: ask how it does, cancel it, wait for what it gives back.

    A handle outlives its run, and keeps the run's result. Dropping it changes
    nothing for the run. It is equal only to itself.

    Example:
        >>> async with open_task_map() as tasks:
        ...     handle = tasks.start_soon("pvc-1", trio.sleep, 5, operation="attach")
        ...     handle
        ...     await tasks.wait_idle()
        ...     handle, handle.operation, handle.done
        <namedtasks.TaskHandle 'pvc-1' not begun>
        (<namedtasks.TaskHandle 'pvc-1' succeeded>, 'attach', True)

    .. versionadded:: 0.1
    """

    __slots__ = ("__weakref__", "_run")

    def __init__(self, run: TrioRun) -> None:
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
    def started_at(self) -> float | None:
        """When the body began, in seconds on the map's clock; None until it does."""
        return self._run.started_at

    @property
    def failures(self) -> int:
        """How many runs of the name failed in a row before this one; 0 once it was forgotten."""
        return self._run.failures

    @property
    def done(self) -> bool:
        """Whether the work has really ended and its name is free."""
        return self._run.done

    @property
    def overdue(self) -> bool:
        """Whether the run went on for too long after it was asked to stop, or met its deadline."""
        return self._run.overdue

    def cancel(self, reason: str | None = None) -> bool:
        """Ask this run to stop, and tell why. Not a checkpoint.

        The run ends when its body heeds that. A body that returns or raises
        regardless has succeeded or failed. One that is pending, or waits for a
        slot, ends at once. The first reason given counts.

        Returns:
            Whether the run had not ended yet.

        Raises:
            TypeError: *reason* is no text.
            RuntimeError: the caller is not in the event loop run that opened the map.

        Example:
            >>> async with open_task_map() as tasks:
            ...     handle = tasks.start_soon("pvc-1", trio.sleep, 60)
            ...     handle.cancel("the pod is gone")
            ...     await tasks.wait_idle()
            ...     handle.cancel()
            True
            False
        """
        return self._run.shell.cancel(self._run, reason)

    @enable_ki_protection
    async def wait(self) -> T_co:
        """Wait for the run's end, and give back what its body returned. Checkpoint.

        Being cancelled while waiting does nothing to the run. Any number may
        wait, also after the end.

        Raises:
            TaskFailedError: the run failed; ``__cause__`` is what it raised.
            TaskCancelledError: the run was cancelled.
            RuntimeError: the caller is inside this very run, or the one that it
                is queued behind, or in another run of trio.

        Example:
            >>> async def attach(volume):
            ...     raise OSError("device busy")
            >>> async with open_task_map() as tasks:
            ...     handle = tasks.start_soon("pvc-1", attach, "pvc-1")
            ...     try:
            ...         await handle.wait()
            ...     except TaskFailedError as error:
            ...         error.__cause__
            OSError('device busy')
        """
        run = self._run
        if run.done:
            await checkpoint()
        else:
            run.shell.own_thread.check()
            waits.refuse_to_wait_for_oneself(run)
            while not run.done:
                lot = run.waiters
                if lot is None:
                    lot = run.waiters = Lot()
                await lot.park()
        if not run.returned:
            run.raise_error()
        return cast("T_co", run.value)

    def __repr__(self) -> str:
        return f"<namedtasks.TaskHandle {repr_of(self.name)} {self._state()}>"

    def _state(self) -> str:
        run = self._run
        if run.returned:
            return "succeeded"
        if run.error is not None:
            return "failed"
        if run.done:
            return "cancelled"
        if run.overdue:
            return "overdue"
        return "not begun" if run.started_at is None else "running"
