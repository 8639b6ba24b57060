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
    assert (slots.used, slots.in_line) == (2, 2)
    assert slots.leave(b) is c
    assert slots.leave(a) is d
    assert slots.leave(c) is None
    assert slots.leave(d) is None
    assert (slots.used, slots.in_line) == (0, 0)


def test_who_leaves_the_line_is_passed_over() -> None:
    slots: Slots[Run] = Slots(1)
    a, b, c = line_up(slots, "abc")
    assert slots.leave(b) is None
    assert slots.leave(a) is c
    assert slots.in_line == 0


def test_without_a_capacity_everyone_has_a_slot() -> None:
    slots: Slots[Run] = Slots(None)
    assert all(run.has_slot for run in line_up(slots, "abc" * 100))


def test_a_long_line_leaves_no_room_behind() -> None:
    slots: Slots[Run] = Slots(1)
    first, *others = line_up(slots, "a" * 50_000)
    for run in others:
        slots.leave(run)
    assert sys.getsizeof(slots._line) < 1000
    assert slots.leave(first) is None


def test_a_slot_that_was_left_is_had_no_more() -> None:
    for slots in (Slots[Run](1), Slots[Run](None)):
        (run,) = line_up(slots, "a")
        assert run.has_slot is True
        slots.leave(run)
        assert run.has_slot is False


def test_a_slot_can_be_handed_on() -> None:
    """The heir has it, and who gave it has none."""
    slots: Slots[Run] = Slots(1)
    a, b = line_up(slots, "ab")
    heir = Run("c", None, math.inf, slots)
    slots.hand_on(a, heir)
    assert (a.has_slot, heir.has_slot, slots.used) == (False, True, 1)
    assert slots.leave(heir) is b


def test_a_place_in_line_can_be_handed_on() -> None:
    slots: Slots[Run] = Slots(1)
    a, b, c = line_up(slots, "abc")
    heir = Run("d", None, math.inf, slots)
    slots.hand_on(b, heir)
    assert slots.in_line == 2
    assert slots.leave(a) is heir
    assert slots.leave(heir) is c
