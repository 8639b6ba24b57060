"""What can be asked of a map of each dialect: failures, pending runs, outcomes, observations.

A test is written once, as an async function of a stage: a map whose time and whose bodies are
the test's. It is run on trio, on asyncio and in threads.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
import namedtasks.asyncio
from namedtasks import (
    ANY,
    Backoff,
    BackoffError,
    Failure,
    GaveUpError,
    Outcome,
    PendingRun,
    StaleLookError,
    State,
    ThreadTaskMap,
)
from namedtasks._history import Outcomes
from namedtasks._observations import Ends, check_observation
from namedtasks._state import RunStatus, read_shared
from namedtasks.abc import FailedRun
from namedtasks.instruments import TaskExpired, TaskForgotten
from namedtasks.testing import ManualClock, RecordingInstrument
from tests import virtual_loop
from tests.plain_backend import make_world
from tests.test_fork import said_by
from tests.threads.helpers import InThread, reach, wait_until

STEADY = Backoff(initial=5, factor=1)


class Stage:
    """A map of one dialect, whose bodies end when a test says so."""

    start_method: str
    """The method that starts a body of the dialect's own kind."""

    def __init__(self) -> None:
        self.tasks: Any = None
        self.wakes: dict[Any, Callable[[], object]] = {}
        self.errors: dict[Any, BaseException | None] = {}

    async def settle(self, condition: Callable[[], object] = lambda: True) -> None:
        """Return when all that can happen has happened; *condition* is true then."""
        raise NotImplementedError

    async def advance(self, seconds: float) -> None:
        raise NotImplementedError

    def body(self, name: Any) -> Any:
        """Return the function to start."""
        raise NotImplementedError

    def attempt(self, name: Any, **options: Any) -> Any:
        """Start a body, which waits for `end`; it may not have begun on return."""
        return getattr(self.tasks, self.start_method)(name, self.body(name), name, **options)

    async def start(self, name: Any, **options: Any) -> Any:
        """Start a body, which begins, and waits for `end`."""
        handle = self.attempt(name, **options)
        await self.settle(lambda: name in self.wakes)
        return handle

    async def end(self, name: Any, error: BaseException | None = None) -> None:
        """Let the body of *name* end."""
        run: Any = self.tasks._backend.scheduler.running[name]
        attempt = run.attempt
        self.errors[name] = error
        self.wakes.pop(name)()
        await self.settle(lambda: run.done or run.attempt != attempt)
        await self.settle(lambda: not self.tasks._backend.waits.ending)

    async def fail(self, name: Any, error: BaseException | None = None, **options: Any) -> Any:
        handle = await self.start(name, **options)
        await self.end(name, OSError(f"{name} is busy") if error is None else error)
        return handle

    async def succeed(self, name: Any, **options: Any) -> None:
        await self.start(name, **options)
        await self.end(name)

    def outcome(self, name: Any) -> None:
        error = self.errors.pop(name, None)
        if error is not None:
            raise error


class OnTrio(Stage):
    start_method = "start_soon"

    def __init__(self) -> None:
        super().__init__()
        self.clock = MockClock()

    async def settle(self, condition: Callable[[], object] = lambda: True) -> None:
        await wait_all_tasks_blocked()
        assert condition()

    async def advance(self, seconds: float) -> None:
        self.clock.jump(seconds)
        await wait_all_tasks_blocked()

    def body(self, name: Any) -> Any:
        async def body(name: Any) -> None:
            event = trio.Event()
            self.wakes[name] = event.set
            await event.wait()
            self.outcome(name)

        return body

    def play(self, test: Callable[[Stage], Awaitable[None]], settings: dict[str, Any]) -> None:
        async def main() -> None:
            async with namedtasks.open_task_map(**settings) as self.tasks:
                await test(self)
                self.tasks.cancel_all()

        trio.run(main, clock=self.clock)


class OnAsyncio(Stage):
    start_method = "create_task"

    async def settle(self, condition: Callable[[], object] = lambda: True) -> None:
        await virtual_loop.loop_now().settle()
        assert condition()

    async def advance(self, seconds: float) -> None:
        await virtual_loop.loop_now().advance(seconds)

    def body(self, name: Any) -> Any:
        async def body(name: Any) -> None:
            event = asyncio.Event()
            self.wakes[name] = event.set
            await event.wait()
            self.outcome(name)

        return body

    def play(self, test: Callable[[Stage], Awaitable[None]], settings: dict[str, Any]) -> None:
        async def main() -> None:
            virtual_loop.loop_now().virtual_now = 0.0
            async with namedtasks.asyncio.open_task_map(**settings) as self.tasks:
                await test(self)
                self.tasks.cancel_all()
            await virtual_loop.loop_now().settle()

        virtual_loop.run(main, autojump=False)


class InThreads(Stage):
    start_method = "submit"

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()

    async def settle(self, condition: Callable[[], object] = lambda: True) -> None:
        wait_until(condition)
        with self.tasks._backend.lock:  # what a thread has begun under it is done
            pass

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def body(self, name: Any) -> Any:
        def body(name: Any) -> None:
            event = threading.Event()
            self.wakes[name] = event.set
            reach(event)
            self.outcome(name)

        return body

    def play(self, test: Callable[[Stage], Awaitable[None]], settings: dict[str, Any]) -> None:
        async def main() -> None:
            with ThreadTaskMap(clock=self.clock, **settings) as self.tasks:
                try:
                    await test(self)
                finally:
                    self.tasks.cancel_all()
                    for wake in list(self.wakes.values()):
                        wake()

        with pytest.raises(StopIteration):
            main().send(None)


DIALECTS: tuple[Any, ...] = (OnTrio, OnAsyncio, InThreads)


Test = Callable[[Stage], Awaitable[None]]


def on_each_dialect(**settings: Any) -> Callable[[Test], Callable[[Any], None]]:
    """Make a test of an async function of a stage, whose map has these *settings*."""

    def decorate(test: Test) -> Callable[[Any], None]:
        def run_test(dialect: Any) -> None:
            dialect().play(test, {"backoff": STEADY, "instruments": (), **settings})

        run_test.__doc__ = test.__doc__
        marked: Callable[[Any], None] = pytest.mark.parametrize("dialect", DIALECTS)(run_test)
        return marked

    return decorate


# Failures on record


@on_each_dialect(backoff=Backoff(initial=5, factor=2, give_up_after=3), retention=100)
async def test_failures_are_those_that_wait_are_ready_or_gave_up(stage: Stage) -> None:
    tasks = stage.tasks
    for _ in range(3):
        await stage.fail("gave up")
        await stage.advance(20)
    await stage.fail("ready", operation="attach")
    await stage.advance(5)
    await stage.fail("waits")
    await stage.start("runs")
    found = {failure.name: failure for failure in tasks.failures()}
    assert list(found) == ["gave up", "waits", "ready"]
    assert found["gave up"].gave_up
    assert repr(found["waits"]) == repr(
        Failure("waits", None, 1, OSError("waits is busy"), found["waits"].retry_at)
    )
    assert found["ready"].operation == "attach"
    for state, name in (
        (State.WAITING, "waits"),
        (State.READY, "ready"),
        (State.GAVE_UP, "gave up"),
    ):
        assert [failure.name for failure in tasks.failures(state=state)] == [name]


@on_each_dialect(retention=10)
async def test_failures_leave_out_what_has_expired(stage: Stage) -> None:
    await stage.fail("a")
    await stage.advance(14.5)
    assert [failure.name for failure in stage.tasks.failures()] == ["a"]
    await stage.advance(0.5)
    assert list(stage.tasks.failures()) == []


@on_each_dialect()
async def test_failures_are_as_they_are_at_the_call(stage: Stage) -> None:
    await stage.fail("a")
    found = stage.tasks.failures()
    stage.tasks.forget("a")
    assert [failure.name for failure in found] == ["a"]
    assert list(stage.tasks.failures()) == []


@on_each_dialect()
async def test_failures_of_a_state_that_no_failure_has_are_refused(stage: Stage) -> None:
    word: Any = "waiting"
    with pytest.raises(TypeError, match=r"^state must be a State or None, not 'waiting'$"):
        stage.tasks.failures(state=word)
    for state in (State.FREE, State.RUNNING):
        message = f"^state must be WAITING, READY or GAVE_UP, not {state.name}$"
        with pytest.raises(ValueError, match=message):
            stage.tasks.failures(state=state)


# Pending runs


@on_each_dialect()
async def test_pending_tells_what_each_run_waits_for(stage: Stage) -> None:
    tasks = stage.tasks
    await stage.start("replaced")
    stage.attempt("replaced", if_busy="replace", operation="resize")
    await stage.settle(lambda: tasks.pending() or "replaced" in stage.wakes)
    await stage.fail("waits")
    stage.attempt("waits", if_busy="queue")
    await stage.fail("retried", retry=True)
    retry_at = tasks.failure("waits").retry_at
    found = {run.name: run for run in tasks.pending()}
    assert found["waits"] == PendingRun("waits", None, "queue", None, retry_at)
    assert found["retried"] == PendingRun("retried", None, "retry", None, retry_at)


@on_each_dialect()
async def test_pending_names_the_run_in_the_way(stage: Stage) -> None:
    await stage.start(("v", ANY))
    await stage.start("a")
    stage.attempt("a", if_busy="queue", operation="resize")
    stage.attempt(("v", 1), if_busy="replace")
    assert stage.tasks.pending()[0] == PendingRun("a", "resize", "queue", "a", None)


def test_a_pending_run_that_is_just_getting_its_name_is_left_out() -> None:
    """A look from another thread may come between the two steps."""
    w = make_world()
    w.start("a")
    run = w.defer("a", "queue")
    run.deferred = None
    assert w.scheduler.list_pending() == []


# The next retry


@on_each_dialect(retention=1000)
async def test_next_retry_at_is_the_soonest_end_of_a_wait(stage: Stage) -> None:
    tasks = stage.tasks
    now = tasks._now()
    assert tasks.next_retry_at() is None
    await stage.fail("a", backoff=Backoff(initial=8))
    assert tasks.next_retry_at() == now + 8
    await stage.fail("b")
    assert tasks.next_retry_at() == now + 5
    await stage.advance(5)
    assert tasks.next_retry_at() == now + 8
    await stage.fail("b")
    tasks.forget("a")
    assert tasks.next_retry_at() == now + 10
    await stage.fail("gives up", backoff=Backoff(give_up_after=1))
    assert tasks.next_retry_at() == now + 10
    tasks.forget("b")
    assert tasks.next_retry_at() is None


@on_each_dialect()
async def test_next_retry_at_knows_the_waits_before_its_first_call(stage: Stage) -> None:
    await stage.fail("over")
    await stage.advance(5)
    await stage.fail("gave up", backoff=Backoff(give_up_after=1))
    now = stage.tasks._now()
    await stage.fail("waits", operation="attach")
    assert stage.tasks.next_retry_at() == now + 5


@on_each_dialect()
async def test_the_next_retry_of_a_retried_run_is_among_them(stage: Stage) -> None:
    now = stage.tasks._now()
    await stage.fail("a", retry=True)
    assert stage.tasks.next_retry_at() == now + 5
    stage.tasks.cancel("a")
    assert stage.tasks.next_retry_at() == now + 5


# Outcomes


@on_each_dialect(keep_outcomes=2)
async def test_outcomes_are_the_last_of_the_names_that_ended_last(stage: Stage) -> None:
    now = stage.tasks._now()
    await stage.succeed("a")
    await stage.start("b", operation="attach")
    await stage.advance(3)
    await stage.end("b", OSError("busy"))
    await stage.succeed("c")
    failed, succeeded = stage.tasks.outcomes()
    assert repr(failed) == repr(
        Outcome(
            name="b",
            operation="attach",
            status="failed",
            ended_at=now + 3,
            duration=3.0,
            error=OSError("busy"),
        )
    )
    assert (succeeded.name, succeeded.status, succeeded.error) == ("c", "succeeded", None)


@on_each_dialect()
async def test_without_keep_outcomes_there_are_none(stage: Stage) -> None:
    await stage.succeed("a")
    assert stage.tasks.outcomes() == []


@on_each_dialect(keep_outcomes=5)
async def test_each_attempt_has_an_outcome_and_the_last_one_stays(stage: Stage) -> None:
    await stage.fail("a", retry=True)
    assert [one.status for one in stage.tasks.outcomes()] == ["failed"]
    await stage.advance(5)
    await stage.settle(lambda: "a" in stage.wakes)
    await stage.end("a")
    assert [one.status for one in stage.tasks.outcomes()] == ["succeeded"]


class Fatal(BaseException):
    """What is no failure on trio and asyncio, and leaves the block."""


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_outcome_of_what_leaves_the_block_has_a_copy_of_the_error(dialect: Any) -> None:
    error = Fatal("no more")

    async def test(stage: Stage) -> None:
        await stage.fail("a", error)

    stage = dialect()
    try:
        stage.play(test, {"instruments": (), "keep_outcomes": 5})
    except Fatal as caught:
        assert caught is error
        assert dialect is not InThreads
    (found,) = stage.tasks.outcomes()
    assert (found.name, found.status, repr(found.error)) == ("a", "failed", "Fatal('no more')")
    assert found.error is not error
    assert found.error.__traceback__ is None


# Observations


@on_each_dialect()
async def test_a_start_on_an_old_listing_is_refused(stage: Stage) -> None:
    tasks = stage.tasks
    with tasks.observe() as look:
        await stage.succeed("a")
        error = tasks.check("a", since=look)
        assert isinstance(error, StaleLookError)
        assert str(error) == "task 'a' may not start: a run ended since observe(): list again"
        for if_busy in ("refuse", "join", "replace", "queue"):
            with pytest.raises(StaleLookError):
                stage.attempt("a", since=look, if_busy=if_busy)
        assert stage.attempt("a", since=look, if_busy="skip") is None
        assert tasks.check("b", since=look) is None
        await stage.start("b", since=look)
    assert repr(look) == "<namedtasks.Observation closed>"
    assert (len(tasks._backend.scheduler.ends), tasks._backend.scheduler._notes_ends) == (0, False)


@on_each_dialect()
async def test_a_name_that_runs_is_busy_with_an_observation_as_without_one(stage: Stage) -> None:
    await stage.start("a")
    with stage.tasks.observe() as look:
        with pytest.raises(namedtasks.AlreadyRunningError):
            stage.attempt("a", since=look)
        assert stage.attempt("a", since=look, if_busy="skip") is None


@on_each_dialect()
async def test_an_end_makes_a_listing_of_overlapping_names_old(stage: Stage) -> None:
    with stage.tasks.observe() as look:
        await stage.succeed(("v", 1))
        assert isinstance(stage.tasks.check(("v", ANY), since=look), StaleLookError)
        assert stage.tasks.check(("w", ANY), since=look) is None


@on_each_dialect(keep_ends=2)
async def test_beyond_keep_ends_the_oldest_observation_expires(stage: Stage) -> None:
    """It never admits wrongly: a start of any name is refused."""
    look = stage.tasks.observe()
    for name in "abc":
        await stage.succeed(name)
    assert look.expired
    error = stage.tasks.check("d", since=look)
    assert isinstance(error, StaleLookError)
    assert error.expired
    assert str(error) == "task 'd' may not start: the observation has expired: list again"
    with pytest.raises(StaleLookError):
        stage.attempt("d", since=look)
    assert stage.attempt("d", since=look, if_busy="skip") is None
    look.close()


@on_each_dialect()
async def test_since_is_an_open_observation_of_the_map(stage: Stage) -> None:
    tasks = stage.tasks
    other = make_world().scheduler.observe(lambda _: None)
    closed = tasks.observe()
    closed.close()
    closed.close()
    word: Any = "now"
    mistakes: list[tuple[Any, Any, str]] = [
        (word, TypeError, r"^since must be an Observation, as observe\(\) returns it, not 'now'$"),
        (other, ValueError, r"^since is an observation of another map: call observe\(\) of this"),
        (closed, ValueError, r"^since is closed: start inside its with block, or call observe\(\)"),
    ]
    for since, kind, message in mistakes:
        with pytest.raises(kind, match=message):
            tasks.check("a", since=since)
        with pytest.raises(kind, match=message):
            stage.attempt("a", since=since)
        if not isinstance(stage, InThreads):
            with pytest.raises(kind, match=message):
                tasks.post("a", stage.body("a"), "a", since=since)
    assert "a" not in tasks


@on_each_dialect(keep_outcomes=5)
async def test_the_end_of_an_observation_does_not_end_the_outcomes(stage: Stage) -> None:
    stage.tasks.observe().close()
    await stage.succeed("a")
    assert len(stage.tasks.outcomes()) == 1


@on_each_dialect()
async def test_a_dropped_observation_is_forgotten_after_some_more_ends(stage: Stage) -> None:
    look = stage.tasks.observe()
    await stage.succeed("a")
    scheduler = stage.tasks._backend.scheduler
    assert (len(scheduler.ends), scheduler._notes_ends) == (1, True)
    del look
    for _ in range(64):
        await stage.succeed("b")
    assert (len(scheduler.ends), scheduler._notes_ends) == (0, False)


@pytest.mark.parametrize("overlaps", [False, True])
def test_the_end_of_the_oldest_observation_forgets_names_with_fields(overlaps: bool) -> None:
    """They are in the index of names that overlap, too, once there is one."""
    ends = Ends(10)
    older = ends.open(ends.close)
    ends.note(("v", 1), overlaps)
    ends.note("plain", overlaps)
    newer = ends.open(ends.close)
    older.close()
    assert (len(ends), ends._indexed) == (0, {})
    assert not ends.has_ended(("v", ANY), check_observation(newer, ends), overlaps=overlaps)
    ends.note(("v", 1), overlaps)
    assert ends.has_ended(("v", ANY), check_observation(newer, ends), overlaps=overlaps)


def test_observations_that_were_dropped_make_room_for_others() -> None:
    """Also while an older one is open: their number is bounded."""
    ends = Ends(10)
    oldest = ends.open(ends.close)
    for _ in range(100):
        ends.open(ends.close)
    assert len(ends._open) <= 2 * 1 + 16
    ends.note("a", False)
    assert ends.has_ended("a", check_observation(oldest, ends), overlaps=False)


@pytest.mark.parametrize("dialect", [OnTrio, OnAsyncio])
def test_a_posted_start_may_bring_an_observation(dialect: Any) -> None:
    async def test(stage: Stage) -> None:
        with stage.tasks.observe() as look:
            await stage.succeed("a")
            stage.tasks.post("a", stage.body("a"), "a", since=look)
            stage.tasks.post("b", stage.body("b"), "b", since=look)
            await stage.settle()
            assert list(stage.tasks) == ["b"]

    dialect().play(test, {"instruments": ()})


# Statistics


@on_each_dialect(failure_threshold=2, limit=2, retention=1000)
async def test_statistics_count_failures_ages_and_waits(stage: Stage) -> None:
    tasks = stage.tasks
    for _ in range(2):
        await stage.fail("a")
        await stage.advance(5)
    await stage.fail("b", retry=True)
    await stage.start("c")
    await stage.advance(1)
    await stage.start("d")
    stage.attempt("e")
    await stage.advance(2)
    counts = tasks.statistics()
    assert (counts.max_failures, counts.failing) == (2, 1)
    assert (counts.oldest_run_age, counts.longest_slot_wait) == (3, 2)
    assert (counts.running, counts.waiting_for_slot, counts.pending, counts.limit) == (3, 1, 1, 2)
    await stage.end("c")
    counts = tasks.statistics()
    assert (counts.oldest_run_age, counts.longest_slot_wait) == (2, 0)


# Looks from another thread


@on_each_dialect(keep_outcomes=5)
async def test_any_thread_may_look(stage: Stage) -> None:
    tasks = stage.tasks
    await stage.fail("waits", retry=True)
    with tasks.observe() as look:
        await stage.succeed("a")
        assert [one.name for one in InThread(lambda: list(tasks.failures())).result()] == ["waits"]
        assert [one.name for one in InThread(tasks.pending).result()] == ["waits"]
        assert [one.name for one in InThread(tasks.outcomes).result()] == ["waits", "a"]
        assert InThread(tasks.statistics).result().pending == 1
        assert isinstance(InThread(tasks.check, "a", since=look).result(), StaleLookError)


@on_each_dialect()
async def test_only_a_thread_map_is_changed_from_any_thread(stage: Stage) -> None:
    """`next_retry_at` and `observe` are no looks: they change what the map keeps."""
    tasks = stage.tasks
    await stage.fail("a")
    starts = partial(stage.attempt, "b")
    for call in (tasks.next_retry_at, tasks.observe, starts, tasks.cancel_all):
        if isinstance(stage, InThreads):
            assert InThread(call).result() is not None
            continue
        with pytest.raises(RuntimeError, match="thread"):
            InThread(call).result()


@pytest.mark.parametrize("kind", [RuntimeError, KeyError])
def test_a_look_that_another_thread_has_disturbed_is_repeated(kind: type[Exception]) -> None:
    answers: Iterator[Any] = iter([kind("changed"), kind("changed"), "whole"])

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert read_shared(read) == "whole"


def outcome(name: Any) -> Outcome:
    return Outcome(
        name=name, operation=None, status="succeeded", ended_at=0.0, duration=0.0, error=None
    )


class Name:
    """A name whose hash runs Python code: another thread may come in between there."""

    def __init__(self) -> None:
        self.hook: Callable[[], object] = lambda: None

    def __hash__(self) -> int:
        hook, self.hook = self.hook, lambda: None
        hook()
        return 1


def test_outcomes_may_change_while_they_are_listed() -> None:
    outcomes, name = Outcomes(1), Name()
    outcomes.add(outcome(name))
    name.hook = lambda: outcomes.add(outcome("newer"))
    assert [one.name for one in outcomes.snapshot()] == ["newer"]


@pytest.mark.parametrize("any_is_known", [False, True])
def test_ends_may_change_while_they_are_searched(any_is_known: bool) -> None:
    ends, field = Ends(100), Name()
    look = ends.open(ends.close)
    mark = check_observation(look, ends)
    ends.note(("v", field), any_is_known)
    if any_is_known:
        ends.note(("w", ANY), True)

    def note_others() -> None:
        for number in range(20):
            ends.note(("v", number), True)

    field.hook = note_others
    assert ends.has_ended(("v", ANY), mark, overlaps=True)
    assert not ends.has_ended(("u", ANY), mark, overlaps=True)
    assert len(ends) == 21 + any_is_known


# Records that expire


@on_each_dialect(retention=10, instruments=[])
async def test_an_expired_record_is_gone_whether_or_not_anybody_listens(stage: Stage) -> None:
    await stage.fail("a")
    await stage.advance(15)
    await stage.succeed("b")
    assert stage.tasks.statistics().waiting == 0


@contextmanager
def recorder() -> Generator[tuple[RecordingInstrument, Callable[[], list[Any]]]]:
    """Yield an instrument, and a function that returns what it has heard of expired records."""
    recording = RecordingInstrument()
    yield (
        recording,
        lambda: [(one.name, one.failures, one.expired_at) for one in recording.of(TaskExpired)],
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_expired_record_is_told_with_the_end_of_another_run(dialect: Any) -> None:
    with recorder() as (recording, heard):

        async def test(stage: Stage) -> None:
            now = stage.tasks._now()
            await stage.fail("a")
            await stage.advance(14)
            await stage.succeed("b")
            assert heard() == []
            await stage.advance(20)
            await stage.succeed("c")
            await stage.settle(heard)
            assert heard() == [("a", 1, now + 15)]
            assert recording.of(TaskForgotten) == []

        dialect().play(test, {"backoff": STEADY, "retention": 10, "instruments": [recording]})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_expired_record_is_told_when_its_name_starts_again(dialect: Any) -> None:
    with recorder() as (recording, heard):

        async def test(stage: Stage) -> None:
            now = stage.tasks._now()
            await stage.fail("a")
            await stage.advance(15)
            await stage.start("a")
            await stage.settle(heard)
            assert heard() == [("a", 1, now + 15)]
            assert stage.tasks.failure("a") is None

        dialect().play(test, {"backoff": STEADY, "retention": 10, "instruments": [recording]})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_expired_record_is_told_by_a_wait_for_the_map_to_be_empty(dialect: Any) -> None:
    with recorder() as (recording, heard):

        async def test(stage: Stage) -> None:
            now = stage.tasks._now()
            await stage.fail("a")
            await stage.advance(15)
            if isinstance(stage, InThreads):
                assert stage.tasks.wait_empty(0)
            else:
                await stage.tasks.wait_empty()
            assert heard() == [("a", 1, now + 15)]

        dialect().play(test, {"backoff": STEADY, "retention": 10, "instruments": [recording]})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_record_of_a_retry_does_not_expire(dialect: Any) -> None:
    with recorder() as (recording, heard):

        async def test(stage: Stage) -> None:
            await stage.fail("a", retry=True)
            await stage.start("a", operation="other")
            await stage.advance(1000)
            await stage.end("a")
            await stage.settle(lambda: "a" in stage.wakes)
            assert stage.tasks.failure("a").failures == 1
            assert heard() == []

        dialect().play(test, {"backoff": STEADY, "retention": 1, "instruments": [recording]})


# Policies


@on_each_dialect()
async def test_a_start_may_bring_its_own_policy(stage: Stage) -> None:
    tasks = stage.tasks
    now = tasks._now()
    await stage.fail("a", backoff=Backoff(initial=60))
    assert tasks.failure("a").retry_at == now + 60
    await stage.fail("b", backoff=None)
    assert tasks.state("b") is State.FREE
    await stage.fail("c", backoff="map")
    assert tasks.failure("c").retry_at == now + 5
    await stage.fail("d", backoff=Backoff(give_up_after=1))
    assert isinstance(tasks.check("d"), GaveUpError)
    for name in "ac":
        with pytest.raises(BackoffError):
            stage.attempt(name, backoff=None)


@on_each_dialect(backoff=None)
async def test_a_map_without_a_policy_has_starts_with_one(stage: Stage) -> None:
    now = stage.tasks._now()
    await stage.fail("a", backoff=STEADY, retry=True)
    assert stage.tasks.failure("a").retry_at == now + 5
    for retry in ({"retry": True}, {"retry": True, "backoff": None}):
        with pytest.raises(
            ValueError, match=r"^retry=True needs a backoff policy, but backoff is None$"
        ):
            stage.attempt("b", **retry)
    assert "b" not in stage.tasks


@on_each_dialect()
async def test_the_options_of_a_start_are_checked(stage: Stage) -> None:
    word: Any = "yes"
    with pytest.raises(TypeError, match=r"^retry must be True or False, not 'yes'$"):
        stage.attempt("a", retry=word)
    with pytest.raises(TypeError, match=r"^backoff "):
        stage.attempt("a", backoff=word)
    message = (
        rf"^{stage.start_method}\(\) got an unexpected keyword argument 'colour' \(it takes "
        r"(executor, )?if_busy, timeout, operation, backoff, since and retry\): "
        r"to pass it to the function, use functools\.partial\(fn, colour=\.\.\.\)$"
    )
    with pytest.raises(TypeError, match=message):
        stage.attempt("a", size=1, colour="red")
    assert "a" not in stage.tasks


@on_each_dialect()
async def test_any_stands_only_in_a_name_of_a_few_fields(stage: Stage) -> None:
    wrong: tuple[tuple[Any, str], ...] = (
        (ANY, r"^namedtasks\.ANY is no name: "),
        ((ANY, 2, 3, 4, 5), r"^a name with namedtasks\.ANY may have at most 4 fields, and "),
    )
    for name, message in wrong:
        with pytest.raises(ValueError, match=message):
            stage.attempt(name)
        with pytest.raises(ValueError, match=message):
            stage.tasks.check(name)
    await stage.start((1, 2, 3, 4, 5))
    assert list(stage.tasks) == [(1, 2, 3, 4, 5)]


@on_each_dialect()
async def test_options_with_their_defaults_change_nothing(stage: Stage) -> None:
    defaults: dict[str, Any] = {"backoff": "map", "since": None, "retry": False}
    await stage.start("runs", **defaults)
    await stage.fail("waits")
    for name in ("runs", "waits"):
        for options in (defaults, {}):
            assert stage.attempt(name, if_busy="skip", **options) is None
            with pytest.raises(namedtasks.RefusedError):
                stage.attempt(name, **options)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_policy_sees_the_run_that_has_failed(dialect: Any) -> None:
    seen: list[FailedRun] = []

    class Policy:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            seen.append(run)
            return 1.0

    async def test(stage: Stage) -> None:
        now = stage.tasks._now()
        await stage.start("a", operation="attach")
        await stage.advance(3)
        await stage.end("a", OSError("busy"))
        assert seen == [FailedRun("a", "attach", now, now + 3)]

    dialect().play(test, {"backoff": Policy(), "instruments": ()})


@on_each_dialect(backoff=Backoff(initial=1, factor=2, reset_after=60), retention=1000)
async def test_a_failure_after_a_long_run_counts_as_the_first(stage: Stage) -> None:
    tasks = stage.tasks
    for lasts, failures in ((0, 1), (59, 2), (60, 1), (1, 2)):
        await stage.start("a")
        await stage.advance(lasts)
        now = tasks._now()
        await stage.end("a", OSError("busy"))
        failure = tasks.failure("a")
        assert (failure.failures, failure.retry_at) == (failures, now + failures)
        await stage.advance(10)


@pytest.mark.parametrize(
    ("setting", "value", "kind", "message"),
    [
        ("failure_threshold", 0, ValueError, "failure_threshold must be at least 1, not 0"),
        (
            "failure_threshold",
            True,
            TypeError,
            "failure_threshold must be a whole number, not True",
        ),
        ("keep_outcomes", -1, ValueError, "keep_outcomes must be at least 0, not -1"),
        ("keep_outcomes", "all", TypeError, "keep_outcomes must be a whole number, not 'all'"),
        ("keep_ends", 0, ValueError, "keep_ends must be at least 1, not 0"),
        ("keep_ends", 1.5, TypeError, r"keep_ends must be a whole number, not 1\.5"),
    ],
)
@pytest.mark.parametrize(
    "make", [namedtasks.open_task_map, namedtasks.asyncio.open_task_map, ThreadTaskMap]
)
def test_settings_are_checked_at_once(
    make: Any, setting: str, value: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^{message}$"):
        make(**{setting: value})


def test_a_time_that_a_run_must_have_lasted_is_a_number() -> None:
    with pytest.raises(ValueError, match=r"^reset_after must be at least 0"):
        Backoff(reset_after=-1)
    assert Backoff(reset_after=math.inf).reset_after == math.inf


def test_a_failure_whose_body_never_began_is_not_the_first() -> None:
    """Nobody knows how long it would have lasted."""
    w = make_world(backoff=Backoff(reset_after=0.0))
    run = w.make_run("a")
    run.failures = 3
    assert w.scheduler.decide_retry(run, OSError(), w.clock).failures == 4
    w.scheduler.admit(run, w.clock)
    w.scheduler.begin(run, w.now)
    assert w.scheduler.decide_retry(run, OSError(), w.clock).failures == 1
    assert run.status is RunStatus.BEGUN


# A forked child


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork")
def test_a_forked_child_has_no_outcomes_and_no_ends() -> None:
    assert said_by("""
with namedtasks.ThreadTaskMap(clock=Clock(), instruments=(), keep_outcomes=5) as tasks:
    with tasks.observe() as look:
        future = tasks.submit("a", len, "abc")
        future.result()
        print(len(tasks.outcomes()), len(tasks._backend.scheduler.ends))
        for call in (
            tasks.outcomes,
            lambda: len(tasks._backend.scheduler.ends),
            lambda: list(tasks.failures()),
            tasks.pending,
            tasks.next_retry_at,
            lambda: type(tasks.check("a", since=look)).__name__,
            look.close,
            future.cancel,
        ):
            print(in_child(call))
""") == ["1 1", "[]", "0", "[]", "[]", "None", "'ClosedError'", "None", "False"]
