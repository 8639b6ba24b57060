"""At most so many at once, in order."""

import math
import sys

from namedtasks._core.runs import Run
from namedtasks._core.slots import Slots


def line_up(slots: Slots[Run], names: str) -> list[Run]:
    runs = [Run(name, None, math.inf, slots) for name in names]
    for run in runs:
        slots.take(run)
    return runs


def test_slots_go_by_order_of_admission() -> None:
    slots: Slots[Run] = Slots(2)
    a, b, c, d = line_up(slots, "abcd")
    assert [run.has_slot for run in (a, b, c, d)] == [True, True, False, False]
    assert (slots.used, slots.waiting) == (2, 2)
    assert slots.leave(b) is c
    assert slots.leave(a) is d
    assert slots.leave(c) is None
    assert slots.leave(d) is None
    assert (slots.used, slots.waiting) == (0, 0)


def test_who_leaves_the_line_is_passed_over() -> None:
    slots: Slots[Run] = Slots(1)
    a, b, c = line_up(slots, "abc")
    assert slots.leave(b) is None
    assert slots.leave(a) is c
    assert slots.waiting == 0


def test_without_a_capacity_everyone_has_a_slot() -> None:
    slots: Slots[Run] = Slots(None)
    assert all(run.has_slot for run in line_up(slots, "abc" * 100))


def test_a_long_line_leaves_no_room_behind() -> None:
    slots: Slots[Run] = Slots(1)
    first, *others = line_up(slots, "a" * 50_000)
    for run in others:
        slots.leave(run)
    assert sys.getsizeof(slots._waiting) < 1000
    assert slots.leave(first) is None
