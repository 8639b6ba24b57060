"""Mistakes in async functions are told with the cure; bodies that never begin are closed."""

import inspect
import types
from collections.abc import Coroutine
from typing import Any

import pytest

from namedtasks._core.callables import (
    Words,
    check_async_fn,
    check_body,
    close_unbegun,
    is_begun,
    is_coroutine,
)

WORDS = Words("start_soon", "start_thread_soon")


async def asynchronous() -> None: ...


async def generating() -> Any:
    yield


@types.coroutine
def one_step() -> Any:
    yield


async def two_steps() -> None:
    await one_step()


class Own(Coroutine[Any, Any, Any]):
    """A coroutine of a type of the user's own, as compiled code has them."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.closed = 0

    def send(self, value: Any, /) -> Any: ...

    def throw(self, *_: Any) -> Any: ...

    def close(self) -> None:
        self.closed += 1
        if self.error is not None:
            raise self.error

    def __await__(self) -> Any: ...


class Odd:
    def __call__(self) -> None: ...

    def __repr__(self) -> str:
        return "Odd"


def nobody(what: str, error: BaseException) -> None:
    raise AssertionError(what) from error


def test_a_coroutine_is_one_whatever_its_type() -> None:
    body = asynchronous()
    assert is_coroutine(body)
    body.close()
    assert is_coroutine(Own())
    assert not is_coroutine(generating())
    assert not is_coroutine(asynchronous)
    assert not is_coroutine(None)


def test_a_coroutine_has_begun_after_its_first_step() -> None:
    body = two_steps()
    assert isinstance(body, types.CoroutineType)
    assert not is_begun(body)
    body.send(None)
    assert is_begun(body)
    body.close()
    assert is_begun(body)


def test_so_has_a_generator_based_one() -> None:
    body: Any = one_step()
    assert not is_begun(body)
    body.send(None)
    assert is_begun(body)
    assert not is_begun(Own())


def test_a_body_that_is_a_coroutine_is_given_back() -> None:
    body = Own()
    assert check_body(WORDS, asynchronous, body) is body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            generating(),
            "start_soon() takes an async function, and Odd is an async generator: "
            "it must not yield",
        ),
        (
            5,
            "start_soon() takes an async function, and Odd gave 5; "
            "for a plain function use start_thread_soon()",
        ),
        (
            one_step(),
            "start_soon() takes an async function, and Odd gives generator-based coroutines "
            "(types.coroutine): await it in an async function",
        ),
    ],
)
def test_a_body_of_another_kind_is_refused_with_the_cure(body: object, message: str) -> None:
    with pytest.raises(TypeError) as raised:
        _ = check_body(WORDS, Odd(), body)
    assert str(raised.value) == message


def test_an_async_function_need_only_be_callable() -> None:
    check_async_fn(WORDS, asynchronous)
    check_async_fn(WORDS, Odd())


def test_what_cannot_be_called_is_no_async_function() -> None:
    with pytest.raises(TypeError, match=r"^start_soon\(\) takes an async function, not 5$"):
        check_async_fn(WORDS, 5)


def test_a_coroutine_in_place_of_a_function_is_closed_and_the_cure_is_told() -> None:
    body = Own()
    with pytest.raises(TypeError) as raised:
        check_async_fn(WORDS, body)
    assert str(raised.value) == (
        "start_soon() takes an async function and its arguments, not a coroutine: "
        "write start_soon(name, fn, arg), not start_soon(name, fn(arg))"
    )
    assert body.closed == 1


def test_a_body_that_never_began_is_closed() -> None:
    body, own = asynchronous(), Own()
    close_unbegun(body, lambda: "task 'a'", nobody)
    close_unbegun(own, lambda: "task 'a'", nobody)
    close_unbegun(None, lambda: "task 'a'", nobody)
    assert inspect.getcoroutinestate(body) == inspect.CORO_CLOSED
    assert own.closed == 1


def test_a_body_that_has_begun_is_somebody_elses() -> None:
    """An async function may give out the same coroutine twice."""
    body = two_steps()
    body.send(None)
    close_unbegun(body, lambda: "task 'a'", nobody)
    assert inspect.getcoroutinestate(body) == inspect.CORO_SUSPENDED
    body.close()


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit()])
def test_a_body_that_cannot_be_closed_is_complained_of(error: BaseException) -> None:
    complaints: list[tuple[str, BaseException]] = []
    close_unbegun(
        Own(error), lambda: "task 'a'", lambda what, error: complaints.append((what, error))
    )
    ((what, told),) = complaints
    assert "task 'a'" in what
    assert told is error
