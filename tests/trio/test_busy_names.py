"""Busy names in the trio shell: what is trio's own about joining, replacing and queueing."""

import contextlib
import contextvars
import gc
import threading
from typing import Any, Literal, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import (
    ANY,
    AlreadyRunningError,
    Backoff,
    ClosedError,
    State,
    TaskCancelledError,
    TaskHandle,
    TaskMap,
)
from namedtasks.instruments import (
    TaskCancelled,
    TaskOverdue,
    TaskQueued,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks.testing import RecordingInstrument

How = Literal["replace", "queue"]
both = pytest.mark.parametrize("how", ["replace", "queue"])

SUPERSEDED = "superseded by a newer start of its name"


async def value(what: str) -> str:
    await trio.lowlevel.checkpoint()
    return what


async def boom() -> None:
    await trio.lowlevel.checkpoint()
    raise ValueError("boom")


async def stubborn(event: trio.Event) -> str:
    with trio.CancelScope(shield=True):
        await event.wait()
    return "done after all"


async def why(handle: TaskHandle[Any]) -> str | None:
    """Why a run was cancelled."""
    with pytest.raises(TaskCancelledError) as caught:
        await handle.wait()
    return caught.value.reason


async def ended(handle: TaskHandle[Any]) -> None:
    """Wait for a run's end, but not for ever; and leave nothing behind if there is none."""
    try:
        with trio.fail_after(1):
            await handle.wait()
    finally:
        handle._run.close_body()


async def told(handle: TaskHandle[Any]) -> str | None:
    """Why a run was cancelled that should know by now."""
    with pytest.raises(TaskCancelledError) as caught:
        await ended(handle)
    return caught.value.reason


def raises() -> Any:
    raise ZeroDivisionError("no body")


# The function that gives the body


@both
@pytest.mark.parametrize("gives", [raises, lambda: 5])
async def test_a_function_that_gives_no_body_leaves_the_pending_run_in_its_place(
    how: How, gives: Any
) -> None:
    """Nobody is superseded and nobody cancelled by a start that never was."""
    heard = RecordingInstrument()
    event = trio.Event()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        old = tasks.start_soon("a", event.wait)
        await wait_all_tasks_blocked()
        pending = tasks.start_soon("a", value, "the one from before", if_busy="queue")
        with pytest.raises((ZeroDivisionError, TypeError)):
            tasks.start_soon("a", gives, if_busy=how)
        assert tasks.statistics().pending == 1
        assert tasks["a"] is old
        event.set()
        assert await pending.wait() == "the one from before"
        await old.wait()
    assert len(heard.of(TaskQueued)) == 1
    assert heard.of(TaskSuperseded) == []
    assert heard.of(TaskCancelled) == []


@both
async def test_the_function_is_called_at_once_and_not_for_a_refused_start(how: How) -> None:
    called: list[str] = []

    def gives(what: str) -> Any:
        called.append(what)
        return value(what)

    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("a", trio.sleep_forever)
        tasks.start_soon("a", gives, "put off", if_busy=how)
        tasks.start_soon("a", gives, "joined", if_busy="join")
        tasks.start_soon("a", gives, "skipped", if_busy="skip")
        assert called == ["put off"]
        tasks.cancel("a")


@both
async def test_a_function_may_start_its_own_name_while_it_is_called(how: How) -> None:
    """The outer start is deferred after its function was called: it is the newer one."""
    handles: list[TaskHandle[str]] = []
    event = trio.Event()
    async with namedtasks.open_task_map() as tasks:

        def gives() -> Any:
            handles.append(tasks.start_soon("a", value, "inner", if_busy=how))
            return value("outer")

        tasks.start_soon("a", event.wait)
        await wait_all_tasks_blocked()
        before = tasks.start_soon("a", value, "before", if_busy="queue")
        outer = tasks.start_soon("a", gives, if_busy=how)
        event.set()
        assert await why(before) == SUPERSEDED
        assert await why(handles[0]) == SUPERSEDED
        assert await outer.wait() == "outer"


async def test_the_inner_one_is_superseded_by_the_outer_one() -> None:
    """Also if the name overlaps others, so that both hold it from their start."""
    handles: list[TaskHandle[str]] = []
    async with namedtasks.open_task_map() as tasks:

        def gives() -> Any:
            handles.append(tasks.start_soon(("vol", ANY), value, "inner", if_busy="replace"))
            return value("outer")

        tasks.start_soon(("vol", 1), trio.sleep_forever)
        await wait_all_tasks_blocked()
        outer = tasks.start_soon(("vol", ANY), gives, if_busy="replace")
        assert await why(handles[0]) == SUPERSEDED
        assert await outer.wait() == "outer"


@both
async def test_and_raise_after_that(how: How) -> None:
    """The pending run from before hears that it was superseded: by the inner start."""
    handles: list[TaskHandle[str]] = []
    event = trio.Event()
    async with namedtasks.open_task_map() as tasks:

        def gives() -> Any:
            handles.append(tasks.start_soon("a", value, "inner", if_busy=how))
            raise ZeroDivisionError

        tasks.start_soon("a", event.wait)
        await wait_all_tasks_blocked()
        before = tasks.start_soon("a", value, "before", if_busy="queue")
        with pytest.raises(ZeroDivisionError):
            tasks.start_soon("a", gives, if_busy=how)
        event.set()
        assert await handles[0].wait() == "inner"
        assert await told(before) == SUPERSEDED


@both
async def test_a_function_may_cancel_its_own_name_while_it_is_called(how: How) -> None:
    """The run in progress and the pending one; its own is not there yet, and begins."""
    async with namedtasks.open_task_map() as tasks:

        def gives() -> Any:
            tasks.cancel("a", reason="no more of it")
            return value("a")

        old = tasks.start_soon("a", trio.sleep_forever)
        await wait_all_tasks_blocked()
        before = tasks.start_soon("a", value, "before", if_busy="queue")
        assert await tasks.start_soon("a", gives, if_busy=how).wait() == "a"
        assert await why(old) == "no more of it"
        assert await why(before) == "no more of it"
    gc.collect()


@both
async def test_and_raise_after_that_too(how: How) -> None:
    """The pending run from before is told, or begins: it is not lost."""
    async with namedtasks.open_task_map() as tasks:

        def gives() -> Any:
            tasks.cancel("a", reason="no more of it")
            raise ZeroDivisionError

        old = tasks.start_soon("a", trio.sleep_forever)
        await wait_all_tasks_blocked()
        before = tasks.start_soon("a", value, "before", if_busy="queue")
        with pytest.raises(ZeroDivisionError):
            tasks.start_soon("a", gives, if_busy=how)
        assert await why(old) == "no more of it"
        with contextlib.suppress(TaskCancelledError):
            await ended(before)


# What a run takes along


@both
async def test_a_run_that_was_put_off_has_the_context_of_its_call(how: How) -> None:
    color: contextvars.ContextVar[str] = contextvars.ContextVar("color")

    async def body() -> str:
        return color.get()

    event = trio.Event()
    async with namedtasks.open_task_map() as tasks:
        color.set("red")
        tasks.start_soon("a", event.wait)
        await wait_all_tasks_blocked()
        color.set("green")
        handle = tasks.start_soon("a", body, if_busy=how)
        color.set("blue")
        event.set()
        assert await handle.wait() == "green"


@both
async def test_its_timeout_counts_from_its_first_step(how: How, autojump_clock: MockClock) -> None:
    event = trio.Event()
    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("a", stubborn, event)
        await wait_all_tasks_blocked()
        handle = tasks.start_soon("a", trio.sleep, 2, if_busy=how, timeout=3)
        assert (handle.started_at, repr(handle)) == (None, "<namedtasks.TaskHandle 'a' not begun>")
        await trio.sleep(100)
        event.set()
        await handle.wait()
        assert (handle.started_at, trio.current_time()) == (100, 102)


# Joining


async def test_who_joins_has_the_very_handle() -> None:
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", trio.sleep_forever)
        joined = tasks.start_soon("a", trio.sleep_forever, if_busy="join")
        assert joined is handle
        joined.cancel("on behalf of all")
        assert await why(handle) == "on behalf of all"
        assert tasks.start_soon("a", value, "free", if_busy="join") is not handle


async def test_who_is_cancelled_while_waiting_for_a_joined_run_does_not_cancel_it() -> None:
    event = trio.Event()
    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("a", event.wait)
        with trio.move_on_after(0):
            await tasks.start_soon("a", event.wait, if_busy="join").wait()
        event.set()
        await tasks.start_soon("a", event.wait, if_busy="join").wait()


# Cancelling


@both
async def test_the_handle_of_a_pending_run_cancels_just_that_one(how: How) -> None:
    event = trio.Event()
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        old = tasks.start_soon("a", stubborn, event)
        await wait_all_tasks_blocked()
        pending = tasks.start_soon("a", value, "pending", if_busy=how)
        assert pending.cancel("enough")
        assert not pending.cancel("again")
        assert (pending.done, old.done) == (True, False)
        assert await why(pending) == "enough"
        event.set()
        assert await old.wait() == "done after all"
    (cancelled,) = heard.of(TaskCancelled)
    assert (cancelled.reason, cancelled.duration) == ("enough", None)


@both
async def test_the_handle_of_the_running_one_lets_the_pending_one_begin(how: How) -> None:
    async with namedtasks.open_task_map() as tasks:
        old = tasks.start_soon("a", trio.sleep_forever)
        await wait_all_tasks_blocked()
        pending = tasks.start_soon("a", value, "pending", if_busy=how)
        old.cancel()
        assert await pending.wait() == "pending"


async def test_a_replacement_of_one_that_waits_for_a_slot_takes_its_place() -> None:
    async with namedtasks.open_task_map(limit=1) as tasks:
        event = trio.Event()
        tasks.start_soon("first", event.wait)
        in_line = tasks.start_soon("a", value, "old")
        last = tasks.start_soon("last", value, "last")
        new = tasks.start_soon("a", value, "new", if_busy="replace")
        assert in_line.done, "it had not begun, so there was nothing to wait for"
        event.set()
        assert await why(in_line) == "replaced by a newer start"
        assert await new.wait() == "new"
        assert not last.done


async def test_a_replacement_waits_for_a_thread_that_cannot_be_stopped() -> None:
    """However long that takes: the old run becomes overdue, and never are there two."""
    go = threading.Event()
    inside = 0

    def body() -> str:
        nonlocal inside
        inside += 1
        assert inside == 1
        go.wait(30)
        inside -= 1
        return "a thread's result"

    heard = RecordingInstrument()
    async with namedtasks.open_task_map(overdue_after=0.01, instruments=[heard]) as tasks:
        old = tasks.start_thread_soon("a", body)
        while not inside:
            await trio.sleep(0.001)
        new = tasks.start_thread_soon("a", body, if_busy="replace")
        while not old.overdue:
            await trio.sleep(0.001)
        statistics = tasks.statistics()
        assert (statistics.running, statistics.pending, statistics.overdue) == (1, 1, 1)
        assert new.started_at is None
        go.set()
        assert await old.wait() == "a thread's result"
        assert await new.wait() == "a thread's result"
    assert len(heard.of(TaskOverdue)) == 1


async def test_a_storm_of_replacements_starves_nobody() -> None:
    """A slot that is taken over again and again is one slot: the line goes on beside it."""
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(limit=2, instruments=[heard]) as tasks:
        others = [tasks.start_soon(("other", number), value, "other") for number in range(20)]
        newest = tasks.start_soon("a", trio.sleep_forever)
        for number in range(200):
            newest = tasks.start_soon("a", trio.sleep_forever, if_busy="replace")
            if number % 2:
                await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert all(other.done for other in others)
        assert tasks["a"] is newest
        tasks.cancel("a")
    begun = [event for event in heard.of(TaskStarted) if event.name == "a"]
    never_begun = [event for event in heard.of(TaskCancelled) if event.duration is None]
    assert len(begun) >= 2
    assert len(begun) + len(never_begun) + len(heard.of(TaskSuperseded)) == 201
    assert len(heard.of(TaskQueued)) == 200


# Waiting


@both
async def test_pending_is_not_idle_and_not_free(how: How, autojump_clock: MockClock) -> None:
    event = trio.Event()
    times: dict[str, float] = {}
    async with namedtasks.open_task_map() as tasks, trio.open_nursery() as nursery:

        async def note(verb: str, *args: Any) -> None:
            await getattr(tasks, verb)(*args)
            times[verb] = trio.current_time()

        tasks.start_soon("a", stubborn, event)
        await wait_all_tasks_blocked()
        tasks.start_soon("a", trio.sleep, 5, if_busy=how)
        for verb in ("wait_idle", "wait_empty"):
            nursery.start_soon(note, verb)
        nursery.start_soon(note, "wait_free", "a")
        await trio.sleep(1)
        assert times == {}
        event.set()
    assert times == {"wait_idle": 6, "wait_empty": 6, "wait_free": 6}


async def test_idle_waits_for_who_sits_out_a_wait(autojump_clock: MockClock) -> None:
    """Nothing runs meanwhile, and the name may not be started."""
    async with namedtasks.open_task_map(instruments=[]) as tasks:
        tasks.start_soon("a", boom)
        await tasks.wait_idle()
        queued = tasks.start_soon("a", value, "queued", if_busy="queue")
        assert (len(tasks), tasks.statistics().pending) == (0, 1)
        assert tasks.state("a") is State.WAITING
        await tasks.wait_idle()
        assert (trio.current_time(), await queued.wait()) == (0.5, "queued")
        assert tasks.statistics().pending == 0


@both
async def test_shutdown_with_grace_cancels_what_is_pending_too(
    how: How, autojump_clock: MockClock
) -> None:
    async with namedtasks.open_task_map() as tasks:
        event = trio.Event()
        old = tasks.start_soon("a", stubborn, event)
        await wait_all_tasks_blocked()
        pending = tasks.start_soon("a", value, "pending", if_busy=how)
        assert await tasks.shutdown(grace=2) == ("a",)
        assert trio.current_time() == 3
        assert await why(pending) == "the map is shutting down"
        assert old.overdue
        event.set()
        await old.wait()


@both
async def test_shutdown_without_grace_waits_for_what_comes_next(how: How) -> None:
    event = trio.Event()
    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("a", event.wait)
        await wait_all_tasks_blocked()
        pending = tasks.start_soon("a", value, "pending", if_busy=how)
        tasks.close()
        with pytest.raises(ClosedError):
            tasks.start_soon("a", value, "too late", if_busy=how)
        event.set()
        assert await tasks.shutdown() == ()
        assert await pending.wait() == "pending"


# The end of the block


@both
async def test_the_block_waits_for_what_comes_next(how: How) -> None:
    event = trio.Event()
    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("a", event.wait)
        await wait_all_tasks_blocked()
        pending = tasks.start_soon("a", value, "pending", if_busy=how)
        event.set()
    assert await pending.wait() == "pending"


async def test_the_block_drops_what_would_sit_out_a_wait(autojump_clock: MockClock) -> None:
    """One that sits it out already, and one whose run fails while the block waits."""
    async with namedtasks.open_task_map(instruments=[]) as tasks:
        tasks.start_soon("waits", boom)
        await tasks.wait_idle()
        waits = tasks.start_soon("waits", value, "a", if_busy="queue")
        tasks.start_soon("fails", boom)
        fails = tasks.start_soon("fails", value, "b", if_busy="queue")
    assert trio.current_time() == 0
    assert [await why(handle) for handle in (waits, fails)] == ["the map is closing"] * 2


@both
async def test_an_exception_in_the_block_ends_what_is_pending(how: How) -> None:
    """All are told; a coroutine left un-awaited would warn, and warnings are errors."""
    handles: list[TaskHandle[Any]] = []
    with pytest.raises(ZeroDivisionError):
        async with namedtasks.open_task_map() as tasks:
            tasks.start_soon("a", trio.sleep_forever)
            tasks.start_soon("b", boom)
            await wait_all_tasks_blocked()
            handles.append(tasks.start_soon("a", value, "a", if_busy=how))
            handles.append(tasks.start_soon("b", value, "b", if_busy="queue"))
            raise ZeroDivisionError("mine")
    reason = "the map's block raised ZeroDivisionError: mine"
    assert [await why(handle) for handle in handles] in (
        [reason, "the map is closing"],
        [reason, reason],
    )
    gc.collect()


@both
async def test_a_cancellation_of_the_surroundings_ends_what_is_pending(how: How) -> None:
    handles: list[TaskHandle[Any]] = []
    with trio.CancelScope() as scope:
        async with namedtasks.open_task_map() as tasks:
            handles.append(tasks.start_soon("a", trio.sleep_forever))
            await wait_all_tasks_blocked()
            handles.append(tasks.start_soon("a", value, "a", if_busy=how))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    reasons = [await why(handle) for handle in handles]
    assert reasons[1] == "an enclosing cancel scope was cancelled"
    gc.collect()


@both
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_goes_up_through_the_map_ends_what_is_pending(
    how: How, kind: type[BaseException]
) -> None:
    """The pending run does not take the name of the run that brought the map down."""
    event = trio.Event()
    handles: list[TaskHandle[Any]] = []

    async def interrupted() -> None:
        await event.wait()
        raise kind

    with pytest.raises(kind):
        async with namedtasks.open_task_map(instruments=[]) as tasks:
            tasks.start_soon("a", interrupted)
            await wait_all_tasks_blocked()
            handles.append(tasks.start_soon("a", value, "a", if_busy="queue"))
            if how == "replace":
                tasks.start_soon("b", trio.sleep_forever)
                handles.append(tasks.start_soon(("b", ANY), value, "b"))
                handles.append(tasks.start_soon(("b", 1), value, "b", if_busy="replace"))
            event.set()
    for handle in handles:
        await why(handle)
    gc.collect()


# Overlapping names, posts, statistics


async def test_a_replacement_of_all_that_overlaps_keeps_newer_starts_out() -> None:
    event = trio.Event()
    async with namedtasks.open_task_map() as tasks:
        olds = [tasks.start_soon(("vol", pod), stubborn, event) for pod in range(20)]
        await wait_all_tasks_blocked()
        new = tasks.start_soon(("vol", ANY), value, "new", if_busy="replace")
        with pytest.raises(AlreadyRunningError) as caught:
            tasks.start_soon(("vol", 20), value, "refused")
        assert caught.value.holders == (("vol", ANY),)
        assert caught.value.started_at is None
        refused = tasks.check(("vol", ANY))
        assert isinstance(refused, AlreadyRunningError)
        assert len(refused.holders) == 10, "of twenty: an error names ten at most"
        event.set()
        assert await new.wait() == "new"
        assert all(old.done for old in olds)


async def test_a_task_cannot_wait_for_a_name_that_overlaps_its_own() -> None:
    async with namedtasks.open_task_map() as tasks:

        async def body() -> None:
            with pytest.raises(RuntimeError, match=r"^inside task .*, wait_free\(\) would "):
                await tasks.wait_free(("vol", 1))
            await tasks.wait_free(("other", 1))

        await tasks.start_soon(("vol", ANY), body).wait()


async def test_a_post_may_say_what_to_do_about_a_busy_name() -> None:
    heard = RecordingInstrument()
    event = trio.Event()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        tasks.start_soon("a", event.wait)
        await wait_all_tasks_blocked()

        def poster() -> None:
            for number in range(3):
                tasks.post("a", value, str(number), if_busy="queue")
            tasks.post("a", value, "never begins", if_busy="join")
            with pytest.raises(ValueError, match=r"^if_busy must be 'refuse', 'skip', 'join', "):
                tasks.post("a", value, "never", if_busy=cast("How", "wait"))

        await trio.to_thread.run_sync(poster)
        await wait_all_tasks_blocked()
        assert tasks.statistics().pending == 1
        event.set()
    assert len(heard.of(TaskSuperseded)) == 2
    assert len(heard.of(TaskSucceeded)) == 2


async def test_a_run_may_queue_its_own_name_and_not_wait_for_it() -> None:
    """A run that waited for what queues behind it would wait for itself."""
    runs = 0

    async def body(tasks: TaskMap) -> None:
        nonlocal runs
        runs += 1
        if runs < 5:
            tasks.start_soon("a", body, tasks, if_busy="queue")
            tasks.start_soon("a", body, tasks, if_busy="queue")
        await trio.lowlevel.checkpoint()

    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("a", body, tasks)
    assert runs == 5


async def test_a_name_that_gives_up_tells_who_queues_and_closes_the_body() -> None:
    async with namedtasks.open_task_map(backoff=Backoff(give_up_after=1), instruments=[]) as tasks:
        tasks.start_soon("a", boom)
        queued = tasks.start_soon("a", value, "queued", if_busy="queue")
        assert await why(queued) == "its name gave up"
        assert tasks.state("a") is State.GAVE_UP
    gc.collect()
