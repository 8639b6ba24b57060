"""Retried runs in the trio shell, where their handles, contexts and workers might go wrong."""

from __future__ import annotations

import contextvars
import gc
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import (
    ANY,
    Backoff,
    State,
    TaskCancelledError,
    TaskFailedError,
    TaskMap,
    current_run,
)
from namedtasks._context import running_in
from namedtasks.instruments import Instrument, TaskCancelled, TaskFailed
from namedtasks.testing import RecordingInstrument

VAR: contextvars.ContextVar[int] = contextvars.ContextVar("VAR", default=0)
STEADY = Backoff(initial=5, factor=1)


def open_map(**settings: Any) -> Any:
    plain: dict[str, Any] = {"backoff": STEADY, "instruments": ()}
    return namedtasks.open_task_map(**plain | settings)


def flaky(failures: int) -> Callable[[], Awaitable[int]]:
    """Return an async function that fails so often, and then returns the number of its call."""
    calls = 0

    async def body() -> int:
        nonlocal calls
        calls += 1
        await trio.lowlevel.checkpoint()
        if calls <= failures:
            raise OSError(f"busy {calls}")
        return calls

    return body


always_fails = flaky(10**9)


async def cancelled_by(handle: Any) -> tuple[str | None, str]:
    """Return the reason of a retry that was dropped, and its last failure."""
    with pytest.raises(TaskCancelledError) as caught:
        await handle.wait()
    return caught.value.reason, repr(caught.value.__cause__)


# A retry that waits is ended


CANCELS: list[Callable[[namedtasks.TaskMap], object]] = [
    lambda tasks: tasks.cancel("a", reason="enough"),
    lambda tasks: tasks.cancel_all(reason="enough"),
    lambda tasks: tasks.cancel_matching("a".__eq__, reason="enough"),
    lambda tasks: tasks["b"].cancel("not this one") and tasks.cancel_all(reason="enough"),
]


@pytest.mark.parametrize(
    "cancel",
    CANCELS,
    ids=["cancel", "cancel_all", "cancel_matching", "cancel_all with another run"],
)
async def test_a_retry_that_waits_is_cancelled_at_once(
    cancel: Callable[[TaskMap], object], autojump_clock: MockClock
) -> None:
    async with open_map() as tasks:
        handle = tasks.start_soon("a", flaky(1), retry=True)
        tasks.start_soon("b", trio.sleep, 100)
        await trio.sleep(1)
        assert cancel(tasks)
        assert tasks.pending() == []
        assert await cancelled_by(handle) == ("enough", "OSError('busy 1')")
        assert (trio.current_time(), handle.attempts, handle.done) == (1, 1, True)
        tasks.cancel("b")


async def test_the_handle_of_a_retry_that_waits_cancels_it(autojump_clock: MockClock) -> None:
    async with open_map() as tasks:
        handle = tasks.start_soon("a", flaky(1), retry=True)
        await trio.sleep(1)
        assert handle.cancel("enough")
        assert not handle.cancel("again")
        assert await cancelled_by(handle) == ("enough", "OSError('busy 1')")


async def test_an_exception_of_the_block_ends_a_retry_that_waits(autojump_clock: MockClock) -> None:
    with pytest.raises(ValueError, match=r"^no more$"):
        async with open_map() as tasks:
            handle = tasks.start_soon("a", flaky(1), retry=True)
            await trio.sleep(1)
            raise ValueError("no more")
    assert await cancelled_by(handle) == (
        "the map's block raised ValueError: no more",
        "OSError('busy 1')",
    )


async def test_a_run_that_leaves_the_block_ends_a_retry_that_waits(
    autojump_clock: MockClock,
) -> None:
    async def leaves() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        async with open_map() as tasks:
            handle = tasks.start_soon("a", flaky(1), retry=True)
            await trio.sleep(1)
            tasks.start_soon("b", leaves)
            await trio.sleep(1)
    reason, _ = await cancelled_by(handle)
    assert reason == "task 'b' raised SystemExit: 3"


async def test_an_enclosing_scope_ends_a_retry_that_waits(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1):
        async with open_map() as tasks:
            handle = tasks.start_soon("a", flaky(1), retry=True)
    assert trio.current_time() == 1
    reason, _ = await cancelled_by(handle)
    assert reason == "an enclosing cancel scope was cancelled"


async def test_a_start_in_a_cancelled_block_is_not_retried(autojump_clock: MockClock) -> None:
    """The block ends: so it does not wait for attempt after attempt."""
    late: list[Any] = []

    async def starts_another() -> None:
        try:
            await trio.sleep_forever()
        finally:
            late.append(tasks.start_soon("late", always_fails, retry=True))

    with pytest.raises(ValueError, match=r"^no more$"):
        async with open_map() as tasks:
            tasks.start_soon("a", starts_another)
            await trio.sleep(1)
            raise ValueError("no more")
    assert (trio.current_time(), late[0].done, late[0].attempts) == (1, True, 1)


@pytest.mark.parametrize("as_group", [False, True])
async def test_an_attempt_that_fails_in_a_cancelled_scope_is_the_last_one(
    as_group: bool, autojump_clock: MockClock
) -> None:
    """The scope around the map is cancelled, and the body raises another error for that."""

    async def body() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            if as_group:
                raise BaseExceptionGroup("both", [cancelled, OSError("busy")])  # noqa: B904
            raise OSError("busy")  # noqa: B904

    with trio.move_on_after(1):
        async with open_map() as tasks:
            handle = tasks.start_soon("a", body, retry=True)
    assert (trio.current_time(), handle.attempts) == (1, 1)
    with pytest.raises(TaskFailedError):
        await handle.wait()


async def test_close_drops_a_retry_that_waits_for_a_run(autojump_clock: MockClock) -> None:
    """Not only one that waits for a time; the run in its way goes on."""
    async with open_map() as tasks:
        handle = tasks.start_soon("a", flaky(1), retry=True)
        await trio.sleep(1)
        other = tasks.start_soon("a", trio.sleep, 10, operation="other")
        await trio.sleep(5)
        assert tasks.pending()[0].holder == "a"
        tasks.close()
        assert tasks.pending() == []
        assert await cancelled_by(handle) == ("the map is closing", "OSError('busy 1')")
        assert not other.done


async def test_the_body_of_an_attempt_that_waits_for_a_slot_is_never_called(
    autojump_clock: MockClock, recwarn: pytest.WarningsRecorder
) -> None:
    calls: list[int] = []

    def gives() -> Any:
        calls.append(1)
        return flaky(10**9)()

    async with open_map(limit=1) as tasks:
        handle = tasks.start_soon("a", gives, retry=True)
        await trio.sleep(1)
        tasks.start_soon("b", trio.sleep, 10)
        await trio.sleep(5)
        assert (repr(handle), tasks.state("a")) == (
            "<namedtasks.TaskHandle 'a' not begun>",
            State.RUNNING,
        )
        tasks.cancel("a", reason="enough")
        assert await cancelled_by(handle) == ("enough", "OSError('busy 1')")
    gc.collect()
    assert (calls, list(recwarn)) == ([1], [])


# Attempts


async def test_an_instrument_may_forget_the_name_when_it_hears_of_a_failure(
    autojump_clock: MockClock,
) -> None:
    """The next attempt begins at once, in another worker than the one that is just ending."""

    class Forgets(Instrument):
        def task_failed(self, event: TaskFailed, /) -> None:
            if event.will_retry:
                assert tasks.forget(event.name)

    async with open_map(instruments=[Forgets()]) as tasks:
        await tasks.start_soon("warm", trio.sleep, 0).wait()  # an idle worker
        handle = tasks.start_soon("a", flaky(2), retry=True)
        others = [tasks.start_soon(number, trio.sleep, 1) for number in range(5)]
        with trio.fail_after(5):
            assert await handle.wait() == 3
            for other in others:
                await other.wait()
        assert handle.attempts == 3


@pytest.mark.parametrize("end", ["cancel", "close"])
async def test_an_instrument_may_end_the_run_when_it_hears_of_a_failure(
    end: str, autojump_clock: MockClock
) -> None:
    class Ends(Instrument):
        def task_failed(self, event: TaskFailed, /) -> None:
            tasks.close() if end == "close" else tasks.cancel(event.name, reason="enough")

    async with open_map(instruments=[Ends()]) as tasks:
        handle = tasks.start_soon("a", flaky(1), retry=True)
        with trio.fail_after(5):
            reason, cause = await cancelled_by(handle)
    assert (reason, cause) == (
        "the map is closing" if end == "close" else "enough",
        "OSError('busy 1')",
    )


@pytest.mark.parametrize("workers", [True, False])
@pytest.mark.parametrize("in_thread", [True, False])
async def test_each_attempt_has_its_own_copy_of_the_context_of_the_start(
    workers: bool, in_thread: bool
) -> None:
    """What one attempt sets is not there in the next one, nor what the starter sets later."""
    seen: list[int] = []

    def look() -> None:
        seen.append(VAR.get())
        VAR.set(VAR.get() + 1)
        if len(seen) < 3:
            raise OSError("busy")

    async def body() -> None:
        look()

    async with open_map(workers=workers, backoff=Backoff(initial=0.001)) as tasks:
        for value in (10, 20):
            VAR.set(value)
            if in_thread:
                handle = tasks.start_thread_soon("a", look, retry=True)
            else:
                handle = tasks.start_soon("a", body, retry=True)
            VAR.set(99)
            await handle.wait()
            assert seen == [value] * 3
            seen.clear()


async def test_a_function_that_raises_at_a_later_call_has_failed_an_attempt(
    autojump_clock: MockClock,
) -> None:
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
        handle = tasks.start_soon("a", gives, retry=True)
        assert await handle.wait() == 1
    assert [repr(event.error) for event in recorder.of(TaskFailed)] == [
        "OSError('busy 1')",
        "KeyError('no body')",
    ]
    assert handle.attempts == 3


async def test_a_body_sees_how_many_attempts_there_were(autojump_clock: MockClock) -> None:
    seen: list[tuple[int, int]] = []

    async def body() -> None:
        run = current_run()
        seen.append((run.attempts, run.failures))
        if len(seen) < 3:
            raise OSError("busy")

    async with open_map() as tasks:
        tasks.start_soon("a", body, retry=True)
    assert seen == [(1, 0), (2, 1), (3, 2)]


async def test_without_retention_failures_of_a_retry_are_still_counted(
    autojump_clock: MockClock,
) -> None:
    async with open_map(backoff=Backoff(initial=1, give_up_after=3), retention=0) as tasks:
        handle = tasks.start_soon("a", always_fails, retry=True)
        with pytest.raises(TaskFailedError), trio.fail_after(60):
            await handle.wait()
        assert (handle.attempts, trio.current_time()) == (3, 3)
        assert tasks.state("a") is State.GAVE_UP


async def test_an_attempt_that_took_too_long_does_not_cut_the_next_one_short(
    autojump_clock: MockClock,
) -> None:
    lasts = iter([10, 3])

    async def body() -> None:
        await trio.sleep(next(lasts))

    async with open_map() as tasks:
        handle = tasks.start_soon("a", body, timeout=4, retry=True)
        await handle.wait()
        assert (trio.current_time(), handle.attempts) == (4 + 5 + 3, 2)
        await tasks.start_soon("b", trio.sleep, 50).wait()


# A pool that loses a worker


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_lost_worker_is_retried_unless_the_run_is_cancelled_after_it(
    cancels: bool, autojump_clock: MockClock
) -> None:
    calls = 0

    async def executor(fn: Any, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            running_in.get().note_lost_worker()
            with trio.CancelScope(shield=True):
                await trio.sleep(10)
            raise BrokenProcessPool("lost")
        return fn(*args)

    async with open_map(executor=executor) as tasks:
        handle = tasks.start_thread_soon("a", int, retry=True)
        await trio.sleep(1)
        if cancels:
            assert handle.cancel("enough")
            with pytest.raises(TaskFailedError) as caught:
                await handle.wait()
            assert isinstance(caught.value.__cause__, BrokenProcessPool)
        else:
            assert await handle.wait() == 0
        assert handle.attempts == (1 if cancels else 2)
        # A worker whose scope was cancelled is of no more use, and is not used again.
        innocent = tasks.start_soon("innocent", trio.sleep, 1)
        await innocent.wait()


# What is kept


@pytest.mark.parametrize("if_busy", ["refuse", "join"])
@pytest.mark.parametrize("calls", [1, 2])
async def test_nothing_of_the_start_is_kept_after_the_end(
    calls: int, if_busy: Any, autojump_clock: MockClock
) -> None:
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
        handle = tasks.start_soon("a", body, argument, retry=True, if_busy=if_busy)
        del argument
        await handle.wait()
    gc.collect()
    assert weak() is None
    assert (handle._run.source, handle._run.context) == (None, None)


@pytest.mark.parametrize("end", ["cancel", "give up"])
async def test_nothing_of_a_start_that_did_not_succeed_is_kept(
    end: str, autojump_clock: MockClock
) -> None:
    async with open_map(backoff=Backoff(initial=5, give_up_after=2)) as tasks:
        handle = tasks.start_soon("a", flaky(2), retry=True)
        await trio.sleep(1)
        if end == "cancel":
            handle.cancel()
        await tasks.wait_idle()
    assert (handle._run.source, handle._run.context, handle._run.handle) == (None, None, None)


# Waits


async def test_each_kind_of_wait_waits_for_a_retry(autojump_clock: MockClock) -> None:
    times: dict[str, float] = {}

    async def note(what: str, wait: Callable[[], Awaitable[object]]) -> None:
        await wait()
        times[what] = trio.current_time()

    async def body() -> None:
        await trio.sleep(1)
        await fails_once()

    fails_once = flaky(1)
    async with open_map() as tasks, trio.open_nursery() as nursery:
        handle = tasks.start_soon("a", body, retry=True)
        await trio.sleep(1.5)
        nursery.start_soon(note, "handle", handle.wait)
        nursery.start_soon(note, "idle", tasks.wait_idle)
        nursery.start_soon(note, "empty", tasks.wait_empty)
        nursery.start_soon(note, "other operation", lambda: tasks.wait_free("a", operation="other"))
        await trio.sleep(5)  # the next attempt has begun
        nursery.start_soon(note, "free", lambda: tasks.wait_free("a"))
    assert times == {"handle": 7, "idle": 7, "empty": 7, "free": 7, "other operation": 1.5}


async def test_shutdown_drops_a_retry_and_waits_for_an_attempt(autojump_clock: MockClock) -> None:
    async def body() -> None:
        await trio.sleep(3)
        raise OSError("busy")

    async with open_map() as tasks:
        waits = tasks.start_soon("waits", flaky(1), retry=True)
        runs = tasks.start_soon("runs", body, retry=True)
        await trio.sleep(1)
        assert await tasks.shutdown(grace=10) == ()
        assert trio.current_time() == 3
        assert await cancelled_by(waits) == ("the map is closing", "OSError('busy 1')")
        with pytest.raises(TaskFailedError):
            await runs.wait()


async def test_a_run_may_not_wait_for_the_retry_that_waits_for_it(
    autojump_clock: MockClock,
) -> None:
    """It would wait for its own end; before the retry waits for the run, it may."""

    async def waits_for_the_retry() -> None:
        with pytest.raises(RuntimeError, match=message):
            await handle.wait()

    message = r"^inside task 'a', wait\(\) of a run that is queued behind it would wait for the "
    async with open_map() as tasks:
        handle = tasks.start_soon("a", flaky(1), retry=True)
        await trio.sleep(1)

        async def body() -> None:
            await trio.sleep(5)
            await waits_for_the_retry()

        other = tasks.start_soon("a", body, operation="other")
        await other.wait()
        assert await handle.wait() == 2


async def test_a_handle_tells_that_its_run_waits_to_retry(autojump_clock: MockClock) -> None:
    async with open_map() as tasks:
        handle = tasks.start_soon("a", flaky(1), retry=True)
        await trio.sleep(1)
        assert repr(handle) == "<namedtasks.TaskHandle 'a' waiting to retry>"
        assert (handle.attempts, handle.started_at, handle.done) == (1, None, False)
        await handle.wait()
        assert repr(handle) == "<namedtasks.TaskHandle 'a' succeeded>"


async def test_join_gives_the_handle_of_a_retry_that_waits(autojump_clock: MockClock) -> None:
    async with open_map() as tasks:
        handle = tasks.start_soon("a", flaky(1), retry=True)
        await trio.sleep(1)
        assert tasks.start_soon("a", trio.sleep, 1, if_busy="join") is handle
        joins_at_a_second_look = tasks.start_soon("a", lambda: trio.sleep(1), if_busy="join")
        assert joins_at_a_second_look is handle


async def test_a_function_that_starts_its_own_name_joins_the_retry_that_follows(
    autojump_clock: MockClock,
) -> None:
    """The function was called because the name was free, and has made it busy."""
    async with open_map() as tasks:
        inner: list[Any] = []

        def gives() -> Any:
            inner.append(tasks.start_soon("a", flaky(1), retry=True))
            return trio.sleep(1)

        assert tasks.start_soon("a", gives, if_busy="join") is inner[0]


async def test_a_retry_starts_after_a_name_that_overlaps_it(autojump_clock: MockClock) -> None:
    async with open_map() as tasks:
        handle = tasks.start_soon(("v", 1), flaky(1), retry=True)
        await trio.sleep(1)
        tasks.start_soon(("v", ANY), trio.sleep, 10)
        assert await handle.wait() == 2
        assert trio.current_time() == 11


async def test_a_posted_start_is_retried(autojump_clock: MockClock) -> None:
    recorder = RecordingInstrument()
    async with open_map(instruments=[recorder], backoff=None) as tasks:
        tasks.post("a", flaky(1), retry=True, backoff=STEADY)
        await wait_all_tasks_blocked()
        await tasks.wait_idle()
    assert [event.will_retry for event in recorder.of(TaskFailed)] == [True]
    assert recorder.of(TaskCancelled) == []


async def test_a_run_of_the_name_may_not_wait_for_the_retry_that_comes_after_it(
    autojump_clock: MockClock,
) -> None:
    """Also while the retry still waits for its time, and not yet for that run."""

    async def other() -> None:
        with pytest.raises(
            RuntimeError, match=r"^inside task .*, wait\(\) of a run that is queued "
        ):
            await handle.wait()

    async with open_map() as tasks:
        handle = tasks.start_soon("a", flaky(1), retry=True)
        await trio.sleep(1)
        await tasks.start_soon("a", other, operation="other").wait()
        assert await handle.wait() == 2
