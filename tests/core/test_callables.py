"""What should be a plain function is one, or is refused with the cure."""

import functools
import inspect
from typing import Any

import pytest

from namedtasks._core.callables import check_plain_fn


def plain() -> None: ...


async def asynchronous() -> None: ...


async def generating() -> Any:
    yield


class Callable:
    def __call__(self) -> None: ...


class Async:
    async def __call__(self) -> None: ...

    def __repr__(self) -> str:
        return "Async"


class Generating:
    async def __call__(self) -> Any:
        yield

    def __repr__(self) -> str:
        return "Generating"


@pytest.mark.parametrize(
    "fn",
    [
        plain,
        len,
        "a".join,
        Callable(),
        Callable,
        Async,  # to make one is plain
        functools.partial(plain),
        functools.partial(functools.partial(len), "a"),
    ],
)
def test_what_is_called_plainly_is_passed(fn: object) -> None:
    check_plain_fn("submit()", fn, "use a TaskMap")


@pytest.mark.parametrize(
    "fn",
    [
        asynchronous,
        generating,
        Async(),
        Generating(),
        functools.partial(asynchronous),
        functools.partial(generating),
        functools.partial(Async()),
        functools.partial(functools.partial(asynchronous)),
    ],
)
def test_what_is_async_is_refused_with_the_cure(fn: object) -> None:
    with pytest.raises(TypeError) as raised:
        check_plain_fn("submit()", fn, "use a TaskMap")
    assert str(raised.value) == (
        f"submit() takes a plain function, and {fn!r} is async: use a TaskMap"
    )


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^submit\(\) takes a plain function, not 5$"):
        check_plain_fn("submit()", 5, "use a TaskMap")


def test_a_coroutine_in_place_of_a_function_is_closed_so_that_nobody_is_warned() -> None:
    body = asynchronous()
    with pytest.raises(TypeError) as raised:
        check_plain_fn("submit()", body, "use a TaskMap")
    assert str(raised.value) == f"submit() takes a plain function, not {body!r}"
    assert inspect.getcoroutinestate(body) == inspect.CORO_CLOSED
