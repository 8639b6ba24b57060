"""What namedtasks raises.

An error is made far more often than it is printed: a reconcile loop is refused
ten thousand times a second and prints nothing. So an error keeps its facts in
``args``, its properties read them there, and the sentence is only built by
``str(error)``. The same ``args`` make copying and pickling work.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Hashable
from typing import Any, Self, TypeVar

from namedtasks._core.text import error_text, repr_of, seconds_text, task_text

_ErrorT = TypeVar("_ErrorT", bound="NamedTasksError")

new_error = BaseException.__new__
"""Makes an error of its `args` without a call of its ``__init__``: for what is made most often."""

_HOLDERS_SHOWN = 3
"""Names that a sentence can bear."""


class NamedTasksError(Exception):
    """Base of everything that namedtasks raises on its own account.

    Copies and pickles keep the cause. A cause that cannot be pickled is
    pickled as a `RecordedError`.

    Example:
        >>> import pickle
        >>> def attach():
        ...     raise OSError("device busy")
        >>> with ThreadTaskMap(backoff=Backoff(initial=60), instruments=()) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     refusal = tasks.check("pvc-1")
        >>> isinstance(refusal, NamedTasksError), pickle.loads(pickle.dumps(refusal)).__cause__
        (True, OSError('device busy'))

    .. versionadded:: 0.1
    """

    def __reduce__(self) -> tuple[Any, ...]:
        facts: tuple[Any, ...] = self.args
        return _unpickled, (type(self), facts, _pickled(self.__cause__), vars(self))

    def __copy__(self) -> Self:
        return _rebuilt(type(self), self.args, self.__cause__, vars(self))


class RecordedError(NamedTasksError):
    """Stands in for an error that could not be copied or pickled.

    Differs from the original in its type only: it keeps the original's type
    name and text.

    Example:
        To unpickle an error calls its class again, and this one wants two arguments.

        >>> import pickle
        >>> class AttachError(Exception):
        ...     def __init__(self, volume, node):
        ...         super().__init__(f"{volume} is stuck on {node}")
        >>> def attach():
        ...     raise AttachError("pvc-1", "node-3")
        >>> with ThreadTaskMap(backoff=Backoff(initial=60), instruments=()) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     pickle.loads(pickle.dumps(tasks.check("pvc-1"))).__cause__
        RecordedError('AttachError', 'AttachError: pvc-1 is stuck on node-3')

    .. versionadded:: 0.1
    """

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(type_name, text)

    @classmethod
    def of(cls, error: BaseException) -> RecordedError:
        """What is left of *error*: the name of its type, and its text."""
        return cls(type(error).__qualname__, error_text(error))

    @property
    def type_name(self) -> str:
        """The qualified name of the original's type."""
        name: str = self.args[0]
        return name

    @property
    def text(self) -> str:
        """The original as a traceback's last line shows it."""
        text: str = self.args[1]
        return text

    def __str__(self) -> str:
        return self.text


class _TaskError(NamedTasksError):
    """An error about one task: its first two facts are the name and the operation."""

    @property
    def name(self) -> Hashable:
        """The task's name."""
        name: Hashable = self.args[0]
        return name

    @property
    def operation(self) -> str | None:
        """The operation that was asked for, if any."""
        operation: str | None = self.args[1]
        return operation

    @property
    def _task(self) -> str:
        return task_text(self.name, self.operation)

    def _because(self) -> str:
        cause = self.__cause__
        return "" if cause is None else f": {error_text(cause)}"


class RefusedError(_TaskError):
    """A start was refused: nothing ran, and nothing was recorded.

    Catch this for "not now, whatever the reason"; its subclasses say why.

    Example:
        >>> def attach():
        ...     raise OSError("device busy")
        >>> with ThreadTaskMap(backoff=Backoff(initial=60), instruments=()) as tasks:
        ...     for volume in ("pvc-1", "pvc-2", "pvc-1"):
        ...         try:
        ...             _ = tasks.submit(volume, attach).exception()
        ...         except RefusedError as refusal:
        ...             print(refusal.name, "is left for later:", type(refusal).__name__)
        pvc-1 is left for later: BackoffError

    .. versionadded:: 0.1
    """

    def __init__(self, name: Hashable, operation: str | None = None) -> None:
        super().__init__(name, operation)


class AlreadyRunningError(RefusedError):
    """The name is taken: a run of it, or of a name that overlaps it, has not ended yet.

    Unlike `BackoffError` it says nothing about failures, and no waiting time is
    known: ``wait_free(name)`` comes back when the runs in the way have ended.
    The other values of ``if_busy`` are ways not to be refused; what only waits
    to replace others holds its name, too.

    Example:
        >>> import threading
        >>> attached = threading.Event()
        >>> with ThreadTaskMap() as tasks:
        ...     _ = tasks.submit(("pvc-1", "node-3"), attached.wait)
        ...     try:
        ...         tasks.submit(("pvc-1", ANY), print, "resized")
        ...     except AlreadyRunningError as refusal:
        ...         refusal.name, refusal.holders
        ...     attached.set()
        (('pvc-1', namedtasks.ANY), (('pvc-1', 'node-3'),))

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        name: Hashable,
        operation: str | None,
        started_at: float | None,
        holders: tuple[Hashable, ...],
    ) -> None:
        NamedTasksError.__init__(self, name, operation, started_at, holders)

    @property
    def started_at(self) -> float | None:
        """When the first of the holders began, in seconds on the map's clock; None if not yet."""
        started_at: float | None = self.args[2]
        return started_at

    @property
    def holders(self) -> tuple[Hashable, ...]:
        """The names of the runs that stand in the way: the name itself, or what overlaps it.

        Ten at most, so that a refusal costs the same however many there are.
        """
        holders: tuple[Hashable, ...] = self.args[3]
        return holders

    def __str__(self) -> str:
        if self._is_of_its_own_name():
            return (
                f"{self._task} is already running: wait for its end with wait_free(), "
                "or choose another if_busy: 'skip', 'join', 'replace' or 'queue'"
            )
        names = ", ".join(repr_of(name) for name in self.holders[:_HOLDERS_SHOWN])
        more = " and more" if len(self.holders) > _HOLDERS_SHOWN else ""
        return (
            f"{self._task} overlaps what is already running ({names}{more}): "
            "wait for its end with wait_free(), or choose another if_busy: 'skip' or 'replace'"
        )

    def _is_of_its_own_name(self) -> bool:
        with contextlib.suppress(Exception):  # the name's own __eq__
            return self.holders == (self.name,)
        return False


class BackoffError(RefusedError):
    """The name waits, because its last run failed; ``__cause__`` is that failure.

    Unlike `GaveUpError` it passes by itself: a start at `retry_at` is admitted.

    Example:
        >>> from namedtasks.testing import ManualClock
        >>> def attach():
        ...     raise OSError("device busy")
        >>> clock = ManualClock()
        >>> with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     refusal = tasks.check("pvc-1")  # what a start would raise
        ...     clock.advance(refusal.retry_in)
        ...     refusal.retry_in, refusal.__cause__, tasks.check("pvc-1")
        (0.5, OSError('device busy'), None)

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        name: Hashable,
        operation: str | None,
        failures: int,
        retry_at: float,
        retry_in: float,
    ) -> None:
        NamedTasksError.__init__(self, name, operation, failures, retry_at, retry_in)

    @property
    def failures(self) -> int:
        """How many runs of the name failed in a row."""
        failures: int = self.args[2]
        return failures

    @property
    def retry_at(self) -> float:
        """When the name may start again, in seconds on the map's own clock."""
        retry_at: float = self.args[3]
        return retry_at

    @property
    def retry_in(self) -> float:
        """How many seconds that was away when the start was refused."""
        retry_in: float = self.args[4]
        return retry_in

    def __str__(self) -> str:
        return (
            f"{self._task} may not start for another {seconds_text(self.retry_in)} "
            f"(failures in a row: {self.failures}){self._because()}"
        )


class GaveUpError(RefusedError):
    """The name failed so often that its policy gave up; ``__cause__`` is the last failure.

    Unlike `BackoffError` it does not pass by itself: ``forget(name)`` makes the
    name free again.

    Example:
        >>> def attach():
        ...     raise OSError("no such volume")
        >>> with ThreadTaskMap(backoff=Backoff(give_up_after=1), instruments=()) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     refusal = tasks.check("pvc-1")  # what a start would raise
        ...     tasks.forget("pvc-1")
        ...     refusal.failures, refusal.__cause__, tasks.check("pvc-1")
        True
        (1, OSError('no such volume'), None)

    .. versionadded:: 0.1
    """

    def __init__(self, name: Hashable, operation: str | None, failures: int) -> None:
        NamedTasksError.__init__(self, name, operation, failures)

    @property
    def failures(self) -> int:
        """How many runs of the name failed in a row."""
        failures: int = self.args[2]
        return failures

    def __str__(self) -> str:
        return (
            f"{self._task} gave up (failures in a row: {self.failures}) and starts again "
            f"only after forget(){self._because()}"
        )


class ClosedError(RefusedError, RuntimeError):
    """The map takes no starts any more, of any name.

    It is a `RuntimeError` too, because that is what nurseries and executors
    raise when they are closed.

    Example:
        >>> with ThreadTaskMap() as tasks:
        ...     tasks.close()
        ...     tasks.submit("pvc-1", print, "attached")
        Traceback (most recent call last):
            ...
        namedtasks.ClosedError: task 'pvc-1' may not start: the map is closed; open a new one

    .. versionadded:: 0.1
    """

    def __str__(self) -> str:
        return f"{self._task} may not start: the map is closed; open a new one"


class TaskFailedError(_TaskError):
    """Raised to who waits for a run that failed; ``__cause__`` is what the task raised.

    Each waiter gets one of its own. Futures and asyncio Tasks raise what the
    task raised.

    Example:
        >>> import trio
        >>> async def attach():
        ...     raise OSError("device busy")
        >>> async def main():
        ...     async with open_task_map(instruments=()) as tasks:
        ...         await tasks.start_soon("pvc-1", attach).wait()
        >>> trio.run(main)
        Traceback (most recent call last):
            ...
        namedtasks.TaskFailedError: task 'pvc-1' failed: OSError: device busy

    .. versionadded:: 0.1
    """

    def __init__(self, name: Hashable, operation: str | None = None) -> None:
        super().__init__(name, operation)

    def __str__(self) -> str:
        return f"{self._task} failed{self._because()}"


class TaskCancelledError(_TaskError):
    """Raised to who waits for a run that was cancelled.

    Unlike `trio.Cancelled` it does not say that the waiter was cancelled.

    Example:
        >>> import trio
        >>> async def main():
        ...     async with open_task_map() as tasks:
        ...         handle = tasks.start_soon("pvc-1", trio.sleep, 60)
        ...         handle.cancel("the pod is gone")
        ...         await handle.wait()
        >>> trio.run(main)
        Traceback (most recent call last):
            ...
        namedtasks.TaskCancelledError: task 'pvc-1' was cancelled: the pod is gone

    .. versionadded:: 0.1
    """

    def __init__(
        self, name: Hashable, operation: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(name, operation, reason)

    @property
    def reason(self) -> str | None:
        """Why, in the words of who cancelled it; None if nothing was said."""
        reason: str | None = self.args[2]
        return reason

    def __str__(self) -> str:
        reason = self.reason
        return f"{self._task} was cancelled" + (f": {reason}" if reason else "")


def _pickled(cause: BaseException | None) -> bytes | None:
    """The pickle of *cause*, or of what stands in for it.

    Made once: else each error of a chain of ours would be tried out and then
    pickled, and so would the next one, each time.
    """
    if cause is None:
        return None
    try:
        portable = pickle.dumps(cause)
        pickle.loads(portable)
    except Exception:
        return pickle.dumps(RecordedError.of(cause))
    return portable


def _unpickled(
    cls: type[_ErrorT],
    args: tuple[Any, ...],
    cause: bytes | None,
    attributes: dict[str, Any],
) -> _ErrorT:
    return _rebuilt(cls, args, None if cause is None else pickle.loads(cause), attributes)


def _rebuilt(
    cls: type[_ErrorT],
    args: tuple[Any, ...],
    cause: BaseException | None,
    attributes: dict[str, Any],
) -> _ErrorT:
    error = cls(*args)
    vars(error).update(attributes)
    if cause is not None:
        error.__cause__ = cause
    return error
