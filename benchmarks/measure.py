"""Measures a thing beside its floor: interleaved rounds in one process, medians, spread."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable

import attrs

Work = Callable[[], Awaitable[float]]
"""Does something a number of times; gives the seconds that each took, or what its row is in."""

Pairs = list[tuple[float, float]]
"""Ours and the floor's, one pair for each round."""

UNITS = {"ms": 1e3, "us": 1e6, "ns": 1e9, "B": 1.0}
"""What a row may be in, and how many of it are in what a `Work` gives: a second, a byte."""


@attrs.frozen
class Target:
    """What a row should not exceed."""

    most: float
    """The limit."""
    of: str = "ratio"
    """What it limits: the ``ratio``, what is ``ours``, or the ``difference`` of the two."""

    def reached(self, ours: float, theirs: float, ratio: float) -> float:
        """What there is of what the target limits."""
        return {"ratio": ratio, "ours": ours, "difference": ours - theirs}[self.of]


@attrs.frozen(kw_only=True)
class Comparison:
    """One row of the table."""

    name: str
    """What is measured."""
    floor: str
    """What it is compared with."""
    section: str
    """Which part of the table it is in."""
    unit: str
    """What the figures are in."""
    ours: float
    """The median of ours."""
    theirs: float
    """The median of the floor's."""
    ratio: float
    """The median of the rounds' ratios: a round's two figures were taken one after the other."""
    low: float
    """A quarter of the rounds had a ratio below this."""
    high: float
    """A quarter of the rounds had a ratio above this."""
    rounds: int
    """How many rounds there were."""
    target: Target | None
    """What it should not exceed, if anything."""

    @property
    def used(self) -> float | None:
        """How much of what the target allows is used: 1.0 is all of it."""
        if self.target is None:
            return None
        return self.target.reached(self.ours, self.theirs, self.ratio) / self.target.most

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        return None if self.used is None else self.used <= 1


def each(count: int, do: Callable[[], Awaitable[object]]) -> Work:
    """Time *do*, which does something *count* times."""

    async def work() -> float:
        begin = time.perf_counter()
        await do()
        return (time.perf_counter() - begin) / count

    return work


async def compare(ours: Work, theirs: Work, rounds: int) -> Pairs:
    """Run *ours* and *theirs* in turn, in turning order, after a round that does not count."""
    pairs: Pairs = []
    gc.collect()
    gc.disable()  # a collection that falls into one of them is neither's fault
    try:
        for number in range(rounds + 1):
            if number % 2:
                mine, its = await ours(), await theirs()
            else:
                its, mine = await theirs(), await ours()
            if number:
                pairs.append((mine, its))
            if number % 10 == 0:
                gc.collect()
    finally:
        gc.enable()
    return pairs


def summary(
    name: str, floor: str, section: str, unit: str, target: Target | None, pairs: Pairs
) -> Comparison:
    """The row for *pairs* of ours and the floor's."""
    ratios = [mine / its for mine, its in pairs]
    low, ratio, high = quartiles(ratios)
    return Comparison(
        name=name,
        floor=floor,
        section=section,
        unit=unit,
        ours=statistics.median(mine for mine, _ in pairs) * UNITS[unit],
        theirs=statistics.median(its for _, its in pairs) * UNITS[unit],
        ratio=ratio,
        low=low,
        high=high,
        rounds=len(pairs),
        target=target,
    )


def quartiles(figures: list[float]) -> list[float]:
    """What a quarter, a half and three quarters of *figures* are below."""
    if len(figures) == 1:
        return figures * 3
    return statistics.quantiles(figures, n=4, method="inclusive")
