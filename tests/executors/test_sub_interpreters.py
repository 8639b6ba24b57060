"""Sub-interpreters allow no daemon threads, and the error says what to do instead."""

import asyncio
import importlib.util
import sys
import threading
from typing import Any

import pytest
import trio

import namedtasks
import namedtasks.asyncio
from tests.threads.helpers import run_child

CURE = (
    "the threads of a task map are daemon threads, which are disabled in this sub-interpreter: "
    "use the map in the main interpreter, or pass a concurrent.futures.ThreadPoolExecutor as its "
    "executor (on trio by namedtasks.executors.from_pool)"
)

really_make = threading.Thread


def no_daemons(*args: Any, daemon: bool | None = None, **options: Any) -> threading.Thread:
    """Raise what `threading.Thread` raises in a sub-interpreter."""
    if daemon:
        raise RuntimeError("daemon threads are disabled in this (sub)interpreter")
    return really_make(*args, daemon=daemon, **options)


def fail() -> None:
    raise RuntimeError("the function's own")


async def on_trio() -> BaseException | None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        try:
            # It fails in any case: trio may have a thread left from before.
            await tasks.start_thread_soon("job", fail).wait()
        except namedtasks.TaskFailedError as failure:
            return failure.__cause__
    return None


async def on_asyncio() -> BaseException | None:
    async with namedtasks.asyncio.open_task_map(instruments=()) as tasks:
        try:
            await tasks.run_in_executor("job", fail)
        except RuntimeError as error:
            return error
    return None


def on_threads() -> BaseException | None:
    with namedtasks.ThreadTaskMap(instruments=()) as tasks:
        try:
            return tasks.submit("job", fail).exception()
        except RuntimeError as error:
            assert "job" not in tasks
            return error


DIALECTS = [lambda: trio.run(on_trio), lambda: asyncio.run(on_asyncio()), on_threads]
ids = ["trio", "asyncio", "threads"]


@pytest.mark.parametrize("error_of_a_run", DIALECTS, ids=ids)
def test_where_daemon_threads_are_disabled_the_error_tells_the_cure(
    error_of_a_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "Thread", no_daemons)
    error = error_of_a_run()
    assert type(error) is RuntimeError
    assert str(error) == CURE


@pytest.mark.parametrize("error_of_a_run", DIALECTS, ids=ids)
def test_elsewhere_an_error_of_the_function_is_left_alone(error_of_a_run: Any) -> None:
    assert str(error_of_a_run()) == "the function's own"


INSIDE = """
import asyncio
from concurrent.futures import ThreadPoolExecutor

import trio

import namedtasks
import namedtasks.asyncio
from namedtasks.executors import from_pool
from tests.executors.test_sub_interpreters import CURE, on_asyncio, on_threads, on_trio

for error in (trio.run(on_trio), asyncio.run(on_asyncio()), on_threads()):
    print(str(error) == CURE)


async def in_pool_on_trio(pool):
    async with namedtasks.open_task_map(executor=from_pool(pool)) as tasks:
        return await tasks.start_thread_soon("job", len, "abc").wait()


async def in_pool_on_asyncio(pool):
    async with namedtasks.asyncio.open_task_map() as tasks:
        return await tasks.run_in_executor("job", len, "abc", executor=pool)


with ThreadPoolExecutor(1) as pool:
    print(trio.run(in_pool_on_trio, pool))
    print(asyncio.run(in_pool_on_asyncio(pool)))
    with namedtasks.ThreadTaskMap(executor=pool) as tasks:
        print(tasks.submit("job", len, "abc").result())
"""


@pytest.mark.skipif(
    importlib.util.find_spec("_interpreters") is None,
    reason="before Python 3.13 a sub-interpreter cannot import trio, which needs ctypes",
)
def test_in_a_real_sub_interpreter_a_thread_pool_is_the_cure() -> None:
    done = run_child(f"""
import _interpreters

path = {[entry for entry in sys.path if entry]!r}
interpreter = _interpreters.create()
error = _interpreters.run_string(interpreter, "import sys; sys.path = " + repr(path))
error = error or _interpreters.run_string(interpreter, {INSIDE!r})
_interpreters.destroy(interpreter)
assert error is None, error.errdisplay
""")
    assert (done.stdout.split(), done.stderr) == (["True"] * 3 + ["3"] * 3, "")
