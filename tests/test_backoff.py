"""Backoff policies, and the wait that a map computes from them."""

import math
from typing import Any

import pytest

from namedtasks import Backoff, _backoff
from namedtasks._backoff import BackoffPolicy, compute_backoff, default_retention
from namedtasks.abc import FailedRun


class NotReady(Exception):
    pass


class Answers:
    """A policy that gives one answer, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float | None:
        if isinstance(self.answer, BaseException):
            raise self.answer
        answer: float | None = self.answer
        return answer

    def __repr__(self) -> str:
        return "Answers"


RUN = FailedRun("a", None, 1.0, 2.0)

Logged = list[tuple[str, BaseException]]


@pytest.fixture(name="logged", autouse=True)
def record_logged_errors(monkeypatch: pytest.MonkeyPatch) -> Logged:
    """Record the calls of `log_error`."""
    logged: Logged = []

    def log_error(what: str, error: BaseException) -> None:
        logged.append((what, error))

    monkeypatch.setattr(_backoff, "log_error", log_error)
    return logged


def compute(policy: BackoffPolicy | None, failures: int = 1, random: Any = None) -> float | None:
    return compute_backoff(policy, failures, ValueError(), RUN, random or (lambda: 0.0))


def test_the_default_waits_are_the_ancestors() -> None:
    waits = [Backoff().delay(n, ValueError()) for n in range(1, 12)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 64, 122, 122, 122]


@pytest.mark.parametrize("failures", [1024, 1025, 2000, 10**9])
def test_no_number_of_failures_overflows(failures: int) -> None:
    assert Backoff().delay(failures, ValueError()) == 122.0
    assert Backoff(initial=0).delay(failures, ValueError()) == 0.0
    assert Backoff(factor=1e300).delay(failures, ValueError()) == 122.0


def test_a_wait_never_exceeds_the_maximum_from_the_first_failure_on() -> None:
    assert Backoff(initial=5, maximum=3).delay(1, ValueError()) == 3.0


def test_it_gives_up_exactly_after_the_given_number() -> None:
    policy = Backoff(give_up_after=3)
    assert [policy.delay(n, ValueError()) for n in (1, 2, 3, 4)] == [0.5, 1.0, math.inf, math.inf]


def test_exempt_errors_do_not_wait() -> None:
    policy = Backoff(exempt=(NotReady,), give_up_after=1)
    assert policy.delay(5, NotReady()) is None
    assert policy.delay(5, ValueError()) == math.inf


def test_a_group_is_exempt_only_if_all_its_errors_are() -> None:
    policy = Backoff(exempt=(NotReady,))
    nested = ExceptionGroup("", [NotReady(), ExceptionGroup("", [NotReady()])])
    assert policy.delay(1, nested) is None
    assert policy.delay(1, ExceptionGroup("", [NotReady(), ValueError()])) == 0.5


def test_failures_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match=r"^failures must be at least 1, not 0$"):
        Backoff().delay(0, ValueError())


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"initial": -1}, ValueError, "initial must be at least 0, not -1"),
        ({"initial": math.inf}, ValueError, "initial must be finite, not inf"),
        ({"factor": 0.5}, ValueError, "factor must be at least 1, not 0.5"),
        ({"factor": "2"}, TypeError, "factor must be a number, not '2'"),
        ({"maximum": math.nan}, ValueError, "maximum must be at least 0, not nan"),
        ({"maximum": True}, TypeError, "maximum must be a number, not True"),
        ({"jitter": 1.1}, ValueError, "jitter must be at least 0 and at most 1, not 1.1"),
        (
            {"give_up_after": 0},
            ValueError,
            "give_up_after must be at least 1, or None for never, not 0",
        ),
        (
            {"give_up_after": 1.5},
            TypeError,
            "give_up_after must be a whole number or None, not 1.5",
        ),
        (
            {"exempt": ValueError},
            TypeError,
            "exempt must be a tuple of exception types, not <class 'ValueError'>: "
            "one type is written exempt=(NotReady,)",
        ),
        (
            {"exempt": (int,)},
            TypeError,
            "exempt must be a tuple of exception types, not (<class 'int'>,): "
            "one type is written exempt=(NotReady,)",
        ),
    ],
)
def test_bad_settings_say_what_is_allowed(
    settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        Backoff(**settings)
    assert str(caught.value) == message


def test_without_a_policy_there_is_no_wait(logged: Logged) -> None:
    assert (compute(None), logged) == (None, [])


@pytest.mark.parametrize("answer", [0, 1.5, math.inf, None])
def test_any_policys_answer_counts(answer: float | None, logged: Logged) -> None:
    assert (compute(Answers(answer)), logged) == (answer, [])


@pytest.mark.parametrize("answer", [-1, math.nan, "1", True, ValueError("x"), SystemExit()])
def test_a_broken_policy_is_logged_and_the_default_applies(answer: object, logged: Logged) -> None:
    assert compute(Answers(answer), failures=3) == 2.0
    assert [what for what, _ in logged] == [
        "backoff policy Answers failed; the default figures apply"
    ]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (-1, "the delay must be at least 0, not -1"),
        ("1", "the delay must be a number, not '1'"),
        (ValueError("x"), "x"),
    ],
)
def test_the_log_says_what_was_wrong_with_the_policy(
    answer: object, message: str, logged: Logged
) -> None:
    compute(Answers(answer))
    assert [str(error) for _, error in logged] == [message]


def test_the_log_says_what_was_wrong_with_the_randomness(logged: Logged) -> None:
    compute(Backoff(jitter=1), random=lambda: 2.0)
    assert [str(error) for _, error in logged] == [
        "a random number must be at least 0 and at most 1, not 2.0"
    ]


def test_a_maximum_that_is_no_number_is_refused() -> None:
    policy: Any = Answers(1)
    policy.maximum = "long"
    with pytest.raises(TypeError, match=r"^the policy's maximum must be a number, not 'long'$"):
        default_retention(policy)


def test_jitter_takes_away_up_to_its_share() -> None:
    policy = Backoff(initial=8, jitter=0.5)
    assert [compute(policy, random=lambda r=r: r) for r in (0.0, 0.5, 1.0)] == [8.0, 6.0, 4.0]


def test_giving_up_has_no_jitter(logged: Logged) -> None:
    assert compute(Backoff(jitter=1, give_up_after=1), random=lambda: 1.0) == math.inf
    assert logged == []


def test_broken_randomness_means_no_jitter(logged: Logged) -> None:
    def broken() -> float:
        raise OSError("no entropy")

    for random in (broken, lambda: math.nan, lambda: 2.0):
        logged.clear()
        assert compute(Backoff(jitter=1), random=random) == 0.5
        assert [what for what, _ in logged] == [
            "the map's source of randomness failed; there is no jitter"
        ]


def test_the_default_retention_is_twice_the_maximum() -> None:
    assert default_retention(Backoff()) == 244.0
    assert default_retention(Backoff(maximum=10)) == 20.0
    assert default_retention(Answers(1)) == 244.0
    assert default_retention(None) == 244.0
