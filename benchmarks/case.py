"""A row of the table before it is measured, and the worlds that one is measured in."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

import attrs
import trio

from benchmarks.measure import Comparison, Pairs, Target, Work, compare, summary
from benchmarks.settings import Settings

StageT = TypeVar("StageT")
Stage = Callable[[Settings], AbstractAsyncContextManager[StageT]]
"""Opens what both sides of a row need: a map, a nursery, names."""
Measured = dict[str, Pairs]
"""What was measured, by the names of the rows."""
Run = Callable[[Callable[[], Awaitable[Measured]]], Measured]
"""Runs an async function in some world."""


@attrs.frozen(kw_only=True)
class Case:
    """What is measured, beside what, and what is hoped for."""

    name: str
    floor: str
    measure: Callable[[Settings], Pairs]
    target: Target | None
    unit: str
    section: str = ""
    needs: str | None = None
    """The module of somebody else's that it is measured beside."""

    @property
    def is_possible(self) -> bool:
        """Whether what it needs is installed."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None

    def row(self, settings: Settings) -> Comparison:
        """Measure it."""
        pairs = self.measure(settings)
        return summary(self.name, self.floor, self.section, self.unit, self.target, pairs)


@attrs.frozen(kw_only=True)
class Row(Generic[StageT]):
    """Two things that are done in turn on the same stage."""

    name: str
    """What is measured."""
    ours: Callable[[StageT], Work]
    """Makes, from the stage, what does it."""
    floor: str
    """What it is compared with."""
    theirs: Callable[[StageT], Work]
    """Makes what does that."""
    most: float | None
    """The ratio that it should not exceed."""
    unit: str = "us"
    """What to print it in."""
    share: float = 1.0
    """Of the rounds, for what takes long."""
    needs: str | None = None
    """The module of somebody else's that *theirs* uses."""


def together(rows: Iterable[Row[StageT]], stage: Stage[StageT], run: Run) -> list[Case]:
    """Rows on one *stage*, which takes long to open: all are measured when the first is asked for.

    Args:
        rows: What to measure.
        stage: Opens the stage.
        run: The world that all of this is done in.
    """
    listed = list(rows)

    @functools.cache
    def measured(settings: Settings) -> Measured:
        async def in_the_world() -> Measured:
            async with stage(settings) as staged:
                return {
                    row.name: await compare(
                        row.ours(staged),
                        row.theirs(staged),
                        max(2, round(settings.rounds * row.share)),
                    )
                    for row in listed
                }

        return run(in_the_world)

    return [
        Case(
            name=row.name,
            floor=row.floor,
            measure=functools.partial(_of, measured, row.name),
            target=None if row.most is None else Target(row.most),
            unit=row.unit,
            needs=row.needs,
        )
        for row in listed
    ]


def _of(measured: Callable[[Settings], Measured], name: str, settings: Settings) -> Pairs:
    return measured(settings)[name]


def alone(row: Row[StageT], stage: Stage[StageT], run: Run) -> Case:
    """A row with a *stage* of its own."""
    return together([row], stage, run)[0]


def run_asyncio(async_fn: Callable[[], Awaitable[Measured]]) -> Measured:
    """Run it on asyncio's own loop."""

    async def main() -> Measured:
        return await async_fn()

    return asyncio.run(main())


def run_trio(async_fn: Callable[[], Awaitable[Measured]]) -> Measured:
    """Run it on trio."""
    return trio.run(async_fn)


def run_plain(async_fn: Callable[[], Awaitable[Measured]]) -> Measured:
    """Run what waits only as threads do, without any loop."""
    steps = async_fn().__await__()
    try:
        next(steps)
    except StopIteration as end:
        measured: Measured = end.value
        return measured
    raise RuntimeError("there is no loop here to wait for")
