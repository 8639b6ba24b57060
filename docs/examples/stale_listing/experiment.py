"""The experiment: a reconcile loop whose listing is a round trip old, in each dialect.

The server lists the work that was undone when the request arrived. The answer takes 20 ms, and
runs end meanwhile: the answer still lists their names as undone. Each function below is one loop,
with a cure or without.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from contextlib import nullcontext
from typing import Literal

import attrs
import trio

import namedtasks
import namedtasks.asyncio

NAMES = tuple(f"vol-{number:03}" for number in range(200))

ROUND_TRIP = 0.02
"""Seconds from the state that a listing shows to its arrival in the loop."""

PERIOD = 0.01
"""Seconds between two listings."""

Cure = Literal["none", "busy", "since"]
"""The cure of a loop: none, skipping the names that ran before the listing, or `observe`."""


def seconds_of(name: str) -> float:
    """Return the seconds that the work on *name* takes: 1 to 50 ms."""
    return (1 + NAMES.index(name) * 7 % 50) / 1000


@attrs.define(eq=False)
class Server:
    """The server: it does the work, and lists the undone work."""

    done: set[str] = attrs.field(factory=set[str], init=False)
    runs: list[str] = attrs.field(factory=list[str], init=False)
    """The names of all runs, in the order of their ends."""

    def missing(self) -> list[str]:
        """Return the names whose work is undone now."""
        return [name for name in NAMES if name not in self.done]

    def finish(self, name: str) -> None:
        """Note that a run has done the work on *name*."""
        self.runs.append(name)
        self.done.add(name)


async def reconcile_on_asyncio(server: Server, cure: Cure) -> None:
    """Start what the listing shows as undone, until it is empty."""

    async def work_on(name: str) -> None:
        await asyncio.sleep(seconds_of(name))
        server.finish(name)

    missing: list[str] | None = None
    async with namedtasks.asyncio.open_task_map() as tasks:
        while missing != []:
            busy: set[Hashable] = set(tasks) if cure == "busy" else set()
            with tasks.observe() if cure == "since" else nullcontext() as look:
                missing = server.missing()
                await asyncio.sleep(ROUND_TRIP)
                for name in missing:
                    if name not in busy:
                        tasks.create_task(name, work_on, name, if_busy="skip", since=look)
            await asyncio.sleep(PERIOD)


def reconcile_in_threads(server: Server, cure: Cure) -> None:
    """Do the same in threads."""

    def work_on(name: str) -> None:
        time.sleep(seconds_of(name))
        server.finish(name)

    missing: list[str] | None = None
    with namedtasks.ThreadTaskMap() as tasks:
        while missing != []:
            busy: set[Hashable] = set(tasks) if cure == "busy" else set()
            with tasks.observe() if cure == "since" else nullcontext() as look:
                missing = server.missing()
                time.sleep(ROUND_TRIP)
                for name in missing:
                    if name not in busy:
                        tasks.submit(name, work_on, name, if_busy="skip", since=look)
            time.sleep(PERIOD)


async def reconcile_on_trio(server: Server, cure: Cure) -> None:
    """Do the same on trio."""

    async def work_on(name: str) -> None:
        await trio.sleep(seconds_of(name))
        server.finish(name)

    missing: list[str] | None = None
    async with namedtasks.open_task_map() as tasks:
        while missing != []:
            busy: set[Hashable] = set(tasks) if cure == "busy" else set()
            with tasks.observe() if cure == "since" else nullcontext() as look:
                missing = server.missing()
                await trio.sleep(ROUND_TRIP)
                for name in missing:
                    if name not in busy:
                        tasks.start_soon(name, work_on, name, if_busy="skip", since=look)
            await trio.sleep(PERIOD)
