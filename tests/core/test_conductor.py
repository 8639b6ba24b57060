"""What every shell does the same way, on a shell without a world."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

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
from namedtasks._core.pending import IfBusy
from namedtasks._core.slots import Slots
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskFailed,
    TaskOverdue,
    TaskQueued,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks.testing import RecordingInstrument
from tests.core.plain_shell import Bed, PlainRun, PlainShell

BACKOFF = Backoff(initial=1.0)


def heard(shell: PlainShell) -> RecordingInstrument:
    """What the shell's instrument was told, from now on."""
    (instrument,) = shell.engine.dispatch.listeners[TaskStarted]
    recording = cast("RecordingInstrument", instrument)
    shell.engine.dispatch.deliver()
    recording.events = []
    return recording


def recorded(**settings: Any) -> PlainShell:
    return PlainShell(instruments=[RecordingInstrument()], **settings)


# Opening


def test_a_shell_looks_into_the_engines_own_tables() -> None:
    shell = PlainShell(backoff=BACKOFF)
    run = shell.start("a")
    assert shell.running_now["a"] is run
    pending = shell.start("a", "queue")
    assert shell.pending_now["a"] is pending
    shell.fail(shell.start("b", operation="mount"))
    assert shell.failed_now["mount"]["b"].failures == 1
    assert shell.overdue_after == 2.5


def test_only_a_lock_keeps_one_from_reading_freely() -> None:
    assert PlainShell().reads_freely
    assert not PlainShell(reads_freely=False).reads_freely


def test_the_block_of_a_new_map_is_not_done() -> None:
    shell = PlainShell()
    assert not shell.block_done
    shell.succeed(shell.start("a"))
    assert not shell.engine.ledger.closed


# Starting


def admit(shell: PlainShell, name: Any, if_busy: IfBusy, operation: str | None = None) -> Any:
    return shell._admit(name, operation, lambda: shell.make_run(name, operation), if_busy)


def test_a_start_of_a_free_name_begins_if_there_is_a_slot() -> None:
    shell = PlainShell(limit=1)
    first, second = admit(shell, "a", "refuse"), admit(shell, "b", "refuse")
    assert (first.begins, first.handle) == (True, "handle of a")
    assert (second.begins, second.handle) == (False, "handle of b")
    for one in (first, second):
        assert (one.is_put_off, one.is_joined, one.accepted) == (False, False, None)
    assert shell.running_now == {"a": first.run, "b": second.run}


@pytest.mark.parametrize("if_busy", ["refuse", "skip", "join", "replace", "queue"])
def test_what_is_asked_for_a_busy_name_is_nothing_to_one_that_is_free(if_busy: IfBusy) -> None:
    admission = admit(PlainShell(), "a", if_busy)
    assert admission.begins
    assert not admission.is_put_off
    assert not admission.is_joined


def no_run() -> PlainRun:
    raise AssertionError("a start that is refused makes no run")


def test_a_start_of_a_name_that_runs_is_refused_and_told() -> None:
    shell = recorded()
    shell.time = 3.0
    shell.start("a")
    recording = heard(shell)
    shell.time = 5.0
    with pytest.raises(AlreadyRunningError) as raised:
        shell._admit("a", "mount", no_run, "refuse")
    error = raised.value
    assert (error.name, error.operation, error.started_at) == ("a", "mount", 3.0)
    assert recording.events == [
        TaskRefused(name="a", operation="mount", at=5.0, error=error, skipped=False)
    ]


@pytest.mark.parametrize("if_busy", ["refuse", "skip", "join", "replace", "queue"])
def test_what_is_no_name_or_no_operation_is_told_in_words(if_busy: IfBusy) -> None:
    shell = PlainShell()
    unhashable: Any = ["a"]
    not_hashable = r"^a task's name must be hashable, and list is not: \['a'\]; .*$"
    for name, operation, kind, message in (
        (unhashable, None, TypeError, not_hashable),
        ("a", cast("str", 5), TypeError, r"^operation must be a str or None, not 5$"),
        (ANY, None, ValueError, r"^.*ANY.*$"),
    ):
        with pytest.raises(kind, match=message):
            shell._admit(name, operation, no_run, if_busy)
    with pytest.raises(TypeError, match=not_hashable):
        shell.holders(unhashable)
    with pytest.raises(ValueError, match="ANY"):
        shell.holders(ANY)


def test_one_that_may_be_skipped_is_told_and_raises_nothing() -> None:
    shell = recorded()
    shell.start("a")
    recording = heard(shell)
    assert shell._admit("a", None, no_run, "skip") is None
    (event,) = recording.events
    assert isinstance(event, TaskRefused)
    assert event.skipped


def test_a_name_that_waits_is_refused_until_its_time_has_come() -> None:
    shell = PlainShell(backoff=BACKOFF)
    shell.fail(shell.start("a", operation="mount"))
    shell.time = 0.75
    with pytest.raises(BackoffError) as raised:
        shell._admit("a", "mount", no_run, "refuse")
    assert (raised.value.operation, raised.value.retry_in) == ("mount", 0.25)
    shell.time = 1.0
    assert shell.start("a", operation="mount").failures == 1


def test_a_start_may_join_what_runs() -> None:
    shell = PlainShell()
    run = shell.start("a")
    admission = shell._admit("a", None, no_run, "join")
    assert admission is not None
    assert admission.run is run
    assert admission.handle == "handle of a"
    assert (admission.begins, admission.is_joined, admission.is_put_off) == (False, True, False)


@pytest.mark.parametrize("if_busy", ["replace", "queue"])
def test_a_start_may_be_put_off(if_busy: IfBusy) -> None:
    shell = PlainShell()
    old = shell.start("a")
    admission = admit(shell, "a", if_busy)
    assert admission.handle == "handle of a"
    assert (admission.begins, admission.is_joined, admission.is_put_off) == (False, False, True)
    assert admission.run.put_off == if_busy
    assert admission.run.blocker is old
    assert shell.pending_now == {"a": admission.run}


@pytest.mark.parametrize("operation", [None, "mount"])
def test_a_name_that_waits_replaces_nothing_whatever_else_is_in_its_way(
    operation: str | None,
) -> None:
    """To end the others would not do."""
    shell = PlainShell(backoff=BACKOFF)
    shell.fail(shell.start(("v", ANY), operation=operation))
    shell.start(("v", "a"))
    with pytest.raises(BackoffError):
        shell._admit(("v", ANY), operation, no_run, "replace")
    with pytest.raises(AlreadyRunningError):
        shell._admit(("v", ANY), operation, no_run, "refuse")
    shell.time = 1.0
    assert admit(shell, ("v", ANY), "replace", operation).is_put_off


def test_a_name_that_was_given_up_replaces_nothing_either() -> None:
    shell = PlainShell(backoff=Backoff(give_up_after=1))
    shell.fail(shell.start(("v", ANY)))
    shell.start(("v", "a"))
    with pytest.raises(GaveUpError):
        shell._admit(("v", ANY), None, no_run, "replace")


def test_what_it_would_replace_under_other_names_is_replaced() -> None:
    shell = PlainShell()
    shell.start(("v", "a"))
    assert admit(shell, ("v", ANY), "replace").is_put_off


@pytest.mark.parametrize("if_busy", ["refuse", "skip", "join", "replace", "queue"])
def test_a_closed_map_takes_nothing(if_busy: IfBusy) -> None:
    shell = PlainShell()
    shell.start("a")
    shell.close()
    for name in ("a", "b"):
        with pytest.raises(ClosedError):
            shell._admit(name, None, no_run, if_busy)


# Refusing at a glance


def test_a_name_that_runs_is_skipped_or_refused_at_a_glance() -> None:
    shell = PlainShell()
    shell.time = 3.0
    shell.start("a")
    assert shell.is_skipped("a", None, "skip")
    assert shell.is_skipped("a", "mount", "skip")
    with pytest.raises(AlreadyRunningError) as raised:
        shell.is_skipped("a", "mount", "refuse")
    error = raised.value
    assert error.args == ("a", "mount", 3.0, ("a",))


def test_the_holder_is_told_by_the_name_that_it_was_started_with() -> None:
    shell = PlainShell()
    shell.start(1)
    with pytest.raises(AlreadyRunningError) as raised:
        shell.is_skipped(True, None, "refuse")
    assert repr(raised.value.args) == "(True, None, 0.0, (1,))"


@pytest.mark.parametrize("if_busy", ["join", "replace", "queue"])
def test_what_is_to_be_done_about_a_name_is_not_decided_at_a_glance(if_busy: IfBusy) -> None:
    shell = PlainShell()
    shell.start("a")
    assert shell.is_skipped("a", None, if_busy) is False


@pytest.mark.parametrize("if_busy", ["refuse", "skip"])
def test_nor_is_what_is_free_or_closed_or_no_name_or_heard_of(if_busy: IfBusy) -> None:
    class Refusals(Instrument):
        def task_refused(self, event: TaskRefused, /) -> None: ...

    unhashable: Any = ["a"]
    shell, told = PlainShell(), PlainShell(instruments=[Refusals()])
    shell.start("a")
    told.start("a")
    assert shell.is_skipped("b", None, if_busy) is False
    assert shell.is_skipped(unhashable, None, if_busy) is False
    assert shell.is_skipped("a", cast("str", 5), if_busy) is False
    assert told.is_skipped("a", None, if_busy) is False
    shell.close()
    assert shell.is_skipped("a", None, if_busy) is False


def test_an_instrument_that_hears_of_no_refusals_does_not_prevent_the_glance() -> None:
    class Starts(Instrument):
        def task_started(self, event: TaskStarted, /) -> None: ...

    shell = PlainShell(instruments=[Starts()])
    shell.start("a")
    assert shell.is_skipped("a", None, "skip")


# The short cut for a name of which nothing is known


def test_an_unknown_name_takes_a_slot_or_a_place_in_line() -> None:
    shell = PlainShell(limit=1)
    first, second = shell.make_run("a"), shell.make_run("b")
    for run in (first, second):
        shell.engine.admit_unknown(run)
    assert shell.running_now == {"a": first, "b": second}
    assert (first.has_slot, second.has_slot) == (True, False)
    assert shell.engine.slots.in_line == 1
    shell.end_returned(first)
    assert shell.taken() == [("begin", "b"), ("tell", "a")]


def test_where_slots_are_not_limited_it_has_one() -> None:
    shell = PlainShell()
    run = shell.make_run("a")
    shell.engine.admit_unknown(run)
    assert run.has_slot is True


# Putting off


def test_who_replaces_stops_all_that_is_in_the_way_and_says_why() -> None:
    shell = PlainShell()
    olds = [shell.start(("v", pod)) for pod in "ab"]
    shell.start(("w", "a"))
    new = shell.start(("v", ANY), "replace")
    assert shell.taken() == [("stop", ("v", "a")), ("stop", ("v", "b"))]
    assert [old.reason for old in olds] == ["replaced by a newer start"] * 2
    assert not new.done


def test_who_queues_stops_nothing() -> None:
    shell = PlainShell()
    old = shell.start("a")
    shell.start("a", "queue")
    assert shell.taken() == []
    assert old.stop_asked_at is None


def test_what_was_ended_before_its_start_was_back_stops_nothing() -> None:
    """By its own function, say."""
    shell = PlainShell()
    old = shell.start("a")
    run = admit(shell, "a", "replace").run
    shell.cancel(run, None)
    shell.taken()
    shell._accept(run)
    assert shell.taken() == []
    assert old.stop_asked_at is None


def test_whom_a_newer_start_supersedes_is_told_and_who_waits_for_it_is_woken() -> None:
    shell = recorded()
    shell.start("a")
    first = shell.start("a", "queue")
    recording = heard(shell)
    shell.taken()
    shell.time = 4.0
    with shell.wakes(first.waiters), shell.wakes_not(shell.quiet):
        shell.start("a", "queue")
    assert shell.taken() == [("drop", "a"), ("tell", "a"), ("deliver", None)]
    assert first.handle is None
    assert recording.events == [
        TaskQueued(name="a", operation=None, at=4.0, if_busy="queue"),
        TaskSuperseded(name="a", operation=None, at=4.0),
    ]


def test_a_start_that_raises_leaves_its_name_free_and_makes_room() -> None:
    shell = recorded(limit=1)
    run = shell.start("a")
    shell.start("b")
    recording = heard(shell)
    shell.time = 2.0
    with shell.wakes(run.waiters):
        shell._roll_back(run)
    assert shell.taken() == [("begin", "b"), ("tell", "a"), ("deliver", None)]
    assert list(shell.running_now) == ["b"]
    assert run.reason == "its start raised an error"
    assert run.handle is None
    assert recording.events == [TaskStarted(name="b", operation=None, at=2.0, failures=0)]


def test_what_had_ended_when_its_start_raised_is_not_told_twice() -> None:
    shell = PlainShell(limit=1)
    shell.start("a")
    run = shell.start("b")
    shell.cancel(run, "enough")
    assert shell.taken() == [("drop", "b"), ("tell", "b")]
    with shell.wakes_not(run.waiters):
        shell._roll_back(run)
    assert shell.taken() == []
    assert run.reason == "enough"


def test_what_a_start_that_raises_had_put_aside_waits_again() -> None:
    shell = PlainShell(backoff=BACKOFF)
    shell.fail(shell.start("a"))
    first = shell.start("a", "queue")
    broken = admit(shell, "a", "queue").run
    shell.taken()
    shell.time = 0.5
    shell._roll_back(broken)
    assert shell.taken() == [("tell", "a")]
    assert shell.pending_now == {"a": first}
    shell.time = 1.0
    shell.on_time()
    assert shell.taken() == [("begin", "a")]


# Ending


def test_the_next_begins_then_the_handle_is_told_then_the_instruments() -> None:
    """The second invariant: and who waits was woken before all that."""
    shell = recorded(limit=1)
    run = shell.start("a")
    shell.start("b")
    recording = heard(shell)
    shell.time = 2.0
    with shell.wakes(run.waiters), shell.wakes_not(shell.quiet):
        shell.succeed(run)
    assert shell.taken() == [("begin", "b"), ("tell", "a"), ("deliver", None)]
    assert (run.done, run.returned, run.error) == (True, True, None)
    assert run.handle is None
    assert recording.events == [
        TaskSucceeded(name="a", operation=None, at=2.0, duration=2.0),
        TaskStarted(name="b", operation=None, at=2.0, failures=0),
    ]
    assert shell.complaints == []


def test_after_each_end_the_timers_are_looked_at() -> None:
    shell = PlainShell(backoff=BACKOFF)
    run = shell.start("a")
    shell.start("a", "queue")
    before = shell.looked_at_timers
    shell.fail(run)
    assert shell.looked_at_timers > before


def test_the_last_end_wakes_who_waits_for_an_idle_map() -> None:
    shell = PlainShell()
    one, other = shell.start("a"), shell.start("b")
    with shell.wakes_not(shell.quiet):
        shell.succeed(one)
    with shell.wakes(shell.quiet):
        shell.succeed(other)


def test_what_raises_has_failed_and_its_name_waits_from_then_on() -> None:
    shell = recorded(backoff=BACKOFF)
    run = shell.start("a", operation="mount")
    recording = heard(shell)
    error = ValueError("boom")
    shell.time = 3.0
    with shell.wakes(run.waiters):
        shell.fail(run, error)
    assert (run.done, run.returned) == (True, False)
    assert run.error is error
    record = shell.failed_now["mount"]["a"]
    assert (record.failures, record.retry_at) == (1, 4.0)
    assert recording.events == [
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


def test_a_verdict_on_failures_that_were_forgotten_meanwhile_is_asked_for_again() -> None:
    class Forgets:
        """A policy that forgets what it is asked about, once."""

        def __init__(self) -> None:
            self.asked: list[int] = []

        def delay(self, failures: int, _: BaseException, /) -> float:
            self.asked.append(failures)
            if failures == 2:
                shell.forget("a", None)
            return 10.0 * failures

    policy: Any = Forgets()
    shell = PlainShell(backoff=policy)
    shell.fail(shell.start("a"))
    shell.time = 10.0
    shell.fail(shell.start("a"))
    assert policy.asked == [1, 2, 1]
    record = shell.failed_now[None]["a"]
    assert (record.failures, record.retry_at) == (1, 20.0)


def test_what_was_stopped_and_heeded_that_was_cancelled() -> None:
    shell = recorded(backoff=BACKOFF)
    run = shell.start("a")
    shell.time = 1.0
    shell.cancel(run, "enough")
    recording = heard(shell)
    shell.time = 3.0
    with shell.wakes(run.waiters):
        shell.end(run, None, stopped=True)
    assert (run.done, run.returned, run.error) == (True, False, None)
    assert recording.events == [
        TaskCancelled(name="a", operation=None, at=3.0, duration=3.0, reason="enough")
    ]
    assert shell.engine.ledger.state("a", None, 3.0) is State.FREE


def test_so_was_what_let_out_the_error_that_asks_it_to_stop() -> None:
    shell = PlainShell(backoff=BACKOFF)
    run = shell.start("a")
    shell.cancel(run, "enough")
    shell.fail(run, run.cancelled_error())
    assert (run.done, run.error) == (True, None)
    assert not shell.failed_now


def test_somebody_elses_such_error_is_a_failure() -> None:
    shell = PlainShell(backoff=BACKOFF)
    run, other = shell.start("a"), shell.start("b")
    shell.cancel(other, "enough")
    error = other.cancelled_error()
    shell.fail(run, error)
    assert run.error is error


@pytest.mark.parametrize("lets_out", [True, False])
def test_what_its_own_deadline_stopped_has_failed_and_says_so(lets_out: bool) -> None:
    shell = PlainShell(backoff=BACKOFF)
    run = shell.start("a", timeout=2.0)
    shell.time = 2.0
    if lets_out:
        shell.fail(run, run.cancelled_error())
    else:
        shell.end(run, None, stopped=True)
    assert isinstance(run.error, TimeoutError)
    assert str(run.error) == "it took longer than its timeout of 2 s"
    assert shell.failed_now[None]["a"].retry_at == 3.0


def test_what_returns_although_it_was_cancelled_has_succeeded() -> None:
    shell = PlainShell()
    run = shell.start("a")
    shell.cancel(run, "enough")
    shell.succeed(run)
    assert (run.returned, run.error) == (True, None)


def test_what_is_no_exception_ends_a_run_and_is_not_counted() -> None:
    shell = recorded(backoff=BACKOFF)
    run = shell.start("a")
    recording = heard(shell)
    error = KeyboardInterrupt()
    shell.time = 3.0
    with shell.wakes(run.waiters):
        shell._settle_escaped(run, error)
    shell.deliver()
    assert (run.done, run.error) == (True, error)
    (event,) = recording.events
    assert isinstance(event, TaskFailed)
    assert (event.error, event.at, event.retry_at) == (error, 3.0, None)
    assert not shell.failed_now


class CannotSay(PlainShell):
    """A shell with a fault in what it makes of a deadline."""

    def _too_slow(self, text: str) -> Exception:
        raise ZeroDivisionError(text)


def test_whatever_goes_wrong_at_an_end_the_name_is_free_and_the_fault_is_told() -> None:
    """The first invariant."""
    shell = CannotSay(backoff=BACKOFF, limit=1, instruments=[RecordingInstrument()])
    run = shell.start("a", operation="mount", timeout=1.0)
    shell.start("b")
    recording = heard(shell)
    shell.time = 3.0
    with shell.wakes(run.waiters):
        shell.end(run, None, stopped=True)
    assert shell.taken() == [("begin", "b"), ("tell", "a"), ("deliver", None)]
    ((what, fault),) = shell.complaints
    assert "task 'a' (operation 'mount')" in what
    assert isinstance(fault, ZeroDivisionError)
    assert run.error is fault
    assert (run.done, run.returned) == (True, False)
    failed = recording.events[0]
    assert isinstance(failed, TaskFailed)
    assert (failed.at, failed.error) == (3.0, fault)
    assert list(shell.running_now) == ["b"]


def test_a_run_that_failed_has_failed_with_its_own_error_whatever_goes_wrong_then() -> None:
    shell = PlainShell(backoff=BACKOFF)
    run = shell.start("a")
    error, fault = ValueError("boom"), ZeroDivisionError()
    assert run.waiters is not None
    run.waiters.error = fault
    with shell.wakes(run.waiters):
        shell.fail(run, error)
    assert run.error is error
    assert [told for _, told in shell.complaints] == [fault]
    assert shell.taken() == [("tell", "a")]
    assert not shell.running_now


def test_also_if_its_error_says_that_it_is_false() -> None:
    class FalseError(Exception):
        def __bool__(self) -> bool:
            return False

    shell = PlainShell()
    run = shell.start("a")
    error = FalseError()
    assert run.waiters is not None
    run.waiters.error = ZeroDivisionError()
    shell.fail(run, error)
    assert run.error is error


def test_what_goes_wrong_after_a_value_is_what_is_told_of_the_run() -> None:
    shell = PlainShell()
    run = shell.start("a")
    fault = ZeroDivisionError()
    assert run.waiters is not None
    run.waiters.error = fault
    with shell.wakes(run.waiters, shell.quiet):
        shell.succeed(run)
    assert (run.done, run.returned, run.error) == (True, False, fault)
    assert shell.taken() == [("tell", "a")]


def test_who_cannot_begin_makes_room_for_the_next() -> None:
    shell = recorded(limit=1, backoff=BACKOFF)
    run, broken = shell.start("a"), shell.start("b")
    shell.start("c")
    error = RuntimeError("can't start new thread")
    shell.cannot_begin["b"] = error
    recording = heard(shell)
    shell.time = 1.0
    with shell.wakes(broken.waiters):
        shell.succeed(run)
    assert shell.taken() == [
        ("begin", "b"),
        ("begin", "c"),
        ("tell", "a"),
        ("tell", "b"),
        ("deliver", None),
    ]
    assert (broken.done, broken.error) == (True, error)
    assert list(shell.running_now) == ["c"]
    kinds = [type(event) for event in recording.events]
    assert kinds == [TaskSucceeded, TaskFailed, TaskStarted]


# Ending by the short cut


def test_a_value_ends_a_run_by_the_short_cut_in_one_step() -> None:
    shell = PlainShell()
    run, other = shell.start("a"), shell.start("b")
    with shell.wakes(run.waiters), shell.wakes_not(shell.quiet):
        shell.end_returned(run)
    assert (run.done, run.returned, run.handle) == (True, True, None)
    assert list(shell.running_now) == ["b"]
    other.waiters = None
    with shell.wakes(shell.quiet):
        shell.end_returned(other)


def test_the_short_cut_leaves_to_the_long_way_what_has_consequences() -> None:
    shell = recorded()
    run = shell.start("a")
    recording = heard(shell)
    shell.time = 2.0
    shell.end_returned(run)
    assert run.returned
    assert shell.taken() == [("tell", "a"), ("deliver", None)]
    assert recording.events == [TaskSucceeded(name="a", operation=None, at=2.0, duration=2.0)]


def test_the_short_cut_knows_that_a_map_with_a_pending_run_is_not_idle() -> None:
    shell = PlainShell(backoff=BACKOFF)
    shell.fail(shell.start("a"))
    shell.start("a", "queue")
    run = shell.start("b")
    shell.block_done = True
    with shell.wakes_not(shell.quiet):
        shell.end_returned(run)
    assert not shell.engine.ledger.closed


@pytest.mark.parametrize("done", [True, False])
def test_by_the_short_cut_too_a_map_closes_with_its_last_run(done: bool) -> None:
    shell = PlainShell()
    one, other = shell.start("a"), shell.start("b")
    if done:
        shell.end_block()
    shell.end_returned(one)
    assert not shell.engine.ledger.closed
    shell.end_returned(other)
    assert shell.engine.ledger.closed is done


def test_the_short_cut_gives_back_what_has_lapsed() -> None:
    shell = PlainShell(backoff=BACKOFF)
    shell.fail(shell.start("a"))
    run = shell.start("b")
    records = shell.engine.ledger.records
    shell.time = 1000.0
    assert records.waiting == 1
    shell.end_returned(run)
    assert records.waiting == 0


# Cancelling


def test_what_runs_is_asked_to_stop_and_told_why_the_first_time() -> None:
    shell = PlainShell()
    run = shell.start("a")
    shell.time = 3.0
    before = shell.looked_at_timers
    assert shell.cancel(run, "enough") is True
    assert shell.looked_at_timers > before, "it may become overdue"
    shell.time = 4.0
    assert shell.cancel(run, "once more") is True
    assert shell.taken() == [("stop", "a"), ("stop", "a")]
    assert (run.stop_asked_at, run.reason, run.done) == (3.0, "enough", False)


def test_what_has_ended_is_not_cancelled() -> None:
    shell = PlainShell()
    run = shell.start("a")
    shell.succeed(run)
    shell.taken()
    assert shell.cancel(run, "enough") is False
    assert shell.taken() == []
    assert run.reason is None


def test_a_reason_is_text_or_none() -> None:
    shell = PlainShell()
    run = shell.start("a")
    bad = cast("str", 5)
    calls: list[Callable[[], object]] = [
        lambda: shell.cancel(run, bad),
        lambda: shell.cancel_name("a", bad),
        lambda: shell.cancel_name("b", bad),
        lambda: shell.cancel_names(lambda _: True, bad),
        lambda: shell.cancel_names(lambda _: False, bad),
        lambda: shell.cancel_all(bad),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"^reason must be a str or None, not 5$"):
            call()
    assert run.stop_asked_at is None


def test_what_waits_for_a_slot_ends_at_once() -> None:
    shell = recorded(limit=1)
    shell.start("a")
    run = shell.start("b")
    recording = heard(shell)
    shell.time = 3.0
    with shell.wakes(run.waiters):
        assert shell.cancel(run, "enough") is True
    assert shell.taken() == [("drop", "b"), ("tell", "b"), ("deliver", None)]
    assert (run.done, run.handle, run.stop_asked_at) == (True, None, 3.0)
    assert recording.events == [
        TaskCancelled(name="b", operation=None, at=3.0, duration=None, reason="enough")
    ]


def test_what_is_pending_ends_at_once() -> None:
    shell = recorded()
    shell.start("a")
    run = shell.start("a", "queue")
    recording = heard(shell)
    shell.taken()
    shell.time = 3.0
    with shell.wakes(run.waiters):
        assert shell.cancel(run, "enough") is True
    assert shell.taken() == [("drop", "a"), ("tell", "a"), ("deliver", None)]
    assert run.done
    assert recording.events == [
        TaskCancelled(name="a", operation=None, at=3.0, duration=None, reason="enough")
    ]
    assert not shell.pending_now


def test_who_waits_behind_what_ends_at_once_begins() -> None:
    shell = PlainShell()
    line: Slots[PlainRun] = Slots(1)
    shell.start("a", slots=line)
    run = shell.start("b", slots=line)
    behind = shell.start("b", "queue")
    assert shell.cancel(run, None) is True
    assert shell.taken() == [("drop", "b"), ("begin", "b"), ("tell", "b")]
    assert shell.running_now["b"] is behind


class Odd:
    """A name that can become one that cannot be looked up."""

    def __init__(self) -> None:
        self.is_broken = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd)

    def __hash__(self) -> int:
        if self.is_broken:
            raise ZeroDivisionError
        return 1

    def __repr__(self) -> str:
        return "Odd"


def test_who_waits_behind_it_and_cannot_be_looked_up_any_more_is_told() -> None:
    shell = PlainShell(limit=1)
    shell.start("a")
    name = Odd()
    run, behind = shell.start(Odd()), shell.start(name, "queue")
    name.is_broken = True
    with shell.wakes(behind.waiters):
        shell.cancel(run, None)
    assert behind.done
    drops = [what for what, _ in shell.taken()]
    assert drops == ["drop", "drop", "tell", "tell"]


def test_of_many_that_are_cancelled_none_begins_because_of_the_others() -> None:
    """Who queues may wait for who replaces, who for a slot, and that one for who runs."""
    shell = PlainShell(limit=1)
    names: list[Any] = [("v", "a"), ("v", "b"), "c"]
    runs = [shell.start(name) for name in names]
    runs.append(shell.start("c", "queue"))
    runs.append(shell.start(("v", ANY), "replace"))
    runs.append(shell.start(("v", "a"), "queue"))
    shell.taken()
    alive = [run for run in runs if not run.done]
    assert shell.cancel_each(runs, "enough") == len(alive)
    did = shell.taken()
    assert "begin" not in [what for what, _ in did]
    assert did[-1] == ("stop", ("v", "a"))
    assert [run for run in runs if not run.done] == [runs[0]]


def test_nor_does_who_queues_behind_a_claim_that_is_cancelled_with_it() -> None:
    shell = PlainShell()
    one = shell.start(("v", "a"))
    shell.start(("v", "b"))
    claim, queued = shell.start(("v", ANY), "replace"), shell.start(("v", "a"), "queue")
    shell.succeed(one)
    assert queued.blocker is claim
    shell.taken()
    assert shell.cancel_each([claim, queued], "enough") == 2
    assert "begin" not in [what for what, _ in shell.taken()]
    assert queued.started_at is None


def test_nor_does_who_replaces_one_that_waits_for_a_slot() -> None:
    """Also while its start is not back yet."""
    shell = PlainShell()
    line: Slots[PlainRun] = Slots(1)
    shell.start("a", slots=line)
    run = shell.start("b", slots=line)
    pending = admit(shell, "b", "replace").run
    assert shell.cancel_each([run, pending], "enough") == 2
    assert "begin" not in [what for what, _ in shell.taken()]
    assert pending.started_at is None


def test_each_is_told_the_reason_and_only_who_had_not_ended_counts() -> None:
    shell = PlainShell()
    ended, one, other = shell.start("a"), shell.start("b"), shell.start("c")
    shell.succeed(ended)
    assert shell.cancel_each([ended, one, other], "enough") == 2
    assert (ended.reason, one.reason, other.reason) == (None, "enough", "enough")


def test_a_name_is_cancelled_with_its_pending_run() -> None:
    shell = PlainShell()
    run, pending, other = shell.start("a"), shell.start("a", "queue"), shell.start("b")
    assert shell.cancel_name("a", "enough") is True
    assert (run.reason, pending.reason, other.reason) == ("enough", "enough", None)
    assert (run.done, pending.done) == (False, True)
    assert shell.cancel_name("c", "enough") is False


def test_a_name_with_a_pending_run_only_is_cancelled_too() -> None:
    shell = PlainShell(backoff=BACKOFF)
    shell.fail(shell.start("a"))
    pending = shell.start("a", "queue")
    assert shell.cancel_name("a", None) is True
    assert pending.done
    assert shell.cancel_name("a", None) is False


def test_names_that_a_predicate_likes_are_counted_and_not_their_runs() -> None:
    shell = PlainShell(backoff=BACKOFF)
    shell.fail(shell.start("waits"))
    pending = shell.start("waits", "queue")
    both = [shell.start("a"), shell.start("a", "queue")]
    run, other = shell.start("b"), shell.start("other")
    assert shell.cancel_names(lambda name: name in ("waits", "a", "b"), "enough") == 3
    for one in (pending, *both, run):
        assert one.reason == "enough"
    assert other.stop_asked_at is None
    assert shell.cancel_names(lambda name: name == "c", "enough") == 0


def test_a_predicate_sees_each_name_once() -> None:
    shell = PlainShell()
    shell.start("a")
    shell.start("a", "queue")
    shell.start("b")
    seen: list[Any] = []
    shell.cancel_names(seen.append, None)
    assert sorted(seen) == ["a", "b"]


def test_a_predicate_that_raises_cancels_nothing() -> None:
    shell = PlainShell()
    runs = [shell.start(name) for name in "abc"]

    def predicate(name: Any) -> bool:
        if name == "c":
            raise ZeroDivisionError
        return True

    with pytest.raises(ZeroDivisionError):
        shell.cancel_names(predicate, None)
    assert all(run.stop_asked_at is None for run in runs)


def test_all_are_cancelled_also_under_a_name_that_cannot_be_looked_up_any_more() -> None:
    shell = PlainShell()
    name = Odd()
    run, pending = shell.start(Odd()), shell.start(name, "queue")
    other, behind = shell.start("b"), shell.start("b", "queue")
    name.is_broken = True
    assert shell.cancel_all("enough") == 3, "it is two names now"
    assert (pending.done, behind.done) == (True, True)
    assert (run.reason, other.reason) == ("enough", "enough")


def test_all_holders_of_a_name_are_found_however_many() -> None:
    shell = PlainShell()
    runs = [shell.start(("v", number)) for number in range(20)]
    other = shell.start(("w", 1))
    assert shell.holders(("v", ANY)) == runs
    assert shell.holders(("w", 1)) == [other]
    assert shell.holders("v") == []


# Time


def test_in_time_who_has_sat_out_a_wait_begins() -> None:
    shell = recorded(backoff=BACKOFF)
    shell.fail(shell.start("a"))
    shell.start("a", "queue")
    recording = heard(shell)
    shell.taken()
    shell.time = 0.999
    shell.on_time()
    assert shell.taken() == []
    shell.time = 1.0
    shell.on_time()
    assert shell.taken() == [("begin", "a"), ("deliver", None)]
    assert recording.events == [TaskStarted(name="a", operation=None, at=1.0, failures=1)]


def test_in_time_it_is_told_who_did_not_stop() -> None:
    shell = recorded()
    run = shell.start("a")
    shell.cancel(run, None)
    recording = heard(shell)
    shell.time = 2.5
    shell.on_time()
    assert recording.events == [
        TaskOverdue(name="a", operation=None, at=2.5, duration=2.5, asked_at=0.0)
    ]


# Forgetting and closing


def test_to_forget_wakes_who_waits_for_the_name_or_for_an_empty_map() -> None:
    shell = PlainShell(backoff=BACKOFF)
    for name in "ab":
        shell.fail(shell.start(name))
    beds = [shell.waiting_for.setdefault(name, Bed()) for name in "ab"]
    with shell.wakes(beds[0], shell.quiet), shell.wakes_not(beds[1]):
        assert shell.forget("a", None) is True
    assert shell.engine.ledger.state("a", None, 0.0) is State.FREE
    shell.start("c")
    with shell.wakes_not(*beds, shell.quiet):
        assert shell.forget("a", None) is False


def test_to_forget_where_something_runs_wakes_who_waits_for_an_empty_map_all_the_same() -> None:
    """What lapses next is another failure now."""
    shell = PlainShell(backoff=BACKOFF)
    shell.fail(shell.start("a"))
    shell.start("b")
    with shell.wakes(shell.quiet):
        assert shell.forget("a", None) is True


def test_to_forget_begins_who_has_sat_out_the_wait_and_tells_it() -> None:
    shell = recorded(backoff=BACKOFF)
    shell.fail(shell.start("a"))
    shell.start("a", "queue")
    recording = heard(shell)
    shell.taken()
    shell.time = 0.5
    assert shell.forget("a", None) is True
    assert shell.taken() == [("begin", "a"), ("deliver", None)]
    assert [event.at for event in recording.events] == [0.5, 0.5]


def test_only_the_operation_that_is_named_is_forgotten() -> None:
    shell = PlainShell(backoff=BACKOFF)
    for operation in ("mount", "check"):
        shell.fail(shell.start("a", operation=operation))
    assert shell.forget("a", "mount") is True
    assert shell.engine.ledger.state("a", "mount", 0.0) is State.FREE
    assert shell.engine.ledger.state("a", "check", 0.0) is State.WAITING


def test_to_close_wakes_who_waits_to_start_something_once() -> None:
    shell = PlainShell(backoff=BACKOFF)
    shell.fail(shell.start("a"))
    bed = shell.waiting_for.setdefault("a", Bed())
    run = shell.start("b")
    with shell.wakes(bed, run.waiters):
        shell.close()
    assert shell.engine.ledger.closed is True
    assert shell.refuses_plainly is False
    with shell.wakes_not(bed, run.waiters):
        shell.close()


@pytest.mark.parametrize("closes", [True, False])
def test_at_the_close_and_the_end_of_the_block_what_would_sit_out_a_wait_is_dropped(
    closes: bool,
) -> None:
    shell = recorded(backoff=BACKOFF)
    shell.fail(shell.start("a"))
    waits = shell.start("a", "queue")
    shell.start("b")
    queued = shell.start("b", "queue")
    recording = heard(shell)
    shell.taken()
    shell.time = 0.5
    with shell.wakes(waits.waiters):
        (shell.close if closes else shell.end_block)()
    assert shell.taken() == [("drop", "a"), ("tell", "a"), ("deliver", None)]
    assert recording.events == [
        TaskCancelled(name="a", operation=None, at=0.5, duration=None, reason="the map is closing")
    ]
    assert not queued.done
    assert shell.block_done is not closes
    assert shell.engine.ledger.closed is closes


def test_after_the_block_the_map_closes_with_its_last_run() -> None:
    shell = PlainShell()
    one, other = shell.start("a"), shell.start("b")
    shell.end_block()
    shell.succeed(one)
    third = shell.start("c")
    shell.succeed(other)
    assert not shell.engine.ledger.closed
    shell.succeed(third)
    assert shell.engine.ledger.closed


def test_a_map_where_nothing_runs_closes_at_the_end_of_its_block() -> None:
    shell = PlainShell()
    shell.close_if_over()
    assert not shell.engine.ledger.closed
    shell.end_block()
    assert shell.engine.ledger.closed


def test_an_infinite_timeout_never_stops_anything() -> None:
    shell = PlainShell()
    run = shell.start("a")
    shell.time = math.inf
    assert not run.is_asked_to_stop()
