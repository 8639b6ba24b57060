"""A shell without a world: its bodies end when a test says so, and time goes on when it does."""

from __future__ import annotations

import math
from collections.abc import Generator, Hashable, Iterable
from contextlib import contextmanager
from typing import Any

import attrs

from namedtasks._core.backoff import BackoffPolicy
from namedtasks._core.conductor import Conductor
from namedtasks._core.engine import Engine
from namedtasks._core.events import Instrument
from namedtasks._core.pending import IfBusy
from namedtasks._core.runs import LiveRun
from namedtasks._core.slots import Slots


@attrs.define(eq=False)
class Bed:
    """Where who waits would sleep."""

    woken: int = 0
    error: BaseException | None = None
    """Raised once in place of a wake-up."""

    def unpark_all(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.woken += 1

    def __len__(self) -> int:
        return 1


class PlainRun(LiveRun[Bed]):
    """A run that a test ends."""

    __slots__ = ()


class Guard:
    """Counts who is inside."""

    def __init__(self) -> None:
        self.depth = 0
        self.entered = 0

    def __enter__(self) -> None:
        assert self.depth == 0, "the guard need not be one that can be entered twice"
        self.depth += 1
        self.entered += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1


class PlainShell(Conductor[PlainRun, Bed]):
    """What is asked of it, it notes in `did`: what is done, and to which name."""

    def __init__(
        self,
        *,
        backoff: BackoffPolicy | None = None,
        limit: int | None = None,
        instruments: Iterable[Instrument] = (),
        reads_freely: bool = True,
    ) -> None:
        self.time = 0.0
        self.did: list[tuple[str, Hashable]] = []
        self.complaints: list[tuple[str, BaseException]] = []
        self.cannot_begin: dict[Hashable, BaseException] = {}
        """What goes wrong when the body of a name is to begin."""
        self.looked_at_timers = 0
        self.locked = Guard()
        engine: Engine[PlainRun] = Engine(
            backoff=backoff,
            retention=10.0,
            limit=limit,
            overdue_after=2.5,
            instruments=instruments,
            random=lambda: 0.0,
            complain=self.complain,
        )
        super().__init__(
            engine,
            now=lambda: self.time,
            make_lot=Bed,
            guard=self.locked,
            reads_freely=reads_freely,
            complain=self.complain,
        )

    def complain(self, what: str, error: BaseException) -> None:
        self.complaints.append((what, error))

    # What a test does

    def make_run(
        self,
        name: Hashable,
        operation: str | None = None,
        timeout: float = math.inf,
        slots: Slots[PlainRun] | None = None,
    ) -> PlainRun:
        run = PlainRun(name, operation, timeout, slots or self.engine.slots, self)
        run.handle = f"handle of {name}"
        run.waiters = Bed()
        return run

    def start(
        self,
        name: Hashable,
        if_busy: IfBusy = "refuse",
        operation: str | None = None,
        *,
        timeout: float = math.inf,
        slots: Slots[PlainRun] | None = None,
    ) -> PlainRun:
        """Start as a shell does whose bodies are there at once."""
        admission = self._admit(
            name, operation, lambda: self.make_run(name, operation, timeout, slots), if_busy
        )
        assert admission is not None
        run = admission.run
        if admission.begins:
            self.engine.begin(run, self.time)
        if admission.is_put_off:
            self._accept(run)
        return run

    def succeed(self, run: PlainRun) -> None:
        self.end(run, None, stopped=False)

    def fail(self, run: PlainRun, error: BaseException | None = None) -> None:
        self.end(run, ValueError("boom") if error is None else error, stopped=False)

    def taken(self) -> list[tuple[str, Hashable]]:
        """What was done since the last time."""
        did, self.did = self.did, []
        return did

    @contextmanager
    def wakes(self, *beds: Any) -> Generator[None]:
        """Inside of this each of *beds* is woken at least once."""
        before = [bed.woken for bed in beds]
        yield
        assert all(bed.woken > old for bed, old in zip(beds, before, strict=True))

    @contextmanager
    def wakes_not(self, *beds: Any) -> Generator[None]:
        """Inside of this none of *beds* is woken."""
        before = [bed.woken for bed in beds]
        yield
        assert [bed.woken for bed in beds] == before

    # What a shell does

    def _note(self, what: str, name: Hashable) -> None:
        assert self.locked.depth == 0, "the user's code may run here: not under the guard"
        self.did.append((what, name))

    def _is_unbegun(self, run: PlainRun) -> bool:
        return not run.has_slot

    def _let_go(self, run: PlainRun) -> None:
        self._note("drop", run.name)

    def _stop(self, run: PlainRun) -> None:
        self._note("stop", run.name)

    def _timers_changed(self) -> None:
        assert self.locked.depth == 0
        self.looked_at_timers += 1

    def _begin_soon(self, run: PlainRun) -> BaseException | None:
        self._note("begin", run.name)
        error = self.cannot_begin.get(run.name)
        if error is None:
            self.engine.begin(run, self.time)
        return error

    def _tell(self, run: PlainRun) -> None:
        assert run.done
        self._note("tell", run.name)

    def _too_slow(self, text: str) -> Exception:
        return TimeoutError(text)

    def deliver(self) -> None:
        assert self.locked.depth == 0
        if self.engine.dispatch._noted:
            self._note("deliver", None)
        self.engine.dispatch.deliver()
