"""Backoff policies: the wait of a name after its failures."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Protocol, cast, final

import attrs

from namedtasks._logging import log_error
from namedtasks._validation import check_count, check_finite, check_number, safe_repr
from namedtasks._version import publish


@attrs.frozen
class FailedRun:
    """A run that has just failed, for a policy.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> class Patient:
        ...     def delay(self, failures, error, run, /):
        ...         print(f"{run.operation} of {run.name} failed")
        ...         return 30
        >>> def attach():
        ...     raise OSError("device busy")
        >>> with ThreadTaskMap(backoff=Patient(), instruments=()) as tasks:
        ...     _ = tasks.submit("pvc-1", attach, operation="attach").exception()
        attach of pvc-1 failed

    .. versionadded:: 0.1
    """

    name: Hashable
    """The task's name."""
    operation: str | None
    """The operation that the start named, if any."""
    started_at: float | None
    """The time at which the body began, in seconds on the map's clock; None if it never did."""
    ended_at: float
    """The time at which the run failed, in seconds on the map's clock."""


class BackoffPolicy(Protocol):
    """A rule for the wait of a name after each failure.

    A policy may also have a float attribute ``maximum``, its longest wait in
    seconds: the default retention is twice that.

    Example:
        The wait grows by half a minute. Waiting does not help against a missing
        permission, so the name gives up.

        >>> import math
        >>> from namedtasks import ThreadTaskMap
        >>> class Patient:
        ...     def delay(self, failures, error, run, /):
        ...         return math.inf if isinstance(error, PermissionError) else 30 * failures
        >>> def attach(error):
        ...     raise error
        >>> with ThreadTaskMap(backoff=Patient(), instruments=()) as tasks:
        ...     _ = tasks.submit("pvc-1", attach, OSError("device busy")).exception()
        ...     _ = tasks.submit("pvc-2", attach, PermissionError("forbidden")).exception()
        ...     tasks.state("pvc-1"), tasks.state("pvc-2")
        (<State.WAITING: 'waiting'>, <State.GAVE_UP: 'gave up'>)

    .. versionadded:: 0.1
    """

    def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float | None:
        """Return the wait after *failures* failures in a row, of which *error* is the last.

        *run* is the run that has failed, with its beginning and its end. If the policy raises,
        or returns a negative number, NaN or anything that is not a number, this is logged, and
        the default `Backoff` applies to this failure.

        Returns:
            Seconds; `math.inf` if the name gives up until it is forgotten; None for no
            wait and no count of this failure.
        """
        ...


def _initial(value: object) -> float:
    return check_finite("initial", value)


def _factor(value: object) -> float:
    return check_finite("factor", value, least=1.0)


def _maximum(value: object) -> float:
    return check_finite("maximum", value)


def _share(value: object) -> float:
    return check_number("jitter", value, most=1.0)


def _reset_after(value: object) -> float | None:
    return None if value is None else check_number("reset_after", value)


def _attempts(value: object) -> int | None:
    return check_count("give_up_after", value, none_means="never")


def _error_types(value: object) -> tuple[type[BaseException], ...]:
    kinds = cast("tuple[object, ...]", value)
    if isinstance(value, tuple) and all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
    ):
        return cast("tuple[type[BaseException], ...]", kinds)
    raise TypeError(
        f"exempt must be a tuple of exception types, not {safe_repr(kinds)}: "
        "one type is written exempt=(NotReady,)"
    )


@final
@attrs.frozen(kw_only=True)
class Backoff:
    """Exponential backoff: the wait doubles with each failure in a row, up to a maximum.

    The default figures are those of Kubernetes' exponentialbackoff package:
    0.5 s, doubled, at most 2 min 2 s.

    Raises:
        TypeError: a figure is not a number, or *exempt* is not a tuple of exception types.
        ValueError: a figure is out of its range.

    Example:
        >>> [Backoff().delay(n, OSError()) for n in (1, 2, 3, 8, 9)]  # seconds
        [0.5, 1.0, 2.0, 64.0, 122.0]
        >>> policy = Backoff(initial=1, factor=3, give_up_after=4)
        >>> [policy.delay(n, OSError()) for n in (1, 2, 3, 4)]
        [1.0, 3.0, 9.0, inf]

    .. versionadded:: 0.1
    """

    initial: float = attrs.field(default=0.5, converter=_initial)
    """The wait after the first failure, in seconds."""
    factor: float = attrs.field(default=2.0, converter=_factor)
    """The factor by which each further failure multiplies the wait; at least 1."""
    maximum: float = attrs.field(default=122.0, converter=_maximum)
    """The longest wait, in seconds."""
    jitter: float = attrs.field(default=0.0, converter=_share)
    """The largest part of a wait, from 0 to 1, that is subtracted at random.

    It keeps names that failed together from starting again together. The map applies it,
    with its own ``random``.
    """
    give_up_after: int | None = attrs.field(default=None, converter=_attempts)
    """The number of failures in a row after which a name gives up; None for never."""
    exempt: tuple[type[BaseException], ...] = attrs.field(default=(), converter=_error_types)
    """The types of errors that cause no wait and are not counted, for example "not ready yet".

    A group of errors is exempt if all its errors are.
    """
    reset_after: float | None = attrs.field(default=None, converter=_reset_after)
    """The number of seconds that a run must last so that its failure counts as the first; None
    for no such rule.

    Without it, a crash after three good days is added to the crashes before it. Kubernetes
    resets the back-off of a container that has run for 10 minutes.
    """

    def delay(
        self,
        failures: int,
        error: BaseException,
        run: FailedRun | None = None,  # noqa: ARG002 - `reset_after` is about the count
        /,
    ) -> float | None:
        """Return the wait of a name, without jitter: ``min(maximum, initial * factor**(n-1))``.

        Returns:
            Seconds after *failures* failures in a row; `math.inf` when `give_up_after`
            is reached; None for an exempt *error*.

        Raises:
            ValueError: *failures* is below 1.

        Example:
            >>> policy = Backoff(initial=1, exempt=(FileNotFoundError,))
            >>> policy.delay(3, OSError("device busy"))
            4.0
            >>> policy.delay(3, FileNotFoundError("not there yet")) is None
            True
        """
        if failures < 1:
            raise ValueError(f"failures must be at least 1, not {failures}")
        if self.exempt and _is_exempt(error, self.exempt):
            return None
        if self.give_up_after is not None and failures >= self.give_up_after:
            return math.inf
        try:
            return min(self.maximum, self.initial * self.factor ** (failures - 1))
        except OverflowError:
            return self.maximum if self.initial else 0.0


def _is_exempt(error: BaseException, exempt: tuple[type[BaseException], ...]) -> bool:
    if isinstance(error, exempt):
        return True
    if not isinstance(error, BaseExceptionGroup):
        return False
    group = cast("BaseExceptionGroup[BaseException]", error)
    return group.split(exempt)[1] is None


_DEFAULT = Backoff()


def default_retention(policy: BackoffPolicy | None) -> float:
    """Return twice the *policy*'s maximum, in seconds; 244 for a policy without one."""
    longest = getattr(policy, "maximum", _DEFAULT.maximum)
    return 2 * check_number("the policy's maximum", longest)


def compute_backoff(
    policy: BackoffPolicy | None,
    failures: int,
    error: BaseException,
    run: FailedRun | None,
    random: Callable[[], float],
) -> float | None:
    """Return the wait after a failure, with jitter; never raise.

    A `Backoff` needs no *run*.

    Errors of *policy* and *random* are logged, because the name must become free in
    any case.

    Returns:
        Seconds; `math.inf` if the name gives up; None for no wait.
    """
    if policy is None:
        return None
    try:
        delay = policy.delay(failures, error, cast("FailedRun", run))
        if delay is not None and not isinstance(policy, Backoff):
            delay = check_number("the delay", delay)
    except BaseException as broken:
        log_error(f"backoff policy {safe_repr(policy)} failed; the default figures apply", broken)
        delay = _DEFAULT.delay(failures, error)
    if not isinstance(policy, Backoff) or not policy.jitter or not delay or delay == math.inf:
        return delay
    try:
        return delay * (1 - policy.jitter * check_number("a random number", random(), most=1.0))
    except BaseException as broken:
        log_error("the map's source of randomness failed; there is no jitter", broken)
        return delay


def count_failures(policy: BackoffPolicy | None, before: int, run: FailedRun) -> int:
    """Return the number of failures in a row, *run* included; *before* is the number before it."""
    reset_after = policy.reset_after if isinstance(policy, Backoff) else None
    if reset_after is None or run.started_at is None:
        return before + 1
    return 1 if run.ended_at - run.started_at >= reset_after else before + 1


publish(Backoff)
publish(FailedRun, module="namedtasks.abc")
