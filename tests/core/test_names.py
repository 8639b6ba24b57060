"""Names that overlap."""

import copy
import pickle
import sys
from typing import Any

import pytest
from hypothesis import given, strategies as st

import namedtasks
from namedtasks import ANY
from namedtasks._core.names import Overlaps, check_name, check_start
from namedtasks._core.runs import Run
from namedtasks._core.slots import Slots

SLOTS: Slots[Run] = Slots(None)
FIELDS = st.sampled_from(["a", "b", None, ANY])
TUPLES = st.lists(FIELDS, min_size=1, max_size=4).map(tuple)


def run(name: Any) -> Run:
    return Run(name, None, 0.0, SLOTS)


def overlap(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(
        a is ANY or b is ANY or a == b for a, b in zip(one, other, strict=True)
    )


def test_any_is_the_one_and_only() -> None:
    assert pickle.loads(pickle.dumps(ANY)) is ANY
    assert copy.deepcopy(("v", ANY))[1] is ANY
    assert repr(("vol-1", ANY)) == "('vol-1', namedtasks.ANY)"
    assert namedtasks.ANY is ANY


@given(st.sets(TUPLES), TUPLES)
def test_the_index_finds_what_a_comparison_of_all_finds(names: Any, asked: Any) -> None:
    overlaps: Overlaps[Run] = Overlaps()
    runs = {name: run(name) for name in names}
    for length in range(1, 5):
        overlaps.cover((ANY,) * length, runs.values())
    found = overlaps.holders(asked, 100)
    assert {one.name for one in found} == {name for name in names if overlap(name, asked)}
    assert len(found) == len(set(found))
    assert len(overlaps.holders(asked, 2)) == min(2, len(found))
    for one in runs.values():
        overlaps.discard(one)
    assert overlaps.is_empty()


def test_only_lengths_in_which_any_was_used_are_covered() -> None:
    overlaps: Overlaps[Run] = Overlaps()
    assert not overlaps.covers(("a", "b"))
    assert not overlaps.wants(("a", "b"))
    assert not overlaps.wants("ab")
    assert overlaps.wants(("a", ANY))
    overlaps.cover(("a", ANY), [run("ab"), run(("a", "b")), run(("a", "b", "c"))])
    assert overlaps.covers(("x", "y"))
    assert not overlaps.covers(("x", "y", "z"))
    assert not overlaps.wants(("a", ANY))
    assert [one.name for one in overlaps.holders((ANY, "b"), 10)] == [("a", "b")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            ANY,
            r"^namedtasks\.ANY is no name: it stands for a field of a tuple, "
            r"as in \('vol-1', ANY\)$",
        ),
        (
            (1, 2, 3, 4, ANY),
            r"^a name with namedtasks\.ANY may have at most 4 fields, "
            r"and \(1, 2, 3, 4, namedtasks\.ANY\) has 5$",
        ),
    ],
)
def test_any_where_it_means_nothing_is_refused(name: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_name(name)


def test_any_inside_of_a_field_is_an_ordinary_value() -> None:
    check_name((("v", ANY), 2, 3, 4, 5))
    check_name((1, 2, 3, ANY))
    check_name("ANY")


class Fickle:
    """A field whose hash changes: nobody should use one, and nothing hangs on it."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __hash__(self) -> int:
        if self.value < 0:
            raise ZeroDivisionError
        return self.value


@pytest.mark.parametrize("value", [7, -1])
def test_a_field_whose_hash_changes_is_found_all_the_same(value: int) -> None:
    overlaps: Overlaps[Run] = Overlaps()
    field = Fickle(1)
    odd, other = run((field, "a")), run(("v", "a"))
    overlaps.cover((ANY, "a"), [odd, other])
    field.value = value
    overlaps.discard(odd)
    assert overlaps.holders((ANY, "a"), 10) == [other]
    overlaps.discard(other)
    assert overlaps.is_empty()


@pytest.mark.parametrize("others", [0, 1])
def test_and_so_it_is_where_other_runs_are_entered_beside_it(others: int) -> None:
    overlaps: Overlaps[Run] = Overlaps()
    field = Fickle(1)
    odd, second, third = run((field, "a")), run(("v", "a")), run(("w", "a"))
    overlaps.cover((ANY, "a"), [odd, second, third])
    overlaps.discard(third)
    if not others:
        overlaps.discard(second)
    field.value = 7
    overlaps.discard(odd)
    assert overlaps.holders((ANY, "a"), 10) == [second][:others]
    assert overlaps.is_empty() == (not others)


def test_memory_goes_back() -> None:
    overlaps: Overlaps[Run] = Overlaps()
    overlaps.cover((ANY, ANY), ())
    runs = [run(("v", number)) for number in range(2000)]
    for one in runs:
        overlaps.add(one)
    full = sys.getsizeof(overlaps._entries)
    for one in runs[:-1]:
        overlaps.discard(one)
    assert sys.getsizeof(overlaps._entries) < full / 8
    assert overlaps.holders(("v", ANY), 10) == [runs[-1]]


def test_a_name_is_entered_once_for_each_subset_of_what_it_says() -> None:
    """A field that is ANY says nothing, and costs nothing."""
    for name, entries in [((ANY, ANY), 1), (("v", ANY), 2), (("v", 1), 4)]:
        overlaps: Overlaps[Run] = Overlaps()
        overlaps.cover((ANY, ANY), [run(name)])
        assert len(overlaps._entries) == entries


def test_any_where_it_means_nothing_is_refused_before_a_start() -> None:
    for name in (ANY, (1, 2, 3, 4, ANY)):
        with pytest.raises(ValueError, match=r"ANY"):
            check_start(name, None)


def test_until_any_is_used_nothing_is_covered() -> None:
    overlaps: Overlaps[Run] = Overlaps()
    assert overlaps.in_use is False
    overlaps.cover((ANY, 1), ())
    assert overlaps.in_use is True


def test_no_more_holders_are_told_than_were_asked_for() -> None:
    overlaps: Overlaps[Run] = Overlaps()
    runs = [run(("v", number)) for number in range(5)]
    overlaps.cover(("v", ANY), runs)
    assert overlaps.holders(("v", ANY), 2) == runs[:2]


def test_a_run_is_taken_out_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at all entries is for names whose hash has changed."""
    monkeypatch.setattr(Overlaps, "_rebuild", None)
    overlaps: Overlaps[Run] = Overlaps()
    runs = [run(("v", number)) for number in range(3)] + [run(("v", ANY))]
    overlaps.cover(("v", ANY), runs)
    for one in runs:
        overlaps.discard(one)
    assert overlaps.is_empty()


@pytest.mark.parametrize("value", [7, -1])
def test_of_two_runs_with_a_field_whose_hash_changes_one_can_go(value: int) -> None:
    """The other one is found as before, if there is a hash to find it by."""
    overlaps: Overlaps[Run] = Overlaps()
    field = Fickle(1)
    first, second = run((field, "a")), run((field, "b"))
    overlaps.cover((ANY, "a"), [first, second])
    field.value = value
    overlaps.discard(first)
    if value >= 0 and sys.version_info < (3, 14):  # newer tuples keep the hash that they had
        assert overlaps.holders((field, ANY), 10) == [second]
    assert overlaps.holders((ANY, "a"), 10) == []
    assert overlaps.holders((ANY, "b"), 10) == [second]
    overlaps.discard(second)
    assert overlaps.is_empty()


@pytest.mark.parametrize(("runs", "copied_at"), [(39, 4), (31, None)])
def test_memory_goes_back_at_an_eighth_of_the_peak(runs: int, copied_at: int | None) -> None:
    """80 entries are copied when 10 are left; 64 are too few to be worth it."""
    overlaps: Overlaps[Run] = Overlaps()
    entered = [run(("v", number)) for number in range(runs)]
    overlaps.cover((ANY, ANY), entered)
    entries = overlaps._entries
    assert len(entries) == 2 + 2 * runs
    copied: list[int] = []
    while entered:
        overlaps.discard(entered.pop())
        if overlaps._entries is not entries and not copied:
            copied.append(len(entered))
    assert copied == ([] if copied_at is None else [copied_at])


def test_who_is_not_entered_is_not_taken_out() -> None:
    """Nor counted: the others are found as before."""
    overlaps: Overlaps[Run] = Overlaps()
    entered = run(("v", "a"))
    overlaps.cover(("v", ANY), [entered])
    overlaps.discard(run(("v", "a")))
    overlaps.discard(run(("w", "b")))
    assert overlaps.holders(("v", ANY), 10) == [entered]
    overlaps.discard(entered)
    overlaps.discard(entered)
    assert overlaps.is_empty()


def test_nor_where_there_are_several() -> None:
    overlaps: Overlaps[Run] = Overlaps()
    first, second = run(("v", "a")), run(("v", "b"))
    overlaps.cover(("v", ANY), [first, second])
    overlaps.discard(run(("w", "c")))
    overlaps.discard(first)
    assert overlaps.holders(("v", ANY), 10) == [second]


class Choosy(Fickle):
    """Not to be compared with another one of its hash."""

    def __eq__(self, other: object) -> bool:
        if self is not other:
            raise ValueError("cannot compare")
        return True

    __hash__ = Fickle.__hash__


def test_a_run_is_entered_whole_or_not_at_all() -> None:
    overlaps: Overlaps[Run] = Overlaps()
    entered, late = run(("v", Choosy(1))), run(("w", Choosy(1)))
    overlaps.cover(("v", ANY), [entered])
    with pytest.raises(ValueError, match="cannot compare"):
        overlaps.add(late)
    assert overlaps.holders(("w", ANY), 10) == []
    assert overlaps.holders(("v", ANY), 10) == [entered]
    overlaps.discard(entered)
    assert overlaps.is_empty()
