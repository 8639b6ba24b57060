"""Bytes per name, and the time of a garbage collection: each in a process of its own.

The process fills a map, and prints a figure: ``python -m benchmarks.memory waiting 1000000``.
Bytes are the growth of the process's resident set, after a first fill that was
thrown away, so that memory that is used only while filling is there already.
The names are made before, and not counted.
"""

from __future__ import annotations

import gc
import json
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import trio
import trio.testing

from benchmarks.case import Case
from benchmarks.flat import AT_ONCE, fail, fill_waiting
from benchmarks.measure import Pairs, Target
from benchmarks.settings import Settings

Fill = Callable[[Settings, list[str], Callable[[], None]], Awaitable[None]]
"""Fills something with names, and calls back when all are in it."""

COLLECTIONS = 5
"""Full collections to time; the fastest counts, as nothing else is in it."""


async def own_error() -> None:
    """Fail with a new error."""
    raise ValueError("the disk is full")


async def shared(settings: Settings, names: list[str], look: Callable[[], None]) -> None:
    """Fill our map with names that wait, all after one and the same error."""
    async with settings.open_map() as tasks:
        await fill_waiting(tasks, names, fail)
        look()


async def own(settings: Settings, names: list[str], look: Callable[[], None]) -> None:
    """Fill our map with names that wait, each after an error of its own."""
    async with settings.open_map() as tasks:
        await fill_waiting(tasks, names, own_error)
        look()


async def tuples(settings: Settings, names: list[str], look: Callable[[], None]) -> None:
    """Fill a dict with names, each with a tuple that holds the exception as it was caught."""
    del settings
    table: dict[str, tuple[int, float, BaseException]] = {}

    async def run(name: str) -> None:
        try:
            await own_error()
        except ValueError as error:
            table[name] = (1, trio.current_time(), error)

    for name in names:
        await run(name)
    look()


async def running(settings: Settings, names: list[str], look: Callable[[], None]) -> None:
    """Fill our map with runs that wait for an event."""
    event = trio.Event()
    async with settings.open_map() as tasks:
        for name in names:
            tasks.start_soon(name, event.wait)
        await trio.testing.wait_all_tasks_blocked()
        look()
        event.set()


async def bare(settings: Settings, names: list[str], look: Callable[[], None]) -> None:
    """Start bare tasks that wait for an event."""
    del settings
    event = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in names:
            nursery.start_soon(event.wait)
        await trio.testing.wait_all_tasks_blocked()
        look()
        event.set()


FILLS: dict[str, Fill] = {fill.__name__: fill for fill in (shared, own, tuples, running, bare)}


# In the process


async def bytes_each(fill: Fill, settings: Settings, count: int) -> float:
    """Return the growth of the process for each of *count* names."""
    names = [f"volume-{number}" for number in range(count)]
    await fill(
        settings, [f"other-{number}" for number in range(min(count // 10, 2 * AT_ONCE))], _nothing
    )
    gc.collect()
    before, after = resident(), 0

    def look() -> None:
        nonlocal after
        gc.collect()
        after = resident()

    await fill(settings, names, look)
    return max(1, after - before) / count


async def collection(fill: Fill, settings: Settings, count: int) -> float:
    """Return the seconds of a full garbage collection with *count* names."""
    names = [f"volume-{number}" for number in range(count)]
    taken: list[float] = []

    def look() -> None:
        gc.collect()
        for _ in range(COLLECTIONS):
            begin = time.perf_counter()
            gc.collect()
            taken.append(time.perf_counter() - begin)

    await fill(settings, names, look)
    return min(taken)


def _nothing() -> None:
    pass


def resident() -> int:
    """Return the resident bytes of this process; on systems without /proc, the most it had."""
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return pages * resource.getpagesize()


def main() -> None:
    """Measure the figure that the arguments name, and print it."""
    what, fill, count, workers = sys.argv[1:]
    measure = {"bytes": bytes_each, "collection": collection}[what]
    settings = Settings(workers=json.loads(workers))
    print(trio.run(measure, FILLS[fill], settings, int(count)))


# The rows

ROUNDS = 3
"""Processes for each side at most; their figures differ by little."""


def in_processes(
    name: str,
    what: str,
    ours: Fill,
    floor: str,
    theirs: Fill | float,
    target: Target,
    count: int,
    unit: str = "B",
) -> Case:
    """Return a row of *what* (bytes, or a collection) two fills take, each in a new process."""

    def measure(settings: Settings) -> Pairs:
        def once(fill: Fill | float) -> float:
            if not callable(fill):
                return fill
            names = count // 100 if settings.quick else count
            arguments = [what, fill.__name__, str(names)]
            workers = json.dumps(settings.workers)
            command = [sys.executable, "-m", "benchmarks.memory", *arguments, workers]
            return float(subprocess.check_output(command, text=True))

        return [
            (once(ours), once(theirs)) for _ in range(min(ROUNDS, max(1, settings.rounds // 20)))
        ]

    return Case(name=name, floor=floor, measure=measure, target=target, unit=unit)


if __name__ == "__main__":
    main()
