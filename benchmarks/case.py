"""A row of the table before it is measured, and the loops that it can be measured in."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import shutil
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Generic, Literal, TypeVar

import attrs
import trio

from benchmarks.measure import Comparison, Pairs, Target, Work, compare, summary
from benchmarks.settings import Settings

StageT = TypeVar("StageT")
Stage = Callable[[Settings], AbstractAsyncContextManager[StageT]]
"""Opens the things that both sides of a row need: a map, a nursery, names."""
Measured = dict[str, Pairs]
"""The rounds of each row, by the rows' names."""
Run = Callable[[Callable[[], Awaitable[Measured]]], Measured]
"""Runs an async function on trio, on asyncio, or without a loop."""
Side = Literal["ours", "theirs"]


@attrs.frozen(kw_only=True)
class Case:
    """A row before it is measured: its two sides and its target."""

    name: str
    floor: str
    measure: Callable[[Settings], Pairs]
    target: Target | None
    unit: str
    section: str = ""
    needs: str | None = None
    """The module of another package that it is compared with."""
    program: str | None = None
    """The program that measures it, if it is not Python's own clock."""
    repeat: Callable[[Settings, Side], None] | None = None
    """Does one side alone, as many rounds as the settings say, for a count of instructions."""

    @property
    def obstacle(self) -> str | None:
        """The reason that it cannot be measured here, with the cure; None if it can."""
        if self.needs is not None and importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed: pip install --group bench"
        if self.program is not None and shutil.which(self.program) is None:
            return f"{self.program} is not installed: for example apt-get install {self.program}"
        return None

    def row(self, settings: Settings) -> Comparison:
        """Measure it."""
        pairs = self.measure(settings)
        return summary(self.name, self.floor, self.section, self.unit, self.target, pairs)


@attrs.frozen(kw_only=True)
class Row(Generic[StageT]):
    """Two operations that are done in turn on the same stage."""

    name: str
    ours: Callable[[StageT], Work]
    """Returns our side for a stage."""
    floor: str
    """The name of the other side."""
    theirs: Callable[[StageT], Work]
    """Returns the other side for a stage."""
    most: float | None
    """The target for the ratio."""
    unit: str = "us"
    share: float = 1.0
    """The share of the rounds to measure; less than 1 for a row that takes long."""
    needs: str | None = None
    """The module of another package that *theirs* uses."""


def together(rows: Iterable[Row[StageT]], stage: Stage[StageT], run: Run) -> list[Case]:
    """Return rows on one *stage* that takes long to open: the first one measures all of them."""
    listed = list(rows)

    @functools.cache
    def measured(settings: Settings) -> Measured:
        async def on_stage() -> Measured:
            async with stage(settings) as staged:
                return {
                    row.name: await compare(
                        row.ours(staged),
                        row.theirs(staged),
                        max(2, round(settings.rounds * row.share)),
                    )
                    for row in listed
                }

        return run(on_stage)

    return [
        Case(
            name=row.name,
            floor=row.floor,
            measure=functools.partial(_of, measured, row.name),
            target=None if row.most is None else Target(row.most),
            unit=row.unit,
            needs=row.needs,
            repeat=functools.partial(_repeat, row, stage, run),
        )
        for row in listed
    ]


def _of(measured: Callable[[Settings], Measured], name: str, settings: Settings) -> Pairs:
    return measured(settings)[name]


def _repeat(
    row: Row[StageT], stage: Stage[StageT], run: Run, settings: Settings, side: Side
) -> None:
    async def on_stage() -> Measured:
        async with stage(settings) as staged:
            work = row.ours(staged) if side == "ours" else row.theirs(staged)
            for _ in range(settings.rounds):
                await work()
        return {}

    gc.disable()  # as in `compare`
    run(on_stage)


def alone(row: Row[StageT], stage: Stage[StageT], run: Run) -> Case:
    """Return a row with a *stage* of its own."""
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
    """Run a function that never awaits anything, without a loop."""
    steps = async_fn().__await__()
    try:
        next(steps)
    except StopIteration as end:
        measured: Measured = end.value
        return measured
    raise RuntimeError("there is no loop here to wait for")
