"""The thread map against a plain model: any order of what users do."""

import math
from typing import Any

import attrs
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from namedtasks import (
    AlreadyRunningError,
    Backoff,
    BackoffError,
    GaveUpError,
    State,
    TaskCancelledError,
    TaskFuture,
    ThreadTaskMap,
)
from namedtasks._base import run_due
from namedtasks.instruments import (
    TaskCancelled,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks.testing import ManualClock, RecordingInstrument
from tests.fuzz import examples
from tests.threads.helpers import HandPool, Job

NAMES = st.sampled_from(["a", "b", "c"])
WAITS = {1: 1.0, 2: 2.0, 3: 4.0, 4: math.inf}
RETENTION = 6.0
LIMIT = 2


@attrs.define(eq=False)
class Run:
    """A run as the model sees it."""

    name: str
    future: TaskFuture[Any]
    failures: int = 0
    job: Job | None = None
    put_off: str = ""
    joined: list[TaskFuture[Any]] = attrs.Factory(list[TaskFuture[Any]])
    left: list[TaskFuture[Any]] = attrs.Factory(list[TaskFuture[Any]])
    end: str = ""


class ThreadMapMachine(RuleBasedStateMachine):
    """One thread drives; bodies end by hand, in a pool that nobody knows, at a time of its own."""

    @initialize()
    def open(self) -> None:
        self.clock = ManualClock()
        self.heard = RecordingInstrument()
        self.pool = HandPool()
        self.tasks = ThreadTaskMap(
            clock=self.clock,
            instruments=[self.heard],
            executor=self.pool,
            backoff=Backoff(initial=1.0, maximum=4.0, give_up_after=4),
            retention=RETENTION,
            limit=LIMIT,
        ).__enter__()
        self.tasks._backend._has_timer = True  # there is no timer but `time_goes_by`
        self.failed: dict[str, tuple[int, float]] = {}
        self.running: dict[str, Run] = {}
        self.pending: dict[str, Run] = {}
        self.line: list[Run] = []
        self.sitting: list[Run] = []
        """Who queues and sits out a wait, in the order in which they began to."""
        self.ended: list[Run] = []

    # The model

    def state(self, name: str) -> State:
        return State.RUNNING if name in self.running else self.state_at_rest(name)

    def state_at_rest(self, name: str) -> State:
        if name not in self.failed or self.clock.now() >= self.failed[name][1] + RETENTION:
            return State.FREE
        retry_at = self.failed[name][1]
        if retry_at == math.inf:
            return State.GAVE_UP
        return State.READY if self.clock.now() >= retry_at else State.WAITING

    def admit(self, run: Run) -> None:
        """Give it its name: so it has the failures on record."""
        known = self.state_at_rest(run.name) is not State.FREE
        run.failures = self.failed[run.name][0] if known else 0
        assert run.future.failures == run.failures
        self.running[run.name] = run

    def take_slot(self, run: Run) -> None:
        self.line.append(run)
        self.begin_next()

    def begin_next(self) -> None:
        while self.line and sum(run.job is not None for run in self.running.values()) < LIMIT:
            self.line.pop(0).job = self.pool.jobs.pop(0)

    def leave(self, run: Run, end: str) -> None:
        """The run ends, and what waits for that begins, or waits for something else."""
        del self.running[run.name]
        self.finish(run, end)
        heir = self.pending.get(run.name)
        if heir is not None and heir.put_off == "replace":
            self.admit(self.pending.pop(run.name))
            if run in self.line:
                self.line[self.line.index(run)] = heir
            else:
                self.line.insert(0, heir)
        elif run in self.line:
            self.line.remove(run)
        self.begin_next()
        self.reconsider(run.name)

    def reconsider(self, name: str) -> None:
        """See what becomes of the run that queues for *name*, which does not run."""
        run = self.pending.get(name)
        if run is None or name in self.running:
            return
        state = self.state(name)
        if state is State.WAITING:
            self.sitting.append(run)
        elif state is State.GAVE_UP:
            self.finish(self.pending.pop(name), "cancelled")
        else:
            self.admit(self.pending.pop(name))
            self.take_slot(run)

    def finish(self, run: Run, end: str) -> None:
        run.end = end
        self.ended.append(run)

    # What users do

    @rule(name=NAMES, if_busy=st.sampled_from(["queue", "replace", "join", "skip", "refuse"]))
    def submit(self, name: str, if_busy: Any) -> None:
        state = self.state(name)
        if state in (State.FREE, State.READY):
            future = self.start(name, if_busy)
            run = Run(name, self.tasks[name])
            if if_busy == "join":  # who shares it has one that only follows
                run.joined.append(future)
            else:
                assert future is run.future
            self.admit(run)
            self.take_slot(run)
        elif if_busy == "skip":
            assert self.tasks.submit(name, int, if_busy=if_busy) is None
        elif state is State.RUNNING and if_busy == "join":
            self.running[name].joined.append(self.start(name, "join"))
        elif (state is State.RUNNING and if_busy in ("replace", "queue")) or (
            state is State.WAITING and if_busy == "queue"
        ):
            self.put_off(name, if_busy)
        else:
            kinds = {
                State.RUNNING: AlreadyRunningError,
                State.WAITING: BackoffError,
                State.GAVE_UP: GaveUpError,
            }
            with pytest.raises(kinds[state]):
                self.tasks.submit(name, int, if_busy=if_busy)

    @rule(how=st.sampled_from(["queue", "replace"]))
    def submit_all(self, how: str) -> None:
        """So that there is a crowd: more runs than slots, and runs that are put off."""
        for name in "abc":
            self.submit(name, how)

    def start(self, name: str, if_busy: Any) -> TaskFuture[Any]:
        future: TaskFuture[Any] | None = self.tasks.submit(name, int, if_busy=if_busy)
        assert future is not None
        return future

    def put_off(self, name: str, how: Any) -> None:
        if name in self.pending:
            self.finish(self.pending.pop(name), "cancelled")
        run = Run(name, self.start(name, how), put_off=how)
        self.pending[name] = run
        old = self.running.get(name)
        if old is None:
            self.sitting.append(run)
        if how == "replace" and old is not None and old.job is None:
            self.leave(old, "cancelled")

    @precondition(lambda self: any(run.job for run in self.running.values()))
    @rule(which=st.sampled_from([0, 1]), end=st.sampled_from(["failed", "succeeded", "cancelled"]))
    def end_body(self, which: int, end: str) -> None:
        begun = [run for run in self.running.values() if run.job is not None]
        run = begun[which % len(begun)]
        assert run.job is not None
        if end == "succeeded":
            self.failed.pop(run.name, None)
            run.job.future.set_result(run.name)
        elif end == "failed":
            self.time_goes_by(1 / 1024)  # so that no two waits end at the same moment
            failures = run.failures + 1
            self.failed[run.name] = (failures, self.clock.now() + WAITS[min(failures, 4)])
            run.job.future.set_exception(ValueError(run.name))
        else:
            assert run.job.future.cancel()
            run.job.future.set_running_or_notify_cancel()
        self.leave(run, end)

    @rule(name=NAMES, how=st.sampled_from(["map", "future", "pending future"]))
    def cancel(self, name: str, how: str) -> None:
        run, pending = self.running.get(name), self.pending.get(name)
        if how == "map":
            assert self.tasks.cancel(name, reason="asked") == bool(run or pending)
        elif how == "future":
            pending = None
            assert run is None or run.future.cancel() == (run.job is None)
        else:
            run = None
            assert pending is None or pending.future.cancel()
        if pending is not None:
            self.finish(self.pending.pop(name), "cancelled")
        if run is not None and run.job is None:
            self.leave(run, "cancelled")

    @rule(name=NAMES)
    def leave_a_joined_run(self, name: str) -> None:
        run = self.running.get(name)
        if run is not None and run.joined:
            future = run.joined.pop()
            assert future.cancel()
            run.left.append(future)

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        run = self.running.get(name)
        known = run.failures > 0 if run is not None else self.state(name) is not State.FREE
        if run is not None:
            run.failures = 0
        assert self.tasks.forget(name) == known
        self.failed.pop(name, None)
        self.reconsider(name)

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 2.0, 6.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.advance(seconds)
        run_due(self.tasks._backend)
        due = [run for run in self.sitting if self.pending.get(run.name) is run]
        self.sitting = []
        for run in sorted(due, key=lambda run: self.failed[run.name][1]):
            self.reconsider(run.name)

    @rule(name=NAMES)
    def wait_without_patience(self, name: str) -> None:
        assert self.tasks.wait_idle(0) == (not self.running and not self.pending)
        state = self.state(name)
        if state is State.GAVE_UP:
            with pytest.raises(GaveUpError):
                self.tasks.wait_free(name, 0)
        else:
            assert self.tasks.wait_free(name, 0) == (state in (State.FREE, State.READY))

    # What holds

    @invariant()
    def agrees(self) -> None:
        assert set(self.tasks) == set(self.running)
        for name in "abc":
            assert self.tasks.state(name) is self.state(name)
        for name, run in self.running.items():
            assert self.tasks[name] is run.future
        statistics = self.tasks.statistics()
        assert statistics.pending == len(self.pending)
        assert statistics.waiting_for_slot == len(self.line)
        assert self.pool.jobs == [], "no job more than there are slots"
        assert self.tasks._backend.waits.starters == {}
        for run in (*self.running.values(), *self.pending.values()):
            assert not any(future.done() for future in (run.future, *run.joined))
        for run in self.ended:
            assert all(future.cancelled() for future in run.left)
            assert run.future.done()
            assert run.future.cancelled() == (run.end == "cancelled")
            for future in run.joined:
                assert future.done()
                assert not future.cancelled()
                is_cancelled = isinstance(future.exception(), TaskCancelledError)
                assert is_cancelled == (run.end == "cancelled")

    def teardown(self) -> None:
        self.tasks.cancel_all()
        for run in (*self.pending.values(), *self.line):
            assert run.future.cancelled()
            self.ended.append(run)
        for run in self.running.values():
            if run.job is not None:
                run.job.run()
                assert [one.result() for one in (run.future, *run.joined)] == [0] * (
                    1 + len(run.joined)
                )
                self.ended.append(run)
        self.tasks.__exit__(None, None, None)
        ends = TaskSucceeded | TaskFailed | TaskCancelled | TaskSuperseded
        heard = [event for event in self.heard.events if isinstance(event, ends)]
        assert len(heard) == len(self.ended)
        begun = [event for event in heard if getattr(event, "duration", None) is not None]
        assert len(self.heard.of(TaskStarted)) == len(begun)


TestThreadMapMachine = ThreadMapMachine.TestCase
TestThreadMapMachine.settings = settings(
    max_examples=examples(200), stateful_step_count=60, deadline=None
)
