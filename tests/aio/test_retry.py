"""Retried runs in the asyncio shell: one Task for all attempts, and futures that follow it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from namedtasks import ANY, Backoff, State, TaskCancelledError
from namedtasks._context import running_in
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import Instrument, TaskFailed
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, virtual

VAR: contextvars.ContextVar[int] = contextvars.ContextVar("VAR", default=0)
STEADY = Backoff(initial=5, factor=1)


def open_map(**settings: Any) -> Any:
    plain: dict[str, Any] = {"backoff": STEADY, "instruments": ()}
    return open_task_map(**plain | settings)


def flaky(failures: int) -> Callable[[], Coroutine[Any, Any, int]]:
    """Return an async function that fails so often, and then returns the number of its call."""
    calls = 0

    async def body() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        if calls <= failures:
            raise OSError(f"busy {calls}")
        return calls

    return body


def returns(value: int) -> Callable[[], Coroutine[Any, Any, int]]:
    async def body() -> int:
        return value

    return body


def elapsed() -> float:
    return loop_now().time() - 1000.0


async def dropped(future: Awaitable[Any]) -> tuple[str | None, str]:
    """Return the reason of a retry that the map has dropped, and its last failure."""
    with pytest.raises(TaskCancelledError) as caught:
        await future
    return caught.value.reason, repr(caught.value.__cause__)


# A retry that waits is ended


CANCELS: list[Callable[[Any, Any], object]] = [
    lambda tasks, _: tasks.cancel("a", reason="enough"),
    lambda tasks, _: tasks.cancel_all(reason="enough"),
    lambda tasks, _: tasks.cancel_matching("a".__eq__, reason="enough"),
    lambda _, task: task.cancel("enough"),
]


@pytest.mark.parametrize(
    "cancel", CANCELS, ids=["cancel", "cancel_all", "cancel_matching", "Task.cancel"]
)
@virtual()
async def test_a_retry_that_waits_is_cancelled_at_once(
    cancel: Callable[[TaskMap, asyncio.Task[Any]], object],
) -> None:
    """The Task is cancelled, and its joined futures get an error with the reason."""
    async with open_map() as tasks:
        task = tasks.create_task("a", flaky(1), retry=True)
        await asyncio.sleep(1)
        joined = tasks.create_task("a", flaky(1), if_busy="join")
        assert cancel(tasks, task)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (task.cancelled(), elapsed(), tasks.pending()) == (True, 1, [])
        assert await dropped(joined) == ("enough", "OSError('busy 1')")


@virtual()
async def test_an_exception_of_the_block_ends_a_retry_that_waits() -> None:
    with pytest.raises(ValueError, match=r"^no more$"):
        async with open_map() as tasks:
            task = tasks.create_task("a", flaky(1), retry=True)
            await asyncio.sleep(1)
            raise ValueError("no more")
    assert (task.cancelled(), elapsed()) == (True, 1)


@virtual()
async def test_a_cancellation_of_the_block_ends_a_retry_that_waits() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), open_map() as tasks:
            task = tasks.create_task("a", flaky(1), retry=True)
    assert (task.cancelled(), elapsed()) == (True, 1)


class Fatal(BaseException):
    """What is no failure, and leaves the block."""


@virtual()
async def test_a_run_that_leaves_the_block_ends_a_retry_that_waits() -> None:
    async def leaves() -> None:
        raise Fatal

    with pytest.raises(Fatal):
        async with open_map() as tasks:
            task = tasks.create_task("a", flaky(1), retry=True)
            await asyncio.sleep(1)
            tasks.create_task("b", leaves)
            await asyncio.sleep(1)
    assert (task.cancelled(), elapsed()) == (True, 1)


@virtual()
async def test_a_start_in_a_cancelled_block_is_not_retried() -> None:
    """The block ends: so it does not wait for attempt after attempt."""
    late: list[asyncio.Task[Any]] = []

    async def starts_another() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            late.append(tasks.create_task("late", flaky(10**9), retry=True))

    with pytest.raises(ValueError, match=r"^no more$"):
        async with open_map() as tasks:
            tasks.create_task("a", starts_another)
            await asyncio.sleep(1)
            raise ValueError("no more")
    assert (elapsed(), late[0].done()) == (1, True)


@virtual()
async def test_close_drops_a_retry_that_waits_for_a_run() -> None:
    """Not only one that waits for a time; its Task is not cancelled, but has an error.

    A task group around a caller that awaits it would take a cancellation for the caller's own.
    """
    async with open_map() as tasks:
        task = tasks.create_task("a", flaky(1), retry=True)
        await asyncio.sleep(1)
        other = tasks.create_task("a", asyncio.sleep, 10, operation="other")
        await asyncio.sleep(5)
        assert tasks.pending()[0].holder == "a"
        tasks.close()
        assert tasks.pending() == []
        assert await dropped(task) == ("the map is closing", "OSError('busy 1')")
        assert not task.cancelled()
        assert not other.done()


@virtual()
async def test_a_newer_start_supersedes_a_retry_with_an_error() -> None:
    async with open_map() as tasks:
        task = tasks.create_task("a", flaky(1), retry=True)
        await asyncio.sleep(1)
        newer = tasks.create_task("a", returns(7), if_busy="queue")
        reason, _ = await dropped(task)
        assert reason == "superseded by a newer start of its name"
        assert await newer == 7


# A retry that is ended while its failure is being delivered


def by_cancel(tasks: TaskMap, _: asyncio.Task[Any]) -> None:
    tasks.cancel("a", reason="enough")


def by_the_task(_: TaskMap, task: asyncio.Task[Any]) -> None:
    task.cancel()


def by_forget_and_cancel(tasks: TaskMap, _: asyncio.Task[Any]) -> None:
    tasks.forget("a")
    tasks.cancel("a", reason="enough")


def by_close(tasks: TaskMap, _: asyncio.Task[Any]) -> None:
    tasks.close()


def by_a_newer_start(tasks: TaskMap, _: asyncio.Task[Any]) -> None:
    tasks.create_task("a", returns(7), if_busy="queue")


@pytest.mark.parametrize(
    ("end", "reason", "is_cancelled"),
    [
        (by_cancel, "enough", True),
        (by_the_task, None, True),
        (by_forget_and_cancel, "enough", True),
        (by_close, "the map is closing", False),
        (by_a_newer_start, "superseded by a newer start of its name", False),
    ],
)
@pytest.mark.parametrize("wraps", [False, True])
@virtual()
async def test_the_task_and_the_joined_futures_agree_on_an_end_in_the_delivery_of_the_failure(
    end: Callable[[TaskMap, asyncio.Task[Any]], None],
    reason: str | None,
    is_cancelled: bool,
    wraps: bool,
) -> None:
    """The Task is in the last step of its attempt then, and has to hear that there is no next."""

    class Ends(Instrument):
        def task_failed(self, event: TaskFailed, /) -> None:
            assert event.will_retry
            end(tasks, task)

    if wraps:
        loop_now().set_task_factory(wrapping)
    async with asyncio.timeout(3), open_map(instruments=[Ends()]) as tasks:
        task: asyncio.Task[int] = tasks.create_task("a", flaky(1), retry=True)
        joined: asyncio.Future[int] = tasks.create_task("a", flaky(1), if_busy="join")
        found: list[Any] = [*await asyncio.gather(task, joined, return_exceptions=True)]
        loop_now().set_task_factory(None)
        backend = tasks._backend
        assert (backend.waits.ending, backend.scheduler.records.held) == ({}, set())
    assert task.cancelled() is is_cancelled
    assert [type(one) for one in found] == [
        asyncio.CancelledError if is_cancelled else TaskCancelledError,
        TaskCancelledError,
    ]
    assert found[1].reason == reason
    assert repr(found[1].__cause__) == "OSError('busy 1')"


@virtual()
async def test_a_name_that_is_forgotten_in_the_delivery_of_its_failure_starts_at_once() -> None:
    class Forgets(Instrument):
        def task_failed(self, event: TaskFailed, /) -> None:
            tasks.forget("a")

    async with open_map(instruments=[Forgets()]) as tasks:
        assert await tasks.create_task("a", flaky(2), retry=True) == 3
        assert elapsed() == 0


# Task factories


async def awaits(coro: Any) -> Any:
    return await coro


def wrapping(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a Task whose coroutine awaits ours."""
    return asyncio.Task(awaits(coro), loop=loop, **options)


@virtual()
async def test_with_a_task_factory_a_run_is_retried_in_the_one_task() -> None:
    loop_now().set_task_factory(wrapping)
    async with open_map() as tasks:
        task = tasks.create_task("a", flaky(2), retry=True)
        await asyncio.sleep(1)
        assert tasks.pending()[0].kind == "retry"
        assert await task == 3
        assert elapsed() == 10


@pytest.mark.parametrize("retry", [False, True])
@virtual()
async def test_a_factory_whose_coroutine_raises_before_it_awaits_ours_ends_the_run(
    retry: bool,
) -> None:
    """Nothing is left that could drive another attempt."""

    async def raises(_: Any) -> None:
        raise OSError("wrapper")

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(raises(coro), loop=loop, **options)

    loop = loop_now()
    async with open_map() as tasks:
        loop.set_task_factory(make)
        task = tasks.create_task("a", flaky(0), retry=retry)
        loop.set_task_factory(None)
        with pytest.raises(OSError, match=r"^wrapper$"):
            await task
        await asyncio.sleep(0)
        assert (len(tasks), tasks.pending(), tasks.state("a")) == (0, [], State.WAITING)
        await tasks.wait_idle()
        assert elapsed() == 0


# Attempts


@pytest.mark.parametrize("in_thread", [False, True])
@virtual()
async def test_all_attempts_run_in_the_context_of_the_task(in_thread: bool) -> None:
    """There is one Task, so what an attempt sets is there in the next; not what a thread sets."""
    seen: list[int] = []

    def look() -> None:
        seen.append(VAR.get())
        VAR.set(VAR.get() + 1)
        if len(seen) < 3:
            raise OSError("busy")

    async def body() -> None:
        look()

    VAR.set(10)
    async with open_map() as tasks:
        if in_thread:
            task = tasks.run_in_executor("a", look, retry=True)
        else:
            task = tasks.create_task("a", body, retry=True)
        VAR.set(99)
        await task
    assert seen == ([10, 10, 10] if in_thread else [10, 11, 12])


@virtual()
async def test_a_deadline_of_one_attempt_leaves_no_cancellation_in_the_task() -> None:
    """Else `asyncio.timeout` and task groups in a later attempt would take it for their own."""
    counts: list[int] = []

    async def body() -> str:
        task = asyncio.current_task()
        assert task is not None
        counts.append(task.cancelling())
        if len(counts) < 3:
            await asyncio.sleep(100)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(100)
        return "attached"

    async with open_map() as tasks:
        task = tasks.create_task("a", body, timeout=2, retry=True)
        await asyncio.sleep(3)
        assert task.cancelling() == 0
        assert await task == "attached"
        assert task.cancelling() == 0
    assert counts == [0, 0, 0]
    assert elapsed() == 2 + 5 + 2 + 5 + 1


@virtual()
async def test_a_function_that_raises_at_a_later_call_has_failed_an_attempt() -> None:
    """The first call is the caller's; later ones are attempts."""
    calls = 0

    def gives() -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyError("no body")
        return flaky(1 if calls == 1 else 0)()

    recorder = RecordingInstrument()
    async with open_map(instruments=[recorder]) as tasks:
        assert await tasks.create_task("a", gives, retry=True) == 1
    assert [repr(event.error) for event in recorder.of(TaskFailed)] == [
        "OSError('busy 1')",
        "KeyError('no body')",
    ]


@virtual()
async def test_without_retention_failures_of_a_retry_are_still_counted() -> None:
    async with open_map(backoff=Backoff(initial=1, give_up_after=3), retention=0) as tasks:
        task = tasks.create_task("a", flaky(10**9), retry=True)
        with pytest.raises(OSError, match=r"^busy 3$"):
            await task
        assert elapsed() == 3
        assert tasks.state("a") is State.GAVE_UP


@pytest.mark.parametrize("cancels", [False, True])
@virtual()
async def test_a_lost_worker_is_retried_unless_the_run_is_cancelled_after_it(cancels: bool) -> None:
    calls = 0

    async def body() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            running_in.get().note_lost_worker()
            try:
                await asyncio.sleep(10)
            finally:
                raise BrokenProcessPool("lost")
        return calls

    async with open_map() as tasks:
        task = tasks.create_task("a", body, retry=True)
        await asyncio.sleep(1)
        if cancels:
            tasks.cancel("a")
            with pytest.raises(BrokenProcessPool):
                await task
        else:
            assert await task == 2


@virtual()
async def test_an_attempt_that_waits_for_a_slot_is_dropped_with_the_cancellation() -> None:
    async with open_map(limit=1) as tasks:
        task = tasks.create_task("a", flaky(10**9), retry=True)
        await asyncio.sleep(1)
        tasks.create_task("b", asyncio.sleep, 10)
        await asyncio.sleep(5)
        assert tasks.state("a") is State.RUNNING
        tasks.cancel("a")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert elapsed() == 6


# Joined futures


@virtual()
async def test_all_who_join_get_the_outcome_of_the_last_attempt() -> None:
    async with open_map() as tasks:
        first = tasks.create_task("a", flaky(1), if_busy="join", retry=True)
        await asyncio.sleep(1)
        second = tasks.create_task("a", flaky(1), if_busy="join")
        assert (await first, await second) == (2, 2)


@virtual()
async def test_the_message_of_a_cancelled_task_is_the_reason_of_its_joined_futures() -> None:
    async with open_map() as tasks:
        task = tasks.create_task("a", asyncio.sleep, 10)
        joined = tasks.create_task("a", asyncio.sleep, 10, if_busy="join")
        await asyncio.sleep(1)
        task.cancel("the node is drained")
        reason, cause = await dropped(joined)
        assert (reason, cause) == ("the node is drained", "None")


@virtual()
async def test_a_message_that_is_no_text_is_no_reason() -> None:
    async with open_map() as tasks:
        task = tasks.create_task("a", asyncio.sleep, 10)
        joined = tasks.create_task("a", asyncio.sleep, 10, if_busy="join")
        await asyncio.sleep(1)
        task.cancel(("no", "text"))
        assert await dropped(joined) == (None, "None")


@virtual()
async def test_the_reason_of_the_map_comes_before_the_message_of_the_task() -> None:
    async with open_map() as tasks:
        task = tasks.create_task("a", asyncio.sleep, 10)
        joined = tasks.create_task("a", asyncio.sleep, 10, if_busy="join")
        await asyncio.sleep(1)
        tasks.cancel("a", reason="first")
        task.cancel("second")
        assert await dropped(joined) == ("first", "None")


@virtual()
async def test_a_joined_future_that_has_an_error_cannot_be_cancelled() -> None:
    async with open_map() as tasks:
        joined = tasks.create_task("a", asyncio.sleep, 10, if_busy="join")
        tasks.cancel("a", reason="enough")
        await tasks.wait_idle()
        assert not joined.cancel()
        assert not joined.cancelled()
        assert await dropped(joined) == ("enough", "None")


@virtual()
async def test_a_joined_future_that_is_cancelled_leaves_the_run_and_the_others() -> None:
    async with open_map() as tasks:
        first = tasks.create_task("a", flaky(1), if_busy="join", retry=True)
        second = tasks.create_task("a", flaky(1), if_busy="join")
        await asyncio.sleep(1)
        assert first.cancel()
        assert await second == 2
        assert first.cancelled()


@virtual()
async def test_a_run_may_not_await_its_own_joined_future() -> None:
    async def body() -> None:
        with pytest.raises(RuntimeError, match=r"^inside task 'a', await of its own future "):
            await joined

    async with open_map() as tasks:
        joined = tasks.create_task("a", body, if_busy="join")
        await joined
        await joined  # it is done: nothing to wait for


# What is kept


@pytest.mark.parametrize("if_busy", ["refuse", "join"])
@pytest.mark.parametrize("calls", [1, 2])
@virtual()
async def test_nothing_of_the_start_is_kept_after_the_end(calls: int, if_busy: Any) -> None:
    class Argument:
        pass

    box: list[int] = []

    async def body(_: Argument) -> None:
        box.append(1)
        if len(box) < calls:
            raise OSError("busy")

    argument = Argument()
    weak = weakref.ref(argument)
    async with open_map() as tasks:
        future = tasks.create_task("a", body, argument, retry=True, if_busy=if_busy)
        del argument
        await future
    gc.collect()
    assert weak() is None


# Waits


@virtual()
async def test_each_kind_of_wait_waits_for_a_retry() -> None:
    times: dict[str, float] = {}

    async def note(what: str, wait: Awaitable[object]) -> None:
        await wait
        times[what] = elapsed()

    async def body() -> None:
        await asyncio.sleep(1)
        await fails_once()

    fails_once = flaky(1)
    async with open_map() as tasks, asyncio.TaskGroup() as group:
        task = tasks.create_task("a", body, retry=True)
        await asyncio.sleep(1.5)
        joined = tasks.create_task("a", body, if_busy="join")
        for what, wait in {
            "task": task,
            "joined": joined,
            "idle": tasks.wait_idle(),
            "empty": tasks.wait_empty(),
            "other operation": tasks.wait_free("a", operation="other"),
        }.items():
            group.create_task(note(what, wait))
        await asyncio.sleep(5)  # the next attempt has begun
        group.create_task(note("free", tasks.wait_free("a")))
    assert times == {
        **dict.fromkeys(["task", "joined", "idle", "empty", "free"], 7),
        "other operation": 1.5,
    }


@virtual()
async def test_shutdown_drops_a_retry_and_waits_for_an_attempt() -> None:
    async def body() -> None:
        await asyncio.sleep(3)
        raise OSError("busy")

    async with open_map() as tasks:
        waits = tasks.create_task("waits", flaky(1), retry=True)
        runs = tasks.create_task("runs", body, retry=True)
        await asyncio.sleep(1)
        assert await tasks.shutdown(grace=10) == ()
        assert elapsed() == 3
        assert await dropped(waits) == ("the map is closing", "OSError('busy 1')")
        with pytest.raises(OSError, match=r"^busy$"):
            await runs


@virtual()
async def test_a_retry_starts_after_a_name_that_overlaps_it() -> None:
    async with open_map() as tasks:
        task = tasks.create_task(("v", 1), flaky(1), retry=True)
        await asyncio.sleep(1)
        tasks.create_task(("v", ANY), asyncio.sleep, 10)
        assert await task == 2
        assert elapsed() == 11


@virtual()
async def test_a_function_that_starts_its_own_name_joins_the_run_that_it_has_started() -> None:
    """The function was called because the name was free, and has made it busy."""
    async with open_map() as tasks:

        def gives() -> Any:
            tasks.create_task("a", flaky(1), retry=True)
            return asyncio.sleep(1)

        assert await tasks.create_task("a", gives, if_busy="join") == 2


@virtual()
async def test_a_posted_start_is_retried() -> None:
    recorder = RecordingInstrument()
    async with open_map(instruments=[recorder], backoff=None) as tasks:
        tasks.post("a", flaky(1), retry=True, backoff=STEADY)
        await asyncio.sleep(0)
        await tasks.wait_idle()
    assert [event.will_retry for event in recorder.of(TaskFailed)] == [True]


@virtual()
async def test_a_run_of_the_name_may_not_await_the_retry_that_comes_after_it() -> None:
    async def other() -> None:
        with pytest.raises(RuntimeError, match=r"^inside task .*, await of a run that is queued "):
            await joined

    async with open_map() as tasks:
        joined = tasks.create_task("a", flaky(1), retry=True, if_busy="join")
        await asyncio.sleep(1)
        await tasks.create_task("a", other, operation="other")
        assert await joined == 2
