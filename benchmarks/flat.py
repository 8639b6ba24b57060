"""Operations on a map with very many names, and the same on a map with few."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

import attrs
import trio
import trio.testing

from benchmarks.case import Measured, Row
from benchmarks.measure import Work, each
from benchmarks.settings import FOR_A_DAY, Settings
from benchmarks.starts import noop
from namedtasks import ANY, RefusedError, TaskMap

BATCH = 200
"""Runs, or waits, in a row; few, compared with the names that are already there."""

AT_ONCE = 1000
"""Failing runs that start before the first wait for an end; few, compared with a million."""

FEW_LAPSED = 1000
"""Lapsed records in the map with few of them."""

SHARED = ValueError("the disk is full")

VOLUME = ("volume-0", ANY)
"""The name that overlaps all that runs meanwhile."""

Name = Callable[[int], Hashable]


async def fail() -> None:
    """Fail with one and the same error as all the others."""
    raise SHARED.with_traceback(None)  # else each raise makes its traceback longer


async def fill_waiting(
    tasks: TaskMap, names: list[str], body: Callable[[], Awaitable[object]] = fail
) -> None:
    """Fail a run of each of *names*."""
    for start in range(0, len(names), AT_ONCE):
        for name in names[start : start + AT_ONCE]:
            tasks.start_soon(name, body)
        await tasks.wait_idle()


@attrs.frozen
class Sizes:
    """Two maps, one with many names and one with few."""

    many: TaskMap
    few: TaskMap
    count: int
    """The number of names in the map with many."""
    calls: int
    """The number of calls in a row."""


Opened = Callable[[Settings], AbstractAsyncContextManager[Sizes]]
Operation = Callable[[TaskMap, Sizes], Work]


def grown(
    name: str, operation: Operation, floor: str, most: float | None, unit: str = "us"
) -> Row[Sizes]:
    """Return a row of one *operation* on the map with many names, compared with few."""
    return Row(
        name=name,
        ours=lambda sizes: operation(sizes.many, sizes),
        floor=floor,
        theirs=lambda sizes: operation(sizes.few, sizes),
        most=most,
        unit=unit,
    )


# Names that wait


def waiting(count: int, fewest: int = 0) -> Opened:
    """Open a map in which *count* names wait, and one in which *fewest* do."""

    @asynccontextmanager
    async def opened(settings: Settings) -> AsyncGenerator[Sizes]:
        async with settings.open_map() as many, settings.open_map() as few:
            filled = settings.many(count)
            await fill_waiting(few, _waiting_names(fewest))
            await fill_waiting(many, _waiting_names(filled))
            yield Sizes(many, few, filled, settings.batch(BATCH))

    return opened


def _waiting_names(count: int) -> list[str]:
    return [f"waiting-{number}" for number in range(count)]


def wait_idle(tasks: TaskMap, sizes: Sizes) -> Work:
    """Wait for a map that is idle."""

    async def do() -> None:
        for _ in range(sizes.calls):
            await tasks.wait_idle()

    return each(sizes.calls, do)


def statistics(tasks: TaskMap, sizes: Sizes) -> Work:
    """Count the names."""

    async def do() -> None:
        for _ in range(sizes.calls):
            tasks.statistics()

    return each(sizes.calls, do)


def failures(sizes: Sizes) -> Work:
    """Take the snapshot of all failures, without making the records."""

    async def do() -> None:
        sizes.many.failures()

    return each(1, do)


def items(sizes: Sizes) -> Work:
    """Copy the items of a dict that is as long."""
    table = {failure.name: failure for failure in sizes.many.failures()}

    async def do() -> None:
        list(table.items())

    return each(1, do)


def start(tasks: TaskMap, sizes: Sizes) -> Work:
    """Start new names, timed until the last `start_soon` returns."""
    return _started(tasks, sizes, "start")


def settle(tasks: TaskMap, sizes: Sizes) -> Work:
    """Start new names, timed from then on until the last has ended."""
    return _started(tasks, sizes, "settle")


def _started(tasks: TaskMap, sizes: Sizes, part: Literal["start", "settle"]) -> Work:
    names = [f"new-{number}" for number in range(sizes.calls)]

    async def work() -> float:
        begin = time.perf_counter()
        for name in names:
            tasks.start_soon(name, noop)
        started = time.perf_counter()
        await tasks.wait_idle()
        taken = started - begin if part == "start" else time.perf_counter() - started
        return taken / len(names)

    return work


def look_up_waiting(tasks: TaskMap, sizes: Sizes) -> Work:
    """Look up names all over a dict: shows the effect of the machine's caches."""
    count = max(1, sizes.count if tasks is sizes.many else 10)
    table = dict.fromkeys(_waiting_names(count))
    names = [f"waiting-{number * 7919 % count}" for number in range(sizes.calls)]

    async def do() -> None:
        for name in names:
            table.get(name)

    return each(len(names), do)


def run_in_mock_time(async_fn: Callable[[], Awaitable[Measured]]) -> Measured:
    """Run it on trio with a clock that only moves when it is told to."""
    return trio.run(async_fn, clock=trio.testing.MockClock())


def sweep(tasks: TaskMap, sizes: Sizes) -> Work:
    """Remove lapsed records, some at the end of each run."""
    count = sizes.count if tasks is sizes.many else FEW_LAPSED
    names = _waiting_names(count)
    runs = [f"new-{number}" for number in range(sizes.calls)]

    async def work() -> float:
        if tasks.statistics().waiting < min(count, FEW_LAPSED) * 0.9:
            await fill_waiting(tasks, names)
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(10 * FOR_A_DAY.maximum)
        begin = time.perf_counter()
        for name in runs:
            tasks.start_soon(name, noop)
        await tasks.wait_idle()
        return (time.perf_counter() - begin) / sizes.calls

    return work


# Names that overlap, and run


def overlapping(number: int) -> Hashable:
    """Return the name of one of many pods of one volume."""
    return ("volume-0", f"pod-{number}")


def apart(number: int) -> Hashable:
    """Return a name that overlaps no other."""
    return f"volume-{number}"


def running(count: int, name: Name, few_name: Name | None = None, fewest: int = 10) -> Opened:
    """Open a map with *count* running names, and one with *fewest*."""

    @asynccontextmanager
    async def opened(settings: Settings) -> AsyncGenerator[Sizes]:
        filled = settings.many(count)
        async with (
            _running(settings, filled, name) as many,
            _running(settings, fewest, few_name or name) as few,
        ):
            yield Sizes(many, few, filled, settings.batch(BATCH))

    return opened


@asynccontextmanager
async def _running(settings: Settings, count: int, name: Name) -> AsyncGenerator[TaskMap]:
    async with settings.open_map() as tasks:
        if name is overlapping:
            await tasks.start_soon(VOLUME, noop).wait()
        event = trio.Event()
        for number in range(count):
            tasks.start_soon(name(number), event.wait)
        await trio.testing.wait_all_tasks_blocked()
        yield tasks
        event.set()


def start_pods(tasks: TaskMap, sizes: Sizes) -> Work:
    """Start a batch of new pods of the volume, and wait for each of them."""
    return _batch(tasks, [("volume-0", f"new-{number}") for number in range(sizes.calls)])


def start_volumes(tasks: TaskMap, sizes: Sizes) -> Work:
    """Start a batch of names with ANY; in the map without ANY, a batch of pods."""
    if tasks is sizes.few:
        return start_pods(tasks, sizes)
    return _batch(tasks, [(f"volume-{number}", ANY) for number in range(1, sizes.calls + 1)])


def _batch(tasks: TaskMap, names: list[tuple[Hashable, ...]]) -> Work:
    async def do() -> None:
        for handle in [tasks.start_soon(name, noop) for name in names]:
            if not handle.done:
                await handle.wait()

    return each(len(names), do)


def refuse_volume(tasks: TaskMap, sizes: Sizes) -> Work:
    """Start the name that overlaps all that runs, and catch the refusal."""

    async def do() -> None:
        for _ in range(sizes.calls):
            try:  # noqa: SIM105 - suppress() would cost more than what is measured
                tasks.start_soon(VOLUME, noop)
            except RefusedError:
                pass

    return each(sizes.calls, do)
