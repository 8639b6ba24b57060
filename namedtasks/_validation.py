"""Checks of arguments, and safe text for messages.

Every check raises at the call that made the mistake, and its message names the
cure. Most checks run on every start, so the usual case comes first.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Coroutine, Hashable, Iterable, Set as AbstractSet
from typing import Any, NamedTuple, TypeAlias, TypeGuard, TypeVar, cast

from namedtasks._logging import log_error

FnT = TypeVar("FnT", bound=Callable[..., object])

Body: TypeAlias = Coroutine[Any, Any, Any]
"""The coroutine that an async function returns."""

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Words(NamedTuple):
    """The names of the two methods with which a dialect starts a task."""

    start: str
    """The method that takes an async function, for example ``start_soon``."""
    start_plain: str
    """The method that takes a plain function, for example ``start_thread_soon``."""


# Text


def safe_repr(value: object, convert: Callable[[object], str] = repr) -> str:
    """Return the repr of *value*, or a replacement text if that raises."""
    try:
        return convert(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<{type(value).__name__} whose {convert.__name__} raises>"


def safe_str(value: object) -> str:
    """Return the str of *value*, or a replacement text if that raises."""
    return safe_repr(value, str)


def error_text(error: BaseException) -> str:
    """Return the last line of the error's traceback, for example ``ValueError: boom``."""
    text = safe_str(error)
    kind = type(error).__qualname__
    return f"{kind}: {text}" if text else kind


def task_text(name: Hashable, operation: str | None) -> str:
    """Return a task's description, for example ``task 'vol-1' (operation 'mount')``."""
    if operation is None:
        return f"task {safe_repr(name)}"
    return f"task {safe_repr(name)} (operation {safe_repr(operation)})"


def name_text(name: Hashable) -> str:
    """Return the name for the framework's own task object: *name* as it is, or its repr."""
    return name if isinstance(name, str) else safe_repr(name)


def seconds_text(seconds: float) -> str:
    """Return a duration with three significant digits and no exponent, for example ``0.5 s``."""
    digits = 0 if seconds >= 100 else 1 if seconds >= 10 else 2 if seconds >= 1 else 3
    text = f"{seconds:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} s"


# Arguments


def check_number(what: str, value: object, *, least: float = 0.0, most: float = math.inf) -> float:
    """Return *value* as a float in [*least*, *most*].

    Raises:
        TypeError: it is not a number; a bool does not count as one.
        ValueError: it is NaN, or outside the range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number, not {safe_repr(value)}")
    if not least <= value <= most:
        upper = "" if most == math.inf else f" and at most {most:g}"
        raise ValueError(f"{what} must be at least {least:g}{upper}, not {safe_repr(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{what} is too large for a float") from None


def check_finite(what: str, value: object, *, least: float = 0.0) -> float:
    """Return *value* as a finite float that is at least *least*.

    Raises:
        TypeError: it is not a number; a bool does not count as one.
        ValueError: it is infinite, NaN, or below *least*.
    """
    checked = check_number(what, value, least=least)
    if checked == math.inf:
        raise ValueError(f"{what} must be finite, not inf")
    return checked


def check_timeout(value: float | None) -> float:
    """Return a timeout in seconds, infinite for None.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative or NaN.
    """
    return math.inf if value is None else check_number("timeout", value)


def check_count(what: str, value: object, *, none_means: str) -> int | None:
    """Return *value*, which must be a whole number of at least 1, or None.

    Raises:
        TypeError: it is neither None nor a whole number; a bool does not count as one.
        ValueError: it is below 1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be a whole number or None, not {safe_repr(value)}")
    if value < 1:
        raise ValueError(f"{what} must be at least 1, or None for {none_means}, not {value}")
    return value


def check_whole(what: str, value: object, *, least: int = 0) -> int:
    """Return *value*, which must be a whole number of at least *least*.

    Raises:
        TypeError: it is not a whole number; a bool does not count as one.
        ValueError: it is below *least*.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be a whole number, not {safe_repr(value)}")
    if value < least:
        raise ValueError(f"{what} must be at least {least}, not {value}")
    return value


def check_flag(what: str, value: object) -> bool:
    """Return *value*, which must be True or False.

    Raises:
        TypeError: it is neither of them.
    """
    if isinstance(value, bool):
        return value
    raise TypeError(f"{what} must be True or False, not {safe_repr(value)}")


def check_if_busy(value: object) -> None:
    """Raise `ValueError` if *value* is not one of the five values of ``if_busy``."""
    if value not in ("refuse", "skip", "join", "replace", "queue"):
        raise ValueError(
            "if_busy must be 'refuse', 'skip', 'join', 'replace' or 'queue', not "
            f"{safe_repr(value)}"
        )


def check_reason(value: object) -> None:
    """Raise `TypeError` if *value*, the reason of a cancellation, is neither a str nor None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"reason must be a str or None, not {safe_repr(value)}")


def check_hashable(name: object, operation: object) -> None:
    """Raise `TypeError` if *name* cannot be hashed, or *operation* is neither a str nor None."""
    if operation is not None and not isinstance(operation, str):
        raise TypeError(f"operation must be a str or None, not {safe_repr(operation)}")
    try:
        hash(name)
    except TypeError as error:
        raise TypeError(
            f"a task's name must be hashable, and {safe_repr(name)} is not ({safe_str(error)}): "
            "use a str, or a tuple or frozen class of hashable values"
        ) from error


def check_callable(what: str, value: object) -> None:
    """Raise `TypeError` if *value* cannot be called."""
    if not callable(value):
        raise TypeError(f"{what} must be callable, not {safe_repr(value)}")


def check_executor(value: object) -> None:
    """Raise `TypeError` if *value* is neither callable nor None."""
    if value is not None and not callable(value):
        is_pool = callable(getattr(value, "submit", None))
        cure = ": use namedtasks.executors.from_pool(pool)" if is_pool else ""
        raise TypeError(
            "executor must be an async callable such as trio.to_thread.run_sync, "
            f"not {safe_repr(value)}{cure}"
        )


def check_policy(value: object, also: str = "") -> None:
    """Raise `TypeError` if *value* is neither a backoff policy nor None.

    Args:
        value: The value.
        also: Another value that is allowed, for the message.
    """
    has_delay = callable(getattr(value, "delay", None))
    if value is not None and (isinstance(value, type) or not has_delay):
        cure = f": write {value.__name__}()" if isinstance(value, type) and has_delay else ""
        raise TypeError(
            f"backoff must be {also}a Backoff, None or an object with a method delay(), "
            f"not {safe_repr(value)}{cure}"
        )


_TAKE_EXECUTOR = ("run_in_executor", "start_thread_soon", "submit")
"""The methods that start a function in an executor."""


def keyword_error(verb: str, unknown: Iterable[str]) -> TypeError:
    """Return the error for keyword arguments that the method *verb* does not take."""
    name = min(unknown)
    executor = "executor, " if verb in _TAKE_EXECUTOR else ""
    return TypeError(
        f"{verb}() got an unexpected keyword argument {name!r} (it takes {executor}if_busy, "
        "timeout, operation, backoff, since and retry): to pass it to the function, use "
        f"functools.partial(fn, {name}=...)"
    )


# Arguments that are missing


class _Required:
    """The type of `REQUIRED`."""

    def __repr__(self) -> str:
        return "<required>"


REQUIRED: Any = _Required()
"""The default of a required argument whose absence has an error of its own, with the cure."""


def reports_missing(init: FnT) -> FnT:
    """Make `REQUIRED` the default of all parameters of *init*, the ``__init__`` of a class.

    Type checkers do not know of it: to them the parameters have no default.
    """
    function: Any = init
    function.__defaults__ = (REQUIRED,) * (function.__code__.co_argcount - 1)
    return init


def not_called(name: str, cure: str) -> TypeError:
    """Return the error for a call of a class that only this package can call."""
    return TypeError(f"namedtasks.{name} cannot be called directly: {cure}")


# Functions and their results


def _wrong_function(
    start: str, kind: str, name: object, fn: object, cure: str | None = None
) -> TypeError:
    """Return the error for *fn*, which cannot be called; a coroutine in its place is closed.

    Args:
        start: The method that was given *fn*, for example ``submit``.
        kind: The kind of function that it takes, for example ``a plain``.
        name: The argument before *fn*.
        fn: The argument.
        cure: The advice for an async function; by default, to pass it without calling it.
    """
    right = f"{start}(name, fn, arg)"
    for given, wrong in ((fn, f"{start}(name, fn(arg))"), (name, f"{start}(fn(arg))")):
        if is_coroutine(given):
            close_unbegun(given, lambda: f"a wrong call of {start}()")
            return TypeError(
                f"{start}() takes {kind} function and its arguments, not a coroutine: "
                + (cure or f"write {right}, not {wrong}")
            )
    takes = f"{start}() takes a name and then {kind} function"
    if fn is REQUIRED:
        return TypeError(f"{takes}: write {right}")
    wrong = "" if callable(name) else f", not {start}(name, fn(arg))"
    return TypeError(f"{takes}, but {safe_repr(fn)} cannot be called: write {right}{wrong}")


def check_plain_fn(verb: str, fn: object, cure: str, name: object = None) -> None:
    """Raise `TypeError` if *fn* cannot be called, or is async, also inside `functools.partial`.

    Args:
        verb: The method that was given *fn*, for example ``submit()``.
        fn: The function, which should be a plain one.
        cure: The advice for an async function, for the message.
        name: The task's name, for the message.
    """
    if type(fn) is types.FunctionType:
        if not fn.__code__.co_flags & _ASYNC and not fn.__dict__:
            return
    elif type(fn) is type or type(fn) is types.BuiltinFunctionType:
        return
    if not callable(fn):
        raise _wrong_function(verb.removesuffix("()"), "a plain", name, fn, cure)
    inner: object = fn
    while isinstance(inner, functools.partial):
        inner = cast("functools.partial[object]", inner).func
    # A call of a class makes an instance. That is plain, even if a call of the instance is async.
    call = None if isinstance(inner, type) else type(inner).__call__
    if _is_async(inner) or _is_async(call):
        raise TypeError(f"{verb} takes a plain function, and {safe_repr(fn)} is async: {cure}")


def _is_async(fn: object) -> bool:
    """Return whether a call of *fn* is known to return a coroutine or an async generator."""
    if isinstance(fn, types.MethodType):
        fn = fn.__func__
    if type(fn) is types.FunctionType and fn.__code__.co_flags & _ASYNC:
        return True
    if "__wrapped__" in getattr(fn, "__dict__", ()):
        # functools.wraps() also copies the mark of inspect.markcoroutinefunction(), so a wrapper
        # with the mark may be plain: coroutine_error() checks its result instead.
        return False
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def coroutine_error(verb: str, fn: object, value: object, cure: str) -> TypeError | None:
    """Return the error for a plain function that returned a coroutine, and close the coroutine.

    Args:
        verb: The method that was given *fn*, for example ``submit()``.
        fn: The function.
        value: The value that it returned.
        cure: The advice for an async function, for the message.

    Returns:
        None if *value* is not a coroutine.
    """
    # Not isinstance(), which reads the __class__ of the value: that may be expensive, or raise.
    kind = type(value)
    if not issubclass(kind, Coroutine) and not (
        kind is types.GeneratorType and _is_generator_based(value)
    ):
        return None
    close_unbegun(cast("Body", value), lambda: safe_repr(fn))
    return TypeError(
        f"{verb} takes a plain function, and {safe_repr(fn)} returned a coroutine, "
        f"which was not awaited: {cure}"
    )


def _is_generator_based(value: object) -> bool:
    """Return whether *value* is a coroutine of a generator function under `types.coroutine`."""
    return inspect.isgenerator(value) and inspect.isawaitable(cast("object", value))


def plain_result(verb: str, fn: object, value: object, cure: str) -> object:
    """Return *value*, which *fn* returned, or raise the `coroutine_error`."""
    error = coroutine_error(verb, fn, value, cure)
    if error is None:
        return value
    try:
        raise error
    finally:
        del error  # no cycle through its traceback


def check_async_fn(words: Words, async_fn: object, name: object) -> None:
    """Raise `TypeError` if *async_fn* cannot be called; a coroutine in its place is closed.

    The *name* of the task is for the message.
    """
    if not callable(async_fn):
        raise _wrong_function(words.start, "an async", name, async_fn)


def check_body(words: Words, async_fn: Callable[..., object], body: object) -> Body:
    """Return *body*, which *async_fn* returned; raise `TypeError` if it is not a coroutine."""
    if is_coroutine(body):
        return body
    if isinstance(body, types.AsyncGeneratorType):
        mistake = "is an async generator: it must not yield"
    elif _is_generator_based(body):
        mistake = (
            "returns generator-based coroutines (types.coroutine): await it in an async function"
        )
    elif inspect.isawaitable(body):
        mistake = (
            f"returned {safe_repr(body)}, which is no coroutine: await it in an async function"
        )
    else:
        mistake = f"returned {safe_repr(body)}: for a plain function use {words.start_plain}()"
    raise TypeError(f"{words.start}() takes an async function, and {safe_repr(async_fn)} {mistake}")


# Coroutines and tracebacks


async def call_body(
    words: Words, async_fn: Callable[..., object], args: tuple[object, ...]
) -> object:
    """Call the function of another attempt, and await its coroutine: the body of the attempt."""
    return await check_body(words, async_fn, async_fn(*args))


def is_coroutine(value: object) -> TypeGuard[Body]:
    """Return whether *value* is a coroutine, possibly of a class of the user's."""
    return type(value) is types.CoroutineType or isinstance(value, Coroutine)


def is_begun(body: object) -> bool:
    """Return whether *body* has taken its first step; False for a class of the user's."""
    if inspect.iscoroutine(body):
        return inspect.getcoroutinestate(body) != inspect.CORO_CREATED
    return inspect.isgenerator(body) and inspect.getgeneratorstate(body) != inspect.GEN_CREATED


def close_unbegun(body: Body | None, what: Callable[[], str]) -> None:
    """Close a *body* that never began, so that Python does not warn that it was never awaited.

    An error of ``close()`` is logged.

    Args:
        body: The coroutine; None if there is none.
        what: Returns the owner of the body, for the log.
    """
    if body is None or is_begun(body):
        return  # An async function may return one coroutine twice, and the other run began it.
    try:
        body.close()
    except BaseException as error:
        log_error(f"closing the body of {what()} failed", error)


def remove_tb_frames(error: BaseException, codes: AbstractSet[types.CodeType]) -> BaseException:
    """Remove the frame that caught *error*, and the next frames if they run one of the *codes*.

    The traceback then begins in the task's own code. It is shorter, and there is no
    reference cycle through frames of this package.

    Returns:
        The same error.
    """
    assert error.__traceback__ is not None
    traceback = error.__traceback__.tb_next
    while traceback is not None and traceback.tb_frame.f_code in codes:
        traceback = traceback.tb_next
    # The error's class may override with_traceback().
    return BaseException.with_traceback(error, traceback)


def begin_tb_at(error: BaseException, fn: object) -> None:
    """Remove the frames above that of *fn*, in which an executor of the user's called it.

    Nothing is removed if no frame is that of *fn*, as if the executor itself has failed.
    """
    code = _code_of(fn)
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is code:
            BaseException.with_traceback(error, traceback)
            return
        traceback = traceback.tb_next


def _code_of(fn: object) -> types.CodeType | None:
    """Return the code that a call of *fn* runs; None if it is a class, or written in C."""
    while isinstance(fn, functools.partial):
        fn = cast("functools.partial[object]", fn).func
    if not isinstance(fn, (types.FunctionType, types.MethodType)):
        fn = type(fn).__call__
    if isinstance(fn, types.MethodType):
        fn = fn.__func__
    return fn.__code__ if isinstance(fn, types.FunctionType) else None
