"""The map's own threads have an empty context, also where threads inherit one.

From Python 3.14 on a thread inherits the context of the thread that starts it:
by default on free-threaded builds, and elsewhere with an option.
"""

from __future__ import annotations

import sys

import pytest

from tests.threads.helpers import run_child

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 14),
    reason="threads inherit a context from Python 3.14 on: run the tests on it",
)

PRELUDE = """
import contextvars
import gc
import threading
import warnings
import weakref

import namedtasks.asyncio
from namedtasks import Backoff, ThreadTaskMap
from namedtasks.abc import Instrument
from namedtasks.testing import ManualClock

who = contextvars.ContextVar("who", default="nobody")


class Token:
    pass


def as_first(fn, *args):
    def call():
        who.set("the first")
        return fn(*args)

    return contextvars.copy_context().run(call)


def names_of_threads():
    return {thread.name for thread in threading.enumerate()}
"""


def outcome_of(program: str) -> str:
    """Return what *program* prints where threads inherit contexts and warning filters."""
    options = ("-X", "thread_inherit_context=1", "-X", "context_aware_warnings=1")
    child = run_child(PRELUDE + program, *options)
    assert (child.returncode, child.stderr) == (0, "")
    return child.stdout


def test_threads_inherit_here() -> None:
    """A thread inherits its context here: without that the other tests would show nothing."""
    program = """
def look():
    print(who.get())

thread = threading.Thread(target=look)
as_first(thread.start)
thread.join()
"""
    assert outcome_of(program) == "the first\n"


def test_callbacks_do_not_see_the_variables_of_an_earlier_caller() -> None:
    program = """
may_end = threading.Event()
with ThreadTaskMap() as tasks:
    as_first(tasks.submit, "first", int).result()
    as_first(tasks.submit, "also first", may_end.wait)
    second = tasks.submit("second", may_end.wait)
    second.add_done_callback(lambda _: print(who.get()))
    may_end.set()
"""
    assert outcome_of(program) == "nobody\n"


def test_the_body_sees_the_variables_of_its_own_caller() -> None:
    program = """
with ThreadTaskMap() as tasks:
    assert as_first(tasks.submit, "a", who.get).result() == "the first"
    print(tasks.submit("b", who.get).result())
"""
    assert outcome_of(program) == "nobody\n"


def test_instruments_that_the_timer_calls_do_not_see_the_variables_of_an_earlier_caller() -> None:
    """The timer reports overdue runs, and starts runs that had to wait."""
    program = """
begun, may_end = threading.Event(), threading.Event()
heard = {}

def stay():
    begun.set()
    may_end.wait()

class Heard(Instrument):
    def task_started(self, event):
        heard["the last start"] = who.get()

    def task_overdue(self, event):
        heard["overdue"] = who.get()
        may_end.set()

def fail_and_queue():
    tasks.submit("queued", int, "no number").exception()
    return tasks.submit("queued", int, if_busy="queue")

clock = ManualClock()
how = {"clock": clock, "backoff": Backoff(initial=100), "overdue_after": 1}
with ThreadTaskMap(instruments=[Heard()], **how) as tasks:
    queued = as_first(fail_and_queue)
    overdue = tasks.submit("overdue", stay)
    begun.wait()
    tasks.cancel("overdue")
    clock.advance(1)
    overdue.result()
    clock.advance(100)
    queued.result()
print(heard["overdue"], heard["the last start"])
"""
    assert outcome_of(program) == "nobody nobody\n"


def test_nothing_of_an_earlier_caller_stays_alive() -> None:
    """Not even while the threads that it made start go on."""
    program = """
def fail_and_queue(name):
    tasks.submit(name, int, "no number").exception()
    return tasks.submit(name, int, if_busy="queue")

def be_first():
    token = Token()
    who.set(token)
    fail_and_queue("first").cancel()
    return weakref.ref(token)

with ThreadTaskMap(backoff=Backoff(initial=1000), instruments=()) as tasks:
    kept = contextvars.copy_context().run(be_first)
    fail_and_queue("second")
    gc.collect()
    print(sorted(names_of_threads()))
    print(kept())
"""
    threads = ["MainThread", "namedtasks", "namedtasks: the map's timer"]
    assert outcome_of(program) == f"{threads}\nNone\n"


def test_nothing_of_an_earlier_caller_stays_alive_on_asyncio() -> None:
    program = """
import asyncio

async def be_first(tasks):
    token = Token()
    who.set(token)
    await tasks.run_in_executor("first", int)
    return weakref.ref(token)

async def main():
    async with namedtasks.asyncio.open_task_map() as tasks:
        kept = await asyncio.create_task(be_first(tasks))
        await asyncio.sleep(0)  # the loop lets the task go
        gc.collect()
        print(sorted(names_of_threads()))
        print(kept())

asyncio.run(main())
"""
    assert outcome_of(program) == "['MainThread', 'namedtasks']\nNone\n"


def test_a_callback_may_warn_whatever_filters_an_earlier_caller_had() -> None:
    program = """
def warn(_):
    try:
        warnings.warn("the callback's", stacklevel=1)
    except UserWarning:
        print("raised")
    else:
        print("ignored")

warnings.simplefilter("ignore")
may_end = threading.Event()
with ThreadTaskMap() as tasks:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tasks.submit("first", int).result()
        tasks.submit("also first", may_end.wait)
    second = tasks.submit("second", may_end.wait)
    second.add_done_callback(warn)
    may_end.set()
"""
    assert outcome_of(program) == "ignored\n"


def test_the_thread_that_waits_for_a_broken_pool_has_an_empty_context() -> None:
    program = """
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
with ThreadTaskMap(executor=pool, instruments=()) as tasks:
    future = as_first(tasks.submit, "a", os._exit, 1)
    future.add_done_callback(lambda _: print(who.get()))
"""
    assert outcome_of(program) == "nobody\n"
