"""A check that an executor keeps the rules that a task map relies on.

Each rule is a sentence, with a function that checks the executor. The functions that
the executor runs are in `_jobs`.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, final

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from namedtasks._validation import check_callable, check_number, error_text, safe_repr
from namedtasks.testing import _jobs

Executor = Callable[..., Awaitable[Any]]

GRACE = 0.3
"""Seconds in which a cancelled executor reacts, and in which a job that continues ends.

Jobs look for their end every 5 ms. On a machine that is too slow for this, a wrong
executor may pass; a correct one never fails.
"""
LONG = 0.5
"""Seconds that a slow job takes; an executor that abandons jobs earlier is wrong."""
SHORTLY = 0.05
"""Seconds in which an executor does in its own thread what it would do at once."""

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

PROGRAM = "import sys, trio; from namedtasks.testing import _jobs; trio.run(_jobs.use, sys.argv[1])"
"""A program that uses the executor at the place in its argument once, and ends.

It is not a module for ``-m``, because this package would have imported that already.
"""


async def check_executor(
    executor: Executor, *, importable: str | None = None, patience: float = 30.0
) -> None:
    """Check that *executor* does what a task map relies on. Checkpoint.

    This is for the tests of an executor. The executor runs jobs that note their
    start and end in files, so its machine must share the temporary folder with
    this one. Run the check on trio's usual clock, because it waits for threads and
    processes.

    An executor that hangs and cannot be cancelled makes the check hang, too: set a
    time limit in your test runner.

    Args:
        executor: An executor as for `namedtasks.TaskMap.start_thread_soon`.
        importable: The place where a new interpreter finds an executor of this
            kind, as ``"package.module:attribute"``. The interpreter uses it once,
            and must exit. By default it is the executor's own place. A closure, a
            method or a partial has no such place: in that case write a function that
            calls it, at the top level of a module of your tests.
        patience: Seconds to wait for each event.

    Raises:
        AssertionError: the executor breaks a rule; the message names the rule and
            the result.
        TypeError: *executor* cannot be called.
        ValueError: there is no executor at *importable*, or at its own place.

    Example:
        >>> import trio
        >>> trio.run(check_executor, trio.to_thread.run_sync)  # raises nothing: all is well

    .. versionadded:: 0.1
    """
    check_callable("executor", executor)
    check_number("patience", patience)
    place = _place_of(executor) if importable is None else _check_place(importable)
    ended_by: BaseException | None = None
    with tempfile.TemporaryDirectory() as folder:
        async with trio.open_nursery() as nursery:
            trial = _Trial(executor, folder, patience, nursery)
            try:
                await _check_results(trial)
                await _check_errors(trial)
                await _check_slow_job(trial)
                await _check_two_at_once(trial)
                await _check_cancelled_while_running(trial)
                await _check_cancelled_before(trial)
                await _check_pickling(trial)
                await _check_exit(trial, place)
            except BaseException as error:  # raised outside the nursery, so it is not wrapped
                ended_by = error
                nursery.cancel_scope.cancel()
                for call in trial.held:
                    call.let_go()
    if ended_by is not None:
        raise ended_by


def _check_place(importable: str) -> str:
    """Return *importable*, or raise `ValueError` if nothing is found there."""
    if ":" not in importable:
        raise ValueError(
            f"importable must be 'package.module:attribute', not {safe_repr(importable)}"
        )
    try:
        pkgutil.resolve_name(importable)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"there is no executor at {importable}: {error_text(error)}") from error
    return importable


def _place_of(executor: object) -> str:
    """Return the place of *executor*, or raise `ValueError` if it has none."""
    module: object = getattr(executor, "__module__", None)
    importable = f"{module}:{getattr(executor, '__qualname__', None)}"
    with contextlib.suppress(ImportError, AttributeError, ValueError):
        if module != "__main__" and pkgutil.resolve_name(importable) is executor:
            return importable
    raise ValueError(
        "check_executor() also uses the executor in a new interpreter, which does not find it at "
        f"{importable}: pass importable='package.module:attribute', for example of an async "
        "function that calls your executor"
    )


# The rules


async def _check_results(trial: _Trial) -> None:
    for value in (None, 5, "é", b"\0" * 100_000, (1, [2.5], {"a": {3}})):
        given = await trial.call(RESULT, _jobs.echo, value, "second")
        if given != (value, "second"):
            _broken(RESULT, f"it returned {safe_repr(given)} for {safe_repr((value, 'second'))}")
    given = await trial.call(RESULT, _jobs.give_error, "given", 7)
    if type(given) is not _jobs.JobError or given.args != ("given", 7):
        _broken(
            RESULT, f"it returned {safe_repr(given)} for a job that returned JobError('given', 7)"
        )


async def _check_errors(trial: _Trial) -> None:
    try:
        given = await trial.call(ERROR, _jobs.fail, "boom", 7, may_raise=True)
    except _jobs.JobError as error:
        if error.args != ("boom", 7):
            _broken(
                ERROR,
                f"it raised {safe_repr(error)} for a job that raised JobError('boom', 7)",
                error,
            )
    except Exception as error:
        _broken(
            ERROR, f"it raised {error_text(error)} for a job that raised JobError('boom', 7)", error
        )
    else:
        _broken(ERROR, f"it returned {safe_repr(given)} for a job that raised JobError('boom', 7)")
    await _check_works(trial)


async def _check_slow_job(trial: _Trial) -> None:
    call = await trial.start_held(SLOW, "slow")
    with trio.move_on_after(LONG):
        await call.done.wait()
    if call.done.is_set():
        _broken(SLOW, f"it {call.outcome()} before the job had ended", call.error)
    await call.end(SLOW)


async def _check_two_at_once(trial: _Trial) -> None:
    """Check two calls; an executor with one worker may run them one after the other."""
    first = await trial.start_held(TWO, "first")
    second = trial.hold("second")
    trial.nursery.start_soon(second.run)
    await first.end(TWO)
    with trio.move_on_after(GRACE):
        await wait_all_tasks_blocked(SHORTLY)
    if second.done.is_set():
        _broken(TWO, f"the second {second.outcome()} when the first ended", second.error)
    await second.end(TWO)


async def _check_cancelled_while_running(trial: _Trial) -> None:
    call = await trial.start_held(CANCEL, "cancelled")
    call.scope.cancel()
    with trio.move_on_after(GRACE):
        await call.done.wait()
    call.let_go()
    await call.come_back(CANCEL)
    if not call.had_ended:  # then the executor must have stopped the work
        await trio.sleep(GRACE)
        if "end" in call.notes():
            _broken(CANCEL, f"it {call.outcome()} while the job ran on", call.error)
    if not call.was_cancelled and call.result != call.expected:
        _broken(OUTCOME, f"it {call.outcome()}", call.error)
    await _check_works(trial)


async def _check_cancelled_before(trial: _Trial) -> None:
    call = trial.hold("cancelled-before")
    call.let_go()  # the work may begin, and then the call must wait for its end
    call.scope.cancel()
    await call.run()
    notes = call.notes()
    await trio.sleep(GRACE)
    if call.notes() != notes:
        _broken(UNBEGUN, f"it {call.outcome()}, and the job ran after that")


async def _check_pickling(trial: _Trial) -> None:
    for fn, args in ((_jobs.echo, (threading.Lock(),)), (_jobs.give_lock, ())):
        try:
            await trial.call(PICKLING, fn, *args, may_raise=True)
        except (AssertionError, KeyboardInterrupt, trio.Cancelled):
            raise
        except Exception:
            pass  # the arguments or the result cannot be sent
        except BaseException as error:
            _broken(PICKLING, f"it raised {error_text(error)}", error)
        await _check_works(trial)


async def _check_works(trial: _Trial) -> None:
    given = await trial.call(AFTERWARDS, _jobs.echo, "still")
    if given != ("still",):
        _broken(AFTERWARDS, f"the next call returned {safe_repr(given)} for ('still',)")


async def _check_exit(trial: _Trial, importable: str) -> None:
    async def kill(process: trio.Process) -> None:
        process.kill()

    log = trio.Path(trial.folder, "exit.log")
    path = os.pathsep.join(entry or os.curdir for entry in sys.path)
    done: subprocess.CompletedProcess[bytes] | None = None
    async with await log.open("wb") as output:  # a remaining worker would keep a pipe open
        with trio.move_on_after(trial.patience):
            done = await trio.run_process(
                [sys.executable, "-c", PROGRAM, importable],
                env={**os.environ, "PYTHONPATH": path},
                stdout=output.fileno(),
                stderr=subprocess.STDOUT,
                check=False,
                deliver_cancel=kill,
            )
    said = (await log.read_text(encoding="utf-8", errors="replace")).strip()
    if done is None:
        _broken(EXIT, f"it still ran after {trial.patience:g} s; it said {said!r}")
    if done.returncode != 0:
        _broken(EXIT, f"it ended with status {done.returncode} and said {said!r}")


def _broken(rule: str, how: str, cause: BaseException | None = None) -> NoReturn:
    raise AssertionError(f"the executor breaks the rule that {rule}: {how}") from cause


# Calls of the executor


@final
@attrs.define(eq=False)
class _Trial:
    """An executor, and the surroundings of its jobs."""

    executor: Executor
    folder: str
    """The folder for the files of the jobs."""
    patience: float
    """The limit of each wait, in seconds."""
    nursery: trio.Nursery
    held: list[_HeldCall] = attrs.field(factory=list["_HeldCall"], init=False)

    async def call(
        self, rule: str, fn: Callable[..., object], *args: object, may_raise: bool = False
    ) -> Any:
        """Call the executor, which must return in time; it may raise only if *may_raise*."""
        with trio.move_on_after(self.patience):
            try:
                return await self.executor(fn, *args)
            except Exception as error:
                if may_raise:
                    raise
                _broken(rule, f"{fn.__name__}() raised {error_text(error)}", error)
        _broken(rule, f"{fn.__name__}() has not returned after {self.patience:g} s")

    def hold(self, name: str) -> _HeldCall:
        """Return a call, not made yet, for a job that runs until it is released."""
        call = _HeldCall(self, name, f"the result of {name}")
        self.held.append(call)
        return call

    async def start_held(self, rule: str, name: str) -> _HeldCall:
        """Start a job that runs until it is released, and wait until it has begun."""
        call = self.hold(name)
        self.nursery.start_soon(call.run)
        with trio.move_on_after(self.patience):
            while not call.notes() and not call.done.is_set():  # noqa: ASYNC110
                await trio.sleep(_jobs.LOOK_EVERY)
        if not call.notes():
            what = call.outcome() if call.done.is_set() else f"waited for {self.patience:g} s"
            _broken(rule, f"it {what}, and the job had not begun", call.error)
        return call


@final
@attrs.define(eq=False)
class _HeldCall:
    """A call of the executor for a job that runs until it is released."""

    _trial: _Trial
    _name: str
    expected: str
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    done: trio.Event = attrs.field(factory=trio.Event, init=False)
    was_cancelled: bool = attrs.field(default=False, init=False)
    had_ended: bool = attrs.field(default=False, init=False)
    """True if the job had ended when the call returned."""
    result: object = attrs.field(default=None, init=False)
    error: BaseException | None = attrs.field(default=None, init=False)

    async def run(self) -> None:
        """Make the call."""
        trial, name = self._trial, self._name
        with self.scope:
            try:
                self.result = await trial.executor(_jobs.hold, trial.folder, name, trial.patience)
            except trio.Cancelled:
                self.was_cancelled = True
                raise
            except Exception as error:
                self.error = error
            finally:
                self.had_ended = "end" in self.notes()
                self.done.set()

    def let_go(self) -> None:
        """Release the job, so that it ends."""
        _jobs.path_of(self._trial.folder, self._name, "go").touch()

    def notes(self) -> list[str]:
        """Return ``["start", "end"]``, or the part of it that has happened."""
        return _jobs.notes(self._trial.folder, self._name)

    def outcome(self) -> str:
        """Return the end of the call, for a message."""
        if self.was_cancelled:
            return "raised trio.Cancelled"
        if isinstance(self.error, _jobs.NotLetGoError):
            return "blocked all other tasks, one of which releases the job,"
        return (
            f"raised {error_text(self.error)}"
            if self.error
            else f"returned {safe_repr(self.result)}"
        )

    async def end(self, rule: str) -> None:
        """Release the job, and check that the call returns its result."""
        self.let_go()
        await self.come_back(rule)
        if self.result != self.expected:
            _broken(rule, f"it {self.outcome()} for {self.expected!r}", self.error)

    async def come_back(self, rule: str) -> None:
        """Wait for the end of the call."""
        with trio.move_on_after(self._trial.patience):
            await self.done.wait()
        if not self.done.is_set():
            _broken(rule, f"it has not ended {self._trial.patience:g} s after the job's end")
