"""The tracebacks that the default instrument logs: the user's frames, and none of ours."""

from __future__ import annotations

import asyncio
import functools
import logging
import pathlib
import sys
import threading
import time
import types
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NoReturn

import pytest
import trio

import namedtasks
import namedtasks.asyncio
from namedtasks import Backoff, LoggingInstrument, TaskCancelledError
from namedtasks._logging import exc_info_of, has_details
from namedtasks.executors import from_pool
from namedtasks.instruments import Instrument, TaskFailed
from tests.executors.kinds import process_pool

PACKAGE = pathlib.Path(namedtasks.__file__).parent

# Each line of a body that a traceback shows is a whole statement.


def boom() -> None:
    raise ValueError("boom")


async def boom_async() -> None:
    raise ValueError("boom")


def outer(fail: Callable[[], object] = boom) -> None:
    fail()


async def outer_async(fail: Callable[[], object] = boom) -> None:
    fail()


class Fails:
    """Its instances are functions, too."""

    def __call__(self) -> None:
        raise ValueError("boom")

    def method(self) -> None:
        raise ValueError("boom")


def frame(fn: Any, line: int) -> str:
    """Return the frame of *fn* in a traceback, at the line of this number below its ``def``."""
    code: types.CodeType = fn.__code__
    number = code.co_firstlineno + line
    source = pathlib.Path(__file__).read_text(encoding="utf-8").splitlines()[number - 1].strip()
    return f'  File "{__file__}", line {number}, in {code.co_name}\n    {source}\n'


UNHASHABLE: Any = []

HEADER = "Traceback (most recent call last):\n"
BOOM = f"{HEADER}{frame(boom, 1)}ValueError: boom\n"
BOOM_ASYNC = f"{HEADER}{frame(boom_async, 1)}ValueError: boom\n"
CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"


def without_carets(text: str) -> str:
    """Return *text* without the lines that mark a part of the line above."""
    lines = [line for line in text.splitlines() if not line.strip() or line.strip(" |~^")]
    return "".join(f"{line}\n" for line in lines)


class Lines(logging.Handler):
    """Keeps the text of what is logged: messages and tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.tracebacks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        if record.exc_info is not None:
            text = logging.Formatter().formatException(record.exc_info)
            self.tracebacks.append(without_carets(text))


def logging_to(lines: Lines, **settings: Any) -> LoggingInstrument:
    logger = logging.getLogger("tests.lines")
    logger.handlers = [lines]
    logger.propagate = False
    return LoggingInstrument(logger, **settings)


class Dialect:
    """Runs a body in a map of its own, and returns what was logged."""

    words: tuple[str, str]
    """The methods that start an async and a plain function."""

    def open(self, start: Callable[[Any], object], **settings: Any) -> None:
        """Call *start* with a map, inside its block."""
        raise NotImplementedError

    def run(
        self,
        fn: Callable[..., Any],
        *args: Any,
        plain: bool = False,
        gives_map: bool = False,
        **options: Any,
    ) -> Lines:
        """Run *fn*: in a thread if it is *plain*, and with the map as argument if *gives_map*."""
        lines = Lines()

        def start(tasks: Any) -> None:
            given = (tasks,) if gives_map else args
            getattr(tasks, self.words[plain])("a", fn, *given, **options)

        self.open(start, instruments=[logging_to(lines)])
        return lines


class OnAsyncio(Dialect):
    words = ("create_task", "run_in_executor")

    def open(self, start: Callable[[Any], object], **settings: Any) -> None:
        async def main() -> None:
            async with namedtasks.asyncio.open_task_map(**settings) as tasks:
                start(tasks)
                await tasks.wait_idle()

        asyncio.run(main())


class InThreads(Dialect):
    words = ("submit", "submit")

    def open(self, start: Callable[[Any], object], **settings: Any) -> None:
        with namedtasks.ThreadTaskMap(**settings) as tasks:
            start(tasks)
            tasks.wait_idle()


class OnTrio(Dialect):
    words = ("start_soon", "start_thread_soon")

    def open(self, start: Callable[[Any], object], **settings: Any) -> None:
        async def main() -> None:
            async with namedtasks.open_task_map(**settings) as tasks:
                start(tasks)
                await tasks.wait_idle()

        trio.run(main)


ASYNCIO, THREADS, TRIO = OnAsyncio(), InThreads(), OnTrio()
ALL = pytest.mark.parametrize(
    "dialect", [ASYNCIO, THREADS, TRIO], ids=["asyncio", "threads", "trio"]
)
TWO = pytest.mark.parametrize("dialect", [ASYNCIO, TRIO], ids=["asyncio", "trio"])


def executor_of(dialect: Dialect, pool: Executor) -> Any:
    return from_pool(pool) if dialect is TRIO else pool


# Bodies


@TWO
def test_a_coroutine_begins_with_its_own_frame(dialect: Dialect) -> None:
    assert [BOOM_ASYNC] == dialect.run(boom_async).tracebacks


@TWO
def test_a_coroutine_shows_what_it_calls(dialect: Dialect) -> None:
    expected = f"{HEADER}{frame(outer_async, 1)}{frame(boom, 1)}ValueError: boom\n"
    assert [expected] == dialect.run(outer_async).tracebacks


@ALL
def test_a_thread_begins_with_the_function(dialect: Dialect) -> None:
    expected = f"{HEADER}{frame(outer, 1)}{frame(boom, 1)}ValueError: boom\n"
    assert [expected] == dialect.run(outer, plain=True).tracebacks


@ALL
def test_a_pool_of_threads_begins_with_the_function(dialect: Dialect) -> None:
    with ThreadPoolExecutor(1) as pool:
        lines = dialect.run(boom, plain=True, executor=executor_of(dialect, pool))
    assert [BOOM] == lines.tracebacks


@ALL
@pytest.mark.parametrize(
    ("fn", "code_of"),
    [
        (functools.partial(functools.partial(boom)), boom),
        (Fails(), Fails.__call__),
        (Fails().method, Fails.method),
    ],
    ids=["partial", "callable", "method"],
)
def test_it_begins_with_what_was_given(dialect: Dialect, fn: Any, code_of: Any) -> None:
    expected = f"{HEADER}{frame(code_of, 1)}ValueError: boom\n"
    assert [expected] == dialect.run(fn, plain=True).tracebacks


@ALL
@pytest.mark.parametrize("plain", [False, True])
def test_each_attempt_of_a_retried_run_begins_with_the_function(
    dialect: Dialect, plain: bool
) -> None:
    is_async = dialect is not THREADS and not plain
    fn: Any = boom_async if is_async else boom
    expected = BOOM_ASYNC if is_async else BOOM
    lines = Lines()
    backoff = Backoff(initial=0.001, give_up_after=3)
    dialect.open(
        lambda tasks: getattr(tasks, dialect.words[plain])("a", fn, retry=True, backoff=backoff),
        instruments=[logging_to(lines, traceback="always")],
    )
    assert [expected] * 3 == lines.tracebacks


class OwnPool(Executor):
    """A pool of somebody's, with frames of its own around each function."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        threading.Thread(target=self.work, args=(future, fn, *args)).start()
        return future

    def work(self, future: Future[Any], fn: Callable[..., Any], *args: Any) -> None:
        try:
            future.set_result(fn(*args))
        except BaseException as error:
            future.set_exception(error)


async def own_executor(fn: Callable[..., Any], *args: Any) -> Any:
    return await trio.to_thread.run_sync(fn, *args)


@ALL
def test_an_executor_of_ones_own_is_left_out(dialect: Dialect) -> None:
    executor = own_executor if dialect is TRIO else OwnPool()
    assert [BOOM] == dialect.run(boom, plain=True, executor=executor).tracebacks


def test_an_executor_that_fails_itself_is_shown() -> None:
    async def refuses(fn: Callable[..., Any], *args: Any) -> NoReturn:
        raise ValueError("boom")

    lines = TRIO.run(boom, plain=True, executor=refuses)
    assert [f"{HEADER}{frame(refuses, 1)}ValueError: boom\n"] == lines.tracebacks


@ALL
@pytest.mark.parametrize("pool", [None, "threads", "own"])
def test_a_function_written_in_c_fails_in_one_line(dialect: Dialect, pool: str | None) -> None:
    options: dict[str, Any] = {}
    with ThreadPoolExecutor(1) as threads:
        if pool == "threads":
            options["executor"] = executor_of(dialect, threads)
        elif pool == "own":
            options["executor"] = own_executor if dialect is TRIO else OwnPool()
        lines = dialect.run(int, "x", plain=True, **options)
    (message,) = lines.messages
    assert message.endswith("): ValueError: invalid literal for int() with base 10: 'x'")
    assert "namedtasks" not in "".join(lines.tracebacks)
    if pool != "own":
        assert [] == lines.tracebacks


@ALL
def test_a_process_shows_the_traceback_that_it_sent(dialect: Dialect) -> None:
    lines = dialect.run(boom, plain=True, executor=executor_of(dialect, process_pool()))
    (text,) = lines.tracebacks
    assert text.startswith("concurrent.futures.process._RemoteTraceback: \n")
    assert text.endswith(f'{frame(boom, 1)}ValueError: boom\n"""\n{CAUSED}ValueError: boom\n')
    assert str(PACKAGE) not in text


# What a body calls


async def waits_on_asyncio(tasks: namedtasks.asyncio.TaskMap) -> None:
    await tasks.create_task("b", boom_async)


def waits_in_threads(tasks: namedtasks.ThreadTaskMap) -> None:
    tasks.submit("b", boom).result()


async def waits_on_trio(tasks: namedtasks.TaskMap) -> None:
    await tasks.start_soon("b", boom_async).wait()


def test_on_asyncio_a_run_that_awaits_another_shows_both() -> None:
    inner, outermost = ASYNCIO.run(waits_on_asyncio, gives_map=True).tracebacks
    assert BOOM_ASYNC == inner
    frames = f"{frame(waits_on_asyncio, 1)}{frame(boom_async, 1)}"
    assert f"{HEADER}{frames}ValueError: boom\n" == outermost


def test_in_threads_a_run_that_waits_for_another_shows_both() -> None:
    inner, outermost = THREADS.run(waits_in_threads, gives_map=True).tracebacks
    assert BOOM == inner
    frames = f"{frame(waits_in_threads, 1)}{frame(boom, 1)}"
    assert f"{HEADER}{frames}ValueError: boom\n" == outermost


def test_on_trio_a_run_that_waits_for_another_shows_both() -> None:
    inner, outermost = TRIO.run(waits_on_trio, gives_map=True).tracebacks
    assert BOOM_ASYNC == inner
    ours = "namedtasks.TaskFailedError: task 'b' failed: ValueError: boom\n"
    assert f"{BOOM_ASYNC}{CAUSED}{HEADER}{frame(waits_on_trio, 1)}{ours}" == outermost


async def refused_on_asyncio(tasks: namedtasks.asyncio.TaskMap) -> None:
    await tasks.create_task("a", boom_async)


def refused_in_threads(tasks: namedtasks.ThreadTaskMap) -> None:
    tasks.submit("a", boom)


async def refused_on_trio(tasks: namedtasks.TaskMap) -> None:
    tasks.start_soon("a", boom_async)


@pytest.mark.parametrize(
    ("dialect", "body"),
    [(ASYNCIO, refused_on_asyncio), (THREADS, refused_in_threads), (TRIO, refused_on_trio)],
)
def test_a_refused_start_ends_with_the_call(dialect: Dialect, body: Callable[..., Any]) -> None:
    (text,) = dialect.run(body, gives_map=True).tracebacks
    before, _, last = text.rpartition("namedtasks.")
    assert f"{HEADER}{frame(body, 1)}" == before
    assert last.startswith("AlreadyRunningError: task 'a' is already running")


def unhashable(tasks: namedtasks.ThreadTaskMap) -> None:
    tasks.submit(UNHASHABLE, boom)


def test_a_mistake_in_a_call_ends_with_the_call() -> None:
    """Its cause, which comes from a hash that we have asked for, has no frame of ours either."""
    (text,) = THREADS.run(unhashable, gives_map=True).tracebacks
    cause, _, mistake = text.partition(CAUSED)
    assert cause == "TypeError: unhashable type: 'list'\n"
    assert mistake.startswith(
        f"{HEADER}{frame(unhashable, 1)}TypeError: a task's name must be hashable"
    )


def asks_for_a_missing_name(tasks: namedtasks.ThreadTaskMap) -> None:
    tasks["missing"]


def asks_for_an_unhashable_name(tasks: namedtasks.ThreadTaskMap) -> None:
    tasks.forget(UNHASHABLE)


def gives_no_predicate(tasks: namedtasks.ThreadTaskMap) -> None:
    tasks.cancel_matching(UNHASHABLE)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (asks_for_a_missing_name, "KeyError: "),
        (asks_for_an_unhashable_name, "TypeError: "),
        (gives_no_predicate, "TypeError: "),
    ],
)
def test_an_error_that_we_leave_to_python_ends_with_the_call(
    body: Callable[..., Any], error: str
) -> None:
    text = THREADS.run(body, gives_map=True).tracebacks[0]
    assert text.startswith(f"{HEADER}{frame(body, 1)}{error}")
    assert str(PACKAGE) not in text


def calls_from_the_middle(tasks: namedtasks.ThreadTaskMap) -> None:
    tasks.cancel_matching(lambda name: boom())


def test_frames_of_ours_in_the_middle_are_left_out() -> None:
    (text,) = THREADS.run(calls_from_the_middle, gives_map=True).tracebacks
    assert str(PACKAGE) not in text
    assert text.startswith(f"{HEADER}{frame(calls_from_the_middle, 1)}")
    assert text.endswith(f"{frame(boom, 1)}ValueError: boom\n")


# Chains and groups


def chained(tasks: namedtasks.ThreadTaskMap) -> None:
    try:
        tasks.submit("b", boom).result()
    except ValueError as error:
        raise KeyError("chained") from error


def in_context(tasks: namedtasks.ThreadTaskMap) -> None:
    try:
        tasks.submit("b", boom).result()
    except ValueError:
        raise KeyError("chained")  # noqa: B904 - that is the case


def grouped(tasks: namedtasks.ThreadTaskMap) -> None:
    try:
        tasks.submit("b", boom).result()
    except ValueError as error:
        raise ExceptionGroup("two", [error, KeyError("other")]) from None


def test_a_cause_has_no_frames_of_ours() -> None:
    text = THREADS.run(chained, gives_map=True).tracebacks[-1]
    cause = f"{HEADER}{frame(chained, 2)}{frame(boom, 1)}ValueError: boom\n"
    assert f"{cause}{CAUSED}{HEADER}{frame(chained, 4)}KeyError: 'chained'\n" == text


def test_a_context_has_no_frames_of_ours() -> None:
    text = THREADS.run(in_context, gives_map=True).tracebacks[-1]
    context = f"{HEADER}{frame(in_context, 2)}{frame(boom, 1)}ValueError: boom\n"
    during = "\nDuring handling of the above exception, another exception occurred:\n\n"
    assert f"{context}{during}{HEADER}{frame(in_context, 4)}KeyError: 'chained'\n" == text


def test_the_members_of_a_group_have_no_frames_of_ours() -> None:
    text = THREADS.run(grouped, gives_map=True).tracebacks[-1]
    assert str(PACKAGE) not in text
    plain = "\n".join(line.lstrip(" |+") for line in text.splitlines())
    member = f"{HEADER}{frame(grouped, 2)}{frame(boom, 1)}ValueError: boom\n"
    assert "\n".join(line.lstrip() for line in member.splitlines()) in plain


def test_errors_that_refer_to_each_other_are_no_trap() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    group = ExceptionGroup("both", [first, second])
    group.__context__ = first
    assert exc_info_of(group) == (ExceptionGroup, group, None)


# Errors of ours, and by mistake of ours


def asks_when_to_stop() -> None:
    while True:
        namedtasks.current_run().check_cancelled()
        time.sleep(0.001)


async def sleeps_on_asyncio() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    ("dialect", "body", "plain"),
    [
        (THREADS, asks_when_to_stop, True),
        (TRIO, asks_when_to_stop, True),
        (TRIO, trio.sleep_forever, False),
    ],
)
def test_a_timeout_is_one_line(dialect: Dialect, body: Any, plain: bool) -> None:
    lines = dialect.run(body, plain=plain, timeout=0.001)
    (message,) = lines.messages
    assert message.endswith("Error: it took longer than its timeout of 0.001 s")
    assert [] == lines.tracebacks


def test_on_asyncio_a_timeout_shows_where_the_body_stopped() -> None:
    (text,) = ASYNCIO.run(sleeps_on_asyncio, timeout=0.001).tracebacks
    said = "it took longer than its timeout of 0.001 s\n"
    cancelled = f"asyncio.exceptions.CancelledError: {said}"
    assert f"{HEADER}{frame(sleeps_on_asyncio, 1)}{cancelled}{CAUSED}TimeoutError: {said}" == text


def test_a_cancellation_that_no_body_saw_adds_nothing() -> None:
    error = TimeoutError("it took longer than its timeout of 1 s")
    error.__cause__ = TaskCancelledError("a", None)
    assert not has_details(exc_info_of(error))
    error.__cause__ = ValueError("why")
    assert has_details(exc_info_of(error))


@ALL
def test_a_coroutine_in_place_of_a_value_is_one_line(dialect: Dialect) -> None:
    lines = dialect.run(lambda: boom_async(), plain=True)
    (message,) = lines.messages
    assert " returned a coroutine, which was not awaited: " in message
    assert [] == lines.tracebacks


@ALL
def test_an_exit_in_a_thread_is_one_line(dialect: Dialect) -> None:
    lines = dialect.run(sys.exit, 3, plain=True)
    (message,) = lines.messages
    assert message.endswith("): SystemExit: 3")
    assert [] == lines.tracebacks


def compiled_as_ours(source: str) -> Callable[[], object]:
    """Return the function ``fn`` of *source*, compiled as if it were a file of this package."""
    namespace: dict[str, Any] = {}
    exec(compile(source, str(PACKAGE / "_scheduler.py"), "exec"), namespace)
    fn: Callable[[], object] = namespace["fn"]
    return fn


def test_a_call_of_ours_that_raises_is_shown_where_it_was_called() -> None:
    fn = compiled_as_ours("def fn():\n    raise KeyError('on purpose')")
    expected = f"{HEADER}{frame(outer, 1)}KeyError: 'on purpose'\n"
    assert [expected] == THREADS.run(outer, fn).tracebacks


# The error itself


class Keeps(Instrument):
    """Keeps the error, and its traceback before and after it is logged."""

    def __init__(self) -> None:
        self.tracebacks: list[Any] = []

    def task_failed(self, event: TaskFailed, /) -> None:
        self.tracebacks.append(event.error.__traceback__)


def test_the_error_itself_is_left_as_it_is() -> None:
    before, after = Keeps(), Keeps()
    lines = Lines()
    ASYNCIO.open(
        lambda tasks: tasks.create_task("a", boom_async),
        instruments=[before, logging_to(lines), after],
    )
    assert [BOOM_ASYNC] == lines.tracebacks
    assert before.tracebacks == after.tracebacks
    assert before.tracebacks[0] is after.tracebacks[0]


def test_an_error_without_frames_of_ours_keeps_its_own_traceback() -> None:
    with pytest.raises(ValueError, match=r"^boom$") as caught:
        boom()
    assert exc_info_of(caught.value)[2] is caught.value.__traceback__


def test_a_syntax_error_is_shown_with_its_line() -> None:
    with pytest.raises(SyntaxError) as caught:
        compile("a b", "settings.py", "exec")
    error = caught.value.with_traceback(None)
    assert has_details(exc_info_of(error))


def test_notes_are_shown() -> None:
    error = ValueError("boom")
    assert not has_details(exc_info_of(error))
    error.add_note("while volume vol-1 was attached")
    assert has_details(exc_info_of(error))


def test_a_frame_without_line_numbers_is_kept() -> None:
    def unnumbered() -> None:
        fn()

    fn = compiled_as_ours("def fn():\n    raise KeyError('on purpose')")
    unnumbered.__code__ = unnumbered.__code__.replace(co_linetable=b"")
    with pytest.raises(KeyError) as caught:
        unnumbered()
    clean = exc_info_of(caught.value)[2]
    assert clean is not None
    assert clean.tb_next is not None
    assert clean.tb_next.tb_frame.f_code is unnumbered.__code__
    assert clean.tb_next.tb_next is None
