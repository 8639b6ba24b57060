"""Names that overlap."""

import copy
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import namedtasks
from namedtasks._names import (
    ANY,
    OverlapIndex,
    check_name,
    check_start,
    has_any,
    is_tuple,
    names_overlap,
)

TUPLES = st.lists(st.sampled_from(["a", "b", None, ANY]), max_size=4).map(tuple)


@attrs.frozen(eq=False)
class Run:
    """A run of a name."""

    name: Any


def make_index(name: Any, *runs: Run) -> OverlapIndex[Run]:
    """Return an index that has learned *name* and has *runs*."""
    index: OverlapIndex[Run] = OverlapIndex()
    index.learn(name, runs)
    return index


def allocated(index: OverlapIndex[Run]) -> int:
    """Return the bytes of the largest dict of the index."""
    sizes: list[int] = []
    for tables in index._searched.values():
        for _, table in tables:
            sizes.append(sys.getsizeof(table.entries))
            sizes += [
                sys.getsizeof(entry.entries)
                for entry in table.entries.values()
                if not isinstance(entry, Run)
            ]
    return max(sizes)


def test_copies_and_pickles_of_any_are_the_same_object() -> None:
    assert pickle.loads(pickle.dumps(ANY)) is ANY
    assert copy.deepcopy(("v", ANY))[1] is ANY
    assert repr(("vol-1", ANY)) == "('vol-1', namedtasks.ANY)"
    assert namedtasks.ANY is ANY


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
def test_any_is_refused_where_it_has_no_meaning(name: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_name(name)
    with pytest.raises(ValueError, match=message):
        check_start(name, None)


def test_a_start_under_a_name_without_any_is_accepted() -> None:
    check_start("a", None)
    check_start("a", "mount")
    check_start((1, 2, 3, 4, 5), None)


def test_any_inside_a_field_is_an_ordinary_value() -> None:
    check_name((("v", ANY), 2, 3, 4, 5))
    check_name((1, 2, 3, ANY))
    check_name("ANY")
    assert not has_any((("v", ANY),))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", ("a",), False),
        (("a",), "a", False),
        (("a", 1), ("a", 1), True),
        (("a", 1), ("a", 2), False),
        (("a", ANY), ("a", 2), True),
        (("a", ANY), (ANY, 2), True),
        (("a", ANY), ("b", ANY), False),
        (("a", ANY), ("a",), False),
    ],
)
def test_tuples_overlap_if_each_field_does(one: Any, other: Any, expected: bool) -> None:
    assert names_overlap(one, other) is expected
    assert names_overlap(other, one) is expected


class IndexMachine(RuleBasedStateMachine):
    """The index finds what a comparison with all names finds, in any order of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.index: OverlapIndex[Run] = OverlapIndex()
        self.runs: list[Run] = []

    @rule(name=TUPLES | st.just("a"))
    def add(self, name: Any) -> None:
        run = Run(name)
        self.runs.append(run)
        if is_tuple(name) and has_any(name) and not self.index.knows(name):
            self.index.learn(name, self.runs)
        self.index.add(run)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def add_again(self, data: st.DataObject) -> None:
        self.index.add(data.draw(st.sampled_from(self.runs)))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.runs))
        self.runs.remove(run)
        self.index.discard(run)
        self.index.discard(run)

    @rule(name=TUPLES | st.just("a"))
    def discard_a_run_that_was_never_added(self, name: Any) -> None:
        self.index.discard(Run(name))

    @rule(name=TUPLES, most=st.integers(1, 3) | st.just(100))
    def find(self, name: Any, most: int) -> None:
        if not self.index.knows(name):
            self.index.learn(name, self.runs)
        found = self.index.find(name, most)
        expected = {run for run in self.runs if names_overlap(run.name, name)}
        assert len(found) == min(most, len(expected))
        assert len(found) == len(set(found))
        assert expected.issuperset(found)

    def teardown(self) -> None:
        for run in self.runs:
            self.index.discard(run)
        for tables in self.index._searched.values():
            assert not any(table.entries for _, table in tables)


TestIndexMachine = IndexMachine.TestCase


def test_the_index_knows_the_shapes_that_it_has_learned() -> None:
    index: OverlapIndex[Run] = OverlapIndex()
    assert not index.in_use
    assert not index.knows(("a", "b"))
    index.learn(("a", ANY), ())
    assert index.in_use
    assert index.knows(("x", ANY))
    assert index.knows(("x", "y"))
    assert not index.knows((ANY, "y"))
    assert not index.knows(("x", "y", "z"))
    with pytest.raises(KeyError):
        index.find((ANY, "y"), 10)


def test_runs_of_other_lengths_and_other_names_are_not_entered() -> None:
    run = Run(("a", "b"))
    index = make_index(("a", ANY), Run("ab"), run, Run(("a", "b", "c")))
    index.add(Run("cd"))
    index.add(Run(("a",)))
    assert index.find(("a", ANY), 10) == [run]


def test_a_name_of_many_fields_is_found_without_any() -> None:
    index = make_index(("a", ANY))
    run = Run(tuple("abcdef"))
    index.learn(run.name, [run])
    assert index.find(run.name, 10) == [run]
    assert index.find(tuple("abcdeg"), 10) == []


def test_fields_are_compared_and_not_the_tuples() -> None:
    """A tuple with an equality of its own overlaps the same names as a plain one."""

    class Odd(tuple[str, ...]):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return False

        def __hash__(self) -> int:
            return super().__hash__()

    run = Run(Odd(("v", "a")))
    index = make_index(("v", ANY), run)
    assert index.find(("v", "a"), 10) == [run]
    index.discard(run)
    assert index.find(("v", ANY), 10) == []


def test_no_more_runs_are_found_than_asked_for_and_the_oldest_first() -> None:
    runs = [Run(("v", number)) for number in range(5)]
    index = make_index(("v", ANY), *runs)
    assert index.find(("v", ANY), 2) == runs[:2]
    index.discard(runs[0])
    assert index.find(("v", ANY), 2) == runs[1:3]


def test_several_runs_of_a_name_are_found_until_each_has_ended() -> None:
    first, second = Run(("v", "a")), Run(("v", "a"))
    index = make_index(("v", ANY), first, second)
    assert index.find(("v", "a"), 10) == [first, second]
    index.discard(first)
    assert index.find(("v", "a"), 10) == [second]
    assert index.find(("v", ANY), 10) == [second]
    index.discard(second)
    assert index.find(("v", "a"), 10) == []


def test_a_run_that_was_not_added_is_not_removed() -> None:
    entered = Run(("v", "a"))
    index = make_index(("v", ANY), entered)
    index.discard(Run(("v", "a")))
    index.discard(Run(("v", "b")))
    index.discard(Run(("w", "b")))
    assert index.find(("v", ANY), 10) == [entered]


@pytest.mark.parametrize("volumes", [1, 500])
def test_memory_is_given_back(volumes: int) -> None:
    """Of one table with many entries, and of one entry with many runs."""
    index = make_index(("v", ANY))
    runs = [Run((f"v-{number % volumes}", number)) for number in range(2000)]
    for run in runs:
        index.add(run)
    full = allocated(index)
    for run in runs[:-1]:
        index.discard(run)
    assert allocated(index) < full / 16
    assert index.find((runs[-1].name[0], ANY), 10) == [runs[-1]]


@pytest.mark.parametrize(("peak", "copied_at"), [(129, [1]), (700, [65, 1]), (64, [])])
def test_memory_is_given_back_under_an_eighth_of_the_peak(peak: int, copied_at: list[int]) -> None:
    runs = [Run((number, "a")) for number in range(peak)]
    index = make_index((1, ANY), *runs)
    table = max((table for _, table in index._searched[2]), key=lambda table: len(table.entries))
    seen: list[int] = []
    while runs:
        before = table.entries
        index.discard(runs.pop())
        if table.entries is not before:
            seen.append(len(runs))
    assert seen == copied_at


def test_a_run_that_stays_is_found_while_the_index_learns() -> None:
    """Another thread may look at any moment; here the iteration over the runs does."""
    stays = Run(("v", "stays"))
    index = make_index(("v", ANY), stays)

    def look() -> Iterator[Run]:
        for _ in range(2):
            assert index.find(stays.name, 10) == [stays]
            assert index.find(("v", ANY), 10) == [stays]
            assert not index.knows((ANY, "stays"))
            yield stays

    index.learn((ANY, "stays"), look())
    for name in [stays.name, ("v", ANY), (ANY, "stays")]:
        assert index.find(name, 10) == [stays]
