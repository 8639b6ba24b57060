"""The departures: what the page says in figures, and that it leaves nothing out."""

import gc
import math
import re
import tracemalloc

import pytest

from namedtasks import Backoff
from namedtasks._core.engine import Engine
from namedtasks._core.runs import Run
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "explanation" / "departures.md"


@pytest.mark.parametrize(("letter", "count"), [("W", 20), ("N", 6), ("Q", 2), ("S", 2)])
def test_each_fault_of_the_ancestors_is_spoken_of(letter: str, count: int) -> None:
    told = set(re.findall(rf"\b{letter}\d\d\b", PAGE.read_text(encoding="utf-8")))
    assert {f"{letter}{number:02}" for number in range(1, count + 1)} == told


def complain(what: str, error: BaseException) -> None:
    raise AssertionError(what) from error


def test_a_record_takes_as_much_as_is_said() -> None:
    engine: Engine[Run] = Engine(
        backoff=Backoff(),
        retention=None,
        limit=None,
        overdue_after=1.0,
        instruments=(),
        random=lambda: 0.0,
        complain=complain,
    )
    names = [f"vol-{number}" for number in range(10_000)]
    gc.collect()
    tracemalloc.start()
    try:
        for name in names:
            run = Run(name, None, math.inf, engine.slots)
            engine.admit(run, 0.0)
            engine.failed(run, engine.judge(run, OSError("bad superblock")), 0.0)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] / len(names)
    finally:
        tracemalloc.stop()
    said = re.search(r"takes some (\d+) bytes", PAGE.read_text(encoding="utf-8"))
    assert said is not None
    assert taken == pytest.approx(float(said[1]), rel=0.25)
