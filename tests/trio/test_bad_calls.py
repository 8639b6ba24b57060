"""Every kind of bad call: a clear error, no name taken, no coroutine left behind."""

import functools
import gc
import math
import types
from collections.abc import Coroutine
from typing import Any

import pytest
import trio
import trio.testing

import namedtasks
from namedtasks import ANY, Backoff
from namedtasks.testing import RecordingInstrument


async def noop() -> None:
    await trio.lowlevel.checkpoint()


def plain() -> int:
    return 5


def raising() -> Any:
    raise ZeroDivisionError


async def generator() -> Any:
    yield


@types.coroutine
def generator_based() -> Any:
    yield


class Reprless:
    def __repr__(self) -> str:
        return "Reprless"

    def __call__(self) -> Any:
        return self


@pytest.mark.parametrize(
    ("make_args", "options", "kind", "message"),
    [
        (
            lambda: (["vol"], noop),
            {},
            TypeError,
            "a task's name must be hashable, and ['vol'] is not (unhashable type: 'list'): "
            "use a str, or a tuple or frozen class of hashable values",
        ),
        (
            lambda: ("a", noop),
            {"operation": 1},
            TypeError,
            "operation must be a str or None, not 1",
        ),
        (lambda: ("a", noop), {"timeout": -1}, ValueError, "timeout must be at least 0, not -1"),
        (
            lambda: ("a", noop),
            {"timeout": math.nan},
            ValueError,
            "timeout must be at least 0, not nan",
        ),
        (lambda: ("a", noop), {"timeout": 10**400}, ValueError, "timeout is too large for a float"),
        (lambda: ("a", noop), {"timeout": "1"}, TypeError, "timeout must be a number, not '1'"),
        (
            lambda: ("a", noop),
            {"if_busy": "wait"},
            ValueError,
            "if_busy must be 'refuse', 'skip', 'join', 'replace' or 'queue', not 'wait'",
        ),
        (
            lambda: ("a", 5),
            {},
            TypeError,
            "start_soon() takes a name and then an async function, but 5 cannot be called: "
            "write start_soon(name, fn, arg), not start_soon(name, fn(arg))",
        ),
        (
            lambda: ("a", noop()),
            {},
            TypeError,
            "start_soon() takes an async function and its arguments, not a coroutine: "
            "write start_soon(name, fn, arg), not start_soon(name, fn(arg))",
        ),
        (
            lambda: ("a", Reprless()),
            {},
            TypeError,
            "start_soon() takes an async function, and Reprless returned Reprless: "
            "for a plain function use start_thread_soon()",
        ),
        (lambda: ("a", raising), {}, ZeroDivisionError, ""),
        (
            lambda: ("a", noop, "too many"),
            {},
            TypeError,
            "noop() takes 0 positional arguments but 1 was given",
        ),
    ],
)
async def test_a_bad_start_changes_nothing(
    make_args: Any, options: Any, kind: type[Exception], message: str
) -> None:
    heard = RecordingInstrument()
    async with namedtasks.open_task_map(instruments=[heard], limit=1) as tasks:
        with pytest.raises(kind) as caught:
            tasks.start_soon(*make_args(), **options)
        assert str(caught.value) == message
        assert len(tasks) == 0
        assert tasks.check("a") is None
        await tasks.start_soon("b", noop).wait()  # the slot was given back
        caught = None  # type: ignore[assignment]
        gc.collect()  # a coroutine left behind would warn now, and warnings are errors
    assert {event.name for event in heard.events} == {"b"}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (plain, r"^start_soon\(\) takes an async function, and .*plain.* returned 5: for a plain "),
        (functools.partial(plain), r"returned 5: for a plain function use start_thread_soon\(\)$"),
        (generator, r"is an async generator: it must not yield$"),
        (
            generator_based,
            r"returns generator-based coroutines \(types\.coroutine\): await it in an async ",
        ),
    ],
)
async def test_what_gives_no_coroutine_is_named(function: Any, message: str) -> None:
    async with namedtasks.open_task_map() as tasks:
        with pytest.raises(TypeError, match=message):
            tasks.start_soon("a", function)
        assert tasks.check("a") is None


async def test_a_bad_name_is_refused_by_post_too() -> None:
    async with namedtasks.open_task_map() as tasks:
        with pytest.raises(ValueError, match=r"^namedtasks\.ANY is no name: "):
            tasks.post(ANY, noop)
        with pytest.raises(TypeError, match=r"^a task's name must be hashable, "):
            tasks.post([], noop)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_refused_start_does_not_call_the_function() -> None:
    called: list[int] = []

    def counting() -> Any:
        called.append(1)
        return noop()

    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon("a", counting)
        tasks.start_soon("a", counting, if_busy="skip")
        with pytest.raises(namedtasks.AlreadyRunningError):
            tasks.start_soon("a", counting)
    assert called == [1]


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"limit": 0}, ValueError, "limit must be at least 1, or None for no limit, not 0"),
        ({"limit": True}, TypeError, "limit must be a whole number or None, not True"),
        ({"limit": 1.0}, TypeError, "limit must be a whole number or None, not 1.0"),
        ({"retention": -1}, ValueError, "retention must be at least 0, not -1"),
        ({"overdue_after": math.nan}, ValueError, "overdue_after must be at least 0, not nan"),
        (
            {"backoff": 5},
            TypeError,
            "backoff must be a Backoff, None or an object with a method delay(), not 5",
        ),
        (
            {"backoff": Backoff},
            TypeError,
            "backoff must be a Backoff, None or an object with a method delay(), "
            "not <class 'namedtasks.Backoff'>: write Backoff()",
        ),
        ({"instruments": [5]}, TypeError, "an instrument must be an Instrument, not 5"),
        (
            {"executor": 5},
            TypeError,
            "executor must be an async callable such as trio.to_thread.run_sync, not 5",
        ),
        ({"random": 0.5}, TypeError, "random must be callable, not 0.5"),
    ],
)
def test_bad_settings_are_refused_before_the_block(
    settings: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        namedtasks.open_task_map(**settings)
    assert str(caught.value) == message


async def test_a_start_from_another_thread_is_told_the_way() -> None:
    def foreign() -> None:
        for call in (
            lambda: tasks.start_soon("a", noop),
            lambda: tasks.forget("b"),
            lambda: handle.cancel(),
            lambda: tasks.cancel("nobody"),
            lambda: tasks.cancel_matching(lambda _: False),
            lambda: tasks.cancel_all(),
            lambda: tasks.close(),
        ):
            with pytest.raises(
                RuntimeError,
                match=r"^a task map may be used only in the event loop run that opened it: from "
                r"another thread call post\(\) or trio\.from_thread\.run_sync\(\); in another run "
                r"open a new map$",
            ):
                call()

    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("b", trio.sleep, 0)
        await trio.to_thread.run_sync(foreign)
        assert tasks.check("a") is None
        await handle.wait()


async def test_a_spawn_that_fails_is_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deep in the stack anything may fail, and then nothing was started."""

    def fail(*args: object, **kwargs: object) -> None:
        raise RecursionError

    async with namedtasks.open_task_map(limit=1) as tasks:
        with monkeypatch.context() as patch:
            patch.setattr(trio.Nursery, "start_soon", fail)
            with pytest.raises(RecursionError):
                tasks.start_soon("a", noop)
        assert len(tasks) == 0
        await tasks.start_soon("a", noop).wait()
    gc.collect()


async def test_a_reason_is_text() -> None:
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", noop)
        reason: Any = 5
        with pytest.raises(TypeError, match=r"^reason must be a str or None, not 5$"):
            handle.cancel(reason)
        await handle.wait()


async def test_one_coroutine_given_out_twice_fails_the_second_run_only() -> None:
    event = trio.Event()
    shared = event.wait()

    async with namedtasks.open_task_map(instruments=(), limit=1) as tasks:
        first = tasks.start_soon("a", lambda: shared)
        await trio.testing.wait_all_tasks_blocked()
        second = tasks.start_soon("b", lambda: shared)
        second.cancel()  # it waits for its slot: its body is let go of
        assert not first.done
        event.set()
        await first.wait()


class OddCoroutine(Coroutine[Any, Any, None]):
    """A coroutine of a type of one's own, that cannot be closed."""

    def send(self, value: Any) -> Any:
        raise StopIteration

    def throw(self, *args: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        raise ZeroDivisionError

    def __await__(self) -> Any:
        return iter(())


async def test_a_body_that_cannot_be_closed_loses_no_name(caplog: pytest.LogCaptureFixture) -> None:
    async with namedtasks.open_task_map(limit=1) as tasks:
        tasks.start_soon("other", noop)
        handle = tasks.start_soon("a", OddCoroutine)
        handle.cancel()
        assert handle.done
        await tasks.start_soon("a", OddCoroutine).wait()
    assert "closing the body of task 'a' failed" in caplog.text


async def test_a_name_whose_comparison_raises_type_error() -> None:
    """The error is that of the name, and nothing is started."""

    class Odd:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise TypeError("odd")

    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon(1, noop)
        with pytest.raises(TypeError, match="odd"):
            tasks.start_soon(Odd(), noop)
        assert list(tasks) == [1]
