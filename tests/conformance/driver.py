"""What the conformance suite asks of a shell: a small driver for each.

A behaviour is written once, as an async function that gets a `World`. The
driver runs it in its shell's own world, on virtual time. A dialect in which
nothing can be awaited runs it all the same: its driver's async methods just
come back without ever suspending.

A behaviour that a dialect cannot have is declared in `Driver.departures`, with
the reason, and the suite shows it as such.
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
    """A body that does what the test says, when the test says so.

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
        """What the body does first."""
        self.begun += 1
        self.attempts.append(current_run().attempts)

    def finish(self) -> Any:
        """What the body does at its end."""
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
    """A pool that does what it has when the test says so; its truth is False, as its length is."""

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
    """Somebody who waits in the background."""

    def __init__(self) -> None:
        self.returned = False
        self.error: BaseException | None = None


class Verbs(Protocol):
    """What is the same in every dialect, and does not wait."""

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
    """One open map, and the time that it lives in."""

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
        """Start *job* as the dialect starts things; gives its handle, or None if it skipped.

        A body that does not *heed* a cancellation goes on until it has its orders. Further
        *options* are passed to the start.
        """

    @abc.abstractmethod
    def start_callback(self, name: Hashable, fn: Callable[[], Any]) -> Any:
        """Start a body that just calls *fn*."""

    @abc.abstractmethod
    def start_waiting(self, name: Hashable, start: Callable[[], Any]) -> Any:
        """Start a body that calls *start*, and waits for the handle that this gives."""

    @abc.abstractmethod
    def start_elsewhere(self, name: Hashable, fn: Callable[[], Any], **options: Any) -> Any:
        """Start *fn* on an executor; gives its handle."""

    @abc.abstractmethod
    def wait_in_background(self, verb: str, *args: Any) -> Waiter:
        """Have somebody call one of the map's waits, by its name."""

    @abc.abstractmethod
    async def wait_inside(self, verb: str) -> BaseException | None:
        """Call one of the map's waits from inside a task; what it raised."""

    @abc.abstractmethod
    async def result(self, handle: Any) -> Any:
        """What a run gave back: its value, or raises what its body raised, bare."""

    @abc.abstractmethod
    async def was_cancelled(self, handle: Any) -> str | None:
        """The reason why a run was cancelled, as its handle tells it; it must have been."""

    @abc.abstractmethod
    async def error_of_dropped(self, handle: Any) -> TaskCancelledError:
        """The error of a handle whose retry was dropped while it waited."""

    @abc.abstractmethod
    def block_in_background(self, fill: Callable[[World], object], **settings: Any) -> Waiter:
        """Have somebody open another map, call *fill* with it, and leave its block."""

    @abc.abstractmethod
    async def settle(self) -> None:
        """Let everything happen that can happen without time going by."""

    @abc.abstractmethod
    async def advance(self, seconds: float) -> None:
        """Settle, let time go by, and settle again."""

    @abc.abstractmethod
    def now(self) -> float:
        """The time on the map's clock."""

    def attempt(self, name: Hashable, job: Job | None = None, **options: Any) -> Verdict:
        """Start, and tell in a word what came of it."""
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
        """Start *job*, which has its orders, and see it end."""
        self.start(name, job, **options)
        await self.settle()
        assert name not in self.tasks


class AsyncWorld(World):
    """A world whose bodies and waits are async functions."""

    @abc.abstractmethod
    def _start(self, name: Hashable, body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Start *body* as the dialect starts things; gives its handle."""

    @abc.abstractmethod
    def _spawn(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have *wait* called in the background."""

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
            async with self._open(instruments=(), **settings) as other:
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
    """How to run a behaviour in one shell."""

    name: str
    departures: dict[str, str]
    """Behaviours that the dialect cannot have, with the reason."""
    remarks: dict[str, str]
    """Behaviours that it has under a condition, with the condition."""

    def executor(self, pool: FalsyPool) -> Any:
        """What the dialect calls an executor, made of *pool*, and as falsy."""
        return pool

    @abc.abstractmethod
    def open(self, **settings: Any) -> AbstractAsyncContextManager[World]:
        """Open a map."""

    @abc.abstractmethod
    def run(self, behaviour: Callable[[Driver], Awaitable[None]]) -> None:
        """Run a behaviour to its end."""
