"""The same jobs done by packages that users could choose instead, if they are installed.

Each is measured where it runs: on asyncio, in threads or on trio. Each is imported where it is
used, because it is optional: ``pip install --group bench``.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from benchmarks import aio, refusals, starts
from benchmarks.case import Case, Row, Run, Stage, alone, run_asyncio, run_plain, run_trio
from benchmarks.measure import Work, each
from benchmarks.settings import Settings
from benchmarks.starts import noop
from benchmarks.threads import nothing
from namedtasks import RefusedError, ThreadTaskMap

JOBS = 100
"""Jobs in a row for a scheduler; few, because it sorts all of its jobs for each of them."""


def beside(
    peer: str,
    name: str,
    ours: Callable[[Any], Work],
    floor: str,
    theirs: Callable[[Any], Work],
    stage: Stage[Any],
    run: Run,
    unit: str = "us",
) -> Case:
    """Return a row compared with the module *peer*, without a target."""
    row = Row(name=name, ours=ours, floor=floor, theirs=theirs, most=None, unit=unit, needs=peer)
    return alone(row, stage, run)


# aiojobs


@attrs.frozen
class Jobs(aio.Loop):
    """A map on asyncio, and a scheduler of aiojobs."""

    scheduler: Any


@asynccontextmanager
async def jobs(settings: Settings) -> AsyncGenerator[Jobs]:
    """Open both."""
    scheduler = importlib.import_module("aiojobs").Scheduler(limit=None)
    async with settings.open_asyncio_map() as tasks:
        yield Jobs(settings, tasks, scheduler)
    await scheduler.close()


def spawn(stage: Jobs) -> Work:
    """Spawn a batch of jobs, and wait for each."""
    scheduler, names = stage.scheduler, stage.names()

    async def do() -> None:
        for job in [await scheduler.spawn(noop(), name=name) for name in names]:
            await job.wait()

    return each(len(names), do)


# anyio


def start_handles(stage: starts.Idle) -> Work:
    """Start, and wait for the handle, before the next one."""
    open_group: Any = importlib.import_module("anyio").create_task_group
    names = stage.names()

    async def do() -> None:
        async with open_group() as group:
            for name in names:
                await group.start_soon(noop, name=name)

    return each(len(names), do)


# Retries around a call


def with_tenacity(stage: starts.Idle) -> Work:
    """Call a function that would be called again, after a growing wait, if it failed."""
    tenacity: Any = importlib.import_module("tenacity")
    wait = tenacity.wait_exponential(multiplier=0.5, max=122)
    return _called(stage, tenacity.retry(wait=wait)(noop))


def with_stamina(stage: starts.Idle) -> Work:
    """Call the same under stamina."""
    stamina: Any = importlib.import_module("stamina")
    again = stamina.retry(on=Exception, wait_initial=0.5, wait_max=122, wait_jitter=0)
    return _called(stage, again(noop))


def _called(stage: starts.Idle, async_fn: Callable[[], Any]) -> Work:
    names = stage.names()

    async def do() -> None:
        for _ in names:
            await async_fn()

    return each(len(names), do)


# Threads


@attrs.frozen
class Threads:
    """A thread map in which a name runs or waits, and a breaker or a scheduler."""

    settings: Settings
    tasks: ThreadTaskMap
    breaker: Any = None
    scheduler: Any = None

    @property
    def calls(self) -> int:
        """The number of calls in a row."""
        return self.settings.batch(refusals.CALLS)


def _boom() -> None:
    raise ValueError("boom")


@asynccontextmanager
async def breaker(settings: Settings) -> AsyncGenerator[Threads]:
    """Open a map in which a name waits, and a circuit breaker that is open."""
    pybreaker: Any = importlib.import_module("pybreaker")
    opened = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=86_400)
    with settings.open_thread_map() as tasks:
        tasks.submit("waits", _boom).exception()
        try:
            opened.call(_boom)
        except pybreaker.CircuitBreakerError:
            yield Threads(settings, tasks, breaker=opened)


@asynccontextmanager
async def scheduler(settings: Settings) -> AsyncGenerator[Threads]:
    """Open a map in which a name runs, and a scheduler that has a job of that name."""
    module = importlib.import_module("apscheduler.schedulers.background")
    made: Any = module.BackgroundScheduler(job_defaults={"misfire_grace_time": None})
    made.start()
    made.add_job(nothing, "interval", days=1, id="runs")
    end = threading.Event()
    with settings.open_thread_map() as tasks:
        tasks.submit("runs", end.wait)
        yield Threads(settings, tasks, scheduler=made)
        end.set()
    made.shutdown()


def refuse(name: str) -> Callable[[Threads], Work]:
    """Start *name* in the thread map, and catch the refusal."""

    def work(stage: Threads) -> Work:
        tasks, calls = stage.tasks, range(stage.calls)

        async def do() -> None:
            for _ in calls:
                try:  # noqa: SIM105 - suppress() would cost more than what is measured
                    tasks.submit(name, nothing)
                except RefusedError:
                    pass

        return each(len(calls), do)

    return work


def refused_by_breaker(stage: Threads) -> Work:
    """Call an open circuit breaker, and catch the refusal."""
    error: Any = importlib.import_module("pybreaker").CircuitBreakerError
    call, calls = stage.breaker.call, range(stage.calls)

    async def do() -> None:
        for _ in calls:
            try:  # noqa: SIM105 - as above
                call(nothing)
            except error:
                pass

    return each(len(calls), do)


def refused_by_scheduler(stage: Threads) -> Work:
    """Add a job whose id is taken, and catch the refusal."""
    error: Any = importlib.import_module("apscheduler.jobstores.base").ConflictingIdError
    add_job, calls = stage.scheduler.add_job, range(stage.settings.batch(JOBS))

    async def do() -> None:
        for _ in calls:
            try:  # noqa: SIM105 - as above
                add_job(nothing, "interval", days=1, id="runs")
            except error:
                pass

    return each(len(calls), do)


def submit(stage: Threads) -> Work:
    """Submit a batch of functions, and wait until the last has run."""
    return _until_all_ran(stage, stage.tasks.submit)


def add_jobs(stage: Threads) -> Work:
    """Add jobs that are due now, and wait until the last has run."""
    add_job = stage.scheduler.add_job
    return _until_all_ran(stage, lambda name, fn: add_job(fn, id=str(name)))


def _until_all_ran(stage: Threads, start: Callable[[Hashable, Callable[[], None]], object]) -> Work:
    names = stage.settings.names(JOBS)

    async def do() -> None:
        left, ended = list(names), threading.Event()

        def body() -> None:
            left.pop()
            if not left:
                ended.set()

        for name in names:
            start(name, body)
        ended.wait()

    measured = each(len(names), do)

    async def work() -> float:
        taken = await measured()
        while any(name in stage.tasks for name in names):  # the last run may not have ended yet
            pass
        return taken

    return work


PEERS = [
    beside(
        "aiojobs",
        "asyncio map, create_task + await, compared with aiojobs",
        aio.batch("text"),
        "Scheduler.spawn + Job.wait",
        spawn,
        jobs,
        run_asyncio,
    ),
    beside(
        "anyio",
        "start, then wait for the handle, compared with anyio",
        starts.one_by_one,
        "anyio's start_soon + await its TaskHandle, on trio",
        start_handles,
        starts.idle,
        run_trio,
    ),
    beside(
        "tenacity",
        "start, then wait for the handle, compared with tenacity",
        starts.one_by_one,
        "tenacity.retry around the call",
        with_tenacity,
        starts.idle,
        run_trio,
    ),
    beside(
        "stamina",
        "start, then wait for the handle, compared with stamina",
        starts.one_by_one,
        "stamina.retry around the call",
        with_stamina,
        starts.idle,
        run_trio,
    ),
    beside(
        "pybreaker",
        "thread map, refuse a waiting name, compared with pybreaker",
        refuse("waits"),
        "an open CircuitBreaker's refusal",
        refused_by_breaker,
        breaker,
        run_plain,
        "ns",
    ),
    beside(
        "apscheduler",
        "thread map, refuse a running name, compared with APScheduler",
        refuse("runs"),
        "add_job with an id that is taken",
        refused_by_scheduler,
        scheduler,
        run_plain,
        "ns",
    ),
    beside(
        "apscheduler",
        "thread map, start and finish, compared with APScheduler",
        submit,
        "add_job for a run now",
        add_jobs,
        scheduler,
        run_plain,
    ),
]
"""The rows."""
