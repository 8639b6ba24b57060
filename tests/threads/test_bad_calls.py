"""Every kind of bad call: a clear error, no name taken, nothing half done."""

import contextlib
import functools
import gc
import math
import re
import threading
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from namedtasks import ANY, State, ThreadTaskMap
from namedtasks._validation import check_plain_fn
from namedtasks.testing import RecordingInstrument
from tests.executors.pools import AtOnce
from tests.threads.helpers import Gate, HandPool


async def coroutine_function() -> None: ...


async def asynchronous_generator() -> Any:
    yield


@types.coroutine
def generator_based() -> Any:
    yield


@functools.wraps(coroutine_function)
def decorated() -> Any:
    return coroutine_function()


class AsyncCall:
    async def __call__(self) -> None: ...

    def __repr__(self) -> str:
        return "AsyncCall"


def gives_nonsense() -> Any:
    return 5


def raising() -> Any:
    raise ZeroDivisionError("no pool today")


CURE = "use namedtasks.asyncio.open_task_map() or, on trio, namedtasks.open_task_map()"
ASYNC = f"is async: {CURE}"


@pytest.mark.parametrize(
    ("make_args", "options", "kind", "message"),
    [
        (
            lambda: (["vol"], int),
            {},
            TypeError,
            "a task's name must be hashable, and ['vol'] is not (unhashable type: 'list'): "
            "use a str, or a tuple or frozen class of hashable values",
        ),
        (
            lambda: ("a", 5),
            {},
            TypeError,
            "submit() takes a name and then a plain function, but 5 cannot be called: "
            "write submit(name, fn, arg), not submit(name, fn(arg))",
        ),
        (
            lambda: ("a", AsyncCall()),
            {},
            TypeError,
            f"submit() takes a plain function, and AsyncCall {ASYNC}",
        ),
        (lambda: ("a", int), {"timeout": -1}, ValueError, "timeout must be at least 0, not -1"),
        (
            lambda: ("a", int),
            {"timeout": math.nan},
            ValueError,
            "timeout must be at least 0, not nan",
        ),
        (lambda: ("a", int), {"timeout": "1"}, TypeError, "timeout must be a number, not '1'"),
        (lambda: ("a", int), {"operation": 1}, TypeError, "operation must be a str or None, not 1"),
        (
            lambda: ("a", int),
            {"if_busy": "wait"},
            ValueError,
            "if_busy must be 'refuse', 'skip', 'join', 'replace' or 'queue', not 'wait'",
        ),
        (
            lambda: ("a", int),
            {"executor": ThreadPoolExecutor},
            TypeError,
            "executor must be a pool or a function that returns one, and ThreadPoolExecutor is a "
            "class, which would make a new pool for each job: pass one pool, "
            "ThreadPoolExecutor(...)",
        ),
        (
            lambda: ("a", int),
            {"executor": 5},
            TypeError,
            "executor must be a concurrent.futures.Executor or a function that returns one, not 5 "
            "(Dask: client.get_executor(); loky: get_reusable_executor)",
        ),
        (lambda: ("a", int), {"executor": raising}, ZeroDivisionError, "no pool today"),
    ],
)
def test_a_bad_submit_changes_nothing(
    make_args: Any, options: Any, kind: type[Exception], message: str
) -> None:
    heard = RecordingInstrument()
    with ThreadTaskMap(instruments=[heard], limit=1) as tasks:
        with pytest.raises(kind) as caught:
            tasks.submit(*make_args(), **options)
        assert str(caught.value) == message
        assert len(tasks) == 0
        assert tasks.check("a") is None
        tasks.submit("b", int).result()  # the slot was given back
    assert {event.name for event in heard.events if type(event).__name__ == "TaskStarted"} == {"b"}


@pytest.mark.parametrize(
    "fn",
    [
        coroutine_function,
        asynchronous_generator,
        functools.partial(functools.partial(coroutine_function)),
        AsyncCall().__call__,
        generator_based,
    ],
)
def test_an_async_function_is_refused_at_the_call(fn: Any) -> None:
    """Also inside of a partial: nothing would await it in a thread."""
    with ThreadTaskMap() as tasks:
        with pytest.raises(
            TypeError, match=r"^submit\(\) takes a plain function, and .* " + re.escape(ASYNC) + "$"
        ):
            tasks.submit("a", fn)
        assert tasks.check("a") is None


@pytest.mark.parametrize("fn", [decorated, lambda: generator_based()])
@pytest.mark.parametrize("pool", [None, ThreadPoolExecutor, AtOnce])
def test_a_coroutine_as_a_result_fails_the_run(fn: Any, pool: Any) -> None:
    with contextlib.ExitStack() as stack:
        executor = None if pool is None else stack.enter_context(pool())
        with ThreadTaskMap(executor=executor, instruments=()) as tasks:
            error = tasks.submit("a", fn).exception()
            assert type(error) is TypeError
            assert str(error) == (
                f"submit() takes a plain function, and {fn!r} returned a coroutine, "
                f"which was not awaited: {CURE}"
            )
            assert tasks.state("a") is State.WAITING


def test_a_coroutine_object_is_refused_and_closed() -> None:
    with ThreadTaskMap() as tasks:
        coroutine: Any = coroutine_function()
        with pytest.raises(
            TypeError,
            match=r"^submit\(\) takes a plain function and its arguments, not a coroutine: "
            rf"{re.escape(CURE)}$",
        ):
            tasks.submit("a", coroutine)
    del coroutine
    gc.collect()  # one that was never awaited would warn now


def test_a_class_is_a_plain_function() -> None:
    """Whatever its instances are: calling it makes one."""
    check_plain_fn("submit()", AsyncCall, "")
    check_plain_fn("submit()", functools.partial(int, "5"), "")


def test_a_factory_that_gives_no_pool_is_told_so() -> None:
    with ThreadTaskMap() as tasks:
        factory: Any = gives_nonsense
        with pytest.raises(
            TypeError,
            match=r"^the function for the pool must return a concurrent\.futures\.Executor, "
            r"and <function gives_nonsense at 0x[0-9a-f]+> returned 5$",
        ):
            tasks.submit("a", int, executor=factory)
        assert tasks.check("a") is None
        with pytest.raises(TypeError, match=r"^executor must be .*, and .* is async$"):
            broken: Any = coroutine_function
            tasks.submit("a", int, executor=broken)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"limit": 0}, ValueError, "limit must be at least 1, or None for no limit, not 0"),
        ({"retention": -1}, ValueError, "retention must be at least 0, not -1"),
        ({"overdue_after": math.nan}, ValueError, "overdue_after must be at least 0, not nan"),
        ({"instruments": [5]}, TypeError, "an instrument must be an Instrument, not 5"),
        ({"random": 0.5}, TypeError, "random must be callable, not 0.5"),
        (
            {"clock": 5},
            TypeError,
            "clock must have methods now() and wait(), as a ManualClock has, not 5",
        ),
        (
            {"executor": ThreadPoolExecutor},
            TypeError,
            "executor must be a pool or a function that returns one, and ThreadPoolExecutor is a "
            "class, which would make a new pool for each job: pass one pool, "
            "ThreadPoolExecutor(...)",
        ),
    ],
)
def test_bad_settings_are_refused(settings: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        ThreadTaskMap(**settings)
    assert str(caught.value) == message


def test_a_reason_is_text_also_where_it_is_only_noted() -> None:
    gate = Gate()
    five: Any = 5
    with ThreadTaskMap() as tasks:
        tasks.submit("a", gate)
        with pytest.raises(TypeError, match=r"^reason must be a str or None, not 5$"):
            tasks.cancel("a", reason=five)
        with pytest.raises(TypeError, match=r"^reason must be a str or None, not 5$"):
            tasks.cancel_all(reason=five)
        assert not tasks["a"].overdue
        gate.open()


def test_bad_waits_are_refused() -> None:
    unhashable: Any = []
    with ThreadTaskMap() as tasks:
        with pytest.raises(ValueError, match=r"^timeout must be at least 0, not -1$"):
            tasks.wait_idle(-1)
        with pytest.raises(ValueError, match=r"^grace must be at least 0, not -1$"):
            tasks.shutdown(grace=-1)
        with pytest.raises(TypeError, match=r"^a task's name must be hashable, and "):
            tasks.wait_free(unhashable)
        tasks.submit("a", int).result()  # the bad shutdown has closed nothing


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_submit_without_a_thread_is_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller hears of it, and nothing was started."""
    with ThreadTaskMap(limit=1) as tasks:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(RuntimeError, match=r"^can't start new thread$"):
                tasks.submit("a", int)
        assert tasks.check("a") is None
        assert tasks.submit("a", int).result() == 0


def test_a_follow_up_run_without_a_thread_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its submitter is gone: the failure is the future's, and the name waits."""
    pool = HandPool()
    with ThreadTaskMap(limit=1, instruments=()) as tasks:
        first = tasks.submit("first", int, executor=pool)
        waits = tasks.submit("a", int)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            pool.jobs[0].run()
        assert first.result() == 0
        with pytest.raises(RuntimeError, match=r"^can't start new thread$"):
            waits.result()
        failure = tasks.failure("a")
        assert failure is not None
        assert failure.failures == 1


def test_thousands_of_follow_up_runs_without_a_thread_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, however many: no recursion."""
    pool = HandPool()
    with ThreadTaskMap(limit=1, instruments=()) as tasks:
        tasks.submit("first", int, executor=pool)
        futures = [tasks.submit(number, int) for number in range(3_000)]
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            pool.jobs[0].run()
        assert all(isinstance(future.exception(), RuntimeError) for future in futures)
        assert tasks.statistics().waiting == 3_000


def test_a_run_cancelled_while_its_thread_could_not_start_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever ends it first ends it; the other lets go."""

    def cancelled_first(self: threading.Thread) -> None:
        assert tasks["a"].cancel()
        raise RuntimeError("can't start new thread")

    with ThreadTaskMap(limit=1) as tasks:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", cancelled_first)
            future = tasks.submit("a", int)
        assert future.cancelled()
        assert tasks.submit("a", int).result() == 0


def in_a_list(one: object) -> Any:
    return [one]


def in_too_many_fields(one: object) -> Any:
    return (one, ANY, 3, 4, 5)


@pytest.mark.parametrize("make_name", [in_a_list, in_too_many_fields])
def test_a_mistaken_name_is_shown_outside_of_the_map(make_name: Callable[[object], Any]) -> None:
    """Its ``repr()`` may take a lock whose holder is just calling the map."""
    lock = threading.Lock()
    is_shown = threading.Event()

    class Shown:
        def __repr__(self) -> str:
            is_shown.set()
            with lock:
                return "Shown()"

    def start() -> None:
        with pytest.raises((TypeError, ValueError)):
            tasks.submit(name, int)
        with pytest.raises((TypeError, ValueError)):
            tasks.check(name)

    name = make_name(Shown())
    with ThreadTaskMap() as tasks:
        thread = threading.Thread(target=start)
        with lock:
            thread.start()
            is_shown.wait()
            assert tasks.wait_idle(10)
        thread.join()
