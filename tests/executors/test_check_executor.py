"""`check_executor` passes a right executor, and names the rule that a wrong one breaks."""

import functools
import pathlib
import sys
from typing import Any

import pytest
import trio

from namedtasks.testing import _check_executor, _jobs, check_executor
from tests.executors import broken
from tests.executors.broken import EndsAllAtOnce, StopsWorking, in_thread
from tests.executors.pools import SOON

BRIEF = 1.0
"""Seconds that are waited for what hangs."""

RESULT = "a call returns what the function returns for these arguments"
ERROR = "a call raises what the function raises, with its type and arguments"
TWO = "of two calls at once, each ends by itself"
SLOW = "a call waits for a slow job, while the other tasks of the trio run go on"
CANCEL = "a cancelled call ends when the work has really ended, not earlier"
OUTCOME = "a cancelled call raises trio.Cancelled, or returns or raises what the function does"
UNBEGUN = "a call that was cancelled before its work began leaves no work behind"
PICKLING = "an object that cannot be pickled works, or makes the call raise an Exception"
AFTERWARDS = "an executor works after a call that failed or was cancelled"
EXIT = "an interpreter that has used the executor exits by itself, and in time"

NOT_PICKLED = StopsWorking(lambda fn, args: fn is _jobs.give_lock, "raises")


@pytest.fixture(autouse=True)
def slow_jobs_are_not_so_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("namedtasks.testing._check_executor.LONG", 0.2)


BREACHES: list[tuple[Any, str, str]] = [
    (broken.gives_text, RESULT, "it returned \"(None, 'second')\" for (None, 'second')"),
    (broken.turns_arguments, RESULT, "it returned ('second', None) for (None, 'second')"),
    (broken.raises_what_is_returned, RESULT, "give_error() raised JobError: ('given', 7)"),
    (
        broken.gives_none_for_errors,
        RESULT,
        "it returned None for a job that returned JobError('given', 7)",
    ),
    (
        broken.returns_what_is_raised,
        ERROR,
        "it returned JobError('boom', 7) for a job that raised JobError('boom', 7)",
    ),
    (
        broken.wraps_what_is_raised,
        ERROR,
        "it raised RuntimeError: it failed for a job that raised JobError('boom', 7)",
    ),
    (
        broken.loses_arguments_of_errors,
        ERROR,
        "it raised JobError(\"('boom', 7)\") for a job that raised JobError('boom', 7)",
    ),
    (broken.never_begins, SLOW, "it waited for 1 s, and the job had not begun"),
    (broken.refuses_to_begin, SLOW, "it raised OSError: no room, and the job had not begun"),
    (
        broken.blocks_the_loop,
        SLOW,
        "it blocked all other tasks, one of which releases the job, before the job had ended",
    ),
    (broken.gives_up_on_slow_jobs, SLOW, "it returned None before the job had ended"),
    (broken.never_comes_back, SLOW, "it has not ended 1 s after the job's end"),
    (broken.gives_another_result, SLOW, "it returned 5 for 'the result of slow'"),
    (EndsAllAtOnce(), TWO, "the second returned None when the first ended"),
    (broken.abandons, CANCEL, "it raised trio.Cancelled while the job ran on"),
    (broken.abandons_at_the_end, CANCEL, "it raised trio.Cancelled while the job ran on"),
    (broken.hangs_when_cancelled, CANCEL, "it has not ended 1 s after the job's end"),
    (broken.gives_none_when_cancelled, OUTCOME, "it returned None"),
    (broken.fails_when_cancelled, OUTCOME, "it raised OSError: it was interrupted"),
    (
        broken.starts_what_was_cancelled,
        UNBEGUN,
        "it raised trio.Cancelled, and the job ran after that",
    ),
    (broken.hangs_on_locks, PICKLING, "give_lock() has not returned after 1 s"),
    (broken.raises_no_exception_for_locks, PICKLING, "it raised RealError"),
    (
        StopsWorking(lambda fn, args: fn is _jobs.fail, "hangs"),
        AFTERWARDS,
        "echo() has not returned after 1 s",
    ),
    (
        StopsWorking(lambda fn, args: "cancelled" in args, "gives None"),
        AFTERWARDS,
        "the next call returned None for ('still',)",
    ),
    (NOT_PICKLED, AFTERWARDS, "echo() raised OSError: it is broken"),
]


async def test_an_executor_that_keeps_the_rules_passes() -> None:
    await check_executor(trio.to_thread.run_sync)


@pytest.mark.parametrize(
    ("executor", "rule", "how"),
    BREACHES,
    ids=[getattr(breach[0], "__name__", type(breach[0]).__name__) for breach in BREACHES],
)
async def test_an_executor_that_breaks_a_rule_is_told_which(
    executor: Any, rule: str, how: str
) -> None:
    place = f"{in_thread.__module__}:in_thread"
    patience = BRIEF if "1 s" in how or "blocked" in how else SOON
    with pytest.raises(AssertionError) as caught:
        await check_executor(executor, importable=place, patience=patience)
    assert str(caught.value) == f"the executor breaks the rule that {rule}: {how}"


async def test_an_interpreter_that_does_not_exit_is_found_out() -> None:
    """The error has its output, and the interpreter was killed.

    On a busy machine it takes seconds to start.
    """
    with pytest.raises(AssertionError) as caught:
        await check_executor(broken.keeps_the_interpreter, patience=12.0)
    assert str(caught.value) == (
        f"the executor breaks the rule that {EXIT}: it still ran after 12 s; it said 'used'"
    )


async def test_an_interpreter_that_fails_is_found_out() -> None:
    with pytest.raises(AssertionError) as caught:
        await check_executor(broken.is_wrong_elsewhere)
    start = f"the executor breaks the rule that {EXIT}: it ended with status 1 and said 'Traceback"
    assert str(caught.value).startswith(start)
    assert "ValueError: echo(1, 2) returned None" in str(caught.value)


async def test_ctrl_c_is_no_breach() -> None:
    async def executor(fn: Any, *args: object) -> Any:
        result = await in_thread(fn, *args)
        if fn is _jobs.give_lock:
            raise KeyboardInterrupt
        return result

    with pytest.raises(KeyboardInterrupt):
        await check_executor(executor, importable="trio:to_thread.run_sync")


async def test_a_job_that_nobody_lets_go_gives_up(tmp_path: pathlib.Path) -> None:
    with pytest.raises(_jobs.NotLetGoError, match=r"^a job$"):
        _jobs.hold(str(tmp_path), "a job", 0.0)
    assert _jobs.notes(str(tmp_path), "a job") == ["start"]


def test_the_program_uses_the_executor_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-c", "trio:to_thread.run_sync"])
    exec(_check_executor.PROGRAM, {})


async def test_the_program_fails_if_the_result_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"^echo\(1, 2\) returned '\(1, 2\)'$"):
        await _jobs.use(f"{broken.__name__}:gives_text")


# What is no executor, or found nowhere


async def test_what_cannot_be_called_is_refused() -> None:
    check_anything: Any = check_executor
    with pytest.raises(TypeError, match=r"^executor must be callable, not 5$"):
        await check_anything(5)


async def of_a_script(fn: Any, *args: object) -> Any:
    return await in_thread(fn, *args)


of_a_script.__module__ = "__main__"  # another one for each interpreter


@pytest.mark.parametrize(
    "executor",
    [functools.partial(in_thread), EndsAllAtOnce().__call__, of_a_script],
    ids=["partial", "method", "script"],
)
async def test_an_executor_without_a_place_of_its_own_must_be_given_one(executor: Any) -> None:
    """So that no check is left out in silence."""
    with pytest.raises(
        ValueError,
        match=r"^check_executor\(\) also uses the executor in a new interpreter, which does not "
        r"find it at .*: pass importable='package\.module:attribute', for example of an async "
        r"function that calls your executor$",
    ):
        await check_executor(executor)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("trio", r"^importable must be 'package\.module:attribute', not 'trio'$"),
        ("trio:no_such", r"^there is no executor at trio:no_such: AttributeError: .*$"),
        ("no_such:at_all", r"^there is no executor at no_such:at_all: ModuleNotFoundError: .*$"),
    ],
)
async def test_a_place_must_hold_something(place: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        await check_executor(in_thread, importable=place)
