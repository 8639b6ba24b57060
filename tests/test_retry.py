"""Runs that are retried, as the scheduler sees them; the time is the test's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from namedtasks import ANY, Backoff, PendingRun, State, TaskCancelledError
from namedtasks._base import cancel_names, close
from namedtasks._decisions import NO_EFFECTS, StartAction
from namedtasks._state import FailureRecord, Run, RunStatus
from namedtasks.instruments import TaskCancelled, TaskExpired, TaskFailed, TaskJoined
from tests.plain_backend import PlainBackend, World, make_scheduler, make_world

STEADY = Backoff(initial=5, factor=1)


def start_retried(w: World, name: Any = "a", operation: str | None = None) -> Run:
    """Start a run that is retried; its body begins."""
    run = w.make_run(name, operation)
    run.retry = True
    w.scheduler.admit(run, w.clock)
    w.scheduler.begin(run, w.now)
    return run


def fail_once(w: World, name: Any = "a", operation: str | None = None) -> Run:
    """Return a run whose first attempt has failed."""
    run = start_retried(w, name, operation)
    w.fail(run)
    return run


def held(w: World) -> int:
    """Count the records that do not expire because of a retry."""
    return len(w.scheduler.records.held)


# After a failure


def test_after_a_failure_a_retry_is_the_pending_run_of_its_name() -> None:
    """It holds neither the name nor a slot."""
    w = make_world(backoff=STEADY, limit=1)
    run = fail_once(w)
    assert (run.done, run.status, run.deferred) == (False, RunStatus.DEFERRED, "retry")
    assert w.state() is State.WAITING
    assert w.scheduler.list_pending() == [PendingRun("a", None, "retry", None, 5.0)]
    assert w.scheduler.thread_slots.used == 0
    event = w.events()[-1]
    assert isinstance(event, TaskFailed)
    assert (event.failures, event.retry_at, event.retry_in) == (1, 5.0, 5.0)
    assert event.will_retry


def test_the_next_attempt_begins_when_the_wait_is_over() -> None:
    w = make_world(backoff=STEADY)
    run = fail_once(w)
    w.now = 4.999
    assert w.run_due().begin == ()
    w.now = 5.0
    assert w.run_due().begin == (run,)
    assert (run.status, run.failures, run.attempt) == (RunStatus.ADMITTED, 1, 1)
    assert (held(w), len(w.scheduler.timers)) == (0, 0)


def test_a_backend_hears_of_a_retry_though_nobody_listens() -> None:
    """The effects are not the ones after which a backend looks at nothing: there is a timer."""
    w = make_world(backoff=STEADY, listens=False)
    run = start_retried(w)
    assert w.fail(run) is not NO_EFFECTS
    assert w.scheduler.timers.changed


def test_attempts_count_only_bodies_that_began() -> None:
    """An attempt whose start fails has no body."""
    w = make_world(backoff=STEADY)
    run = fail_once(w)
    assert run.attempts == 1
    w.now = 5.0
    w.run_due()
    w.fail(run)  # its pool has refused it
    w.now = 10.0
    w.run_due()
    assert run.attempts == 1
    w.scheduler.begin(run, w.now)
    assert (run.attempts, run.attempt) == (2, 2)


def test_nothing_of_one_attempt_is_left_in_the_next() -> None:
    w = make_world(backoff=STEADY, overdue_after=1.0)
    run = w.make_run("a", timeout=2.0)
    run.retry = True
    w.scheduler.admit(run, w.clock)
    w.scheduler.begin(run, w.now)
    w.now = 3.0
    w.run_due()
    assert (run.overdue, w.scheduler.statistics(w.now).overdue) == (True, 1)
    w.fail(run)
    assert w.scheduler.statistics(w.now).overdue == 0
    assert (run.overdue, run.deadline, run.started_at, run.reason) == (False, math.inf, None, None)


# Which failures are not retried


def cancel(w: World, run: Run) -> None:
    w.scheduler.request_cancel(run, "enough", w.now)


def close_map(w: World, _: Run) -> None:
    w.scheduler.closed = True


def stop_map(w: World, _: Run) -> None:
    w.scheduler.stopping = True


def queue_another(w: World, _: Run) -> None:
    w.defer("a", "queue")


@pytest.mark.parametrize("before", [cancel, close_map, stop_map, queue_another])
def test_an_attempt_that_nobody_wants_to_go_on_is_the_last_one(
    before: Callable[[World, Run], object],
) -> None:
    """The failure counts all the same."""
    w = make_world(backoff=STEADY)
    run = start_retried(w)
    before(w, run)
    w.fail(run)
    assert (run.done, run.status) == (True, RunStatus.FAILED)
    assert w.scheduler.records.waiting == 1
    assert not [event for event in w.events() if isinstance(event, TaskFailed) and event.will_retry]


@pytest.mark.parametrize(
    ("backoff", "error"),
    [
        (Backoff(exempt=(KeyError,)), KeyError("no wait")),
        (Backoff(give_up_after=1), OSError("gave up")),
        (STEADY, SystemExit(3)),
    ],
)
def test_a_failure_without_an_end_of_its_wait_is_not_retried(
    backoff: Backoff, error: BaseException
) -> None:
    w = make_world(backoff=backoff)
    run = start_retried(w)
    w.fail(run, error)
    assert run.status is RunStatus.FAILED
    assert w.scheduler.pending == {}


def test_a_lost_worker_alone_is_retried() -> None:
    """It is asked to stop because its pool is broken, which is a failure and no wish."""
    w = make_world(backoff=STEADY)
    run = start_retried(w)
    w.scheduler.note_lost_worker(run, w.now)
    assert (run.is_cancel_requested(), run.reason) == (True, "a worker of its pool was lost")
    w.fail(run)
    assert (run.deferred, run.lost_worker, run.is_cancel_requested()) == ("retry", False, False)


def test_a_worker_lost_in_an_earlier_attempt_does_not_stop_the_next_one() -> None:
    """A pool may tell so late; so it says which attempt it means."""
    w = make_world(backoff=STEADY)
    run = start_retried(w)
    w.scheduler.note_lost_worker(run, w.now, run.attempt + 1)
    assert not run.is_cancel_requested()
    w.scheduler.note_lost_worker(run, w.now, run.attempt)
    assert run.is_cancel_requested()


def test_a_cancellation_after_a_lost_worker_counts() -> None:
    w = make_world(backoff=STEADY)
    run = start_retried(w)
    w.scheduler.note_lost_worker(run, w.now)
    cancel(w, run)
    assert run.reason == "enough"
    w.fail(run)
    assert run.status is RunStatus.FAILED


def test_a_lost_worker_after_a_cancellation_changes_nothing() -> None:
    w = make_world(backoff=STEADY)
    run = start_retried(w)
    cancel(w, run)
    w.scheduler.note_lost_worker(run, w.now)
    assert (run.reason, run.lost_worker) == ("enough", False)
    w.fail(run)
    assert run.done
    w.scheduler.note_lost_worker(run, w.now)
    cancel(w, run)
    assert not run.lost_worker


# The record of a retry


def test_with_no_retention_a_retry_still_counts_its_failures() -> None:
    """Its record would expire at the very moment at which the next attempt is admitted."""
    w = make_world(backoff=Backoff(initial=1, give_up_after=3), retention=0.0)
    run = fail_once(w)
    for now, failures in ((1.0, 1), (3.0, 2)):
        w.now = now
        w.run_due()
        assert run.failures == failures
        w.scheduler.begin(run, w.now)
        w.fail(run)
    assert (run.status, w.state()) == (RunStatus.FAILED, State.GAVE_UP)
    assert not [event for event in w.events() if isinstance(event, TaskExpired)]


def test_a_retry_that_is_kept_from_starting_longer_than_the_retention_keeps_its_count() -> None:
    w = make_world(backoff=STEADY, retention=10.0)
    run = fail_once(w)
    other = w.start("a", "other")
    w.now = 5.0
    w.run_due()
    assert w.scheduler.list_pending() == [PendingRun("a", None, "retry", "a", None)]
    w.now = 1000.0
    w.fail(w.start("b"))  # each end sweeps
    w.fail(w.start("c"))
    assert w.succeed(other).begin == (run,)
    assert run.failures == 1


def test_a_name_that_overlaps_keeps_a_retry_from_starting() -> None:
    w = make_world(backoff=STEADY)
    run = fail_once(w, ("v", 1))
    other = w.start(("v", ANY))
    w.now = 5.0
    w.run_due()
    assert w.scheduler.list_pending() == [PendingRun(("v", 1), None, "retry", ("v", ANY), None)]
    assert w.succeed(other).begin == (run,)


def started_at_the_end_of_the_wait(w: World) -> Run:
    """Return a plain run that was started before the timer of a retry was looked at."""
    w.now = 5.0
    other = w.start("a")
    assert w.run_due().begin == ()
    return other


def test_a_retry_sits_out_the_wait_of_a_run_that_came_in_between() -> None:
    w = make_world(backoff=STEADY, retention=1.0)
    run = fail_once(w)
    other = started_at_the_end_of_the_wait(w)
    w.fail(other)
    assert held(w) == 1
    assert w.scheduler.list_pending() == [PendingRun("a", None, "retry", None, 10.0)]
    w.now = 10.0
    assert w.run_due().begin == (run,)
    assert run.failures == 2


def test_a_retry_is_dropped_when_a_run_that_came_in_between_gives_the_name_up() -> None:
    w = make_world(backoff=Backoff(initial=5, give_up_after=2))
    run = fail_once(w)
    other = started_at_the_end_of_the_wait(w)
    assert w.fail(other).dropped == (run,)
    assert (run.status, run.reason) == (RunStatus.CANCELLED, "its name gave up")
    error = run.cancelled_error()
    assert isinstance(error.__cause__, ValueError)


def test_a_retry_is_not_dropped_by_the_wait_of_another_run_after_the_block() -> None:
    """The end of the block waits for retries, and drops only queued runs that sit out a wait."""
    w = make_world(backoff=STEADY)
    run = fail_once(w)
    w.drain()
    assert w.fail(started_at_the_end_of_the_wait(w)).dropped == ()
    assert not run.done


def test_a_retry_that_waits_again_in_a_closed_map_is_dropped() -> None:
    w = make_world(backoff=STEADY)
    run = fail_once(w)
    other = started_at_the_end_of_the_wait(w)
    w.scheduler.draining = w.scheduler.closed = True
    assert w.fail(other).dropped == (run,)
    assert run.reason == "the map is closing"


# The end of a retry between attempts


def test_drain_drops_no_retry_of_an_open_map() -> None:
    w = make_world(backoff=STEADY)
    fail_once(w)
    assert w.drain().dropped == ()


@pytest.mark.parametrize("waits_for_a_run", [False, True])
def test_drain_drops_each_retry_of_a_closed_map(waits_for_a_run: bool) -> None:
    """Also one that waits for a run: it is not going to begin for all that."""
    w = make_world(backoff=STEADY)
    run = fail_once(w)
    if waits_for_a_run:
        w.start("a", "other")
        w.now = 5.0
        w.run_due()
    w.scheduler.closed = True
    assert w.drain().dropped == (run,)
    assert held(w) == 0
    assert [event.reason for event in w.events() if isinstance(event, TaskCancelled)] == [
        "the map is closing"
    ]


def test_a_retry_that_is_dropped_leaves_the_failures_on_record() -> None:
    w = make_world(backoff=STEADY, retention=10.0)
    run = fail_once(w)
    assert w.drop(run, "enough").dropped == (run,)
    assert (w.state(), held(w)) == (State.WAITING, 0)
    w.now = 15.0
    assert w.state() is State.FREE
    error = run.cancelled_error()
    assert isinstance(error, TaskCancelledError)
    assert (error.reason, repr(error.__cause__)) == ("enough", "ValueError('boom')")


def test_a_newer_start_supersedes_a_retry() -> None:
    w = make_world(backoff=STEADY)
    run = fail_once(w)
    newer = w.defer("a", "queue")
    assert w.effects.dropped == (run,)
    assert run.reason == "superseded by a newer start of its name"
    w.now = 5.0
    assert w.run_due().begin == (newer,)
    assert newer.failures == 1


def test_a_newer_retry_of_another_operation_supersedes_an_older_one() -> None:
    """A name has one pending run at most, and the newer failure is the newer start."""
    w = make_world(backoff=STEADY)
    older = fail_once(w)
    newer = start_retried(w, "a", "other")
    assert w.fail(newer).dropped == (older,)
    assert older.reason == "superseded by a newer start of its name"
    w.now = 5.0
    assert w.run_due().begin == (newer,)


def test_forget_lets_the_next_attempt_begin_at_once_with_no_failures() -> None:
    w = make_world(backoff=STEADY)
    run = fail_once(w)
    effects = w.forget()
    assert effects is not None
    assert effects.begin == (run,)
    assert (run.failures, held(w)) == (0, 0)


def test_a_retry_whose_failures_were_forgotten_may_be_dropped_while_it_waits_for_a_run() -> None:
    w = make_world(backoff=STEADY)
    run = fail_once(w)
    w.start("a", "other")
    w.now = 5.0
    w.run_due()
    assert w.forget() is NO_EFFECTS
    assert w.drop(run, None).dropped == (run,)
    assert (held(w), w.state("a", None)) == (0, State.RUNNING)


# Starts that find a retry


def test_join_finds_a_retry_that_waits() -> None:
    w = make_world(backoff=STEADY)
    run = fail_once(w)
    conflict = w.conflict("a")
    assert isinstance(conflict, FailureRecord)
    assert w.scheduler.resolve(conflict, "a", None, "join", w.clock) == (StartAction.JOIN, None)
    assert w.scheduler.run_to_join("a") is run
    joined = w.events()[-1]
    assert (type(joined), joined.run_id, joined.attempts) == (TaskJoined, run.id, 1)


def test_join_of_another_operation_does_not_find_it() -> None:
    """A failure of that operation has a wait of its own, for which no retry waits."""
    w = make_world(backoff=STEADY)
    w.fail(w.start("a", "other"))
    fail_once(w)
    conflict = w.conflict("a", "other")
    assert conflict is not None
    action, error = w.scheduler.resolve(conflict, "a", "other", "join", w.clock)
    assert (action, type(error).__name__) == (StartAction.REFUSE, "BackoffError")


@pytest.mark.parametrize("retry", [0, 1, "yes", None])
def test_retry_is_true_or_false(retry: Any) -> None:
    with pytest.raises(TypeError, match=r"^retry must be True or False, not "):
        make_scheduler().check_options("map", None, retry)


def test_retry_needs_a_policy() -> None:
    message = r"^retry=True needs a backoff policy, but backoff is None$"
    with pytest.raises(ValueError, match=message):
        make_scheduler(backoff=None).check_options("map", None, True)
    with pytest.raises(ValueError, match=message):
        make_scheduler().check_options(None, None, True)
    options = make_scheduler(backoff=None).check_options(STEADY, None, True)
    assert options is not None
    assert (options.backoff, options.retry) == (STEADY, True)


def test_the_word_map_is_the_policy_of_the_map_whichever_copy_of_it_is_passed() -> None:
    copy: Any = "".join(["m", "ap"])
    assert make_scheduler().check_options(copy, None, False) == ("map", None, False)
    assert make_scheduler().check_options("map", None, False) is None


# Cancelling, as each dialect does


def with_a_retry(backend: PlainBackend) -> Any:
    run = backend.make_run("a")
    run.retry = True
    backend.scheduler.admit(run, backend.now)
    backend.scheduler.begin(run, backend.time)
    backend.fail(run)
    assert run.deferred == "retry"
    backend.taken()
    return run


def test_a_retry_that_waits_is_among_those_that_are_cancelled() -> None:
    """It comes before a run that replaces others, which may be waiting for the same names."""
    backend = PlainBackend(backoff=STEADY)
    waits = with_a_retry(backend)
    first = backend.start("b")
    replaces = backend.start("b", "replace")
    backend.taken()
    assert cancel_names(backend, ["b", "a"], "enough") == 2
    assert [name for call, name in backend.taken() if call == "discard"] == ["a", "b"]
    assert (waits.reason, replaces.reason) == ("enough", "enough")
    assert first.is_cancel_requested()


def test_who_waits_for_a_retry_is_woken_by_each_attempt_and_by_its_end() -> None:
    """What a caller may not wait for inside a run depends on what the retry waits for."""
    backend = PlainBackend(backoff=STEADY)
    run = with_a_retry(backend)
    backend.time = 5.0
    backend.scheduler.run_due(backend.time)
    backend.scheduler.begin(run, backend.time)
    with backend.wakes(run.waiters):
        backend.fail(run)
    assert not run.done
    with backend.wakes(run.waiters, backend.waits.idle):
        close(backend)
    assert run.done
    assert ("discard", "a") in backend.taken()


def test_a_retry_without_waiters_wakes_nobody() -> None:
    backend = PlainBackend(backoff=STEADY)
    run: Any = backend.make_run("a")
    run.waiters = None
    run.retry = True
    backend.scheduler.admit(run, backend.now)
    backend.scheduler.begin(run, backend.time)
    with backend.wakes_not(backend.waits.idle):
        backend.fail(run)
    assert ("finished", "a") not in backend.taken()


# Outcomes


@pytest.mark.parametrize("begun", [True, False])
def test_the_outcome_of_what_leaves_the_block_has_a_copy_of_the_error(begun: bool) -> None:
    """No policy was asked about it, so nothing else had copied it."""
    w = make_world(keep_outcomes=5)
    run = w.make_run("a")
    w.scheduler.admit(run, w.clock)
    if begun:
        w.scheduler.begin(run, w.now)
    error = SystemExit(3)
    w.finish(run, RunStatus.FAILED, error)
    assert w.scheduler.outcomes is not None
    found = [(one.status, repr(one.error)) for one in w.scheduler.outcomes.snapshot()]
    assert found == ([("failed", "SystemExit(3)")] if begun else [])
    assert all(one.error is not error for one in w.scheduler.outcomes.snapshot())


def test_a_failure_that_does_not_count_has_an_error_in_its_outcome() -> None:
    w = make_world(backoff=None, keep_outcomes=5)
    w.fail(w.start("a"))
    w.succeed(w.start("b"))
    w.cancelled(w.start("c"))
    assert w.scheduler.outcomes is not None
    assert [repr(one.error) for one in w.scheduler.outcomes.snapshot()] == [
        "ValueError('boom')",
        "None",
        "None",
    ]


def test_a_start_that_comes_just_before_the_retry_counts_its_failures() -> None:
    """The record is held until then, however short the retention is."""
    w = make_world(backoff=Backoff(initial=5, factor=1), retention=0.0)
    run = w.make_run("a")
    run.retry = True
    w.scheduler.admit(run, w.clock)
    w.scheduler.begin(run, w.now)
    w.fail(run)
    w.now = 5.0
    assert w.start("a").failures == 1
