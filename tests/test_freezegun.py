"""freezegun stops the time of a program, and not the clocks of our maps.

Programs of their own, so that a wait that hangs is ended by `run_child` and not by the
test's own frozen time.
"""

import ast
import pathlib

import pytest

import namedtasks
from tests.threads.helpers import run_child

BEGINNING = """
import asyncio
import time

import trio
import trio.testing
from freezegun import freeze_time

import namedtasks
import namedtasks.asyncio

BACKOFF = namedtasks.Backoff(initial=0.01)
FROZEN = "2020-01-01"


def fail():
    raise OSError("no answer")


async def fail_in_task():
    fail()


async def fail_and_wait(tasks, start):
    start("job", fail_in_task)
    await tasks.wait_idle()
    await tasks.wait_free("job")
    print("free")
"""
"""What each program begins with."""


def printed_by(program: str) -> list[str]:
    done = run_child(BEGINNING + program)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_thread_map_goes_on_while_time_is_frozen() -> None:
    assert printed_by("""
with freeze_time(FROZEN), namedtasks.ThreadTaskMap(backoff=BACKOFF, instruments=()) as tasks:
    tasks.submit("job", fail).exception()
    print(tasks.wait_free("job"))
    tasks.submit("job", fail).exception()
    print(tasks.submit("job", len, "abc", if_busy="queue").result())
    print(tasks.submit("slow", time.sleep, 0.1, timeout=0.001).exception(), tasks.wait_idle())
""") == ["True", "3", "None", "True"]


def test_a_wait_with_a_timeout_ends_while_time_is_frozen() -> None:
    assert printed_by("""
import threading
end = threading.Event()
with freeze_time(FROZEN), namedtasks.ThreadTaskMap() as tasks:
    tasks.submit("job", end.wait)
    print(tasks.wait_free("job", timeout=0.001), tasks.wait_idle(timeout=0.001))
    end.set()
""") == ["False", "False"]


def test_the_body_of_an_executors_check_ends_while_time_is_frozen(tmp_path: pathlib.Path) -> None:
    assert printed_by(f"""
from namedtasks.testing import _jobs

with freeze_time(FROZEN):
    try:
        _jobs.hold({str(tmp_path)!r}, "job", 0.001)
    except _jobs.NotLetGoError as error:
        print(error)
""") == ["job"]


@pytest.mark.parametrize(
    "opened",
    [
        "with freeze_time(FROZEN, real_asyncio=True):\n    asyncio.run(main())",
        "asyncio.run(main())",
    ],
)
def test_an_asyncio_map_goes_on_with_a_loop_that_is_not_frozen(opened: str) -> None:
    """Wherever the loop was made and the map was opened, inside or outside."""
    assert printed_by(f"""
async def main():
    async with namedtasks.asyncio.open_task_map(backoff=BACKOFF, instruments=()) as tasks:
        with freeze_time(FROZEN, real_asyncio=True):
            await fail_and_wait(tasks, tasks.create_task)

{opened}
""") == ["free"]


def test_a_map_on_uvloop_goes_on_while_time_is_frozen() -> None:
    """Its clock is its own."""
    pytest.importorskip("uvloop", reason="needs uvloop: pip install uvloop")
    assert printed_by("""
import uvloop

async def main():
    async with namedtasks.asyncio.open_task_map(backoff=BACKOFF, instruments=()) as tasks:
        await fail_and_wait(tasks, tasks.create_task)

with freeze_time(FROZEN), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
""") == ["free"]


def test_on_trio_virtual_time_goes_on_while_time_is_frozen() -> None:
    assert printed_by("""
async def main():
    async with namedtasks.open_task_map(backoff=BACKOFF, instruments=()) as tasks:
        await fail_and_wait(tasks, tasks.start_soon)

with freeze_time(FROZEN):
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
""") == ["free"]


def test_trio_ignored_by_freezegun_keeps_its_clock() -> None:
    """So does what its functions call directly; what is further down, or a date, is frozen."""
    assert printed_by("""
import datetime

def is_frozen(depth):
    return is_frozen(depth - 1) if depth else time.time() == 1577836800

async def look():
    print(is_frozen(0), is_frozen(5), datetime.datetime.now().year)

async def main():
    async with namedtasks.open_task_map(backoff=BACKOFF, instruments=()) as tasks:
        await fail_and_wait(tasks, tasks.start_soon)
        await tasks.start_soon("look", look).wait()

with freeze_time(FROZEN, ignore=["trio"]):
    trio.run(main)
""") == ["free", "False", "True", "2020"]


CLOCKS = {
    f"{clock}{unit}" for clock in ("time", "monotonic", "perf_counter") for unit in ("", "_ns")
}


def clocks_read_in_functions(source: str) -> list[int]:
    """The lines whose functions look up a clock when they are called."""
    tree = ast.parse(source)
    bodies = [
        statement
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in function.body
    ]
    return sorted(
        node.lineno
        for statement in bodies
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute)
        and node.attr in CLOCKS
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
    )


def test_no_function_of_ours_looks_up_a_clock_when_it_is_called() -> None:
    """freezegun would be found there: bind the clock to a class, or to a default."""
    found: dict[str, list[int]] = {}
    for path in pathlib.Path(namedtasks.__file__).parent.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert "from time import" not in source, path
        if lines := clocks_read_in_functions(source):
            found[path.name] = lines
    assert found == {}
    assert clocks_read_in_functions("import time\ndef f():\n    return time.monotonic()") == [3]
    assert clocks_read_in_functions("def f(now=time.monotonic):\n    return now()") == []
