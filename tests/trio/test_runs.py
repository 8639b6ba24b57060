"""A map belongs to the run of trio that opened it; only looks work elsewhere."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

import namedtasks
from namedtasks import ANY, AlreadyRunningError, ClosedError, State

REFUSED = (
    r"^a task map may be used only in the event loop run that opened it: from another thread call "
    r"post\(\) or trio\.from_thread\.run_sync\(\); in another run open a new map$"
)


def verbs(tasks: namedtasks.TaskMap) -> list[Callable[[], object]]:
    return [
        lambda: tasks.start_soon("b", trio.sleep, 0),
        lambda: tasks.start_soon("a", trio.sleep, 0, if_busy="skip"),
        lambda: tasks.start_thread_soon("b", print),
        lambda: tasks.cancel("a"),
        lambda: tasks.cancel_matching(bool),
        tasks.cancel_all,
        lambda: tasks.forget("a"),
        tasks.close,
    ]


def test_a_second_run_in_the_same_thread_is_refused() -> None:
    async def first() -> namedtasks.TaskMap:
        async with namedtasks.open_task_map() as tasks:
            pass
        with pytest.raises(ClosedError):  # the block is left, the run is still the same
            tasks.start_soon("b", trio.sleep, 0)
        assert not tasks.cancel("a")
        return tasks

    async def second(tasks: namedtasks.TaskMap) -> None:
        for verb in verbs(tasks):
            with pytest.raises(RuntimeError, match=REFUSED) as caught:
                verb()
            assert not isinstance(caught.value, ClosedError)
        waits: list[Any] = [
            tasks.wait_idle,
            tasks.wait_empty,
            lambda: tasks.wait_free("a"),
            lambda: tasks.shutdown(grace=0),
        ]
        for wait in waits:
            with pytest.raises(RuntimeError, match=REFUSED):
                await wait()

    tasks = trio.run(first)
    trio.run(second, tasks)
    for verb in verbs(tasks):
        with pytest.raises(RuntimeError, match=REFUSED):
            verb()
    assert tasks.statistics().running == len(tasks) == 0
    assert isinstance(tasks.check("a"), ClosedError)


def look(tasks: namedtasks.TaskMap) -> None:
    """Look at a map in which only "a" runs."""
    assert "a" in tasks
    assert list(tasks) == list(tasks.keys()) == ["a"]
    assert tasks["a"] is tasks.get("a")
    assert list(tasks.items()) == [("a", tasks["a"])]
    assert tasks.state("a") is State.RUNNING
    assert tasks.failure("a") is None
    assert isinstance(tasks.check("a"), AlreadyRunningError)
    assert tasks.check(("b", ANY)) is None
    assert tasks.statistics().running == 1
    assert repr(tasks) == "<namedtasks.TaskMap running=1 waiting=0>"


async def test_all_looks_work_in_another_thread() -> None:
    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("a", trio.sleep_forever)
        await trio.to_thread.run_sync(look, tasks)
        tasks.cancel_all()


async def test_a_handle_is_waited_for_in_its_own_run_only() -> None:
    """In another one its waiter would be woken in the wrong thread."""

    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match=REFUSED):
            trio.run(handle.wait)

    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", trio.sleep_forever)
        await trio.to_thread.run_sync(elsewhere)
        tasks.cancel_all()


async def test_a_check_of_a_name_with_any_changes_nothing() -> None:
    """The index of names with ANY is made by the first start that needs it."""
    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon(("a", 1), trio.sleep_forever)
        refusal = tasks.check(("a", ANY))
        assert isinstance(refusal, AlreadyRunningError)
        assert refusal.holders == (("a", 1),)
        assert tasks.check(("b", ANY)) is None
        assert not tasks._backend.scheduler.overlaps.in_use
        tasks.cancel_all()
