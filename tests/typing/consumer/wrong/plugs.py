"""What does not fit where it is plugged in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import namedtasks
import namedtasks.asyncio
from namedtasks.abc import BackoffPolicy, Clock, FailedRun, Instrument
from namedtasks.executors import from_pool
from namedtasks.instruments import TaskFailed, TaskSucceeded


class Impatient:
    def delay(self, failures: int) -> float:
        return 1.0


class Wordy:
    def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> str:
        return "soon"


class Deaf(Instrument):
    def task_failed(self, event: TaskSucceeded, /) -> None: ...  # wrong


class Late(Instrument):
    async def task_failed(self, event: TaskFailed, /) -> None: ...  # wrong


class Sundial:
    def now(self) -> str:
        return "noon"


def not_async(fn: Callable[..., Any], *args: object) -> int:
    return 0


def given(event: TaskFailed, failure: namedtasks.Failure) -> None:
    policy: BackoffPolicy = Impatient()  # wrong
    wordy: BackoffPolicy = Wordy()  # wrong
    clock: Clock = Sundial()  # wrong
    event.failures = 0  # wrong
    failure.retry_at = 1.0  # wrong
    print(event.reason)  # wrong
    namedtasks.open_task_map(instruments=[Tally()])  # wrong
    namedtasks.open_task_map(instruments=[Deaf])  # wrong
    namedtasks.open_task_map(executor=not_async)  # wrong
    namedtasks.open_task_map(backoff=5)  # wrong
    namedtasks.open_task_map(namedtasks.Backoff())  # wrong
    namedtasks.open_task_map(clock=clock)  # wrong
    namedtasks.asyncio.open_task_map(workers=False)  # wrong
    namedtasks.asyncio.open_task_map(executor=not_async)  # wrong
    namedtasks.ThreadTaskMap(executor=not_async)  # wrong
    namedtasks.ThreadTaskMap(limit="5")  # wrong
    namedtasks.Backoff(2.0)  # wrong
    namedtasks.Backoff(first=2.0)  # wrong
    namedtasks.LoggingInstrument("a name")  # wrong
    namedtasks.LoggingInstrument(traceback=True)  # wrong
    from_pool("threads")  # wrong
    print(policy, wordy)


class Tally:
    """No instrument: `Instrument` is a base class."""

    def task_failed(self, event: TaskFailed, /) -> None: ...


class Subclass(namedtasks.TaskMap): ...  # wrong
