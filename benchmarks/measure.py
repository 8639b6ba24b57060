"""Measures a thing beside its floor: interleaved rounds in one process, medians, spread."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable

import attrs

Work = Callable[[], Awaitable[int]]
"""Does something a number of times; gives the number."""

Case = tuple[str, str, Work, Work]
"""What is measured, what beside, and how both are done."""

Wanted = Callable[[Case], bool]
"""Whether to measure a case."""


@attrs.frozen
class Comparison:
    """One row of the table."""

    what: str
    """What is measured."""
    floor: str
    """What it is compared with."""
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


async def seconds_each(work: Work) -> float:
    """How long *work* takes for each of the things that it does."""
    begin = time.perf_counter()
    count = await work()
    return (time.perf_counter() - begin) / count


async def compare(
    what: str, floor: str, ours: Work, theirs: Work, *, rounds: int, unit: str = "us"
) -> Comparison:
    """Run *ours* and *theirs* in turn, in turning order, after a round that does not count."""
    factor = {"us": 1e6, "ns": 1e9}[unit]
    pairs: list[tuple[float, float]] = []
    gc.collect()
    gc.disable()  # a collection that falls into one of them is neither's fault
    try:
        for number in range(rounds + 1):
            if number % 2:
                mine, its = await seconds_each(ours), await seconds_each(theirs)
            else:
                its, mine = await seconds_each(theirs), await seconds_each(ours)
            if number:
                pairs.append((mine * factor, its * factor))
            if number % 10 == 0:
                gc.collect()
    finally:
        gc.enable()
    return summary(what, floor, unit, pairs)


def summary(what: str, floor: str, unit: str, pairs: list[tuple[float, float]]) -> Comparison:
    """The row for *pairs* of ours and the floor's."""
    ratios = [mine / its for mine, its in pairs]
    low, ratio, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return Comparison(
        what=what,
        floor=floor,
        unit=unit,
        ours=statistics.median(mine for mine, _ in pairs),
        theirs=statistics.median(its for _, its in pairs),
        ratio=ratio,
        low=low,
        high=high,
        rounds=len(pairs),
    )
