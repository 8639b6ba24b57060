"""What is kept, and what is not."""

import sys
import weakref
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from namedtasks import State, ThreadTaskMap
from namedtasks.testing import ManualClock
from tests.memory import free_those_of_other_threads, no_garbage_collection
from tests.threads.helpers import HandPool, InThread, Job, boom, idle_threads


class Local:
    """Something that a body has in a local variable."""


class Argument:
    """Something that can be called, or given to what is called."""

    def __call__(self, *args: object) -> Local:
        return Local()


def is_gone(tasks: ThreadTaskMap, reference: weakref.ref[Any]) -> bool:
    """Whether nobody keeps it, as soon as the thread that ran it idles."""
    while not idle_threads(tasks):
        pass
    free_those_of_other_threads()
    return reference() is None


@pytest.fixture
def tasks() -> Generator[ThreadTaskMap]:
    with ThreadTaskMap(instruments=()) as made:
        yield made


def test_a_failed_tasks_locals_are_collectable_while_its_name_waits(tasks: ThreadTaskMap) -> None:
    references: list[weakref.ref[Local]] = []

    def body() -> None:
        local = Local()
        references.append(weakref.ref(local))
        raise ValueError("boom")

    with no_garbage_collection():
        tasks.submit("a", body)
        tasks.wait_idle()
        assert tasks.state("a") is State.WAITING
        assert is_gone(tasks, references[0]), "not even a garbage collection was needed"


def test_a_future_keeps_the_failure_and_dropping_it_lets_go(tasks: ThreadTaskMap) -> None:
    """Also after its `result` has raised."""
    references: list[weakref.ref[Local]] = []

    def body() -> None:
        local = Local()
        references.append(weakref.ref(local))
        raise ValueError("boom")

    with no_garbage_collection():
        future = tasks.submit("a", body)
        with suppress(ValueError):
            future.result()
        assert references[0]() is not None
        del future
        assert is_gone(tasks, references[0])


@pytest.mark.parametrize("pool", [None, "pool"])
def test_a_finished_run_keeps_nothing_once_its_future_is_dropped(
    tasks: ThreadTaskMap, pool: str | None
) -> None:
    """Not the function, not its arguments, not the value, not the future."""
    hand = HandPool()

    def run_and_drop(job: Job) -> None:
        InThread(job.run).result()
        hand.jobs.clear()

    hand.on_submit = run_and_drop
    with no_garbage_collection():
        fn, argument = Argument(), Argument()
        kept: list[weakref.ref[Any]] = [weakref.ref(fn), weakref.ref(argument)]
        future = tasks.submit("a", fn, argument, executor=None if pool is None else hand)
        value = future.result()
        kept += [weakref.ref(value), weakref.ref(future)]
        del fn, argument, value, future
        if pool is None:
            assert all(is_gone(tasks, reference) for reference in kept)
        else:
            free_those_of_other_threads()
            assert [reference() for reference in kept[1:]] == [None] * 3


def test_a_failure_in_a_pool_of_threads_keeps_nothing_either(tasks: ThreadTaskMap) -> None:
    """The pool's own frames lead to its jobs, and not from there to the run."""
    references: list[weakref.ref[Local]] = []

    def body() -> None:
        local = Local()
        references.append(weakref.ref(local))
        raise ValueError("boom")

    with ThreadPoolExecutor(1) as pool, no_garbage_collection():
        future = tasks.submit("a", body, executor=pool)
        assert isinstance(future.exception(), ValueError)
        pool.submit(int).result()  # its thread has let go of the job
        del future
        free_those_of_other_threads()
        assert references[0]() is None


def test_a_submit_that_raised_keeps_nothing(tasks: ThreadTaskMap) -> None:
    """No cycle through the traceback of what the pool raised."""
    hand = HandPool()
    hand.raises = RuntimeError("full")
    with no_garbage_collection():
        argument = Argument()
        kept = weakref.ref(argument)
        with suppress(RuntimeError):
            tasks.submit("a", argument, executor=hand)
        hand.raises = None
        del argument
        assert kept() is None


def test_20_000_names_that_failed_once_leave_nothing() -> None:
    """Once their retention is over and enough runs have settled."""
    clock = ManualClock()
    pool = HandPool()
    with ThreadTaskMap(instruments=(), clock=clock, executor=pool) as tasks:
        for number in range(20_000):
            tasks.submit(number, boom)
            pool.jobs.pop().run()
        ledger = tasks._backend.scheduler
        assert tasks.statistics().waiting == 20_000
        assert sys.getsizeof(ledger.records.tables[None].records) > 500_000
        clock.advance(0.5 + 244)
        runs = 0
        while tasks.statistics().waiting:
            tasks.submit("other", int)
            pool.jobs.pop().run()
            runs += 1
        assert runs <= 20_000 / 4
        assert ledger.records.tables == {}
