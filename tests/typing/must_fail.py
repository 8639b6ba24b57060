"""Calls that type checkers must refuse.

Each has its ignore with its code; one that is accepted makes the ignore
unused, and that is an error. Checked by mypy and pyright, both strict; never run.
"""

from __future__ import annotations

import asyncio

import namedtasks.asyncio
from namedtasks import ANY, Backoff, IfBusy, TaskFuture, TaskHandle, TaskMap, ThreadTaskMap
from namedtasks.abc import FailedRun
from namedtasks.executors import from_pool
from namedtasks.instruments import Instrument, TaskFailed


async def fetch(url: str) -> bytes:
    raise NotImplementedError(url)


def compute(number: int) -> float:
    return number / 2


class NoPolicy:
    def wait(self) -> float:
        return 1.0


class WrongPolicy:
    def delay(self, failures: str, error: BaseException, run: FailedRun, /) -> float:
        return 1.0


class WrongInstrument(Instrument):
    def task_failed(self, event: int, /) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]


def starts(tasks: TaskMap) -> None:
    tasks.start_soon("a", fetch, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tasks.start_soon("a", fetch)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportArgumentType]
    tasks.start_soon("a", compute, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tasks.start_soon("a", fetch("x"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    tasks.start_soon(["a"], fetch, "x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    tasks.start_soon("a", fetch, "x", if_busy="wait")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    tasks.start_soon("a", fetch, "x", timeout="1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    tasks.start_soon(name="a", async_fn=fetch)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    tasks.start_soon("a", fetch, url="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    tasks.start_soon(fetch)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    tasks.post("a", fetch, url="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tasks.post("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    tasks.start_thread_soon("a", compute, number=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    tasks.start_thread_soon("a", compute, "5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tasks.start_thread_soon("a", compute, 5, executor=compute)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    skipped: TaskHandle[bytes] = tasks.start_soon("a", fetch, "x", if_busy="skip")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    wrong: TaskHandle[str] = tasks.start_soon("a", fetch, "x")  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    print(skipped, wrong)


def wrong_places() -> None:
    """What has an error of its own at run time as well."""
    namedtasks.TaskMap()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    namedtasks.TaskMap(limit=3)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    namedtasks.TaskHandle()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    namedtasks.TaskFuture()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    namedtasks.CurrentRun()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    namedtasks.Observation()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    namedtasks.asyncio.TaskMap()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    namedtasks.open_task_map().start_soon("a", fetch, "x")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with namedtasks.open_task_map():  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    namedtasks.open_taskmap()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    namedtasks.trio.open_task_map()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def pools() -> None:
    from_pool(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    from_pool(lambda: 5)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    from_pool(compute)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def busy_names(tasks: TaskMap, in_threads: ThreadTaskMap, said: IfBusy) -> None:
    handle: TaskHandle[bytes] = tasks.start_soon("a", fetch, "x", if_busy=said)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    thread: TaskHandle[float] = tasks.start_thread_soon("a", compute, 5, if_busy=said)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    future: TaskFuture[float] = in_threads.submit("a", compute, 5, if_busy="skip")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    joined: TaskHandle[str] = tasks.start_soon("a", fetch, "x", if_busy="join")  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
    tasks.start_soon("a", fetch, "x", if_busy=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    tasks.start_thread_soon("a", compute, 5, if_busy="wait")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    in_threads.submit("a", compute, 5, if_busy="wait")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    tasks.start_soon({"a", ANY}, fetch, "x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    print(handle, thread, future, joined)


def futures(tasks: ThreadTaskMap, said: IfBusy) -> None:
    tasks.submit("a", compute, "5", if_busy="join")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    tasks.submit("a", compute, if_busy="queue")  # type: ignore[call-arg, call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    tasks.submit("a", compute, 5, if_busy=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    tasks.submit("a", compute, 5, "replace", if_busy="replace")  # type: ignore[call-arg, call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    tasks.submit(["a", ANY], compute, 5, if_busy="replace")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    perhaps: TaskFuture[float] = tasks.submit("a", compute, 5, if_busy=said)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    joined: TaskFuture[str] = tasks.submit("a", compute, 5, if_busy="join")  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
    print(perhaps, joined)


def settings() -> None:
    Backoff(1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Backoff(initial=1.0).initial = 2.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    namedtasks.open_task_map(backoff=NoPolicy())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    namedtasks.open_task_map(backoff=WrongPolicy())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    namedtasks.LoggingInstrument(traceback=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    namedtasks.LoggingInstrument(traceback="all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    namedtasks.LoggingInstrument(level=2.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    namedtasks.open_task_map(limit="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    namedtasks.open_task_map(instruments=[print])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def mappings(tasks: TaskMap, handle: TaskHandle[int]) -> None:
    tasks["a"] = handle  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    del tasks["a"]  # type: ignore[attr-defined]  # pyright: ignore[reportIndexIssue]
    handle.done = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def failed(event: TaskFailed) -> None:
    event.failures = 0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def on_asyncio(tasks: namedtasks.asyncio.TaskMap, said: IfBusy) -> None:
    tasks.create_task("a", fetch, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tasks.create_task("a", compute, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tasks.create_task("a", fetch("x"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    tasks.create_task("a", fetch, "x", if_busy="wait")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    tasks.run_in_executor("a", compute, "5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tasks.run_in_executor("a", compute, 5, executor=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    skipped: asyncio.Task[bytes] = tasks.create_task("a", fetch, "x", if_busy="skip")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    wrong: asyncio.Task[str] = tasks.create_task("a", fetch, "x")  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    joined: asyncio.Task[bytes] = tasks.create_task("a", fetch, "x", if_busy="join")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    said_so: asyncio.Task[bytes] = tasks.create_task("a", fetch, "x", if_busy=said)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    in_pool: asyncio.Task[float] = tasks.run_in_executor("a", compute, 5, if_busy="join")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    maybe: asyncio.Future[float] = tasks.run_in_executor("a", compute, 5, if_busy=said)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    of_text: asyncio.Future[str] = tasks.create_task("a", fetch, "x", if_busy="join")  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
    tasks.create_task("a", fetch, "x", if_busy=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    tasks.run_in_executor("a", compute, 5, if_busy="wait")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    tasks.post("a", fetch, "x", if_busy="wait")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tasks.create_task({"a", ANY}, fetch, "x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    namedtasks.asyncio.open_task_map(executor=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(skipped, wrong, joined, said_so, in_pool, maybe, of_text)
