"""Tells whether something is an executor that a task map can rely on."""

from __future__ import annotations

import contextlib
import os
import pkgutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NoReturn, final

import trio
from trio.testing import wait_all_tasks_blocked

from namedtasks._core import checks
from namedtasks._core.text import error_text, repr_of
from namedtasks.testing import _jobs
from namedtasks.testing._jobs import JobError, NotLetGoError

Executor = Callable[..., Awaitable[Any]]

GRACE = 0.3
"""Seconds for an executor to react when it is cancelled, and for a job that goes on to show it.

Jobs look every 5 ms. On a machine that is so slow that this does not do, a wrong
executor may pass; a right one is never blamed.
"""
LONG = 0.5
"""Seconds that a slow job takes. What gives up on jobs earlier is no executor for us."""
SHORTLY = 0.05
"""Seconds for an executor to do in its own thread what it would do at once."""

RESULT = "a call gives back what the function returns for just these arguments"
ERROR = "a call raises what the function raises, with its type and arguments"
TWO = "two calls at once each have an end of their own"
SLOW = "a slow job is waited for, while the other tasks of the trio run go on"
CANCEL = "a cancelled call comes back when the work has really ended, not earlier"
OUTCOME = "a cancelled call lets trio.Cancelled out, or gives or raises what the function does"
UNBEGUN = "a call that was cancelled before its work began leaves no work behind"
PICKLING = "what cannot be pickled works, or makes the call raise an Exception"
AFTERWARDS = "an executor goes on to work after a call that failed or was cancelled"
EXIT = "an interpreter that has used the executor exits by itself, and in time"


async def check_executor(
    executor: Executor, *, importable: str | None = None, patience: float = 30.0
) -> None:
    """Check that *executor* does what a task map relies on. Checkpoint.

    For the tests of whoever implements an executor. It has jobs run that write
    down their start and end in files, so the executor's machine must share the
    temporary folder with this one. Run it on trio's usual clock: it waits for
    threads and processes.

    An executor that hangs and cannot be cancelled hangs the check, too: let
    your test runner have a limit.

    Args:
        executor: What you would give to `namedtasks.TaskMap.start_thread_soon`.
        importable: Where a new interpreter finds an executor of this kind, as
            ``"package.module:attribute"``: there it is used once, and the
            interpreter must exit. By default it is the executor's own place. One
            that has no such place, such as a closure, a method or a partial,
            needs to be told: write a function at the top level of a module of
            your tests that calls it.
        patience: Seconds until something that should come is given up.

    Raises:
        AssertionError: the executor breaks a rule; the text says which and how.
        TypeError: *executor* cannot be called.
        ValueError: it is not found at *importable*, or at its own place.

    Example:
        >>> import trio
        >>> trio.run(check_executor, trio.to_thread.run_sync)  # raises nothing: all is well

    .. versionadded:: 0.1
    """
    checks.function("executor", executor)
    checks.number("patience", patience)
    place = _place_of(executor) if importable is None else _checked_place(importable)
    with tempfile.TemporaryDirectory() as folder:
        tried = _Tried(executor, folder, patience)
        await _check_results(tried)
        await _check_errors(tried)
        await _check_slow_job(tried)
        await _check_two_at_once(tried)
        await _check_cancelled_while_running(tried)
        await _check_cancelled_before(tried)
        await _check_pickling(tried)
        await _check_exit(place, folder, patience)


# The rules


async def _check_results(tried: _Tried) -> None:
    values = (None, 5, "é", b"\0" * 100_000, (1, [2.5], {"a": {3}}))
    for value in values:
        given = await tried.result(RESULT, _jobs.echo, value, "second")
        if given != (value, "second"):
            _broken(RESULT, f"it gave {repr_of(given)} for {repr_of((value, 'second'))}")
    given = await tried.result(RESULT, _jobs.give_error, "given", 7)
    if type(given) is not JobError or given.args != ("given", 7):
        _broken(RESULT, f"it gave {repr_of(given)} for JobError('given', 7), which was returned")


async def _check_errors(tried: _Tried) -> None:
    try:
        given = await tried.call(ERROR, _jobs.fail, "boom", 7)
    except JobError as error:
        if error.args != ("boom", 7):
            _broken(ERROR, f"it raised {repr_of(error)} for JobError('boom', 7)", error)
    except Exception as error:
        _broken(ERROR, f"it raised {error_text(error)} for JobError('boom', 7)", error)
    else:
        _broken(ERROR, f"it gave {repr_of(given)} for JobError('boom', 7), which was raised")
    await tried.check_works()


async def _check_slow_job(tried: _Tried) -> None:
    async with tried.open_nursery() as nursery:
        call = await tried.start_held(SLOW, nursery, "slow")
        with trio.move_on_after(LONG):
            await call.done.wait()
        if call.done.is_set():
            _broken(SLOW, f"it {call.outcome()} before the job had ended", call.error)
        await call.end(SLOW)


async def _check_two_at_once(tried: _Tried) -> None:
    """Whether they really run at once is up to the executor: it may have one worker."""
    async with tried.open_nursery() as nursery:
        first = await tried.start_held(TWO, nursery, "first")
        second = tried.held("second")
        nursery.start_soon(second.run)
        await first.end(TWO)
        with trio.move_on_after(GRACE):
            await wait_all_tasks_blocked(SHORTLY)
        if second.done.is_set():
            _broken(TWO, f"the second {second.outcome()} when the first ended", second.error)
        await second.end(TWO)


async def _check_cancelled_while_running(tried: _Tried) -> None:
    async with tried.open_nursery() as nursery:
        call = await tried.start_held(CANCEL, nursery, "cancelled")
        call.scope.cancel()
        with trio.move_on_after(GRACE):
            await call.done.wait()
        call.let_go()
        await call.come_back(CANCEL)
    if not call.had_ended:  # then the work was stopped
        await trio.sleep(GRACE)
        if call.has_ended():
            _broken(CANCEL, f"it {call.outcome()} while the job ran on", call.error)
    if not call.was_cancelled and call.result != call.expected:
        _broken(OUTCOME, f"it {call.outcome()}", call.error)
    await tried.check_works()


async def _check_cancelled_before(tried: _Tried) -> None:
    call = tried.held("cancelled-before")
    call.let_go()  # it may begin: then it must be waited for
    call.scope.cancel()
    await call.run()
    begun, ended = call.has_begun(), call.has_ended()
    await trio.sleep(GRACE)
    if call.has_begun() != begun or call.has_ended() != ended:
        _broken(UNBEGUN, f"it {call.outcome()}, and the job ran after that")


async def _check_pickling(tried: _Tried) -> None:
    for fn, args in ((_jobs.echo, (threading.Lock(),)), (_jobs.give_lock, ())):
        try:
            await tried.call(PICKLING, fn, *args)
        except AssertionError:
            raise
        except Exception:
            pass  # the function cannot get there, or its result back: fair enough
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | trio.Cancelled):
                raise
            _broken(PICKLING, f"it raised {error_text(error)}", error)
        await tried.check_works()


async def _check_exit(place: str, folder: str, patience: float) -> None:
    log = trio.Path(folder, "exit.log")
    path = os.pathsep.join(entry or os.curdir for entry in sys.path)
    done: subprocess.CompletedProcess[bytes] | None = None
    async with await log.open("wb") as output:  # a worker left behind would keep a pipe open
        with trio.move_on_after(patience):
            done = await trio.run_process(
                [sys.executable, "-m", "namedtasks.testing._use_executor", place],
                env={**os.environ, "PYTHONPATH": path},
                stdout=output.fileno(),
                stderr=subprocess.STDOUT,
                check=False,
                deliver_cancel=_kill,
            )
    said = (await log.read_text(encoding="utf-8", errors="replace")).strip()
    if done is None:
        _broken(EXIT, f"it still ran after {patience:g} s; it said {said!r}")
    if done.returncode != 0:
        _broken(EXIT, f"it ended with status {done.returncode} and said {said!r}")


async def _kill(process: trio.Process) -> None:
    process.kill()


# How they are tried out


@final
class _Tried:
    """The executor, and where and for how long it is tried."""

    def __init__(self, executor: Executor, folder: str, patience: float) -> None:
        self.executor = executor
        self.folder = folder
        self.patience = patience
        self._held: list[_HeldCall] = []

    async def call(self, rule: str, fn: Callable[..., object], *args: object) -> Any:
        given: Any = None
        with trio.move_on_after(self.patience) as scope:
            given = await self.executor(fn, *args)
        if scope.cancelled_caught:
            _broken(rule, f"{fn.__name__}() has not come back after {self.patience:g} s")
        return given

    async def result(self, rule: str, fn: Callable[..., object], *args: object) -> Any:
        """What the call gives; it must not raise."""
        try:
            return await self.call(rule, fn, *args)
        except AssertionError:
            raise
        except Exception as error:
            _broken(rule, f"{fn.__name__}() raised {error_text(error)}", error)

    async def check_works(self) -> None:
        """Whether it still does what it did before."""
        given = await self.result(AFTERWARDS, _jobs.echo, "still")
        if given != ("still",):
            _broken(AFTERWARDS, f"the next call gave {repr_of(given)} for ('still',)")

    @contextlib.asynccontextmanager
    async def open_nursery(self) -> AsyncGenerator[trio.Nursery]:
        """A nursery for calls, which a broken rule leaves bare, with no job left to hold it up."""
        broken: AssertionError | None = None
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except AssertionError as error:
                broken = error
                nursery.cancel_scope.cancel()
                for call in self._held:
                    call.let_go()
        if broken is not None:
            raise broken

    def held(self, name: str) -> _HeldCall:
        """A call, not yet made, for a job that runs until it is let go."""
        call = _HeldCall(self, name)
        self._held.append(call)
        return call

    async def start_held(self, rule: str, nursery: trio.Nursery, name: str) -> _HeldCall:
        """Start a job that runs until it is let go, and wait until it does run."""
        call = self.held(name)
        nursery.start_soon(call.run)
        with trio.move_on_after(self.patience):
            while not call.has_begun() and not call.done.is_set():  # noqa: ASYNC110
                await trio.sleep(_jobs.LOOK_EVERY)
        if not call.has_begun():
            what = call.outcome() if call.done.is_set() else f"waited for {self.patience:g} s"
            _broken(rule, f"it {what}, and the job had not begun", call.error)
        return call


@final
class _HeldCall:
    """A call of the executor for a job that runs until it is let go."""

    def __init__(self, tried: _Tried, name: str) -> None:
        self._tried = tried
        self._name = name
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.expected = f"the result of {name}"
        self.was_cancelled = False
        self.had_ended = False
        """Whether the job had ended when the call came back."""
        self.result: object = None
        self.error: BaseException | None = None

    async def run(self) -> None:
        """Make the call."""
        tried = self._tried
        with self.scope:
            try:
                self.result = await tried.executor(
                    _jobs.hold, tried.folder, self._name, tried.patience
                )
            except trio.Cancelled:
                self.was_cancelled = True
                raise
            except Exception as error:
                self.error = error
            finally:
                self.had_ended = self.has_ended()
                self.done.set()

    def let_go(self) -> None:
        _jobs.path_of(self._tried.folder, self._name, "go").touch()

    def has_begun(self) -> bool:
        return "start" in _jobs.notes(self._tried.folder, self._name)

    def has_ended(self) -> bool:
        return "end" in _jobs.notes(self._tried.folder, self._name)

    def outcome(self) -> str:
        """What has come of it, for a sentence."""
        if self.was_cancelled:
            return "let trio.Cancelled out"
        if isinstance(self.error, NotLetGoError):
            return "held up all other tasks, one of which was to let the job go,"
        if self.error is not None:
            return f"raised {error_text(self.error)}"
        return f"gave {repr_of(self.result)}"

    async def end(self, rule: str) -> None:
        """Let the job go, and see the call come back with its result."""
        self.let_go()
        await self.come_back(rule)
        if self.result != self.expected:
            _broken(rule, f"it {self.outcome()} for {self.expected!r}", self.error)

    async def come_back(self, rule: str) -> None:
        with trio.move_on_after(self._tried.patience):
            await self.done.wait()
        if not self.done.is_set():
            _broken(rule, f"it has not come back {self._tried.patience:g} s after the job's end")


def _broken(rule: str, how: str, cause: BaseException | None = None) -> NoReturn:
    raise AssertionError(f"the executor breaks the rule that {rule}: {how}") from cause


# Where a new interpreter finds it


def _checked_place(place: str) -> str:
    if ":" not in place:
        raise ValueError(f"importable must be 'package.module:attribute', not {repr_of(place)}")
    try:
        pkgutil.resolve_name(place)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"there is no executor at {place}: {error_text(error)}") from error
    return place


def _place_of(executor: Executor) -> str:
    module: object = getattr(executor, "__module__", None)
    name: object = getattr(executor, "__qualname__", None)
    place = f"{module}:{name}"
    try:
        found = module != "__main__" and pkgutil.resolve_name(place) is executor
    except (ImportError, AttributeError, ValueError):
        found = False
    if not found:
        raise ValueError(
            f"a new interpreter must find the executor, to see whether it exits, and {place} is "
            "not it: pass importable='package.module:attribute', which may be an async function "
            "that calls your executor"
        )
    return place
