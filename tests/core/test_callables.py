"""What should be a plain function is one, or is refused with the cure."""

import functools
import inspect
import sys
import types
from typing import Any

import pytest

from namedtasks._core.callables import check_plain_fn, coroutine_error, plain_result


def plain() -> None: ...


async def asynchronous() -> None: ...


async def generating() -> Any:
    yield


@types.coroutine
def generator_based() -> Any:
    yield


@functools.wraps(asynchronous)
def decorated() -> Any:
    """Only its result shows that it is async."""
    return asynchronous()


class WithMethods:
    async def asynchronous(self) -> None: ...

    @types.coroutine
    def generator_based(self) -> Any:
        yield

    def plain(self) -> None: ...


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
        decorated,
        functools.partial(decorated),
        WithMethods().plain,
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
        generator_based,
        functools.partial(generator_based),
        WithMethods().asynchronous,
        WithMethods().generator_based,
    ],
)
def test_what_is_async_is_refused_with_the_cure(fn: object) -> None:
    with pytest.raises(TypeError) as raised:
        check_plain_fn("submit()", fn, "use a TaskMap")
    assert str(raised.value) == (
        f"submit() takes a plain function, and {fn!r} is async: use a TaskMap"
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect.markcoroutinefunction is new")
def test_what_is_marked_as_async_is_refused() -> None:
    """A plain wrapper gets the mark as well: `functools.wraps` copies it."""
    mark: Any = vars(inspect).get("markcoroutinefunction")
    marked = mark(lambda: asynchronous())
    instance = mark(Callable())
    wrapper = functools.wraps(marked)(lambda: None)
    for fn in (marked, instance, functools.partial(marked)):
        with pytest.raises(TypeError, match=r" is async: use a TaskMap$"):
            check_plain_fn("submit()", fn, "use a TaskMap")
    check_plain_fn("submit()", wrapper, "use a TaskMap")


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^submit\(\) takes a plain function, not 5$"):
        check_plain_fn("submit()", 5, "use a TaskMap")


def test_a_coroutine_in_place_of_a_function_is_closed_so_that_nobody_is_warned() -> None:
    body = asynchronous()
    with pytest.raises(TypeError) as raised:
        check_plain_fn("submit()", body, "use a TaskMap")
    assert str(raised.value) == f"submit() takes a plain function, not {body!r}"
    assert inspect.getcoroutinestate(body) == inspect.CORO_CLOSED


def nobody(what: str, error: BaseException) -> None:
    raise AssertionError(what) from error


def test_a_coroutine_as_a_result_is_closed_and_refused_with_the_cure() -> None:
    """Nobody is warned that it was never awaited."""
    value = decorated()
    with pytest.raises(TypeError) as raised:
        plain_result("submit()", decorated, value, "use a TaskMap", nobody)
    assert str(raised.value) == (
        f"submit() takes a plain function, and {decorated!r} returned a coroutine, "
        "which was not awaited: use a TaskMap"
    )
    assert inspect.getcoroutinestate(value) == inspect.CORO_CLOSED


def test_a_generator_based_coroutine_is_one_too() -> None:
    value: Any = generator_based()
    error = coroutine_error("submit()", generator_based, value, "use a TaskMap", nobody)
    assert type(error) is TypeError
    assert inspect.getgeneratorstate(value) == inspect.GEN_CLOSED


def test_a_coroutine_that_has_begun_is_refused_and_left_to_who_runs_it() -> None:
    async def awaits() -> None:
        await generator_based()

    values: list[Any] = [awaits(), generator_based()]
    for value in values:
        value.send(None)
        assert coroutine_error("submit()", plain, value, "use a TaskMap", nobody) is not None
        with pytest.raises(StopIteration):
            value.send(None)


@pytest.mark.parametrize("value", [None, 5, Async(), asynchronous, (n for n in range(3))])
def test_what_is_no_coroutine_is_a_result(value: object) -> None:
    assert plain_result("submit()", plain, value, "use a TaskMap", nobody) is value


def test_a_result_is_not_asked_for_its_class() -> None:
    """The class of a lazy object, for example, may be expensive to make, or raise."""

    def raising(_: object) -> Any:
        raise AssertionError

    value = type("Lazy", (), {"__class__": property(raising)})()
    assert plain_result("submit()", plain, value, "use a TaskMap", nobody) is value
