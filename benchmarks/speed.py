"""Starting, finishing, waiting and being refused, each beside its floor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable

import trio
import trio.testing

import namedtasks
from benchmarks.handwritten import HandWrittenMap
from benchmarks.measure import Case, Comparison, Wanted, Work, compare
from namedtasks import Backoff, RefusedError, TaskMap

BATCH = 1000
"""Runs that are started before the first of them is waited for."""

REFUSALS = 5000
"""Refusals in a row."""

NAMES = [f"volume-{number}" for number in range(10_000)]


class SmallError(Exception):
    """What raising costs at least."""

    __slots__ = ()


async def noop() -> None:
    """The body that costs nothing."""


async def boom() -> None:
    """The body that fails."""
    raise ValueError("boom")


async def starts(rounds: int, wanted: Wanted) -> AsyncIterator[Comparison]:
    """Start and finish, in batches and one by one, warm and cold."""
    what = f"start + finish of a no-op, batches of {BATCH}"
    async with namedtasks.open_task_map(instruments=()) as tasks, trio.open_nursery() as nursery:
        by_hand = batch_by_hand(HandWrittenMap(nursery))
        cases: list[Case] = [
            (what, "nursery.start_soon", batch(tasks), bare_batch),
            (what, "hand-written keyed map", batch(tasks), by_hand),
            (
                "start, then wait for it, one by one",
                "start_soon + an Event",
                one_by_one(tasks),
                bare_one_by_one(nursery),
            ),
            (
                "a run that fails, and is forgotten",
                "nursery.start_soon",
                failing(tasks),
                bare_batch,
            ),
        ]
        for case in filter(wanted, cases):
            yield await compare(*case, rounds=rounds)
    what = "the same as the first, cold: open, 10 000 runs, close"
    for case in filter(wanted, [(what, "nursery.start_soon", cold, cold_bare)]):
        yield await compare(*case, rounds=max(3, rounds // 5))


def batch(tasks: TaskMap) -> Work:
    """Start a batch, and wait until nothing runs."""

    async def work() -> int:
        for name in NAMES[:BATCH]:
            tasks.start_soon(name, noop)
        await tasks.wait_idle()
        return BATCH

    return work


async def bare_batch() -> int:
    """Start a batch in a nursery, and wait for its end."""
    async with trio.open_nursery() as nursery:
        for _ in range(BATCH):
            nursery.start_soon(noop)
    return BATCH


def batch_by_hand(by_hand: HandWrittenMap) -> Work:
    """Start a batch in the map that one would write by hand."""

    async def work() -> int:
        for name in NAMES[:BATCH]:
            by_hand.start_soon(name, noop)
        await by_hand.wait_idle()
        return BATCH

    return work


def failing(tasks: TaskMap) -> Work:
    """Start a batch that fails, and have the failures forgotten."""

    async def work() -> int:
        for name in NAMES[:BATCH]:
            tasks.start_soon(name, boom)
        await tasks.wait_idle()
        for name in NAMES[:BATCH]:
            tasks.forget(name)
        return BATCH

    return work


def one_by_one(tasks: TaskMap) -> Work:
    """Start, and wait for the handle, before the next one."""

    async def work() -> int:
        for name in NAMES[:BATCH]:
            await tasks.start_soon(name, noop).wait()
        return BATCH

    return work


def bare_one_by_one(nursery: trio.Nursery) -> Work:
    """Start a task that sets an event, and wait for that, before the next one."""

    async def tell(event: trio.Event) -> None:
        await noop()
        event.set()

    async def work() -> int:
        for _ in range(BATCH):
            event = trio.Event()
            nursery.start_soon(tell, event)
            await event.wait()
        return BATCH

    return work


async def cold() -> int:
    """Open a map for 10 000 runs."""
    async with namedtasks.open_task_map(instruments=()) as tasks:
        for name in NAMES:
            tasks.start_soon(name, noop)
    return len(NAMES)


async def cold_bare() -> int:
    """Open a nursery for 10 000 tasks."""
    async with trio.open_nursery() as nursery:
        for _ in NAMES:
            nursery.start_soon(noop)
    return len(NAMES)


async def refusals(rounds: int, wanted: Wanted) -> AsyncIterator[Comparison]:
    """Refusals and their alternatives, of a name that runs and of one that waits."""
    for_an_hour = Backoff(initial=3600.0, maximum=3600.0)
    async with namedtasks.open_task_map(backoff=for_an_hour, instruments=()) as tasks:
        tasks.start_soon("runs", trio.sleep_forever)
        tasks.start_soon("waits", boom)
        await trio.testing.wait_all_tasks_blocked()
        raised, returned = "call, look-up, raise and catch", "call, look-up, return"
        cases: list[Case] = [
            ("refuse a name that runs", raised, refuse(tasks, "runs"), raise_and_catch),
            ("refuse a name that waits", raised, refuse(tasks, "waits"), raise_and_catch),
            ("skip a name that runs", returned, skip(tasks, "runs"), look_up),
            ("skip a name that waits", returned, skip(tasks, "waits"), look_up),
            ("join a name that runs", returned, join(tasks, "runs"), look_up),
            (
                "queue a name that runs, superseding",
                "nursery.start_soon",
                queue(tasks, "runs"),
                bare_batch,
            ),
        ]
        for case in filter(wanted, cases):
            yield await compare(*case, rounds=rounds, unit="ns")
        tasks.cancel_all()


def refuse(tasks: TaskMap, name: Hashable) -> Work:
    """Be refused *name*, and catch that."""

    async def work() -> int:
        for _ in range(REFUSALS):
            try:  # noqa: SIM105 - suppress() would cost more than what is measured
                tasks.start_soon(name, noop)
            except RefusedError:
                pass
        return REFUSALS

    return work


def skip(tasks: TaskMap, name: str) -> Work:
    """Be refused *name* with ``if_busy="skip"``."""

    async def work() -> int:
        for _ in range(REFUSALS):
            tasks.start_soon(name, noop, if_busy="skip")
        return REFUSALS

    return work


def join(tasks: TaskMap, name: str) -> Work:
    """Share the run of *name* with ``if_busy="join"``."""

    async def work() -> int:
        for _ in range(REFUSALS):
            tasks.start_soon(name, noop, if_busy="join")
        return REFUSALS

    return work


def queue(tasks: TaskMap, name: str) -> Work:
    """Put off one more run of *name*, each in the place of the one before; drop the last."""

    async def work() -> int:
        handle = tasks.start_soon(name, noop, if_busy="queue")
        for _ in range(BATCH - 1):
            handle = tasks.start_soon(name, noop, if_busy="queue")
        handle.cancel()
        return BATCH

    return work


_BUSY = {"runs": object()}


def _raise_if_busy(name: str) -> None:
    if name in _BUSY:
        raise SmallError


def _tell_if_busy(name: str) -> bool:
    return name in _BUSY


async def raise_and_catch() -> int:
    """A call, a look-up in a dict, and an exception of the smallest kind."""
    for _ in range(REFUSALS):
        try:  # noqa: SIM105 - as above
            _raise_if_busy("runs")
        except SmallError:
            pass
    return REFUSALS


async def look_up() -> int:
    """A call and a look-up in a dict."""
    for _ in range(REFUSALS):
        _tell_if_busy("runs")
    return REFUSALS
