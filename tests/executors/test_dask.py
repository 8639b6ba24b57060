"""On a Dask cluster, too, there are never two runs of a name at once.

The operation itself writes down when it starts and ends, and whether it found
another one running. What is not tested, because it does not hold: a worker that
lives but cannot be reached is given up by Dask, which runs its job elsewhere.
"""

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Generator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import namedtasks
from namedtasks import AlreadyRunningError, State, TaskFailedError
from namedtasks.executors import from_pool
from namedtasks.testing import check_executor
from tests.executors import kinds
from tests.executors.operation import SOON, Diary, operate, until

pytestmark = [
    pytest.mark.dask,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]

ALLOWED_FAILURES = 3
"""Dask's default: how many lost workers a job may outlive."""


@pytest.fixture(scope="module")
def cluster() -> Generator[Any]:
    pytest.importorskip("distributed", reason="Dask is not installed: run make dask")
    client = kinds.dask_client()
    yield client
    client.close()
    client.cluster.close()
    kinds.dask_client.cache_clear()


@pytest.fixture
def client(cluster: Any) -> Generator[Any]:
    """With all workers there, before and after: closing a cluster that restarts them fails."""
    cluster.wait_for_workers(kinds.WORKERS, timeout=SOON)
    yield cluster
    cluster.wait_for_workers(kinds.WORKERS, timeout=SOON)


@pytest.mark.usefixtures("client")
async def test_it_keeps_the_rules() -> None:
    await check_executor(kinds.on_dask)


def test_its_cancel_is_not_to_be_believed(client: Any, tmp_path: pathlib.Path) -> None:
    """Why we never ask it: it says that the body does not run, and lets it run on."""
    diary = Diary(tmp_path, "a")
    future = client.get_executor().submit(operate, str(tmp_path), "a")
    trio.run(diary.until, "start")
    assert future.cancel()
    assert future.cancelled()
    assert len(diary.running()) == 1
    diary.let_go()
    trio.run(diary.until, "end")


async def test_each_run_is_a_run(client: Any, tmp_path: pathlib.Path) -> None:
    """Left to itself, Dask answers a job of equal function and arguments from an earlier one."""
    diary = Diary(tmp_path, "a")
    diary.let_go()
    with trio.fail_after(SOON):
        async with namedtasks.open_task_map(executor=from_pool(client.get_executor())) as tasks:
            handles = [
                tasks.start_thread_soon(name, operate, str(tmp_path), "a") for name in ("a", "b")
            ]
            for handle in handles:
                assert await handle.wait() == "a"
            assert await tasks.start_thread_soon("a", operate, str(tmp_path), "a").wait() == "a"
    assert diary.what().count("end") == 3


async def test_a_cancelled_run_keeps_its_name_until_its_work_has_ended(
    client: Any, tmp_path: pathlib.Path
) -> None:
    diary = Diary(tmp_path, "a")
    with trio.fail_after(SOON):
        async with namedtasks.open_task_map(
            executor=from_pool(client.get_executor()), overdue_after=0.0, instruments=()
        ) as tasks:
            handle = tasks.start_thread_soon("a", operate, str(tmp_path), "a")
            await diary.until("start")
            handle.cancel()
            await wait_all_tasks_blocked(0.1)
            assert handle.overdue
            with pytest.raises(AlreadyRunningError):
                tasks.start_thread_soon("a", operate, str(tmp_path), "a")
            diary.let_go()
            assert await handle.wait() == "a"
            assert await tasks.start_thread_soon("a", operate, str(tmp_path), "a").wait() == "a"
    assert diary.what() == ["start", "end"] * 2


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_killed_workers_job_runs_again_under_the_same_run(
    client: Any, tmp_path: pathlib.Path, is_cancelled: bool
) -> None:
    diary = Diary(tmp_path, "a")
    with trio.fail_after(SOON):
        async with namedtasks.open_task_map(
            executor=from_pool(client.get_executor()), instruments=()
        ) as tasks:
            handle = tasks.start_thread_soon("a", operate, str(tmp_path), "a")
            process = await diary.until("start")
            if is_cancelled:
                handle.cancel()
                await wait_all_tasks_blocked(0.1)
            os.kill(process, signal.SIGKILL)
            assert await diary.until("start", times=2) != process
            assert tasks.state("a") is State.RUNNING
            diary.let_go()
            assert await handle.wait() == "a"
    assert diary.what() == ["start", "start", "end"]


async def test_a_job_that_kills_its_workers_fails_its_run(
    client: Any, tmp_path: pathlib.Path
) -> None:
    """After as many as Dask's setting ``distributed.scheduler.allowed-failures`` allows."""
    diary = Diary(tmp_path, "a")
    with trio.fail_after(SOON):
        async with namedtasks.open_task_map(
            executor=from_pool(client.get_executor()), instruments=()
        ) as tasks:
            handle = tasks.start_thread_soon("a", operate, str(tmp_path), "a")
            for times in range(1, ALLOWED_FAILURES + 2):
                os.kill(await diary.until("start", times), signal.SIGKILL)
            with pytest.raises(TaskFailedError, match=r"KilledWorker"):
                await handle.wait()
            assert tasks.state("a") is State.WAITING
            await until(lambda: [] if diary.running() else [1])  # the last one is dying
    assert diary.what() == ["start"] * (ALLOWED_FAILURES + 1)


EXITS = """
import sys
import namedtasks, trio
from namedtasks.executors import from_pool
from tests.executors import kinds
from tests.executors.operation import operate_and_exit

async def main():
    executor = from_pool(kinds.dask_client().get_executor())
    async with namedtasks.open_task_map(executor=executor, instruments=()) as tasks:
        try:
            await tasks.start_thread_soon("a", operate_and_exit, sys.argv[1], "a").wait()
        except namedtasks.TaskFailedError as failure:
            print(type(failure.__cause__).__name__)

if __name__ == "__main__":
    trio.run(main)
"""


def test_a_function_that_exits_kills_its_workers_and_is_run_again(tmp_path: pathlib.Path) -> None:
    """To Dask a `SystemExit` in a function is a worker that died.

    On a cluster of its own: it may not get all of its workers back.
    """
    done = subprocess.run(
        [sys.executable, "-c", EXITS, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=200,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.stdout.split() == [b"KilledWorker"]
    assert Diary(tmp_path, "a").what() == ["start"] * (ALLOWED_FAILURES + 1)


async def test_a_shutdown_of_the_executor_that_does_not_wait_ends_runs_and_not_their_work(
    client: Any, tmp_path: pathlib.Path
) -> None:
    """The name is free, and the body goes on: the docs say so."""
    diary = Diary(tmp_path, "a")
    executor = client.get_executor()
    with trio.fail_after(SOON):
        async with namedtasks.open_task_map(
            executor=from_pool(executor), instruments=(), backoff=None
        ) as tasks:
            handle = tasks.start_thread_soon("a", operate, str(tmp_path), "a")
            await diary.until("start")
            executor.shutdown(wait=False)
            with pytest.raises(TaskFailedError):
                await handle.wait()
            assert tasks.state("a") is State.FREE
            assert len(diary.running()) == 1
            diary.let_go()
            await diary.until("end")


async def keep_starting(tasks: namedtasks.TaskMap, folder: pathlib.Path) -> None:
    while True:
        await tasks.wait_free("a")
        tasks.start_thread_soon("a", operate, str(folder), "a")


async def cancel_and_kill(tasks: namedtasks.TaskMap, diary: Diary) -> None:
    """Cancel the run, and kill its worker or let its operation go; twelve times."""
    for turn in range(12):
        begun = diary.what().count("start")
        process = await until(diary.running)
        run = tasks["a"]
        run.cancel()
        await wait_all_tasks_blocked(0.1)  # long enough for a wrong run to begin elsewhere
        assert tasks.get("a") is run
        if turn % 3 == 0:
            os.kill(process, signal.SIGKILL)
        else:
            diary.let_go()
        await diary.until("start", times=begun + 1)
        diary.hold()


async def test_whatever_is_cancelled_and_killed_no_name_runs_twice(
    client: Any, tmp_path: pathlib.Path
) -> None:
    """It is started as soon as it can be, with a worker to spare for a wrong run."""
    diary = Diary(tmp_path, "a")
    with trio.fail_after(SOON):
        async with (
            namedtasks.open_task_map(
                executor=from_pool(client.get_executor()), backoff=None, instruments=()
            ) as tasks,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(keep_starting, tasks, tmp_path)
            await diary.until("start")
            await cancel_and_kill(tasks, diary)
            nursery.cancel_scope.cancel()
            diary.let_go()
    assert diary.what().count("start") > 12
    assert "overlap" not in diary.what()
