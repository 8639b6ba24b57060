"""Mistakes of a first program: the error says what happened, and what to write."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import functools
import inspect
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

import pytest
import trio

import namedtasks
import namedtasks.asyncio
from namedtasks import Backoff, ThreadTaskMap
from namedtasks.executors import from_pool
from namedtasks.instruments import Instrument

ON_TRIO = "namedtasks.open_task_map()"
ON_ASYNCIO = "namedtasks.asyncio.open_task_map()"
OPENERS: dict[str, Callable[..., Any]] = {
    ON_TRIO: namedtasks.open_task_map,
    ON_ASYNCIO: namedtasks.asyncio.open_task_map,
}
in_each_way_to_open = pytest.mark.parametrize("opener", OPENERS)


def fails_with(kind: type[BaseException], message: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind) as raised:
        call()
    assert message == str(raised.value)


def last_await(awaitable: Awaitable[object]) -> None:
    """Await *awaitable*, which raises before it waits, where no framework runs."""

    async def main() -> None:
        await awaitable

    coroutine = main()
    with contextlib.closing(coroutine):
        coroutine.send(None)


# Modules and classes


@pytest.mark.parametrize("module", ["abc", "asyncio", "executors", "instruments", "testing"])
def test_a_public_module_need_not_be_imported_first(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(namedtasks, module, raising=False)
    assert getattr(namedtasks, module) is sys.modules[f"namedtasks.{module}"]
    assert module in dir(namedtasks)


def test_a_star_import_brings_no_module() -> None:
    """One of them would hide the `asyncio` of the standard library."""
    assert not any(inspect.ismodule(getattr(namedtasks, name)) for name in namedtasks.__all__)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("trio", "; the map for trio is in namedtasks itself: use namedtasks.open_task_map()"),
        ("threads", "; the map for threads is namedtasks.ThreadTaskMap"),
        ("open_map", ""),
    ],
)
def test_a_name_that_is_not_there_is_an_attribute_error(name: str, cure: str) -> None:
    message = f"module 'namedtasks' has no attribute '{name}'{cure}"
    fails_with(AttributeError, message, lambda: getattr(namedtasks, name))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            namedtasks.TaskMap,
            f"namedtasks.TaskMap cannot be called directly: write 'async with {ON_TRIO} as tasks:'",
        ),
        (
            namedtasks.asyncio.TaskMap,
            "namedtasks.asyncio.TaskMap cannot be called directly: "
            f"write 'async with {ON_ASYNCIO} as tasks:'",
        ),
        (
            functools.partial(namedtasks.TaskMap, limit=3),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            f"namedtasks.TaskMap cannot be called directly: write 'async with {ON_TRIO} as tasks:'",
        ),
        (
            namedtasks.TaskHandle,
            "namedtasks.TaskHandle cannot be called directly: "
            "start_soon() and start_thread_soon() return one",
        ),
        (
            namedtasks.TaskFuture,
            "namedtasks.TaskFuture cannot be called directly: "
            "submit() of a ThreadTaskMap returns one",
        ),
        (
            namedtasks.CurrentRun,
            "namedtasks.CurrentRun cannot be called directly: "
            "call namedtasks.current_run() inside a task",
        ),
        (
            namedtasks.Observation,
            "namedtasks.Observation cannot be called directly: "
            "write 'with tasks.observe() as look:'",
        ),
    ],
)
def test_a_class_that_only_the_package_calls_names_the_call(
    make: Callable[[], object], message: str
) -> None:
    fails_with(TypeError, message, make)


# Maps that are not opened


@in_each_way_to_open
def test_what_opens_a_map_is_not_the_map(opener: str) -> None:
    unopened = OPENERS[opener]()
    fails_with(
        AttributeError,
        f"{opener} does not return the map itself: write 'async with {opener} as tasks:', "
        "then use tasks.start_soon",
        lambda: unopened.start_soon("a", trio.sleep, 0),
    )
    assert f"<{opener}: write 'async with {opener} as tasks:'>" == repr(unopened)
    assert type(unopened) is type(copy.copy(unopened)), "other lookups fail as they do elsewhere"
    assert not hasattr(unopened, "_anything")


@in_each_way_to_open
def test_a_map_is_opened_by_async_with_only(opener: str) -> None:
    unopened = OPENERS[opener]()
    cure = f"write 'async with {opener} as tasks:'"

    def enter() -> None:
        with unopened:
            raise AssertionError("it was entered")

    fails_with(TypeError, f"{opener} needs 'async with', not 'with': {cure}", enter)
    fails_with(TypeError, f"{opener} cannot be awaited: {cure}", lambda: last_await(unopened))


async def enter(opener: str) -> None:
    async with OPENERS[opener]():
        raise AssertionError("it was entered")


@pytest.mark.parametrize(
    ("opener", "run", "message"),
    [
        (
            ON_TRIO,
            lambda: asyncio.run(enter(ON_TRIO)),
            f"{ON_TRIO} opens a map for trio, and this code runs in asyncio: use {ON_ASYNCIO}",
        ),
        (
            ON_ASYNCIO,
            lambda: trio.run(enter, ON_ASYNCIO),
            f"{ON_ASYNCIO} opens a map for asyncio, and this code runs in trio: use {ON_TRIO}",
        ),
        (
            ON_TRIO,
            lambda: last_await(enter(ON_TRIO)),
            f"{ON_TRIO} opens a map for trio: use it inside trio.run()",
        ),
        (
            ON_ASYNCIO,
            lambda: last_await(enter(ON_ASYNCIO)),
            f"{ON_ASYNCIO} opens a map for asyncio: use it inside a Task, "
            "for example in asyncio.run()",
        ),
    ],
)
def test_a_map_that_is_opened_in_another_framework_names_the_other_one(
    opener: str, run: Callable[[], object], message: str
) -> None:
    fails_with(RuntimeError, message, run)


@pytest.mark.parametrize(
    ("opener", "other", "message"),
    [
        (ON_TRIO, "asyncio", f"{ON_TRIO} opens a map for trio: use it inside trio.run()"),
        (
            ON_ASYNCIO,
            "trio",
            f"{ON_ASYNCIO} opens a map for asyncio: use it inside a Task, "
            "for example in asyncio.run()",
        ),
    ],
)
def test_the_other_framework_is_not_imported_for_the_error(
    opener: str, other: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, other)
    fails_with(RuntimeError, message, lambda: last_await(enter(opener)))
    assert other not in sys.modules


def test_a_thread_map_works_without_a_block() -> None:
    tasks = ThreadTaskMap()
    assert tasks.submit("a", int, "5").result() == 5
    tasks.shutdown()
    fails_with(
        namedtasks.ClosedError,
        "task 'a' may not start: the map is closed; open a new one",
        lambda: tasks.submit("a", int, "5"),
    )


# Arguments of a start


async def attach(volume: str = "", *, force: bool = False) -> str:
    return f"{volume} {force}"


def detach(volume: str = "", *, force: bool = False) -> str:
    return f"{volume} {force}"


Start = tuple[str, Callable[..., Any], Callable[..., Any], str]
"""The name of a method, the method of an open map, a function for it, and its kind."""
METHODS: dict[str, str] = {
    "trio start_soon": "an async",
    "trio start_thread_soon": "a plain",
    "trio post": "an async",
    "asyncio create_task": "an async",
    "asyncio run_in_executor": "a plain",
    "asyncio post": "an async",
    "threads submit": "a plain",
}
in_each_method = pytest.mark.parametrize("method", METHODS)


@contextlib.asynccontextmanager
async def open_map(dialect: str) -> AsyncGenerator[Any]:
    if dialect == "threads":
        with ThreadTaskMap() as threads:
            yield threads
    else:
        async with OPENERS[ON_TRIO if dialect == "trio" else ON_ASYNCIO]() as tasks:
            yield tasks


def in_a_map(method: str, test: Callable[[str, Callable[..., Any]], None]) -> None:
    """Call *test* with the name of the *method* and the method, in an open map."""
    dialect, _, name = method.partition(" ")

    async def main() -> None:
        async with open_map(dialect) as tasks:
            test(name, getattr(tasks, name))
            assert len(tasks) == 0

    if dialect == "asyncio":
        asyncio.run(main())
    else:
        trio.run(main)


def function_for(method: str) -> Callable[..., Any]:
    return attach if METHODS[method] == "an async" else detach


@in_each_method
def test_a_keyword_argument_for_the_function_names_partial(method: str) -> None:
    executor = "executor, " if METHODS[method] == "a plain" else ""

    def test(name: str, start: Callable[..., Any]) -> None:
        fails_with(
            TypeError,
            f"{name}() got an unexpected keyword argument 'force' (it takes {executor}if_busy, "
            "timeout, operation, backoff, since and retry): to pass it to the function, use "
            "functools.partial(fn, force=...)",
            lambda: start("vol-1", function_for(method), "vol-1", force=True),
        )

    in_a_map(method, test)


@in_each_method
def test_a_function_in_the_place_of_the_name_is_told_the_order(method: str) -> None:
    def test(name: str, start: Callable[..., Any]) -> None:
        fails_with(
            TypeError,
            f"{name}() takes a name and then {METHODS[method]} function, but 'vol-1' cannot be "
            f"called: write {name}(name, fn, arg)",
            lambda: start(function_for(method), "vol-1"),
        )

    in_a_map(method, test)


@in_each_method
def test_the_result_of_a_call_is_no_function(method: str) -> None:
    def test(name: str, start: Callable[..., Any]) -> None:
        fails_with(
            TypeError,
            f"{name}() takes a name and then {METHODS[method]} function, but None cannot be "
            f"called: write {name}(name, fn, arg), not {name}(name, fn(arg))",
            lambda: start("vol-1", print(end="")),
        )

    in_a_map(method, test)


@pytest.mark.parametrize("method", [one for one in METHODS if "post" not in one])
def test_a_start_without_a_name_is_told_the_order(method: str) -> None:
    def test(name: str, start: Callable[..., Any]) -> None:
        message = (
            f"{name}() takes a name and then {METHODS[method]} function: "
            f"write {name}(name, fn, arg)"
        )
        fails_with(TypeError, message, lambda: start(function_for(method)))
        fails_with(TypeError, message, start)
        fails_with(TypeError, message, lambda: start(name="vol-1", fn=detach))

    in_a_map(method, test)


@pytest.mark.parametrize(
    ("method", "cure"),
    [
        ("trio start_soon", "write start_soon(name, fn, arg), not start_soon(fn(arg))"),
        ("trio start_thread_soon", "use start_soon()"),
        ("asyncio create_task", "write create_task(name, fn, arg), not create_task(fn(arg))"),
        ("asyncio run_in_executor", "use create_task()"),
        (
            "threads submit",
            "use namedtasks.asyncio.open_task_map() or, on trio, namedtasks.open_task_map()",
        ),
    ],
)
def test_a_coroutine_without_a_name_is_closed_and_told_the_cure(method: str, cure: str) -> None:
    """As `asyncio.create_task` takes one. Nothing warns that it was never awaited."""
    kind = METHODS[method]

    def test(name: str, start: Callable[..., Any]) -> None:
        fails_with(
            TypeError,
            f"{name}() takes {kind} function and its arguments, not a coroutine: {cure}",
            lambda: start(attach("vol-1")),
        )

    in_a_map(method, test)


@in_each_method
def test_none_is_no_name(method: str) -> None:
    """As `loop.run_in_executor` takes it in the first place."""

    def test(_: str, start: Callable[..., Any]) -> None:
        message = "a task's name must not be None: use any other hashable, such as a str"
        fails_with(TypeError, message, lambda: start(None, function_for(method)))
        tasks = start.__self__  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]
        fails_with(TypeError, message, lambda: tasks.check(None))
        assert None not in tasks
        assert tasks.state(None) is namedtasks.State.FREE

    in_a_map(method, test)


@in_each_method
def test_a_wrong_policy_of_a_start_names_all_that_is_allowed(method: str) -> None:
    def test(_: str, start: Callable[..., Any]) -> None:
        allowed = "backoff must be 'map', a Backoff, None or an object with a method delay(), not "
        function = function_for(method)
        fails_with(TypeError, f"{allowed}5", lambda: start("a", function, backoff=5))
        fails_with(
            TypeError,
            f"{allowed}<class 'namedtasks.Backoff'>: write Backoff()",
            lambda: start("a", function, backoff=Backoff),
        )

    in_a_map(method, test)


# Other arguments


class Pager(Instrument):
    def __repr__(self) -> str:
        return "Pager()"


@pytest.mark.parametrize(
    ("instruments", "message"),
    [
        (
            Pager(),
            "instruments must be a list of instruments, not Pager(): "
            "write instruments=[...], or instruments=() for none",
        ),
        (
            None,
            "instruments must be a list of instruments, not None: "
            "write instruments=[...], or instruments=() for none",
        ),
        ([Pager], f"an instrument must be an Instrument, not {Pager!r}: write Pager()"),
        ([int], "an instrument must be an Instrument, not <class 'int'>"),
    ],
)
def test_instruments_are_a_list_of_objects(instruments: Any, message: str) -> None:
    for make in (ThreadTaskMap, *OPENERS.values()):
        fails_with(TypeError, message, functools.partial(make, instruments=instruments))


def test_an_error_of_an_iterable_of_instruments_is_its_own() -> None:
    def no_instruments() -> Iterable[Instrument]:
        raise ValueError("none to be had")
        yield

    fails_with(ValueError, "none to be had", lambda: ThreadTaskMap(instruments=no_instruments()))


def test_a_pool_needs_an_adapter_on_trio() -> None:
    class Pool(concurrent.futures.Executor):
        def __repr__(self) -> str:
            return "Pool()"

    pool: Any = Pool()
    fails_with(
        TypeError,
        "executor must be an async callable such as trio.to_thread.run_sync, not Pool(): "
        "use namedtasks.executors.from_pool(pool)",
        lambda: namedtasks.open_task_map(executor=pool),
    )
    wrong: Any = 5
    fails_with(
        TypeError,
        "pool must be a concurrent.futures.Executor or a function that returns one, not 5 "
        "(Dask: client.get_executor(); loky: get_reusable_executor)",
        lambda: from_pool(wrong),
    )


def test_a_predicate_can_be_called() -> None:
    name: Any = "vol-1"
    fails_with(
        TypeError,
        "predicate must be callable, not 'vol-1'",
        lambda: ThreadTaskMap().cancel_matching(name),
    )


@pytest.mark.parametrize("method", ["result", "exception"])
def test_the_timeout_of_a_future_is_a_number(method: str) -> None:
    go = threading.Event()
    wrong: Any = "5"
    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", go.wait)
        wait: Any = getattr(future, method)
        fails_with(
            TypeError, "timeout must be a number or None, not '5'", lambda: wait(timeout=wrong)
        )
        with pytest.raises(TimeoutError):
            wait(timeout=-1)
        go.set()
        assert wait(timeout=None) in (True, None)
