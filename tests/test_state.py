"""Runs, failure records, the shrinking dict, timers and slots."""

import math
import sys
from typing import Any

import attrs
import pytest

from namedtasks import RecordedError, TaskCancelledError
from namedtasks._errors import snapshot_exception
from namedtasks._state import (
    FailureRecord,
    FailureRecords,
    Run,
    RunStatus,
    Semaphore,
    ShrinkingDict,
    TimerHeap,
)


class Asked:
    """A name that counts the calls of its hash."""

    asked = 0

    def __hash__(self) -> int:
        self.asked += 1
        return 1


# Runs


@attrs.define
class Backend:
    """A backend of which a run knows the clock."""

    time: float = 0.0

    def now(self) -> float:
        return self.time


def run_of(name: Any = "a", *, timeout: float = math.inf) -> Run:
    run = Run(Backend(), name, "mount", timeout, None)
    run.deadline = timeout
    return run


def test_a_new_run_has_nothing_yet() -> None:
    slots: Semaphore[Run] = Semaphore(1)
    run = Run("backend", "a", "mount", 3.0, slots)
    assert (run.backend, run.name, run.operation) == ("backend", "a", "mount")
    assert (run.timeout, run.semaphore) == (3.0, slots)
    assert (run.failures, run.deadline) == (0, math.inf)
    assert (run.status, run.overdue, run.done) == (RunStatus.ADMITTED, False, False)
    for what in (
        *("record", "started_at", "cancelled_at", "reason", "deferred", "blocker", "followers"),
        *("value", "error", "handle", "waiters"),
    ):
        assert getattr(run, what) is None, what


def test_a_run_is_done_from_its_end_on() -> None:
    run = run_of()
    done: list[str] = []
    for status in RunStatus:
        run.status = status
        if run.done:
            done.append(status.name)
    assert done == ["SUCCEEDED", "FAILED", "CANCELLED"]


def test_the_error_of_a_cancelled_run_names_the_task_and_the_reason() -> None:
    run = run_of()
    run.reason = "not needed"
    assert run.cancelled_error().args == ("a", "mount", "not needed")
    assert run.cancelled_error() is not run.cancelled_error(), "each waiter has its own traceback"


def test_a_run_should_stop_from_exactly_its_deadline_on() -> None:
    run = run_of(timeout=2.0)
    run.backend.time = math.nextafter(2.0, 0)
    assert not run.is_asked_to_stop()
    run.check_cancelled()
    run.backend.time = 2.0
    assert run.is_asked_to_stop()
    with pytest.raises(TaskCancelledError):
        run.check_cancelled()


def test_a_run_without_a_timeout_never_reads_the_clock() -> None:
    run = run_of()
    run.backend = None
    assert run.is_asked_to_stop() is False
    run.cancelled_at = 0.0
    assert run.is_asked_to_stop() is True


def test_an_infinite_timeout_never_stops_a_run() -> None:
    run = run_of()
    run.backend.time = math.inf
    assert not run.is_asked_to_stop()


def test_only_its_own_error_after_a_request_acknowledges_a_cancel() -> None:
    run = run_of(("v", 1))
    own = run.cancelled_error()
    assert not run.acknowledges_cancel(own), "nobody asked it to stop: it is a failure then"
    run.cancelled_at = 0.0
    assert run.acknowledges_cancel(own)
    assert not run.acknowledges_cancel(None)
    assert not run.acknowledges_cancel(ValueError("boom"))
    assert not run.acknowledges_cancel(TaskCancelledError("b", "mount")), "it is another task's"


@pytest.mark.parametrize(
    ("cancelled_at", "timed_out", "asked_at"),
    [(None, True, 3.0), (2.0, False, 2.0), (3.0, True, 3.0), (3.5, True, 3.0)],
)
def test_the_earlier_of_the_deadline_and_the_cancel_counts(
    cancelled_at: float | None, timed_out: bool, asked_at: float
) -> None:
    run = run_of(timeout=3.0)
    run.cancelled_at = cancelled_at
    assert run.timed_out() == timed_out
    assert run.asked_to_stop_at == asked_at


def test_a_run_shows_its_name_and_whether_it_ended() -> None:
    run = run_of("a")
    assert repr(run) == "'a' running"
    run.status = RunStatus.FAILED
    assert repr(run) == "'a' done"


# Failure records


def record(retry_at: float, error: BaseException | None = None) -> FailureRecord:
    return FailureRecord(ValueError("boom") if error is None else error, 1, retry_at)


def listed(records: FailureRecords, operation: str | None = None) -> int:
    """Return the number of names in the order in which they are swept."""
    table = records.tables.get(operation)
    return 0 if table is None else len(table.order)


def test_a_record_is_there_until_exactly_its_retention() -> None:
    records = FailureRecords(10.0)
    one = record(5.0)
    records.put("a", None, one)
    assert records.get("a", None, 14.999) is one
    assert records.get("a", None, 15.0) is None


def test_a_given_up_record_never_expires_and_is_counted_apart() -> None:
    records = FailureRecords(0.0)
    one = record(math.inf)
    records.put("a", None, one)
    records.sweep(1e30)
    assert records.get("a", None, 1e30) is one
    assert (records.waiting, records.gave_up) == (0, 1)
    assert records.take("a", None) is one
    assert (records.waiting, records.gave_up) == (0, 0)


def test_each_name_that_gave_up_is_counted() -> None:
    records = FailureRecords(0.0)
    for name in "abc":
        records.put(name, None, record(math.inf))
    assert records.gave_up == 3
    records.take("a", None)
    assert records.gave_up == 2


def test_taking_a_record_does_not_look_at_the_other_names() -> None:
    """So its cost does not grow with their number."""
    records = FailureRecords(10.0)
    name = Asked()
    records.put(name, None, record(5.0))
    records.put("a", None, record(5.0))
    before = name.asked
    records.take("a", None)
    assert name.asked == before


def test_taking_what_is_not_there_does_nothing() -> None:
    records = FailureRecords(10.0)
    assert records.take("a", None) is None
    records.put("a", None, record(5.0))
    assert records.take("b", None) is None
    assert records.take("a", "mount") is None
    assert records.waiting == 1


def test_sweeps_reach_every_record() -> None:
    """An expired record is found after at most as many sweeps as there are records."""
    records = FailureRecords(10.0)
    for number in range(10):
        records.put(str(number), None, record(1.0 if number % 2 else 1e6))
    for _ in range(10):
        records.sweep(11.0)
    assert records.waiting == 5


def test_sweeps_reach_the_records_of_every_operation() -> None:
    records = FailureRecords(10.0)
    for operation in (None, "mount", "check"):
        records.put("long", operation, record(1e6))
        for number in range(20):
            records.put(str(number), operation, record(1.0))
    for _ in range(40):
        records.sweep(11.0)
    assert records.waiting == 3
    assert set(records.tables) == {None, "mount", "check"}


def test_names_without_a_record_leave_the_order_even_if_no_record_ever_expires() -> None:
    records = FailureRecords(math.inf)
    for number in range(10):
        records.put(str(number), None, record(1.0))
    for number in range(1, 10, 2):
        records.take(str(number), None)
    for _ in range(10):
        records.sweep(11.0)
    assert listed(records) == 5


def test_records_are_kept_apart_by_operation() -> None:
    records = FailureRecords(10.0)
    plain, mount = record(5.0), record(5.0)
    records.put("a", None, plain)
    records.put("a", "mount", mount)
    assert records.get("a", None, 0.0) is plain
    assert records.get("a", "mount", 0.0) is mount
    assert records.get("a", "umount", 0.0) is None
    assert records.operations_of("a", 0.0) == [None, "mount"]
    assert records.operations_of("a", 15.0) == []
    records.take("a", None)
    records.take("a", "mount")
    assert records.tables == {}, "an operation without a record takes no room"
    assert not records.turn


def test_a_sweep_removes_expired_records_and_passes_over_a_long_wait() -> None:
    """The long wait of one name does not keep the memory of later failures."""
    records = FailureRecords(10.0)
    records.put("long", None, record(1e6))
    for number in range(100):
        records.put(str(number), None, record(1.0))
    for _ in range(40):
        records.sweep(11.0)
    assert records.waiting == 1
    assert listed(records) == 1


def test_a_sweep_looks_at_a_bounded_number() -> None:
    records = FailureRecords(0.0)
    for number in range(100):
        records.put(str(number), None, record(1.0))
    records.sweep(1.0)
    assert records.waiting == 92


def test_a_name_that_fails_and_succeeds_for_ever_takes_little_room() -> None:
    records = FailureRecords(10.0)
    records.put("long", None, record(1e6))
    for _ in range(1000):
        records.put("a", None, record(5.0))
        records.sweep(0.0)
        records.take("a", None)
        records.sweep(0.0)
    assert listed(records) < 70


def test_records_that_are_taken_and_put_back_take_little_room_without_sweeps() -> None:
    records = FailureRecords(10.0)
    one = record(5.0)
    for _ in range(1000):
        records.put("a", None, one)
        records.put("b", None, record(5.0))
        records.take("a", None)
        records.take("b", None)
        records.put("b", None, record(5.0))
        records.take("b", None)
    records.put("a", None, one)
    assert listed(records) < 70
    assert records.waiting == 1


def test_a_listed_name_that_was_given_up_leaves_the_order() -> None:
    records = FailureRecords(10.0)
    records.put("other", None, record(math.inf))
    records.put("a", None, record(5.0))
    records.take("a", None)
    records.put("a", None, record(math.inf))
    records.sweep(0.0)
    assert listed(records) == 0
    assert records.next_expiry(0.0) is None
    records.take("a", None)
    records.put("a", None, record(5.0))
    assert records.next_expiry(0.0) == 15.0


def test_an_order_that_is_made_anew_loses_no_record() -> None:
    records = FailureRecords(10.0)
    for number in range(1000):
        records.put(number, None, record(5.0))
    for number in range(0, 1000, 2):
        records.take(number, None)
        records.put(number, None, record(7.0))
    for number in range(990):
        records.take(number, None)
    assert records.waiting == 10
    for _ in range(30):
        records.sweep(17.0)
    assert (records.waiting, records.tables) == (0, {})


def test_a_sweep_that_makes_the_order_anew_loses_no_record() -> None:
    """It does when the number of records comes down to 64."""
    records = FailureRecords(10.0)
    for number in range(200):
        records.put(number, None, record(1.0 if number in (0, 1) else 5.0))
    for number in range(2, 137):
        records.take(number, None)
    assert (records.waiting, listed(records)) == (65, 200)
    records.sweep(11.0)
    assert records.waiting == 63
    assert set(records.tables[None].order) == set(range(137, 200))


def test_the_next_expiry_is_the_time_at_which_to_look_again() -> None:
    records = FailureRecords(10.0)
    assert records.next_expiry(0.0) is None
    records.put("a", None, record(5.0))
    records.put("b", None, record(7.0))
    assert records.next_expiry(0.0) == 15.0
    assert records.next_expiry(15.0) == 17.0
    assert records.next_expiry(17.0) is None


def test_the_next_expiry_looks_at_all_operations() -> None:
    records = FailureRecords(10.0)
    records.put("a", None, record(5.0))
    records.put("a", "mount", record(7.0))
    assert records.next_expiry(15.0) == 17.0
    assert records.next_expiry(17.0) is None


def test_a_wait_for_the_records_removes_many_in_portions() -> None:
    records = FailureRecords(0.0)
    for number in range(2500):
        records.put(str(number), None, record(1.0))
    looks = [records.next_expiry(1.0) for _ in range(3)]
    assert looks == [1.0, 1.0, None]


def test_an_expired_record_can_still_be_taken() -> None:
    """The run that replaces it does so."""
    records = FailureRecords(1.0)
    one = record(1.0)
    records.put("a", None, one)
    assert records.get("a", None, 2.0) is None
    assert records.has_expired(one, 2.0)
    assert records.take("a", None) is one


def test_many_records_that_went_leave_no_room_behind() -> None:
    records = FailureRecords(10.0)
    records.put("stays", None, record(5.0))
    for number in range(10_000):
        records.put(number, None, record(5.0))
    for number in range(10_000):
        records.take(number, None)
    assert sys.getsizeof(records.tables[None].records) < 10_000
    assert sys.getsizeof(records.tables[None].order) < 10_000


def recorded(*errors: BaseException) -> list[BaseException]:
    """Return the errors of the records that follow each other in one table."""
    records = FailureRecords(10.0)
    for number, error in enumerate(errors):
        records.put(number, None, record(5.0, error))
    return [records.tables[None].records[number].error for number in range(len(errors))]


def test_names_that_failed_alike_share_one_copy_of_the_error() -> None:
    error = ValueError("boom", 1)
    one, other = recorded(snapshot_exception(error), snapshot_exception(error))
    assert one is other


class Slotted(Exception):
    """An error with a field beside its arguments."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


def noted(text: str) -> ValueError:
    error = ValueError()
    error.add_note(text)
    return error


@pytest.mark.parametrize(
    "errors",
    [
        (ValueError(), KeyError()),
        (ValueError("one"), ValueError("other")),
        (noted("one"), ValueError()),
        (ValueError(), noted("other")),
        (Slotted(1), Slotted(2)),
        (ImportError(name="one"), ImportError(name="other")),
        (AttributeError(name="one"), AttributeError(name="other")),
        (OSError(), OSError()),
        (RecordedError("A", "A: one"), RecordedError("A", "A: other")),
    ],
    ids=lambda errors: type(errors[0]).__name__,
)
def test_names_that_failed_differently_have_their_own_errors(
    errors: tuple[BaseException, BaseException],
) -> None:
    """Also where the difference is not in the arguments."""
    assert list(map(id, recorded(*errors))) == list(map(id, errors))


# The dict that shrinks


def filled(size: int) -> ShrinkingDict[int, int]:
    table: ShrinkingDict[int, int] = ShrinkingDict()
    table.update((number, number) for number in range(size))
    return table.shrunk()


def emptied(table: ShrinkingDict[int, int], *, until: int) -> ShrinkingDict[int, int]:
    """Remove entries as its owners do."""
    while len(table) > until:
        table.popitem()
        if not len(table) % 64:
            table = table.shrunk()
    return table


def test_a_dict_shrinks_as_entries_go() -> None:
    """After a million names nothing keeps their memory."""
    table = filled(100_000)
    full = sys.getsizeof(table)
    table = emptied(table, until=10_000)
    assert sys.getsizeof(table) < full / 4
    table = emptied(table, until=0)
    assert sys.getsizeof(table) <= 10_000


def test_the_entries_that_are_left_after_shrinking_are_all_there() -> None:
    table = emptied(filled(1000), until=10)
    assert table == {number: number for number in range(10)}


def test_a_dict_is_copied_at_an_eighth_of_its_peak_and_not_before() -> None:
    table = filled(1024)
    assert emptied(table, until=129) is table
    smaller = emptied(table, until=128)
    assert smaller is not table
    assert smaller == table, "a thread that reads the old one finds it whole"
    assert emptied(smaller, until=64) is smaller, "its peak is its own"


def test_a_small_dict_is_never_copied() -> None:
    table = filled(64)
    assert emptied(table, until=0) is table


# Timers


def test_items_fall_due_in_the_order_of_their_times() -> None:
    timers: TimerHeap[str] = TimerHeap()
    for item, when in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        timers.set(item, when)
    assert timers.next_due() == 1.0
    assert timers.pop_due(0.999) is None
    assert [timers.pop_due(2.0), timers.pop_due(2.0), timers.pop_due(2.0)] == ["a", "b", None]
    assert len(timers) == 1


def test_setting_again_moves_an_item() -> None:
    timers: TimerHeap[str] = TimerHeap()
    timers.set("a", 1.0)
    timers.set("b", 2.0)
    timers.set("a", 3.0)
    assert [timers.pop_due(9.0), timers.pop_due(9.0), timers.pop_due(9.0)] == ["b", "a", None]


def test_a_discarded_item_never_falls_due_and_takes_no_room() -> None:
    """The timeouts of a million short runs do not pile up."""
    timers: TimerHeap[int] = TimerHeap()
    timers.set(-1, 5000.0)
    for number in range(10_000):
        timers.set(number, 3600.0 + number)
        timers.discard(number)
        assert len(timers._heap) <= 2
    timers.discard(77)
    assert timers.next_due() == 5000.0
    assert len(timers) == 1


def test_the_order_holds_when_the_empty_entries_are_thrown_out() -> None:
    timers: TimerHeap[int] = TimerHeap()
    times = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 7.0, 8.0, 6.0, 0.0]
    for number, when in enumerate(times):
        timers.set(number, when)
    for number in (1, 9, 3, 4, 2, 0):
        timers.discard(number)
    assert [timers.pop_due(99.0) for _ in range(5)] == [8, 6, 7, 5, None]


def test_empty_timers_have_nothing_due() -> None:
    timers: TimerHeap[str] = TimerHeap()
    assert timers.next_due() is None
    assert timers.pop_due(1.0) is None
    for item, when in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        timers.set(item, when)
    timers.discard("a")
    assert timers.next_due() == 2.0


def test_a_peak_of_timers_costs_nothing_later() -> None:
    timers: TimerHeap[int] = TimerHeap()
    for number in range(100_000):
        timers.set(number, 1.0)
    for number in range(100_000):
        timers.discard(number)
    assert sys.getsizeof(timers._entries) < 10_000
    assert timers._heap == []


def test_timers_tell_that_an_item_came_or_went() -> None:
    """So that a backend that sleeps until the next one is due sleeps anew."""
    timers: TimerHeap[str] = TimerHeap()
    assert timers.changed is False
    timers.set("a", 1.0)
    assert timers.changed is True
    timers.set("b", 2.0)
    for remove in (lambda: timers.discard("a"), lambda: timers.pop_due(2.0)):
        timers.changed = False
        remove()
        assert timers.changed is True
    timers.changed = False
    timers.discard("a")
    assert timers.pop_due(9.0) is None
    assert timers.changed is False


def test_half_of_the_entries_may_be_empty() -> None:
    """Throwing them out at each removal would cost a look at all that are left."""
    timers: TimerHeap[str] = TimerHeap()
    for item in "abcd":
        timers.set(item, 1.0)
    lengths: list[int] = []
    for item in "abcd":
        timers.discard(item)
        lengths.append(len(timers._heap))
    assert lengths == [4, 4, 1, 0]


def test_taking_a_due_item_does_not_look_at_all_entries() -> None:
    timers: TimerHeap[Asked] = TimerHeap()
    items = [Asked() for _ in range(1000)]
    for item in items:
        timers.set(item, 1.0)
    before = sum(item.asked for item in items)
    timers.pop_due(1.0)
    assert sum(item.asked for item in items) < before + 10


# Slots


def enqueue(semaphore: Semaphore[Run], names: str) -> list[Run]:
    """Acquire a slot for each name, or a place in the queue."""
    runs = [Run(None, name, None, math.inf, semaphore) for name in names]
    for run in runs:
        if not semaphore.acquire(run):
            run.status = RunStatus.QUEUED
    return runs


def test_slots_go_by_order_of_admission() -> None:
    slots: Semaphore[Run] = Semaphore(2)
    a, b, c, d = enqueue(slots, "abcd")
    queued = RunStatus.QUEUED
    assert [run.status is queued for run in (a, b, c, d)] == [False, False, True, True]
    assert (slots.used, slots.queued) == (2, 2)
    for run, follower in ((b, c), (a, d)):
        assert slots.release(run) is follower
        follower.status = RunStatus.ADMITTED
    assert slots.used == 2
    assert slots.release(c) is None
    assert slots.release(d) is None
    assert (slots.used, slots.queued) == (0, 0)


def test_a_run_that_leaves_the_queue_is_passed_over() -> None:
    slots: Semaphore[Run] = Semaphore(1)
    a, b, c = enqueue(slots, "abc")
    assert slots.release(b) is None
    assert slots.release(a) is c
    assert (slots.used, slots.queued) == (1, 0)


@pytest.mark.parametrize("is_served", [True, False])
def test_a_long_queue_leaves_no_room_behind(is_served: bool) -> None:
    """Whether its runs get their slots or are cancelled."""
    slots: Semaphore[Run] = Semaphore(1)
    first, *others = enqueue(slots, "a" * 50_000)
    for run in [first] * len(others) if is_served else others:
        slots.release(run)
    assert sys.getsizeof(slots._queue) < 1000
    assert slots.release(first) is None
    assert slots.used == 0


def test_a_slot_can_be_transferred() -> None:
    slots: Semaphore[Run] = Semaphore(1)
    a, b = enqueue(slots, "ab")
    heir = Run(None, "c", None, math.inf, slots)
    assert slots.transfer(a, heir) is True
    assert slots.used == 1
    assert slots.release(heir) is b


def test_a_place_in_the_queue_can_be_transferred() -> None:
    slots: Semaphore[Run] = Semaphore(1)
    a, b, c = enqueue(slots, "abc")
    heir = Run(None, "d", None, math.inf, slots)
    assert slots.transfer(b, heir) is False
    heir.status = RunStatus.QUEUED
    assert slots.queued == 2
    assert slots.release(a) is heir
    heir.status = RunStatus.ADMITTED
    assert slots.release(heir) is c
