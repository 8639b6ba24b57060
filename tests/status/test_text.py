"""Any name and any error becomes a text that is safe to show."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, strategies as st

from namedtasks.status._text import (
    MOST_ERROR,
    MOST_NAME,
    encoded,
    error_of,
    name_of,
    plain,
    seconds_of,
    time_of_day,
)

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@given(st.text(alphabet=st.characters(exclude_categories=())))
@example("\ud800\u202e\r\n\x00\u2028")
def test_any_text_becomes_printable_and_can_be_sent(text: str) -> None:
    shown = plain(text, 1000)
    assert shown.isprintable()
    assert shown == json.loads(encoded({"": shown}))[""]
    assert b"\r" not in encoded({"": shown})


def test_what_is_printable_stays_as_it_is() -> None:
    assert "vol-1 Größe <b> 日本 🎉" == plain("vol-1 Größe <b> 日本 🎉", 100)


def test_a_long_text_is_cut() -> None:
    assert "a" * 9 + "…" == plain("a" * 11, 10)
    assert "a" * 10 == plain("a" * 10, 10)


def test_a_text_of_a_subclass_is_read_as_a_text() -> None:
    class Odd(str):
        __slots__ = ()

        def __len__(self) -> int:
            raise AssertionError("not asked")

        def isprintable(self) -> bool:
            return False

    assert "vol-1" == name_of(Odd("vol-1"))
    assert str is type(name_of(Odd("vol-1")))


@pytest.mark.parametrize(
    ("name", "shown"),
    [("vol-1", "vol-1"), (("vol-1", 2), "('vol-1', 2)"), (1, "1"), ("", ""), ("a\nb", "a\\nb")],
)
def test_a_name_is_a_text_or_its_repr(name: object, shown: str) -> None:
    assert shown == name_of(name)


def test_a_name_whose_repr_raises_is_shown_all_the_same() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise ValueError

    assert "<Odd whose repr raises>" == name_of(Odd())
    assert MOST_NAME == len(name_of("a" * 1_000_000))


def test_an_error_is_its_type_and_its_text() -> None:
    assert "OSError: device busy" == error_of(OSError("device busy"))
    assert "KeyError" == error_of(KeyError())
    assert MOST_ERROR == len(error_of(ValueError("a" * 1_000_000)))


def test_an_error_whose_text_raises_is_shown_all_the_same() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert "<locals>.OddError: <OddError whose str raises>" in error_of(OddError())


@pytest.mark.parametrize(
    ("moment", "shown"), [(None, None), (float("inf"), None), (1.23456, 1.235), (0.0, 0.0)]
)
def test_seconds_have_milliseconds(moment: float | None, shown: float | None) -> None:
    assert shown == seconds_of(moment)


def test_a_time_on_the_clock_of_a_map_becomes_a_date() -> None:
    assert "2026-11-30T12:00:01.500Z" == time_of_day(101.5, 100.0, NOON)
    assert "2026-11-30T11:59:00.000Z" == time_of_day(40.0, 100.0, NOON)
    elsewhere = NOON.astimezone(tz=None) + timedelta(0)
    assert "2026-11-30T12:00:00.000Z" == time_of_day(0.0, 0.0, elsewhere)
    assert time_of_day(None, 0.0, NOON) is None


@pytest.mark.parametrize("moment", [1e12, 1e300, -1e12])
def test_a_time_that_no_calendar_has_is_left_out(moment: float) -> None:
    assert time_of_day(moment, 0.0, NOON) is None
