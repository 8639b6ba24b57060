"""Runs the conformance suite in threads, in virtual time.

The order is deterministic: `Activity` counts the threads that can continue. The count goes down
when a thread goes to sleep, and up in the same step that wakes it. At zero, everything has
happened that can happen.

The bodies here can be stopped: each time the test waits for all activity to end, they check
whether they should stop. A thread that does not check cannot be stopped.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any, cast, final

import pytest

import namedtasks
from namedtasks import IfBusy, current_run
from namedtasks._thread_pool import ThreadPool, make_daemon
from namedtasks._threads import backend as backend_module
from namedtasks._threads.backend import WaitQueue
from tests.conformance.driver import Driver, Job, Waiter, World

HANG = 60.0
"""Seconds after which a test that does not come to rest is told to have hung."""


@final
class Activity:
    """How many threads can go on, and the clock that the others sleep by."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._can_go_on = 0
        self._asleep: dict[threading.Lock, float | None] = {}
        """Until when; None for a body that waits for its orders."""
        self._now = 0.0

    # As a clock

    def now(self) -> float:
        return self._now

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        self._sleep(wake, until)

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds
            self._wake(
                [
                    one
                    for one, until in self._asleep.items()
                    if until is not None and until <= self._now
                ]
            )

    # As a count

    def counted(self, job: Callable[[], object]) -> Callable[[], None]:
        """A *job* that counts from now until it is done, in whatever thread."""
        with self._lock:
            self._can_go_on += 1

        def run() -> None:
            try:
                job()
            finally:
                self._stops()

        return run

    def wait_for_orders(self) -> None:
        """Sleep until the next look."""
        lock = threading.Lock()
        lock.acquire()
        self._sleep(lock, None)

    def wake(self, lock: threading.Lock) -> None:
        with self._lock:
            self._wake([lock])

    def settle(self) -> None:
        """Let all bodies look whether there is something to do, and wait until none can go on."""
        with self._lock:
            self._wake([one for one, until in self._asleep.items() if until is None])
            assert self._lock.wait_for(lambda: not self._can_go_on, HANG), "something hangs"

    def _sleep(self, lock: threading.Lock, until: float | None) -> None:
        with self._lock:
            is_asleep = lock.locked() and (until is None or until > self._now)
            if is_asleep:
                self._asleep[lock] = until
        if is_asleep:
            self._stops()
            lock.acquire()
        else:
            lock.acquire(blocking=False)

    def _stops(self) -> None:
        with self._lock:
            self._can_go_on -= 1
            self._lock.notify_all()

    def _wake(self, locks: list[threading.Lock]) -> None:
        for lock in locks:
            if lock in self._asleep:
                del self._asleep[lock]
                self._can_go_on += 1
            if lock.locked():
                lock.release()


@final
class ThreadWorld(World):
    """A thread map on a clock that only moves when told to."""

    def __init__(self, tasks: namedtasks.ThreadTaskMap, activity: Activity) -> None:
        self.tasks = tasks
        self._map = tasks
        self._activity = activity

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
        def body() -> Any:
            job.begin()
            while job.order is None:
                self._activity.wait_for_orders()
                if heeds:
                    current_run().check_cancelled()
            return job.finish()

        return cast("Any", self._map).submit(
            name, body, if_busy=if_busy, operation=operation, timeout=timeout, **options
        )

    def start_callback(self, name: Hashable, fn: Callable[[], Any]) -> Any:
        return self._map.submit(name, fn)

    def start_waiting(self, name: Hashable, start: Callable[[], Any]) -> Any:
        return self._map.submit(name, lambda: start().result())

    def start_elsewhere(self, name: Hashable, fn: Callable[[], Any], **options: Any) -> Any:
        return self._map.submit(name, fn, **options)

    def wait_in_background(self, verb: str, *args: Any) -> Waiter:
        waiter = Waiter()

        def wait() -> None:
            try:
                getattr(self.tasks, verb)(*args)
                waiter.returned = True
            except namedtasks.NamedTasksError as error:
                waiter.error = error

        threading.Thread(target=self._activity.counted(wait), daemon=True).start()
        return waiter

    async def wait_inside(self, verb: str) -> BaseException | None:
        future = self._map.submit("waits inside", getattr(self.tasks, verb))
        await self.settle()
        error = future.exception(timeout=0)
        self._map.forget("waits inside")
        return error

    async def result(self, handle: Any) -> Any:
        await self.settle()
        return handle.result(timeout=0)

    async def was_cancelled(self, handle: Any) -> str | None:
        if handle.cancelled():
            with pytest.raises(concurrent.futures.CancelledError) as caught:
                handle.result(timeout=0)
            error = caught.value.__cause__
            if error is None:
                return None
        else:
            error = handle.exception(timeout=0)
        assert isinstance(error, namedtasks.TaskCancelledError)
        return error.reason

    async def error_of_dropped(self, handle: Any) -> namedtasks.TaskCancelledError:
        await self.settle()
        error = handle.exception(timeout=0)
        assert isinstance(error, namedtasks.TaskCancelledError)
        return error

    def block_in_background(self, fill: Callable[[World], object], **settings: Any) -> Waiter:
        waiter = Waiter()

        def block() -> None:
            clock = self._activity
            options: dict[str, Any] = {"instruments": (), **settings}
            with namedtasks.ThreadTaskMap(clock=clock, **options) as other:
                fill(ThreadWorld(other, clock))
            waiter.returned = True

        threading.Thread(target=self._activity.counted(block), daemon=True).start()
        return waiter

    async def settle(self) -> None:
        self._activity.settle()

    async def advance(self, seconds: float) -> None:
        self._activity.settle()
        self._activity.advance(seconds)
        self._activity.settle()

    def now(self) -> float:
        return self._activity.now()


@final
class ThreadDriver(Driver):
    """The thread shell, on threads of its own."""

    name = "threads"
    departures: dict[str, str] = {  # noqa: RUF012 - read only
        "A01": "the start waits for nothing, but the thread may begin before the call returns"
    }
    remarks: dict[str, str] = {  # noqa: RUF012 - read only
        "W04": "if the body checks whether it should stop; nothing else can stop a thread",
        "W15": "if the body checks whether it should stop; otherwise it keeps its name, and is "
        "overdue",
    }

    def __init__(self) -> None:
        self._activity = Activity()

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncGenerator[ThreadWorld]:
        settings.setdefault("instruments", ())
        with namedtasks.ThreadTaskMap(clock=self._activity, **settings) as tasks:
            world = ThreadWorld(tasks, self._activity)
            yield world
            tasks.cancel_all()
            await world.settle()
            tasks.close()
            await world.advance(1e9)  # who waits for failures to lapse is let go

    def run(self, behaviour: Callable[[Driver], Awaitable[None]]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            self._count_all(patch)
            steps = behaviour(self).__await__()
            with pytest.raises(StopIteration):
                next(steps)

    def _count_all(self, patch: pytest.MonkeyPatch) -> None:
        activity = self._activity
        kind: Any = ThreadPool
        init, submit = kind.__init__, kind.submit

        def init_counted(
            pool: ThreadPool[Any], name: str, work: Callable[[Any], object], *start: Any
        ) -> None:
            def call(job: Callable[[Any], object]) -> object:
                return job(work)

            init(pool, name, call, *start)

        def submit_counted(pool: ThreadPool[Any], job: Any) -> None:
            box: list[Callable[[Any], object]] = []
            counted = activity.counted(lambda: box.pop()(job))

            def run(work: Callable[[Any], object]) -> None:
                box.append(work)
                counted()

            submit(pool, run)

        def make_daemon_counted(name: str, target: Callable[[], object]) -> threading.Thread:
            return make_daemon(name, activity.counted(target))

        def unpark_all_counted(queue: WaitQueue) -> None:
            while queue:
                activity.wake(queue.popitem()[0])

        patch.setattr(ThreadPool, "__init__", init_counted)
        patch.setattr(ThreadPool, "submit", submit_counted)
        patch.setattr(WaitQueue, "unpark_all", unpark_all_counted)
        patch.setattr(backend_module, "make_daemon", make_daemon_counted)
        patch.setattr(backend_module, "LINGERS", 0.0)
        patch.setattr(backend_module, "_REAL_CLOCK", activity)
