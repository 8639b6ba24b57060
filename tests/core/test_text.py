"""Text of users' objects never raises."""

import pytest

from namedtasks._core.text import (
    error_text,
    name_text,
    repr_of,
    seconds_text,
    str_of,
    task_text,
)


class Odd:
    def __repr__(self) -> str:
        raise ValueError("no repr")


class OddError(Exception):
    def __str__(self) -> str:
        raise ValueError("no str")


def test_a_repr_that_raises_has_a_stand_in() -> None:
    assert repr_of(Odd()) == "<Odd whose repr raises>"
    assert str_of(OddError()) == "<OddError whose str raises>"


def test_errors_read_as_in_the_last_line_of_a_traceback() -> None:
    assert error_text(ValueError("boom")) == "ValueError: boom"
    assert error_text(ValueError()) == "ValueError"
    assert error_text(OddError()) == "OddError: <OddError whose str raises>"


def test_a_task_is_called_by_name_and_operation() -> None:
    assert task_text("vol-1", None) == "task 'vol-1'"
    assert task_text(("vol-1", 2), "mount") == "task ('vol-1', 2) (operation 'mount')"


def test_what_runs_a_task_is_called_by_its_name_alone() -> None:
    assert name_text("vol-1") == "vol-1"
    assert name_text(("vol-1", 2)) == "('vol-1', 2)"
    assert name_text(Odd()) == "<Odd whose repr raises>"


def test_seconds_have_three_digits_at_most() -> None:
    texts = [seconds_text(s) for s in (0.0, 0.0004, 0.5, 1.234, 12.34, 122.0, 1e6)]
    assert texts == ["0 s", "0 s", "0.5 s", "1.23 s", "12.3 s", "122 s", "1000000 s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1234, "0.123 s"),
        (0.9996, "1 s"),
        (1.004, "1 s"),
        (9.876, "9.88 s"),
        (10.04, "10 s"),
        (10.56, "10.6 s"),
        (99.96, "100 s"),
        (100.4, "100 s"),
        (100.6, "101 s"),
        (122.4, "122 s"),
    ],
)
def test_at_each_power_of_ten_a_digit_behind_the_point_goes(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_ctrl_c_goes_through() -> None:
    class Slow:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

        __str__ = __repr__

    for text in (repr_of, str_of):
        with pytest.raises(KeyboardInterrupt):
            text(Slow())
