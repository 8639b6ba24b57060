"""Whether a start gets slower with very many runs that overlap, beside those that do not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

import trio
import trio.testing

import namedtasks
from benchmarks.measure import Case, Comparison, Wanted, Work, compare
from benchmarks.speed import noop, refuse
from namedtasks import ANY, TaskMap

BATCH = 200
"""Runs that are started before their end is waited for: few beside those that go on."""

VOLUME = ("volume-0", ANY)
"""What overlaps all that runs meanwhile."""


def overlapping(number: int) -> Hashable:
    """The name of a run that goes on: one of many pods of one volume."""
    return ("volume-0", f"pod-{number}")


def apart(number: int) -> Hashable:
    """The same, in a map in which no name has ANY."""
    return f"volume-{number}"


async def flatness(counts: list[int], rounds: int, wanted: Wanted) -> AsyncIterator[Comparison]:
    """Starts and refusals while *counts* of runs go on, beside the same with the fewest."""
    fewest = f"with {counts[0]}"
    for count in counts:
        told = f"{count:,}".replace(",", " ")
        async with opened(count, overlapping) as many, opened(counts[0], overlapping) as few:
            cases: list[Case] = [
                (f"start + finish beside {told} of one volume", fewest, starts(many), starts(few)),
                (f"refuse what overlaps {told}", fewest, refuse(many, VOLUME), refuse(few, VOLUME)),
            ]
            for case in filter(wanted, cases):
                yield await compare(*case, rounds=rounds)
        async with opened(count, apart) as many, opened(counts[0], apart) as few:
            what = f"start + finish beside {told} others"
            for case in filter(wanted, [(what, fewest, starts(many), starts(few))]):
                yield await compare(*case, rounds=rounds)


async def price(rounds: int, wanted: Wanted) -> AsyncIterator[Comparison]:
    """What a tuple costs in a map that knows ANY, beside a map that does not."""
    floor = "(a, b) in a map without ANY"
    async with opened(1, overlapping) as knows, opened(1, apart) as does_not:
        cases: list[Case] = [
            ("start + finish of (a, b), ANY is in use", floor, starts(knows), starts(does_not)),
            ("start + finish of (a, ANY)", floor, starts_any(knows), starts(does_not)),
        ]
        for case in filter(wanted, cases):
            yield await compare(*case, rounds=rounds)


@asynccontextmanager
async def opened(count: int, name: Callable[[int], Hashable]) -> AsyncGenerator[TaskMap]:
    """A map in which *count* runs go on; if their names are tuples, ANY has been used."""
    async with namedtasks.open_task_map(instruments=()) as tasks:
        if name is overlapping:
            await tasks.start_soon(VOLUME, noop).wait()
        event = trio.Event()
        for number in range(count):
            tasks.start_soon(name(number), event.wait)
        await trio.testing.wait_all_tasks_blocked()
        yield tasks
        event.set()


def starts(tasks: TaskMap) -> Work:
    """Start a batch of new pods of the volume, and wait for each of them."""
    return _batch(tasks, [("volume-0", f"new-{number}") for number in range(BATCH)])


def starts_any(tasks: TaskMap) -> Work:
    """The same for names with ANY."""
    return _batch(tasks, [(f"volume-{number}", ANY) for number in range(1, BATCH + 1)])


def _batch(tasks: TaskMap, names: list[tuple[Hashable, ...]]) -> Work:
    async def work() -> int:
        for handle in [tasks.start_soon(name, noop) for name in names]:
            if not handle.done:
                await handle.wait()
        return BATCH

    return work
