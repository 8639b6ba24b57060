"""What a map says and does without waiting, on a shell without a world."""

from __future__ import annotations

import math
from typing import Any

import pytest

from namedtasks import (
    AlreadyRunningError,
    Backoff,
    BackoffError,
    ClosedError,
    GaveUpError,
    State,
)
from namedtasks._core.verbs import Verbs
from namedtasks.testing import RecordingInstrument
from tests.core.plain_shell import PlainShell


class Waits:
    """A policy that waits a second, and gives up names that say so."""

    def delay(self, failures: int, error: BaseException, /) -> float:
        return math.inf if str(error) == "hopeless" else 1.0


def map_of(*, reads_freely: bool = True) -> tuple[PlainShell, Verbs[str]]:
    shell = PlainShell(backoff=Waits(), reads_freely=reads_freely)
    return shell, Verbs(shell)


@pytest.fixture(params=[True, False], ids=["reads freely", "reads under a lock"])
def both(request: pytest.FixtureRequest) -> tuple[PlainShell, Verbs[str]]:
    return map_of(reads_freely=request.param)


Both = tuple[PlainShell, Verbs[str]]


# Asking


def test_check_gives_what_a_start_would_raise_now(both: Both) -> None:
    shell, tasks = both
    assert tasks.check("a") is None
    shell.time = 2.0
    shell.start("a")
    busy = tasks.check("a", operation="mount")
    assert isinstance(busy, AlreadyRunningError)
    assert busy.args == ("a", "mount", 2.0, ("a",))
    shell.fail(shell.start("b", operation="mount"))
    shell.time = 2.75
    waits = tasks.check("b", operation="mount")
    assert isinstance(waits, BackoffError)
    assert waits.args == ("b", "mount", 1, 3.0, 0.25)
    assert tasks.check("b") is None
    shell.time = 3.0
    assert tasks.check("b", operation="mount") is None
    shell.fail(shell.start("b", operation="mount"), ValueError("hopeless"))
    assert isinstance(tasks.check("b", operation="mount"), GaveUpError)
    shell.close()
    assert isinstance(tasks.check("c"), ClosedError)


@pytest.mark.parametrize(
    ("name", "operation", "error"),
    [
        (
            ["vol"],
            None,
            TypeError(
                "a task's name must be hashable, and list is not: ['vol']; "
                "use a str, a tuple or a frozen class"
            ),
        ),
        ("a", 5, TypeError("operation must be a str or None, not 5")),
    ],
)
def test_a_check_of_what_is_no_name_says_so(
    both: Both, name: Any, operation: Any, error: Exception
) -> None:
    _, tasks = both
    with pytest.raises(type(error)) as raised:
        tasks.check(name, operation=operation)
    assert str(raised.value) == str(error)


def test_nobody_hears_of_a_check() -> None:
    recording = RecordingInstrument()
    shell = PlainShell(instruments=[recording])
    shell.start("a")
    Verbs[str](shell).check("a")
    shell.deliver()
    assert len(recording.events) == 1, "that it has started"


def test_each_state_is_told_by_its_own_name_and_operation(both: Both) -> None:
    shell, tasks = both
    shell.start("runs")
    for name, error in (("fails", "boom"), ("gives up", "hopeless")):
        shell.fail(shell.start(name, operation="mount"), ValueError(error))

    def states(operation: str | None) -> list[State]:
        names = ("runs", "fails", "gives up", "unknown")
        return [tasks.state(name, operation=operation) for name in names]

    assert states("mount") == [State.RUNNING, State.WAITING, State.GAVE_UP, State.FREE]
    assert states(None) == [State.RUNNING, State.FREE, State.FREE, State.FREE]
    shell.time = 1.0
    assert states("mount") == [State.RUNNING, State.READY, State.GAVE_UP, State.FREE]
    shell.time = 11.0
    assert tasks.state("fails", operation="mount") is State.FREE, "it has lapsed"


def test_a_failure_is_that_of_exactly_one_operation(both: Both) -> None:
    shell, tasks = both
    shell.fail(shell.start("a", operation="mount"))
    failure = tasks.failure("a", operation="mount")
    assert failure is not None
    assert (failure.failures, failure.retry_at) == (1, 1.0)
    assert tasks.failure("a") is None
    assert tasks.failure("b", operation="mount") is None
    shell.time = 10.999
    assert tasks.failure("a", operation="mount") is not None
    shell.time = 11.0
    assert tasks.failure("a", operation="mount") is None, "it has lapsed"


def test_statistics_count_what_is_there_now(both: Both) -> None:
    shell, tasks = both
    shell.start("a")
    shell.start("a", "queue")
    shell.fail(shell.start("b"))
    statistics = tasks.statistics()
    assert (statistics.running, statistics.pending, statistics.waiting) == (1, 1, 1)
    shell.time = 1000.0
    assert tasks.statistics() == statistics, "a look does not sweep"
    shell.engine.ledger.records.sweep(shell.time)
    assert tasks.statistics().waiting == 0


# Stopping


def test_a_name_is_cancelled_with_its_reason() -> None:
    shell, tasks = map_of()
    run, other = shell.start("a"), shell.start("b")
    assert tasks.cancel("a", reason="enough") is True
    assert (run.reason, other.stop_asked_at) == ("enough", None)
    assert tasks.cancel("c") is False


def test_the_names_that_a_predicate_likes_are_cancelled_with_their_reason() -> None:
    shell, tasks = map_of()
    runs = [shell.start(number) for number in range(4)]
    count = tasks.cancel_matching(lambda name: isinstance(name, int) and name > 1, reason="enough")
    assert count == 2
    assert [run.reason for run in runs] == [None, None, "enough", "enough"]


def test_all_are_cancelled_with_their_reason() -> None:
    shell, tasks = map_of()
    runs = [shell.start(number) for number in range(3)]
    assert tasks.cancel_all(reason="enough") == 3
    assert [run.reason for run in runs] == ["enough"] * 3
    assert map_of()[1].cancel_all() == 0


def test_failures_are_forgotten_of_one_operation_or_of_all() -> None:
    shell, tasks = map_of()
    for operation in ("mount", "check", None):
        shell.fail(shell.start("a", operation=operation))
    assert tasks.forget("a", operation="mount") is True
    assert tasks.failure("a", operation="mount") is None
    assert tasks.failure("a", operation="check") is not None
    assert tasks.failure("a") is not None
    assert tasks.forget("a") is True
    assert tasks.failure("a", operation="check") is None
    assert tasks.forget("a") is False


def test_a_map_that_was_closed_refuses_starts() -> None:
    shell, tasks = map_of()
    tasks.close()
    assert shell.engine.ledger.closed


# The mapping


def test_a_map_is_the_mapping_of_what_runs(both: Both) -> None:
    shell, tasks = both
    assert len(tasks) == 0
    for name in "ab":
        shell.start(name)
    shell.start("b", "queue")
    shell.fail(shell.start("c"))
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
    shell, tasks = map_of()
    shell.start("a").handle = None
    with pytest.raises(KeyError, match=r"^'a'$"):
        tasks["a"]


def test_what_is_iterated_over_is_a_snapshot(both: Both) -> None:
    shell, tasks = both
    run = shell.start("a")
    names, keys, values, items = iter(tasks), tasks.keys(), tasks.values(), tasks.items()
    shell.succeed(run)
    shell.start("b")
    assert list(names) == ["a"]
    assert (list(keys), list(values), list(items)) == (
        ["a"],
        ["handle of a"],
        [("a", "handle of a")],
    )


def test_a_map_is_true_and_equal_only_to_itself(both: Both) -> None:
    _, tasks = both
    _, other = map_of()
    assert tasks
    assert tasks == tasks
    assert tasks != other
    assert tasks != {}
    assert {tasks: 1, other: 2}[tasks] == 1
    assert hash(tasks) == hash(tasks)
    assert hash(tasks) != hash(other), "many of them in a set are found quickly"


def test_a_map_says_what_it_is_and_how_much_is_in_it(both: Both) -> None:
    shell, tasks = both
    shell.start("a")
    for name in "bcd":
        shell.fail(shell.start(name))
    where = f"{Verbs.__module__}.Verbs"
    assert repr(tasks) == f"<{where} running=1 waiting=3>"
    tasks.close()
    assert repr(tasks) == f"<{where} running=1 waiting=3 closed>"


# Locking


def test_where_there_is_a_lock_all_that_asks_takes_it() -> None:
    shell, tasks = map_of(reads_freely=False)
    shell.start("a")
    questions: list[Any] = [
        lambda: tasks.check("a"),
        lambda: tasks.state("a"),
        lambda: tasks.failure("a"),
        tasks.statistics,
        lambda: tasks["a"],
        lambda: "a" in tasks,
        lambda: iter(tasks),
        lambda: len(tasks),
        tasks.keys,
        tasks.values,
        tasks.items,
        lambda: repr(tasks),
    ]
    before = shell.locked.entered
    for number, question in enumerate(questions):
        assert shell.locked.entered == before + number
        question()
    assert shell.locked.entered == before + len(questions)


def test_where_there_is_none_a_state_is_told_without_the_time() -> None:
    """What runs, and of what nothing is known, is asked for most often."""
    shell = PlainShell(backoff=Backoff())
    tasks = Verbs[str](shell)
    shell.start("a")
    shell.fail(shell.start("b", operation="mount"))
    asked: list[None] = []

    def now() -> float:
        asked.append(None)
        return 0.0

    shell.now = now
    assert tasks.state("a") is State.RUNNING
    assert tasks.state("c") is State.FREE
    assert tasks.state("c", operation="mount") is State.FREE
    assert asked == []
