"""Mistakes of callers: raised at the call, with the cure, and nothing is changed.

A coroutine that is left un-awaited would be a warning, and so an error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
import types
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from namedtasks import ClosedError, State
from namedtasks.asyncio import TaskMap, open_task_map
from tests.executors.pools import AtOnce
from tests.virtual_loop import virtual


async def nothing() -> None:
    pass


async def generates() -> AsyncGenerator[None]:
    yield


def plain() -> int:
    return 3


def crashes() -> Any:
    raise OSError("no coroutine today")


@types.coroutine
def generator_based() -> Any:
    yield


@functools.wraps(nothing)
def decorated() -> Any:
    return nothing()


class Callable_:
    async def __call__(self) -> None:
        pass


def refused(kind: type[BaseException], message: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind, match=f"^{message}$"):
        call()


@virtual()
async def test_what_is_no_async_function_is_told_at_the_call() -> None:
    async with open_task_map() as tasks:
        any_tasks: Any = tasks
        refused(
            TypeError,
            r"create_task\(\) takes an async function and its arguments, not a coroutine: "
            r"write create_task\(name, fn, arg\), not create_task\(name, fn\(arg\)\)",
            lambda: any_tasks.create_task("a", nothing()),
        )
        refused(
            TypeError,
            r"create_task\(\) takes a name and then an async function, but 5 cannot be called: "
            r"write create_task\(name, fn, arg\), not create_task\(name, fn\(arg\)\)",
            lambda: any_tasks.create_task("a", 5),
        )
        refused(
            TypeError,
            r"create_task\(\) takes an async function, and <function plain at .*> returned 3: "
            r"for a plain function use run_in_executor\(\)",
            lambda: any_tasks.create_task("a", plain),
        )
        refused(
            TypeError,
            r"create_task\(\) takes an async function, and <function generates at .*> is an "
            r"async generator: it must not yield",
            lambda: any_tasks.create_task("a", generates),
        )
        refused(
            TypeError,
            r"create_task\(\) takes an async function, and <function generator_based at .*> "
            r"returns generator-based coroutines \(types\.coroutine\): "
            r"await it in an async function",
            lambda: any_tasks.create_task("a", generator_based),
        )
        refused(OSError, "no coroutine today", lambda: any_tasks.create_task("a", crashes))
        assert len(tasks) == 0
        await tasks.create_task("a", nothing)


@pytest.mark.parametrize(
    "fn",
    [
        nothing,
        generates,
        functools.partial(functools.partial(nothing)),
        Callable_(),
        generator_based,
    ],
)
def test_an_async_function_is_no_work_for_an_executor(fn: Any) -> None:
    @virtual()
    async def main() -> None:
        async with open_task_map() as tasks:
            refused(
                TypeError,
                r"run_in_executor\(\) takes a plain function, and .* is async: "
                r"use create_task\(\)",
                lambda: tasks.run_in_executor("a", fn),
            )
            assert len(tasks) == 0

    main()


@pytest.mark.parametrize("fn", [decorated, lambda: generator_based()])
@pytest.mark.parametrize("pool", [None, concurrent.futures.ThreadPoolExecutor, AtOnce])
def test_a_coroutine_as_a_result_fails_the_run(fn: Any, pool: Any) -> None:
    @virtual(autojump=False)
    async def main() -> None:
        with contextlib.ExitStack() as stack:
            executor = None if pool is None else stack.enter_context(pool())
            async with open_task_map(instruments=()) as tasks:
                with pytest.raises(TypeError) as raised:
                    await tasks.run_in_executor("a", fn, executor=executor)
                assert str(raised.value) == (
                    f"run_in_executor() takes a plain function, and {fn!r} returned a coroutine, "
                    "which was not awaited: use create_task()"
                )
                assert tasks.state("a") is State.WAITING

    main()


@virtual()
async def test_what_cannot_be_called_is_no_work_for_an_executor() -> None:
    async with open_task_map() as tasks:
        any_tasks: Any = tasks
        refused(
            TypeError,
            r"run_in_executor\(\) takes a name and then a plain function, but 5 cannot be called: "
            r"write run_in_executor\(name, fn, arg\), not run_in_executor\(name, fn\(arg\)\)",
            lambda: any_tasks.run_in_executor("a", 5),
        )
        refused(
            TypeError,
            r"run_in_executor\(\) takes a plain function and its arguments, not a coroutine: "
            r"use create_task\(\)",
            lambda: any_tasks.run_in_executor("a", nothing()),
        )


@virtual()
async def test_a_wrong_executor_is_told_at_the_call() -> None:
    wanted = (
        r"executor must be a concurrent\.futures\.Executor or a function that returns one, not 5 "
        r"\(Dask: client\.get_executor\(\); loky: get_reusable_executor\)"
    )
    wrong: Any = 5
    refused(TypeError, wanted, lambda: open_task_map(executor=wrong))
    async with open_task_map() as tasks:
        refused(TypeError, wanted, lambda: tasks.run_in_executor("a", plain, executor=wrong))
        refused(
            TypeError,
            ".*ThreadPoolExecutor is a class, which would make a new pool for each job.*",
            lambda: tasks.run_in_executor(
                "a", plain, executor=concurrent.futures.ThreadPoolExecutor
            ),
        )
        assert len(tasks) == 0


@virtual()
async def test_wrong_options_are_told_at_the_call() -> None:
    async with open_task_map() as tasks:
        any_tasks: Any = tasks
        for verb, fn in (("create_task", nothing), ("run_in_executor", plain), ("post", nothing)):
            start: Any = functools.partial(getattr(any_tasks, verb), "a", fn)
            wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
                (ValueError, "timeout must be at least 0, not -1", {"timeout": -1}),
                (
                    ValueError,
                    "if_busy must be 'refuse', 'skip', 'join', 'replace' or 'queue', not 'wait'",
                    {"if_busy": "wait"},
                ),
                (TypeError, "operation must be a str or None, not 5", {"operation": 5}),
            ]
            for kind, message, options in wrong:
                refused(kind, message, functools.partial(start, **options))
            refused(
                TypeError,
                r"a task's name must be hashable, and \[\] is not \(unhashable type: 'list'\): "
                "use a str, or a tuple or frozen class of hashable values",
                functools.partial(getattr(any_tasks, verb), [], fn),
            )
        assert len(tasks) == 0


def test_wrong_settings_are_told_at_the_call() -> None:
    wrong: Any = "3"
    refused(
        TypeError,
        "limit must be a whole number or None, not '3'",
        lambda: open_task_map(limit=wrong),
    )


@virtual()
async def test_a_closed_map_takes_no_starts() -> None:
    async with open_task_map() as tasks:
        tasks.close()
        refused(
            ClosedError,
            "task 'a' may not start: the map is closed; open a new one",
            lambda: tasks.create_task("a", nothing),
        )


@virtual()
async def test_a_map_can_be_opened_only_once() -> None:
    opening = open_task_map()
    async with opening:
        pass
    with pytest.raises(
        RuntimeError, match=r"^a task map can be opened only once: call open_task_map\(\) again$"
    ):
        async with opening:
            pass


def test_a_map_is_opened_inside_of_a_task() -> None:
    async def enter() -> None:
        manager = open_task_map()
        entering: Any = manager.__aenter__()
        loop = asyncio.get_running_loop()
        raised: asyncio.Future[BaseException] = loop.create_future()

        def step() -> None:
            try:
                entering.send(None)
            except RuntimeError as error:
                raised.set_result(error)

        loop.call_soon(step)
        assert str(await raised) == (
            "namedtasks.asyncio.open_task_map() opens a map for asyncio: "
            "use it inside a Task, for example in asyncio.run()"
        )

    asyncio.run(enter())


@virtual(autojump=False)
async def test_another_thread_is_sent_away() -> None:
    """Whatever changes something is refused there, with the cure."""
    raised: list[str] = []

    def elsewhere(tasks: TaskMap) -> None:
        calls: list[Callable[[], object]] = [
            lambda: tasks.create_task("a", nothing),
            lambda: tasks.run_in_executor("a", plain),
            lambda: tasks.cancel("a"),
            tasks.cancel_all,
            lambda: tasks.forget("a"),
            tasks.close,
            lambda: tasks.cancel_matching(bool),
            lambda: asyncio.run(tasks.wait_idle()),
        ]
        for call in calls:
            try:
                call()
            except RuntimeError as error:
                raised.append(str(error))

    async with open_task_map() as tasks:
        thread = threading.Thread(target=elsewhere, args=(tasks,))
        thread.start()
        thread.join()
        assert len(tasks) == 0
    assert (
        raised
        == [
            "a task map may be used only in the event loop run that opened it: from another thread "
            "call post() or loop.call_soon_threadsafe(); in another run open a new map"
        ]
        * 8
    )


@virtual()
async def test_a_name_whose_comparison_raises_type_error() -> None:
    """The error is that of the name, and nothing is started."""

    class Odd:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise TypeError("odd")

    async with open_task_map() as tasks:
        tasks.create_task(1, asyncio.sleep, 0)
        with pytest.raises(TypeError, match="odd"):
            tasks.create_task(Odd(), asyncio.sleep, 0)
        assert list(tasks) == [1]
