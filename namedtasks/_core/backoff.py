"""How long a name waits after a failure."""

import math
from collections.abc import Callable
from typing import Protocol, TypeGuard, cast, final

import attrs

from namedtasks._core import checks
from namedtasks._core.complaints import Complain
from namedtasks._core.text import repr_of


class BackoffPolicy(Protocol):
    """Decides how long a name waits after it failed.

    A policy may also have a float attribute ``maximum``, its longest wait in
    seconds: the default retention is twice that.

    Example:
        A wait that grows by half a minute; a permission that is missing is no
        matter of time.

        >>> import math
        >>> from namedtasks import ThreadTaskMap
        >>> class Patient:
        ...     def delay(self, failures, error):
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

    def delay(self, failures: int, error: BaseException, /) -> float | None:
        """Say how long the name waits, after *failures* failures in a row, the last being *error*.

        A policy that raises, or answers with a negative number, NaN or no
        number, is logged, and the default `Backoff` answers in its place.

        Returns:
            Seconds; `math.inf` gives the name up until it is forgotten; None
            means no wait, and that this failure is not counted.
        """
        ...


def _initial(value: object) -> float:
    return checks.finite("initial", value)


def _factor(value: object) -> float:
    return checks.finite("factor", value, least=1.0)


def _maximum(value: object) -> float:
    return checks.finite("maximum", value)


def _share(value: object) -> float:
    return checks.number("jitter", value, most=1.0)


def _attempts(value: object) -> int | None:
    return checks.count("give_up_after", value, none_means="never")


def _error_types(value: object) -> tuple[type[BaseException], ...]:
    if _are_error_types(value):
        return value
    raise TypeError(
        f"exempt must be a tuple of exception types, not {repr_of(value)}: "
        "one type is written exempt=(NotReady,)"
    )


def _are_error_types(value: object) -> TypeGuard[tuple[type[BaseException], ...]]:
    return isinstance(value, tuple) and all(
        isinstance(kind, type) and issubclass(kind, BaseException)
        for kind in cast("tuple[object, ...]", value)
    )


@final
@attrs.frozen(kw_only=True)
class Backoff:
    """Exponential backoff: the wait doubles with each failure in a row, up to a maximum.

    The default figures are those of Kubernetes' exponentialbackoff package:
    0.5 s, doubled, at most 2 min 2 s.

    Raises:
        TypeError: a figure is no number, or *exempt* no tuple of exception types.
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
    """What each further failure multiplies the wait by; at least 1."""
    maximum: float = attrs.field(default=122.0, converter=_maximum)
    """The longest wait, in seconds."""
    jitter: float = attrs.field(default=0.0, converter=_share)
    """The largest share of a wait, from 0 to 1, that chance takes away.

    It keeps names that failed together from coming back together. The map
    applies it, with the source of randomness that it was opened with.
    """
    give_up_after: int | None = attrs.field(default=None, converter=_attempts)
    """After how many failures in a row a name is given up; None for never."""
    exempt: tuple[type[BaseException], ...] = attrs.field(default=(), converter=_error_types)
    """Errors that start no wait and count nothing: "not ready yet" is no crash.

    A group of errors is exempt if all that it holds is.
    """

    def delay(self, failures: int, error: BaseException, /) -> float | None:
        """Say how long a name waits, without jitter: ``min(maximum, initial * factor**(n-1))``.

        Returns:
            Seconds after *failures* failures in a row; `math.inf` once
            `give_up_after` is reached; None for an exempt *error*.

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
    """Twice the *policy*'s maximum, in seconds; 244 for a policy that has none."""
    longest = getattr(policy, "maximum", _DEFAULT.maximum)
    return 2 * checks.number("the policy's maximum", longest)


def delay_after(
    policy: BackoffPolicy | None,
    failures: int,
    error: BaseException,
    random: Callable[[], float],
    complain: Complain,
) -> float | None:
    """Ask the *policy* for the wait after a failure, and never raise.

    Returns:
        Seconds, jitter included; `math.inf` to give up; None for no wait.
    """
    if policy is None:
        return None
    try:
        delay = policy.delay(failures, error)
        if delay is not None:
            delay = checks.number("the delay", delay)
    except BaseException as broken:  # whatever it is, the name must be freed
        complain(f"backoff policy {repr_of(policy)} failed; the default figures apply", broken)
        delay = _DEFAULT.delay(failures, error)
    if isinstance(policy, Backoff) and policy.jitter and delay:
        return _jittered(delay, policy.jitter, random, complain)
    return delay


def _jittered(
    delay: float, jitter: float, random: Callable[[], float], complain: Complain
) -> float:
    if delay == math.inf:
        return delay
    try:
        return delay * (1 - jitter * checks.number("a random number", random(), most=1.0))
    except BaseException as broken:  # as above
        complain("the map's source of randomness failed; there is no jitter", broken)
        return delay
