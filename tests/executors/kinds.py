"""One executor of each kind, where a new interpreter finds it, too."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from namedtasks.executors import from_pool

WORKERS = 2

Fn = Callable[..., Any]


def library(name: str) -> Any:
    """One that need not be installed, and mostly has no types."""
    return importlib.import_module(name)


@functools.cache
def thread_pool() -> Executor:
    return ThreadPoolExecutor(WORKERS)


@functools.cache
def process_pool() -> Executor:
    return ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))


def renewed_process_pool() -> Executor:
    """The same pool, until it is broken."""
    try:
        process_pool().submit(int)
    except BrokenExecutor:
        process_pool.cache_clear()
    return process_pool()


def loky_pool() -> Executor:
    pool: Executor = library("loky").get_reusable_executor(max_workers=WORKERS)
    return pool


@functools.cache
def dask_client() -> Any:
    """A client of two worker processes, each with one thread."""
    distributed = library("distributed")
    return distributed.Client(
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        )
    )


async def on_dask(fn: Fn, *args: object) -> Any:
    return await from_pool(dask_client().get_executor())(fn, *args)


async def on_threads(fn: Fn, *args: object) -> Any:
    return await from_pool(thread_pool)(fn, *args)


async def on_processes(fn: Fn, *args: object) -> Any:
    return await from_pool(process_pool)(fn, *args)


async def on_loky(fn: Fn, *args: object) -> Any:
    return await from_pool(loky_pool)(fn, *args)


async def killing_trio_parallel(fn: Fn, *args: object) -> Any:
    return await library("trio_parallel").run_sync(fn, *args, kill_on_cancel=True)


async def killing_anyio(fn: Fn, *args: object) -> Any:
    return await library("anyio.to_process").run_sync(fn, *args, cancellable=True)
