"""How an executor is tried out: calls that come back in time, and jobs that are let go."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NoReturn, final

import trio

from namedtasks._core.text import error_text, repr_of
from namedtasks.testing import _jobs
from namedtasks.testing._jobs import NotLetGoError

Executor = Callable[..., Awaitable[Any]]


@final
class Trial:
    """The executor, and where and for how long it is trial."""

    def __init__(self, executor: Executor, folder: str, patience: float) -> None:
        self.executor = executor
        self.folder = folder
        self.patience = patience
        self._held: list[HeldCall] = []

    async def call(self, rule: str, fn: Callable[..., object], *args: object) -> Any:
        given: Any = None
        with trio.move_on_after(self.patience) as scope:
            given = await self.executor(fn, *args)
        if scope.cancelled_caught:
            broken(rule, f"{fn.__name__}() has not come back after {self.patience:g} s")
        return given

    async def result(self, rule: str, fn: Callable[..., object], *args: object) -> Any:
        """What the call gives; it must not raise."""
        try:
            return await self.call(rule, fn, *args)
        except AssertionError:
            raise
        except Exception as error:
            broken(rule, f"{fn.__name__}() raised {error_text(error)}", error)

    @contextlib.asynccontextmanager
    async def open_nursery(self) -> AsyncGenerator[trio.Nursery]:
        """A nursery for calls, which a broken rule leaves bare, with no job left to hold it up."""
        rule_broken: AssertionError | None = None
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except AssertionError as error:
                rule_broken = error
                nursery.cancel_scope.cancel()
                for call in self._held:
                    call.let_go()
        if rule_broken is not None:
            raise rule_broken

    def held(self, name: str) -> HeldCall:
        """A call, not yet made, for a job that runs until it is let go."""
        call = HeldCall(self, name)
        self._held.append(call)
        return call

    async def start_held(self, rule: str, nursery: trio.Nursery, name: str) -> HeldCall:
        """Start a job that runs until it is let go, and wait until it does run."""
        call = self.held(name)
        nursery.start_soon(call.run)
        with trio.move_on_after(self.patience):
            while not call.has_begun() and not call.done.is_set():  # noqa: ASYNC110
                await trio.sleep(_jobs.LOOK_EVERY)
        if not call.has_begun():
            what = call.outcome() if call.done.is_set() else f"waited for {self.patience:g} s"
            broken(rule, f"it {what}, and the job had not begun", call.error)
        return call


@final
class HeldCall:
    """A call of the executor for a job that runs until it is let go."""

    def __init__(self, trial: Trial, name: str) -> None:
        self._trial = trial
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
        trial = self._trial
        with self.scope:
            try:
                self.result = await trial.executor(
                    _jobs.hold, trial.folder, self._name, trial.patience
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
        _jobs.path_of(self._trial.folder, self._name, "go").touch()

    def has_begun(self) -> bool:
        return "start" in _jobs.notes(self._trial.folder, self._name)

    def has_ended(self) -> bool:
        return "end" in _jobs.notes(self._trial.folder, self._name)

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
            broken(rule, f"it {self.outcome()} for {self.expected!r}", self.error)

    async def come_back(self, rule: str) -> None:
        with trio.move_on_after(self._trial.patience):
            await self.done.wait()
        if not self.done.is_set():
            broken(rule, f"it has not come back {self._trial.patience:g} s after the job's end")


def broken(rule: str, how: str, cause: BaseException | None = None) -> NoReturn:
    """Tell which rule the executor breaks, and how."""
    raise AssertionError(f"the executor breaks the rule that {rule}: {how}") from cause
