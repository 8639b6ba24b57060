"""What callers pass in is taken, or refused with the cure."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from namedtasks._core import checks


class Odd:
    def __repr__(self) -> str:
        return "Odd"


def test_a_number_is_given_back_as_a_float() -> None:
    assert checks.number("retention", 3) == 3.0
    assert type(checks.number("retention", 3)) is float
    assert checks.number("retention", math.inf) == math.inf


def test_a_number_may_be_at_either_end_of_its_range() -> None:
    assert checks.number("jitter", 0) == 0.0
    assert checks.number("jitter", 0.5, least=0.5, most=1.0) == 0.5
    assert checks.number("jitter", 1.0, least=0.5, most=1.0) == 1.0


def test_a_finite_number_may_be_at_the_low_end() -> None:
    assert checks.finite("initial", 0) == 0.0
    assert checks.finite("initial", 2, least=2.0) == 2.0


def test_a_count_is_a_whole_number_of_one_or_more_or_none() -> None:
    assert checks.count("limit", None, none_means="no limit") is None
    assert checks.count("limit", 1, none_means="no limit") == 1
    assert checks.count("limit", 7, none_means="no limit") == 7


def test_a_flag_is_given_back() -> None:
    assert checks.flag("eager", True) is True
    assert checks.flag("eager", False) is False


def test_no_timeout_is_an_infinite_one() -> None:
    assert checks.timeout(None) == math.inf
    assert checks.timeout(1) == 1.0


class Policy:
    def delay(self) -> float:
        return 0.0


@pytest.mark.parametrize(
    "check",
    [
        lambda: checks.hashable(("a", 1), None),
        lambda: checks.hashable("a", "mount"),
        lambda: checks.function("random", print),
        lambda: checks.executor(print),
        lambda: checks.executor(None),
        lambda: checks.policy(Policy()),
        lambda: checks.policy(None),
        lambda: checks.reason("why"),
        lambda: checks.reason(None),
        *[
            lambda value=value: checks.if_busy(value)
            for value in ("refuse", "skip", "join", "replace", "queue")
        ],
    ],
)
def test_what_is_as_it_should_be_is_passed(check: Callable[[], None]) -> None:
    check()


class NoDelay:
    delay = 5

    def __repr__(self) -> str:
        return "NoDelay"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: checks.number("retention", "1"), "retention must be a number, not '1'"),
        (lambda: checks.number("retention", True), "retention must be a number, not True"),
        (lambda: checks.finite("initial", None), "initial must be a number, not None"),
        (
            lambda: checks.count("limit", 1.0, none_means="no limit"),
            "limit must be a whole number or None, not 1.0",
        ),
        (
            lambda: checks.count("limit", True, none_means="no limit"),
            "limit must be a whole number or None, not True",
        ),
        (lambda: checks.flag("eager", 1), "eager must be True or False, not 1"),
        (lambda: checks.hashable("a", 1), "operation must be a str or None, not 1"),
        (
            lambda: checks.hashable(["vol"], None),
            "a task's name must be hashable, and list is not: ['vol']; "
            "use a str, a tuple or a frozen class",
        ),
        (lambda: checks.function("random", 5), "random must be callable, not 5"),
        (
            lambda: checks.executor(Odd()),
            "executor must be an async callable such as trio.to_thread.run_sync, not Odd",
        ),
        (
            lambda: checks.policy(Odd()),
            "backoff must be a Backoff, None, or have a method delay(), not Odd",
        ),
        (
            lambda: checks.policy(NoDelay()),
            "backoff must be a Backoff, None, or have a method delay(), not NoDelay",
        ),
        (
            lambda: checks.policy(Policy),
            f"backoff must be a Backoff, None, or have a method delay(), not {Policy!r}",
        ),
        (lambda: checks.reason(5), "reason must be a str or None, not 5"),
    ],
)
def test_what_is_of_the_wrong_type_is_refused(check: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError) as raised:
        check()
    assert str(raised.value) == message


BELOW = math.nextafter(0.5, 0.0)
ABOVE = math.nextafter(1.0, 2.0)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: checks.number("grace", -0.1), "grace must be at least 0, not -0.1"),
        (lambda: checks.number("grace", math.nan), "grace must be at least 0, not nan"),
        (
            lambda: checks.number("jitter", BELOW, least=0.5, most=1.0),
            f"jitter must be at least 0.5 and at most 1, not {BELOW!r}",
        ),
        (
            lambda: checks.number("jitter", ABOVE, least=0.5, most=1.0),
            f"jitter must be at least 0.5 and at most 1, not {ABOVE!r}",
        ),
        (lambda: checks.number("grace", 10**400), "grace is too large for a float"),
        (lambda: checks.finite("initial", math.inf), "initial must be finite, not inf"),
        (lambda: checks.finite("initial", -0.1), "initial must be at least 0, not -0.1"),
        (
            lambda: checks.finite("factor", 0.9, least=1.0),
            "factor must be at least 1, not 0.9",
        ),
        (
            lambda: checks.count("limit", 0, none_means="no limit"),
            "limit must be at least 1, or None for no limit, not 0",
        ),
        (lambda: checks.timeout(-1), "timeout must be at least 0, not -1"),
        (
            lambda: checks.if_busy("wait"),
            "if_busy must be 'refuse', 'skip', 'join', 'replace' or 'queue', not 'wait'",
        ),
    ],
)
def test_what_is_out_of_its_range_is_refused(check: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        check()
    assert str(raised.value) == message


def test_what_cannot_be_hashed_says_why() -> None:
    """The cause is the name's own error."""

    class Unhashable:
        def __hash__(self) -> int:
            raise TypeError("as I say")

    with pytest.raises(TypeError) as raised:
        checks.hashable(Unhashable(), None)
    cause: Any = raised.value.__cause__
    assert str(cause) == "as I say"
