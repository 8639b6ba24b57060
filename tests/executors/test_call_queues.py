"""A pool of processes has a queue of calls, from which nothing can be taken back."""

from __future__ import annotations

import multiprocessing
import pathlib
import sys
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

import pytest
import trio

from namedtasks import TaskFuture, ThreadTaskMap
from tests.executors import kinds
from tests.executors.operation import Diary, operate
from tests.threads.helpers import InThread, wait_until

WORKERS = kinds.WORKERS


@pytest.fixture
def standard() -> Generator[Executor]:
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def loky(loky_pool: Callable[[], Executor]) -> Executor:
    return loky_pool()


def queue_size(kind: str) -> int:
    """The calls that wait in the queue, beside those that the workers run."""
    if kind == "standard":
        return WORKERS + 1
    cores: int = kinds.library("loky").cpu_count()
    return 2 * max(cores, WORKERS) + 1


def handed_over(pool: Any) -> int:
    """Count the jobs that the pool has marked as running: in a worker or in the queue of calls."""
    return sum(item.future.running() for item in list(pool._pending_work_items.values()))


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> Executor:
    made: Executor = request.getfixturevalue(request.param)
    return made


class Jobs:
    """Operations that occupy all workers, and some more."""

    def __init__(self, tasks: ThreadTaskMap, folder: pathlib.Path) -> None:
        self._tasks = tasks
        self._folder = folder
        self.diaries: list[Diary] = []
        for _ in range(WORKERS):
            self.add()
        for diary in self.diaries:
            trio.run(diary.until, "start")

    def add(self) -> TaskFuture[str]:
        name = f"job-{len(self.diaries)}"
        self.diaries.append(Diary(self._folder, name))
        return self._tasks.submit(name, operate, str(self._folder), name)

    def let_go(self) -> None:
        for diary in self.diaries:
            diary.let_go()


@pytest.mark.parametrize("pool", ["standard", "loky"], indirect=True)
def test_a_job_in_the_queue_of_calls_runs_to_its_end_after_a_cancel(
    pool: Executor, tmp_path: pathlib.Path
) -> None:
    """It has not begun, and keeps its name."""
    with ThreadTaskMap(executor=pool, instruments=()) as tasks:
        jobs = Jobs(tasks, tmp_path)
        queued = jobs.add()
        wait_until(lambda: handed_over(pool) == WORKERS + 1)
        assert not queued.cancel()
        assert tasks.cancel(queued.name)
        assert queued.name in tasks
        assert jobs.diaries[-1].what() == []
        jobs.let_go()
        assert queued.result() == queued.name
    assert jobs.diaries[-1].what() == ["start", "end"]


@pytest.mark.parametrize("pool", ["standard", "loky"], indirect=True)
def test_with_a_limit_of_the_number_of_workers_all_that_has_not_begun_is_taken_back(
    pool: Executor, tmp_path: pathlib.Path
) -> None:
    """Then jobs wait in the map, and not in the queue of calls."""
    with ThreadTaskMap(executor=pool, limit=WORKERS, instruments=()) as tasks:
        jobs = Jobs(tasks, tmp_path)
        waits = jobs.add()
        assert tasks.cancel(waits.name)
        assert waits.cancelled()
        assert waits.name not in tasks
        jobs.let_go()
    assert jobs.diaries[-1].what() == []


@pytest.mark.parametrize(
    ("pool", "kind"),
    [
        pytest.param(
            "standard",
            "standard",
            marks=pytest.mark.skipif(
                sys.version_info < (3, 12, 1), reason="before Python 3.12.1 none is taken back"
            ),
        ),
        ("loky", "loky"),
    ],
    indirect=["pool"],
)
def test_a_job_behind_the_queue_of_calls_is_taken_back(
    pool: Executor, kind: str, tmp_path: pathlib.Path
) -> None:
    with ThreadTaskMap(executor=pool, instruments=()) as tasks:
        jobs = Jobs(tasks, tmp_path)
        for _ in range(queue_size(kind)):
            jobs.add()
        last = jobs.add()
        assert tasks.cancel(last.name)
        assert last.cancelled()
        assert last.name not in tasks
        jobs.let_go()
    assert jobs.diaries[-1].what() == []


def test_a_factory_of_loky_that_changes_its_arguments_waits_for_the_jobs(
    loky: Any, tmp_path: pathlib.Path
) -> None:
    """In the submitter's thread: on trio and asyncio that is the loop's."""
    with ThreadTaskMap(executor=loky, instruments=()) as tasks:
        jobs = Jobs(tasks, tmp_path)

        def let_go() -> None:
            wait_until(lambda: loky._flags.shutdown)
            assert [diary.what() for diary in jobs.diaries] == [["start"]] * WORKERS
            jobs.let_go()

        helper = InThread(let_go)
        changed = kinds.library("loky").get_reusable_executor(max_workers=WORKERS, timeout=5)
        assert [diary.what() for diary in jobs.diaries] == [["start", "end"]] * WORKERS
        assert changed is not loky
        helper.result()


def test_loky_has_a_reusable_pool_for_each_thread(loky: Executor) -> None:
    """So a factory of it, in a thread map, makes a pool for each thread that submits."""

    def other_pool() -> Executor:
        pool = kinds.loky_pool()
        pool.shutdown()
        return pool

    assert kinds.loky_pool() is loky
    assert InThread(other_pool).result() is not loky
