"""A dict that gives memory back, whatever its keys do."""

import sys

import pytest

from namedtasks._core.table import Table


class Shifty:
    """A key whose hash can be changed, or made to raise: what nobody should use."""

    def __init__(self, value: int) -> None:
        self.value: int | None = value

    def __hash__(self) -> int:
        if self.value is None:
            raise ValueError("no hash")
        return self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shifty) and self.value == other.value


def test_a_table_shrinks_as_entries_go() -> None:
    """After a million names nothing keeps their buckets: it is as small as a new one."""
    table: Table[int, object] = Table()
    values = [object() for _ in range(100_000)]
    for number, value in enumerate(values):
        table[number] = value
    full = sys.getsizeof(table)
    for number, value in enumerate(values):
        table.discard(number, value)
        left = len(table)
        if left == 10_000:
            assert sys.getsizeof(table) < full / 4
    assert len(table) == 0
    assert sys.getsizeof(table) <= 10_000


def test_what_is_left_after_shrinking_is_all_there() -> None:
    table: Table[int, str] = Table()
    values = {number: str(number) for number in range(1000)}
    table.update(values)
    for number in range(990):
        table.discard(number, values[number])
    assert table == {number: str(number) for number in range(990, 1000)}


def test_an_entry_whose_key_changed_is_found_by_its_value() -> None:
    table: Table[object, object] = Table()
    key, value, other = Shifty(1), object(), object()
    table[key] = value
    table["other"] = other
    key.value = 2
    table.discard(key, value)
    assert dict(table) == {"other": other}


def test_an_entry_whose_key_cannot_be_hashed_any_more_is_found_by_its_value() -> None:
    table: Table[object, object] = Table()
    broken, value = Shifty(1), object()
    also_broken, kept = Shifty(2), object()
    table[broken] = value
    table[also_broken] = kept
    broken.value = also_broken.value = None
    table.discard(broken, value)
    assert list(table.values()) == [kept]
    table.discard(also_broken, kept)
    assert len(table) == 0


def test_entries_whose_keys_became_equal_stay_two() -> None:
    table: Table[object, object] = Table()
    first, second, third = Shifty(1), Shifty(2), Shifty(3)
    values = [object(), object(), object()]
    for key, value in zip((first, second, third), values, strict=True):
        table[key] = value
    first.value = second.value = 7
    third.value = 8
    table.discard(third, values[2])
    assert set(map(id, table.values())) == set(map(id, values[:2]))
    table.discard(first, values[0])
    table.discard(second, values[1])
    assert len(table) == 0


def test_several_keys_that_cannot_be_hashed_any_more_stay_several() -> None:
    table: Table[object, object] = Table()
    keys, values = [Shifty(number) for number in range(3)], [object() for _ in range(3)]
    table.update(zip(keys, values, strict=True))
    for key in keys:
        key.value = None
    table.discard(keys[0], values[0])
    assert set(map(id, table.values())) == set(map(id, values[1:]))


def filled(size: int) -> Table[int, int]:
    table: Table[int, int] = Table()
    table.update((number, number) for number in range(size))
    table.consider()
    return table


def empty(table: Table[int, int], *, until: int) -> None:
    while len(table) > until:
        table.discard(*next(reversed(table.items())))


def test_it_is_rebuilt_at_an_eighth_of_its_peak_and_not_before() -> None:
    table = filled(1024)
    empty(table, until=129)
    assert table._peak == 1024
    empty(table, until=128)
    assert table._peak == 128


def test_it_is_looked_at_when_its_size_is_a_multiple_of_64() -> None:
    table = filled(1000)
    empty(table, until=65)
    assert table._peak == 1000
    empty(table, until=64)
    assert table._peak == 64


def test_a_small_one_is_never_rebuilt() -> None:
    table = filled(64)
    empty(table, until=0)
    assert table._peak == 64


class Touchy:
    """A key of the same hash as all others, whose ``__eq__`` raises the *at*-th time."""

    calls = 0
    at: int | None = None

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        Touchy.calls += 1
        if Touchy.calls == Touchy.at:
            raise KeyboardInterrupt
        return isinstance(other, Touchy) and self.number == other.number


@pytest.mark.parametrize("at", range(1, 17))
def test_no_entry_is_lost_when_a_key_raises_while_the_table_is_rebuilt(at: int) -> None:
    Touchy.at = None
    table: Table[object, object] = Table()
    values = [object() for _ in range(6)]
    for number, value in enumerate(values):
        table[Touchy(number)] = value
    Touchy.calls, Touchy.at = 0, at
    table.discard("not there", object())
    Touchy.at = None
    assert sorted(map(id, table.values())) == sorted(map(id, values))


def test_an_entry_is_kept_whatever_has_become_of_its_key() -> None:
    table: Table[object, str] = Table()
    table["a"] = "first"
    table.keep("a", "second")
    table.keep([], "third")
    table.keep("b", "fourth")
    assert sorted(table.values()) == ["first", "fourth", "second", "third"]
    assert (table["a"], table["b"]) == ("first", "fourth")


def test_a_key_that_raises_as_it_is_taken_out_is_out() -> None:
    """The look succeeds, and the deletion asks once more."""
    Touchy.at = None
    table: Table[object, object] = Table()
    value = object()
    table[Touchy(1)] = value
    Touchy.calls, Touchy.at = 0, 2
    table.discard(Touchy(1), value)
    Touchy.at = None
    assert len(table) == 0
