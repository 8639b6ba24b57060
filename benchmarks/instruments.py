"""Runs that succeed in a map with an instrument, compared with those in a map without."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any

import attrs

import namedtasks.asyncio
from benchmarks.case import Stage
from benchmarks.measure import Work, each
from benchmarks.settings import Settings
from benchmarks.starts import noop
from benchmarks.threads import BURST, nothing
from namedtasks import LoggingInstrument, TaskMap, ThreadTaskMap
from namedtasks.abc import Instrument
from namedtasks.instruments import TaskStarted, TaskSucceeded

MakeInstrument = Callable[[], Instrument]


# The instruments. Most need an extra, which is imported when its row is measured.


def prometheus() -> Any:
    """Return an instrument for Prometheus, in a registry of its own."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from namedtasks.instruments import PrometheusInstrument  # noqa: PLC0415

    return PrometheusInstrument("benchmark", registry=CollectorRegistry())


def opentelemetry() -> Instrument:
    """Return an instrument for OpenTelemetry, in a program without a provider."""
    from namedtasks.instruments import OpenTelemetryInstrument  # noqa: PLC0415

    return OpenTelemetryInstrument()


def opentelemetry_sdk() -> Instrument:
    """Return an instrument for OpenTelemetry, with a provider that drops the spans."""
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    from namedtasks.instruments import OpenTelemetryInstrument  # noqa: PLC0415

    return OpenTelemetryInstrument(tracer_provider=TracerProvider())


def status() -> Instrument:
    """Return the instrument of a status page that nobody watches."""
    from namedtasks.status import StatusPage  # noqa: PLC0415

    return StatusPage().instrument()


INSTRUMENTS: dict[str, tuple[MakeInstrument, str | None]] = {
    "LoggingInstrument": (LoggingInstrument, None),
    "PrometheusInstrument": (prometheus, "prometheus_client"),
    "OpenTelemetryInstrument, no provider": (opentelemetry, "opentelemetry"),
    "OpenTelemetryInstrument, with the SDK": (opentelemetry_sdk, "opentelemetry.sdk"),
    "the instrument of StatusPage": (status, "starlette"),
}
"""Each instrument, and the module that it needs."""


# Two maps of the same dialect, one with the instrument


@attrs.frozen
class Both:
    """Two maps in which nothing runs."""

    settings: Settings
    with_instrument: Any
    without: Any


Batch = Callable[[Any, list[Hashable]], Awaitable[None]]
"""Starts names in a map, and waits for their ends."""


def trio_maps(make: MakeInstrument) -> Stage[Both]:
    """Open both on trio."""

    @asynccontextmanager
    async def stage(settings: Settings) -> AsyncGenerator[Both]:
        async with settings.open_map() as without, settings.open_map([make()]) as one:
            yield Both(settings, one, without)

    return stage


async def on_trio(tasks: TaskMap, names: list[Hashable]) -> None:
    """Start a batch on trio, and wait until nothing runs."""
    for name in names:
        tasks.start_soon(name, noop)
    await tasks.wait_idle()


def asyncio_maps(make: MakeInstrument) -> Stage[Both]:
    """Open both on asyncio."""

    @asynccontextmanager
    async def stage(settings: Settings) -> AsyncGenerator[Both]:
        open_map = settings.open_asyncio_map
        async with open_map() as without, open_map([make()]) as one:
            yield Both(settings, one, without)

    return stage


async def on_asyncio(tasks: namedtasks.asyncio.TaskMap, names: list[Hashable]) -> None:
    """Start a batch on asyncio, and await each Task."""
    for task in [tasks.create_task(name, noop) for name in names]:
        await task


def thread_maps(make: MakeInstrument) -> Stage[Both]:
    """Open both for threads."""

    @asynccontextmanager
    async def stage(settings: Settings) -> AsyncGenerator[Both]:
        open_map = settings.open_thread_map
        with open_map() as without, open_map([make()]) as one:
            yield Both(settings, one, without)

    return stage


async def in_threads(tasks: ThreadTaskMap, names: list[Hashable]) -> None:
    """Submit a batch, and wait for each result."""
    for future in [tasks.submit(name, nothing) for name in names]:
        future.result()


def told(batch: Batch) -> Callable[[Both], Work]:
    """Do a batch in the map with the instrument."""
    return lambda stage: _work(batch, stage.settings, stage.with_instrument)


def untold(batch: Batch) -> Callable[[Both], Work]:
    """Do a batch in the map without."""
    return lambda stage: _work(batch, stage.settings, stage.without)


def _work(batch: Batch, settings: Settings, tasks: Any) -> Work:
    names = settings.names(BURST)
    return each(len(names), lambda: batch(tasks, names))


# The methods of one instrument


@attrs.frozen
class Methods:
    """An instrument for Prometheus of a map that is open, and the events of a run."""

    settings: Settings
    instrument: Any
    started: TaskStarted
    succeeded: TaskSucceeded


@asynccontextmanager
async def methods(settings: Settings) -> AsyncGenerator[Methods]:
    """Open a map for the instrument."""
    instrument = prometheus()
    with settings.open_thread_map([instrument]):
        started = TaskStarted(name="volume-1", operation=None, at=1.0, failures=0)
        succeeded = TaskSucceeded(name="volume-1", operation=None, at=1.3, duration=0.3)
        yield Methods(settings, instrument, started, succeeded)


def count_run(stage: Methods) -> Work:
    """Call the methods for a run that succeeds."""
    instrument, started, succeeded = stage.instrument, stage.started, stage.succeeded
    count = stage.settings.batch(1000)

    async def do() -> None:
        for _ in range(count):
            instrument.task_started(started)
            instrument.task_succeeded(succeeded)

    return each(count, do)


def observe(stage: Methods) -> Work:
    """Call only what the library has for it, once for each run."""
    from prometheus_client import CollectorRegistry, Histogram  # noqa: PLC0415

    from namedtasks.instruments.prometheus import BUCKETS  # noqa: PLC0415

    histogram = Histogram("bare", "Run times.", registry=CollectorRegistry(), buckets=BUCKETS)
    count = stage.settings.batch(1000)

    async def do() -> None:
        for _ in range(count):
            histogram.observe(0.3)

    return each(count, do)
