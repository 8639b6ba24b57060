"""Checks of arguments, functions and results, and safe text for messages."""

import functools
import inspect
import math
import sys
import types
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any

import pytest

from namedtasks import _validation
from namedtasks._validation import (
    REQUIRED,
    Words,
    begin_tb_at,
    check_async_fn,
    check_body,
    check_callable,
    check_count,
    check_executor,
    check_finite,
    check_flag,
    check_hashable,
    check_if_busy,
    check_number,
    check_plain_fn,
    check_policy,
    check_reason,
    check_timeout,
    close_unbegun,
    coroutine_error,
    error_text,
    is_begun,
    is_coroutine,
    name_text,
    plain_result,
    remove_tb_frames,
    safe_repr,
    safe_str,
    seconds_text,
    task_text,
)

Logged = list[tuple[str, BaseException]]


@pytest.fixture(name="logged", autouse=True)
def record_logged_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Logged]:
    """Record the calls of `log_error`; a test that expects some takes them out of the list."""
    logged: Logged = []

    def log_error(what: str, error: BaseException) -> None:
        logged.append((what, error))

    monkeypatch.setattr(_validation, "log_error", log_error)
    yield logged
    assert logged == []


# Text


class NoRepr:
    def __repr__(self) -> str:
        raise ValueError("no repr")


class NoStrError(Exception):
    def __str__(self) -> str:
        raise ValueError("no str")


def test_a_repr_that_raises_has_a_replacement() -> None:
    assert safe_repr(NoRepr()) == "<NoRepr whose repr raises>"
    assert safe_str(NoStrError()) == "<NoStrError whose str raises>"


def test_errors_read_as_in_the_last_line_of_a_traceback() -> None:
    assert error_text(ValueError("boom")) == "ValueError: boom"
    assert error_text(ValueError()) == "ValueError"
    assert error_text(NoStrError()) == "NoStrError: <NoStrError whose str raises>"


def test_a_task_is_called_by_name_and_operation() -> None:
    assert task_text("vol-1", None) == "task 'vol-1'"
    assert task_text(("vol-1", 2), "mount") == "task ('vol-1', 2) (operation 'mount')"


def test_the_frameworks_task_has_the_name_alone() -> None:
    assert name_text("vol-1") == "vol-1"
    assert name_text(("vol-1", 2)) == "('vol-1', 2)"
    assert name_text(NoRepr()) == "<NoRepr whose repr raises>"


def test_seconds_have_three_digits_at_most() -> None:
    texts = [seconds_text(s) for s in (0.0, 0.0004, 0.5, 1.234, 12.34, 122.0, 1e6)]
    assert texts == ["0 s", "0 s", "0.5 s", "1.23 s", "12.3 s", "122 s", "1000000 s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1234, "0.123 s"),
        (0.9996, "1 s"),
        (1.004, "1 s"),
        (9.876, "9.88 s"),
        (10.04, "10 s"),
        (10.56, "10.6 s"),
        (99.96, "100 s"),
        (100.4, "100 s"),
        (100.6, "101 s"),
        (122.4, "122 s"),
    ],
)
def test_at_each_power_of_ten_a_digit_behind_the_point_goes(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_ctrl_c_goes_through() -> None:
    class Slow:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

        __str__ = __repr__

    for text in (safe_repr, safe_str):
        with pytest.raises(KeyboardInterrupt):
            text(Slow())


# Arguments


class Odd:
    def __repr__(self) -> str:
        return "Odd"


def test_a_number_is_given_back_as_a_float() -> None:
    assert check_number("retention", 3) == 3.0
    assert type(check_number("retention", 3)) is float
    assert check_number("retention", math.inf) == math.inf


def test_a_number_may_be_at_either_end_of_its_range() -> None:
    assert check_number("jitter", 0) == 0.0
    assert check_number("jitter", 0.5, least=0.5, most=1.0) == 0.5
    assert check_number("jitter", 1.0, least=0.5, most=1.0) == 1.0


def test_a_finite_number_may_be_at_the_low_end() -> None:
    assert check_finite("initial", 0) == 0.0
    assert check_finite("initial", 2, least=2.0) == 2.0


def test_a_count_is_a_whole_number_of_one_or_more_or_none() -> None:
    assert check_count("limit", None, none_means="no limit") is None
    assert check_count("limit", 1, none_means="no limit") == 1
    assert check_count("limit", 7, none_means="no limit") == 7


def test_a_flag_is_given_back() -> None:
    assert check_flag("eager", True) is True
    assert check_flag("eager", False) is False


def test_no_timeout_is_an_infinite_one() -> None:
    assert check_timeout(None) == math.inf
    assert check_timeout(1) == 1.0


class Policy:
    def delay(self) -> float:
        return 0.0


@pytest.mark.parametrize(
    "check",
    [
        lambda: check_hashable(("a", 1), None),
        lambda: check_hashable("a", "mount"),
        lambda: check_callable("random", print),
        lambda: check_executor(print),
        lambda: check_executor(None),
        lambda: check_policy(Policy()),
        lambda: check_policy(None),
        lambda: check_reason("why"),
        lambda: check_reason(None),
        *[
            lambda value=value: check_if_busy(value)
            for value in ("refuse", "skip", "join", "replace", "queue")
        ],
    ],
)
def test_right_arguments_pass(check: Callable[[], None]) -> None:
    check()


class NoDelay:
    delay = 5

    def __repr__(self) -> str:
        return "NoDelay"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_number("retention", "1"), "retention must be a number, not '1'"),
        (lambda: check_number("retention", True), "retention must be a number, not True"),
        (lambda: check_finite("initial", None), "initial must be a number, not None"),
        (
            lambda: check_count("limit", 1.0, none_means="no limit"),
            "limit must be a whole number or None, not 1.0",
        ),
        (
            lambda: check_count("limit", True, none_means="no limit"),
            "limit must be a whole number or None, not True",
        ),
        (lambda: check_flag("eager", 1), "eager must be True or False, not 1"),
        (lambda: check_hashable("a", 1), "operation must be a str or None, not 1"),
        (
            lambda: check_hashable(["vol"], None),
            "a task's name must be hashable, and ['vol'] is not (unhashable type: 'list'): "
            "use a str, or a tuple or frozen class of hashable values",
        ),
        (lambda: check_callable("random", 5), "random must be callable, not 5"),
        (
            lambda: check_executor(Odd()),
            "executor must be an async callable such as trio.to_thread.run_sync, not Odd",
        ),
        (
            lambda: check_policy(Odd()),
            "backoff must be a Backoff, None or an object with a method delay(), not Odd",
        ),
        (
            lambda: check_policy(NoDelay()),
            "backoff must be a Backoff, None or an object with a method delay(), not NoDelay",
        ),
        (
            lambda: check_policy(Policy),
            f"backoff must be a Backoff, None or an object with a method delay(), not {Policy!r}: "
            "write Policy()",
        ),
        (lambda: check_reason(5), "reason must be a str or None, not 5"),
    ],
)
def test_a_wrong_type_is_refused(check: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError) as raised:
        check()
    assert str(raised.value) == message


BELOW = math.nextafter(0.5, 0.0)
ABOVE = math.nextafter(1.0, 2.0)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_number("grace", -0.1), "grace must be at least 0, not -0.1"),
        (lambda: check_number("grace", math.nan), "grace must be at least 0, not nan"),
        (
            lambda: check_number("jitter", BELOW, least=0.5, most=1.0),
            f"jitter must be at least 0.5 and at most 1, not {BELOW!r}",
        ),
        (
            lambda: check_number("jitter", ABOVE, least=0.5, most=1.0),
            f"jitter must be at least 0.5 and at most 1, not {ABOVE!r}",
        ),
        (lambda: check_number("grace", 10**400), "grace is too large for a float"),
        (lambda: check_finite("initial", math.inf), "initial must be finite, not inf"),
        (lambda: check_finite("initial", -0.1), "initial must be at least 0, not -0.1"),
        (lambda: check_finite("factor", 0.9, least=1.0), "factor must be at least 1, not 0.9"),
        (
            lambda: check_count("limit", 0, none_means="no limit"),
            "limit must be at least 1, or None for no limit, not 0",
        ),
        (lambda: check_timeout(-1), "timeout must be at least 0, not -1"),
        (
            lambda: check_if_busy("wait"),
            "if_busy must be 'refuse', 'skip', 'join', 'replace' or 'queue', not 'wait'",
        ),
    ],
)
def test_a_number_out_of_its_range_is_refused(check: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        check()
    assert str(raised.value) == message


def test_a_name_without_a_hash_is_refused_with_the_cause() -> None:
    """The cause is the name's own error."""

    class Unhashable:
        def __hash__(self) -> int:
            raise TypeError("as I say")

    with pytest.raises(TypeError) as raised:
        check_hashable(Unhashable(), None)
    cause: Any = raised.value.__cause__
    assert str(cause) == "as I say"


# Plain functions and their results


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


class Plain:
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
        Plain(),
        Plain,
        Async,  # to make one is plain
        functools.partial(plain),
        functools.partial(functools.partial(len), "a"),
        decorated,
        functools.partial(decorated),
        WithMethods().plain,
    ],
)
def test_a_plain_callable_passes(fn: object) -> None:
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
def test_an_async_callable_is_refused_with_the_cure(fn: object) -> None:
    with pytest.raises(TypeError) as raised:
        check_plain_fn("submit()", fn, "use a TaskMap")
    assert str(raised.value) == (
        f"submit() takes a plain function, and {fn!r} is async: use a TaskMap"
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect.markcoroutinefunction is new")
def test_a_callable_that_is_marked_as_async_is_refused() -> None:
    """A plain wrapper gets the mark as well: `functools.wraps` copies it."""
    mark: Any = vars(inspect).get("markcoroutinefunction")
    marked = mark(lambda: asynchronous())
    instance = mark(Plain())
    wrapper = functools.wraps(marked)(lambda: None)
    for fn in (marked, instance, functools.partial(marked)):
        with pytest.raises(TypeError, match=r" is async: use a TaskMap$"):
            check_plain_fn("submit()", fn, "use a TaskMap")
    check_plain_fn("submit()", wrapper, "use a TaskMap")


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError) as raised:
        check_plain_fn("submit()", 5, "use a TaskMap")
    assert str(raised.value) == (
        "submit() takes a name and then a plain function, but 5 cannot be called: "
        "write submit(name, fn, arg), not submit(name, fn(arg))"
    )


def test_a_coroutine_in_place_of_a_plain_function_is_closed() -> None:
    body = asynchronous()
    with pytest.raises(TypeError) as raised:
        check_plain_fn("submit()", body, "use a TaskMap")
    assert str(raised.value) == (
        "submit() takes a plain function and its arguments, not a coroutine: use a TaskMap"
    )
    assert inspect.getcoroutinestate(body) == inspect.CORO_CLOSED


def test_a_coroutine_as_a_result_is_closed_and_refused_with_the_cure() -> None:
    """Python then does not warn that it was never awaited."""
    value = decorated()
    with pytest.raises(TypeError) as raised:
        plain_result("submit()", decorated, value, "use a TaskMap")
    assert str(raised.value) == (
        f"submit() takes a plain function, and {decorated!r} returned a coroutine, "
        "which was not awaited: use a TaskMap"
    )
    assert inspect.getcoroutinestate(value) == inspect.CORO_CLOSED


def test_a_generator_based_coroutine_is_one_too() -> None:
    value: Any = generator_based()
    error = coroutine_error("submit()", generator_based, value, "use a TaskMap")
    assert type(error) is TypeError
    assert inspect.getgeneratorstate(value) == inspect.GEN_CLOSED


def test_a_coroutine_that_has_begun_is_refused_and_not_closed() -> None:
    async def awaits() -> None:
        await generator_based()

    values: list[Any] = [awaits(), generator_based()]
    for value in values:
        value.send(None)
        assert coroutine_error("submit()", plain, value, "use a TaskMap") is not None
        with pytest.raises(StopIteration):
            value.send(None)


@pytest.mark.parametrize("value", [None, 5, Async(), asynchronous, (n for n in range(3))])
def test_any_other_value_is_a_result(value: object) -> None:
    assert plain_result("submit()", plain, value, "use a TaskMap") is value


def test_a_result_is_not_asked_for_its_class() -> None:
    """The class of a lazy object, for example, may be expensive to make, or raise."""

    def raising(_: object) -> Any:
        raise AssertionError

    value = type("Lazy", (), {"__class__": property(raising)})()
    assert plain_result("submit()", plain, value, "use a TaskMap") is value


# Async functions and coroutines


WORDS = Words("start_soon", "start_thread_soon")


@types.coroutine
def one_step() -> Any:
    yield


async def two_steps() -> None:
    await one_step()


class Own(Coroutine[Any, Any, Any]):
    """A coroutine of a class of the user's own, as compiled code has them."""

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


class Awaitable_:
    def __await__(self) -> Any: ...

    def __repr__(self) -> str:
        return "Awaitable_"


class OddFn:
    def __call__(self) -> None: ...

    def __repr__(self) -> str:
        return "OddFn"


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


def test_a_generator_based_coroutine_has_begun_after_its_first_step() -> None:
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
            "start_soon() takes an async function, and OddFn is an async generator: "
            "it must not yield",
        ),
        (
            5,
            "start_soon() takes an async function, and OddFn returned 5: "
            "for a plain function use start_thread_soon()",
        ),
        (
            one_step(),
            "start_soon() takes an async function, and OddFn returns generator-based coroutines "
            "(types.coroutine): await it in an async function",
        ),
        (
            Awaitable_(),
            "start_soon() takes an async function, and OddFn returned Awaitable_, which is no "
            "coroutine: await it in an async function",
        ),
    ],
)
def test_a_body_of_another_kind_is_refused_with_the_cure(body: object, message: str) -> None:
    with pytest.raises(TypeError) as raised:
        _ = check_body(WORDS, OddFn(), body)
    assert str(raised.value) == message


def test_an_async_function_need_only_be_callable() -> None:
    check_async_fn(WORDS, asynchronous, "a")
    check_async_fn(WORDS, OddFn(), "a")


def test_what_cannot_be_called_is_no_async_function() -> None:
    with pytest.raises(TypeError) as raised:
        check_async_fn(WORDS, 5, "a")
    assert str(raised.value) == (
        "start_soon() takes a name and then an async function, but 5 cannot be called: "
        "write start_soon(name, fn, arg), not start_soon(name, fn(arg))"
    )


def test_a_function_in_the_place_of_the_name_is_told_so() -> None:
    """The name was forgotten, or comes second."""
    checks: list[Callable[[], object]] = [
        lambda: check_async_fn(Words("post", ""), "a", asynchronous),
        lambda: check_plain_fn("post()", "a", "", asynchronous),
    ]
    for check in checks:
        with pytest.raises(
            TypeError,
            match=r"^post\(\) takes a name and then an? (async|plain) function, "
            r"but 'a' cannot be called: write post\(name, fn, arg\)$",
        ):
            check()


def test_a_function_that_is_not_there_is_told_so() -> None:
    for name in ("a", asynchronous, REQUIRED):
        with pytest.raises(
            TypeError,
            match=r"^start_soon\(\) takes a name and then an async function: "
            r"write start_soon\(name, fn, arg\)$",
        ):
            check_async_fn(WORDS, REQUIRED, name)
    assert repr(REQUIRED) == "<required>"


@pytest.mark.parametrize("fn", [REQUIRED, "a"])
def test_a_coroutine_in_the_place_of_the_name_is_closed(fn: object) -> None:
    body = asynchronous()
    with pytest.raises(TypeError) as raised:
        check_async_fn(WORDS, fn, body)
    assert str(raised.value) == (
        "start_soon() takes an async function and its arguments, not a coroutine: "
        "write start_soon(name, fn, arg), not start_soon(fn(arg))"
    )
    assert inspect.getcoroutinestate(body) == inspect.CORO_CLOSED


def test_a_coroutine_in_place_of_a_function_is_closed_and_the_cure_is_told() -> None:
    body = Own()
    with pytest.raises(TypeError) as raised:
        check_async_fn(WORDS, body, "a")
    assert str(raised.value) == (
        "start_soon() takes an async function and its arguments, not a coroutine: "
        "write start_soon(name, fn, arg), not start_soon(name, fn(arg))"
    )
    assert body.closed == 1


def test_a_body_that_never_began_is_closed() -> None:
    body, own = asynchronous(), Own()
    close_unbegun(body, lambda: "task 'a'")
    close_unbegun(own, lambda: "task 'a'")
    close_unbegun(None, lambda: "task 'a'")
    assert inspect.getcoroutinestate(body) == inspect.CORO_CLOSED
    assert own.closed == 1


def test_a_body_that_has_begun_is_not_closed() -> None:
    """An async function may give out the same coroutine twice."""
    body = two_steps()
    body.send(None)
    close_unbegun(body, lambda: "task 'a'")
    assert inspect.getcoroutinestate(body) == inspect.CORO_SUSPENDED
    body.close()


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit()])
def test_a_body_that_cannot_be_closed_is_logged(error: BaseException, logged: Logged) -> None:
    close_unbegun(Own(error), lambda: "task 'a'")
    what, told = logged.pop()
    assert "task 'a'" in what
    assert told is error


# Tracebacks


def body() -> None:
    raise ValueError("boom")


def ours() -> None:
    body()


def also_ours() -> None:
    ours()


def functions(traceback: TracebackType | None) -> list[str]:
    names: list[str] = []
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    return names


OURS = frozenset({ours.__code__, also_ours.__code__})


def test_the_traceback_begins_at_the_body() -> None:
    try:
        also_ours()
    except ValueError as error:
        assert remove_tb_frames(error, OURS) is error
        assert functions(error.__traceback__) == ["body"]


def test_frames_of_ours_below_the_body_stay() -> None:
    """A body may call us."""

    def theirs() -> None:
        ours()

    try:
        theirs()
    except ValueError as error:
        remove_tb_frames(error, OURS)
        assert functions(error.__traceback__) == ["theirs", "ours", "body"]


def test_an_error_without_a_frame_of_the_bodys_has_no_traceback() -> None:
    def fails() -> None:
        raise ValueError("boom")

    try:
        fails()
    except ValueError as error:
        remove_tb_frames(error, frozenset({fails.__code__}))
        assert error.__traceback__ is None


def test_a_with_traceback_of_the_errors_class_is_not_called() -> None:
    class OddError(Exception):
        def with_traceback(self, _: Any, /) -> Any:
            raise ZeroDivisionError

    def fails() -> None:
        raise OddError

    try:
        fails()
    except OddError as error:
        assert remove_tb_frames(error, OURS) is error
        assert functions(error.__traceback__) == ["fails"]


def frames_of(error: BaseException) -> list[str]:
    entries = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    return [entry.function for entry in entries]


class Called:
    def __call__(self) -> None:
        raise ValueError("boom")

    def method(self) -> None:
        self()


def fails() -> None:
    Called()()


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (fails, ["fails", "__call__"]),
        (functools.partial(functools.partial(fails)), ["fails", "__call__"]),
        (Called(), ["__call__"]),
        (Called().method, ["method", "__call__"]),
    ],
)
def test_a_traceback_can_begin_at_the_function(
    fn: Callable[[], object], expected: list[str]
) -> None:
    def executor() -> None:
        try:
            fn()
        except ValueError as error:
            begin_tb_at(error, fn)
            raise

    with pytest.raises(ValueError, match=r"^boom$") as caught:
        executor()
    found = frames_of(caught.value)
    assert found[-len(expected) :] == expected
    assert "executor" not in found


@pytest.mark.parametrize("fn", [int, len, print, Called])
def test_a_traceback_is_whole_if_the_function_has_no_frame(fn: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match=r"^boom$") as caught:
        fails()
    before = frames_of(caught.value)
    begin_tb_at(caught.value, fn)
    assert frames_of(caught.value) == before
    error = ValueError("never raised")
    begin_tb_at(error, fn)
    assert error.__traceback__ is None
