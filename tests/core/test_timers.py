"""What is due when."""

import sys

import pytest

from namedtasks._core.table import Table
from namedtasks._core.timers import Timers


def test_items_fall_due_in_the_order_of_their_times() -> None:
    timers: Timers[str] = Timers()
    for item, when in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        timers.set(item, when)
    assert timers.next_due() == 1.0
    assert timers.pop_due(0.999) is None
    assert [timers.pop_due(2.0), timers.pop_due(2.0), timers.pop_due(2.0)] == ["a", "b", None]
    assert len(timers) == 1


def test_setting_again_moves_an_item() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    timers.set("b", 2.0)
    timers.set("a", 3.0)
    assert [timers.pop_due(9.0), timers.pop_due(9.0), timers.pop_due(9.0)] == ["b", "a", None]


def test_a_discarded_item_never_falls_due_and_takes_no_room() -> None:
    """An hour's timeouts of a million short runs must not pile up."""
    timers: Timers[int] = Timers()
    timers.set(-1, 5000.0)
    for number in range(10_000):
        timers.set(number, 3600.0 + number)
        timers.discard(number)
        assert len(timers._heap) <= 2
    timers.discard(77)
    assert timers.next_due() == 5000.0
    assert len(timers) == 1


def test_the_order_holds_when_the_empty_entries_are_thrown_out() -> None:
    timers: Timers[int] = Timers()
    times = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 7.0, 8.0, 6.0, 0.0]
    for number, when in enumerate(times):
        timers.set(number, when)
    for number in (1, 9, 3, 4, 2, 0):
        timers.discard(number)
    assert [timers.pop_due(99.0) for _ in range(5)] == [8, 6, 7, 5, None]


def test_empty_timers_have_nothing_due() -> None:
    timers: Timers[str] = Timers()
    assert timers.next_due() is None
    assert timers.pop_due(1.0) is None
    timers.set("a", 1.0)
    timers.set("b", 2.0)
    timers.discard("a")
    assert timers.next_due() == 2.0


def test_a_peak_of_timers_costs_nothing_later() -> None:
    timers: Timers[int] = Timers()
    for number in range(100_000):
        timers.set(number, 1.0)
    for number in range(100_000):
        timers.discard(number)
    assert sys.getsizeof(timers._entries) < 10_000
    assert timers._heap == []


def test_it_tells_that_an_item_came_or_went() -> None:
    """So that who sleeps until the next one is due sleeps anew."""
    timers: Timers[str] = Timers()
    assert timers.changed is False
    timers.set("a", 1.0)
    assert timers.changed is True
    timers.set("b", 2.0)
    for take_out in (lambda: timers.discard("a"), lambda: timers.pop_due(2.0)):
        timers.changed = False
        take_out()
        assert timers.changed is True
    timers.changed = False
    timers.discard("a")
    assert timers.pop_due(9.0) is None
    assert timers.changed is False


def test_half_of_the_entries_may_be_empty() -> None:
    """To throw them out at each discard would cost a look at all that is left."""
    timers: Timers[str] = Timers()
    for item in "abcd":
        timers.set(item, 1.0)
    lengths: list[int] = []
    for item in "abcd":
        timers.discard(item)
        lengths.append(len(timers._heap))
    assert lengths == [4, 4, 1, 0]


def test_what_is_due_is_taken_out_by_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by a look at all entries."""
    monkeypatch.setattr(Table, "_rebuild", None)
    timers: Timers[str] = Timers()
    for item in "abc":
        timers.set(item, 1.0)
    assert {timers.pop_due(1.0) for _ in range(3)} == {"a", "b", "c"}
    assert len(timers) == 0
