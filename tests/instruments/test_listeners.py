"""An instrument that overrides one method only gets its event as soon as any other would."""

from __future__ import annotations

import asyncio

import trio
import trio.testing

import namedtasks.asyncio
from namedtasks import Backoff, ThreadTaskMap, open_task_map
from namedtasks.instruments import Instrument, TaskExpired
from namedtasks.testing import ManualClock
from tests.virtual_loop import virtual

SOON = Backoff(initial=1)


class Expiries(Instrument):
    """Takes no start and no success."""

    def __init__(self) -> None:
        self.names: list[object] = []

    def task_expired(self, event: TaskExpired, /) -> None:
        self.names.append(event.name)


async def fail() -> None:
    raise OSError("device busy")


def fail_now() -> None:
    raise OSError("device busy")


async def test_an_expired_failure_is_told_when_the_next_run_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    expiries = Expiries()
    async with open_task_map(instruments=[expiries], backoff=SOON, retention=2) as tasks:
        tasks.start_soon("a", fail)
        await trio.sleep(60)
        await tasks.start_soon("b", trio.sleep, 1).wait()
        assert expiries.names == ["a"]


@virtual()
async def test_so_it_is_on_asyncio() -> None:
    expiries = Expiries()
    open_map = namedtasks.asyncio.open_task_map
    async with open_map(instruments=[expiries], backoff=SOON, retention=2) as tasks:
        _ = tasks.create_task("a", fail)
        await asyncio.sleep(60)
        await tasks.create_task("b", asyncio.sleep, 1)
        assert expiries.names == ["a"]


def test_so_it_is_in_threads() -> None:
    expiries, clock = Expiries(), ManualClock()
    with ThreadTaskMap(instruments=[expiries], backoff=SOON, retention=2, clock=clock) as tasks:
        tasks.submit("a", fail_now).exception()
        clock.advance(60)
        tasks.submit("b", int).result()
        tasks.wait_idle()
        assert expiries.names == ["a"]


async def test_it_is_told_when_the_name_itself_begins(
    autojump_clock: trio.testing.MockClock,
) -> None:
    expiries = Expiries()
    told: list[object] = []

    async def body() -> None:
        told.extend(expiries.names)

    async with open_task_map(instruments=[expiries], backoff=SOON, retention=2) as tasks:
        tasks.start_soon("a", fail)
        await trio.sleep(60)
        await tasks.start_soon("a", body).wait()
        assert told == ["a"]
