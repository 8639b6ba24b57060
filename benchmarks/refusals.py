"""Refused starts and looks, each with its floor."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import attrs
import trio
import trio.testing

from benchmarks.measure import Work, each
from benchmarks.settings import Settings
from benchmarks.starts import boom, noop
from namedtasks import RefusedError, TaskMap

Name = Literal["runs", "waits"]

CALLS = 5000
"""Calls in a row."""


class SmallError(Exception):
    """The smallest exception."""

    __slots__ = ()


@attrs.frozen
class Busy:
    """A map in which one name runs and one waits."""

    settings: Settings
    tasks: TaskMap

    @property
    def calls(self) -> int:
        """The number of calls in a row."""
        return self.settings.batch(CALLS)


@asynccontextmanager
async def busy(settings: Settings) -> AsyncGenerator[Busy]:
    """Open a map in which one name runs and one waits."""
    async with settings.open_map() as tasks:
        tasks.start_soon("runs", trio.sleep_forever)
        tasks.start_soon("waits", boom)
        await trio.testing.wait_all_tasks_blocked()
        yield Busy(settings, tasks)
        tasks.cancel_all()


def refuse(name: Name) -> Callable[[Busy], Work]:
    """Start *name*, and catch the refusal."""

    def work(stage: Busy) -> Work:
        tasks, calls = stage.tasks, range(stage.calls)

        async def do() -> None:
            for _ in calls:
                try:  # noqa: SIM105 - suppress() would cost more than what is measured
                    tasks.start_soon(name, noop)
                except RefusedError:
                    pass

        return each(len(calls), do)

    return work


def skip(name: Name) -> Callable[[Busy], Work]:
    """Start *name* with ``if_busy="skip"``."""

    def work(stage: Busy) -> Work:
        tasks, calls = stage.tasks, range(stage.calls)

        async def do() -> None:
            for _ in calls:
                tasks.start_soon(name, noop, if_busy="skip")

        return each(len(calls), do)

    return work


def join(stage: Busy) -> Work:
    """Share the run of a name with ``if_busy="join"``."""
    tasks, calls = stage.tasks, range(stage.calls)

    async def do() -> None:
        for _ in calls:
            tasks.start_soon("runs", noop, if_busy="join")

    return each(len(calls), do)


def queue(stage: Busy) -> Work:
    """Defer one more run of a name, each in place of the one before; drop the last."""
    tasks, calls = stage.tasks, range(stage.calls)

    async def do() -> None:
        for _ in calls:
            tasks.start_soon("runs", noop, if_busy="queue")

    measured = each(len(calls), do)

    async def work() -> float:
        taken = await measured()
        tasks.start_soon("runs", noop, if_busy="queue").cancel()
        return taken

    return work


def contains(stage: Busy) -> Work:
    """Look for a running name."""
    tasks, calls = stage.tasks, range(stage.calls)

    async def do() -> None:
        for _ in calls:
            _ = "runs" in tasks

    return each(len(calls), do)


def state(name: Name) -> Callable[[Busy], Work]:
    """Look at the state of *name*."""

    def work(stage: Busy) -> Work:
        tasks, calls = stage.tasks, range(stage.calls)

        async def do() -> None:
            for _ in calls:
                tasks.state(name)

        return each(len(calls), do)

    return work


_BUSY = {"runs": object()}


def _raise_if_busy(name: str) -> None:
    if name in _BUSY:
        raise SmallError


def _is_busy(name: str) -> bool:
    return name in _BUSY


def raise_and_catch(stage: Busy) -> Work:
    """Call, look up in a dict, raise the smallest exception and catch it."""
    calls = range(stage.calls)

    async def do() -> None:
        for _ in calls:
            try:  # noqa: SIM105 - as above
                _raise_if_busy("runs")
            except SmallError:
                pass

    return each(len(calls), do)


def look_up(stage: Busy) -> Work:
    """Call, and look up in a dict."""
    calls = range(stage.calls)

    async def do() -> None:
        for _ in calls:
            _is_busy("runs")

    return each(len(calls), do)


def bare_starts(stage: Busy) -> Work:
    """Start as many tasks that do nothing, and wait for them."""
    calls = range(stage.calls)

    async def do() -> None:
        async with trio.open_nursery() as nursery:
            for _ in calls:
                nursery.start_soon(noop)

    return each(len(calls), do)
