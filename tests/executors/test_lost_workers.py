"""A worker that dies fails its run, and no name is free while any work of its pool goes on."""

import os
import pathlib
import signal
import sys
from collections.abc import Callable, Generator
from concurrent.futures import BrokenExecutor, Executor
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import namedtasks
from namedtasks import State, TaskCancelledError, TaskFailedError
from namedtasks.executors import from_pool
from tests.executors import kinds
from tests.executors.conftest import CURE
from tests.executors.operation import SOON, Diary, is_alive, operate, operate_and_die_slowly, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

Factory = Callable[[], Executor]


@pytest.fixture(params=["processes", "loky"])
def pool(request: pytest.FixtureRequest) -> Generator[Factory]:
    if request.param == "loky":
        yield request.getfixturevalue("loky_pool")
    else:
        yield kinds.renewed_process_pool
        kinds.process_pool().shutdown()
        kinds.process_pool.cache_clear()


async def test_a_worker_that_dies_fails_its_run_and_the_next_one_gets_a_fresh_pool(
    pool: Factory, tmp_path: pathlib.Path
) -> None:
    """When a name is free, all processes of the broken pool are gone."""
    victims, siblings = Diary(tmp_path, "victim"), Diary(tmp_path, "sibling")
    with trio.fail_after(SOON):
        async with namedtasks.open_task_map(executor=from_pool(pool), instruments=()) as tasks:
            victim = tasks.start_thread_soon("victim", operate, str(tmp_path), "victim")
            sibling = tasks.start_thread_soon("sibling", operate, str(tmp_path), "sibling")
            processes = [await victims.until("start"), await siblings.until("start")]
            broken = pool()
            os.kill(processes[0], signal.SIGKILL)
            for handle in (victim, sibling):
                with pytest.raises(TaskFailedError) as caught:
                    await handle.wait()
                assert isinstance(caught.value.__cause__, BrokenExecutor)
                assert [is_alive(process) for process in processes] == [False, False]
            assert tasks.state("victim") is State.WAITING
            assert siblings.what() == ["start"]

            await tasks.wait_free("victim")
            victims.let_go()
            again = tasks.start_thread_soon("victim", operate, str(tmp_path), "victim")
            assert await again.wait() == "victim"
            assert pool() is not broken
    assert victims.what() == ["start", "start", "end"]


async def test_at_no_time_there_are_two_runs_of_a_name(
    pool: Factory, tmp_path: pathlib.Path
) -> None:
    """Not even when each name is started again as soon as it can be, and workers keep dying."""
    names = ("a", "b", "c")
    diaries = {name: Diary(tmp_path, name) for name in names}

    async def keep_starting(name: str) -> None:
        while True:
            await tasks.wait_free(name)
            handle = tasks.start_thread_soon(name, operate, str(tmp_path), name, if_busy="skip")
            assert handle is not None
            with pytest.raises(TaskFailedError):
                await handle.wait()

    def not_killed() -> list[int]:
        running = [process for name in names for process in diaries[name].running()]
        return [process for process in running if process not in killed]

    killed: set[int] = set()
    with trio.fail_after(SOON):
        async with (
            namedtasks.open_task_map(
                executor=from_pool(pool), backoff=None, instruments=()
            ) as tasks,
            trio.open_nursery() as nursery,
        ):
            for name in names:
                nursery.start_soon(keep_starting, name)
            for _ in range(4):
                process = await until(not_killed)
                killed.add(process)
                os.kill(process, signal.SIGKILL)
            await until(not_killed)
            for diary in diaries.values():
                diary.let_go()
            nursery.cancel_scope.cancel()
    for name in names:
        assert "overlap" not in diaries[name].what()


async def test_a_sibling_that_takes_its_time_to_die_keeps_all_names(tmp_path: pathlib.Path) -> None:
    """The standard pool tells of the end first, and asks the other processes to terminate then."""
    victims, siblings = Diary(tmp_path, "victim"), Diary(tmp_path, "sibling")
    with trio.fail_after(SOON):
        async with namedtasks.open_task_map(
            executor=from_pool(kinds.process_pool), backoff=None, instruments=()
        ) as tasks:
            victim = tasks.start_thread_soon("victim", operate, str(tmp_path), "victim")
            sibling = tasks.start_thread_soon(
                "sibling", operate_and_die_slowly, str(tmp_path), "sibling"
            )
            process = await victims.until("start")
            await siblings.until("start")
            os.kill(process, signal.SIGKILL)
            await siblings.until("terminating")
            await wait_all_tasks_blocked(0.05)
            assert set(tasks) == {"victim", "sibling"}
            siblings.let_go()
            for handle in (victim, sibling):
                with pytest.raises(TaskFailedError):
                    await handle.wait()
                assert siblings.what() == ["start", "terminating", "end"]
                assert siblings.running() == []
    kinds.process_pool.cache_clear()


async def test_a_pool_whose_workers_are_killed_with_it_frees_no_name_too_early(
    loky_pool: Factory, tmp_path: pathlib.Path
) -> None:
    """loky tells of the end, with another error, before it kills."""
    diary = Diary(tmp_path, "a")
    with trio.fail_after(SOON):
        async with namedtasks.open_task_map(executor=from_pool(loky_pool), instruments=()) as tasks:
            handle = tasks.start_thread_soon("a", operate, str(tmp_path), "a")
            process = await diary.until("start")
            pool: Any = loky_pool()
            pool.shutdown(wait=False, kill_workers=True)
            with pytest.raises(TaskFailedError, match=r"ShutdownExecutorError"):
                await handle.wait()
            assert not is_alive(process)


async def test_a_run_in_another_process_keeps_its_name_until_it_has_ended(
    pool: Factory, tmp_path: pathlib.Path
) -> None:
    diary = Diary(tmp_path, "a")
    with trio.fail_after(SOON):
        async with namedtasks.open_task_map(
            executor=from_pool(pool), overdue_after=0.0, instruments=()
        ) as tasks:
            handle = tasks.start_thread_soon("a", operate, str(tmp_path), "a")
            await diary.until("start")
            handle.cancel()
            await wait_all_tasks_blocked(0.05)
            assert handle.overdue
            diary.let_go()
            assert await handle.wait() == "a"
            assert diary.what() == ["start", "end"]


@pytest.mark.parametrize("name", ["killing_trio_parallel", "killing_anyio"])
async def test_an_executor_that_kills_frees_the_name_when_the_process_is_gone(
    name: str, tmp_path: pathlib.Path
) -> None:
    pytest.importorskip("trio_parallel" if "trio" in name else "anyio", reason=CURE)
    diary = Diary(tmp_path, "a")
    with trio.fail_after(SOON):
        async with namedtasks.open_task_map(executor=getattr(kinds, name)) as tasks:
            handle = tasks.start_thread_soon("a", operate, str(tmp_path), "a")
            process = await diary.until("start")
            handle.cancel()
            with pytest.raises(TaskCancelledError):
                await handle.wait()
            assert not is_alive(process)
            assert tasks.state("a") is State.FREE
    assert diary.what() == ["start"]
