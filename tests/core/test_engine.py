"""The state table, row by row, and exactly at its boundaries."""

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
from namedtasks._core import checks
from namedtasks._core.backoff import default_retention
from namedtasks._core.engine import Engine, make_engine
from namedtasks._core.names import check_start
from namedtasks._core.obstacles import refusal
from namedtasks._core.runs import Run
from namedtasks._core.turns import Turn
from namedtasks.instruments import (
    Instrument,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskForgotten,
    TaskGaveUp,
    TaskOverdue,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
)
from namedtasks.testing import RecordingInstrument

DEFAULT = Backoff()


@attrs.define
class World:
    """An engine with a clock that the test sets."""

    engine: Engine[Run]
    heard: RecordingInstrument
    now: float = 0.0

    def start(
        self, name: Any = "a", *, operation: str | None = None, timeout: float = math.inf
    ) -> Run:
        obstacle = self.engine.ledger.obstacle(name, operation, self.now)
        if obstacle is not None:
            raise refusal(obstacle, name, operation, self.now)
        run = Run(name, operation, timeout, self.engine.slots)
        self.engine.admit(run, self.now)
        if run.has_slot:
            self.engine.begin(run, self.now)
        return run

    def fail(self, run: Run, error: BaseException | None = None) -> None:
        error = error or ValueError("boom")
        verdict = self.engine.judge(run, error)
        if not self.engine.stands(run, verdict):
            verdict = self.engine.judge(run, error)
            assert self.engine.stands(run, verdict), "nobody forgets twice here"
        self.engine.failed(run, verdict, self.now)

    def state(self, name: Any = "a", operation: str | None = None) -> State:
        return self.engine.ledger.state(name, operation, self.now)

    def events(self) -> list[TaskEvent]:
        self.engine.dispatch.deliver()
        events, self.heard.events = self.heard.events, []
        return events


def complain(what: str, error: BaseException) -> None:
    raise AssertionError(what) from error


def world(
    *,
    backoff: Any = DEFAULT,
    limit: int | None = None,
    retention: float | None = None,
    is_heard: bool = True,
) -> World:
    heard = RecordingInstrument()
    engine: Engine[Run] = Engine(
        backoff=backoff,
        retention=retention,
        limit=limit,
        overdue_after=1.0,
        instruments=[heard] if is_heard else [],
        random=lambda: 0.0,
        complain=complain,
    )
    return World(engine, heard)


def test_a_free_name_runs_and_success_drops_the_record() -> None:
    w = world()
    run = w.start()
    assert w.state() is State.RUNNING
    w.engine.succeeded(run, w.now)
    assert w.state() is State.FREE
    assert run.done


def test_a_running_name_is_refused_also_if_it_failed_before() -> None:
    """What runs counts before what failed."""
    w = world()
    w.fail(w.start())
    w.now = 0.5
    w.start()
    with pytest.raises(AlreadyRunningError) as caught:
        w.start()
    assert caught.value.started_at == 0.5
    assert caught.value.holders == ("a",)


def test_a_failed_name_is_refused_until_exactly_retry_at() -> None:
    w = world()
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
        w = world()
        w.fail(w.start())
        w.now = now
        assert w.state() is (State.READY if failures else State.FREE)
        assert w.start().failures == failures


def test_a_retention_of_zero_forgets_at_the_end_of_the_wait() -> None:
    w = world(retention=0.0)
    w.fail(w.start())
    w.now = 0.5
    assert w.state() is State.FREE


def test_a_run_that_outlives_its_records_retention_counts_on() -> None:
    w = world()
    w.fail(w.start())
    w.now = 0.5
    run = w.start()
    w.now = 1000.0
    w.fail(run)
    failure = w.engine.ledger.failure("a", None, w.now)
    assert failure is not None
    assert (failure.failures, failure.retry_at) == (2, 1001.0)


def test_a_cancelled_run_leaves_the_record_as_it_was() -> None:
    w = world()
    w.fail(w.start())
    before = w.engine.ledger.failure("a", None, w.now)
    w.now = 0.5
    run = w.start()
    assert w.engine.ledger.failure("a", None, w.now) == before, "a running name shows it too"
    w.engine.cancelled(run, w.now)
    assert w.engine.ledger.failure("a", None, w.now) == before
    assert w.state() is State.READY


def test_a_cancelled_run_that_outlived_the_record_leaves_the_name_free() -> None:
    w = world()
    w.fail(w.start())
    w.now = 0.5
    run = w.start()
    w.now = 1000.0
    w.engine.cancelled(run, w.now)
    assert w.state() is State.FREE


def test_an_exempt_error_starts_no_wait_and_keeps_the_count() -> None:
    w = world(backoff=Backoff(exempt=(KeyError,)))
    w.fail(w.start())
    w.now = 0.5
    run, error = w.start(), KeyError()
    assert w.engine.judge(run, error) == (error, 2, None, None), "there is nothing to keep of it"
    w.fail(run, error)
    assert w.events()[-1] == TaskFailed(
        name="a", operation=None, at=0.5, duration=0.0, error=error,
        failures=1, retry_at=None, retry_in=None,
    )  # fmt: skip
    assert w.state() is State.READY
    assert w.start().failures == 1


def test_without_backoff_a_failed_name_is_free() -> None:
    w = world(backoff=None)
    w.fail(w.start())
    assert w.state() is State.FREE


def test_a_name_that_gave_up_is_refused_for_ever_until_forgotten() -> None:
    w = world(backoff=Backoff(give_up_after=1))
    w.fail(w.start())
    w.now = 1e9
    assert w.state() is State.GAVE_UP
    with pytest.raises(GaveUpError) as caught:
        w.start()
    assert caught.value.failures == 1
    assert repr(caught.value.__cause__) == "ValueError('boom')"
    assert w.engine.forget("a", None, w.now) == (True, Turn())
    assert w.state() is State.FREE


def test_forgetting_a_running_name_sets_its_count_to_zero_for_good() -> None:
    w = world()
    w.fail(w.start())
    w.now = 0.5
    run = w.start()
    assert run.failures == 1
    assert w.engine.forget("a", None, w.now) == (True, Turn())
    assert w.engine.forget("a", None, w.now) == (False, Turn()), "there was nothing left"
    assert run.failures == 0
    w.engine.cancelled(run, w.now)
    assert w.state() is State.FREE


def test_forgetting_one_operation_keeps_the_others() -> None:
    w = world()
    w.fail(w.start(operation="mount"))
    w.fail(w.start(operation="umount"))
    w.now = 0.5
    run = w.start(operation="mount")
    assert w.engine.forget("a", "umount", w.now) == (True, Turn())
    assert run.failures == 1
    assert w.engine.ledger.failure("a", "umount", w.now) is None
    assert w.engine.ledger.failure("a", "mount", w.now) is not None
    assert w.engine.ledger.failure("a", None, w.now) is None


def test_operations_of_one_name_wait_apart_and_run_one_at_a_time() -> None:
    """A failed attach does not keep a detach waiting."""
    w = world()
    w.fail(w.start(operation="attach"))
    run = w.start(operation="detach")
    with pytest.raises(AlreadyRunningError):
        w.start(operation="attach")
    w.engine.succeeded(run, w.now)
    with pytest.raises(BackoffError):
        w.start(operation="attach")


def test_a_closed_ledger_refuses_before_anything_else() -> None:
    w = world()
    w.start()
    w.engine.ledger.closed = True
    with pytest.raises(ClosedError):
        w.start("a")
    with pytest.raises(ClosedError):
        w.start("b")


def test_a_refused_skip_gives_no_error_and_a_closed_map_is_never_skipped() -> None:
    w = world()
    w.start()
    obstacle = w.engine.ledger.obstacle("a", None, 0.0)
    assert obstacle is not None
    assert w.engine.refuse(obstacle, "a", None, 0.0, skip=True) is None
    (_, refused) = w.events()
    assert isinstance(refused, TaskRefused)
    assert refused.skipped
    assert isinstance(refused.error, AlreadyRunningError)
    w.engine.ledger.closed = True
    obstacle = w.engine.ledger.obstacle("a", None, 0.0)
    assert obstacle is not None
    assert isinstance(w.engine.refuse(obstacle, "a", None, 0.0, skip=True), ClosedError)


def test_a_refusal_tells_which_task_and_when() -> None:
    w = world()
    w.fail(w.start("a", operation="mount"))
    obstacle = w.engine.ledger.obstacle("a", "mount", 0.25)
    assert obstacle is not None
    error = w.engine.refuse(obstacle, "a", "mount", 0.25, skip=False)
    assert isinstance(error, BackoffError)
    assert error.args == ("a", "mount", 1, 0.5, 0.25)
    assert w.events()[-1] == TaskRefused(
        name="a", operation="mount", at=0.25, error=error, skipped=False
    )


def test_a_policy_that_forgets_the_name_is_asked_again() -> None:
    """The wait that counts is the one for the number of failures that is recorded."""

    class Forgets:
        def delay(self, failures: int, error: BaseException, /) -> float:
            if failures > 1:
                w.engine.forget("a", None, w.now)
            return float(failures)

    w = world(backoff=Forgets())
    w.fail(w.start())
    w.now = 1.0
    w.fail(w.start())
    failure = w.engine.ledger.failure("a", None, w.now)
    assert failure is not None
    assert (failure.failures, failure.retry_at) == (1, 2.0)


def test_each_end_is_told_with_its_duration() -> None:
    w = world(backoff=Backoff(give_up_after=2))
    run = w.start(operation="op")
    w.now = 2.0
    w.engine.succeeded(run, w.now)
    assert w.events() == [
        TaskStarted(name="a", operation="op", at=0.0, failures=0),
        TaskSucceeded(name="a", operation="op", at=2.0, duration=2.0),
    ]
    error = ValueError("boom")
    w.fail(w.start(), error)
    w.now = 2.5
    w.fail(w.start(), error)
    w.engine.forget("a", None, w.now)
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


def test_an_uncounted_failure_is_told_without_a_retry_time() -> None:
    w = world()
    error = KeyboardInterrupt()
    run = w.start()
    w.engine.escaped(run, error, w.now)
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
    w = world(limit=1)
    first, second = w.start("a"), w.start("b")
    assert w.engine.ask_to_stop(second, "not needed", w.now)
    w.engine.cancelled(second, w.now)
    w.now = 3.0
    w.engine.ask_to_stop(first, None, w.now)
    w.engine.cancelled(first, w.now)
    assert w.events()[1:] == [
        TaskCancelled(name="b", operation=None, at=0.0, duration=None, reason="not needed"),
        TaskCancelled(name="a", operation=None, at=3.0, duration=3.0, reason=None),
    ]


def test_a_run_asked_to_stop_is_overdue_exactly_after_the_time_given() -> None:
    w = world()
    run = w.start()
    w.now = 5.0
    assert w.engine.ask_to_stop(run, None, w.now)
    assert w.engine.ask_to_stop(run, "again", 5.5), "asking again changes nothing"
    assert w.engine.timers.next_due() == 6.0
    assert w.engine.on_time(math.nextafter(6.0, 0)) == Turn()
    assert not run.overdue
    assert w.engine.on_time(6.0) == Turn()
    assert w.engine.on_time(7.0) == Turn()
    assert run.overdue
    assert w.engine.statistics().overdue == 1
    assert w.events()[1:] == [
        TaskOverdue(name="a", operation=None, at=6.0, duration=6.0, asked_at=5.0)
    ]
    w.engine.succeeded(run, 8.0)
    assert w.engine.statistics().overdue == 0
    assert run.overdue, "it stays known of the run"
    assert not w.engine.ask_to_stop(run, None, 9.0), "it has ended"


@pytest.mark.parametrize(
    ("timeout", "asked_at", "timed_out", "due"),
    [(3.0, None, True, 4.0), (3.0, 2.0, False, 3.0), (3.0, 3.0, True, 4.0), (3.0, 3.5, True, 4.0)],
)
def test_deadline_or_cancel_whichever_came_first(
    timeout: float, asked_at: float | None, timed_out: bool, due: float
) -> None:
    w = world()
    run = w.start(timeout=timeout)
    if asked_at is not None:
        w.engine.ask_to_stop(run, None, asked_at)
    assert run.timed_out() == timed_out
    assert w.engine.timers.next_due() == due


def test_an_overdue_run_that_is_cancelled_is_not_told_of_twice() -> None:
    w = world()
    run = w.start(timeout=1.0)
    w.engine.on_time(2.0)
    assert run.overdue
    w.engine.ask_to_stop(run, None, 3.0)
    assert w.engine.timers.next_due() is None


def test_a_run_that_ends_in_time_leaves_no_timer() -> None:
    w = world()
    w.engine.succeeded(w.start(timeout=1.0), w.now)
    assert len(w.engine.timers) == 0


def test_statistics_count_what_there_is() -> None:
    w = world(limit=2, backoff=Backoff(give_up_after=2))
    w.fail(w.start("failed"))
    w.fail(w.start("given up"))
    w.now = 0.5
    w.fail(w.start("given up"))
    for name in "abc":
        w.start(name)
    obstacle = w.engine.ledger.obstacle("a", None, w.now)
    assert obstacle is not None
    w.engine.put_off(Run("a", None, math.inf, w.engine.slots), "queue", obstacle)
    statistics = w.engine.statistics()
    assert attrs.asdict(statistics) == {
        "running": 3,
        "pending": 1,
        "waiting_for_slot": 1,
        "overdue": 0,
        "waiting": 1,
        "gave_up": 1,
        "limit": 2,
    }


def test_without_a_limit_only_threads_wait_for_slots() -> None:
    w = world()
    assert w.engine.statistics().limit is None
    for number in range(1001):
        w.engine.admit(Run(number, None, math.inf, w.engine.thread_slots), 0.0)
    assert w.engine.statistics().waiting_for_slot == 1


def test_starts_and_ends_sweep() -> None:
    """A record that nobody retries is given back by whatever else happens."""
    w = world(backoff=Backoff(maximum=1.0))
    for number in range(50):
        w.fail(w.start(number))
    w.now = 100.0
    for _ in range(10):
        w.engine.succeeded(w.start("other"), w.now)
    assert w.engine.ledger.records.waiting == 0


BAD_NAMES: list[tuple[Any, Any, str]] = [
    (
        [],
        None,
        "a task's name must be hashable, and list is not: []; use a str, a tuple or a frozen class",
    ),
    (
        ("a", {}),
        None,
        "a task's name must be hashable, and tuple is not: ('a', {}); "
        "use a str, a tuple or a frozen class",
    ),
    ("a", 1, "operation must be a str or None, not 1"),
]


@pytest.mark.parametrize(("name", "operation", "message"), BAD_NAMES)
def test_bad_names_and_operations_say_the_cure(name: Any, operation: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        check_start(name, operation)
    assert str(caught.value) == message


def test_an_error_of_the_names_own_is_passed_on() -> None:
    class Odd:
        def __hash__(self) -> int:
            raise TypeError("my own")

    with pytest.raises(TypeError, match=r"^a task's name must be hashable, and Odd is not: "):
        check_start(Odd(), None)

    class Shy:
        hashes = 0

        def __hash__(self) -> int:
            self.hashes += 1
            if self.hashes == 1:
                raise TypeError("only once")
            return 1

    # From Python 3.14 on a dict raises an error of its own from it.
    with pytest.raises(
        TypeError, match=r"^(only once|cannot use '.*' as a dict key \(only once\))$"
    ):
        world().start(Shy())


def test_if_busy_takes_five_words() -> None:
    for word in ("refuse", "skip", "join", "replace", "queue"):
        checks.if_busy(word)
    message = r"^if_busy must be 'refuse', 'skip', 'join', 'replace' or 'queue', not 'wait'$"
    with pytest.raises(ValueError, match=message):
        checks.if_busy("wait")


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("name", ["a", 1, ("v", 1), ("v", ANY)])
def test_the_short_cut_for_a_plain_end_leaves_nothing_behind(name: Any, limit: Any) -> None:
    w = world(limit=limit, is_heard=False)
    run = w.start(name)
    run.handle = object()
    assert w.engine.succeeded_plainly(run) is True
    assert w.state(name) is State.FREE
    assert (run.done, run.returned, run.has_slot, run.handle) == (True, True, False, None)
    assert w.engine.slots.used == 0
    assert w.engine.ledger.overlaps.is_empty()
    assert w.start(name).has_slot, "and all of it can be had again"


def asks_to_stop(w: World, run: Run) -> None:
    w.engine.ask_to_stop(run, None, w.now)


def puts_off(w: World, run: Run) -> None:
    w.engine.put_off(Run(run.name, None, math.inf, w.engine.slots), "queue", run)


def lines_up(w: World, run: Run) -> None:
    w.start("b")


@pytest.mark.parametrize("before", [asks_to_stop, puts_off, lines_up])
def test_it_is_not_taken_when_something_follows_from_the_end(
    before: Callable[[World, Run], None],
) -> None:
    """It does nothing then: the run ends the long way."""
    w = world(limit=1, is_heard=False)
    run = w.start()
    before(w, run)
    assert w.engine.succeeded_plainly(run) is False
    assert w.state() is State.RUNNING
    assert (run.done, run.returned, run.has_slot) == (False, False, True)


def test_nor_for_a_run_with_a_timeout_or_failures_or_if_somebody_listens() -> None:
    w = world(is_heard=False)
    assert not w.engine.succeeded_plainly(w.start("slow", timeout=1.0))
    w.fail(w.start("failed"))
    w.now = 0.5
    assert not w.engine.succeeded_plainly(w.start("failed"))
    heard = world()
    assert not heard.engine.succeeded_plainly(heard.start())


def test_it_is_taken_for_a_name_whose_own_code_raises() -> None:
    class Tired:
        hashes = 0

        def __hash__(self) -> int:
            self.hashes += 1
            if self.hashes == tired_at:
                raise ValueError("enough")
            return 1

    tired_at = 0
    w = world(is_heard=False)
    run = w.start(name := Tired())
    tired_at = name.hashes + 2
    assert w.engine.succeeded_plainly(run) is True
    assert run.done
    assert w.state(name) is State.FREE


def test_short_ends_give_memory_back() -> None:
    w = world(is_heard=False)
    runs = [w.start(str(number)) for number in range(10_000)]
    full = sys.getsizeof(w.engine.ledger.running)
    for run in runs:
        w.engine.succeeded_plainly(run)
    assert sys.getsizeof(w.engine.ledger.running) < full / 20


SETTINGS: dict[str, Any] = {
    "backoff": DEFAULT,
    "retention": None,
    "limit": None,
    "overdue_after": 1.0,
    "instruments": (),
    "random": lambda: 0.0,
    "complain": complain,
}


def test_an_engine_has_the_settings_that_it_was_given() -> None:
    """Jitter takes them one by one: what is random, and who hears of what goes wrong."""

    class Broken(Instrument):
        def task_started(self, event: TaskStarted, /) -> None:
            raise ValueError("broken")

    complaints: list[str] = []
    engine: Engine[Run] = make_engine(
        backoff=Backoff(initial=8.0, jitter=0.5),
        retention=7,
        limit=2,
        overdue_after=3,
        instruments=[Broken()],
        random=lambda: 0.5,
        complain=lambda what, _: complaints.append(what),
    )
    assert engine.ledger.records.retention == 7.0
    assert (engine.slots.capacity, engine.statistics().limit) == (2, 2)
    assert engine.overdue_after == 3.0
    run = Run("a", None, math.inf, engine.slots)
    engine.begin(run, 0.0)
    engine.dispatch.deliver()
    assert len(complaints) == 1
    assert engine.judge(run, ValueError()).delay == 6.0


def test_a_policy_that_fails_is_complained_of() -> None:
    class Broken:
        def delay(self, failures: int, error: BaseException, /) -> float:
            raise ValueError("broken")

    def note(what: str, _: BaseException) -> None:
        complaints.append(what)

    complaints: list[str] = []
    settings = SETTINGS.copy()
    settings.update(backoff=Broken(), complain=note)
    engine = make_engine(**settings)
    engine.judge(Run("a", None, math.inf, engine.slots), ValueError())
    assert len(complaints) == 1


def test_an_engine_without_settings_has_no_limit_and_a_retention_of_its_policy() -> None:
    engine = make_engine(**SETTINGS)
    assert engine.statistics().limit is None
    assert engine.ledger.records.retention == default_retention(DEFAULT)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("backoff", 1, "backoff must be a Backoff, None, or have a method delay(), not 1"),
        ("random", 1, "random must be callable, not 1"),
        ("retention", "x", "retention must be a number, not 'x'"),
        ("limit", "x", "limit must be a whole number or None, not 'x'"),
        ("limit", 0, "limit must be at least 1, or None for no limit, not 0"),
        ("overdue_after", None, "overdue_after must be a number, not None"),
    ],
)
def test_a_bad_setting_is_refused_by_its_name(setting: str, value: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        make_engine(**SETTINGS | {setting: value})
    assert str(caught.value) == message


class Alike:
    """Of the hash of a text, and sooner or later equal to it, or not to be compared."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.answer: bool | Exception = False

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self is other or self.answer


@pytest.mark.parametrize("answer", [True, OSError("the database is gone")])
def test_a_short_end_frees_its_own_name_whatever_another_one_says(answer: Any) -> None:
    w = world(is_heard=False)
    other = w.start(name := Alike("a"))
    run = w.start("a")
    name.answer = answer
    assert w.engine.succeeded_plainly(run) is True
    assert list(w.engine.ledger.running.values()) == [other]
    assert w.engine.ledger.running[name] is other, "which still has its own"
    w.engine.succeeded(other, w.now)
    assert not w.engine.ledger.running


def test_forget_that_raises_has_forgotten_nothing() -> None:
    """At each call of the name's own code in turn."""

    class Tired:
        left: int | None = None

        def __hash__(self) -> int:
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise OSError
            return 1

    for calls in range(10):
        w = world()
        w.fail(w.start(name := Tired()))
        name.left = calls
        try:
            w.engine.forget(name, None, w.now)
        except OSError:
            name.left = None
            assert w.state(name) is State.WAITING
        else:
            name.left = None
            assert w.state(name) is State.FREE
            assert calls > 0
            break
    else:
        raise AssertionError("it never came to an end")
