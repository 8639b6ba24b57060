"""Exceptions of namedtasks, and copies of exceptions for the record.

An error is made far more often than it is printed: a reconcile loop may be
refused ten thousand times a second and print nothing. So an error keeps its
facts in ``args``, its properties read them there, and ``str(error)`` builds the
message. Copying and pickling use the same ``args``.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import operator
import weakref
from collections.abc import Hashable
from typing import Any, Final, Self, TypeAlias, TypeVar, cast

from namedtasks._validation import error_text, safe_repr, safe_str, seconds_text, task_text
from namedtasks._version import publish

new_error = BaseException.__new__
"""Make an error from its ``args`` without a call of ``__init__``, for the most frequent errors."""

_ErrorT = TypeVar("_ErrorT", bound="NamedTasksError")

_HOLDERS_SHOWN = 3
"""The largest number of names in a message."""


class NamedTasksError(Exception):
    """The base class of all errors of namedtasks.

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
        return _rebuild, (type(self), self.args, _pickle_cause(self.__cause__), vars(self))

    def __copy__(self) -> Self:
        return _rebuild(type(self), self.args, self.__cause__, vars(self))


class RecordedError(NamedTasksError):
    """A replacement for an error that could not be copied or pickled.

    It keeps the name of the type of the original, and its text.

    Example:
        Unpickling calls the class with ``args``: one argument, while this class needs two.

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
        """Return the replacement for *error*."""
        return cls(type(error).__qualname__, error_text(error))

    @property
    def type_name(self) -> str:
        """The qualified name of the original's type."""
        return cast("str", self.args[0])

    @property
    def text(self) -> str:
        """The last line of the original's traceback."""
        return cast("str", self.args[1])

    def __str__(self) -> str:
        return self.text


class _TaskError(NamedTasksError):
    """An error about one task. Its first two ``args`` are the name and the operation."""

    def __init__(self, name: Hashable, operation: str | None = None) -> None:
        super().__init__(name, operation)

    @property
    def name(self) -> Hashable:
        """The task's name."""
        return cast("Hashable", self.args[0])

    @property
    def operation(self) -> str | None:
        """The operation that the start named, if any."""
        return cast("str | None", self.args[1])

    @property
    def _task(self) -> str:
        return task_text(self.name, self.operation)

    def _because(self) -> str:
        cause = self.__cause__
        return "" if cause is None else f": {error_text(cause)}"


class RefusedError(_TaskError):
    """A start was refused: nothing ran, and nothing was recorded.

    Catch this if the reason does not matter; each subclass is one reason.

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


class AlreadyRunningError(RefusedError):
    """The name is taken: a run of it, or of a name that overlaps it, has not ended.

    It is not about failures, unlike `BackoffError`, and the time to wait is not known:
    ``wait_free(name)`` returns when those runs have ended. The other values of
    ``if_busy`` avoid the refusal. A start that waits to replace a run holds its name,
    too.

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
        """The time at which the first holder began, on the map's clock; None if it has not."""
        return cast("float | None", self.args[2])

    @property
    def holders(self) -> tuple[Hashable, ...]:
        """The names of the runs that hold the name: the name itself, or names that overlap it.

        At most ten, so that the cost of a refusal does not grow with their number.
        """
        return cast("tuple[Hashable, ...]", self.args[3])

    def __str__(self) -> str:
        with contextlib.suppress(Exception):  # of the name's own __eq__
            if self.holders == (self.name,):
                return (
                    f"{self._task} is already running: wait for its end with wait_free(), "
                    "or choose another if_busy: 'skip', 'join', 'replace' or 'queue'"
                )
        names = ", ".join(safe_repr(name) for name in self.holders[:_HOLDERS_SHOWN])
        more = " and more" if len(self.holders) > _HOLDERS_SHOWN else ""
        return (
            f"{self._task} overlaps what is already running ({names}{more}): "
            "wait for its end with wait_free(), or choose another if_busy: 'skip' or 'replace'"
        )


class BackoffError(RefusedError):
    """The name waits, because its last run failed; ``__cause__`` is a copy of the error.

    The wait ends by itself, unlike with `GaveUpError`: a start at `retry_at` is admitted.

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
        self, name: Hashable, operation: str | None, failures: int, retry_at: float, retry_in: float
    ) -> None:
        NamedTasksError.__init__(self, name, operation, failures, retry_at, retry_in)

    @property
    def failures(self) -> int:
        """The number of runs of the name that failed in a row."""
        return cast("int", self.args[2])

    @property
    def retry_at(self) -> float:
        """The time at which the name may start again, in seconds on the map's clock."""
        return cast("float", self.args[3])

    @property
    def retry_in(self) -> float:
        """The seconds from the refusal to `retry_at`."""
        return cast("float", self.args[4])

    def __str__(self) -> str:
        return (
            f"{self._task} may not start for another {seconds_text(self.retry_in)} "
            f"(failures in a row: {self.failures}){self._because()}"
        )


class GaveUpError(RefusedError):
    """The name gave up, as its policy decided; ``__cause__`` is a copy of the last error.

    The name does not become free by itself, unlike with `BackoffError`:
    ``forget(name)`` makes it free.

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
        """The number of runs of the name that failed in a row."""
        return cast("int", self.args[2])

    def __str__(self) -> str:
        return (
            f"{self._task} gave up (failures in a row: {self.failures}) and starts again "
            f"only after forget(){self._because()}"
        )


class ClosedError(RefusedError, RuntimeError):
    """The map is closed: it admits no more starts, of any name.

    It is also a `RuntimeError`, which closed nurseries and executors raise.

    Example:
        >>> with ThreadTaskMap() as tasks:
        ...     tasks.close()
        ...     tasks.submit("pvc-1", print, "attached")
        Traceback (most recent call last):
            ...
        namedtasks.ClosedError: task 'pvc-1' may not start: the map is closed; open a new one

    .. versionadded:: 0.1
    """

    def __init__(
        self, name: Hashable, operation: str | None = None, opened_in_parent: bool = False
    ) -> None:
        NamedTasksError.__init__(self, name, operation, opened_in_parent)

    def __str__(self) -> str:
        if self.args[2]:
            may_not = "" if self.name is None else f"{self._task} may not start: "
            return f"{may_not}the map was opened in the parent process; open a new one"
        return f"{self._task} may not start: the map is closed; open a new one"


class StaleLookError(RefusedError):
    """The start acts on an old listing: a run has ended since ``observe()``.

    A start with ``since=`` raises it. The name may be free, unlike with the other refusals:
    list again, with a new observation, and decide again.

    Example:
        >>> with ThreadTaskMap() as tasks, tasks.observe() as look:
        ...     wanted = ["pvc"]  # as the listing says
        ...     _ = tasks.submit("pvc", len, "superblock").result()
        ...     _ = tasks.submit("pvc", len, "superblock", since=look)
        Traceback (most recent call last):
            ...
        namedtasks.StaleLookError: task 'pvc' may not start: a run ended since observe(): list again

    .. versionadded:: 0.1
    """

    def __init__(self, name: Hashable, operation: str | None = None, expired: bool = False) -> None:
        NamedTasksError.__init__(self, name, operation, expired)

    @property
    def expired(self) -> bool:
        """True if the observation has expired, and the map does not know if a run has ended."""
        return cast("bool", self.args[2])

    def __str__(self) -> str:
        if self.expired:
            return f"{self._task} may not start: the observation has expired: list again"
        return f"{self._task} may not start: a run ended since observe(): list again"


class TaskFailedError(_TaskError):
    """A run failed, and a caller waited for it; ``__cause__`` is the error of the task.

    Each waiter gets its own error. Futures and asyncio Tasks raise the error of the
    task itself instead.

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

    def __str__(self) -> str:
        return f"{self._task} failed{self._because()}"


class TaskCancelledError(_TaskError):
    """A run was cancelled, and a caller waited for it.

    It does not mean that the waiter was cancelled, unlike `trio.Cancelled`.

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
        NamedTasksError.__init__(self, name, operation, reason)

    @property
    def reason(self) -> str | None:
        """The reason of the cancellation, if one was given."""
        return cast("str | None", self.args[2])

    def __str__(self) -> str:
        reason = self.reason
        return f"{self._task} was cancelled" + (f": {reason}" if reason else "")


# Pickling


def _pickle_cause(cause: BaseException | None) -> bytes | None:
    """Return the pickle of *cause*, or of its `RecordedError` if it cannot be pickled.

    The bytes are part of the error's own pickle. If that contained the cause itself,
    each error of a chain would pickle all that follow twice, once for the try and once
    for the result: the work would double with every further cause.
    """
    if cause is None:
        return None
    # Few programs pickle an error, and the import would cost all of them about 3 ms.
    import pickle  # noqa: PLC0415

    try:
        pickled = pickle.dumps(cause)
        pickle.loads(pickled)
    except Exception:
        return pickle.dumps(RecordedError.of(cause))
    return pickled


def _rebuild(
    cls: type[_ErrorT],
    args: tuple[Any, ...],
    cause: BaseException | bytes | None,
    attributes: dict[str, Any],
) -> _ErrorT:
    """Return a copy of an error from its parts; *cause* is an exception, or the pickle of one."""
    error = cls(*args)
    vars(error).update(attributes)
    if isinstance(cause, bytes):
        import pickle  # noqa: PLC0415  # as above

        cause = cast("BaseException", pickle.loads(cause))
    if cause is not None:  # an assignment of None would suppress the error's context, too
        error.__cause__ = cause
    return error


# Snapshots


_BUILT_IN: Final = {
    value
    for value in vars(builtins).values()
    if isinstance(value, type)
    and issubclass(value, BaseException)
    and not issubclass(value, BaseExceptionGroup)
} | {object}
"""The built-in exceptions, which all copy by ``__reduce__``, and their base."""

_COPY_METHODS: Final = {
    "__copy__",
    "__getattribute__",
    "__getstate__",
    "__init__",
    "__new__",
    "__reduce__",
    "__reduce_ex__",
    "__setattr__",
    "__setstate__",
}
"""The methods that change how an instance is copied."""

_plain_types: weakref.WeakKeyDictionary[type[BaseException], bool] = weakref.WeakKeyDictionary()
"""The types of errors seen so far, and whether they are plain: see `_is_plain`."""


def snapshot_exception(error: BaseException) -> BaseException:
    """Return a copy of *error* that keeps no frame alive: no traceback, no cause, no context.

    The ``args`` of the copy are those of the original, and keep their objects alive. A
    `RecordedError` replaces an error that cannot be copied, because copying it raises,
    or returns the original itself or another object.
    """
    kind = type(error)
    if type(kind) is type:  # a class of another metaclass may have no hash
        plain = _plain_types.get(kind)
        if plain is None:
            plain = _plain_types[kind] = _is_plain(kind)
        if plain:
            # The same as copy.copy(), without its calls: each failure comes here.
            try:
                parts: Any = error.__reduce__()
                args = parts[1]
                copied = kind(*args)
                if len(parts) > 2:
                    copied.__setstate__(parts[2])
                if (type(copied) is kind and copied.args is args) or _is_faithful(copied, error):
                    return copied
            except Exception:  # for example, args was assigned, and does not fit the type
                pass
    if isinstance(error, BaseExceptionGroup):
        copied = _copy_group(cast("BaseExceptionGroup[BaseException]", error))
    else:
        copied = _copy(error)
    # Not setattr(): a frozen class overrides __setattr__ with a method that raises.
    for attribute in ("__cause__", "__context__", "__traceback__"):
        BaseException.__setattr__(copied, attribute, None)
    BaseException.__setattr__(copied, "__suppress_context__", False)
    return copied


def _is_plain(kind: type[BaseException]) -> bool:
    """Return whether *kind* is built in, or has no slots and no `_COPY_METHODS` of its own."""
    own = [vars(one) for one in kind.__mro__ if one not in _BUILT_IN]
    return all(_COPY_METHODS.isdisjoint(one) and not one.get("__slots__") for one in own)


def _is_faithful(copied: BaseException, error: BaseException) -> bool:
    return (
        copied is not error
        and type(copied) is type(error)
        and len(copied.args) == len(error.args)
        and all(map(operator.is_, copied.args, error.args))
    )


def _copy(error: BaseException) -> BaseException:
    try:
        copied: BaseException = copy.copy(error)
        if _is_faithful(copied, error):
            return copied
    except BaseException:  # copying runs the error's own code, which may raise anything
        pass
    try:
        # Without __init__, whose parameters may differ from args: so it is in every class that
        # formats its message with super().__init__(f"...").
        copied = BaseException.__new__(type(error), *error.args)
        vars(copied).update(vars(error))
        if _is_faithful(copied, error) and safe_str(copied) == safe_str(error):
            return copied
    except BaseException:  # not every type can be made in this way
        pass
    return RecordedError.of(error)


def _copy_group(group: BaseExceptionGroup[BaseException]) -> BaseException:
    try:
        copied = group.derive([snapshot_exception(member) for member in group.exceptions])
        if type(copied) is type(group) and copied is not group:
            for note in getattr(group, "__notes__", ()):
                copied.add_note(note)
            return copied
    except BaseException:  # derive() is the group's own code
        pass
    return RecordedError.of(group)


# Groups


Kind: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


def split_exception(
    error: BaseException, kind: Kind
) -> tuple[BaseException | None, BaseException | None]:
    """Return the part of *error* of this *kind*, and the rest; *error* may be a group."""
    if isinstance(error, kind):
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    group = cast("BaseExceptionGroup[BaseException]", error)
    try:
        return group.split(kind)
    except BaseException:  # split() runs the group's own derive()
        return None, group


def raise_combined(errors: list[BaseException], raised_in_block: BaseException | None) -> None:
    """Raise the *errors* that leave a map's block: a single one as it is, several as a group.

    Clears *errors*. If the only error is the error of the block, this returns, because
    Python raises that again by itself.
    """
    # A copy, because the group keeps the list for its repr, copies and pickles.
    error = (
        errors[0]
        if len(errors) == 1
        else BaseExceptionGroup("exceptions from a task map", [*errors])
    )
    if error is raised_in_block:
        return
    context = error.__context__
    try:
        raise error
    finally:
        # As in trio, the error that the block raised is not its context.
        BaseException.__setattr__(error, "__context__", context)
        errors.clear()
        del error, context, raised_in_block  # no cycle through the error's traceback


publish(
    NamedTasksError,
    RecordedError,
    RefusedError,
    AlreadyRunningError,
    BackoffError,
    GaveUpError,
    ClosedError,
    StaleLookError,
    TaskFailedError,
    TaskCancelledError,
)
