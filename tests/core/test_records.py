"""What is remembered of a failure holds no frame, and not for ever."""

import dataclasses
import gc
import math
import subprocess
import weakref
from typing import Any, NoReturn, Self

import pytest

from namedtasks import RecordedError
from namedtasks._core import stand_ins
from namedtasks._core.records import Record, Records, failure_of
from namedtasks._core.stand_ins import stand_in


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
def test_a_stand_in_is_the_same_error_without_its_past(error: Exception) -> None:
    copied = stand_in(caught(error))
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
    copied = stand_in(caught(Odd("a", 1)))
    assert (type(copied), copied.args, copied.__traceback__) == (Odd, ("a", 1), None)


def test_attributes_are_kept() -> None:
    error: Any = ValueError("disk full")
    error.node = "node 3"
    copied: Any = stand_in(error)
    assert copied.node == "node 3"


def test_notes_are_kept() -> None:
    error = ValueError("boom")
    error.add_note("on node 3")
    assert stand_in(error).__notes__ == ["on node 3"]


def test_a_group_is_copied_with_its_members() -> None:
    inner = caught(ValueError("boom"))
    error = caught(
        BaseExceptionGroup("several", [BaseExceptionGroup("deep", [inner]), KeyError(1)])
    )
    error.add_note("note")
    copied = stand_in(error)
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
def test_an_error_with_ways_of_its_own_is_copied_past_them(error: Exception) -> None:
    """Formatting the message in ``__init__`` is the most common shape of all."""
    copied = stand_in(error)
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
    copied = stand_in(error)
    assert isinstance(copied, RecordedError)
    assert copied.type_name == type(error).__qualname__
    assert copied.text == text


def test_an_error_that_cannot_even_be_spoken_of_is_copied() -> None:
    copied = stand_in(Unspeakable())
    assert type(copied) is Unspeakable


@pytest.fixture
def no_kind_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: which kinds are plain is asked once."""
    known: weakref.WeakKeyDictionary[type[BaseException], bool] = weakref.WeakKeyDictionary()
    monkeypatch.setattr(stand_ins, "_plain_kinds", known)


def kind_of(*bases: type[BaseException], **contents: Any) -> type[BaseException]:
    kind: type[BaseException] = type("Fresh", bases, contents)
    return kind


class Meta(type):
    """A type of types with ways of its own, perhaps."""


def speak(*_: object) -> str:
    return "text"


PLAIN = [
    ValueError,
    kind_of(Exception),
    kind_of(kind_of(KeyError)),
    kind_of(RuntimeError, limit=3, __str__=speak, __slots__=()),
]
NOT_PLAIN = [
    OSError,
    kind_of(BaseException),
    kind_of(OSError),
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
def test_an_error_that_has_but_arguments_and_attributes_is_copied_the_short_way(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most errors are so, and each failure copies one: none of their code is run for that."""

    def copy_of(error: BaseException) -> NoReturn:
        raise AssertionError("the long way")

    monkeypatch.setattr(stand_ins, "_copy_of", copy_of)
    for _ in range(2):
        error = kind("boom", 1)
        error.node = "node 3"
        copied: Any = stand_in(caught(error))
        assert (type(copied), copied.args, copied.node) == (kind, ("boom", 1), "node 3")
        assert (copied.__traceback__, copied.__cause__) == (None, None)


@pytest.mark.usefixtures("no_kind_is_known")
@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_and_one_that_has_more_the_long_way(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = ValueError("copy")

    def copy_of(error: BaseException) -> BaseException:
        return copy

    monkeypatch.setattr(stand_ins, "_copy_of", copy_of)
    for _ in range(2):
        assert stand_in(kind("boom")) is copy


def test_a_stand_in_keeps_no_local_alive() -> None:
    class Local:
        pass

    def fail() -> weakref.ref[Local]:
        local = Local()
        error = caught(ValueError("boom"))
        kept.append(stand_in(error))
        return weakref.ref(local)

    kept: list[BaseException] = []
    reference = fail()
    gc.collect()
    assert reference() is None


def record(
    name: Any, retry_at: float, operation: str | None = None, error: BaseException | None = None
) -> Record:
    made = Record(name, operation)
    made.failures = 1
    made.retry_at = retry_at
    made.error = error or ValueError(name)
    return made


def test_a_record_is_there_until_exactly_its_retention() -> None:
    records = Records(10.0)
    one = record("a", 5.0)
    records.put(one)
    assert records.get("a", None, 14.999) is one
    assert records.get("a", None, 15.0) is None


def test_a_given_up_record_never_lapses_and_is_counted_apart() -> None:
    records = Records(0.0)
    one = record("a", math.inf)
    records.put(one)
    records.sweep(1e30)
    assert records.get("a", None, 1e30) is one
    assert (records.waiting, records.gave_up) == (0, 1)
    records.drop(one)
    assert (records.waiting, records.gave_up) == (0, 0)


def test_each_name_that_gave_up_is_counted() -> None:
    records = Records(0.0)
    ones = [record(name, math.inf) for name in "abc"]
    for one in ones:
        records.put(one)
    assert records.gave_up == 3
    records.take(ones[0])
    assert records.gave_up == 2


def test_a_failure_tells_all_that_is_on_record() -> None:
    one = record("a", 5.0, "mount")
    failure = failure_of(one)
    assert failure is not None
    assert (failure.name, failure.operation) == ("a", "mount")
    assert (failure.failures, failure.retry_at, failure.gave_up) == (1, 5.0, False)
    assert failure.error is one.error


def test_taking_a_record_asks_nothing_of_the_other_names() -> None:
    """Its price does not grow with their number."""

    class Asked:
        asked = 0

        def __hash__(self) -> int:
            self.asked += 1
            return 1

    records = Records(10.0)
    name = Asked()
    one = record("a", 5.0)
    records.put(record(name, 5.0))
    records.put(one)
    before = name.asked
    records.take(one)
    assert name.asked == before


def test_sweeps_come_by_every_record() -> None:
    """Whatever stands between: what has lapsed is found after a look for each that there is."""
    records = Records(10.0)
    for number in range(10):
        records.put(record(str(number), 1.0 if number % 2 else 1e6))
    for _ in range(10):
        records.sweep(11.0)
    assert records.waiting == 5


def test_sweeps_come_by_every_record_also_if_none_ever_lapses() -> None:
    """Those that were dropped are let go of."""
    records = Records(math.inf)
    ones = [record(str(number), 1.0) for number in range(10)]
    for one in ones:
        records.put(one)
    for one in ones[1::2]:
        records.drop(one)
    for _ in range(10):
        records.sweep(11.0)
    assert len(records.order) == 5


def test_records_are_kept_apart_by_operation() -> None:
    records = Records(10.0)
    plain, mount = record("a", 5.0), record("a", 5.0, "mount")
    records.put(plain)
    records.put(mount)
    assert records.get("a", None, 0.0) is plain
    assert records.get("a", "mount", 0.0) is mount
    assert records.get("a", "umount", 0.0) is None
    assert records.of("a", 0.0) == [plain, mount]
    records.drop(plain)
    records.drop(mount)
    assert records.tables == {}, "an operation that nobody waits with takes no room"


def test_a_sweep_takes_what_has_lapsed_and_passes_over_a_long_wait() -> None:
    """One name's long wait does not keep the memory of all that failed after it."""
    records = Records(10.0)
    records.put(record("long", 1e6))
    for number in range(100):
        records.put(record(str(number), 1.0))
    for _ in range(40):
        records.sweep(11.0)
    assert records.waiting == 1
    assert len(records.order) == 1


def test_a_sweep_looks_at_a_bounded_number() -> None:
    records = Records(0.0)
    for number in range(100):
        records.put(record(str(number), 1.0))
    records.sweep(1.0)
    assert records.waiting == 96


def test_dropped_records_do_not_pile_up() -> None:
    """A name that fails and succeeds for ever keeps at most a few dead records."""
    records = Records(10.0)
    records.put(record("long", 1e6))
    for _ in range(1000):
        one = record("a", 5.0)
        records.put(one)
        records.sweep(0.0)
        records.drop(one)
        assert one.error is None
        records.sweep(0.0)
    assert len(records.order) < 10


def test_a_record_taken_and_put_back_is_listed_once() -> None:
    records = Records(10.0)
    one = record("a", 5.0)
    for _ in range(5):
        records.put(one)
        records.take(one)
    records.put(one)
    assert len(records.order) == 1
    assert records.waiting == 1


def test_a_listed_record_that_was_given_up_leaves_the_list() -> None:
    records = Records(10.0)
    one = record("a", 5.0)
    records.put(one)
    records.take(one)
    one.retry_at = math.inf
    records.put(one)
    records.sweep(0.0)
    assert len(records.order) == 0
    assert records.next_lapse(0.0) is None
    records.take(one)
    one.retry_at = 5.0
    records.put(one)
    assert records.next_lapse(0.0) == 15.0


def test_next_lapse_says_when_to_look_again() -> None:
    records = Records(10.0)
    assert records.next_lapse(0.0) is None
    records.put(record("a", 5.0))
    records.put(record("b", 7.0))
    assert records.next_lapse(0.0) == 15.0
    assert records.next_lapse(15.0) == 17.0
    assert records.next_lapse(17.0) is None


def test_next_lapse_takes_many_in_portions() -> None:
    records = Records(0.0)
    for number in range(2500):
        records.put(record(str(number), 1.0))
    looks = [records.next_lapse(1.0) for _ in range(3)]
    assert looks == [1.0, 1.0, None]


def test_a_lapsed_record_can_still_be_found() -> None:
    """By who is about to replace it."""
    records = Records(1.0)
    one = record("a", 1.0)
    records.put(one)
    assert records.get("a", None, 2.0) is None
    assert records.find("a", None) is one
    assert records.has_lapsed(one, 2.0)


class NoHash(type):
    """The type of error classes that have no hash, as it says when they are equal."""

    def __eq__(cls, other: object) -> bool:
        return cls is other


class OfItsOwnKindError(Exception, metaclass=NoHash):
    pass


def test_an_error_whose_class_has_no_hash_is_copied() -> None:
    error = OfItsOwnKindError("a", 1)
    copied = stand_in(error)
    assert copied is not error
    assert type(copied) is OfItsOwnKindError
    assert copied.args == ("a", 1)


def test_a_record_whose_name_cannot_be_looked_up_is_let_go() -> None:
    """Nobody could ask for it; and no empty table is left."""
    records = Records(1.0)
    unhashable: Any = []
    record = Record(unhashable, None)
    record.error = ValueError()
    records.put(record)
    assert not record.kept
    error: BaseException | None = record.error
    assert error is None
    assert records.waiting == 0
    assert records.tables == {}
    good = Record("a", None)
    records.put(good)
    records.put(Record(unhashable, None))
    assert records.find("a", None) is good


def test_a_record_takes_the_place_of_one_whose_name_has_become_equal() -> None:
    class Shifty:
        value = 0

        def __hash__(self) -> int:
            return self.value

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Shifty) and self.value == other.value

    records = Records(1.0)
    first, second = Record(Shifty(), None), Record(late := Shifty(), None)
    late.value = 1
    records.put(first)
    late.value = 0
    records.put(second)
    assert (first.kept, second.kept, records.waiting) == (False, True, 1)
    records.sweep(100.0)
    records.sweep(100.0)
    assert (records.tables, records.waiting) == ({}, 0)
