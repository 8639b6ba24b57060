"""What came out of a body is parted into its own failure and the rest."""

import pickle
from collections.abc import Sequence
from typing import Any

import pytest

from namedtasks._core.groups import let_out, parted


def members(error: Any) -> object:
    return error.exceptions


def test_a_bare_error_is_of_the_kind_or_not() -> None:
    error, interrupt = ValueError(), KeyboardInterrupt()
    assert parted(error, Exception) == (error, None)
    assert parted(interrupt, Exception) == (None, interrupt)
    assert parted(interrupt, (Exception, KeyboardInterrupt)) == (interrupt, None)


def test_a_group_is_parted_into_groups() -> None:
    error, interrupt = ValueError(), KeyboardInterrupt()
    own, rest = parted(BaseExceptionGroup("both", [error, interrupt]), Exception)
    assert type(own) is ExceptionGroup
    assert members(own) == (error,)
    assert type(rest) is BaseExceptionGroup
    assert members(rest) == (interrupt,)


def test_a_group_that_is_of_the_kind_as_a_whole_stays_whole() -> None:
    error = ExceptionGroup("two", [ValueError(), KeyError()])
    assert parted(error, Exception) == (error, None)
    interrupts = BaseExceptionGroup("one", [KeyboardInterrupt()])
    own, rest = parted(interrupts, Exception)
    assert own is None
    assert members(rest) == members(interrupts)


def test_a_group_that_cannot_be_split_is_none_of_its_bodys_affair() -> None:
    class Odd(BaseExceptionGroup[BaseException]):
        def derive(self, excs: Sequence[Any], /) -> Any:
            raise ZeroDivisionError

    odd = Odd("odd", [ValueError(), KeyboardInterrupt()])
    assert parted(odd, Exception) == (None, odd)


def test_a_group_that_leaves_a_block_shows_its_members_and_can_be_pickled() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        let_out([ValueError("a"), KeyboardInterrupt()], None)
    assert repr(caught.value) == (
        "BaseExceptionGroup('exceptions from a task map', [ValueError('a'), KeyboardInterrupt()])"
    )
    assert len(pickle.loads(pickle.dumps(caught.value)).exceptions) == 2
