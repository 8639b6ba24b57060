"""The state table row by row and exactly at its boundaries, pending runs, slots and events."""

import math
import sys
from collections.abc import Callable
from typing import Any

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
)
from namedtasks._backoff import default_retention
from namedtasks._decisions import (
    NO_EFFECTS,
    Closed,
    Conflict,
    Effects,
    IfBusy,
    Overlapping,
    StartAction,
    combine,
    refusal,
    resolve_busy,
)
from namedtasks._state import FailureRecord, Run, RunStatus
from namedtasks.abc import FailedRun
from namedtasks.instruments import (
    Instrument,
    LoggingInstrument,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskForgotten,
    TaskGaveUp,
    TaskJoined,
    TaskOverdue,
    TaskQueued,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from tests.plain_backend import World, has_slot, make_scheduler, make_world

BACKOFF = Backoff(initial=1.0)
ALL: tuple[IfBusy, ...] = ("refuse", "skip", "join", "replace", "queue")


def waiting_world(limit: int | None = None) -> World:
    """Make a world in which a name that failed once waits for a second."""
    return make_world(backoff=BACKOFF, limit=limit)


# The state table


def test_a_free_name_runs_and_success_drops_the_record() -> None:
    w = make_world()
    run = w.start()
    assert w.state() is State.RUNNING
    w.succeed(run)
    assert w.state() is State.FREE
    assert run.done


def test_a_running_name_is_refused_also_if_it_failed_before() -> None:
    """A run counts before a failure."""
    w = make_world()
    w.fail(w.start())
    w.now = 0.5
    w.start()
    with pytest.raises(AlreadyRunningError) as caught:
        w.start()
    assert caught.value.started_at == 0.5
    assert caught.value.holders == ("a",)


def test_a_failed_name_is_refused_until_exactly_retry_at() -> None:
    w = make_world()
    w.now = 10.0
    w.fail(w.start())
    w.now = math.nextafter(10.5, 0)
    assert w.state() is State.WAITING
    with pytest.raises(BackoffError) as caught:
        w.start()
    assert caught.value.retry_at == 10.5
    assert caught.value.retry_in == 10.5 - w.now
    assert repr(caught.value.__cause__) == "ValueError('boom')"
    w.now = 10.5
    assert w.state() is State.READY
    assert w.start().failures == 1


def test_the_count_lasts_until_exactly_the_retention() -> None:
    for now, failures in ((math.nextafter(244.5, 0), 1), (244.5, 0)):
        w = make_world()
        w.fail(w.start())
        w.now = now
        assert w.state() is (State.READY if failures else State.FREE)
        assert w.start().failures == failures


def test_a_retention_of_zero_forgets_at_the_end_of_the_wait() -> None:
    w = make_world(retention=0.0)
    w.fail(w.start())
    w.now = 0.5
    assert w.state() is State.FREE


def test_a_run_that_outlives_its_records_retention_counts_on() -> None:
    w = make_world()
    w.fail(w.start())
    w.now = 0.5
    run = w.start()
    w.now = 1000.0
    w.fail(run)
    failure = w.scheduler.failure("a", None, w.now)
    assert failure is not None
    assert (failure.failures, failure.retry_at) == (2, 1001.0)


def test_a_cancelled_run_leaves_the_record_as_it_was() -> None:
    w = make_world()
    w.fail(w.start())
    before = w.scheduler.failure("a", None, w.now)
    w.now = 0.5
    run = w.start()
    assert w.scheduler.failure("a", None, w.now) == before, "a running name shows it too"
    w.cancelled(run)
    assert w.scheduler.failure("a", None, w.now) == before
    assert w.state() is State.READY


def test_a_cancelled_run_that_outlived_the_record_leaves_the_name_free() -> None:
    w = make_world()
    w.fail(w.start())
    w.now = 0.5
    run = w.start()
    w.now = 1000.0
    w.cancelled(run)
    assert w.state() is State.FREE


def test_before_time_zero_a_cancelled_run_leaves_the_record_too() -> None:
    """The time of a clock may be negative, and is read if there is a record."""
    w = make_world(listens=False, retention=10.0)
    w.now = -100.0
    w.fail(w.start())
    w.now = -99.5
    w.cancelled(w.start())
    assert w.state() is State.READY


def test_an_exempt_error_starts_no_wait_and_keeps_the_count() -> None:
    w = make_world(backoff=Backoff(exempt=(KeyError,)))
    w.fail(w.start())
    w.now = 0.5
    run, error = w.start(), KeyError()
    assert w.scheduler.decide_retry(run, error, w.clock) == (1, 2, None, None), (
        "there is nothing to record"
    )
    w.fail(run, error)
    assert w.events()[-1] == TaskFailed(
        name="a", operation=None, at=0.5, duration=0.0, error=error,
        failures=1, retry_at=None, retry_in=None,
    )  # fmt: skip
    assert w.state() is State.READY
    assert w.start().failures == 1


def test_without_backoff_a_failed_name_is_free() -> None:
    w = make_world(backoff=None)
    w.fail(w.start())
    assert w.state() is State.FREE


def test_a_name_that_gave_up_is_refused_for_ever_until_forgotten() -> None:
    w = make_world(backoff=Backoff(give_up_after=1))
    w.fail(w.start())
    w.now = 1e9
    assert w.state() is State.GAVE_UP
    with pytest.raises(GaveUpError) as caught:
        w.start()
    assert caught.value.failures == 1
    assert repr(caught.value.__cause__) == "ValueError('boom')"
    assert w.forget() == NO_EFFECTS
    assert w.state() is State.FREE


def test_forgetting_a_running_name_sets_its_count_to_zero_for_good() -> None:
    w = make_world()
    w.fail(w.start())
    w.now = 0.5
    run = w.start()
    assert run.failures == 1
    assert w.forget() == NO_EFFECTS
    assert w.forget() is None, "there was nothing left"
    assert run.failures == 0
    w.cancelled(run)
    assert w.state() is State.FREE


def test_forgetting_one_operation_keeps_the_others() -> None:
    w = make_world()
    w.fail(w.start(operation="mount"))
    w.fail(w.start(operation="umount"))
    w.now = 0.5
    run = w.start(operation="mount")
    assert w.forget("a", "umount") == NO_EFFECTS
    assert run.failures == 1
    assert w.scheduler.failure("a", "umount", w.now) is None
    assert w.scheduler.failure("a", "mount", w.now) is not None
    assert w.scheduler.failure("a", None, w.now) is None


def test_operations_of_one_name_wait_apart_and_run_one_at_a_time() -> None:
    """A failed attach does not keep a detach waiting."""
    w = make_world()
    w.fail(w.start(operation="attach"))
    run = w.start(operation="detach")
    with pytest.raises(AlreadyRunningError):
        w.start(operation="attach")
    w.succeed(run)
    with pytest.raises(BackoffError):
        w.start(operation="attach")


def test_a_closed_scheduler_refuses_before_anything_else() -> None:
    w = make_world()
    w.start()
    w.scheduler.closed = True
    for name in "ab":
        with pytest.raises(ClosedError):
            w.start(name)
        assert w.scheduler.look_for_conflict(name, None, w.now) is Closed.CLOSED


def test_a_run_that_has_ended_keeps_no_record_alive() -> None:
    """A caller that keeps its handle does not keep the error of the run before it."""
    w = make_world(backoff=Backoff(initial=0.0))
    w.fail(w.start())
    ends: list[Callable[[Run], object]] = [w.cancelled, w.fail, w.succeed]
    for end in ends:
        run = w.start()
        assert run.record is not None
        end(run)
        assert run.record is None


@pytest.mark.parametrize("instruments", [[], [LoggingInstrument()]])
def test_the_clock_is_read_only_if_something_depends_on_it(instruments: list[Instrument]) -> None:
    """Most starts and ends do not, in a map with the default instrument either."""

    def clock() -> float:
        raise AssertionError("it was read")

    scheduler = make_scheduler(limit=2, instruments=instruments)
    first, second = [Run(None, name, None, math.inf, scheduler.slots) for name in "ab"]
    for run in (first, second):
        assert scheduler.find_conflict(run.name, None, clock) is None
        scheduler.admit(run, clock)
    assert not scheduler.begin(first, 1.0)
    assert scheduler.finish(first, RunStatus.SUCCEEDED, clock) == NO_EFFECTS
    assert scheduler.roll_back(second, clock) == NO_EFFECTS


def test_a_start_that_waits_for_a_slot_reads_the_clock() -> None:
    """From then on it waits, as `longest_slot_wait` tells."""
    w = make_world(limit=1)
    w.start("a")
    w.now = 2.0
    w.start("b")
    w.now = 5.0
    w.start("c")
    assert w.scheduler.statistics(7.0).longest_slot_wait == 5.0


def test_ends_sweep() -> None:
    """They give back the memory of a record that nobody retries."""
    w = make_world(backoff=Backoff(maximum=1.0))
    for number in range(50):
        w.fail(w.start(number))
    w.now = 100.0
    for _ in range(10):
        w.succeed(w.start("other"))
    assert w.scheduler.records.waiting == 0


def test_many_runs_that_ended_leave_no_room_behind() -> None:
    w = make_world(listens=False)
    told: list[int] = []
    w.scheduler.on_running_changed = lambda: told.append(len(w.scheduler.running))
    runs = [w.start(str(number)) for number in range(10_000)]
    full = sys.getsizeof(w.scheduler.running)
    for run in runs[:5_000]:
        w.succeed(run)
    assert told == []
    for run in runs[5_000:]:
        w.succeed(run)
    assert sys.getsizeof(w.scheduler.running) < full / 20
    assert told[0] == 1216, "the first multiple of 64 under an eighth of the peak"


def test_many_pending_runs_that_went_leave_no_room_behind() -> None:
    w = make_world(listens=False)
    for number in range(10_000):
        w.start(number)
        w.defer(number, "queue")
    full = sys.getsizeof(w.scheduler.pending)
    for run in list(w.scheduler.pending.values()):
        w.drop(run)
    assert sys.getsizeof(w.scheduler.pending) < full / 20


def test_the_end_of_a_run_does_not_look_at_the_other_names() -> None:
    """So its cost does not grow with their number."""

    @attrs.frozen
    class Counted:
        number: int

        def __hash__(self) -> int:
            looked_at.append(self)
            return hash(self.number)

    looked_at: list[Counted] = []
    w = waiting_world()
    other, one, two, three = [Counted(number) for number in range(4)]
    w.start(other)
    w.defer(other, "queue")
    old, failing = w.start(one), w.start(three)
    begins = w.defer(one, "queue")
    w.start(two)
    dropped = w.defer(two, "queue")
    looked_at.clear()
    assert w.succeed(old) == Effects((begins,))
    assert w.drop(dropped) == Effects((), (dropped,))
    w.fail(failing)
    assert other not in looked_at


# Refusals


def test_every_refusal_is_about_the_task_that_was_asked_for() -> None:
    """And not about its conflict, which may have another name and operation."""
    name = ("v", 1)
    other = Run(None, ("v", ANY), "scan", math.inf, None)
    other.started_at = 3.0
    cause = ValueError("boom")
    conflicts: list[tuple[Conflict[Run], type[Exception], tuple[object, ...]]] = [
        (other, AlreadyRunningError, (name, "mount", 3.0, (("v", ANY),))),
        (Overlapping([other]), AlreadyRunningError, (name, "mount", 3.0, (("v", ANY),))),
        (Closed.CLOSED, ClosedError, (name, "mount", False)),
        (Closed.FORKED, ClosedError, (name, "mount", True)),
        (FailureRecord(cause, 2, 9.0), BackoffError, (name, "mount", 2, 9.0, 5.0)),
        (FailureRecord(cause, 5, math.inf), GaveUpError, (name, "mount", 5)),
    ]
    for conflict, kind, args in conflicts:
        error = refusal(conflict, name, "mount", 4.0)
        assert (type(error), error.args) == (kind, args)
        assert error.__cause__ is (cause if isinstance(conflict, FailureRecord) else None)


def test_the_holder_is_named_as_it_was_started() -> None:
    w = make_world()
    w.start(1)
    with pytest.raises(AlreadyRunningError) as caught:
        w.start(True)
    assert repr(caught.value.args) == "(True, None, 0.0, (1,))"


def test_the_table_of_if_busy() -> None:
    """The outcome of a start, by its conflict."""
    run = Run(None, "a", None, math.inf, None)
    waiting, gave_up = FailureRecord(ValueError(), 1, 1.0), FailureRecord(ValueError(), 1, math.inf)
    conflicts: list[Conflict[Run] | None] = [
        *(None, run, Overlapping([run]), waiting, gave_up, Closed.CLOSED, Closed.FORKED)
    ]
    table = {
        if_busy: [resolve_busy(conflict, if_busy).name for conflict in conflicts] for if_busy in ALL
    }
    assert table == {
        "refuse": ["ADMIT", "REFUSE", "REFUSE", "REFUSE", "REFUSE", "REFUSE", "REFUSE"],
        "skip": ["ADMIT", "SKIP", "SKIP", "SKIP", "SKIP", "REFUSE", "REFUSE"],
        "join": ["ADMIT", "JOIN", "REFUSE", "REFUSE", "REFUSE", "REFUSE", "REFUSE"],
        "replace": ["ADMIT", "DEFER", "DEFER", "REFUSE", "REFUSE", "REFUSE", "REFUSE"],
        "queue": ["ADMIT", "DEFER", "REFUSE", "DEFER", "REFUSE", "REFUSE", "REFUSE"],
    }


def resolve(w: World, name: Any, if_busy: IfBusy, operation: str | None = None) -> Any:
    conflict = w.conflict(name, operation)
    assert conflict is not None
    return w.scheduler.resolve(conflict, name, operation, if_busy, w.clock)


@pytest.mark.parametrize("skips", [False, True])
def test_a_refusal_tells_the_instruments_the_task_and_the_time(skips: bool) -> None:
    w = make_world()
    w.fail(w.start("a", "mount"))
    w.now = 0.25
    action, error = resolve(w, "a", "skip" if skips else "refuse", "mount")
    assert action is (StartAction.SKIP if skips else StartAction.REFUSE)
    assert isinstance(error, BackoffError)
    assert error.args == ("a", "mount", 1, 0.5, 0.25)
    assert w.events()[-1] == TaskRefused(
        name="a", operation="mount", at=0.25, error=error, skipped=skips
    )


def test_a_skip_without_a_listener_makes_no_error() -> None:
    w = make_world(listens=False)
    w.start()
    assert resolve(w, "a", "skip") == (StartAction.SKIP, None)
    action, error = resolve(w, "a", "refuse")
    assert action is StartAction.REFUSE
    assert isinstance(error, AlreadyRunningError)


@pytest.mark.parametrize("if_busy", ALL)
def test_a_closed_map_is_never_skipped(if_busy: IfBusy) -> None:
    w = make_world()
    w.start()
    w.scheduler.closed = True
    action, error = resolve(w, "a", if_busy)
    assert action is StartAction.REFUSE
    assert isinstance(error, ClosedError)
    (_, refused) = w.events()
    assert isinstance(refused, TaskRefused)
    assert not refused.skipped


@pytest.mark.parametrize("if_busy", ["join", "replace", "queue"])
def test_a_start_that_joins_or_is_deferred_is_no_refusal(if_busy: IfBusy) -> None:
    w = make_world()
    w.start()
    action = StartAction.JOIN if if_busy == "join" else StartAction.DEFER
    assert resolve(w, "a", if_busy) == (action, None)
    joins: list[type[TaskEvent]] = [TaskJoined] if if_busy == "join" else []
    assert [type(event) for event in w.events()] == [TaskStarted, *joins]


@pytest.mark.parametrize("operation", [None, "mount"])
def test_a_waiting_name_replaces_nothing_whatever_else_is_in_its_way(operation: Any) -> None:
    """Ending the others would not be enough."""
    w = waiting_world()
    w.fail(w.start(("v", ANY), operation))
    w.start(("v", "a"))
    refusals: dict[IfBusy, type[Exception]] = {
        "replace": BackoffError,
        "refuse": AlreadyRunningError,
    }
    for if_busy, kind in refusals.items():
        action, error = resolve(w, ("v", ANY), if_busy, operation)
        assert (action, type(error)) == (StartAction.REFUSE, kind)
    w.now = 1.0
    assert resolve(w, ("v", ANY), "replace", operation) == (StartAction.DEFER, None)


def test_a_name_that_was_given_up_replaces_nothing_either() -> None:
    w = make_world(backoff=Backoff(give_up_after=1))
    w.fail(w.start(("v", ANY)))
    w.start(("v", "a"))
    action, error = resolve(w, ("v", ANY), "replace")
    assert (action, type(error)) == (StartAction.REFUSE, GaveUpError)


def test_a_refusal_names_ten_holders_at_most() -> None:
    w = make_world()
    runs = [w.start(("v", number)) for number in range(20)]
    for conflict in (
        w.scheduler.look_for_conflict(("v", ANY), None, 0.0),
        w.conflict(("v", ANY)),
        w.scheduler.look_for_conflict(("v", ANY), None, 0.0),
    ):
        assert isinstance(conflict, Overlapping)
        assert conflict.runs == runs[:10]


def test_all_holders_of_a_name_are_found_however_many() -> None:
    w = make_world()
    runs = [w.start(("v", number)) for number in range(20)]
    other = w.start(("w", 1))
    assert w.scheduler.find_holders(("v", ANY)) == runs
    assert w.scheduler.find_holders(("w", 1)) == [other]
    assert w.scheduler.find_holders("v") == []


# Looks from other threads than the one that changes the tables


def test_a_look_finds_holders_although_the_index_changes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    w = make_world()
    run = w.start(("v", 1))
    w.start(("w", ANY))  # this makes the index
    w.conflict(("v", ANY))

    def find(*_: object) -> list[Run]:
        raise RuntimeError("OrderedDict mutated during iteration")

    for _ in range(2):
        found = w.scheduler.look_for_conflict(("v", ANY), None, 0.0)
        assert isinstance(found, Overlapping)
        assert found.runs == [run]
        monkeypatch.setattr(type(w.scheduler.overlaps), "find", find)
    assert w.scheduler.look_for_conflict(("x", 1), None, 0.0) is None


def test_a_look_makes_no_index() -> None:
    w = make_world()
    run = w.start(("v", 1))
    found = w.scheduler.look_for_conflict(("v", ANY), None, 0.0)
    assert isinstance(found, Overlapping)
    assert found.runs == [run]
    assert w.scheduler.look_for_conflict(("v", 1), None, 0.0) is run
    assert w.scheduler.look_for_conflict(("w", ANY), None, 0.0) is None
    assert not w.scheduler.overlaps.in_use


def test_a_look_finds_pending_replacements_also_where_it_cannot_use_the_index() -> None:
    """A start would find them, too."""
    w = make_world()
    w.start(("v", "a", 1))
    replacing = w.defer(("v", ANY, 1), "replace")
    w.start(("w", "a", 1))
    w.defer(("w", "a", 1), "queue")
    found = w.scheduler.look_for_conflict(("v", "b", ANY), None, 0.0)
    assert isinstance(found, Overlapping)
    assert found.runs == [replacing]
    assert w.conflict(("v", "b", ANY)) == found
    assert w.scheduler.look_for_conflict(("w", "b", ANY), None, 0.0) is None


def test_a_look_finds_a_failure_that_waits() -> None:
    w = make_world()
    w.fail(w.start())
    found = w.scheduler.look_for_conflict("a", None, 0.0)
    assert isinstance(found, FailureRecord)
    assert found.failures == 1
    assert w.scheduler.look_for_conflict("a", None, 0.5) is None


@pytest.mark.parametrize("failures", [0, 1])
def test_a_name_that_fails_is_never_seen_free(failures: int) -> None:
    """Not even by a look in the middle of the change."""

    class Looking:
        looks = False

        def __hash__(self) -> int:
            if self.looks:
                self.looks = False
                states.append(w.state(self))
                self.looks = True
            return 1

    states: list[State] = []
    w = make_world()
    name = Looking()
    for _ in range(failures):
        w.fail(w.start(name))
        w.now += 0.5
    run = w.start(name)
    retry = w.scheduler.decide_retry(run, ValueError(), w.clock)
    name.looks = True
    w.finish(run, RunStatus.FAILED, ValueError(), retry)
    name.looks = False
    assert State.RUNNING in states
    assert State.FREE not in states
    assert w.state(name) is State.WAITING


# Events


def test_each_end_is_told_with_its_duration() -> None:
    w = make_world(backoff=Backoff(give_up_after=2))
    run = w.start(operation="op")
    w.now = 2.0
    w.succeed(run)
    assert w.events() == [
        TaskStarted(name="a", operation="op", at=0.0, failures=0),
        TaskSucceeded(name="a", operation="op", at=2.0, duration=2.0),
    ]
    error = ValueError("boom")
    w.fail(w.start(), error)
    w.now = 2.5
    w.fail(w.start(), error)
    w.forget()
    assert w.events() == [
        TaskStarted(name="a", operation=None, at=2.0, failures=0),
        TaskFailed(
            name="a", operation=None, at=2.0, duration=0.0, error=error,
            failures=1, retry_at=2.5, retry_in=0.5,
        ),
        TaskStarted(name="a", operation=None, at=2.5, failures=1),
        TaskFailed(
            name="a", operation=None, at=2.5, duration=0.0, error=error,
            failures=2, retry_at=math.inf, retry_in=math.inf,
        ),
        TaskGaveUp(name="a", operation=None, at=2.5, failures=2, error=error),
        TaskForgotten(name="a", operation=None, at=2.5, failures=2),
    ]  # fmt: skip


def test_a_failure_that_does_not_count_is_told_without_a_retry_time() -> None:
    w = make_world()
    error = KeyboardInterrupt()
    w.finish(w.start(), RunStatus.FAILED, error)
    (_, failed) = w.events()
    assert isinstance(failed, TaskFailed)
    assert (failed.error, failed.failures, failed.retry_at, failed.retry_in) == (
        error,
        0,
        None,
        None,
    )
    assert w.state() is State.FREE


def test_a_run_cancelled_before_it_began_has_no_duration() -> None:
    w = make_world(limit=1)
    first, second = w.start("a"), w.start("b")
    w.drop(second, "not needed")
    w.now = 3.0
    w.scheduler.request_cancel(first, None, w.now)
    w.cancelled(first)
    assert w.events()[1:] == [
        TaskCancelled(name="b", operation=None, at=0.0, duration=None, reason="not needed"),
        TaskCancelled(name="a", operation=None, at=3.0, duration=3.0, reason=None),
    ]


@pytest.mark.parametrize("status", [RunStatus.SUCCEEDED, RunStatus.FAILED])
def test_a_run_that_ends_before_its_body_began_took_no_time(status: RunStatus) -> None:
    """For example, because no thread could be started for it."""
    w = make_world(limit=1)
    w.start("a")
    run = w.start("b")
    w.now = 3.0
    w.finish(run, status, ValueError())
    event: Any = w.events()[-1]
    assert (event.name, event.duration) == ("b", 0.0)


def test_all_forgotten_failures_are_told() -> None:
    w = make_world()
    for operation in ("mount", "check"):
        w.fail(w.start(operation=operation))
    w.now = 0.5
    w.start(operation="check")
    w.events()
    w.forget()
    assert w.events() == [
        TaskForgotten(name="a", operation="check", at=0.5, failures=1),
        TaskForgotten(name="a", operation="mount", at=0.5, failures=1),
    ]


def test_the_events_of_a_run_go_with_the_run() -> None:
    """So that a backend can keep them until its handle is done."""
    w = make_world(backoff=Backoff(give_up_after=1))
    run = w.start()
    first, second = w.defer("a", "queue"), w.defer("a", "replace")
    w.scheduler.request_cancel(run, None, 0.0)
    w.now = 1.0
    w.run_due()
    w.fail(run)
    w.forget()
    events, about = w.events_and_runs()
    kinds = [type(event) for event in events]
    assert list(zip(kinds, about, strict=False)) == [
        (TaskStarted, run),
        (TaskQueued, first),
        (TaskQueued, second),
        (TaskSuperseded, first),
        (TaskOverdue, run),
        (TaskFailed, run),
        (TaskGaveUp, run),
    ]
    assert kinds[7:] == [TaskForgotten], "which is about no run"
    assert len(about) == 7


def test_no_event_is_made_that_nobody_listens_to() -> None:
    """Whatever happens."""

    class Starts(Instrument):
        def task_started(self, event: TaskStarted, /) -> None: ...

    for instruments in ([], [Starts()]):
        w = World(
            make_scheduler(backoff=Backoff(give_up_after=1), instruments=instruments),
            make_world().recording,
        )
        for end in (w.succeed, w.cancelled, w.fail):
            run = w.start()
            w.defer("a", "queue")
            w.drop(w.defer("a", "replace"))
            w.scheduler.request_cancel(run, None, w.now)
            w.now += 1.0
            w.run_due()
            end(run)
        w.forget()
        started = 3 * len(instruments)
        assert len(w.scheduler.events.queued) == started


# Stopping


def test_a_run_asked_to_stop_is_overdue_exactly_after_the_time_given() -> None:
    w = make_world()
    run = w.start()
    w.scheduler.request_cancel(run, "enough", 5.0)
    w.scheduler.request_cancel(run, "again", 5.5)
    assert (run.cancelled_at, run.reason) == (5.0, "enough"), "asking again changes nothing"
    assert w.scheduler.timers.next_due() == 6.0
    w.now = math.nextafter(6.0, 0)
    assert w.run_due() == NO_EFFECTS
    assert not run.overdue
    for w.now in (6.0, 7.0):
        assert w.run_due() == NO_EFFECTS
    assert run.overdue
    assert w.scheduler.statistics(w.now).overdue == 1
    assert w.events()[1:] == [
        TaskOverdue(name="a", operation=None, at=6.0, duration=6.0, asked_at=5.0)
    ]
    w.succeed(run)
    assert w.scheduler.statistics(w.now).overdue == 0
    assert run.overdue, "it stays known of the run"


def test_a_run_that_has_ended_is_not_asked_to_stop() -> None:
    """It never becomes overdue."""
    w = make_world()
    run = w.start()
    w.succeed(run)
    w.scheduler.request_cancel(run, "late", 1.0)
    assert (run.cancelled_at, run.reason) == (None, None)
    assert len(w.scheduler.timers) == 0


@pytest.mark.parametrize(
    ("timeout", "cancelled_at", "timed_out", "due"),
    [(3.0, None, True, 4.0), (3.0, 2.0, False, 3.0), (3.0, 3.0, True, 4.0), (3.0, 3.5, True, 4.0)],
)
def test_deadline_or_cancel_whichever_came_first(
    timeout: float, cancelled_at: float | None, timed_out: bool, due: float
) -> None:
    w = make_world()
    run = w.start(timeout=timeout)
    if cancelled_at is not None:
        w.scheduler.request_cancel(run, None, cancelled_at)
    assert run.timed_out() == timed_out
    assert w.scheduler.timers.next_due() == due


def test_an_overdue_run_that_is_cancelled_is_not_told_of_twice() -> None:
    w = make_world()
    run = w.start(timeout=1.0)
    w.now = 2.0
    w.run_due()
    assert run.overdue
    w.scheduler.request_cancel(run, None, 3.0)
    assert w.scheduler.timers.next_due() is None


def test_a_run_that_ends_in_time_leaves_no_timer() -> None:
    w = make_world()
    w.succeed(w.start(timeout=1.0))
    run = w.start()
    w.scheduler.request_cancel(run, None, 0.0)
    w.cancelled(run)
    assert len(w.scheduler.timers) == 0


def test_a_timeout_counts_from_the_first_step_of_the_body() -> None:
    """And not from its wait for a slot."""
    w = make_world(limit=1)
    first, second = w.start("a"), w.start("b", timeout=3.0)
    assert len(w.scheduler.timers) == 0
    w.now = 5.0
    assert w.succeed(first) == Effects((second,))
    w.scheduler.begin(second, w.now)
    assert (second.started_at, second.deadline) == (5.0, 8.0)
    assert w.scheduler.timers.next_due() == 9.0


def test_a_run_that_is_asked_to_stop_before_it_begins_is_watched_from_then_on() -> None:
    w = make_world(limit=1)
    first, second = w.start("a"), w.start("b")
    w.succeed(first)
    w.scheduler.request_cancel(second, None, 2.0)
    w.scheduler.begin(second, 2.5)
    assert w.scheduler.timers.next_due() == 3.0


# Pending runs


@pytest.mark.parametrize("if_busy", ["replace", "queue"])
def test_a_deferred_run_begins_when_the_one_before_it_succeeds(if_busy: IfBusy) -> None:
    w = waiting_world()
    old = w.start("a")
    new = w.defer("a", if_busy)
    assert w.effects == Effects(replaced=(old,) if if_busy == "replace" else ())
    assert (new.status, new.deferred, new.blocker) == (RunStatus.DEFERRED, if_busy, old)
    assert w.scheduler.statistics(w.now).pending == 1
    assert not w.scheduler.is_idle()
    assert w.succeed(old) == Effects((new,))
    assert (new.deferred, has_slot(new), w.scheduler.running["a"]) == (None, True, new)
    assert w.scheduler.statistics(w.now).pending == 0


def test_a_queued_run_sits_out_the_wait_and_a_replacement_does_not() -> None:
    w = waiting_world()
    old, other = w.start("a"), w.start("b")
    queued, replacing = w.defer("a", "queue"), w.defer("b", "replace")
    assert w.fail(old) == NO_EFFECTS
    assert w.fail(other) == Effects((replacing,))
    assert replacing.failures == 1
    w.now = 0.999
    assert w.run_due() == NO_EFFECTS
    w.now = 1.0
    assert w.run_due() == Effects((queued,))
    assert queued.failures == 1


@pytest.mark.parametrize(("operation", "begins"), [("mount", False), ("check", True), (None, True)])
def test_a_queued_run_sits_out_the_wait_of_its_own_operation(operation: Any, begins: bool) -> None:
    w = waiting_world()
    old = w.start("a", "mount")
    queued = w.defer("a", "queue", operation)
    assert w.fail(old) == Effects((queued,) if begins else ())


@pytest.mark.parametrize("name", [5, "a", None, frozenset("a")])
def test_any_name_may_replace_and_be_superseded(name: Any) -> None:
    w = waiting_world()
    old = w.start(name)
    first = w.defer(name, "replace")
    second = w.defer(name, "replace")
    assert first.done
    assert w.succeed(old) == Effects((second,))


def test_a_start_may_queue_on_a_waiting_name_and_forget_begins_it() -> None:
    w = waiting_world()
    w.fail(w.start("a"))
    queued = w.defer("a", "queue")
    assert w.effects == NO_EFFECTS
    assert w.forget("a") == Effects((queued,))
    assert (queued.failures, len(w.scheduler.timers)) == (0, 0)


def test_forget_begins_no_run_that_waits_for_another_to_end() -> None:
    w = waiting_world()
    w.fail(w.start("a"))
    w.now = 1.0
    old = w.start("a")
    queued = w.defer("a", "queue")
    assert w.forget("a") == NO_EFFECTS
    assert queued.blocker is old


def test_a_name_that_gives_up_drops_its_queued_run_and_begins_its_replacement() -> None:
    w = make_world(backoff=Backoff(give_up_after=1))
    old, other = w.start("a"), w.start("b")
    queued, replacing = w.defer("a", "queue"), w.defer("b", "replace")
    w.now = 3.0
    assert w.fail(old) == Effects((), (queued,))
    assert (queued.status, queued.reason) == (RunStatus.CANCELLED, "its name gave up")
    told = TaskCancelled(name="a", operation=None, at=3.0, duration=None, reason="its name gave up")
    assert told in w.events()
    assert w.fail(other) == Effects((replacing,))
    assert replacing.failures == 1


def test_where_a_pending_run_goes_on_waiting_an_identity_check_tells_so() -> None:
    w = waiting_world()
    old = w.start("a")
    w.defer("a", "queue")
    assert w.effects == NO_EFFECTS
    assert w.fail(old) == NO_EFFECTS


def test_a_newer_start_supersedes_the_pending_run_and_says_so() -> None:
    w = waiting_world()
    old = w.start("a")
    first = w.defer("a", "replace")
    second = w.defer("a", "queue")
    assert w.effects == Effects((), (first,))
    assert first.done
    assert str(first.cancelled_error()) == (
        "task 'a' was cancelled: superseded by a newer start of its name"
    )
    assert [type(event) for event in w.events()] == [
        *(TaskStarted, TaskQueued, TaskQueued, TaskSuperseded)
    ]
    assert w.succeed(old) == Effects((second,))


def test_a_drain_drops_the_runs_that_sit_out_a_wait_and_keeps_those_that_come_next() -> None:
    w = waiting_world()
    w.fail(w.start("waits"))
    waits = w.defer("waits", "queue")
    old, failing = w.start("a"), w.start("b")
    queued, doomed = w.defer("a", "queue"), w.defer("b", "queue")
    w.scheduler.closed = True
    assert w.drain() == Effects((), (waits,))
    assert waits.reason == "the map is closing"
    assert w.succeed(old) == Effects((queued,))
    assert w.fail(failing) == Effects((), (doomed,))
    assert doomed.reason == "the map is closing"


def test_while_draining_a_queued_run_is_told_that_its_name_gave_up() -> None:
    w = make_world(backoff=Backoff(give_up_after=1))
    old = w.start("a")
    queued = w.defer("a", "queue")
    w.drain()
    assert w.fail(old) == Effects((), (queued,))
    assert queued.reason == "its name gave up"


def test_while_draining_only_a_start_that_would_sit_out_a_wait_is_dropped() -> None:
    """A start made after the end of the block, by a run that goes on, may come next."""
    w = waiting_world()
    w.fail(w.start("waits"))
    old = w.start("a")
    w.drain()
    late = w.defer("waits", "queue")
    assert w.effects == Effects((), (late,))
    assert late.reason == "the map is closing"
    queued = w.defer("a", "queue")
    assert w.succeed(old) == Effects((queued,))


def test_a_drain_drops_all_that_would_sit_out_a_wait_in_one_step() -> None:
    w = waiting_world()
    names = ("a", "b", "c")
    for name in names:
        w.fail(w.start(name))
    queued = [w.defer(name, "queue") for name in names]
    w.now = 0.5
    assert w.drain() == Effects((), tuple(queued))
    assert [event.at for event in w.events() if isinstance(event, TaskCancelled)] == [0.5] * 3


def test_the_slot_goes_straight_to_the_replacement() -> None:
    w = waiting_world(limit=1)
    old, in_line = w.start("a"), w.start("b")
    replacing = w.defer("a", "replace")
    assert w.cancelled(old) == Effects((replacing,))
    assert has_slot(replacing)
    assert in_line.status is RunStatus.QUEUED


def test_the_place_in_the_queue_goes_straight_to_the_replacement() -> None:
    """Else a name that is replaced again and again would never get a slot."""
    w = waiting_world(limit=1)
    first = w.start("a")
    second, third = w.start("b"), w.start("c")
    replacing = w.defer("b", "replace")
    assert w.drop(second) == Effects((), (second,))
    assert replacing.status is RunStatus.QUEUED
    assert w.succeed(first) == Effects((replacing,))
    assert w.succeed(replacing) == Effects((third,))


def test_a_queued_run_takes_a_place_at_the_end_of_the_line() -> None:
    w = waiting_world(limit=1)
    old, in_line = w.start("a"), w.start("b")
    queued = w.defer("a", "queue")
    assert w.succeed(old) == Effects((in_line,))
    assert queued.status is RunStatus.QUEUED
    assert w.succeed(in_line) == Effects((queued,))


def test_a_replacement_in_another_kind_of_slot_takes_one_of_its_own() -> None:
    w = waiting_world()
    threads = w.scheduler.thread_slots
    old = w.start("a")
    thread = w.defer("a", "replace", semaphore=threads)
    assert w.succeed(old) == Effects((thread,))
    assert threads.used == 1
    plain = w.defer("a", "replace")
    assert w.succeed(thread) == Effects((plain,))
    assert (plain.semaphore, threads.used) == (None, 0)


def test_a_slot_that_no_replacement_inherits_goes_to_the_first_in_the_queue() -> None:
    w = waiting_world()
    threads = w.scheduler.thread_slots
    threads.capacity = 1
    old, in_line = w.start("a", semaphore=threads), w.start("b", semaphore=threads)
    plain = w.defer("a", "replace")
    assert w.succeed(old) == Effects((in_line, plain))
    assert has_slot(in_line)


def test_a_replacement_of_all_that_overlaps_waits_for_the_last() -> None:
    w = waiting_world()
    olds = [w.start(("v", pod)) for pod in "abc"]
    other = w.start(("w", "a"))
    new = w.defer(("v", ANY), "replace")
    assert w.effects == Effects(replaced=tuple(olds))
    assert w.cancelled(olds[1]) == NO_EFFECTS
    assert w.cancelled(olds[0]) == NO_EFFECTS
    assert w.cancelled(olds[2]) == Effects((new,))
    assert w.cancelled(other) == NO_EFFECTS


def test_a_pending_replacement_keeps_others_out() -> None:
    w = waiting_world()
    old = w.start(("v", "a"))
    new = w.defer(("v", ANY), "replace")
    conflict = w.conflict(("v", "b"))
    assert isinstance(conflict, Overlapping)
    assert conflict.runs == [new]
    error = refusal(conflict, ("v", "b"), None, w.now)
    assert isinstance(error, AlreadyRunningError)
    assert (error.holders, error.started_at) == ((("v", ANY),), None)
    w.drop(new, "enough")
    assert w.conflict(("v", "b")) is None
    assert [type(event) for event in w.events()] == [TaskStarted, TaskQueued, TaskCancelled]
    assert w.succeed(old) == NO_EFFECTS


def test_a_replacement_replaces_pending_replacements_that_overlap_it() -> None:
    w = waiting_world()
    old = w.start(("v", "a"))
    whole = w.defer(("v", ANY), "replace")
    part = w.defer(("v", "b"), "replace")
    assert w.effects == Effects(replaced=(whole,))
    assert part.blocker is whole
    assert w.drop(whole) == Effects((part,), (whole,))
    assert w.succeed(old) == NO_EFFECTS


def test_a_run_that_queued_behind_a_replacement_begins_when_that_is_dropped() -> None:
    w = waiting_world()
    old = w.start(("v", "a"))
    replacing = w.defer(("v", ANY), "replace")
    queued = w.defer(("v", "a"), "queue")
    assert w.succeed(old) == Effects((replacing,))
    assert queued.blocker is replacing
    assert w.succeed(replacing) == Effects((queued,))


def test_a_run_that_waits_for_a_pending_replacement_begins_when_that_is_dropped() -> None:
    w = waiting_world()
    one, other = w.start(("v", "a")), w.start(("v", "b"))
    replacing, queued = w.defer(("v", ANY), "replace"), w.defer(("v", "a"), "queue")
    assert w.succeed(one) == NO_EFFECTS
    assert queued.blocker is replacing
    assert w.drop(replacing) == Effects((queued,), (replacing,))
    assert w.succeed(other) == NO_EFFECTS


def test_the_runs_behind_a_superseded_replacement_wait_for_the_newer_start() -> None:
    w = waiting_world()
    one, other = w.start(("v", "a")), w.start(("v", "b"))
    first = w.defer(("v", ANY), "replace")
    queued = w.defer(("v", "a"), "queue")
    w.succeed(one)
    assert queued.blocker is first
    second = w.defer(("v", ANY), "replace")
    assert w.effects == Effects((), (first,), (other,))
    assert queued.blocker is second
    assert w.succeed(other) == Effects((second,))
    assert w.succeed(second) == Effects((queued,))


def test_a_replacement_from_before_the_first_name_with_any_counts_too() -> None:
    w = waiting_world()
    old = w.start(("v", "a"))
    replacing = w.defer(("v", "a"), "replace")
    assert w.scheduler.find_holders((ANY, "a")) == [old, replacing]
    w.drop(replacing)
    w.succeed(old)
    assert w.scheduler.find_holders((ANY, "a")) == []


def test_a_superseded_run_that_queued_leaves_the_index_alone() -> None:
    w = waiting_world()
    w.conflict(("w", ANY))
    old = w.start(("v", "a"))
    w.defer(("v", "a"), "queue")
    w.defer(("v", "a"), "queue")
    assert w.scheduler.find_holders(("v", ANY)) == [old]


def test_a_plain_start_may_be_faster_than_a_run_that_queued_for_the_end_of_a_wait() -> None:
    """Exactly at the end of the wait a start is admitted; the queued run comes after it."""
    w = waiting_world()
    w.fail(w.start("a"))
    queued = w.defer("a", "queue")
    w.now = 1.0
    faster = w.start("a")
    assert w.run_due() == NO_EFFECTS
    assert queued.blocker is faster
    assert w.succeed(faster) == Effects((queued,))


def test_a_pending_run_of_a_name_whose_wait_grew_waits_longer() -> None:
    w = waiting_world()
    w.fail(w.start("a"))
    queued = w.defer("a", "queue")
    w.now = 1.0
    again = w.start("a")
    w.run_due()
    assert w.fail(again) == NO_EFFECTS
    w.now = 2.999
    assert w.run_due() == NO_EFFECTS
    w.now = 3.0
    assert w.run_due() == Effects((queued,))


def test_a_pending_run_that_was_cancelled_does_not_come_back() -> None:
    w = waiting_world()
    old = w.start("a")
    first = w.defer("a", "queue")
    assert w.drop(first, "enough") == Effects((), (first,))
    assert first.reason == "enough"
    second = w.defer("a", "queue")
    assert w.effects == NO_EFFECTS, "it supersedes nothing"
    assert w.succeed(old) == Effects((second,))


def test_a_run_that_is_dropped_keeps_the_first_reason() -> None:
    w = make_world(limit=1)
    w.start("a")
    run = w.start("b")
    run.reason = "first"
    w.drop(run, "second")
    assert run.reason == "first"


def test_each_step_is_told_with_its_time() -> None:
    w = waiting_world()
    w.now = 1.0
    old = w.start("a", "mount")
    w.events()
    w.now = 2.0
    first = w.defer("a", "queue", "mount")
    w.now = 3.0
    w.defer("a", "replace", "mount")
    w.now = 4.0
    last = w.defer("a", "queue", "mount")
    w.now = 5.0
    w.drop(last, "enough")
    assert first.done
    assert w.events() == [
        TaskQueued(name="a", operation="mount", at=2.0, if_busy="queue"),
        TaskQueued(name="a", operation="mount", at=3.0, if_busy="replace"),
        TaskSuperseded(name="a", operation="mount", at=3.0),
        TaskQueued(name="a", operation="mount", at=4.0, if_busy="queue"),
        TaskSuperseded(name="a", operation="mount", at=4.0),
        TaskCancelled(name="a", operation="mount", at=5.0, duration=None, reason="enough"),
    ]
    assert w.succeed(old) == NO_EFFECTS


def test_waits_that_end_together_end_in_one_step() -> None:
    w = waiting_world()
    names = ("a", "b", "c")
    for name in names:
        w.fail(w.start(name))
    queued = [w.defer(name, "queue") for name in names]
    w.now = 1.0
    effects = w.run_due()
    assert set(effects.begin) == set(queued)
    assert effects.dropped == ()


def test_a_wait_that_ends_keeps_nothing_else_from_falling_due() -> None:
    w = waiting_world()
    w.fail(w.start("a"))
    queued = w.defer("a", "queue")
    late = [w.start("b"), w.start("c")]
    for run in late:
        w.scheduler.request_cancel(run, None, 0.5)
    w.now = 2.0
    assert w.run_due() == Effects((queued,))
    assert [run.overdue for run in late] == [True, True]
    assert w.scheduler.statistics(w.now).overdue == 2
    w.succeed(late[0])
    assert w.scheduler.statistics(w.now).overdue == 1


def test_a_run_that_begins_as_a_replacement_is_dropped_counts_its_failures() -> None:
    w = waiting_world()
    w.fail(w.start(("v", 1)))
    w.now = 1.0
    w.start(("v", 2))
    replacing = w.defer(("v", ANY), "replace")
    behind = w.defer(("v", 1), "replace")
    assert w.drop(replacing).begin == (behind,)
    assert behind.failures == 1


def test_forgetting_one_operation_begins_no_run_that_waits_with_another() -> None:
    w = waiting_world()
    w.fail(w.start("a", "mount"))
    w.fail(w.start("a", "scan"))
    queued = w.defer("a", "queue", "mount")
    assert w.forget("a", "scan") == NO_EFFECTS
    assert w.forget("a", "mount") == Effects((queued,))


# Undoing an admission


def test_an_admission_that_is_undone_makes_room_and_tells_nobody() -> None:
    w = waiting_world(limit=1)
    run, in_line = w.start("a"), w.start("b")
    w.events()
    assert w.roll_back(run) == Effects((in_line,))
    assert str(run.cancelled_error()) == "task 'a' was cancelled: its start raised an error"
    assert run.done
    assert w.state() is State.FREE
    assert w.events() == []


def test_an_admission_that_is_undone_leaves_the_record_as_it_was() -> None:
    w = waiting_world()
    w.fail(w.start())
    before = w.scheduler.failure("a", None, w.now)
    w.now = 1.0
    w.roll_back(w.start())
    assert w.scheduler.failure("a", None, w.now) == before


def test_the_runs_that_waited_for_an_admission_that_is_undone_come_next_or_are_told() -> None:
    """Only the run whose start is undone is told to nobody."""
    w = waiting_world()
    broken = w.start("a")
    queued = w.defer("a", "queue")
    assert w.roll_back(broken) == Effects((queued,))
    w.fail(w.start("b", "mount"))
    broken = w.start("b")
    doomed = w.defer("b", "queue", "mount")
    w.drain()
    w.events()
    assert w.roll_back(broken) == Effects((), (doomed,))
    assert w.events() == [
        TaskCancelled(
            name="b", operation="mount", at=0.0, duration=None, reason="the map is closing"
        )
    ]


# In a forked child


@pytest.mark.parametrize("limit", [None, 1])
def test_in_a_forked_child_nothing_is_left(limit: int | None) -> None:
    w = make_world(limit=limit, backoff=Backoff(give_up_after=1))
    w.fail(w.start("gave up"))
    w.start(("v", ANY), timeout=1.0)
    w.defer(("v", ANY), "queue")
    w.start("in line", semaphore=w.scheduler.thread_slots)
    w.now = 2.0
    w.run_due()
    before = w.scheduler.statistics(w.now)
    assert (before.overdue, before.waiting_for_slot) == (1, 0 if limit is None else 1)
    told: list[int] = []
    w.scheduler.on_running_changed = lambda: told.append(len(w.scheduler.running))
    w.scheduler.abandon()
    after = attrs.asdict(w.scheduler.statistics(w.now))
    assert after.pop("limit") == limit
    assert set(after.values()) == {0}
    assert told == [0]
    assert w.scheduler.find_holders(("v", 1)) == []
    assert len(w.scheduler.timers) == 0
    assert w.scheduler.thread_slots.used == 0
    assert w.events() == [], "the parent's are not delivered"
    assert w.conflict() is w.scheduler.look_for_conflict("a", None, 0.0) is Closed.FORKED


# Effects


def test_where_there_are_no_effects_an_identity_check_tells_so() -> None:
    assert combine() == NO_EFFECTS
    assert combine(NO_EFFECTS, NO_EFFECTS) == NO_EFFECTS


def test_effects_are_combined_in_the_order_of_the_changes() -> None:
    a, b, c, d, e = [Run(None, name, None, math.inf, None) for name in "abcde"]
    one = Effects((a,), (b,))
    assert combine(one, NO_EFFECTS, Effects((c,), (d,), (e,))) == Effects((a, c), (b, d), (e,))
    assert combine(NO_EFFECTS, one) is one


# Settings and counts


def test_statistics_count_what_there_is() -> None:
    w = make_world(limit=2, backoff=Backoff(give_up_after=2))
    w.fail(w.start("failed"))
    w.fail(w.start("given up"))
    w.now = 0.5
    w.fail(w.start("given up"))
    for name in "abc":
        w.start(name)
    w.defer("a", "queue")
    assert attrs.asdict(w.scheduler.statistics(w.now)) == {
        "running": 3,
        "pending": 1,
        "waiting_for_slot": 1,
        "overdue": 0,
        "waiting": 1,
        "gave_up": 1,
        "max_failures": 2,
        "failing": 0,
        "oldest_run_age": 0.0,
        "longest_slot_wait": 0.0,
        "limit": 2,
    }


def test_without_a_limit_only_threads_wait_for_slots() -> None:
    w = make_world()
    assert w.scheduler.statistics(w.now).limit is None
    for number in range(1001):
        w.start(number, semaphore=w.scheduler.thread_slots)
    w.start("plain")
    assert w.scheduler.statistics(w.now).waiting_for_slot == 1


def test_with_a_limit_threads_take_of_the_same_slots() -> None:
    w = make_world(limit=1)
    w.start("a")
    assert w.start("b", semaphore=w.scheduler.thread_slots).status is RunStatus.QUEUED


def test_a_map_is_idle_when_nothing_runs_and_nothing_is_pending() -> None:
    w = waiting_world()
    assert w.scheduler.is_idle()
    w.fail(w.start())
    assert w.scheduler.is_idle(), "a failure on record is no work"
    queued = w.defer("a", "queue")
    assert not w.scheduler.is_idle()
    w.drop(queued)
    assert w.scheduler.is_idle()


def test_a_scheduler_has_the_settings_that_it_was_given() -> None:
    """Jitter takes the random numbers."""
    scheduler = make_scheduler(
        backoff=Backoff(initial=8.0, jitter=0.5),
        retention=7,
        limit=2,
        overdue_after=3,
        random=lambda: 0.5,
    )
    assert scheduler.records.retention == 7.0
    assert scheduler.slots is not None
    assert (scheduler.slots.capacity, scheduler.statistics(0.0).limit) == (2, 2)
    assert scheduler.overdue_after == 3.0
    run = Run(None, "a", None, math.inf, scheduler.slots)
    assert scheduler.decide_retry(run, ValueError(), lambda: 0.0).delay == 6.0


def test_a_policy_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            raise ValueError("broken")

    scheduler = make_scheduler(backoff=Broken())
    retry = scheduler.decide_retry(Run(None, "a", None, math.inf, None), ValueError(), lambda: 0.0)
    assert retry.delay == 0.5
    assert len(caplog.records) == 1


def test_a_policy_that_forgets_the_name_is_asked_about_one_failure_more_than_counts() -> None:
    """So that its caller can ask again."""

    class Forgets:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            if failures > 1:
                w.forget()
            return float(failures)

    w = make_world(backoff=Forgets())
    w.fail(w.start())
    w.now = 1.0
    run = w.start()
    assert w.scheduler.decide_retry(run, ValueError(), w.clock).failures == 2
    assert run.failures == 0
    assert w.scheduler.decide_retry(run, ValueError(), w.clock).failures == 1


def test_a_scheduler_without_settings_has_no_limit_and_the_retention_of_its_policy() -> None:
    scheduler = make_scheduler()
    assert scheduler.statistics(0.0).limit is None
    assert scheduler.slots is None
    assert scheduler.records.retention == default_retention(Backoff())


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("backoff", 1, "backoff must be a Backoff, None or an object with a method delay(), not 1"),
        ("random", 1, "random must be callable, not 1"),
        ("retention", "x", "retention must be a number, not 'x'"),
        ("limit", "x", "limit must be a whole number or None, not 'x'"),
        ("limit", 0, "limit must be at least 1, or None for no limit, not 0"),
        ("overdue_after", None, "overdue_after must be a number, not None"),
        ("instruments", [1], "an instrument must be an Instrument, not 1"),
    ],
)
def test_a_bad_setting_is_refused_by_its_name(setting: str, value: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        make_scheduler(**{setting: value})
    assert str(caught.value) == message


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("name", ["a", 1, ("v", 1), ("v", ANY)])
def test_an_end_leaves_nothing_behind(name: Any, limit: Any) -> None:
    w = make_world(limit=limit)
    for _ in range(2):
        run = w.start(name)
        assert has_slot(run), "all of it can be had again"
        assert w.succeed(run) == NO_EFFECTS
        assert w.state(name) is State.FREE
        assert run.status is RunStatus.SUCCEEDED
        assert w.scheduler.slots is None or w.scheduler.slots.used == 0
        assert w.scheduler.find_holders(("v", ANY)) == []


def test_forget_of_what_cannot_be_hashed_raises_and_forgets_nothing() -> None:
    w = make_world()
    w.fail(w.start())
    unhashable: Any = []
    with pytest.raises(TypeError):
        w.forget(unhashable)
    assert w.state() is State.WAITING
