"""Compares an operation with its floor: interleaved rounds in one process, medians, spread."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable

import attrs

Work = Callable[[], Awaitable[float]]
"""Does an operation a number of times; returns the seconds that each took."""

Pairs = list[tuple[float, float]]
"""Our figure and the floor's, one pair for each round."""

UNITS = {"ms": 1e3, "us": 1e6, "ns": 1e9, "B": 1.0, "k": 1e-3}
"""Units of rows, each with its number in a second, a byte or an instruction."""


@attrs.frozen
class Target:
    """A limit for a row."""

    most: float
    of: str = "ratio"
    """The figure that it limits: the ``ratio``, or ``ours``."""

    def reached(self, ours: float, ratio: float) -> float:
        """Return the figure that the target limits."""
        return ours if self.of == "ours" else ratio


@attrs.frozen(kw_only=True)
class Comparison:
    """One row of the table."""

    name: str
    floor: str
    section: str
    unit: str
    """A key of `UNITS`, for both figures."""
    ours: float
    """The median of ours."""
    theirs: float
    """The median of the floor's."""
    ratio: float
    """The median of the rounds' ratios; a round measures both sides one after the other."""
    low: float
    """A quarter of the rounds had a ratio below this."""
    high: float
    """A quarter of the rounds had a ratio above this."""
    rounds: int
    """The number of rounds."""
    target: Target | None

    @property
    def used(self) -> float | None:
        """The share of the target that is used; 1.0 is all of it. None without a target."""
        if self.target is None:
            return None
        return self.target.reached(self.ours, self.ratio) / self.target.most

    @property
    def is_met(self) -> bool | None:
        """True if the target is met; None without a target."""
        return None if self.used is None else self.used <= 1


def each(count: int, do: Callable[[], Awaitable[object]]) -> Work:
    """Return a work that times *do*, which does its operation *count* times."""

    async def work() -> float:
        begin = time.perf_counter()
        await do()
        return (time.perf_counter() - begin) / count

    return work


async def compare(ours: Work, theirs: Work, rounds: int) -> Pairs:
    """Run *ours* and *theirs* in alternating order, after a first round that does not count."""
    pairs: Pairs = []
    gc.collect()
    gc.disable()  # a collection must not count for the side in which it happens
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
    """Return the row for *pairs* of our figures and the floor's."""
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
    """Return the quartiles of *figures*."""
    if len(figures) == 1:
        return figures * 3
    return statistics.quantiles(figures, n=4, method="inclusive")
