"""The trio map: what its users may rely on."""

import contextvars
import math
from collections.abc import Mapping
from typing import Any, Literal

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import (
    AlreadyRunningError,
    Backoff,
    BackoffError,
    ClosedError,
    State,
    TaskCancelledError,
    TaskFailedError,
)
from namedtasks.instruments import TaskRefused, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument


async def double(number: int) -> int:
    await trio.sleep(1)
    return 2 * number


async def boom() -> None:
    raise ValueError("boom")


async def test_a_run_gives_back_its_result(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", double, 21)
        assert not handle.done
        assert await handle.wait() == 42
        assert handle.done
        assert await handle.wait() == 42, "waiting again gives it again"


async def test_starting_comes_back_before_the_body_begins(autojump_clock: MockClock) -> None:
    began: list[int] = []

    async def body() -> None:
        began.append(1)

    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", body)
        assert began == []
        assert handle.started_at is None
        await handle.wait()
        assert handle.started_at == trio.current_time()


async def test_a_failure_is_contained_and_told_to_who_waits(autojump_clock: MockClock) -> None:
    """Siblings go on, and each waiter gets an error of its own from the same cause."""
    async with namedtasks.open_task_map() as tasks:
        sibling = tasks.start_soon("sibling", double, 1)
        handle = tasks.start_soon("a", boom)
        errors: list[TaskFailedError] = []

        async def waiter() -> None:
            with pytest.raises(TaskFailedError, match=r"^task 'a' failed: ValueError: boom$") as e:
                await handle.wait()
            errors.append(e.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            nursery.start_soon(waiter)
        first, second = errors
        assert first is not second
        assert first.__cause__ is second.__cause__
        assert await sibling.wait() == 2


async def test_a_traceback_starts_at_the_body(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        with pytest.raises(TaskFailedError) as caught:
            await tasks.start_soon("a", boom).wait()
        cause = caught.value.__cause__
        assert cause is not None
        assert cause.__traceback__ is not None
        assert cause.__traceback__.tb_frame.f_code is boom.__code__


async def test_a_name_runs_once_at_a_time(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        first = tasks.start_soon("a", double, 1)
        with pytest.raises(AlreadyRunningError):
            tasks.start_soon("a", double, 2)
        assert tasks.start_soon("a", double, 2, if_busy="skip") is None
        assert tasks["a"] is first
        assert await first.wait() == 2
        assert await tasks.start_soon("a", double, 3).wait() == 6


async def test_the_wait_doubles_and_begins_at_the_end_of_the_run(autojump_clock: MockClock) -> None:
    async def slow_boom() -> None:
        await trio.sleep(10)
        raise ValueError

    async with namedtasks.open_task_map(instruments=()) as tasks:
        for wait in (0.5, 1.0, 2.0):
            handle = tasks.start_soon("a", slow_boom)
            with pytest.raises(TaskFailedError):
                await handle.wait()
            error = tasks.check("a")
            assert isinstance(error, BackoffError)
            assert error.retry_at == trio.current_time() + wait
            await trio.sleep_until(error.retry_at)
            assert tasks.check("a") is None, "a start at exactly retry_at is admitted"


async def test_leaving_the_block_waits_for_what_runs(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", double, 1)
    assert handle.done
    assert await handle.wait() == 2


async def test_tasks_may_start_others_while_the_block_waits(autojump_clock: MockClock) -> None:
    """As in a nursery; after the last run the map is closed."""
    handles: list[namedtasks.TaskHandle[int]] = []

    async def chain(left: int) -> None:
        await trio.sleep(1)
        if left:
            tasks.start_soon(left, chain, left - 1)
        else:
            handles.append(tasks.start_soon("last", double, 4))

    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("first", chain, 3)
    assert await handles[0].wait() == 8
    with pytest.raises(ClosedError):
        tasks.start_soon("late", double, 1)


async def test_an_exception_in_the_block_cancels_what_runs_and_leaves_bare() -> None:
    handle: namedtasks.TaskHandle[None] | None = None
    with pytest.raises(KeyError, match=r"^'mine'$") as caught:
        async with namedtasks.open_task_map() as tasks:
            handle = tasks.start_soon("a", trio.sleep_forever)
            await wait_all_tasks_blocked()
            raise KeyError("mine")
    assert caught.value.__context__ is None
    assert handle is not None
    with pytest.raises(TaskCancelledError) as cancelled:
        await handle.wait()
    assert cancelled.value.reason == "the map's block raised KeyError: 'mine'"


async def test_a_group_raised_in_the_block_leaves_as_it_is() -> None:
    group = ExceptionGroup("mine", [ValueError("x")])
    with pytest.raises(ExceptionGroup) as caught:
        async with namedtasks.open_task_map():
            raise group
    assert caught.value is group


async def test_as_a_mapping_it_is_what_runs_now(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        assert isinstance(tasks, Mapping)
        assert bool(tasks), "always true"
        a = tasks.start_soon("a", double, 1)
        b = tasks.start_soon(("b", 2), double, 2)
        assert len(tasks) == 2
        assert list(tasks) == ["a", ("b", 2)]
        assert dict(tasks) == {"a": a, ("b", 2): b}
        assert list(tasks.items()) == [("a", a), (("b", 2), b)]
        assert list(tasks.keys()) == ["a", ("b", 2)]
        assert list(tasks.values()) == [a, b]
        assert tasks["a"] is a
        assert tasks.get("c") is None
        assert "a" in tasks
        assert "c" not in tasks
        with pytest.raises(KeyError):
            tasks["c"]
        for name in tasks:  # a snapshot: may run while names come and go
            await tasks[name].wait()
            tasks.start_soon(("again", name), double, 1)
            break
        for name, handle in tasks.items():
            await handle.wait()
            assert name not in tasks
        assert len(tasks) == 0
        assert {tasks: 1}[tasks] == 1
        assert tasks == tasks
        assert tasks != {}


async def test_a_waiting_name_does_not_count_as_running(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        tasks.start_soon("a", boom)
        await tasks.wait_idle()
        assert "a" not in tasks
        assert len(tasks) == 0
        assert tasks.state("a") is State.WAITING
        assert repr(tasks) == "<namedtasks.TaskMap running=0 waiting=1>"
        tasks.close()
        assert repr(tasks) == "<namedtasks.TaskMap running=0 waiting=1 closed>"


async def test_failure_tells_what_is_on_record(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        assert tasks.failure("a", operation="op") is None
        tasks.start_soon("a", boom, operation="op")
        await tasks.wait_idle()
        failure = tasks.failure("a", operation="op")
        assert failure is not None
        assert (failure.name, failure.operation, failure.failures) == ("a", "op", 1)
        assert repr(failure.error) == "ValueError('boom')"
        assert failure.error.__traceback__ is None
        assert failure.retry_at == trio.current_time() + 0.5
        assert tasks.failure("a") is None, "another operation"


async def test_check_changes_nothing_and_tells_nobody(autojump_clock: MockClock) -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        assert tasks.check("a") is None
        tasks.start_soon("a", double, 1)
        assert isinstance(tasks.check("a"), AlreadyRunningError)
        tasks.close()
        assert isinstance(tasks.check("b"), ClosedError)
    assert heard.of(TaskRefused) == []


async def test_forget_frees_a_waiting_name(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        assert not tasks.forget("a")
        tasks.start_soon("a", boom)
        await tasks.wait_idle()
        assert tasks.forget("a")
        assert tasks.state("a") is State.FREE
        tasks.start_soon("a", double, 1)


async def test_cancel_by_name_by_predicate_and_all(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        handles = {name: tasks.start_soon(name, trio.sleep_forever) for name in "abcde"}
        await wait_all_tasks_blocked()
        assert tasks.cancel("a", reason="why not")
        assert not tasks.cancel("zzz")
        assert tasks.cancel_matching(lambda name: name in ("b", "c")) == 2
        await wait_all_tasks_blocked()
        assert list(tasks) == ["d", "e"]
        assert tasks.cancel_all(reason="enough") == 2
        await tasks.wait_idle()
        assert tasks.cancel_all() == 0
        for name, reason in (("a", "why not"), ("b", None), ("d", "enough")):
            with pytest.raises(TaskCancelledError) as caught:
                await handles[name].wait()
            assert caught.value.reason == reason
        assert tasks.state("a") is State.FREE, "cancelled is neither success nor failure"


async def test_a_predicate_that_raises_cancels_nothing(autojump_clock: MockClock) -> None:
    def picky(name: object) -> bool:
        if name == "b":
            raise ZeroDivisionError
        return True

    async with namedtasks.open_task_map() as tasks:
        for name in "abc":
            tasks.start_soon(name, double, 1)
        with pytest.raises(ZeroDivisionError):
            tasks.cancel_matching(picky)
        await tasks.wait_idle()
        assert tasks.statistics().running == 0


async def test_a_closed_map_refuses_also_those_who_would_skip(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", double, 1)
        tasks.close()
        choices: list[Literal["refuse", "skip"]] = ["refuse", "skip"]
        for if_busy in choices:
            with pytest.raises(
                ClosedError, match=r"^task 'b' may not start: the map is closed; open a new one$"
            ):
                tasks.start_soon("b", double, 1, if_busy=if_busy)
        assert await handle.wait() == 2, "what was admitted goes on"


async def test_the_task_runs_in_a_copy_of_the_callers_context(autojump_clock: MockClock) -> None:
    color: contextvars.ContextVar[str] = contextvars.ContextVar("color")
    seen: list[str] = []

    async def body() -> None:
        seen.append(color.get())
        color.set("changed")
        await trio.lowlevel.checkpoint()

    async with namedtasks.open_task_map(limit=1) as tasks:
        color.set("red")
        tasks.start_soon("a", body)
        color.set("blue")
        tasks.start_soon("b", body)  # has to wait for its slot
        color.set("green")
        await tasks.wait_idle()
        assert seen == ["red", "blue"]
        assert color.get() == "green"


async def test_the_trio_task_bears_the_runs_name(autojump_clock: MockClock) -> None:
    names: list[str] = []

    async def body() -> None:
        names.append(trio.lowlevel.current_task().name)

    class Odd:
        def __repr__(self) -> str:
            raise ValueError

    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("sync vol-1", body)
        tasks.start_soon(("vol", 1), body)
        tasks.start_soon((None,), body)
        tasks.start_soon(Odd(), body)
        await tasks.wait_idle()
    assert sorted(names) == sorted(
        ["sync vol-1", "('vol', 1)", "(None,)", "<Odd whose repr raises>"]
    )


@pytest.mark.parametrize(
    "name", ["", 0, (None,), (), b"x", frozenset({1}), math.nan, 10**100, State.FREE]
)
async def test_any_hashable_is_a_name(name: Any, autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon(name, double, 1)
        assert handle.name is name
        assert isinstance(tasks.check(name), AlreadyRunningError)
        assert await handle.wait() == 2
        assert tasks.check(name) is None


async def test_names_that_are_equal_are_one_name(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon(1, double, 1)
        assert isinstance(tasks.check(True), AlreadyRunningError)
        assert isinstance(tasks.check(1.0), AlreadyRunningError)


async def test_at_most_limit_bodies_at_once_in_order_of_admission(
    autojump_clock: MockClock,
) -> None:
    order: list[int] = []
    most = 0

    async def body(number: int) -> None:
        nonlocal most
        order.append(number)
        most = max(most, len(order) - len(ended))
        await trio.sleep(1)
        ended.append(number)

    ended: list[int] = []
    async with namedtasks.open_task_map(limit=3) as tasks:
        for number in range(10):
            tasks.start_soon(number, body, number)
        assert len(tasks) == 10, "all hold their names"
        with pytest.raises(AlreadyRunningError):
            tasks.start_soon(9, body, 9)
        assert tasks.statistics().waiting_for_slot == 7
    # Trio shuffles what becomes runnable in the same step.
    batches = [sorted(order[start : start + 3]) for start in range(0, 10, 3)]
    assert batches == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert most == 3
    assert trio.current_time() == 4


async def test_a_run_that_waits_for_a_slot_can_be_cancelled_at_once(
    autojump_clock: MockClock,
) -> None:
    """Its body never runs, its name is free, and nobody is warned of its coroutine."""
    async with namedtasks.open_task_map(limit=1) as tasks:
        tasks.start_soon("a", double, 1)
        waiting = tasks.start_soon("b", boom)
        assert repr(waiting) == "<namedtasks.TaskHandle 'b' not begun>"
        assert waiting.cancel("changed my mind")
        assert waiting.done
        assert not waiting.cancel()
        assert "b" not in tasks
        with pytest.raises(TaskCancelledError, match=r"^task 'b' was cancelled: changed my mind$"):
            await waiting.wait()


async def test_cancelling_all_starts_nobody_who_waits_for_a_slot(autojump_clock: MockClock) -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(limit=1, instruments=[heard]) as tasks:
        for name in "abc":
            tasks.start_soon(name, trio.sleep_forever)
        await wait_all_tasks_blocked()
        assert tasks.cancel_all() == 3
    assert [event.name for event in heard.of(TaskStarted)] == ["a"]


async def test_a_timeout_counts_from_the_first_step_not_from_the_wait_for_a_slot(
    autojump_clock: MockClock,
) -> None:
    async with namedtasks.open_task_map(limit=1) as tasks:
        tasks.start_soon("a", trio.sleep, 100)
        handle = tasks.start_soon("b", double, 1, timeout=2)
        assert await handle.wait() == 2
        assert trio.current_time() == 101


async def test_a_run_past_its_timeout_has_failed_as_too_slow(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        handle = tasks.start_soon("a", trio.sleep_forever, timeout=2)
        with pytest.raises(TaskFailedError) as caught:
            await handle.wait()
        assert trio.current_time() == 2
        assert type(caught.value.__cause__) is trio.TooSlowError
        assert str(caught.value.__cause__) == "it took longer than its timeout of 2 s"
        assert tasks.state("a") is State.WAITING


@pytest.mark.parametrize(("cancel_at", "failed"), [(1.5, False), (2.0, True), (2.5, True)])
async def test_whichever_came_first_deadline_or_cancel_says_how_it_ended(
    cancel_at: float, failed: bool, autojump_clock: MockClock
) -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        await trio.lowlevel.checkpoint()

    async with namedtasks.open_task_map(instruments=(), overdue_after=9) as tasks:
        handle = tasks.start_soon("a", stubborn, timeout=2)
        await trio.sleep(cancel_at)
        handle.cancel()
        with pytest.raises(TaskFailedError if failed else TaskCancelledError):
            await handle.wait()


async def test_a_body_that_returns_in_spite_of_a_cancel_has_succeeded(
    autojump_clock: MockClock,
) -> None:
    async def late() -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "late"
        raise AssertionError

    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", late)
        await wait_all_tasks_blocked()
        handle.cancel()
        assert await handle.wait() == "late"


async def test_a_body_that_fails_while_cancelled_has_failed(autojump_clock: MockClock) -> None:
    async def breaks() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("clean-up")

    async with namedtasks.open_task_map(instruments=()) as tasks:
        handle = tasks.start_soon("a", breaks)
        await wait_all_tasks_blocked()
        handle.cancel()
        with pytest.raises(TaskFailedError):
            await handle.wait()
        assert tasks.state("a") is State.WAITING


async def test_a_cancel_before_the_first_step_ends_the_run_at_its_first_checkpoint(
    autojump_clock: MockClock,
) -> None:
    """As a fresh trio task in a cancelled scope does."""
    steps: list[str] = []

    async def body() -> None:
        steps.append("before")
        await trio.lowlevel.checkpoint()
        steps.append("after")

    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", body)
        handle.cancel("at once")
        with pytest.raises(TaskCancelledError):
            await handle.wait()
    assert steps == ["before"]


async def test_a_group_of_errors_is_a_failure(autojump_clock: MockClock) -> None:
    async def body() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(boom)
            nursery.start_soon(trio.sleep_forever)

    async with namedtasks.open_task_map(instruments=()) as tasks:
        with pytest.raises(TaskFailedError) as caught:
            await tasks.start_soon("a", body).wait()
        assert isinstance(caught.value.__cause__, ExceptionGroup)


async def test_an_exempt_error_ends_a_run_without_a_wait(autojump_clock: MockClock) -> None:
    backoff = Backoff(exempt=(ValueError,))
    async with namedtasks.open_task_map(backoff=backoff, instruments=()) as tasks:
        with pytest.raises(TaskFailedError):
            await tasks.start_soon("a", boom).wait()
        assert tasks.state("a") is State.FREE


async def test_jitter_uses_the_maps_randomness(autojump_clock: MockClock) -> None:
    backoff = Backoff(jitter=1.0)
    async with namedtasks.open_task_map(
        backoff=backoff, random=lambda: 0.75, instruments=()
    ) as tasks:
        tasks.start_soon("a", boom)
        await tasks.wait_idle()
        failure = tasks.failure("a")
        assert failure is not None
        assert failure.retry_at == 0.125


async def test_starts_and_successes_are_told(autojump_clock: MockClock) -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        tasks.start_soon("a", double, 1, operation="op")
    assert heard.events == [
        TaskStarted(name="a", operation="op", at=0.0, failures=0),
        TaskSucceeded(name="a", operation="op", at=1.0, duration=1.0),
    ]


async def test_skips_are_told_as_refusals(autojump_clock: MockClock) -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard]) as tasks:
        tasks.start_soon("a", double, 1)
        assert tasks.start_soon("a", double, 1, if_busy="skip") is None
        with pytest.raises(AlreadyRunningError) as caught:
            tasks.start_soon("a", double, 1)
    skipped, refused = heard.of(TaskRefused)
    assert (skipped.skipped, refused.skipped) == (True, False)
    assert isinstance(skipped.error, AlreadyRunningError)
    assert refused.error is caught.value


async def test_a_handle_tells_its_state(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map(instruments=()) as tasks:
        fine = tasks.start_soon("fine", double, 1, operation="op")
        bad = tasks.start_soon("bad", boom)
        gone = tasks.start_soon("gone", trio.sleep_forever)
        assert repr(fine) == "<namedtasks.TaskHandle 'fine' not begun>"
        await wait_all_tasks_blocked()
        assert repr(fine) == "<namedtasks.TaskHandle 'fine' running>"
        gone.cancel()
        await tasks.wait_idle()
        assert [repr(handle) for handle in (fine, bad, gone)] == [
            "<namedtasks.TaskHandle 'fine' succeeded>",
            "<namedtasks.TaskHandle 'bad' failed>",
            "<namedtasks.TaskHandle 'gone' cancelled>",
        ]
        assert (fine.name, fine.operation, fine.failures) == ("fine", "op", 0)


async def test_cancelling_who_waits_does_nothing_to_the_run(autojump_clock: MockClock) -> None:
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", double, 1)
        with trio.move_on_after(0.5) as scope:
            await handle.wait()
        assert scope.cancelled_caught
        assert await handle.wait() == 2
