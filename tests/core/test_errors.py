"""Errors carry their facts, speak in sentences, and survive copying and pickling."""

import copy
import pickle
from collections.abc import Callable

import pytest

import namedtasks
from namedtasks import (
    ANY,
    AlreadyRunningError,
    BackoffError,
    ClosedError,
    GaveUpError,
    NamedTasksError,
    RecordedError,
    RefusedError,
    TaskCancelledError,
    TaskFailedError,
)

ERRORS: list[NamedTasksError] = [
    RefusedError("a", "op"),
    AlreadyRunningError("a", None, 1.5, ("a",)),
    BackoffError("a", "op", 2, 10.0, 1.5),
    GaveUpError("a", None, 3),
    ClosedError("a"),
    TaskFailedError("a", "op"),
    TaskCancelledError("a", None, "no longer wanted"),
    RecordedError("ValueError", "ValueError: boom"),
]


def with_cause(error: NamedTasksError, cause: BaseException) -> NamedTasksError:
    error = copy.copy(error)
    error.__cause__ = cause
    return error


def pickled(error: NamedTasksError) -> NamedTasksError:
    revived: NamedTasksError = pickle.loads(pickle.dumps(error))
    return revived


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, pickled], ids=["copy", "deep", "pickle"]
)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_copies_are_the_same_but_for_identity(
    error: NamedTasksError, again: Callable[[NamedTasksError], NamedTasksError]
) -> None:
    """Type, facts, sentence, notes and cause survive."""
    error = with_cause(error, ValueError("boom"))
    error.add_note("on node 3")
    other = again(error)
    assert other is not error
    assert type(other) is type(error)
    assert other.args == error.args
    assert str(other) == str(error)
    assert repr(other.__cause__) == repr(error.__cause__)
    assert other.__notes__ == ["on node 3"]


def test_a_copy_without_a_cause_has_none() -> None:
    assert pickled(GaveUpError("a", None, 3)).__cause__ is None


def test_a_cause_that_cannot_be_pickled_is_pickled_as_its_text() -> None:
    class LocalError(Exception):
        """Pickle does not find it by its name."""

    revived = pickled(with_cause(GaveUpError("a", None, 3), LocalError("boom")))
    cause = revived.__cause__
    assert isinstance(cause, RecordedError)
    assert cause.type_name.endswith("LocalError")
    assert cause.text.endswith("LocalError: boom")
    assert str(cause) == cause.text


def test_a_backoff_error_says_how_long_and_why() -> None:
    error = with_cause(BackoffError("sync", None, 2, 10.0, 1.5), ValueError("boom"))
    assert (
        str(error)
        == "task 'sync' may not start for another 1.5 s (failures in a row: 2): ValueError: boom"
    )


def test_facts_can_be_read() -> None:
    busy = AlreadyRunningError("a", "op", 1.5, ("a", "b"))
    assert (busy.name, busy.operation, busy.started_at, busy.holders) == (
        "a",
        "op",
        1.5,
        ("a", "b"),
    )
    backoff = BackoffError("a", None, 2, 10.0, 1.5)
    assert (backoff.failures, backoff.retry_at, backoff.retry_in) == (2, 10.0, 1.5)
    assert GaveUpError("a", None, 3).failures == 3
    assert TaskCancelledError("a", None, "why").reason == "why"


def test_each_says_which_task_it_is_about() -> None:
    for error in (
        RefusedError("a", "op"),
        AlreadyRunningError("a", "op", 1.5, ("a",)),
        BackoffError("a", "op", 2, 10.0, 1.5),
        GaveUpError("a", "op", 3),
        ClosedError("a", "op"),
        TaskFailedError("a", "op"),
        TaskCancelledError("a", "op", "why"),
    ):
        assert (error.name, error.operation) == ("a", "op")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            AlreadyRunningError("a", None, None, ("a",)),
            "task 'a' is already running: wait for its end with wait_free(), "
            "or choose another if_busy: 'skip', 'join', 'replace' or 'queue'",
        ),
        (
            AlreadyRunningError(("v", ANY), None, None, (("v", 1),)),
            "task ('v', namedtasks.ANY) overlaps what is already running (('v', 1)): "
            "wait for its end with wait_free(), or choose another if_busy: 'skip' or 'replace'",
        ),
        (
            AlreadyRunningError(("v", ANY), None, None, tuple(("v", n) for n in range(3))),
            "task ('v', namedtasks.ANY) overlaps what is already running "
            "(('v', 0), ('v', 1), ('v', 2)): "
            "wait for its end with wait_free(), or choose another if_busy: 'skip' or 'replace'",
        ),
        (
            AlreadyRunningError(("v", ANY), None, None, tuple(("v", n) for n in range(4))),
            "task ('v', namedtasks.ANY) overlaps what is already running "
            "(('v', 0), ('v', 1), ('v', 2) and more): "
            "wait for its end with wait_free(), or choose another if_busy: 'skip' or 'replace'",
        ),
        (
            GaveUpError("a", "mount", 3),
            "task 'a' (operation 'mount') gave up (failures in a row: 3) "
            "and starts again only after forget()",
        ),
        (ClosedError("a"), "task 'a' may not start: the map is closed; open a new one"),
        (TaskFailedError("a"), "task 'a' failed"),
        (TaskCancelledError("a"), "task 'a' was cancelled"),
        (TaskCancelledError("a", None, "shutdown"), "task 'a' was cancelled: shutdown"),
    ],
)
def test_sentences_say_what_happened_and_what_may_be_done(
    error: NamedTasksError, sentence: str
) -> None:
    assert str(error) == sentence


def test_a_name_that_cannot_be_compared_makes_a_sentence_all_the_same() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        def __hash__(self) -> int:
            return 1

        def __repr__(self) -> str:
            return "Odd"

    error = AlreadyRunningError(Odd(), None, None, (Odd(),))
    assert str(error).startswith("task Odd overlaps what is already running (Odd): ")


def test_refusals_are_one_family_and_closed_is_a_runtime_error_too() -> None:
    """One except clause for "not now", and nurseries' closed errors are caught alike."""
    for kind in (AlreadyRunningError, BackoffError, GaveUpError, ClosedError):
        assert issubclass(kind, RefusedError)
    assert issubclass(ClosedError, RuntimeError)
    assert not issubclass(TaskFailedError, RefusedError)


def test_tracebacks_name_the_public_place() -> None:
    assert namedtasks.BackoffError.__module__ == "namedtasks"
    assert namedtasks.open_task_map.__module__ == "namedtasks"


def test_pickling_a_long_chain_of_causes_takes_no_longer_for_each_one() -> None:
    """Tasks that wait for tasks that wait for tasks make such chains."""
    error: NamedTasksError = TaskFailedError(0)
    for depth in range(1, 60):
        error = with_cause(TaskFailedError(depth), error)
    revived: BaseException | None = pickled(error)
    depth = 0
    while revived is not None:
        depth += 1
        revived = revived.__cause__
    assert depth == 60
