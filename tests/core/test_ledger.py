"""What the ledger answers by itself: the short cut, the refusals, and what an end leaves."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from namedtasks import ANY, AlreadyRunningError, BackoffError, ClosedError, GaveUpError
from namedtasks._core.ledger import Ledger
from namedtasks._core.obstacles import Closed, Overlapping, refusal
from namedtasks._core.records import Record
from namedtasks._core.runs import Run
from namedtasks._core.slots import Slots

SLOTS: Slots[Run] = Slots(None)


class Text(str):
    """A text whose hash and equality could be its own."""

    __slots__ = ()


def admitted(ledger: Ledger[Run], name: Any, operation: str | None = None) -> Run:
    run = Run(name, operation, math.inf, SLOTS)
    ledger.admit(run, 0.0)
    return run


@pytest.mark.parametrize("name", ["a", 1, ("v", 1), Text("a"), frozenset("a")])
@pytest.mark.parametrize("operation", [None, "mount"])
def test_a_name_of_which_nothing_is_known_takes_the_short_cut(name: Any, operation: Any) -> None:
    ledger: Ledger[Run] = Ledger(10.0)
    assert ledger.is_unknown(name, operation)
    admitted(ledger, "other", operation)
    assert ledger.is_unknown(name, operation)


@pytest.mark.parametrize("name", ["a", 1, ("v", 1), Text("a")])
def test_a_name_that_runs_or_failed_does_not(name: Any) -> None:
    ledger: Ledger[Run] = Ledger(10.0)
    run = admitted(ledger, name, "mount")
    assert not ledger.is_unknown(name, None)
    assert not ledger.is_unknown(name, "mount")
    ledger.fail(run, ValueError(), 1.0, 0.0)
    assert ledger.is_unknown(name, None)
    assert not ledger.is_unknown(name, "mount")


OUT_OF_THE_ORDINARY: list[tuple[Any, Any]] = [
    ("a", 1),
    ("a", Text("mount")),
    (ANY, None),
    (("v", ANY), None),
    ([], None),
    (("v", []), None),
]


@pytest.mark.parametrize(("name", "operation"), OUT_OF_THE_ORDINARY)
def test_nor_does_a_start_that_must_be_looked_at(name: Any, operation: Any) -> None:
    """What is wrong with it, `obstacle` says."""
    ledger: Ledger[Run] = Ledger(10.0)
    assert not ledger.is_unknown(name, operation)


def test_nor_does_any_tuple_once_names_overlap() -> None:
    ledger: Ledger[Run] = Ledger(10.0)
    assert ledger.obstacle(("v", ANY), None, 0.0) is None
    assert not ledger.is_unknown(("w", 1), None)
    assert ledger.is_unknown("w", None)


def test_nor_does_any_name_while_something_is_pending_or_the_map_is_closed() -> None:
    ledger: Ledger[Run] = Ledger(10.0)
    ledger.pending["b"] = Run("b", None, math.inf, SLOTS)
    assert not ledger.is_unknown("a", None)
    del ledger.pending["b"]
    ledger.closed = True
    assert not ledger.is_unknown("a", None)


def test_every_refusal_is_about_the_task_that_was_asked_for() -> None:
    """And not about what stands in its way, which may have another name and operation."""
    name = ("v", 1)
    other = Run(("v", ANY), "scan", math.inf, SLOTS)
    other.started_at = 3.0
    waits, over = Record("a", "mount"), Record("a", "mount")
    waits.failures, waits.retry_at = 2, 9.0
    over.failures, over.retry_at = 5, math.inf

    busy = refusal(other, name, "mount", 4.0)
    assert isinstance(busy, AlreadyRunningError)
    assert busy.args == (name, "mount", 3.0, (("v", ANY),))
    overlapping = refusal(Overlapping([other]), name, "mount", 4.0)
    assert isinstance(overlapping, AlreadyRunningError)
    assert overlapping.args == (name, "mount", 3.0, (("v", ANY),))
    closed = refusal(Closed.CLOSED, name, "mount", 4.0)
    assert isinstance(closed, ClosedError)
    assert closed.args == (name, "mount")
    waiting = refusal(waits, name, "mount", 4.0)
    assert isinstance(waiting, BackoffError)
    assert waiting.args == (name, "mount", 2, 9.0, 5.0)
    gave_up = refusal(over, name, "mount", 4.0)
    assert isinstance(gave_up, GaveUpError)
    assert gave_up.args == (name, "mount", 5)


def test_a_run_that_has_ended_keeps_no_record_alive() -> None:
    """Whoever keeps its handle does not keep the error of the run before it."""
    ledger: Ledger[Run] = Ledger(10.0)
    ledger.fail(admitted(ledger, "a"), ValueError(), 0.0, 0.0)
    ends: list[Callable[[Run], None]] = [
        ledger.restore,
        lambda run: ledger.fail(run, ValueError(), 0.0, 0.0),
        ledger.succeed,
    ]
    for end in ends:
        run = admitted(ledger, "a")
        assert run.record is not None
        end(run)
        assert run.record is None


def test_the_end_of_a_run_asks_nothing_of_the_other_names() -> None:
    """Its price does not grow with their number."""

    class Asked:
        asked = 0

        def __hash__(self) -> int:
            self.asked += 1
            return 1

    ledger: Ledger[Run] = Ledger(10.0)
    other = Asked()
    admitted(ledger, other)
    run = admitted(ledger, "a")
    before = other.asked
    ledger.release(run)
    assert other.asked == before
    assert list(ledger.running) == [other]


class RaisesOnce:
    """A field whose hash raises the *at*-th time that it is asked for, and never again."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __hash__(self) -> int:
        self.left -= 1
        if not self.left:
            raise ZeroDivisionError
        return 1


def test_a_name_is_admitted_whole_or_not_at_all_wherever_it_raises() -> None:
    raised = 0
    for at in range(1, 20):
        ledger: Ledger[Run] = Ledger(10.0)
        assert ledger.holders(("v", ANY), 1) == []
        run = Run(("v", RaisesOnce(at)), None, math.inf, SLOTS)
        try:
            ledger.admit(run, 0.0)
        except ZeroDivisionError:
            raised += 1
            assert not ledger.running
            assert ledger.overlaps.is_empty()
        else:
            assert list(ledger.running.values()) == [run]
            assert ledger.holders(("v", ANY), 1) == [run]
    assert raised


# Looks from other threads than the one that changes the tables


def test_a_look_finds_holders_though_the_index_changes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger: Ledger[Run] = Ledger(10.0)
    run = admitted(ledger, ("v", 1))
    ledger.obstacle(("w", ANY), None, 0.0)  # a start, which makes the index
    admitted(ledger, ("w", ANY))
    assert ledger.overlaps.covers(("v", ANY))

    def holders(*_: object) -> list[Run]:
        raise RuntimeError("OrderedDict mutated during iteration")

    found = ledger.look(("v", ANY), None, 0.0)
    assert isinstance(found, Overlapping)
    assert found.runs == [run]
    monkeypatch.setattr(type(ledger.overlaps), "holders", holders)
    found = ledger.look(("v", ANY), None, 0.0)
    assert isinstance(found, Overlapping)
    assert found.runs == [run]
    assert ledger.look(("x", 1), None, 0.0) is None


def test_a_look_at_a_record_that_is_dropped_meanwhile_finds_none() -> None:
    """The other thread has taken the error, and not yet the record."""
    ledger: Ledger[Run] = Ledger(10.0)
    record = Record("a", None)
    record.error, record.failures, record.retry_at = ValueError("boom"), 1, 5.0
    ledger.records.put(record)
    assert ledger.look("a", None, 0.0) is record
    assert ledger.failure("a", None, 0.0) is not None
    record.error = None
    assert ledger.look("a", None, 0.0) is None
    assert ledger.failure("a", None, 0.0) is None
