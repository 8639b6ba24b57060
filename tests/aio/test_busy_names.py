"""Busy names in the asyncio shell: what is asyncio's own about joining, replacing and queueing."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any, Literal, cast

import pytest

from namedtasks import (
    ANY,
    AlreadyRunningError,
    Backoff,
    BackoffError,
    ClosedError,
    GaveUpError,
    State,
    TaskCancelledError,
    current_run,
)
from namedtasks._base import cancel_run
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskOverdue,
    TaskQueued,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, run, virtual

How = Literal["replace", "queue"]
both = pytest.mark.parametrize("how", ["replace", "queue"])

EAGER = pytest.param(
    True, marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
)
lazy_and_eager = pytest.mark.parametrize("eager", [False, EAGER])

SUPERSEDED = "superseded by a newer start of its name"
REPLACED = "replaced by a newer start"
CLOSING = "the map is closing"


class Escape(BaseException):
    """Goes up."""


def kinds(heard: RecordingInstrument) -> list[type]:
    return [type(event) for event in heard.events]


async def value(what: str) -> str:
    await asyncio.sleep(0)
    return what


async def boom() -> None:
    await asyncio.sleep(0)
    raise ValueError("boom")


async def stubborn(event: asyncio.Event) -> str:
    while not event.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await event.wait()
    return "done after all"


async def lingers(order: list[str]) -> None:
    try:
        await asyncio.sleep(100)
    finally:
        await asyncio.sleep(5)
        order.append("old")


async def why(future: asyncio.Future[Any]) -> str | None:
    """Why a run was cancelled."""
    await asyncio.wait([future], timeout=1)
    assert future.cancelled()
    with pytest.raises(asyncio.CancelledError) as caught:
        await future
    return str(caught.value) or None


async def why_joined(future: asyncio.Future[Any]) -> str | None:
    """Return the reason that a joined future gives for the cancellation of its run."""
    await asyncio.wait([future], timeout=1)
    assert not isinstance(future, asyncio.Task)
    assert not future.cancelled()
    with pytest.raises(TaskCancelledError) as caught:
        await future
    return caught.value.reason


def raises() -> Any:
    raise ZeroDivisionError("no body")


# Joining


@virtual()
async def test_who_joins_has_a_future_and_the_first_one_too() -> None:
    """So that nobody, the first one included, cancels it for the others."""
    async with open_task_map() as tasks:
        first = tasks.create_task("a", value, "the value", if_busy="join")
        second = tasks.create_task("a", value, "another", if_busy="join")
        assert not isinstance(first, asyncio.Task)
        assert first is not second
        task = tasks["a"]
        assert [await first, await second, await task] == ["the value"] * 3
        assert tasks.create_task("a", value, "free").get_name() == "a"


@virtual()
async def test_a_joiner_that_leaves_does_not_cancel_the_run() -> None:
    """Whether its future is cancelled, or the task that awaits it, or its time is up."""
    event = asyncio.Event()
    async with open_task_map() as tasks:
        task = tasks.create_task("a", event.wait)
        one = tasks.create_task("a", event.wait, if_busy="join")
        assert one.cancel("not any more")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(tasks.create_task("a", event.wait, if_busy="join"), 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await tasks.create_task("a", event.wait, if_busy="join")

        async def join() -> None:
            await tasks.create_task("a", event.wait, if_busy="join")

        waiter = asyncio.create_task(join())
        await loop_now().settle()
        waiter.cancel()
        await asyncio.wait([waiter])
        assert waiter.cancelled()
        assert not task.done()
        stays = tasks.create_task("a", event.wait, if_busy="join")
        event.set()
        assert await stays
        assert await task


@virtual()
async def test_the_run_forgets_who_has_left() -> None:
    """A long run that is joined and left again and again keeps nothing of that."""
    async with open_task_map() as tasks:
        tasks.create_task("a", asyncio.sleep, 1)
        stays = tasks.create_task("a", asyncio.sleep, 1, if_busy="join")
        for _ in range(10):
            tasks.create_task("a", asyncio.sleep, 1, if_busy="join").cancel()
        await loop_now().settle()
        run = tasks._backend.scheduler.running["a"]
        assert list(run.joined or ()) == [stays]
        await stays
        assert not run.joined


@virtual()
async def test_a_joiner_that_leaves_after_the_end_of_the_run_has_its_value() -> None:
    joined: list[asyncio.Future[str]] = []

    async def body() -> str:
        loop_now().call_soon(joined[0].cancel)
        return "value"

    async with open_task_map() as tasks:
        task = tasks.create_task("a", body)
        joined += [tasks.create_task("a", body, if_busy="join") for _ in range(2)]
        assert await joined[1] == await task == "value"
        assert joined[0].result() == "value"


@virtual()
async def test_who_joins_a_run_that_fails_gets_its_own_error() -> None:
    """And who does not look is not told that it was never retrieved."""
    async with open_task_map(instruments=()) as tasks:
        task = tasks.create_task("a", boom)
        joined = [tasks.create_task("a", boom, if_busy="join") for _ in range(2)]
        with pytest.raises(ValueError, match=r"^boom$") as caught:
            await joined[0]
        assert caught.value is task.exception()
        with pytest.raises(BackoffError):
            tasks.create_task("a", boom, if_busy="join")
    del joined, task
    gc.collect()


@virtual()
async def test_who_joins_a_run_that_is_cancelled_hears_why() -> None:
    """As an error: a cancellation would look like one of the task that awaits the future."""
    async with open_task_map() as tasks:
        task = tasks.create_task("a", asyncio.sleep, 100)
        joined = tasks.create_task("a", asyncio.sleep, 100, if_busy="join")
        await loop_now().settle()
        tasks.cancel("a", reason="enough")
        also = tasks.create_task("a", asyncio.sleep, 100, if_busy="join")
        assert await why(task) == "enough"
        assert [await why_joined(future) for future in (joined, also)] == ["enough"] * 2


@virtual()
async def test_who_joins_a_run_that_its_deadline_stops_gets_the_timeout() -> None:
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("a", asyncio.sleep, 100, timeout=2)
        with pytest.raises(TimeoutError, match=r"^it took longer than its timeout of 2 s$"):
            await tasks.create_task("a", asyncio.sleep, 100, if_busy="join")


@virtual()
async def test_a_run_that_was_cancelled_and_returns_regardless_gives_its_value_to_all() -> None:
    event = asyncio.Event()
    async with open_task_map() as tasks:
        task = tasks.create_task("a", stubborn, event)
        joined = tasks.create_task("a", stubborn, event, if_busy="join")
        await loop_now().settle()
        tasks.cancel("a")
        task.cancel()
        await loop_now().settle()
        event.set()
        assert await joined == await task == "done after all"


@virtual()
async def test_who_joins_a_run_in_line_for_a_slot_gets_its_value_or_hears_why_not() -> None:
    async with open_task_map(limit=1) as tasks:
        event = asyncio.Event()
        tasks.create_task("first", event.wait)
        begins = tasks.create_task("a", value, "a", if_busy="join")
        tasks.create_task("b", value, "b")
        never = tasks.create_task("b", value, "b", if_busy="join")
        tasks.cancel("b", reason="not needed")
        assert await why_joined(never) == "not needed"
        event.set()
        assert await begins == "a"


@virtual()
async def test_the_joined_are_done_when_the_block_is_over() -> None:
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("a", value, "a")
        joined = tasks.create_task("a", value, "b", if_busy="join")
    assert joined.result() == "a"


@virtual()
async def test_an_await_of_ones_own_run_is_refused_as_that_of_ones_own_task_is() -> None:
    """From what the body has started, too. Who joined and is done may be awaited anywhere."""
    async with open_task_map() as tasks:

        async def join() -> str:
            joined = tasks.create_task("a", value, "never begins", if_busy="join")
            with pytest.raises(
                RuntimeError,
                match=r"^inside task 'a', await of its own future would wait for the task itself: "
                r"call it outside the task$",
            ):
                await joined
            return "went on"

        async def in_a_child() -> str:
            return await asyncio.create_task(join())

        assert await tasks.create_task("a", join) == "went on"
        assert await tasks.create_task("a", in_a_child) == "went on"
        done = tasks.create_task("a", value, "done", if_busy="join")
        await asyncio.wait([done])

        async def look() -> str:
            return await done

        assert await tasks.create_task("a", look) == "done"


@virtual()
async def test_a_function_may_start_the_name_that_it_is_to_give_a_body_for() -> None:
    """The inner start wins; the outer one then finds a name that runs."""
    inner: list[asyncio.Future[Any]] = []
    async with open_task_map() as tasks:

        def gives(then: Callable[[], Any]) -> Any:
            inner.append(tasks.create_task("a", value, "inner", if_busy="join"))
            return then()

        joined = tasks.create_task("a", gives, lambda: value("outer"), if_busy="join")
        assert await asyncio.gather(joined, *inner) == ["inner", "inner"]
        skipped = tasks.create_task("a", gives, lambda: value("outer"), if_busy="skip")
        assert skipped is None
        assert await inner[1] == "inner"
        with pytest.raises(AlreadyRunningError):
            tasks.create_task("a", gives, lambda: value("outer"))
        assert await inner[2] == "inner"
        with pytest.raises(ZeroDivisionError):
            tasks.create_task("a", gives, raises)
        assert await inner[3] == "inner"


@virtual()
async def test_joining_inside_a_task_group() -> None:
    """The group's failure cancels who joined, and not the run."""
    event = asyncio.Event()
    async with open_task_map() as tasks:
        task = tasks.create_task("a", event.wait)

        async def join() -> Any:
            return await tasks.create_task("a", event.wait, if_busy="join")

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(join())
                group.create_task(boom())
        assert [str(error) for error in caught.value.exceptions] == ["boom"]
        assert not task.done()
        async with asyncio.TaskGroup() as group:
            joined = group.create_task(join())
            event.set()
        assert joined.result() is True


# Replacing


@virtual()
async def test_a_replacement_begins_when_the_old_run_has_really_ended() -> None:
    """And it is a Task from the start: it may be awaited, cancelled, waited for."""
    order: list[str] = []

    async def new() -> str:
        order.append("new")
        return "new"

    async with open_task_map() as tasks:
        old = tasks.create_task("a", lingers, order)
        await loop_now().settle()
        task = tasks.create_task("a", new, if_busy="replace")
        assert isinstance(task, asyncio.Task)
        assert tasks["a"] is old
        assert tasks.statistics().pending == 1
        assert await task == "new"
        assert await why(old) == REPLACED
    assert order == ["old", "new"]


@virtual()
async def test_a_replacement_of_a_replacement_supersedes_it() -> None:
    heard = RecordingInstrument()
    event = asyncio.Event()
    async with open_task_map(instruments=[heard]) as tasks:
        old = tasks.create_task("a", stubborn, event)
        await loop_now().settle()
        second = tasks.create_task("a", value, "second", if_busy="replace")
        third = tasks.create_task("a", value, "third", if_busy="replace")
        assert await why(second) == SUPERSEDED
        assert not third.done()
        event.set()
        assert await third == "third"
        assert await old == "done after all"
    assert kinds(heard) == [
        TaskStarted,
        TaskQueued,
        TaskQueued,
        TaskSuperseded,
        TaskSucceeded,
        TaskStarted,
        TaskSucceeded,
    ]


@virtual()
async def test_a_replacement_waits_for_a_run_that_ignores_its_cancellation() -> None:
    heard = RecordingInstrument()
    event = asyncio.Event()
    async with open_task_map(instruments=[heard], overdue_after=2) as tasks:
        old = tasks.create_task("a", stubborn, event)
        await loop_now().settle()
        new = tasks.create_task("a", value, "new", if_busy="replace")
        await asyncio.sleep(3)
        (overdue,) = heard.of(TaskOverdue)
        assert overdue.name == "a"
        statistics = tasks.statistics()
        assert (statistics.running, statistics.pending, statistics.overdue) == (1, 1, 1)
        assert (old.done(), new.done()) == (False, False)
        event.set()
        assert await new == "new"
        assert tasks.statistics().overdue == 0


@virtual(autojump=False)
async def test_a_replacement_waits_for_a_thread_that_cannot_be_stopped() -> None:
    """Never are there two."""
    go = threading.Event()
    loop = loop_now()
    began = asyncio.Event()
    inside = 0

    def body() -> str:
        nonlocal inside
        inside += 1
        assert inside == 1
        loop.call_soon_threadsafe(began.set)
        go.wait(30)
        inside -= 1
        return "a thread's result"

    heard = RecordingInstrument()
    async with open_task_map(overdue_after=1, instruments=[heard]) as tasks:
        old = tasks.run_in_executor("a", body)
        await began.wait()
        superseded = tasks.run_in_executor("a", body, if_busy="replace")
        new = tasks.run_in_executor("a", body, if_busy="replace")
        await loop.advance(2)
        assert await why(superseded) == SUPERSEDED
        statistics = tasks.statistics()
        assert (statistics.running, statistics.pending, statistics.overdue) == (1, 1, 1)
        assert len(heard.of(TaskOverdue)) == 1
        go.set()
        assert await old == "a thread's result"
        assert await new == "a thread's result"


@virtual(autojump=False)
async def test_a_thread_that_looks_is_replaced_soon() -> None:
    loop = loop_now()
    began = asyncio.Event()
    go_on = threading.Event()

    def body() -> None:
        loop.call_soon_threadsafe(began.set)
        go_on.wait(30)
        current_run().check_cancelled()

    async with open_task_map() as tasks:
        old = tasks.run_in_executor("a", body)
        joined = tasks.run_in_executor("a", body, if_busy="join")
        await began.wait()
        new = tasks.run_in_executor("a", lambda: "new", if_busy="replace")
        go_on.set()
        assert await new == "new"
        assert await why(old) == REPLACED
        assert await why_joined(joined) == REPLACED


@virtual()
async def test_a_replacement_of_one_that_waits_for_a_slot_takes_its_place() -> None:
    async with open_task_map(limit=1) as tasks:
        event = asyncio.Event()
        tasks.create_task("first", event.wait)
        in_line = tasks.create_task("a", value, "old")
        last = tasks.create_task("last", value, "last")
        new = tasks.create_task("a", value, "new", if_busy="replace")
        assert await why(in_line) == REPLACED
        event.set()
        assert await new == "new"
        assert not last.done()


@virtual()
async def test_a_replacement_of_one_whose_first_step_has_not_come() -> None:
    begun: list[int] = []

    async def body(number: int) -> None:
        begun.append(number)

    async with open_task_map() as tasks:
        olds = [tasks.create_task("a", body, 0)]
        olds += [tasks.create_task("a", body, number, if_busy="replace") for number in range(1, 5)]
        await olds[-1]
    assert begun == [4]
    assert [await why(old) for old in olds[:-1]] == [REPLACED, SUPERSEDED, SUPERSEDED, SUPERSEDED]


@virtual()
async def test_a_storm_of_replacements_starves_nobody() -> None:
    heard = RecordingInstrument()
    async with open_task_map(limit=2, instruments=[heard]) as tasks:
        others = [tasks.create_task(("other", number), value, "other") for number in range(20)]
        newest = tasks.create_task("a", asyncio.sleep, 100)
        for number in range(200):
            newest = tasks.create_task("a", asyncio.sleep, 100, if_busy="replace")
            if number % 2:
                await asyncio.sleep(0)
        await loop_now().settle()
        assert all(other.done() for other in others)
        assert tasks["a"] is newest
        tasks.cancel("a")
    begun = [event for event in heard.of(TaskStarted) if event.name == "a"]
    never_begun = [event for event in heard.of(TaskCancelled) if event.duration is None]
    assert len(begun) >= 2
    assert len(begun) + len(never_begun) + len(heard.of(TaskSuperseded)) == 201
    assert len(heard.of(TaskQueued)) == 200


# Queueing


@virtual()
async def test_a_queued_run_comes_after_the_one_that_runs() -> None:
    async with open_task_map() as tasks:
        old = tasks.create_task("a", asyncio.sleep, 5)
        queued = tasks.create_task("a", value, "queued", if_busy="queue")
        assert await queued == "queued"
        assert old.done()
        assert old.exception() is None


@virtual()
async def test_a_queued_run_sits_out_the_wait_of_a_failure_before_it() -> None:
    """One on record already, and one that comes while it is queued."""
    start = loop_now().time()
    async with open_task_map(backoff=Backoff(initial=2), instruments=()) as tasks:
        tasks.create_task("a", boom)
        await tasks.wait_idle()
        again = tasks.create_task("a", boom, if_busy="queue")
        assert tasks.state("a") is State.WAITING
        await asyncio.wait([again])
        assert isinstance(again.exception(), ValueError)
        assert loop_now().time() == start + 2
        await tasks.wait_free("a")
        tasks.create_task("a", boom)
        queued = tasks.create_task("a", value, "queued", if_busy="queue")
        await tasks.wait_idle()
        assert await queued == "queued"
        assert loop_now().time() == start + 2 + 4 + 8


@virtual()
async def test_forget_lets_begin_what_is_queued_behind_a_wait() -> None:
    start = loop_now().time()
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("a", boom)
        await tasks.wait_idle()
        queued = tasks.create_task("a", value, "queued", if_busy="queue")
        assert tasks.forget("a")
        assert await queued == "queued"
    assert loop_now().time() == start


@virtual()
async def test_a_name_that_gives_up_tells_who_queues_and_refuses_who_comes_later() -> None:
    async with open_task_map(backoff=Backoff(give_up_after=1), instruments=()) as tasks:
        tasks.create_task("a", boom)
        queued = tasks.create_task("a", value, "queued", if_busy="queue")
        assert await why(queued) == "its name gave up"
        assert tasks.state("a") is State.GAVE_UP
        for how in ("queue", "join", "replace"):
            with pytest.raises(GaveUpError):
                tasks.create_task("a", value, "refused", if_busy=cast("How", how))
        assert tasks.create_task("a", value, "skipped", if_busy="skip") is None
        tasks.forget("a")
        assert await tasks.create_task("a", value, "free", if_busy="queue") == "free"
    gc.collect()


@virtual()
async def test_a_queued_run_waits_in_line_for_its_slot() -> None:
    order: list[str] = []

    async def body(what: str) -> None:
        order.append(what)
        await asyncio.sleep(1)

    async with open_task_map(limit=1) as tasks:
        tasks.create_task("a", body, "first")
        tasks.create_task("b", body, "in line")
        tasks.create_task("a", body, "queued", if_busy="queue")
        statistics = tasks.statistics()
        assert (statistics.running, statistics.pending, statistics.waiting_for_slot) == (2, 1, 1)
        await asyncio.sleep(1.5)
        statistics = tasks.statistics()
        assert (statistics.running, statistics.pending, statistics.waiting_for_slot) == (2, 0, 1)
    assert order == ["first", "in line", "queued"]


@virtual()
async def test_a_run_may_queue_its_own_name_and_not_wait_for_it() -> None:
    runs = 0

    async def body(tasks: TaskMap) -> None:
        nonlocal runs
        runs += 1
        if runs < 5:
            tasks.create_task("a", body, tasks, if_busy="queue")
            tasks.create_task("a", body, tasks, if_busy="queue")
        await asyncio.sleep(0)

    async with open_task_map() as tasks:
        tasks.create_task("a", body, tasks)
    assert runs == 5


# Cancelling what is pending

Cancel = Callable[[TaskMap, "asyncio.Task[Any]"], object]

BY_THE_MAP: Cancel = lambda tasks, task: tasks.cancel("a")  # noqa: E731
BY_THE_TASK: Cancel = lambda tasks, task: task.cancel()  # noqa: E731


@both
@lazy_and_eager
@pytest.mark.parametrize("steps", range(3))
def test_a_pending_task_that_is_cancelled_never_begins(how: How, steps: int, eager: bool) -> None:
    """However far it had come; the old run goes on, if it does not mind."""

    async def main() -> None:
        heard = RecordingInstrument()
        event = asyncio.Event()
        async with open_task_map(instruments=[heard]) as tasks:
            old = tasks.create_task("a", stubborn, event)
            await loop_now().settle()
            pending = tasks.create_task("a", value, "pending", if_busy=how)
            for _ in range(steps):
                await asyncio.sleep(0)
            assert pending.cancel()
            await asyncio.wait([pending])
            assert pending.cancelled()
            assert tasks.statistics().pending == 0
            assert not old.done()
            event.set()
            assert await old == "done after all"
        (cancelled,) = heard.of(TaskCancelled)
        assert (cancelled.reason, cancelled.duration) == (None, None)
        assert tasks.state("a") is State.FREE

    run(main, eager=eager)


@both
@lazy_and_eager
@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("cancel", [BY_THE_MAP, BY_THE_TASK])
def test_a_run_whose_turn_comes_is_cancelled_at_each_step(
    how: How, steps: int, eager: bool, cancel: Cancel
) -> None:
    """Before it has its name, with it, before its first step, and after: it ends once."""

    async def main() -> None:
        heard = RecordingInstrument()
        begun: list[int] = []

        async def body() -> None:
            begun.append(1)
            await asyncio.sleep(100)

        event = asyncio.Event()
        async with open_task_map(instruments=[heard]) as tasks:
            old = tasks.create_task("a", event.wait)
            await loop_now().settle()
            pending = tasks.create_task("a", body, if_busy=how)
            event.set()
            for _ in range(steps):
                await asyncio.sleep(0)
            cancel(tasks, pending)
            await asyncio.wait([old, pending])
            assert pending.cancelled()
            await tasks.wait_idle()
            assert tasks.state("a") is State.FREE
            assert await tasks.create_task("a", value, "free") == "free"
        ends = [event for event in heard.events if isinstance(event, TaskCancelled | TaskSucceeded)]
        assert len(ends) == 3
        assert len(heard.of(TaskStarted)) == 2 + len(begun)

    run(main, eager=eager)


@both
@virtual()
async def test_the_task_of_the_running_one_lets_the_pending_one_begin(how: How) -> None:
    async with open_task_map() as tasks:
        old = tasks.create_task("a", asyncio.sleep, 100)
        await loop_now().settle()
        pending = tasks.create_task("a", value, "pending", if_busy=how)
        old.cancel()
        assert await pending == "pending"
        assert old.cancelled()


@both
@virtual()
async def test_cancel_ends_both_and_joiners_of_the_old_one_hear_of_it(how: How) -> None:
    async with open_task_map() as tasks:
        old = tasks.create_task("a", asyncio.sleep, 100)
        await loop_now().settle()
        joined = tasks.create_task("a", asyncio.sleep, 100, if_busy="join")
        pending = tasks.create_task("a", value, "pending", if_busy=how)
        assert tasks.cancel("a", reason="both")
        expected = REPLACED if how == "replace" else "both"
        assert await why(old) == expected
        assert await why_joined(joined) == expected
        assert await why(pending) == "both"


@virtual()
async def test_who_awaits_a_pending_task_and_leaves_cancels_it_as_any_task() -> None:
    """That is asyncio's rule; `asyncio.shield` is asyncio's cure."""
    event = asyncio.Event()
    async with open_task_map() as tasks:
        tasks.create_task("a", event.wait)
        pending = tasks.create_task("a", value, "pending", if_busy="queue")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(pending), 1)
        assert not pending.done()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pending, 1)
        assert pending.cancelled()
        event.set()


# The function that gives the body


@both
@pytest.mark.parametrize("gives", [raises, lambda: 5])
def test_a_function_that_gives_no_body_leaves_the_pending_run_in_its_place(
    how: How, gives: Any
) -> None:
    """Nobody is superseded and nobody cancelled by a start that never was."""

    async def main() -> None:
        heard = RecordingInstrument()
        event = asyncio.Event()
        async with open_task_map(instruments=[heard]) as tasks:
            old = tasks.create_task("a", event.wait)
            await loop_now().settle()
            pending = tasks.create_task("a", value, "the one from before", if_busy="queue")
            with pytest.raises((ZeroDivisionError, TypeError)):
                tasks.create_task("a", gives, if_busy=how)
            assert tasks.statistics().pending == 1
            assert tasks["a"] is old
            event.set()
            assert await pending == "the one from before"
        assert kinds(heard).count(TaskQueued) == 1
        assert not heard.of(TaskSuperseded)
        assert not heard.of(TaskCancelled)

    run(main)


@both
@virtual()
async def test_a_task_factory_that_raises_leaves_it_too(how: How) -> None:
    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        raise OSError("no task today")

    event = asyncio.Event()
    loop = loop_now()
    async with open_task_map() as tasks:
        tasks.create_task("a", event.wait)
        await loop.settle()
        pending = tasks.create_task("a", value, "before", if_busy="queue")
        loop.set_task_factory(make)
        with pytest.raises(OSError, match=r"^no task today$"):
            tasks.create_task("a", value, "never", if_busy=how)
        loop.set_task_factory(None)
        event.set()
        assert await pending == "before"


@both
@virtual()
async def test_the_function_is_called_at_once_and_not_for_a_refused_start(how: How) -> None:
    called: list[str] = []

    def gives(what: str) -> Any:
        called.append(what)
        return value(what)

    async with open_task_map() as tasks:
        tasks.create_task("a", asyncio.sleep, 100)
        tasks.create_task("a", gives, "put off", if_busy=how)
        tasks.create_task("a", gives, "joined", if_busy="join")
        tasks.create_task("a", gives, "skipped", if_busy="skip")
        assert called == ["put off"]
        tasks.cancel("a")


@both
@lazy_and_eager
@pytest.mark.parametrize("fails", [False, True])
def test_a_function_may_start_its_own_name_while_it_is_called(
    how: How, eager: bool, fails: bool
) -> None:
    """The outer start, which puts its run off when the function has returned, is the newer one."""

    async def main() -> None:
        started: list[asyncio.Task[str]] = []
        event = asyncio.Event()
        async with open_task_map() as tasks:

            def gives() -> Any:
                started.append(tasks.create_task("a", value, "inner", if_busy=how))
                return raises() if fails else value("outer")

            tasks.create_task("a", event.wait)
            await loop_now().settle()
            before = tasks.create_task("a", value, "before", if_busy="queue")
            if fails:
                with pytest.raises(ZeroDivisionError):
                    tasks.create_task("a", gives, if_busy=how)
            else:
                started.append(tasks.create_task("a", gives, if_busy=how))
                assert await why(started[0]) == SUPERSEDED
            event.set()
            assert await why(before) == SUPERSEDED
            assert await started[-1] == ("inner" if fails else "outer")

    run(main, eager=eager)


@both
@lazy_and_eager
@pytest.mark.parametrize("fails", [False, True])
def test_a_function_may_cancel_its_own_name_while_it_is_called(
    how: How, eager: bool, fails: bool
) -> None:
    """The run in progress and the pending one; its own is not there yet."""

    async def main() -> None:
        async with open_task_map() as tasks:

            def gives() -> Any:
                tasks.cancel("a", reason="no more of it")
                return raises() if fails else value("a")

            old = tasks.create_task("a", asyncio.sleep, 100)
            await loop_now().settle()
            before = tasks.create_task("a", value, "before", if_busy="queue")
            if fails:
                with pytest.raises(ZeroDivisionError):
                    tasks.create_task("a", gives, if_busy=how)
            else:
                assert await tasks.create_task("a", gives, if_busy=how) == "a"
            assert await why(old) == "no more of it"
            assert await why(before) == "no more of it"

    run(main, eager=eager)


@both
@lazy_and_eager
@pytest.mark.parametrize("fails", [False, True])
def test_its_turn_may_come_while_the_function_is_called(how: How, eager: bool, fails: bool) -> None:
    """The run before it is in line for a slot: cancelled, it is gone at once."""

    async def main() -> None:
        event = asyncio.Event()
        async with open_task_map(limit=1) as tasks:

            def gives() -> Any:
                cancel_run(tasks._backend, tasks._backend.scheduler.running["a"], "gone")
                assert tasks.statistics().pending == 0
                return raises() if fails else value("its turn")

            tasks.create_task("first", event.wait)
            in_line = tasks.create_task("a", value, "in line")
            if fails:
                with pytest.raises(ZeroDivisionError):
                    tasks.create_task("a", gives, if_busy=how)
                assert tasks.state("a") is State.FREE
                event.set()
            else:
                task = tasks.create_task("a", gives, if_busy=how)
                event.set()
                assert await task == "its turn"
            assert await why(in_line) == "gone"

    run(main, eager=eager)


# What a run takes along


@both
@virtual()
async def test_a_run_that_was_put_off_has_the_context_of_its_call(how: How) -> None:
    color: contextvars.ContextVar[str] = contextvars.ContextVar("color")

    async def body() -> str:
        return color.get()

    event = asyncio.Event()
    async with open_task_map() as tasks:
        color.set("red")
        tasks.create_task("a", event.wait)
        await loop_now().settle()
        color.set("green")
        task = tasks.create_task("a", body, if_busy=how)
        color.set("blue")
        event.set()
        assert await task == "green"


@both
@virtual()
async def test_its_timeout_counts_from_its_first_step(how: How) -> None:
    start = loop_now().time()
    event = asyncio.Event()
    async with open_task_map() as tasks:
        tasks.create_task("a", stubborn, event)
        await loop_now().settle()
        task = tasks.create_task("a", asyncio.sleep, 2, "slept", if_busy=how, timeout=3)
        await asyncio.sleep(100)
        event.set()
        assert await task == "slept"
    assert loop_now().time() == start + 102


# Waiting


@both
@virtual()
async def test_pending_is_not_idle_and_not_free(how: How) -> None:
    event = asyncio.Event()
    times: dict[str, float] = {}
    start = loop_now().time()
    async with open_task_map() as tasks, asyncio.TaskGroup() as group:

        async def note(verb: str, *args: Any) -> None:
            await getattr(tasks, verb)(*args)
            times[verb] = loop_now().time() - start

        tasks.create_task("a", stubborn, event)
        await loop_now().settle()
        tasks.create_task("a", asyncio.sleep, 5, if_busy=how)
        for verb in ("wait_idle", "wait_empty"):
            group.create_task(note(verb))
        group.create_task(note("wait_free", "a"))
        await asyncio.sleep(1)
        assert times == {}
        event.set()
    assert times == {"wait_idle": 6, "wait_empty": 6, "wait_free": 6}


@virtual()
async def test_idle_waits_for_who_sits_out_a_wait() -> None:
    start = loop_now().time()
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("a", boom)
        await tasks.wait_idle()
        queued = tasks.create_task("a", value, "queued", if_busy="queue")
        assert (len(tasks), tasks.statistics().pending) == (0, 1)
        await tasks.wait_idle()
        assert (loop_now().time(), await queued) == (start + 0.5, "queued")


@both
@virtual()
async def test_shutdown_with_grace_cancels_what_is_pending_too(how: How) -> None:
    start = loop_now().time()
    async with open_task_map() as tasks:
        event = asyncio.Event()
        old = tasks.create_task("a", stubborn, event)
        await loop_now().settle()
        pending = tasks.create_task("a", value, "pending", if_busy=how)
        assert await tasks.shutdown(grace=2) == ("a",)
        assert loop_now().time() == start + 3
        assert await why(pending) == "the map is shutting down"
        assert tasks.statistics().overdue == 1
        event.set()
        await old


@both
@virtual()
async def test_shutdown_without_grace_waits_for_what_comes_next(how: How) -> None:
    event = asyncio.Event()
    async with open_task_map() as tasks:
        tasks.create_task("a", event.wait)
        await loop_now().settle()
        pending = tasks.create_task("a", value, "pending", if_busy=how)
        tasks.close()
        for what in (how, "join", "skip"):
            with pytest.raises(ClosedError):
                tasks.create_task("a", value, "too late", if_busy=cast("How", what))
        event.set()
        assert await tasks.shutdown() == ()
        assert await pending == "pending"


@virtual()
async def test_a_run_is_dropped_at_its_turn_if_the_map_was_closed_and_it_would_have_to_wait() -> (
    None
):
    async with open_task_map(instruments=()) as tasks:
        old = tasks.create_task("a", boom)
        queued = tasks.create_task("a", value, "queued", if_busy="queue")
        tasks.close()
        with pytest.raises(ValueError, match=r"^boom$"):
            await old
        assert await why(queued) == CLOSING


# The end of the block


@both
@virtual()
async def test_the_block_waits_for_what_comes_next(how: How) -> None:
    event = asyncio.Event()
    async with open_task_map() as tasks:
        tasks.create_task("a", event.wait)
        await loop_now().settle()
        pending = tasks.create_task("a", value, "pending", if_busy=how)
        event.set()
    assert pending.result() == "pending"


@virtual()
async def test_the_block_drops_what_would_sit_out_a_wait() -> None:
    """And all Tasks are done when it is over."""
    start = loop_now().time()
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("waits", boom)
        await tasks.wait_idle()
        waits = tasks.create_task("waits", value, "a", if_busy="queue")
    assert waits.cancelled()
    async with open_task_map(instruments=()) as tasks:
        tasks.create_task("fails", boom)
        fails = tasks.create_task("fails", value, "b", if_busy="queue")
    assert fails.cancelled()
    assert loop_now().time() == start
    assert [await why(task) for task in (waits, fails)] == [CLOSING] * 2


@virtual()
async def test_all_tasks_are_done_when_the_block_is_over() -> None:
    """Those too that were cancelled in line for a slot, as the block's last act."""
    async with open_task_map(limit=1) as tasks:
        made = [tasks.create_task(name, asyncio.sleep, 0) for name in "abc"]
        await loop_now().settle()
        made += [tasks.create_task(name, asyncio.sleep, 100) for name in "abc"]
        await asyncio.sleep(0)
        tasks.cancel_all()
    assert all(task.done() for task in made)


@virtual()
async def test_a_cancellation_that_comes_as_the_last_task_is_on_its_way_out() -> None:
    """The block is left for it, as for any; and not before the Task is done."""
    made: list[asyncio.Task[Any]] = []

    async def block() -> None:
        async with open_task_map(instruments=()) as tasks:
            tasks.create_task("a", boom)
            await tasks.wait_idle()
            made.append(tasks.create_task("a", value, "never", if_busy="queue"))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(outer.cancel)

    outer = asyncio.create_task(block())
    await asyncio.wait([outer])
    assert outer.cancelled()
    assert made[0].cancelled()


@both
@virtual()
async def test_an_exception_in_the_block_ends_what_is_pending(how: How) -> None:
    """All are told; a coroutine left un-awaited would warn, and warnings are errors."""
    made: list[asyncio.Task[Any]] = []
    with pytest.raises(ZeroDivisionError):
        async with open_task_map(instruments=()) as tasks:
            tasks.create_task("a", asyncio.sleep, 100)
            tasks.create_task("b", boom)
            await loop_now().settle()
            made.append(tasks.create_task("a", value, "a", if_busy=how))
            made.append(tasks.create_task("b", value, "b", if_busy="queue"))
            raise ZeroDivisionError("mine")
    assert [await why(task) for task in made] == [
        "the map's block raised ZeroDivisionError: mine",
        CLOSING,
    ]
    gc.collect()


@both
@virtual()
async def test_a_cancellation_of_the_blocks_task_ends_what_is_pending(how: How) -> None:
    made: list[asyncio.Future[Any]] = []

    async def block() -> None:
        async with open_task_map() as tasks:
            made.append(tasks.create_task("a", asyncio.sleep, 100))
            await asyncio.sleep(1)
            made.append(tasks.create_task("a", asyncio.sleep, 100, if_busy="join"))
            made.append(tasks.create_task("a", value, "a", if_busy=how))
            outer.cancel()
            await asyncio.sleep(100)

    outer = asyncio.create_task(block())
    await asyncio.wait([outer])
    assert outer.cancelled()
    reason = "the task that the map's block is in was cancelled"
    first = REPLACED if how == "replace" else reason
    running, joined, pending = made
    assert [await why(running), await why_joined(joined), await why(pending)] == [
        first,
        first,
        reason,
    ]
    gc.collect()


@both
@virtual()
async def test_what_goes_up_through_the_map_ends_what_is_pending(how: How) -> None:
    """The pending run does not take the name of the run that brought the map down."""

    event = asyncio.Event()
    made: list[asyncio.Future[Any]] = []

    async def escape() -> None:
        await event.wait()
        raise Escape

    with pytest.raises(Escape):
        async with open_task_map(instruments=()) as tasks:
            made.append(tasks.create_task("a", escape, if_busy="join"))
            await loop_now().settle()
            made.append(tasks.create_task("a", value, "a", if_busy="queue"))
            if how == "replace":
                tasks.create_task(("b", 1), asyncio.sleep, 100)
                made.append(tasks.create_task(("b", ANY), value, "b", if_busy="replace"))
            event.set()
            await asyncio.sleep(100)
    assert isinstance(made[0].exception(), Escape)
    for pending in made[1:]:
        assert await why(pending) == "task 'a' raised Escape"
    gc.collect()


# Somebody else's coroutine around the map's


def wrapped(error: BaseException) -> Callable[..., asyncio.Task[Any]]:
    """A task factory whose tasks fail, before they await what the map gave them."""

    async def around(coro: Any) -> Any:
        coro.close()
        raise error

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(around(coro), loop=loop, **options)

    return make


@both
@virtual()
async def test_a_pending_task_that_fails_before_its_turn_is_cancelled_and_counts_nothing(
    how: How,
) -> None:
    heard = RecordingInstrument()
    event = asyncio.Event()
    loop = loop_now()
    async with open_task_map(instruments=[heard]) as tasks:
        old = tasks.create_task("a", stubborn, event)
        await loop.settle()
        loop.set_task_factory(wrapped(OSError("no span")))
        pending = tasks.create_task("a", value, "never", if_busy=how)
        loop.set_task_factory(None)
        await asyncio.wait([pending])
        assert isinstance(pending.exception(), OSError)
        assert tasks.statistics().pending == 0
        (cancelled,) = heard.of(TaskCancelled)
        assert cancelled.reason == "its task raised OSError: no span"
        event.set()
        assert await old == "done after all"
        assert tasks.state("a") is State.FREE


@pytest.mark.parametrize("how", ["replace", "queue", "refuse"])
@virtual()
async def test_what_goes_up_from_a_task_before_its_turn_ends_it_once(
    how: Literal["replace", "queue", "refuse"],
) -> None:
    """Be it pending, or in line for a slot."""

    order: list[str] = []
    heard = RecordingInstrument()
    loop = loop_now()
    with pytest.raises(Escape):
        async with open_task_map(limit=1, instruments=[heard]) as tasks:
            tasks.create_task("a", lingers, order)
            await loop.settle()
            loop.set_task_factory(wrapped(Escape()))
            tasks.create_task("b" if how == "refuse" else "a", value, "never", if_busy=how)
            loop.set_task_factory(None)
            await asyncio.sleep(100)
    assert len(heard.of(TaskCancelled)) == 2


# Overlapping names, posts, instruments


@virtual()
async def test_a_replacement_of_all_that_overlaps_keeps_newer_starts_out() -> None:
    event = asyncio.Event()
    async with open_task_map() as tasks:
        olds = [tasks.create_task(("vol", pod), stubborn, event) for pod in range(20)]
        await loop_now().settle()
        new = tasks.create_task(("vol", ANY), value, "new", if_busy="replace")
        with pytest.raises(AlreadyRunningError) as caught:
            tasks.create_task(("vol", 20), value, "refused")
        assert caught.value.holders == (("vol", ANY),)
        assert caught.value.started_at is None
        refused = tasks.check(("vol", ANY))
        assert isinstance(refused, AlreadyRunningError)
        assert len(refused.holders) == 10, "of twenty: an error names ten at most"
        event.set()
        assert await new == "new"
        assert all(old.done() for old in olds)
        assert tasks.check(("vol", 20)) is None


@pytest.mark.parametrize("how", ["refuse", "join", "queue"])
@virtual()
async def test_to_join_and_to_queue_need_the_very_name(
    how: Literal["refuse", "join", "queue"],
) -> None:
    async with open_task_map() as tasks:
        tasks.create_task(("vol", 1), asyncio.sleep, 1)
        tasks.create_task(("vol", 2), asyncio.sleep, 1)
        with pytest.raises(AlreadyRunningError) as caught:
            tasks.create_task(("vol", ANY), value, "refused", if_busy=how)
        assert set(caught.value.holders) == {("vol", 1), ("vol", 2)}
        assert tasks.create_task(("vol", ANY), value, "skipped", if_busy="skip") is None
        assert tasks.create_task(("vol", 3), value, "free") in tasks.values()


@virtual()
async def test_a_replacement_that_overlaps_and_is_cancelled_lets_others_in() -> None:
    event = asyncio.Event()
    async with open_task_map() as tasks:
        tasks.create_task(("vol", 1), stubborn, event)
        await loop_now().settle()
        new = tasks.create_task(("vol", ANY), value, "never", if_busy="replace")
        assert isinstance(tasks.check(("vol", 2)), AlreadyRunningError)
        free = asyncio.create_task(tasks.wait_free(("vol", 2)))
        await loop_now().settle()
        new.cancel()
        await free
        assert await tasks.create_task(("vol", 2), value, "free") == "free"
        event.set()


@virtual()
async def test_a_post_may_say_what_to_do_about_a_busy_name() -> None:
    heard = RecordingInstrument()
    event = asyncio.Event()
    async with open_task_map(instruments=[heard]) as tasks:
        tasks.create_task("a", event.wait)
        await loop_now().settle()

        def poster() -> None:
            for number in range(3):
                tasks.post("a", value, str(number), if_busy="queue")
            tasks.post("a", value, "never begins", if_busy="join")
            tasks.post("b", boom, if_busy="join")
            with pytest.raises(ValueError, match=r"^if_busy must be 'refuse', 'skip', 'join', "):
                tasks.post("a", value, "never", if_busy=cast("How", "wait"))

        thread = threading.Thread(target=poster)
        thread.start()
        thread.join()
        await loop_now().settle()
        assert tasks.statistics().pending == 1
        event.set()
    assert len(heard.of(TaskSuperseded)) == 2
    assert len(heard.of(TaskSucceeded)) == 2
    gc.collect()


class Puts(Instrument):
    """Starts its name anew while it hears of the end of it."""

    def __init__(self, how: How) -> None:
        self.how: How = how
        self.tasks: TaskMap | None = None
        self.made: list[asyncio.Task[str]] = []

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        if len(self.made) < 4:
            assert self.tasks is not None
            for number in range(2):
                self.made.append(self.tasks.create_task("a", value, str(number), if_busy=self.how))


@both
@lazy_and_eager
def test_an_instrument_may_put_off_the_name_that_has_just_ended(how: How, eager: bool) -> None:
    async def main() -> None:
        puts = Puts(how)
        async with open_task_map(instruments=[puts]) as tasks:
            puts.tasks = tasks
            tasks.create_task("a", value, "first")
            await tasks.wait_idle()
        assert all(task.done() for task in puts.made)
        assert any(not task.cancelled() for task in puts.made)

    run(main, eager=eager)


@lazy_and_eager
def test_a_task_may_replace_itself(eager: bool) -> None:
    """It is cancelled at its next await, and the new one begins after that."""

    async def main() -> None:
        order: list[str] = []
        async with open_task_map() as tasks:

            async def new() -> None:
                order.append("new")

            async def body() -> None:
                tasks.create_task("a", new, if_busy="replace")
                order.append("old")
                try:
                    await asyncio.sleep(100)
                finally:
                    await asyncio.sleep(1)
                    order.append("old's end")

            old = tasks.create_task("a", body)
            await tasks.wait_idle()
        assert order == ["old", "old's end", "new"]
        assert await why(old) == REPLACED

    run(main, eager=eager)


@lazy_and_eager
def test_an_eager_body_shares_queues_and_skips_its_own_name(eager: bool) -> None:
    async def main() -> None:
        heard = RecordingInstrument()
        made: list[Any] = []
        async with open_task_map(instruments=[heard]) as tasks:

            async def body() -> str:
                made.append(tasks.create_task("a", value, "queued", if_busy="queue"))
                made.append(tasks.create_task("a", value, "never", if_busy="join"))
                assert tasks.create_task("a", value, "never", if_busy="skip") is None
                return "value"

            joined = tasks.create_task("a", body, if_busy="join")
            assert joined.done() == eager
            assert await joined == "value"
            assert await made[0] == "queued"
            assert await made[1] == "value"
        assert [event.skipped for event in heard.of(TaskRefused)] == [True]

    run(main, eager=eager)
