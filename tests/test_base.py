"""The part of a map that is the same in all dialects, on a backend whose bodies a test ends."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakSet

import attrs
import pytest

from namedtasks import (
    ANY,
    AlreadyRunningError,
    Backoff,
    BackoffError,
    ClosedError,
    GaveUpError,
    State,
    _base,
)
from namedtasks._base import (
    WaitCondition,
    Waits,
    all_names,
    cancel_names,
    cancel_run,
    cancel_runs,
    close,
    drain,
    finish_run,
    forget,
    mark_closed,
    run_due,
    waits_for_its_map,
    waits_for_its_run,
)
from namedtasks._decisions import IfBusy
from namedtasks._state import RunStatus, Semaphore
from namedtasks.abc import FailedRun
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskFailed,
    TaskForgotten,
    TaskOverdue,
    TaskQueued,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from tests.memory import free_those_of_other_threads, no_garbage_collection
from tests.plain_backend import PlainBackend, PlainMap, PlainQueue, PlainRun

BACKOFF = Backoff(initial=1.0)


class Policy:
    """Waits a second, and gives up names whose error says so."""

    def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
        return math.inf if str(error) == "hopeless" else 1.0


def map_of(**settings: Any) -> tuple[PlainBackend, PlainMap]:
    backend = PlainBackend(**{"backoff": Policy(), **settings})
    return backend, PlainMap(backend)


# Starting


@pytest.mark.parametrize("if_busy", ["refuse", "skip", "join", "replace", "queue"])
def test_a_free_name_starts_whatever_if_busy_says(if_busy: IfBusy) -> None:
    assert PlainBackend().start("a", if_busy).status is RunStatus.BEGUN


def test_a_start_of_a_running_name_is_refused_and_told() -> None:
    backend = PlainBackend()
    backend.time = 3.0
    backend.start("a")
    backend.events()
    backend.time = 5.0
    with pytest.raises(AlreadyRunningError) as raised:
        backend.start("a", operation="mount")
    error = raised.value
    assert (error.name, error.operation, error.started_at) == ("a", "mount", 3.0)
    assert backend.recording.events == [
        TaskRefused(name="a", operation="mount", at=5.0, error=error, skipped=False)
    ], "it is delivered before the error is raised"


def test_a_start_that_is_skipped_is_told_and_raises_nothing() -> None:
    backend = PlainBackend()
    backend.start("a")
    backend.events()
    assert backend.start("a", "skip") is None
    (event,) = backend.recording.events
    assert isinstance(event, TaskRefused)
    assert event.skipped


def test_a_waiting_name_is_refused_until_its_time_has_come() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    backend.fail(backend.start("a", operation="mount"))
    backend.time = 0.75
    with pytest.raises(BackoffError) as raised:
        backend.start("a", operation="mount")
    assert (raised.value.operation, raised.value.retry_in) == ("mount", 0.25)
    backend.time = 1.0
    assert backend.start("a", operation="mount").failures == 1


def test_a_start_may_join_a_run() -> None:
    backend = PlainBackend()
    run = backend.start("a")
    assert backend.start("a", "join") is run


@pytest.mark.parametrize("if_busy", ["refuse", "skip", "join", "replace", "queue"])
def test_a_closed_map_starts_nothing(if_busy: IfBusy) -> None:
    backend = PlainBackend()
    backend.start("a")
    close(backend)
    for name in ("a", "b"):
        with pytest.raises(ClosedError):
            backend.start(name, if_busy)


# Refusing at once


def refused_at_once(tasks: PlainMap) -> list[object]:
    return list(tasks._refused_at_once)


def test_running_names_are_refused_at_once_where_a_refusal_is_nothing_but_an_error() -> None:
    class Starts(Instrument):
        def task_started(self, event: TaskStarted, /) -> None: ...

    for instruments in ([], [Starts()]):
        backend, tasks = map_of(instruments=instruments)
        backend.start("a")
        backend.fail(backend.start("b"))
        assert refused_at_once(tasks) == ["a"]
        tasks.close()
        assert refused_at_once(tasks) == [], "a closed map raises another error"


def test_no_name_is_refused_at_once_where_an_instrument_listens_to_refusals() -> None:
    class Refusals(Instrument):
        def task_refused(self, event: TaskRefused, /) -> None: ...

    backend, tasks = map_of(instruments=[Refusals()])
    backend.start("a")
    assert refused_at_once(tasks) == []


def test_a_map_follows_the_table_of_what_runs_when_that_is_replaced() -> None:
    backend, tasks = map_of(instruments=[])
    runs = [backend.start(number) for number in range(1000)]
    for run in runs[1:]:
        backend.succeed(run)
    backend.start("late")
    assert list(tasks) == [0, "late"]
    assert "late" in tasks
    assert 1 not in tasks
    assert tasks.state("late") is State.RUNNING
    assert refused_at_once(tasks) == [0, "late"]


# Deferring


def test_a_replacement_stops_all_runs_in_its_way_and_says_why() -> None:
    backend = PlainBackend()
    olds = [backend.start(("v", pod)) for pod in "ab"]
    backend.start(("w", "a"))
    new = backend.start(("v", ANY), "replace")
    assert [call for call in backend.taken() if call[0] == "interrupt"] == [
        ("interrupt", ("v", "a")),
        ("interrupt", ("v", "b")),
    ]
    assert [old.reason for old in olds] == ["replaced by a newer start"] * 2
    assert not new.done


def test_a_replacement_of_a_run_that_waits_for_a_slot_takes_its_place_at_once() -> None:
    backend = PlainBackend(limit=1)
    first, second = backend.start("a"), backend.start("b")
    backend.start("c")
    new = backend.start("b", "replace")
    assert (second.status, second.reason) == (RunStatus.CANCELLED, "replaced by a newer start")
    assert backend.scheduler.running["b"] is new
    backend.taken()
    backend.succeed(first)
    assert backend.taken()[0] == ("spawn", "b")


def test_a_queued_start_stops_nothing() -> None:
    backend = PlainBackend()
    old = backend.start("a")
    backend.start("a", "queue")
    assert [call for call, _ in backend.taken()] == ["deliver"]
    assert old.cancelled_at is None


def test_a_superseded_run_is_told_and_the_callers_that_wait_for_it_are_woken() -> None:
    backend = PlainBackend()
    backend.start("a")
    first = backend.start("a", "queue")
    backend.events()
    backend.taken()
    backend.time = 4.0
    with backend.wakes(first.waiters), backend.wakes_not(backend.waits.idle):
        backend.start("a", "queue")
    assert backend.taken() == [("discard", "a"), ("finished", "a"), ("deliver", None)]
    assert first.handle is None
    assert backend.events() == [
        TaskQueued(name="a", operation=None, at=4.0, if_busy="queue"),
        TaskSuperseded(name="a", operation=None, at=4.0),
    ]


# Ending


def test_the_next_run_begins_then_the_handle_is_done_then_the_instruments_are_told() -> None:
    """And the callers that wait were woken before all that."""
    backend = PlainBackend(limit=1)
    run = backend.start("a")
    backend.start("b")
    backend.events()
    backend.time = 2.0
    with backend.wakes(run.waiters), backend.wakes_not(backend.waits.idle):
        backend.succeed(run)
    assert backend.taken() == [("spawn", "b"), ("finished", "a"), ("deliver", None)]
    assert (run.status, run.error, run.handle) == (RunStatus.SUCCEEDED, None, None)
    assert backend.events() == [
        TaskSucceeded(name="a", operation=None, at=2.0, duration=2.0),
        TaskStarted(name="b", operation=None, at=2.0, failures=0),
    ]


def test_an_end_that_changes_the_timers_sets_the_timer() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    run = backend.start("a")
    backend.start("a", "queue")
    before = backend.timers_set
    backend.fail(run)
    assert backend.timers_set > before


def test_the_last_end_wakes_the_callers_that_wait_for_an_idle_map() -> None:
    backend = PlainBackend()
    one, other = backend.start("a"), backend.start("b")
    with backend.wakes_not(backend.waits.idle):
        backend.succeed(one)
    with backend.wakes(backend.waits.idle):
        backend.succeed(other)


def test_a_run_that_nobody_waits_for_has_no_queue() -> None:
    backend = PlainBackend()
    one, other = backend.start("a"), backend.start("b")
    one.waiters = other.waiters = cast("Any", None)
    backend.succeed(one)
    close(backend)
    backend.succeed(other)
    assert (one.waiters, other.waiters) == (None, None)


def test_a_map_with_a_pending_run_is_not_idle() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    backend.fail(backend.start("a"))
    backend.start("a", "queue")
    run = backend.start("b")
    with backend.wakes_not(backend.waits.idle):
        backend.succeed(run)


def test_a_body_that_raises_has_failed_and_its_name_waits_from_then_on() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    run = backend.start("a", operation="mount")
    backend.events()
    error = ValueError("boom")
    backend.time = 3.0
    with backend.wakes(run.waiters):
        backend.fail(run, error)
    assert run.status is RunStatus.FAILED
    assert run.error is error
    failure = backend.scheduler.failure("a", "mount", 3.0)
    assert failure is not None
    assert (failure.failures, failure.retry_at) == (1, 4.0)
    assert backend.events() == [
        TaskFailed(
            name="a",
            operation="mount",
            at=3.0,
            duration=3.0,
            error=error,
            failures=1,
            retry_at=4.0,
            retry_in=1.0,
        )
    ]


def test_an_error_that_says_that_it_is_false_is_a_failure_all_the_same() -> None:
    class FalseError(Exception):
        def __bool__(self) -> bool:
            return False

    backend = PlainBackend()
    run = backend.start("a")
    error = FalseError()
    backend.fail(run, error)
    assert run.status is RunStatus.FAILED
    assert run.error is error


def test_a_decision_on_failures_that_were_forgotten_meanwhile_is_asked_for_again() -> None:
    class Forgets:
        """Forgets the name that it is asked about, once."""

        def __init__(self) -> None:
            self.asked: list[int] = []

        def delay(self, failures: int, _: BaseException, run: FailedRun, /) -> float:
            self.asked.append(failures)
            if failures == 2:
                forget(backend, "a", None)
            return 10.0 * failures

    policy = Forgets()
    backend = PlainBackend(backoff=policy)
    backend.fail(backend.start("a"))
    backend.time = 10.0
    backend.fail(backend.start("a"))
    assert policy.asked == [1, 2, 1]
    failure = backend.scheduler.failure("a", None, 10.0)
    assert failure is not None
    assert (failure.failures, failure.retry_at) == (1, 20.0)


def test_a_body_that_was_cancelled_and_has_stopped_is_cancelled() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    run = backend.start("a")
    backend.time = 1.0
    cancel_run(backend, run, "enough")
    backend.events()
    backend.time = 3.0
    with backend.wakes(run.waiters):
        finish_run(backend, run, None, cancelled=True)
    assert (run.status, run.error) == (RunStatus.CANCELLED, None)
    assert backend.events() == [
        TaskCancelled(name="a", operation=None, at=3.0, duration=3.0, reason="enough")
    ]
    assert backend.scheduler.state("a", None, 3.0) is State.FREE


def test_so_is_one_that_raises_the_error_that_asks_it_to_stop() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    run = backend.start("a")
    cancel_run(backend, run, "enough")
    backend.fail(run, run.cancelled_error())
    assert (run.status, run.error) == (RunStatus.CANCELLED, None)
    assert backend.scheduler.failure("a", None, 0.0) is None


def test_such_an_error_of_another_run_is_a_failure() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    run, other = backend.start("a"), backend.start("b")
    cancel_run(backend, other, "enough")
    error = other.cancelled_error()
    backend.fail(run, error)
    assert run.status is RunStatus.FAILED
    assert run.error is error


@pytest.mark.parametrize("raises", [True, False])
def test_a_run_that_its_own_deadline_has_stopped_has_failed_and_says_so(raises: bool) -> None:
    backend = PlainBackend(backoff=BACKOFF)
    run = backend.start("a", timeout=2.0)
    backend.time = 2.0
    if raises:
        backend.fail(run, run.cancelled_error())
    else:
        finish_run(backend, run, None, cancelled=True)
    assert isinstance(run.error, TimeoutError)
    assert str(run.error) == "it took longer than its timeout of 2 s"
    failure = backend.scheduler.failure("a", None, 2.0)
    assert failure is not None
    assert failure.retry_at == 3.0


def test_a_body_that_returns_although_it_was_cancelled_has_succeeded() -> None:
    backend = PlainBackend()
    run = backend.start("a")
    cancel_run(backend, run, "enough")
    backend.succeed(run)
    assert (run.status, run.error) == (RunStatus.SUCCEEDED, None)


def test_an_error_that_is_no_exception_ends_a_run_and_does_not_count() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    run = backend.start("a")
    backend.events()
    error = KeyboardInterrupt()
    backend.time = 3.0
    with backend.wakes(run.waiters):
        backend.escape(run, error)
    assert (run.status, run.error) == (RunStatus.FAILED, error)
    (event,) = backend.events()
    assert isinstance(event, TaskFailed)
    assert (event.error, event.at, event.retry_at) == (error, 3.0, None)
    assert backend.scheduler.failure("a", None, 3.0) is None


def test_a_run_that_cannot_begin_makes_room_for_the_next() -> None:
    backend = PlainBackend(limit=1, backoff=BACKOFF)
    run, broken = backend.start("a"), backend.start("b")
    backend.start("c")
    error = RuntimeError("can't start new thread")
    backend.cannot_begin["b"] = error
    backend.events()
    backend.time = 1.0
    with backend.wakes(broken.waiters):
        backend.succeed(run)
    assert backend.taken() == [
        ("spawn", "b"),
        ("spawn", "c"),
        ("finished", "a"),
        ("finished", "b"),
        ("deliver", None),
    ]
    assert (broken.status, broken.error) == (RunStatus.FAILED, error)
    assert list(backend.scheduler.running) == ["c"]
    kinds = [type(event) for event in backend.events()]
    assert kinds == [TaskSucceeded, TaskFailed, TaskStarted]


# Handles that are done later


class Later:
    """A backend whose handles are done when a test says so."""

    def __init__(self) -> None:
        self.is_done = False
        self.backend = PlainBackend(backoff=BACKOFF)
        self.waits: Waits[PlainRun, PlainQueue] = Waits(
            self.backend.scheduler, self.backend.now, PlainQueue, self.complete
        )
        self.backend.waits = self.waits

    def complete(self, run: PlainRun) -> bool:
        assert run.done
        assert self.backend.lock.depth == 1
        run.handle = None
        return self.is_done


def test_the_callers_that_wait_for_a_run_are_woken_when_its_handle_is_done() -> None:
    later = Later()
    backend, waits = later.backend, later.waits
    waits.idle.sleepers = 1
    run, other = backend.start(("v", 1)), backend.start("b")
    with backend.wakes_not(run.waiters):
        backend.succeed(run)
    assert waits.ending == {run: None}
    for name in (("v", 1), ("v", ANY)):
        assert waits.until_free(name, None) == (run.waiters, math.inf)
    assert waits.until_free("c", None) is None
    later.is_done = True
    with backend.wakes(other.waiters, waits.idle):
        backend.succeed(other)
    assert waits.ending == {run: None}
    for condition in (waits.until_idle(), waits.until_empty(), waits.until_ended()):
        assert condition == (waits.idle, math.inf), "the first handle is not done yet"
    with backend.wakes(run.waiters):
        close(backend)
    del waits.ending[run]
    assert waits.until_idle() is None
    assert waits.until_ended() is None


# Cancelling


def test_a_run_is_asked_to_stop_and_told_why_the_first_time() -> None:
    backend = PlainBackend()
    run = backend.start("a")
    backend.events()
    backend.time = 3.0
    before = backend.timers_set
    assert cancel_run(backend, run, "enough") is True
    assert backend.timers_set > before, "it may become overdue"
    backend.time = 4.0
    assert cancel_run(backend, run, "once more") is True
    assert backend.taken() == [("interrupt", "a"), ("interrupt", "a")]
    assert (run.cancelled_at, run.reason, run.done) == (3.0, "enough", False)


def test_a_run_that_has_ended_is_not_cancelled() -> None:
    backend = PlainBackend()
    run = backend.start("a")
    backend.succeed(run)
    backend.taken()
    assert cancel_run(backend, run, "enough") is False
    assert backend.taken() == []
    assert run.reason is None


def test_a_run_that_waits_for_a_slot_ends_at_once() -> None:
    backend = PlainBackend(limit=1)
    backend.start("a")
    run = backend.start("b")
    backend.events()
    backend.time = 3.0
    with backend.wakes(run.waiters):
        assert cancel_run(backend, run, "enough") is True
    assert backend.taken() == [("discard", "b"), ("finished", "b"), ("deliver", None)]
    assert (run.done, run.handle, run.cancelled_at) == (True, None, 3.0)
    assert backend.events() == [
        TaskCancelled(name="b", operation=None, at=3.0, duration=None, reason="enough")
    ]


def test_a_pending_run_ends_at_once() -> None:
    backend = PlainBackend()
    backend.start("a")
    run = backend.start("a", "queue")
    backend.events()
    backend.taken()
    backend.time = 3.0
    with backend.wakes(run.waiters):
        assert cancel_run(backend, run, "enough") is True
    assert backend.taken() == [("discard", "a"), ("finished", "a"), ("deliver", None)]
    assert run.done
    assert backend.events() == [
        TaskCancelled(name="a", operation=None, at=3.0, duration=None, reason="enough")
    ]
    assert not backend.scheduler.pending


def test_a_run_behind_one_that_ends_at_once_begins() -> None:
    backend = PlainBackend()
    slots: Semaphore[PlainRun] = Semaphore(1)
    backend.start("a", semaphore=slots)
    run = backend.start("b", semaphore=slots)
    behind = backend.start("b", "queue")
    backend.events()
    backend.taken()
    assert cancel_run(backend, run, None) is True
    assert backend.taken() == [
        ("discard", "b"),
        ("spawn", "b"),
        ("finished", "b"),
        ("deliver", None),
    ]
    assert backend.scheduler.running["b"] is behind


def spawned(backend: PlainBackend) -> list[object]:
    return [name for call, name in backend.taken() if call == "spawn"]


def test_of_many_that_are_cancelled_none_begins_because_of_the_others() -> None:
    """A queued run may wait for a replacement, that for a slot, and that for a run."""
    backend = PlainBackend(limit=1)
    names: list[Any] = [("v", "a"), ("v", "b"), "c"]
    runs = [backend.start(name) for name in names]
    runs.append(backend.start("c", "queue"))
    runs.append(backend.start(("v", ANY), "replace"))
    runs.append(backend.start(("v", "a"), "queue"))
    backend.taken()
    cancel_runs(backend, runs, "enough")
    assert [run for run in runs if not run.done] == [runs[0]]
    assert backend.calls[-1][0] in ("interrupt", "deliver")
    assert spawned(backend) == []


def test_nor_does_a_run_that_queues_behind_a_replacement_cancelled_with_it() -> None:
    backend = PlainBackend()
    one = backend.start(("v", "a"))
    backend.start(("v", "b"))
    replacing, queued = backend.start(("v", ANY), "replace"), backend.start(("v", "a"), "queue")
    backend.succeed(one)
    assert queued.blocker is replacing
    backend.taken()
    cancel_runs(backend, [replacing, queued], "enough")
    assert spawned(backend) == []
    assert queued.started_at is None


def test_each_is_told_the_reason() -> None:
    backend = PlainBackend()
    ended, one, other = [backend.start(name) for name in "abc"]
    backend.succeed(ended)
    cancel_runs(backend, [ended, one, other], "enough")
    assert (ended.reason, one.reason, other.reason) == (None, "enough", "enough")


def test_names_are_cancelled_with_their_pending_runs_and_counted_once() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    backend.fail(backend.start("waits"))
    pending = backend.start("waits", "queue")
    both = [backend.start("a"), backend.start("a", "queue")]
    run, other = backend.start("b"), backend.start("other")
    assert sorted(cast("list[str]", all_names(backend))) == ["a", "b", "other", "waits"]
    assert cancel_names(backend, ["waits", "a", "b", "c"], "enough") == 3
    for one in (pending, *both, run):
        assert one.reason == "enough"
    assert other.cancelled_at is None
    assert (both[0].done, both[1].done) == (False, True)
    assert cancel_names(backend, ["c"], "enough") == 0


# Time


def test_a_run_that_has_sat_out_a_wait_begins_in_time() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    backend.fail(backend.start("a"))
    backend.start("a", "queue")
    backend.events()
    backend.taken()
    backend.time = 0.999
    run_due(backend)
    assert backend.taken() == []
    backend.time = 1.0
    run_due(backend)
    assert backend.taken() == [("spawn", "a"), ("deliver", None)]
    assert backend.events() == [TaskStarted(name="a", operation=None, at=1.0, failures=1)]


def test_a_run_that_did_not_stop_is_told_in_time() -> None:
    backend = PlainBackend()
    run = backend.start("a")
    assert run.overdue_after == 2.5
    cancel_run(backend, run, None)
    backend.events()
    backend.time = 2.5
    run_due(backend)
    assert backend.events() == [
        TaskOverdue(name="a", operation=None, at=2.5, duration=2.5, asked_at=0.0)
    ]


def test_a_run_that_lost_a_worker_of_its_pool_tells_its_backend() -> None:
    backend = PlainBackend()
    run: PlainRun = backend.start("a")
    run.note_lost_worker()
    assert backend.taken() == [("lost worker", "a")]


# Forgetting and closing


def test_forgetting_wakes_the_callers_that_wait_for_the_name_or_for_an_empty_map() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    for name in "ab":
        backend.fail(backend.start(name))
    queues = [backend.waits.starters.setdefault(name, PlainQueue()) for name in "ab"]
    with backend.wakes(queues[0], backend.waits.idle), backend.wakes_not(queues[1]):
        assert forget(backend, "a", None) is True
    assert backend.scheduler.state("a", None, 0.0) is State.FREE
    backend.start("c")
    with backend.wakes_not(*queues, backend.waits.idle):
        assert forget(backend, "a", None) is False


def test_forgetting_where_something_runs_wakes_the_callers_that_wait_for_an_empty_map() -> None:
    """Another failure expires next now."""
    backend = PlainBackend(backoff=BACKOFF)
    backend.fail(backend.start("a"))
    backend.start("b")
    with backend.wakes(backend.waits.idle):
        assert forget(backend, "a", None) is True


def test_forgetting_begins_the_run_that_sits_out_the_wait_and_tells_it() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    backend.fail(backend.start("a"))
    backend.start("a", "queue")
    backend.events()
    backend.taken()
    backend.time = 0.5
    assert forget(backend, "a", None) is True
    assert backend.taken() == [("spawn", "a"), ("deliver", None)]
    assert backend.events() == [
        TaskForgotten(name="a", operation=None, at=0.5, failures=1),
        TaskStarted(name="a", operation=None, at=0.5, failures=0),
    ]


def test_only_the_operation_that_is_named_is_forgotten() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    for operation in ("mount", "check"):
        backend.fail(backend.start("a", operation=operation))
    assert forget(backend, "a", "mount") is True
    assert backend.scheduler.state("a", "mount", 0.0) is State.FREE
    assert backend.scheduler.state("a", "check", 0.0) is State.WAITING


def test_closing_wakes_the_callers_that_wait_to_start_something_once() -> None:
    """Their name waits, runs, or is kept by a pending replacement."""
    backend = PlainBackend(backoff=BACKOFF)
    backend.fail(backend.start("a"))
    running = backend.start(("v", 1))
    backend.waits.until_free("a", None)
    replacing = backend.start(("v", ANY), "replace")
    queues = [backend.waits.starters["a"], running.waiters, replacing.waiters]
    conditions = [condition_of(backend, name) for name in ("a", ("v", 1), ("v", 2))]
    assert [one.queue for one in conditions] == queues
    with backend.wakes(*queues):
        close(backend)
    assert backend.scheduler.closed is True
    with backend.wakes_not(*queues):
        close(backend)
        mark_closed(backend)


@pytest.mark.parametrize("closes", [True, False])
def test_at_the_close_and_the_end_of_the_block_runs_that_would_sit_out_a_wait_are_dropped(
    closes: bool,
) -> None:
    backend = PlainBackend(backoff=BACKOFF)
    backend.fail(backend.start("a"))
    waits = backend.start("a", "queue")
    backend.start("b")
    queued = backend.start("b", "queue")
    backend.events()
    backend.taken()
    backend.time = 0.5
    with backend.wakes(waits.waiters):
        (close if closes else drain)(backend)
    assert backend.taken() == [("discard", "a"), ("finished", "a"), ("deliver", None)]
    assert backend.events() == [
        TaskCancelled(name="a", operation=None, at=0.5, duration=None, reason="the map is closing")
    ]
    assert not queued.done
    assert backend.scheduler.closed is closes


# The conditions of waits


def condition_of(backend: PlainBackend, name: Any) -> WaitCondition[PlainQueue]:
    condition = backend.waits.until_free(name, None)
    assert condition is not None
    return condition


def test_a_wait_for_an_idle_map_ends_when_nothing_runs_and_nothing_is_pending() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    waits = backend.waits
    assert waits.until_idle() is None
    backend.fail(backend.start("a"))
    assert waits.until_idle() is None, "a failure on record is no work"
    pending = backend.start("a", "queue")
    assert waits.until_idle() == (waits.idle, math.inf)
    with backend.wakes(waits.idle):
        cancel_run(backend, pending, None)
    run = backend.start("b")
    assert waits.until_idle() == (waits.idle, math.inf)
    backend.succeed(run)
    assert waits.until_idle() is None
    assert waits.until_ended() is None


def test_a_wait_for_an_empty_map_ends_when_no_failure_waits_either() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    waits = backend.waits
    assert waits.until_empty() is None
    backend.fail(backend.start("a"))
    run = backend.start("b")
    assert waits.until_empty() == (waits.idle, math.inf)
    backend.succeed(run)
    backend.time = 0.5
    assert waits.until_empty() == (waits.idle, 11.0)
    backend.time = 11.0
    assert waits.until_empty() is None


def test_a_wait_for_a_free_name_waits_for_the_run_that_has_it() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    assert backend.waits.until_free("a", None) is None
    run = backend.start("a")
    run.waiters = cast("Any", None)
    condition = condition_of(backend, "a")
    assert (condition.queue, condition.until) == (run.waiters, math.inf)
    assert condition_of(backend, "a").queue is condition.queue, "all wait in one queue"
    backend.succeed(run)
    assert backend.waits.until_free("a", None) is None


def test_and_for_the_first_of_the_runs_that_overlap_it() -> None:
    backend = PlainBackend()
    first = backend.start(("v", 1))
    backend.start(("v", 2))
    condition = condition_of(backend, ("v", ANY))
    assert (condition.queue, condition.until) == (first.waiters, math.inf)
    assert condition.queue is not backend.waits.idle


def test_and_until_the_end_of_its_own_wait_if_it_failed() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    for name in "ab":
        backend.fail(backend.start(name))
    condition = condition_of(backend, "a")
    assert (condition.queue, condition.until) == (backend.waits.starters["a"], 1.0)
    assert condition_of(backend, "a").queue is condition.queue
    assert condition_of(backend, "b").queue is not condition.queue
    backend.time = 1.0
    assert backend.waits.until_free("a", None) is None


def test_failures_of_another_operation_keep_no_wait() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    backend.fail(backend.start("a"))
    assert backend.waits.until_free("a", "mount") is None


def test_a_wait_that_would_never_end_raises() -> None:
    backend = PlainBackend(backoff=Backoff(give_up_after=1))
    backend.fail(backend.start("a"))
    with pytest.raises(GaveUpError) as gave_up:
        backend.waits.until_free("a", None)
    assert gave_up.value.args == ("a", None, 1)
    close(backend)
    with pytest.raises(ClosedError) as closed:
        backend.waits.until_free("b", "mount")
    assert closed.value.args == ("b", "mount", False)


def test_the_queue_of_a_name_goes_when_its_last_waiter_has_left() -> None:
    backend = PlainBackend(backoff=BACKOFF)
    backend.fail(backend.start("a"))
    queue = condition_of(backend, "a").queue
    queue.sleepers = 1
    backend.waits.leave("a")
    assert condition_of(backend, "a").queue is queue
    queue.sleepers = 0
    backend.waits.leave("b")
    assert condition_of(backend, "a").queue is queue, "another name's does not count"
    backend.waits.leave("a")
    assert backend.waits.starters == {}


def test_a_wait_that_would_wait_for_itself_says_so_and_names_the_cure() -> None:
    assert str(waits_for_its_map("wait_idle()")) == (
        "inside a task of the same map, wait_idle() would wait for the task itself: "
        "call it outside the tasks of the map, or wait for single runs"
    )
    run = PlainBackend().start(("v", 1))
    assert str(waits_for_its_run(run, "result()")) == (
        "inside task ('v', 1), result() would wait for the task itself: call it outside the task"
    )


# In a forked child


def test_in_a_forked_child_the_map_is_closed_and_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, tasks = map_of(limit=1)
    monkeypatch.setattr(_base, "backends", WeakSet([backend]))
    backend.fail(backend.start("failed"))
    backend.waits.until_free("failed", None)
    ended = backend.start("ended")
    backend.waits.ending[ended] = None
    backend.start("in line")
    lock, idle = backend.lock, backend.waits.idle
    before = tasks.statistics()
    assert (before.running, before.waiting, before.waiting_for_slot) == (2, 1, 1)
    lock.depth = 1  # another thread of the parent holds it
    _base._close_in_child()
    assert backend.lock is not lock
    after = tasks.statistics()
    assert (after.running, after.pending, after.waiting, after.waiting_for_slot) == (0, 0, 0, 0)
    assert (list(tasks), tasks.state("failed"), tasks.cancel_all()) == ([], State.FREE, 0)
    assert tasks.forget("failed") is False
    tasks.close()
    assert (backend.waits.ending, backend.waits.starters) == ({}, {})
    assert backend.waits.idle is not idle
    refusals: list[Callable[[], object]] = [
        lambda: backend.start("a"),
        backend.waits.until_idle,
        backend.waits.until_empty,
        lambda: backend.waits.until_free("a", None),
    ]
    for call in refusals:
        with pytest.raises(ClosedError, match="the map was opened in the parent process"):
            call()
    check = tasks.check("a")
    assert isinstance(check, ClosedError)
    assert check.args == ("a", None, True)


def test_a_map_goes_when_it_is_dropped() -> None:
    """Its backend does not keep it, and goes on without it."""
    backend, tasks = map_of()
    reference = weakref.ref(tasks)
    with no_garbage_collection():
        del tasks
        free_those_of_other_threads()
        assert reference() is None
    close(backend)
    assert backend.scheduler.closed


# Asking


def test_check_returns_what_a_start_would_raise_now() -> None:
    backend, tasks = map_of()
    assert tasks.check("a") is None
    backend.time = 2.0
    backend.start("a")
    busy = tasks.check("a", operation="mount")
    assert isinstance(busy, AlreadyRunningError)
    assert busy.args == ("a", "mount", 2.0, ("a",))
    backend.fail(backend.start("b", operation="mount"))
    backend.time = 2.75
    waits = tasks.check("b", operation="mount")
    assert isinstance(waits, BackoffError)
    assert waits.args == ("b", "mount", 1, 3.0, 0.25)
    assert tasks.check("b") is None
    backend.time = 3.0
    assert tasks.check("b", operation="mount") is None
    backend.fail(backend.start("b", operation="mount"), ValueError("hopeless"))
    assert isinstance(tasks.check("b", operation="mount"), GaveUpError)
    close(backend)
    assert isinstance(tasks.check("c"), ClosedError)


@pytest.mark.parametrize(
    ("name", "operation", "error"),
    [
        (
            ["vol"],
            None,
            TypeError(
                "a task's name must be hashable, and ['vol'] is not (unhashable type: 'list'): "
                "use a str, or a tuple or frozen class of hashable values"
            ),
        ),
        ("a", 5, TypeError("operation must be a str or None, not 5")),
    ],
)
def test_a_check_of_what_is_no_name_says_so(name: Any, operation: Any, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        map_of()[1].check(name, operation=operation)
    assert str(raised.value) == str(error)


def test_a_check_of_any_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^namedtasks\.ANY is no name: .*$"):
        map_of()[1].check(ANY)


def test_no_instrument_is_told_of_a_check() -> None:
    backend, tasks = map_of()
    backend.start("a")
    tasks.check("a")
    assert len(backend.events()) == 1, "it has started"


def test_each_state_is_that_of_its_own_name_and_operation() -> None:
    backend, tasks = map_of()
    backend.start("runs")
    for name, error in (("fails", "boom"), ("gives up", "hopeless")):
        backend.fail(backend.start(name, operation="mount"), ValueError(error))

    def states(operation: str | None) -> list[State]:
        names = ("runs", "fails", "gives up", "unknown")
        return [tasks.state(name, operation=operation) for name in names]

    assert states("mount") == [State.RUNNING, State.WAITING, State.GAVE_UP, State.FREE]
    assert states(None) == [State.RUNNING, State.FREE, State.FREE, State.FREE]
    backend.time = 1.0
    assert states("mount") == [State.RUNNING, State.READY, State.GAVE_UP, State.FREE]
    backend.time = 11.0
    assert tasks.state("fails", operation="mount") is State.FREE, "it has expired"


def test_a_state_is_told_without_the_time_where_nothing_failed() -> None:
    """It is asked for most often of names that run or are free."""
    backend = PlainBackend(backoff=BACKOFF)
    asked: list[None] = []

    def now() -> float:
        asked.append(None)
        return 0.0

    backend.now = now
    tasks = PlainMap(backend)
    backend.start("a")
    backend.fail(backend.start("b", operation="mount"))
    asked.clear()
    assert tasks.state("a") is State.RUNNING
    assert tasks.state("c") is State.FREE
    assert tasks.state("c", operation="mount") is State.FREE
    assert asked == []


def test_a_failure_is_that_of_exactly_one_operation() -> None:
    backend, tasks = map_of()
    backend.fail(backend.start("a", operation="mount"))
    failure = tasks.failure("a", operation="mount")
    assert failure is not None
    assert (failure.name, failure.operation) == ("a", "mount")
    assert (failure.failures, failure.retry_at, failure.gave_up) == (1, 1.0, False)
    assert repr(failure.error) == "ValueError('boom')"
    assert tasks.failure("a") is None
    assert tasks.failure("b", operation="mount") is None
    backend.time = 10.999
    assert tasks.failure("a", operation="mount") is not None
    backend.time = 11.0
    assert tasks.failure("a", operation="mount") is None, "it has expired"


def test_statistics_count_what_is_there_now() -> None:
    backend, tasks = map_of()
    backend.start("a")
    backend.start("a", "queue")
    backend.fail(backend.start("b"))
    statistics = tasks.statistics()
    assert (statistics.running, statistics.pending, statistics.waiting) == (1, 1, 1)
    backend.time = 1000.0
    later = attrs.evolve(statistics, oldest_run_age=1000.0)
    assert tasks.statistics() == later, "a look does not sweep"
    backend.scheduler.records.sweep(backend.time)
    assert tasks.statistics().waiting == 0


def test_only_statistics_take_the_lock() -> None:
    """So that all other looks may be called anywhere, also where the lock is taken."""
    backend, tasks = map_of()
    backend.start("a")
    looks: list[Callable[[], object]] = [
        lambda: tasks.check("a"),
        lambda: tasks.state("a"),
        lambda: tasks.failure("a"),
        lambda: tasks["a"],
        lambda: "a" in tasks,
        lambda: iter(tasks),
        lambda: len(tasks),
        tasks.keys,
        tasks.values,
        tasks.items,
        lambda: repr(tasks),
    ]
    before = backend.lock.entered
    for look in looks:
        look()
    assert backend.lock.entered == before
    tasks.statistics()
    assert backend.lock.entered == before + 1


# Stopping


def test_a_name_is_cancelled_with_its_reason() -> None:
    backend, tasks = map_of()
    run, pending, other = backend.start("a"), backend.start("a", "queue"), backend.start("b")
    assert tasks.cancel("a", reason="enough") is True
    assert (run.reason, pending.reason, other.cancelled_at) == ("enough", "enough", None)
    assert tasks.cancel("c") is False


def test_a_name_with_a_pending_run_only_is_cancelled_too() -> None:
    backend, tasks = map_of()
    backend.fail(backend.start("a"))
    pending = backend.start("a", "queue")
    assert tasks.cancel("a") is True
    assert pending.done
    assert tasks.cancel("a") is False


def test_the_names_for_which_a_predicate_is_true_are_cancelled_with_their_reason() -> None:
    backend, tasks = map_of()
    runs = [backend.start(number) for number in range(4)]
    count = tasks.cancel_matching(lambda name: isinstance(name, int) and name > 1, reason="enough")
    assert count == 2
    assert [run.reason for run in runs] == [None, None, "enough", "enough"]


def test_a_predicate_sees_each_name_once() -> None:
    backend, tasks = map_of()
    backend.start("a")
    backend.start("a", "queue")
    backend.start("b")
    seen: list[Any] = []
    assert tasks.cancel_matching(seen.append) == 0
    assert sorted(seen) == ["a", "b"]


def test_a_predicate_that_raises_cancels_nothing() -> None:
    backend, tasks = map_of()
    runs = [backend.start(name) for name in "abc"]

    def predicate(name: Any) -> bool:
        if name == "c":
            raise ZeroDivisionError
        return True

    with pytest.raises(ZeroDivisionError):
        tasks.cancel_matching(predicate)
    assert all(run.cancelled_at is None for run in runs)


def test_all_are_cancelled_with_their_reason() -> None:
    backend, tasks = map_of()
    runs = [backend.start(number) for number in range(3)]
    backend.start(1, "queue")
    assert tasks.cancel_all(reason="enough") == 3
    assert [run.reason for run in runs] == ["enough"] * 3
    assert map_of()[1].cancel_all() == 0


def test_a_reason_is_text_or_none() -> None:
    backend, tasks = map_of()
    run = backend.start("a")
    bad: Any = 5
    calls: list[Callable[[], object]] = [
        lambda: tasks.cancel("a", reason=bad),
        lambda: tasks.cancel("b", reason=bad),
        lambda: tasks.cancel_matching(lambda _: True, reason=bad),
        lambda: tasks.cancel_matching(lambda _: False, reason=bad),
        lambda: tasks.cancel_all(reason=bad),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"^reason must be a str or None, not 5$"):
            call()
    assert run.cancelled_at is None


def test_failures_are_forgotten_of_one_operation_or_of_all() -> None:
    backend, tasks = map_of()
    for operation in ("mount", "check", None):
        backend.fail(backend.start("a", operation=operation))
    assert tasks.forget("a", operation="mount") is True
    assert tasks.failure("a", operation="mount") is None
    assert tasks.failure("a", operation="check") is not None
    assert tasks.failure("a") is not None
    assert tasks.forget("a") is True
    assert tasks.failure("a", operation="check") is None
    assert tasks.forget("a") is False


def test_a_map_that_was_closed_refuses_starts() -> None:
    backend, tasks = map_of()
    tasks.close()
    assert backend.scheduler.closed


def test_a_verb_that_is_postponed_answers_as_a_look_does() -> None:
    """In a signal handler, for example, that interrupts a call of the same map."""
    backend, tasks = map_of()
    backend.fail(backend.start("waits"))
    backend.start("waits", "queue")
    backend.start("runs")
    backend.postpones = True
    assert [tasks.cancel(name) for name in ("waits", "runs", "unknown")] == [True, True, False]
    assert tasks.cancel_matching(lambda name: name == "runs") == 1
    assert tasks.cancel_all() == 2
    tasks.close()
    backend.postpones = False
    assert tasks.statistics().running == 1
    assert not backend.scheduler.closed


# The mapping


def test_a_map_is_the_mapping_of_what_runs() -> None:
    backend, tasks = map_of()
    assert len(tasks) == 0
    for name in "ab":
        backend.start(name)
    backend.start("b", "queue")
    backend.fail(backend.start("c"))
    assert tasks["a"] == "handle of a"
    assert tasks.get("c", "none") == "none"
    with pytest.raises(KeyError, match=r"^'c'$"):
        tasks["c"]
    assert ("a" in tasks, "c" in tasks) == (True, False)
    assert list(tasks) == ["a", "b"]
    assert len(tasks) == 2
    assert list(tasks.keys()) == ["a", "b"]
    assert list(tasks.values()) == ["handle of a", "handle of b"]
    assert list(tasks.items()) == [("a", "handle of a"), ("b", "handle of b")]


def test_a_run_whose_handle_is_not_there_yet_is_not_given_out() -> None:
    backend, tasks = map_of()
    backend.start("a").handle = None
    with pytest.raises(KeyError, match=r"^'a'$"):
        tasks["a"]
    assert list(tasks.items()) == []


def test_an_iteration_goes_over_a_snapshot() -> None:
    backend, tasks = map_of()
    run = backend.start("a")
    names, keys, values, items = iter(tasks), tasks.keys(), tasks.values(), tasks.items()
    backend.succeed(run)
    backend.start("b")
    assert list(names) == ["a"]
    assert (list(keys), list(values), list(items)) == (
        ["a"],
        ["handle of a"],
        [("a", "handle of a")],
    )


def test_a_map_is_true_and_equal_only_to_itself() -> None:
    tasks, other = map_of()[1], map_of()[1]
    assert tasks
    assert tasks == tasks
    assert tasks != other
    assert tasks != {}
    assert {tasks: 1, other: 2}[tasks] == 1
    assert hash(tasks) == hash(tasks)
    assert hash(tasks) != hash(other), "many of them in a set are found quickly"


def test_a_map_shows_what_it_is_and_how_much_is_in_it() -> None:
    backend, tasks = map_of()
    backend.start("a")
    for name in "bcd":
        backend.fail(backend.start(name))
    where = f"{PlainMap.__module__}.PlainMap"
    assert repr(tasks) == f"<{where} running=1 waiting=3>"
    tasks.close()
    assert repr(tasks) == f"<{where} running=1 waiting=3 closed>"
