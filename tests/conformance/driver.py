"""The interface between the conformance suite and a dialect: a small driver for each.

A behaviour is written once, as an async function that gets a `World`. The driver runs it in its
dialect, in virtual time. In a dialect without ``await``, the driver's async methods return without
suspending.

`Driver.departures` declares the behaviours that a dialect cannot have, with the reasons, and the
suite shows them as such.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, final

from namedtasks import (
    AlreadyRunningError,
    BackoffError,
    ClosedError,
    Failure,
    GaveUpError,
    IfBusy,
    NamedTasksError,
    Observation,
    Outcome,
    PendingRun,
    RefusedError,
    StaleLookError,
    State,
    TaskCancelledError,
    TaskMapStatistics,
    current_run,
)

Verdict = Literal["accepted", "busy", "backing off", "gave up", "closed", "stale"]


@final
class Job:
    """A body that the test controls.

    A driver's body calls `begin`, waits for `ordered` to be set by its own
    means, and then `finish`.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.attempts: list[int] = []
        """The number of attempts, as each body sees it."""
        self.order: tuple[str, Any] | None = None
        self.further: list[tuple[str, Any] | None] = []
        """The orders for the attempts after this one."""
        self.wake: Callable[[], None] | None = None

    def succeed(self, value: Any = None) -> Job:
        """Let the body return *value*, now or as soon as it begins."""
        return self._order("return", value)

    def fail(self, error: BaseException | None = None) -> Job:
        """Let the body raise *error*, now or as soon as it begins."""
        return self._order("raise", error or ValueError("boom"))

    def each(self, *ends: Any) -> Job:
        """Give each attempt its order: an error to raise, None to block, or a value to return."""
        orders = [
            None if end is None else ("raise" if isinstance(end, BaseException) else "return", end)
            for end in ends
        ]
        self.order, self.further = orders[0], orders[1:]
        return self

    def again(self) -> Job:
        """Block the next run too."""
        self.order = None
        return self

    def _order(self, verb: str, what: Any) -> Job:
        self.order = (verb, what)
        if self.wake is not None:
            self.wake()
        return self

    def begin(self) -> None:
        """Begin the body."""
        self.begun += 1
        self.attempts.append(current_run().attempts)

    def finish(self) -> Any:
        """End the body, as ordered."""
        assert self.order is not None
        self.ended += 1
        verb, what = self.order
        if self.further:
            self.order = self.further.pop(0)
        if verb == "raise":
            raise what
        return what


@final
class FalsyPool(Executor):
    """A pool that does its jobs when the test says so; it is falsy, because its length is 0."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Future[Any], Callable[[], Any]]] = []

    def __len__(self) -> int:
        return 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.jobs.append((future, lambda: fn(*args, **kwargs)))
        return future

    def work(self) -> None:
        """Do all jobs."""
        jobs, self.jobs = self.jobs, []
        for future, job in jobs:
            try:
                value = job()
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(value)


@final
class Waiter:
    """A wait in the background."""

    def __init__(self) -> None:
        self.returned = False
        self.error: BaseException | None = None


class Verbs(Protocol):
    """The methods that are the same in every dialect, and do not wait."""

    def check(
        self, name: Hashable, *, operation: str | None = None, since: Observation | None = None
    ) -> RefusedError | None: ...
    def observe(self) -> Observation: ...
    def failures(self, *, state: State | None = None) -> Iterator[Failure]: ...
    def pending(self) -> list[PendingRun]: ...
    def next_retry_at(self) -> float | None: ...
    def outcomes(self) -> list[Outcome]: ...
    def cancel(self, name: Hashable, *, reason: str | None = None) -> bool: ...
    def cancel_all(self) -> int: ...
    def forget(self, name: Hashable, *, operation: str | None = None) -> bool: ...
    def failure(self, name: Hashable, *, operation: str | None = None) -> Failure | None: ...
    def state(self, name: Hashable, *, operation: str | None = None) -> State: ...
    def statistics(self) -> TaskMapStatistics: ...
    def close(self) -> None: ...
    def __iter__(self) -> Iterator[Hashable]: ...
    def __len__(self) -> int: ...
    def __contains__(self, name: object, /) -> bool: ...


class World(abc.ABC):
    """One open map, and its clock."""

    tasks: Verbs

    @abc.abstractmethod
    def start(
        self,
        name: Hashable,
        job: Job,
        *,
        if_busy: IfBusy = "refuse",
        operation: str | None = None,
        timeout: float | None = None,
        heeds: bool = True,
        **options: Any,
    ) -> Any:
        """Start *job* as the dialect does; return its handle, or None if it skipped.

        A body that does not *heed* a cancellation runs until it has its orders. Further
        *options* are passed to the start.
        """

    @abc.abstractmethod
    def start_callback(self, name: Hashable, fn: Callable[[], Any]) -> Any:
        """Start a body that calls *fn*."""

    @abc.abstractmethod
    def start_waiting(self, name: Hashable, start: Callable[[], Any]) -> Any:
        """Start a body that calls *start*, and waits for the handle that it returns."""

    @abc.abstractmethod
    def start_elsewhere(self, name: Hashable, fn: Callable[[], Any], **options: Any) -> Any:
        """Start *fn* on an executor; return its handle."""

    @abc.abstractmethod
    def wait_in_background(self, verb: str, *args: Any) -> Waiter:
        """Call one of the map's waits in the background, by its name."""

    @abc.abstractmethod
    async def wait_inside(self, verb: str) -> BaseException | None:
        """Call one of the map's waits inside a task; return the error that it raised."""

    @abc.abstractmethod
    async def result(self, handle: Any) -> Any:
        """Return the value of a run, or raise the error of its body itself."""

    @abc.abstractmethod
    async def was_cancelled(self, handle: Any) -> str | None:
        """Return the reason of a cancelled run, from its handle."""

    @abc.abstractmethod
    async def error_of_dropped(self, handle: Any) -> TaskCancelledError:
        """Return the error of a handle whose retry was dropped while it waited."""

    @abc.abstractmethod
    def block_in_background(self, fill: Callable[[World], object], **settings: Any) -> Waiter:
        """Open another map in the background, call *fill* with it, and leave its block."""

    @abc.abstractmethod
    async def settle(self) -> None:
        """Let everything happen that can happen without the passing of time."""

    @abc.abstractmethod
    async def advance(self, seconds: float) -> None:
        """Settle, let time pass, and settle again."""

    @abc.abstractmethod
    def now(self) -> float:
        """Return the time on the map's clock."""

    def attempt(self, name: Hashable, job: Job | None = None, **options: Any) -> Verdict:
        """Start, and return the outcome in a word."""
        try:
            self.start(name, job or Job().succeed(), **options)
        except AlreadyRunningError:
            return "busy"
        except BackoffError:
            return "backing off"
        except GaveUpError:
            return "gave up"
        except ClosedError:
            return "closed"
        except StaleLookError:
            return "stale"
        return "accepted"

    async def run(self, name: Hashable, job: Job, **options: Any) -> None:
        """Start *job*, which has its orders, and wait for its end."""
        self.start(name, job, **options)
        await self.settle()
        assert name not in self.tasks


class AsyncWorld(World):
    """A world whose bodies and waits are async functions."""

    @abc.abstractmethod
    def _start(self, name: Hashable, body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Start *body* as the dialect does; return its handle."""

    @abc.abstractmethod
    def _spawn(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Call *wait* in the background."""

    def start_callback(self, name: Hashable, fn: Callable[[], Any]) -> Any:
        async def body() -> Any:
            return fn()

        return self._start(name, body)

    def start_waiting(self, name: Hashable, start: Callable[[], Any]) -> Any:
        async def body() -> Any:
            return await self.result(start())

        return self._start(name, body)

    def wait_in_background(self, verb: str, *args: Any) -> Waiter:
        waiter = Waiter()

        async def wait() -> None:
            try:
                await getattr(self.tasks, verb)(*args)
                waiter.returned = True
            except NamedTasksError as error:
                waiter.error = error

        self._spawn(wait)
        return waiter

    @abc.abstractmethod
    def _open(self, **settings: Any) -> AbstractAsyncContextManager[World]:
        """Open another map."""

    def block_in_background(self, fill: Callable[[World], object], **settings: Any) -> Waiter:
        waiter = Waiter()

        async def block() -> None:
            async with self._open(**{"instruments": (), **settings}) as other:
                fill(other)
            waiter.returned = True

        self._spawn(block)
        return waiter

    async def wait_inside(self, verb: str) -> BaseException | None:
        raised: list[BaseException | None] = []

        async def body() -> None:
            try:
                await getattr(self.tasks, verb)()
            except RuntimeError as error:
                raised.append(error)

        self._start("waits inside", body)
        await self.settle()
        return raised[0] if raised else None


class Driver(abc.ABC):
    """Runs behaviours in one dialect."""

    name: str
    departures: dict[str, str]
    """Behaviours that the dialect cannot have, with the reason."""
    remarks: dict[str, str]
    """Behaviours that it has under a condition, with the condition."""

    def executor(self, pool: FalsyPool) -> Any:
        """Return a falsy executor of the dialect, made of *pool*."""
        return pool

    @abc.abstractmethod
    def open(self, **settings: Any) -> AbstractAsyncContextManager[World]:
        """Open a map."""

    @abc.abstractmethod
    def run(self, behaviour: Callable[[Driver], Awaitable[None]]) -> None:
        """Run a behaviour to its end."""
