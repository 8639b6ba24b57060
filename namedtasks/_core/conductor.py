"""What every shell does the same way: the part between the engine and the world.

A shell is a subclass. It says how a body is stopped, how the next one begins
and who is to be told; everything that needs no world of its own stands here.

The invariants, in every shell:

1. A name is in the ledger from its admission until `_woken`, and each admitted
   run gets there exactly once. No code of the user's can prevent that.
2. A name is freed and all who wait for that are woken in one step, under the
   guard. Then the next run begins, then the run's own handle is told, then the
   instruments hear of it.
3. Under the guard runs no code of the user's but what a dict needs of a name,
   its ``__hash__`` and ``__eq__``, and the clock's ``now``. Whoever calls those
   two does it before anything is changed; if they raise later all the same, the
   table finds its entries without them.

The *guard* is what a call is made under that changes something, be it memory
that is given back: a lock where there are threads, elsewhere a check that the
caller is where it may be. *Reading* is the same for what only looks, `state`,
`failure` and the mapping: the lock, or nothing.
"""

from __future__ import annotations

import abc
import contextlib
import sys
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

from namedtasks._core import checks
from namedtasks._core.complaints import Complain
from namedtasks._core.engine import Engine
from namedtasks._core.errors import AlreadyRunningError, new_error
from namedtasks._core.events import TaskRefused
from namedtasks._core.holds import Holds
from namedtasks._core.names import check_start
from namedtasks._core.obstacles import Overlapping
from namedtasks._core.pending import IfBusy, Move, move
from namedtasks._core.records import Record
from namedtasks._core.runs import LiveRun, LotT, Run
from namedtasks._core.table import Table
from namedtasks._core.text import seconds_text, task_text
from namedtasks._core.turns import NOTHING, Turn, together

RunT = TypeVar("RunT", bound=LiveRun[Any])


class Accepted(NamedTuple, Generic[RunT]):
    """What follows when a run that was put off is there to stay."""

    turn: Turn[RunT]
    doomed: list[RunT]
    """What it replaces."""


class Admission(NamedTuple, Generic[RunT]):
    """What a start has come to that was not refused."""

    run: RunT
    begins: bool = False
    """Whether it has its slot: then the starter begins it."""
    is_put_off: bool = False
    is_joined: bool = False
    """Whether it is somebody else's run."""
    handle: Any = None
    """What to give to the starter."""
    accepted: Accepted[RunT] | None = None
    """What follows from putting it off, if nothing can undo that any more."""


class Conductor(Holds[RunT, LotT], abc.ABC):
    """The state that a map and its handles share."""

    __slots__ = (
        "_complain",
        "block_done",
        "failed_now",
        "guard",
        "overdue_after",
        "pending_now",
        "reading",
        "reads_freely",
        "refuses_plainly",
        "running_now",
    )

    def __init__(
        self,
        engine: Engine[RunT],
        *,
        now: Callable[[], float],
        make_lot: Callable[[], LotT],
        guard: AbstractContextManager[object, None],
        reads_freely: bool,
        complain: Complain,
    ) -> None:
        super().__init__(engine, now, make_lot)
        self.running_now: Table[Hashable, RunT] = engine.ledger.running
        """What runs, by its names."""
        self.failed_now: dict[str | None, Table[Hashable, Record]] = engine.ledger.records.tables
        """What failed, by operations and names."""
        self.pending_now: Table[Hashable, RunT] = engine.ledger.pending
        """What was put off, by its names."""
        self.refuses_plainly: bool = TaskRefused not in engine.dispatch.listeners
        """Whether nothing is to be done about a refusal but to tell the caller."""
        self.overdue_after: float = engine.overdue_after
        self.guard: AbstractContextManager[object, None] = guard
        self.reads_freely: bool = reads_freely
        """Whether to look needs no lock."""
        self.reading: AbstractContextManager[object, None] = (
            nullcontext() if reads_freely else guard
        )
        self._complain = complain
        self.block_done: bool = False
        """Whether the map's block is over: the map closes with its last run."""

    # What only a shell can do

    @abc.abstractmethod
    def _is_unbegun(self, run: RunT) -> bool:
        """Whether the body of *run* has not begun, and can be kept from it. Under the guard."""

    @abc.abstractmethod
    def _let_go(self, run: RunT) -> None:
        """Let go of what a run held that will never begin; its name is free."""

    @abc.abstractmethod
    def _stop(self, run: RunT) -> None:
        """Ask the body of *run* to stop, by the means that there are."""

    @abc.abstractmethod
    def _timers_changed(self) -> None:
        """Called when the timers may have changed: see to it that `on_time` is called next time."""

    @abc.abstractmethod
    def _begin_soon(self, run: RunT) -> BaseException | None:
        """Have the body of *run* begin: it has just got its slot.

        Returns:
            What went wrong, if it never will begin.
        """

    @abc.abstractmethod
    def _tell(self, run: RunT) -> None:
        """Let the handle of *run*, which has ended, know."""

    @abc.abstractmethod
    def _too_slow(self, text: str) -> Exception:
        """What a run has failed with that was stopped by its own deadline."""

    @abc.abstractmethod
    def deliver(self) -> None:
        """Let the instruments hear what was noted."""

    # Starting

    def _admit(
        self,
        name: Hashable,
        operation: str | None,
        make_run: Callable[[], RunT],
        if_busy: IfBusy,
    ) -> Admission[RunT] | None:
        """What a start comes to; None if it was refused and may be skipped.

        Raises:
            RefusedError: something stands in the way.
            TypeError: the name cannot be hashed, or the operation is no text.
            ValueError: ANY stands in the name where it may not.
        """
        check_start(name, operation)
        with self.guard:
            now = self.now()
            obstacle = self.engine.ledger.obstacle(name, operation, now)
            if if_busy == "replace" and isinstance(obstacle, Overlapping):
                # To end those would not do: what waits is refused, whatever else is in its way.
                obstacle = self.engine.ledger.wait_of(name, operation, now) or obstacle
            what = move(obstacle, if_busy)
            if obstacle is None:
                run = make_run()
                self.engine.admit(run, now)
                return Admission(run, begins=run.has_slot, handle=run.handle)
            if what is Move.JOIN:
                return self._join(cast("RunT", obstacle))
            if what is Move.PUT_OFF:
                run = make_run()
                self.engine.put_off(run, cast('Literal["replace", "queue"]', if_busy), obstacle)
                return self._put_off(run)
            error = self.engine.refuse(obstacle, name, operation, now, skip=what is Move.SKIP)
        self.deliver()
        if error is not None:
            raise error
        return None

    def is_skipped(self, name: Hashable, operation: str | None, if_busy: IfBusy) -> bool:
        """Refuse at a glance the start of a name that runs: without a lock, and without a clock.

        It runs at the moment of the look, which is as good as any other. What is
        not as plain as that, `_admit` decides.

        Returns:
            Whether the start was refused and may be skipped.

        Raises:
            AlreadyRunningError: the name runs, and the start may not be skipped.
        """
        if not self.refuses_plainly or not (operation is None or type(operation) is str):
            return False
        try:
            run = self.running_now.get(name)
        except TypeError:  # it cannot be hashed: `_admit` says so, in words
            return False
        if run is None or if_busy not in ("refuse", "skip"):
            return False
        if if_busy == "skip":
            return True
        raise new_error(AlreadyRunningError, name, operation, run.started_at, (run.name,))

    def _join(self, run: RunT) -> Admission[RunT]:
        """Have the start share *run*. Under the guard."""
        return Admission(run, is_joined=True, handle=run.handle)

    def _put_off(self, run: RunT) -> Admission[RunT]:
        """*run* is put off, and `_accept` follows. Under the guard."""
        return Admission(run, is_put_off=True, handle=run.handle)

    def _accept(self, run: RunT) -> None:
        """*run*, which was put off, is there to stay: supersede, and cancel what it replaces."""
        with self.guard:
            accepted = self._accepted(run)
        self._make_way(accepted)

    def _accepted(self, run: RunT) -> Accepted[RunT]:
        """*run* is there to stay, unless it was ended meanwhile. Under the guard."""
        # By its own function, say, which started something newer.
        replaces = run.is_pending and run.put_off == "replace"
        turn = self._woken(self.engine.accept(run, self.now()))
        return Accepted(turn, self.engine.in_the_way(run) if replaces else [])

    def _make_way(self, accepted: Accepted[RunT]) -> None:
        """Carry out what follows from `_accepted`."""
        self._carry_out(accepted.turn)
        self.cancel_each(accepted.doomed, "replaced by a newer start")

    def _roll_back(self, run: RunT) -> None:
        """Undo an admission whose start has raised."""
        with self.guard:
            ended = () if run.done else (run,)
            turn = self._woken(self.engine.roll_back(run, self.now()), *ended)
        self._carry_out(turn, *ended)

    # Ending

    def end(self, run: RunT, error: BaseException | None, *, stopped: bool) -> None:
        """End *run* by what came out of its body.

        Args:
            run: Has a value if there is no error and it was not *stopped*.
            error: What the body raised, and is the run's own affair.
            stopped: Whether the body was cancelled and heeded it.
        """
        self._carry_out(self._settle_safely(run, error, stopped=stopped), run)

    def end_returned(self, run: RunT) -> None:
        """End *run*, which has its value: `end`, with a short cut for what most runs come to.

        For a shell that needs no lock.
        """
        engine = self.engine
        if not engine.succeeded_plainly(run):
            self.end(run, None, stopped=False)
            return
        if run.waiters is not None:
            run.waiters.unpark_all()
        ledger = engine.ledger
        if not ledger.running and not ledger.pending:
            self.quiet.unpark_all()
            if self.block_done:
                self.close_if_over()
        if ledger.records.order:
            ledger.records.sweep(self.now())

    def _settle_safely(
        self, run: RunT, error: BaseException | None, *, stopped: bool
    ) -> Turn[RunT]:
        try:
            return self._settle(run, error, stopped=stopped)
        except BaseException as broken:  # the user's code, in a way that nobody thought of
            self._complain(f"the end of {task_text(run.name, run.operation)} went wrong", broken)
            return self._settle_somehow(run, broken)

    def _settle(self, run: RunT, error: BaseException | None, *, stopped: bool) -> Turn[RunT]:
        if stopped or run.heeded(error):
            if not run.timed_out():
                return self._settle_cancelled(run)
            error = self._too_slow(too_slow_text(run))
        if error is not None:
            return self._settle_failed(run, error)
        with self.guard:
            run.returned = True
            return self._woken(self.engine.succeeded(run, self.now()), run)

    def _settle_failed(self, run: RunT, error: BaseException) -> Turn[RunT]:
        run.error = error
        while True:
            verdict = self.engine.judge(run, error)
            with self.guard:
                if self.engine.stands(run, verdict):
                    return self._woken(self.engine.failed(run, verdict, self.now()), run)

    def _settle_cancelled(self, run: RunT) -> Turn[RunT]:
        with self.guard:
            return self._woken(self.engine.cancelled(run, self.now()), run)

    def _settle_escaped(self, run: RunT, error: BaseException) -> Turn[RunT]:
        with self.guard:
            run.error = error
            return self._woken(self.engine.escaped(run, error, self.now()), run)

    def _settle_somehow(self, run: RunT, broken: BaseException) -> Turn[RunT]:
        """Free the name, whatever else is broken: the first invariant."""
        run.returned = False
        run.error = broken if run.error is None else run.error  # which may be as false as it likes
        if not run.done:
            return self._settle_escaped(run, run.error)
        with self.guard:
            return self._woken(NOTHING, run)

    def _woken(self, turn: Turn[RunT], *ended: RunT) -> Turn[RunT]:
        """Wake who waits for what has come about. Under the guard."""
        for run in (*ended, *turn.dropped):
            run.handle = None
            if run.waiters is not None:
                run.waiters.unpark_all()
        if self.is_idle():
            self.quiet.unpark_all()
        return turn

    def _carry_out(self, turn: Turn[RunT], *ended: RunT) -> None:
        """Do what follows when names are free and who waited is awake. Not under the guard."""
        over = ended if turn is NOTHING else (*ended, *self._begin_and_let_go(turn))
        self._timers_changed()
        for run in over:
            self._tell(run)
        self.deliver()
        if self.block_done:
            self.close_if_over()

    def _begin_and_let_go(self, turn: Turn[RunT]) -> list[RunT]:
        """Begin the one kind of runs, let go of the other; which are over by that."""
        over: list[RunT] = []
        turns = [turn]
        for one in turns:  # one that cannot begin makes room for the next
            for run in one.dropped:
                self._let_go(run)
            over += one.dropped
            for run in one.begin:
                error = self._begin_soon(run)
                if error is not None:
                    over.append(run)
                    turns.append(self._settle_safely(run, error, stopped=False))
        return over

    # Stopping

    def cancel(self, run: RunT, reason: str | None) -> bool:
        """Ask *run* to stop; tell whether it had not ended."""
        checks.reason(reason)
        turn: Turn[RunT] | None = None
        with self.guard:
            if run.done:
                return False
            if run.put_off is not None or self._is_unbegun(run):
                turn = self._woken(self._cancel_unbegun(run, reason))
            else:
                self.engine.ask_to_stop(run, reason, self.now())
        if turn is None:
            self._stop(run)
            self._timers_changed()
        else:
            self._carry_out(turn)
        return True

    def note_lost_worker(self, run: RunT) -> None:
        """Note that the pool of *run* has lost a worker, and has asked the others to terminate.

        They go on, and so does the run, which has failed: it may become overdue.
        """
        with self.guard:
            self.engine.ask_to_stop(run, "a worker of its pool was lost", self.now())
        self._timers_changed()

    def _cancel_unbegun(self, run: RunT, reason: str | None) -> Turn[RunT]:
        """End *run*, whose body has not begun and never will. Under the guard."""
        if run.put_off is not None:
            return self.engine.drop(run, reason, self.now())
        self.engine.ask_to_stop(run, reason, self.now())
        return together(Turn(dropped=(run,)), self.engine.cancelled(run, self.now()))

    def cancel_each(self, runs: Iterable[RunT], reason: str | None) -> int:
        """Ask *runs* to stop; tell how many had not ended.

        First the pending ones, those that queue before those that replace, which
        they may be waiting for; then those that wait for a slot. So none of them
        begins because of the others.
        """
        order = {"queue": 0, "replace": 1, None: 2}
        wanted = sorted(runs, key=lambda run: (order[run.put_off], run.has_slot))
        return sum([self.cancel(run, reason) for run in wanted])

    def cancel_names(self, predicate: Callable[[Hashable], object], reason: str | None) -> int:
        """Ask what runs or is pending to stop, where *predicate* likes the name.

        Returns:
            How many names that were.
        """
        checks.reason(reason)
        named = [runs for name, runs in self._runs_by_name() if predicate(name)]
        self.cancel_each([run for runs in named for run in runs], reason)
        return len(named)

    def cancel_all(self, reason: str | None) -> int:
        """Ask all runs to stop; how many names that were."""
        return self.cancel_names(lambda _: True, reason)

    def cancel_name(self, name: Hashable, reason: str | None) -> bool:
        """Ask what runs and what is pending under *name* to stop; whether there was anything."""
        checks.reason(reason)
        with self.guard:
            ledger = self.engine.ledger
            runs = [table[name] for table in (ledger.pending, ledger.running) if name in table]
        return self.cancel_each(runs, reason) > 0

    def _runs_by_name(self) -> list[tuple[Hashable, list[RunT]]]:
        with self.guard:
            pending, running = self.engine.ledger.pending, self.engine.ledger.running
            both = [(name, [run]) for name, run in pending.items()]
            holders: set[RunT] = set()
            for name, runs in both:
                with contextlib.suppress(BaseException):  # KeyError, or the name's own
                    holder = running[name]
                    holders.add(holder)
                    runs.append(holder)
            return both + [(name, [run]) for name, run in running.items() if run not in holders]

    def holders(self, name: Hashable, operation: str | None = None) -> list[RunT]:
        """The runs that hold *name* or one that overlaps it.

        Raises:
            TypeError: the name cannot be hashed, or the *operation* is no text.
            ValueError: ANY stands in the name where it may not.
        """
        check_start(name, operation)
        with self.guard:
            return self.engine.ledger.holders(name, sys.maxsize)

    def on_time(self) -> None:
        """Do what is due: begin who has sat out a wait, tell who did not stop for all too long."""
        with self.guard:
            turn = self._woken(self.engine.on_time(self.now()))
        self._carry_out(turn)

    # Forgetting and closing

    def forget(self, name: Hashable, operation: str | None) -> bool:
        """Drop failures of *name*, and wake who waited for them to lapse."""
        with self.guard:
            lot = self.waiting_for.get(name)  # first: it may raise
            found, turn = self.engine.forget(name, operation, self.now())
            self._woken(turn)
            if found:
                if lot is not None:
                    lot.unpark_all()
                self.quiet.unpark_all()
        self._carry_out(turn)
        return found

    def close(self) -> None:
        """Refuse new starts, and tell who waits to make one."""
        with self.guard:
            self._close()
            turn = self._woken(self.engine.drain(self.now()))
        self._carry_out(turn)

    def end_block(self) -> None:
        """The map's block is over: what would have to sit out a wait is dropped."""
        with self.guard:
            self.block_done = True
            turn = self._woken(self.engine.drain(self.now()))
        self._carry_out(turn)

    def close_if_over(self) -> None:
        """Close with the last run after the block: nobody can start another one now."""
        with self.guard:
            if self.block_done and self.is_idle():
                self._close()

    def _close(self) -> None:
        if self.engine.ledger.closed:
            return
        self.engine.ledger.closed = True
        self.refuses_plainly = False
        self._wake_starters()


def too_slow_text(run: Run) -> str:
    """What the error says of a run that its own deadline has stopped."""
    return f"it took longer than its timeout of {seconds_text(run.timeout)}"
