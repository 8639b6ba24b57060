"""The departures: what the page says in figures, and that it leaves nothing out."""

import gc
import re
import tracemalloc

import pytest

from tests.docs.pages import ROOT
from tests.plain_backend import make_world

PAGE = ROOT / "docs" / "explanation" / "departures.md"


@pytest.mark.parametrize(("letter", "count"), [("W", 20), ("N", 6), ("Q", 2), ("S", 2)])
def test_each_fault_of_the_ancestors_is_spoken_of(letter: str, count: int) -> None:
    told = set(re.findall(rf"\b{letter}\d\d\b", PAGE.read_text(encoding="utf-8")))
    assert {f"{letter}{number:02}" for number in range(1, count + 1)} == told


def test_a_record_takes_as_much_as_is_said() -> None:
    world = make_world(listens=False)
    names = [f"vol-{number}" for number in range(10_000)]
    gc.collect()
    tracemalloc.start()
    try:
        for name in names:
            world.fail(world.start(name), OSError("bad superblock"))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] / len(names)
    finally:
        tracemalloc.stop()
    said = re.search(r"takes some (\d+) bytes", PAGE.read_text(encoding="utf-8"))
    assert said is not None
    assert taken == pytest.approx(float(said[1]), rel=0.25)
