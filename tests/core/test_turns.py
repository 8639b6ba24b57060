"""What follows from several changes."""

import math
from typing import Any

from namedtasks._core.runs import Run
from namedtasks._core.slots import Slots
from namedtasks._core.turns import NOTHING, Turn, together

SLOTS: Slots[Run] = Slots(None)


def run(name: Any) -> Run:
    return Run(name, None, math.inf, SLOTS)


def test_where_nothing_follows_that_is_told_by_a_look() -> None:
    assert together() is NOTHING
    assert together(NOTHING, Turn()) is NOTHING


def test_what_follows_is_told_in_the_order_of_the_changes() -> None:
    one, two, three, four = [run(name) for name in "abcd"]
    assert together(Turn((one,), (two,)), NOTHING, Turn((three,), (four,))) == Turn(
        (one, three), (two, four)
    )
    assert together(Turn(begin=(one,))) == Turn((one,), ())
    assert together(Turn(dropped=(one,))) == Turn((), (one,))
