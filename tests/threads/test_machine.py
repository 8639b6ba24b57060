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
    TaskFuture,
    ThreadTaskMap,
)
from namedtasks.instruments import TaskCancelled, TaskFailed, TaskStarted, TaskSucceeded
from namedtasks.testing import ManualClock, RecordingInstrument
from tests.threads.helpers import HandPool, Job

NAMES = st.sampled_from(["a", "b", "c", "d"])
WAITS = {1: 1.0, 2: 2.0, 3: 4.0, 4: math.inf}
RETENTION = 6.0
LIMIT = 2


@attrs.define(eq=False)
class Run:
    """A run as the model sees it."""

    name: str
    failures: int
    future: TaskFuture[Any]
    job: Job | None = None
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
        self.failed: dict[str, tuple[int, float]] = {}
        self.running: dict[str, Run] = {}
        self.ended: list[Run] = []

    # The model

    def state(self, name: str) -> State:
        if name in self.running:
            return State.RUNNING
        if name not in self.failed or self.clock.now() >= self.failed[name][1] + RETENTION:
            return State.FREE
        retry_at = self.failed[name][1]
        if retry_at == math.inf:
            return State.GAVE_UP
        return State.READY if self.clock.now() >= retry_at else State.WAITING

    def begin_next(self) -> None:
        begun = [run for run in self.running.values() if run.job is not None]
        waiting = [run for run in self.running.values() if run.job is None]
        for run in waiting[: LIMIT - len(begun)]:
            run.job = self.pool.jobs.pop(0)

    def leave(self, run: Run, end: str) -> None:
        del self.running[run.name]
        run.end = end
        self.ended.append(run)
        self.begin_next()

    # What users do

    @rule(name=NAMES, skip=st.booleans())
    def submit(self, name: str, skip: bool) -> None:
        state = self.state(name)
        if state in (State.FREE, State.READY):
            failures = self.failed[name][0] if state is State.READY else 0
            future = self.tasks.submit(name, int)
            assert future.failures == failures
            self.running[name] = Run(name, failures, future)
            self.begin_next()
        elif skip:
            assert self.tasks.submit(name, int, if_busy="skip") is None
        else:
            kinds = {
                State.RUNNING: AlreadyRunningError,
                State.WAITING: BackoffError,
                State.GAVE_UP: GaveUpError,
            }
            with pytest.raises(kinds[state]):
                self.tasks.submit(name, int)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from(["succeeded", "failed", "cancelled"]))
    def end_body(self, data: st.DataObject, end: str) -> None:
        begun = [run for run in self.running.values() if run.job is not None]
        run = data.draw(st.sampled_from(begun))
        assert run.job is not None
        if end == "succeeded":
            self.failed.pop(run.name, None)
            run.job.future.set_result(run.name)
        elif end == "failed":
            failures = run.failures + 1
            self.failed[run.name] = (failures, self.clock.now() + WAITS[min(failures, 4)])
            run.job.future.set_exception(ValueError(run.name))
        else:
            assert run.job.future.cancel()
            run.job.future.set_running_or_notify_cancel()
        self.leave(run, end)

    @rule(name=NAMES, how=st.sampled_from(["map", "future"]))
    def cancel(self, name: str, how: str) -> None:
        run = self.running.get(name)
        if run is None:
            assert not self.tasks.cancel(name)
            return
        if how == "map":
            assert self.tasks.cancel(name, reason="asked")
        else:
            assert run.future.cancel() == (run.job is None)
        if run.job is None:
            self.leave(run, "cancelled")

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        run = self.running.get(name)
        known = run.failures > 0 if run is not None else self.state(name) is not State.FREE
        if run is not None:
            run.failures = 0
        assert self.tasks.forget(name) == known
        self.failed.pop(name, None)

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 2.0, 6.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(name=NAMES)
    def wait_without_patience(self, name: str) -> None:
        assert self.tasks.wait_idle(0) == (not self.running)
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
        for name in "abcd":
            assert self.tasks.state(name) is self.state(name)
        statistics = self.tasks.statistics()
        assert statistics.waiting_for_slot == sum(r.job is None for r in self.running.values())
        assert self.pool.jobs == [], "no job more than there are slots"
        assert self.tasks._shell.waiting_for == {}
        for run in self.ended:
            assert run.future.done()
            assert run.future.cancelled() == (run.end == "cancelled")

    def teardown(self) -> None:
        self.tasks.cancel_all()
        for run in list(self.running.values()):
            if run.job is None:
                assert run.future.cancelled()
                self.ended.append(run)
                del self.running[run.name]
        for run in self.running.values():
            assert run.job is not None
            run.job.run()
            assert run.future.result() == 0
            self.ended.append(run)
        self.tasks.__exit__(None, None, None)
        ends = TaskSucceeded | TaskFailed | TaskCancelled
        heard = [event for event in self.heard.events if isinstance(event, ends)]
        assert len(heard) == len(self.ended)
        begun = [event for event in heard if getattr(event, "duration", None) is not None]
        assert len(self.heard.of(TaskStarted)) == len(begun)


TestThreadMapMachine = ThreadMapMachine.TestCase
TestThreadMapMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
