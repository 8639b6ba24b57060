"""In a forked child the runs are gone, and the map is closed.

Each program forks, and its child says what a call did. What would sleep for ever ends the
child instead, with an exit code of its own.
"""

from __future__ import annotations

import os

import pytest

from tests.threads.helpers import run_child

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")]

BEGINNING = """
import asyncio
import contextlib
import os
import signal
import threading
import time
import warnings

import trio

import namedtasks
import namedtasks.asyncio

warnings.simplefilter("ignore", DeprecationWarning)  # threads, and a fork
PARENT = os.getpid()
SLEPT = 3
LOOKS = {
    "len": len,
    "in": lambda tasks: "runs" in tasks,
    "state": lambda tasks: tasks.state("runs").name,
    "statistics": lambda tasks: tasks.statistics().running,
}


class Clock:
    def now(self):
        return time.monotonic()

    def wait(self, wake, until):
        if os.getpid() != PARENT:
            os._exit(SLEPT)
        wake.acquire(timeout=0.01)


def said(call, *args):
    try:
        return repr(call(*args))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def in_child(call, *args):
    # What the child has said of the call, or its exit code.
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(60)  # whatever hangs
        os.write(writes, said(call, *args).encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as answer:
        text = answer.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return text if code == 0 else f"exit code {code}"


end = threading.Event()


@contextlib.contextmanager
def threads():
    # A map with an idle thread, and a run.
    with namedtasks.ThreadTaskMap(clock=Clock(), instruments=()) as tasks:
        tasks.submit("ended", len, "abc").result()
        future = tasks.submit("runs", end.wait)
        try:
            yield tasks, future
        finally:
            end.set()
"""


def said_by(program: str) -> list[str]:
    done = run_child(BEGINNING + program)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def is_closed(text: str) -> bool:
    return text.startswith("ClosedError: ") and text.endswith(
        "the map was opened in the parent process; open a new one"
    )


@pytest.mark.parametrize(
    "call",
    [
        "tasks.submit('new', len, 'abc')",
        "tasks.submit('new', len, 'abc', if_busy='queue')",
        "tasks.wait_idle(timeout=0)",
        "tasks.wait_empty(timeout=0)",
        "tasks.wait_free('new', timeout=0)",
        "future.result(timeout=0)",
        "future.exception(timeout=0)",
    ],
)
def test_starts_and_waits_of_a_thread_map_are_refused(call: str) -> None:
    (answer,) = said_by(f"""
with threads() as (tasks, future):
    print(in_child(lambda: {call}))
""")
    assert is_closed(answer), answer


def test_looks_show_an_empty_thread_map() -> None:
    assert said_by("""
with threads() as (tasks, future):
    for look in LOOKS.values():
        print(in_child(look, tasks))
""") == ["0", "False", "'FREE'", "0"]


def test_cancelling_does_nothing() -> None:
    assert said_by("""
with threads() as (tasks, future):
    for call in (lambda: tasks.cancel("runs"), tasks.cancel_all, tasks.close):
        print(in_child(call))
""") == ["False", "0", "None"]


def test_leaving_the_block_of_a_thread_map_does_nothing() -> None:
    assert said_by("""
with threads() as (tasks, future):
    print(in_child(tasks.__exit__, None, None, None))
""") == ["None"]


def test_starts_of_a_trio_map_are_refused_and_looks_show_an_empty_one() -> None:
    first, *looks = said_by("""
async def main():
    async with namedtasks.open_task_map(instruments=()) as tasks:
        tasks.start_soon("runs", trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        print(in_child(tasks.start_soon, "new", trio.sleep, 0))
        for look in LOOKS.values():
            print(in_child(look, tasks))
        tasks.cancel_all()

import trio.testing
trio.run(main)
""")
    assert is_closed(first), first
    assert looks == ["0", "False", "'FREE'", "0"]


def test_starts_of_an_asyncio_map_are_refused_and_looks_show_an_empty_one() -> None:
    first, *looks = said_by("""
async def main():
    async with namedtasks.asyncio.open_task_map(instruments=()) as tasks:
        tasks.create_task("runs", asyncio.sleep, 3600)
        await asyncio.sleep(0)
        print(in_child(tasks.run_in_executor, "new", len, "abc"))
        for look in LOOKS.values():
            print(in_child(look, tasks))
        tasks.cancel_all()

asyncio.run(main())
""")
    assert is_closed(first), first
    assert looks == ["0", "False", "'FREE'", "0"]
