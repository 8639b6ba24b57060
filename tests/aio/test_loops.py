"""A map belongs to the run of the event loop that opened it; only looks work elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from namedtasks import ANY, AlreadyRunningError, ClosedError, State
from namedtasks.asyncio import TaskMap, open_task_map
from tests.virtual_loop import virtual

REFUSED = (
    r"^a task map may be used only in the event loop run that opened it: from another thread call "
    r"post\(\) or loop\.call_soon_threadsafe\(\); in another run open a new map$"
)


async def nothing() -> None: ...


def plain() -> None: ...


def verbs(tasks: TaskMap) -> list[Callable[[], object]]:
    return [
        lambda: tasks.create_task("b", nothing),
        lambda: tasks.create_task("a", nothing, if_busy="skip"),
        lambda: tasks.run_in_executor("b", plain),
        lambda: tasks.cancel("a"),
        lambda: tasks.cancel_matching(bool),
        tasks.cancel_all,
        lambda: tasks.forget("a"),
        tasks.close,
    ]


def waits(tasks: TaskMap) -> list[Callable[[], object]]:
    return [
        tasks.wait_idle,
        tasks.wait_empty,
        lambda: tasks.wait_free("a"),
        lambda: tasks.shutdown(grace=0),
    ]


def look(tasks: TaskMap) -> None:
    """Look at a map in which only "a" runs."""
    assert "a" in tasks
    assert len(tasks) == 1
    assert list(tasks) == list(tasks.keys()) == ["a"]
    assert tasks["a"] is tasks.get("a")
    assert list(tasks.values()) == [tasks["a"]]
    assert list(tasks.items()) == [("a", tasks["a"])]
    assert tasks.state("a") is State.RUNNING
    assert tasks.failure("a") is None
    assert isinstance(tasks.check("a"), AlreadyRunningError)
    assert tasks.check("b") is None
    assert tasks.check(("b", ANY)) is None
    assert tasks.statistics().running == 1
    assert repr(tasks) == "<namedtasks.asyncio.TaskMap running=1 waiting=0>"


def test_a_second_loop_in_the_same_thread_is_refused_and_only_looks_work() -> None:
    """Before, a start was accepted there, and its body never ran."""

    async def open_one() -> TaskMap:
        tasks = await open_task_map().__aenter__()
        tasks.create_task("a", asyncio.sleep, 100)
        return tasks

    async def use_in_another(tasks: TaskMap) -> None:
        for verb in verbs(tasks):
            with pytest.raises(RuntimeError, match=REFUSED):
                verb()
        for wait in waits(tasks):
            with pytest.raises(RuntimeError, match=REFUSED):
                await wait()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
        look(tasks)

    async def close_one(tasks: TaskMap) -> None:
        await tasks.shutdown(grace=0)

    with asyncio.Runner() as first:
        tasks = first.run(open_one())
        with asyncio.Runner() as second:
            second.run(use_in_another(tasks))
        for verb in verbs(tasks):
            with pytest.raises(RuntimeError, match=REFUSED):
                verb()  # while no loop runs
        look(tasks)
        first.run(close_one(tasks))  # in another run of its own loop it goes on
        assert len(tasks) == 0
    with pytest.raises(ClosedError):
        tasks.post("a", nothing)


@virtual(autojump=False)
async def test_all_looks_work_in_another_thread() -> None:
    async with open_task_map() as tasks:
        task = tasks.create_task("a", asyncio.sleep, 1)
        thread = threading.Thread(target=look, args=(tasks,))
        thread.start()
        thread.join()
        task.cancel()


@virtual()
async def test_a_check_of_a_name_with_any_changes_nothing() -> None:
    """The index of names with ANY is made by the first start that needs it."""
    async with open_task_map() as tasks:
        tasks.create_task(("a", 1), asyncio.sleep, 1)
        refusal = tasks.check(("a", ANY))
        assert isinstance(refusal, AlreadyRunningError)
        assert refusal.holders == (("a", 1),)
        assert tasks.check(("b", ANY)) is None
        assert not tasks._backend.scheduler.overlaps.in_use
