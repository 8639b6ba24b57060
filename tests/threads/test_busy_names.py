"""Busy names in the thread shell: what is its own about joining, replacing and queueing."""

import concurrent.futures
import contextvars
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from typing import Any, Literal

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
    TaskFuture,
    ThreadTaskMap,
    _base,
    current_run,
)
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskOverdue,
    TaskQueued,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks.testing import ManualClock, RecordingInstrument
from tests.threads.helpers import PATIENCE, Gate, HandPool, InThread, WatchedClock, boom, reach

How = Literal["replace", "queue"]
both = pytest.mark.parametrize("how", ["replace", "queue"])

SUPERSEDED = "superseded by a newer start of its name"
REPLACED = "replaced by a newer start"
CLOSING = "the map is closing"


def listens(gate: Gate) -> None:
    gate()
    current_run().check_cancelled()
    raise AssertionError("it was asked to stop")


def asked_to_stop(tasks: ThreadTaskMap, name: Hashable) -> bool:
    run = tasks._backend.scheduler.running.get(name)
    assert run is not None
    return run.is_asked_to_stop()


def why(future: TaskFuture[Any]) -> str | None:
    """Why a run was dropped before it began."""
    with pytest.raises(CancelledError) as caught:
        future.result(PATIENCE)
    assert future.cancelled()
    with pytest.raises(CancelledError) as again:
        future.exception()
    causes = [one.value.__cause__ for one in (caught, again)]
    if causes == [None, None]:
        return None
    reasons = [one.reason for one in causes if isinstance(one, TaskCancelledError)]
    assert reasons == [reasons[0]] * 2
    return reasons[0]


def why_joined(future: TaskFuture[Any]) -> str | None:
    """Return the reason that a joined future gives for the cancellation of its run."""
    error = future.exception(PATIENCE)
    assert isinstance(error, TaskCancelledError)
    assert not future.cancelled()
    with pytest.raises(TaskCancelledError) as caught:
        future.result()
    assert caught.value is error
    return error.reason


# Joining


def test_who_joins_has_a_future_of_its_own_and_the_same_value() -> None:
    gate = Gate()
    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", gate, "the value", operation="get")
        joined = [tasks.submit("a", gate, "never", if_busy="join") for _ in range(3)]
        assert len({future, *joined}) == 4
        assert tasks["a"] is future
        gate.wait_begun()
        one = joined[0]
        assert (one.name, one.operation, one.failures) == ("a", "get", 0)
        assert one.started_at == future.started_at
        assert repr(one) == "<namedtasks.TaskFuture 'a' running>"
        gate.open()
        assert [one.result() for one in (future, *joined)] == ["the value"] * 4
        assert repr(one) == "<namedtasks.TaskFuture 'a' succeeded>"
        assert tasks.submit("a", str, "free again", if_busy="join").result() == "free again"


def test_who_joins_a_run_that_fails_gets_its_error() -> None:
    gate = Gate()
    error = ValueError("disk")
    with ThreadTaskMap(instruments=()) as tasks:
        future = tasks.submit("a", gate, error)
        joined = tasks.submit("a", gate, if_busy="join")
        gate.open()
        assert [one.exception() for one in (future, joined)] == [error, error]
        assert repr(joined) == "<namedtasks.TaskFuture 'a' failed>"
        with pytest.raises(BackoffError):
            tasks.submit("a", gate, if_busy="join")


def test_who_joins_a_run_that_heeds_a_cancellation_hears_why() -> None:
    gate = Gate()
    with ThreadTaskMap() as tasks:
        tasks.submit("a", listens, gate)
        gate.wait_begun()
        joined = tasks.submit("a", int, if_busy="join")
        assert tasks.cancel("a", reason="enough")
        late = tasks.submit("a", int, if_busy="join")
        gate.open()
        for future in (joined, late):
            assert why_joined(future) == "enough"


def test_the_first_of_those_who_share_a_run_leaves_as_the_others_do() -> None:
    gate = Gate()
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", gate)
        first = tasks.submit("a", str, "shared", if_busy="join")
        second = tasks.submit("a", str, "never", if_busy="join")
        assert first.cancel()
        assert tasks.state("a") is State.RUNNING
        gate.open()
        assert second.result(PATIENCE) == "shared"
        assert first.cancelled()


def test_who_joins_a_run_that_never_begins_hears_that_it_was_cancelled() -> None:
    """Only its own future is cancelled: those that joined it raise `TaskCancelledError`."""
    gate = Gate()
    called: list[Future[Any]] = []
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", gate)
        future = tasks.submit("a", int)
        joined = tasks.submit("a", int, if_busy="join")
        joined.add_done_callback(called.append)
        assert future.cancel()
        assert concurrent.futures.wait([joined], PATIENCE).done == {joined}
        assert called == [joined]
        assert why_joined(joined) is None
        assert future.cancelled()
        assert future.cancel(), "as often as one likes"
        gate.open()


def test_a_joined_future_that_has_an_error_cannot_be_cancelled_any_more() -> None:
    """Its answer is that of any future: it is not cancelled, so `cancel` did nothing."""
    gate = Gate()
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", gate)
        tasks.submit("a", int)
        joined = tasks.submit("a", int, if_busy="join")
        tasks.cancel("a", reason="enough")
        assert why_joined(joined) == "enough"
        gate.open()
        assert not joined.cancel()
        assert not joined.cancelled()


def test_who_joins_a_run_that_cannot_begin_hears_why() -> None:
    """The submitter gets the error; who joined meanwhile hears that there was one."""
    pool = HandPool()
    joined: list[TaskFuture[Any]] = []

    def join_and_raise(_: object) -> None:
        joined.append(InThread(lambda: tasks.submit("a", int, if_busy="join")).result())
        raise RuntimeError("no room")

    pool.on_submit = join_and_raise
    with ThreadTaskMap(executor=pool) as tasks:
        with pytest.raises(RuntimeError, match=r"^no room$"):
            tasks.submit("a", int)
        assert why_joined(joined[0]) == "its start raised an error"


def test_who_leaves_a_joined_run_does_nothing_to_the_others() -> None:
    gate = Gate()
    called: list[str] = []
    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", gate, "done")
        leaves, stays = (tasks.submit("a", gate, if_busy="join") for _ in range(2))
        leaves.add_done_callback(lambda _: called.append("leaves"))
        stays.add_done_callback(lambda _: called.append("stays"))
        assert leaves.cancel()
        assert leaves.cancel()
        assert leaves.cancelled()
        assert concurrent.futures.wait([leaves], PATIENCE).done == {leaves}
        assert called == ["leaves"]
        assert not asked_to_stop(tasks, "a")
        gate.open()
        assert (future.result(), stays.result()) == ("done", "done")
        assert not stays.cancel()
        assert called == ["leaves", "stays"]
        assert why(leaves) is None


def test_who_left_is_not_told_the_reason_of_a_later_cancellation() -> None:
    gate = Gate()
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", gate)
        tasks.submit("a", int)
        leaves, stays = (tasks.submit("a", int, if_busy="join") for _ in range(2))
        leaves.cancel()
        tasks.cancel("a", reason="later")
        assert (why(leaves), why_joined(stays)) == (None, "later")
        gate.open()


def test_callbacks_of_all_who_joined_find_the_name_free() -> None:
    """Each is called once, whatever the others raise, and may start the name again."""
    gate = Gate()
    states: list[State] = []

    def look(_: object) -> None:
        states.append(tasks.state("a"))
        raise SystemExit(3)

    with ThreadTaskMap() as tasks:
        futures = [tasks.submit("a", gate)]
        futures += [tasks.submit("a", int, if_busy="join") for _ in range(3)]
        for future in futures:
            future.add_done_callback(look)
        again: list[TaskFuture[str]] = []
        last = tasks.submit("a", int, if_busy="join")
        last.add_done_callback(lambda _: again.append(tasks.submit("a", str, "again")))
        gate.open()
        for future in futures:
            assert future.result() is None
        last.result()
    assert states == [State.FREE] * 4
    assert again[0].result() == "again"


def test_a_run_that_joins_itself_cannot_wait_for_that() -> None:
    def body() -> None:
        joined = tasks.submit("a", int, if_busy="join")
        with pytest.raises(RuntimeError, match=r"^inside task .*, result\(\) of its own future "):
            joined.result()

    with ThreadTaskMap() as tasks:
        tasks.submit("a", body).result()


def test_a_run_in_a_foreign_pool_can_be_joined() -> None:
    pool = HandPool()
    with ThreadTaskMap(executor=pool) as tasks:
        tasks.submit("a", str, 5)
        joined = tasks.submit("a", str, 6, if_busy="join")
        (job,) = pool.jobs
        job.run()
        assert joined.result(0) == "5"


# Replacing


def test_a_replacement_begins_when_the_old_run_has_heeded_its_cancellation() -> None:
    old_gate, new_gate = Gate(), Gate()
    with ThreadTaskMap() as tasks:
        old = tasks.submit("a", listens, old_gate)
        old_gate.wait_begun()
        new = tasks.submit("a", new_gate, "new", if_busy="replace")
        assert (tasks["a"], new.started_at) == (old, None)
        assert repr(new) == "<namedtasks.TaskFuture 'a' not begun>"
        old_gate.open()
        error = old.exception()
        assert isinstance(error, TaskCancelledError)
        assert error.reason == REPLACED
        new_gate.wait_begun()
        assert tasks["a"] is new
        new_gate.open()
        assert new.result() == "new"


def test_a_replacement_waits_for_a_body_that_does_not_listen() -> None:
    """However long that takes: it becomes overdue, its result counts, and never are there two."""
    clock = WatchedClock()
    gate = Gate()
    overdue = threading.Event()

    class Hears(Instrument):
        def task_overdue(self, event: TaskOverdue, /) -> None:
            overdue.set()

    with ThreadTaskMap(clock=clock, overdue_after=2, instruments=[Hears()]) as tasks:
        old = tasks.submit("a", gate, "done after all")
        gate.wait_begun()
        new = tasks.submit("a", str, "new", if_busy="replace")
        clock.wait_for_sleepers()
        clock.advance(2)
        reach(overdue)
        statistics = tasks.statistics()
        assert (statistics.running, statistics.pending, statistics.overdue) == (1, 1, 1)
        assert (old.overdue, new.started_at) == (True, None)
        gate.open()
        assert (old.result(), new.result()) == ("done after all", "new")
        assert tasks.wait_idle()
        statistics = tasks.statistics()
        assert (statistics.running, statistics.pending, statistics.overdue) == (0, 0, 0)


@pytest.mark.parametrize("first", ["replace", "queue"])
@both
def test_of_many_that_were_put_off_the_newest_begins(first: How, how: How) -> None:
    heard = RecordingInstrument()
    gate = Gate()
    called: list[Future[Any]] = []
    with ThreadTaskMap(instruments=[heard]) as tasks:
        old = tasks.submit("a", gate, "old")
        gate.wait_begun()
        before = [tasks.submit("a", boom, if_busy=first) for _ in range(5)]
        before[0].add_done_callback(called.append)
        new = tasks.submit("a", str, "new", if_busy=how)
        assert called == [before[0]]
        assert concurrent.futures.wait(before, 0).done == set(before)
        assert [why(future) for future in before] == [SUPERSEDED] * 5
        assert tasks.statistics().pending == 1
        gate.open()
        assert (old.result(), new.result()) == ("old", "new")
    assert (len(heard.of(TaskQueued)), len(heard.of(TaskSuperseded))) == (6, 5)
    assert len(heard.of(TaskStarted)) == len(heard.of(TaskSucceeded)) == 2


def test_a_replacement_of_one_that_waits_for_a_slot_takes_its_place() -> None:
    gates = [Gate() for _ in range(3)]
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("first", gates[0])
        in_line = tasks.submit("a", boom)
        last = tasks.submit("last", gates[2])
        new = tasks.submit("a", gates[1], "new", if_busy="replace")
        assert why(in_line) == REPLACED
        gates[0].open()
        gates[1].wait_begun()
        assert last.started_at is None
        for gate in gates:
            gate.open()
        assert new.result() == "new"


def test_a_replacement_also_takes_the_name_of_a_run_that_fails_and_gives_up() -> None:
    gate = Gate()
    with ThreadTaskMap(backoff=Backoff(give_up_after=1), instruments=()) as tasks:
        old = tasks.submit("a", gate, ValueError("late"))
        gate.wait_begun()
        new = tasks.submit("a", lambda: current_run().failures, if_busy="replace")
        gate.open()
        assert isinstance(old.exception(), ValueError)
        assert new.result() == 1
        assert tasks.state("a") is State.FREE


@both
def test_a_run_may_put_off_the_next_of_its_own_name(how: How) -> None:
    """One that replaces itself is asked to stop, and may listen."""
    futures: list[TaskFuture[str]] = []

    def body() -> None:
        futures.append(tasks.submit("a", str, "next", if_busy=how))
        current_run().check_cancelled()

    with ThreadTaskMap() as tasks:
        error = tasks.submit("a", body).exception()
        assert isinstance(error, TaskCancelledError) == (how == "replace")
        assert futures[0].result() == "next"


# Queueing


def test_a_queued_run_sits_out_the_wait_of_its_name() -> None:
    """A timer begins it; nobody has to call the map."""
    clock = WatchedClock()
    with ThreadTaskMap(clock=clock, instruments=(), backoff=Backoff(initial=3)) as tasks:
        tasks.submit("a", boom).exception()
        queued = tasks.submit("a", lambda: current_run().failures, if_busy="queue")
        statistics = tasks.statistics()
        assert (statistics.running, statistics.pending, statistics.waiting) == (0, 1, 1)
        assert tasks.state("a") is State.WAITING
        clock.wait_for_sleepers()
        clock.advance(3)
        assert queued.result(PATIENCE) == 1
        assert queued.started_at == 3


def test_a_queued_run_begins_when_its_name_is_forgotten() -> None:
    with ThreadTaskMap(clock=ManualClock(), instruments=()) as tasks:
        tasks.submit("a", boom).exception()
        queued = tasks.submit("a", lambda: current_run().failures, if_busy="queue")
        assert tasks.forget("a")
        assert queued.result(PATIENCE) == 0


def test_a_queued_run_waits_for_the_run_and_then_for_the_wait() -> None:
    clock = WatchedClock()
    gate = Gate()
    with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        old = tasks.submit("a", gate, ValueError())
        queued = tasks.submit("a", str, "queued", if_busy="queue")
        gate.open()
        old.exception()
        clock.wait_for_sleepers()
        assert (queued.started_at, queued.done()) == (None, False)
        clock.advance(0.5)
        assert queued.result(PATIENCE) == "queued"


def test_a_name_that_gives_up_drops_who_queues_and_refuses_who_comes() -> None:
    gate = Gate()
    with ThreadTaskMap(backoff=Backoff(give_up_after=1), instruments=()) as tasks:
        tasks.submit("a", gate, ValueError())
        queued = tasks.submit("a", int, if_busy="queue")
        gate.open()
        assert why(queued) == "its name gave up"
        for how in ("queue", "replace", "join"):
            with pytest.raises(GaveUpError):
                tasks.submit("a", int, if_busy=how)
        assert tasks.submit("a", int, if_busy="skip") is None


# Cancelling


@both
def test_the_future_of_a_pending_run_cancels_just_that_one(how: How) -> None:
    heard = RecordingInstrument()
    gate = Gate()
    with ThreadTaskMap(instruments=[heard]) as tasks:
        old = tasks.submit("a", gate, "old")
        gate.wait_begun()
        pending = tasks.submit("a", boom, if_busy=how)
        assert pending.cancel()
        assert pending.cancel()
        assert concurrent.futures.wait([pending], 0).done == {pending}
        assert why(pending) is None
        assert tasks.statistics().pending == 0
        gate.open()
        assert old.result() == "old"
    (cancelled,) = heard.of(TaskCancelled)
    assert (cancelled.name, cancelled.duration) == ("a", None)


def test_the_future_of_a_run_that_sits_out_a_wait_can_be_cancelled() -> None:
    with ThreadTaskMap(clock=ManualClock(), instruments=()) as tasks:
        tasks.submit("a", boom).exception()
        queued = tasks.submit("a", int, if_busy="queue")
        assert queued.cancel()
        assert tasks.wait_idle(0)
        assert tasks.state("a") is State.WAITING


@both
@pytest.mark.parametrize("verb", ["cancel", "cancel_matching", "cancel_all"])
def test_the_map_cancels_the_running_and_the_pending_run(how: How, verb: str) -> None:
    gate = Gate()
    with ThreadTaskMap() as tasks:
        old = tasks.submit("a", listens, gate)
        gate.wait_begun()
        pending = tasks.submit("a", boom, if_busy=how)
        args: dict[str, list[Any]] = {
            "cancel": ["a"],
            "cancel_matching": ["a".__eq__],
            "cancel_all": [],
        }
        assert getattr(tasks, verb)(*args[verb], reason="both") == 1
        assert why(pending) == "both"
        gate.open()
        assert isinstance(old.exception(), TaskCancelledError)
        assert tasks.wait_idle()
        assert tasks.state("a") is State.FREE


# Waiting, and the end


@both
def test_pending_is_not_idle_and_not_free(how: How) -> None:
    clock = WatchedClock()
    old, new = Gate(), Gate()
    with ThreadTaskMap(clock=clock) as tasks:
        tasks.submit("a", old)
        old.wait_begun()
        tasks.submit("a", new, if_busy=how)
        if how == "replace":
            clock.wait_for_sleepers()  # the timer
        calls = [tasks.wait_idle, tasks.wait_empty, lambda: tasks.wait_free("a")]
        waiters = [InThread(call) for call in calls]
        clock.wait_for_sleepers(3)
        old.open()
        new.wait_begun()
        assert not any(waiter.is_done for waiter in waiters)
        new.open()
        assert all(waiter.result() for waiter in waiters)


def test_idle_waits_for_who_sits_out_a_wait() -> None:
    clock = WatchedClock()
    with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        tasks.submit("a", boom).exception()
        assert tasks.wait_idle(0)
        tasks.submit("a", int, if_busy="queue")
        clock.wait_for_sleepers()
        assert not tasks.wait_idle(0)
        waiter = InThread(tasks.wait_idle)
        clock.wait_for_sleepers()
        clock.advance(0.5)
        assert waiter.result()


@both
def test_shutdown_with_grace_cancels_what_is_pending_too(how: How) -> None:
    clock = WatchedClock()
    gate = Gate()
    tasks = ThreadTaskMap(clock=clock, instruments=())
    old = tasks.submit("a", gate)
    gate.wait_begun()
    pending = tasks.submit("a", boom, if_busy=how)
    if how == "replace":
        clock.wait_for_sleepers()
    shutdown = InThread(tasks.shutdown, grace=2)
    clock.wait_for_sleepers()
    clock.advance(2)
    assert why(pending) == "the map is shutting down"
    clock.wait_for_sleepers(1 + (how == "queue"))
    clock.advance(1)
    assert shutdown.result() == ("a",)
    gate.open()
    old.result()


@both
def test_what_comes_next_still_runs_in_a_closed_map(how: How) -> None:
    gate = Gate()
    tasks = ThreadTaskMap()
    tasks.submit("a", gate)
    gate.wait_begun()
    pending = tasks.submit("a", str, "next", if_busy=how)
    tasks.close()
    for late in ("replace", "queue", "join", "skip"):
        with pytest.raises(ClosedError):
            tasks.submit("a", int, if_busy=late)
    shutdown = InThread(tasks.shutdown)
    gate.open()
    assert pending.result() == "next"
    assert shutdown.result() == ()


@pytest.mark.parametrize("end", ["close", "shutdown", "block"])
def test_what_would_sit_out_a_wait_is_dropped_at_the_end(end: str) -> None:
    """One that sits it out already, and one whose run fails while the end is waited for."""
    clock = ManualClock()
    gate = Gate()
    with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        tasks.submit("waits", boom).exception()
        waits = tasks.submit("waits", int, if_busy="queue")
        tasks.submit("fails", gate, ValueError())
        fails = tasks.submit("fails", int, if_busy="queue")
        waits.add_done_callback(lambda _: gate.open())
        if end != "block":
            getattr(tasks, end)()
    assert (why(waits), why(fails)) == (CLOSING, CLOSING)


@both
def test_an_exception_in_the_block_ends_what_is_pending(how: How) -> None:
    """It is dropped before the run in its way has ended."""
    gate = Gate()
    futures: list[TaskFuture[Any]] = []
    with pytest.raises(ZeroDivisionError), ThreadTaskMap() as tasks:
        tasks.submit("a", listens, gate)
        gate.wait_begun()
        futures.append(tasks.submit("a", boom, if_busy=how))
        futures[0].add_done_callback(lambda _: gate.open())
        raise ZeroDivisionError("mine")
    assert why(futures[0]) == "the map's block raised ZeroDivisionError: mine"


# Slots, contexts, timeouts


def test_a_queued_run_waits_in_line_for_its_slot() -> None:
    gates = [Gate() for _ in range(3)]
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("a", gates[0])
        tasks.submit("b", gates[1])
        queued = tasks.submit("a", gates[2], "queued", if_busy="queue")
        statistics = tasks.statistics()
        assert (statistics.running, statistics.pending, statistics.waiting_for_slot) == (2, 1, 1)
        gates[0].open()
        gates[1].wait_begun()
        statistics = tasks.statistics()
        assert (statistics.running, statistics.pending, statistics.waiting_for_slot) == (2, 0, 1)
        assert queued.started_at is None
        gates[1].open()
        gates[2].open()
        assert queued.result() == "queued"


@both
def test_a_run_that_was_put_off_has_the_context_of_its_call(how: How) -> None:
    color: contextvars.ContextVar[str] = contextvars.ContextVar("color")
    gate = Gate()
    with ThreadTaskMap() as tasks:
        tasks.submit("a", gate)
        gate.wait_begun()
        color.set("green")
        future = tasks.submit("a", color.get, if_busy=how)
        color.set("blue")
        gate.open()
        assert future.result() == "green"


@both
def test_its_timeout_counts_from_its_first_step(how: How) -> None:
    clock = ManualClock()
    gate = Gate()
    with ThreadTaskMap(clock=clock) as tasks:
        tasks.submit("a", gate)
        gate.wait_begun()
        future = tasks.submit("a", lambda: current_run().cancel_requested, if_busy=how, timeout=3)
        clock.advance(100)
        gate.open()
        assert future.result() is False
        assert future.started_at == 100


# Other places to run in


@both
def test_a_foreign_pool_gets_a_run_that_was_put_off_at_its_turn(how: How) -> None:
    """Not before: the pool does not know that it must wait."""
    pool = HandPool()
    with ThreadTaskMap(executor=pool) as tasks:
        old = tasks.submit("a", str, "old")
        new = tasks.submit("a", str, "new", if_busy=how)
        (first,) = pool.jobs
        assert new.started_at is None
        first.run()
        assert old.result(0) == "old"
        assert new.started_at is not None
        pool.jobs[1].run()
        assert new.result(0) == "new"


def test_a_job_that_waits_in_a_pool_of_threads_is_replaced_at_once() -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool, ThreadTaskMap(executor=pool) as tasks:
        tasks.submit("holds the thread", gate)
        old = tasks.submit("a", boom)
        new = tasks.submit("a", str, "new", if_busy="replace")
        assert why(old) == REPLACED
        assert tasks["a"] is new
        gate.open()
        assert new.result() == "new"


def test_a_replacement_may_run_elsewhere() -> None:
    """Its slot is of another kind than the old one's."""
    gate = Gate()
    pool = HandPool()
    with ThreadTaskMap() as tasks:
        tasks.submit("a", gate)
        gate.wait_begun()
        handed_over = threading.Event()
        pool.on_submit = lambda _: handed_over.set()
        new = tasks.submit("a", str, "new", executor=pool, if_busy="replace")
        gate.open()
        reach(handed_over)
        pool.jobs[0].run()
        assert new.result(PATIENCE) == "new"


@both
def test_a_pool_that_takes_nothing_fails_the_run_whose_turn_it_is(how: How) -> None:
    """There is nobody at whose call it could be raised; what is next in line begins."""
    pool = HandPool()
    gate = Gate()
    with ThreadTaskMap(instruments=(), limit=1) as tasks:
        old = tasks.submit("a", gate)
        gate.wait_begun()
        new = tasks.submit("a", int, executor=pool, if_busy=how)
        in_line = tasks.submit("b", str, "b")
        pool.raises = RuntimeError("cannot schedule new futures after shutdown")
        gate.open()
        assert new.exception(PATIENCE) is pool.raises
        assert (old.result(), in_line.result()) == (None, "b")
        assert tasks.state("a") is State.WAITING


# Overlapping names


def test_names_that_overlap_exclude_each_other() -> None:
    gates = [Gate(), Gate()]
    with ThreadTaskMap() as tasks:
        tasks.submit(("vol", "pod-1"), gates[0])
        tasks.submit(("vol", "pod-2"), gates[1])
        for how in ("refuse", "join", "queue"):
            with pytest.raises(AlreadyRunningError) as caught:
                tasks.submit(("vol", ANY), int, if_busy=how)
            assert set(caught.value.holders) == {("vol", "pod-1"), ("vol", "pod-2")}
        assert tasks.submit(("vol", ANY), int, if_busy="skip") is None
        assert tasks.submit(("other", ANY), str, "other").result() == "other"
        gates[0].open()
        assert tasks.wait_free(("vol", "pod-1"))
        with pytest.raises(AlreadyRunningError) as caught:
            tasks.submit(("vol", ANY), int)
        assert caught.value.holders == (("vol", "pod-2"),)
        gates[1].open()
        assert tasks.wait_free(("vol", ANY))
        assert tasks.submit(("vol", ANY), str, "all").result() == "all"


def test_a_replacement_of_all_that_overlaps_keeps_newer_starts_out() -> None:
    gate = Gate()
    with ThreadTaskMap() as tasks:
        olds = [tasks.submit(("vol", pod), gate) for pod in range(12)]
        new = tasks.submit(("vol", ANY), str, "new", if_busy="replace")
        with pytest.raises(AlreadyRunningError) as caught:
            tasks.submit(("vol", 12), int)
        assert caught.value.holders == (("vol", ANY),)
        assert caught.value.started_at is None
        joined = tasks.submit(("vol", 0), int, if_busy="join")
        assert all(asked_to_stop(tasks, ("vol", pod)) for pod in range(12))
        gate.open()
        assert new.result() == "new"
        assert all(old.done() for old in olds)
        assert joined.result() is None


def test_one_that_queues_comes_after_who_replaces_all() -> None:
    """It does not run yet, so it is not replaced."""
    order: list[str] = []
    gate = Gate()
    with ThreadTaskMap() as tasks:
        tasks.submit(("vol", 1), gate)
        gate.wait_begun()
        tasks.submit(("vol", 1), order.append, "queued", if_busy="queue")
        tasks.submit(("vol", ANY), order.append, "replaces", if_busy="replace")
        assert tasks.statistics().pending == 2
        gate.open()
    assert order == ["replaces", "queued"]


def test_a_task_cannot_wait_for_a_name_that_overlaps_its_own() -> None:
    def body() -> None:
        with pytest.raises(
            RuntimeError,
            match=r"^inside task \('vol', namedtasks\.ANY\), wait_free\(\) would wait for the task "
            r"itself: call it outside the task$",
        ):
            tasks.wait_free(("vol", 1))
        assert tasks.wait_free(("other", 1))

    with ThreadTaskMap() as tasks:
        tasks.submit(("vol", ANY), body).result()


def test_who_waits_for_a_name_that_a_pending_run_claims_hears_of_the_close() -> None:
    clock = WatchedClock()
    gate = Gate()
    with ThreadTaskMap(clock=clock) as tasks:
        tasks.submit(("vol", 2), gate)
        gate.wait_begun()
        tasks.submit(("vol", ANY), int, if_busy="replace")
        clock.wait_for_sleepers()  # the timer
        waiter = InThread(tasks.wait_free, ("vol", 1))
        clock.wait_for_sleepers()
        tasks.close()
        with pytest.raises(ClosedError):
            waiter.result()
        gate.open()


# Two threads at once


def meddle(patch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """Have *what* done by another thread when the next submit has put its run off."""
    apply_effects: Any = _base.apply_effects
    todo = [what]

    def meddle_and_apply(*args: Any) -> None:
        if todo:
            InThread(todo.pop()).result()
        apply_effects(*args)

    patch.setattr(_base, "apply_effects", meddle_and_apply)


@pytest.mark.parametrize("newer", [("vol", ANY), (ANY, 1)])
def test_of_two_replacements_at_the_same_time_the_newer_one_wins(
    newer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes in between is not replaced by the one that it replaces."""
    gate = Gate()
    heard = RecordingInstrument()
    won: list[TaskFuture[str]] = []
    with ThreadTaskMap(instruments=[heard]) as tasks:
        tasks.submit(("vol", 1), gate)
        gate.wait_begun()
        meddle(
            monkeypatch, lambda: won.append(tasks.submit(newer, str, "newer", if_busy="replace"))
        )
        older = tasks.submit(("vol", ANY), boom, if_busy="replace")
        assert why(older) == (SUPERSEDED if newer == ("vol", ANY) else REPLACED)
        gate.open()
        assert won[0].result(PATIENCE) == "newer"
    kinds = [type(event) for event in heard.events if event.name == ("vol", ANY)]
    assert kinds[0] is TaskQueued


@both
def test_a_cancel_while_a_run_is_put_off_comes_after_that(
    how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instruments hear of it in that order."""
    gate = Gate()
    heard = RecordingInstrument()
    with ThreadTaskMap(instruments=[heard]) as tasks:
        tasks.submit("a", gate)
        gate.wait_begun()
        meddle(monkeypatch, lambda: tasks.cancel("a", reason="in between"))
        assert why(tasks.submit("a", boom, if_busy=how)) == "in between"
        gate.open()
    kinds = [type(event) for event in heard.events]
    assert kinds == [TaskStarted, TaskQueued, TaskCancelled, TaskSucceeded]


class CancelsFirst(ThreadPoolExecutor):
    """A pool in which a run is cancelled by another thread just as it is handed over."""

    future: TaskFuture[Any] | None = None

    def __init__(self) -> None:
        super().__init__(1)
        self.answered: Future[bool] = Future()

    def submit(self, fn: Any, /, *args: Any, **options: Any) -> Any:
        future, self.future = self.future, None
        if future is not None:
            self.answered.set_result(InThread(future.cancel).result())
        return super().submit(fn, *args, **options)


@both
def test_a_run_that_is_cancelled_as_its_turn_comes_never_begins(how: How) -> None:
    gate = Gate()
    with CancelsFirst() as pool, ThreadTaskMap(executor=pool, limit=1) as tasks:
        old = tasks.submit("a", gate)
        gate.wait_begun()
        new = tasks.submit("a", boom, if_busy=how)
        waits_already = threading.Event()

        class Watched(list[Future[Any]]):
            def __iter__(self) -> Any:
                waits_already.set()
                return super().__iter__()

        waiter = InThread(concurrent.futures.wait, Watched([new]), PATIENCE)
        reach(waits_already)
        pool.future = new
        gate.open()
        assert waiter.result().done == {new}
        assert pool.answered.result(PATIENCE)
        assert why(new) is None
        assert old.result() is None
        assert tasks.wait_idle(PATIENCE)
        assert tasks.submit("b", str, "the slot is free").result(PATIENCE) == "the slot is free"


def test_a_foreign_pools_run_that_is_cancelled_as_its_turn_comes_is_not_taken_back() -> None:
    """The pool may have begun it: so the answer is no."""
    pool = HandPool()
    answers: list[bool] = []
    with ThreadTaskMap(executor=pool) as tasks:
        tasks.submit("a", int)
        new = tasks.submit("a", str, "new", if_busy="queue")
        pool.on_submit = lambda _: answers.append(InThread(new.cancel).result())
        pool.jobs[0].run()
        assert answers == [False]
        pool.jobs[1].run()
        assert new.result(0) == "new"


@both
@pytest.mark.parametrize("kind", ["own threads", "pool"])
def test_a_cancel_and_a_turn_at_the_same_time(how: How, kind: str) -> None:
    """Either the run never begins and its future is cancelled, or it runs: never both."""
    executor: Executor | None = ThreadPoolExecutor(2) if kind == "pool" else None
    ran: list[int] = []
    with ThreadTaskMap(executor=executor) as tasks:
        for number in range(100):
            gate = Gate()
            tasks.submit("a", gate)
            gate.wait_begun()
            new = tasks.submit("a", ran.append, number, if_busy=how)
            barrier = threading.Barrier(2)

            def cancel(barrier: threading.Barrier = barrier, new: Any = new) -> bool:
                barrier.wait(PATIENCE)
                return bool(new.cancel())

            canceller = InThread(cancel)
            barrier.wait(PATIENCE)
            gate.open()
            assert concurrent.futures.wait([new], PATIENCE).done == {new}
            assert canceller.result() == new.cancelled()
            assert tasks.wait_free("a", PATIENCE)
            assert new.cancelled() != (number in ran)
        statistics = tasks.statistics()
        assert (statistics.running, statistics.pending, statistics.waiting_for_slot) == (0, 0, 0)
    if executor is not None:
        executor.shutdown()
