"""Errors: their facts and messages, copies and pickles, snapshots for the record, groups."""

import copy
import dataclasses
import gc
import pickle
import subprocess
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self, cast

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
    _errors,
)
from namedtasks._errors import raise_combined, snapshot_exception, split_exception

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


# Snapshots


def caught(error: BaseException) -> BaseException:
    """*error*, raised and caught, with a cause."""
    try:
        raise error from KeyError("cause")
    except BaseException as raised:
        return raised


@pytest.mark.parametrize(
    "error",
    [
        ValueError("boom", 1),
        OSError(2, "No such file", "x"),
        subprocess.CalledProcessError(3, ["mount"], stderr="bad superblock"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_snapshot_is_the_same_error_without_its_past(error: Exception) -> None:
    copied = snapshot_exception(caught(error))
    assert copied is not error
    assert type(copied) is type(error)
    assert copied.args == error.args
    assert str(copied) == str(error)
    assert (copied.__traceback__, copied.__cause__, copied.__context__) == (None, None, None)
    assert copied.__suppress_context__ is False, "as of an error that nobody raised"
    assert error.__traceback__ is not None, "the original is as it was"
    assert error.__cause__ is not None


class Odd(BaseException):
    """One that is no Exception."""


def test_what_is_no_exception_is_copied_too() -> None:
    copied = snapshot_exception(caught(Odd("a", 1)))
    assert (type(copied), copied.args, copied.__traceback__) == (Odd, ("a", 1), None)


def test_attributes_are_kept() -> None:
    error: Any = ValueError("disk full")
    error.node = "node 3"
    copied: Any = snapshot_exception(error)
    assert copied.node == "node 3"


def test_notes_are_kept() -> None:
    error = ValueError("boom")
    error.add_note("on node 3")
    assert snapshot_exception(error).__notes__ == ["on node 3"]


def test_a_group_is_copied_with_its_members() -> None:
    inner = caught(ValueError("boom"))
    error = caught(
        BaseExceptionGroup("several", [BaseExceptionGroup("deep", [inner]), KeyError(1)])
    )
    error.add_note("note")
    copied = snapshot_exception(error)
    assert repr(copied) == repr(error)
    assert copied.__notes__ == ["note"]
    group: Any = copied
    (deep,) = group.exceptions[0].exceptions
    assert deep is not inner
    assert deep.__traceback__ is None


class NeedsMore(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


class Formats(Exception):
    def __init__(self, path: str) -> None:
        super().__init__(f"cannot open {path}")
        self.path = path


class CopiesAsItself(Exception):
    def __copy__(self) -> Self:
        return self


class CopiesAsAnother(Exception):
    def __copy__(self) -> Exception:
        return ValueError("other")


class ExitsOnCopy(Exception):
    def __copy__(self) -> NoReturn:
        raise SystemExit


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        NeedsMore(1, 2),
        Formats("/dev/x"),
        CopiesAsItself("x"),
        CopiesAsAnother("x"),
        ExitsOnCopy("x"),
        Frozen(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_with_copy_methods_of_its_own_is_copied_without_them(error: Exception) -> None:
    """Formatting the message in ``__init__`` is the most common shape of all."""
    copied = snapshot_exception(error)
    assert copied is not error
    assert type(copied) is type(error)
    assert (copied.args, str(copied), vars(copied)) == (error.args, str(error), vars(error))
    assert copied.__traceback__ is None


class OddGroup(ExceptionGroup[Exception]):
    def derive(self, excs: Any) -> NoReturn:
        raise ValueError("no")


class ListsAsGroup(ExceptionGroup[Exception]):
    """Its `derive` gives a plain group, as the default does."""


class NeedsMoreToOpen(OSError):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


class SpeaksOfWhatIsLost(Exception):
    __slots__ = ("lost",)

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.lost = two

    def __str__(self) -> str:
        return f"lost {self.lost}"


class Unspeakable(Exception):
    def __copy__(self) -> NoReturn:
        raise ValueError

    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OddGroup("odd", [ValueError()]), "OddGroup: odd (1 sub-exception)"),
        (ListsAsGroup("odd", [ValueError()]), "ListsAsGroup: odd (1 sub-exception)"),
        (NeedsMoreToOpen(1, 2), "NeedsMoreToOpen: 1 2"),
        (SpeaksOfWhatIsLost(1, 2), "SpeaksOfWhatIsLost: lost 2"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_copied_is_recorded_by_type_and_text(error: Exception, text: str) -> None:
    copied = snapshot_exception(error)
    assert isinstance(copied, RecordedError)
    assert copied.type_name == type(error).__qualname__
    assert copied.text == text


def test_an_error_whose_text_cannot_be_had_is_copied() -> None:
    copied = snapshot_exception(Unspeakable())
    assert type(copied) is Unspeakable


@pytest.fixture
def no_kind_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: which kinds are plain is asked once."""
    known: weakref.WeakKeyDictionary[type[BaseException], bool] = weakref.WeakKeyDictionary()
    monkeypatch.setattr(_errors, "_plain_types", known)


def kind_of(*bases: type[Any], **contents: Any) -> type[BaseException]:
    kind: Any = type("Fresh", bases, contents)
    return cast("type[BaseException]", kind)


class Meta(type):
    """A type of types with ways of its own, perhaps."""


class CopiesNothing:
    """No error, but a base of one, behind `Exception`."""

    def __copy__(self) -> Self:
        return self


def speak(*_: object) -> str:
    return "text"


PLAIN = [
    ValueError,
    kind_of(Exception),
    kind_of(kind_of(KeyError)),
    kind_of(RuntimeError, limit=3, __str__=speak, __slots__=()),
    OSError,
    kind_of(BaseException),
    kind_of(OSError),
    kind_of(ValueError, OSError),
]
NOT_PLAIN = [
    kind_of(Exception, CopiesNothing),
    kind_of(Exception, __slots__=("code",)),
    kind_of(kind_of(Exception, __slots__=("code",))),
    kind_of(kind_of(Exception, __init__=Exception.__init__)),
    Meta("Fresh", (Exception,), {}),
    *[
        kind_of(Exception, **{way: getattr(Exception, way, None)})
        for way in ("__copy__", "__init__", "__new__", "__reduce__", "__setattr__", "__setstate__")
    ],
]


@pytest.mark.usefixtures("no_kind_is_known")
@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_error_is_copied_without_code_of_its_class(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most errors are plain, and each failure copies one."""

    def copy_of(error: BaseException) -> NoReturn:
        raise AssertionError("not copied as a plain one")

    monkeypatch.setattr(_errors, "_copy", copy_of)
    for _ in range(2):
        error = kind("boom", 1)
        error.node = "node 3"
        copied: Any = snapshot_exception(caught(error))
        assert (type(copied), copied.args, copied.node) == (kind, ("boom", 1), "node 3")
        assert (copied.__traceback__, copied.__cause__) == (None, None)


@pytest.mark.usefixtures("no_kind_is_known")
@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_an_error_that_is_not_plain_is_copied_by_copy(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = ValueError("copy")

    def copy_of(error: BaseException) -> BaseException:
        return copy

    monkeypatch.setattr(_errors, "_copy", copy_of)
    for _ in range(2):
        assert snapshot_exception(kind("boom")) is copy


ERRORS_WITH_STATE = [
    OSError(2, "No such file", "from", None, "to"),
    OSError("just text"),
    OSError(),
    FileNotFoundError(2, "No such file", "x"),
    PermissionError("just text"),
    BlockingIOError(11, "busy", 5),
    TimeoutError(),
    ImportError("no", name="module", path="/x"),
    ModuleNotFoundError("no", name="module"),
    SyntaxError("bad", ("f.py", 3, 7, "x = = 1", 3, 8)),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
    UnicodeEncodeError("ascii", "x", 0, 1, "bad"),
    StopIteration(5),
    SystemExit(3),
    KeyError("a"),
    AttributeError("no", name="x", obj=3),
    NameError("no", name="x"),
    MemoryError("no"),
    kind_of(FileExistsError)(17, "exists", "x"),
]


def state(error: BaseException) -> dict[str, Any]:
    """Return all attributes but methods, also those that are neither in `args` nor `vars`."""
    named = {name: getattr(error, name, None) for name in dir(error)}
    return {name: value for name, value in named.items() if not callable(value)}


@pytest.mark.parametrize("error", ERRORS_WITH_STATE, ids=lambda error: type(error).__name__)
def test_a_built_in_error_keeps_what_copy_keeps(error: BaseException) -> None:
    """For example the file names of an `OSError`, which are not all in its `args`."""
    error.add_note("on node 3")
    copied = snapshot_exception(error)
    assert type(copied) is type(error)
    assert state(copied) == state(copy.copy(error))
    assert str(copied) == str(error)


def test_an_error_whose_args_were_assigned_is_copied_or_recorded() -> None:
    """Its class would make another error of these `args`, or raise."""
    other = OSError("text")
    other.args = (2, "No such file")  # of these, OSError() makes a FileNotFoundError
    too_few = UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")
    too_few.args = ("text",)
    for error in (other, too_few):
        copied = snapshot_exception(error)
        assert isinstance(copied, RecordedError)
        assert copied.type_name == type(error).__name__


def test_an_error_with_a_read_only_property_is_copied() -> None:
    error = kind_of(Exception, node=property(speak))("boom")
    vars(error)["node"] = "node 3"
    copied = snapshot_exception(error)
    assert type(copied) is type(error)
    assert vars(copied) == {"node": "node 3"}


def test_a_snapshot_of_a_plain_error_shares_the_tuple_of_its_arguments() -> None:
    """A map may keep the failures of a million names."""
    for error in (ValueError("boom"), OSError("boom"), kind_of(OSError)("boom")):
        assert snapshot_exception(error).args is error.args


def test_a_snapshot_keeps_no_local_alive() -> None:
    class Local:
        pass

    def fail() -> weakref.ref[Local]:
        local = Local()
        error = caught(ValueError("boom"))
        kept.append(snapshot_exception(error))
        return weakref.ref(local)

    kept: list[BaseException] = []
    reference = fail()
    gc.collect()
    assert reference() is None


class NoHash(type):
    """The type of error classes that have no hash, as it says when they are equal."""

    def __eq__(cls, other: object) -> bool:
        return cls is other


class OfItsOwnKindError(Exception, metaclass=NoHash):
    pass


def test_an_error_whose_class_has_no_hash_is_copied() -> None:
    error = OfItsOwnKindError("a", 1)
    copied = snapshot_exception(error)
    assert copied is not error
    assert type(copied) is OfItsOwnKindError
    assert copied.args == ("a", 1)


# Groups


def members(error: Any) -> object:
    return error.exceptions


def test_a_bare_error_is_of_the_kind_or_not() -> None:
    error, interrupt = ValueError(), KeyboardInterrupt()
    assert split_exception(error, Exception) == (error, None)
    assert split_exception(interrupt, Exception) == (None, interrupt)
    assert split_exception(interrupt, (Exception, KeyboardInterrupt)) == (interrupt, None)


def test_a_group_is_split_into_groups() -> None:
    error, interrupt = ValueError(), KeyboardInterrupt()
    own, rest = split_exception(BaseExceptionGroup("both", [error, interrupt]), Exception)
    assert type(own) is ExceptionGroup
    assert members(own) == (error,)
    assert type(rest) is BaseExceptionGroup
    assert members(rest) == (interrupt,)


def test_a_group_that_is_of_the_kind_as_a_whole_is_not_split() -> None:
    error = ExceptionGroup("two", [ValueError(), KeyError()])
    assert split_exception(error, Exception) == (error, None)
    interrupts = BaseExceptionGroup("one", [KeyboardInterrupt()])
    own, rest = split_exception(interrupts, Exception)
    assert own is None
    assert members(rest) == members(interrupts)


def test_a_group_that_cannot_be_split_is_all_rest() -> None:
    class Odd(BaseExceptionGroup[BaseException]):
        def derive(self, excs: Sequence[Any], /) -> Any:
            raise ZeroDivisionError

    odd = Odd("odd", [ValueError(), KeyboardInterrupt()])
    assert split_exception(odd, Exception) == (None, odd)


def test_a_group_that_leaves_a_block_shows_its_members_and_can_be_pickled() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        raise_combined([ValueError("a"), KeyboardInterrupt()], None)
    assert repr(caught.value) == (
        "BaseExceptionGroup('exceptions from a task map', [ValueError('a'), KeyboardInterrupt()])"
    )
    assert len(pickle.loads(pickle.dumps(caught.value)).exceptions) == 2
