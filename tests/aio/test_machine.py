"""The asyncio map against a plain model, in virtual time: any order of what users do."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from namedtasks import (
    AlreadyRunningError,
    Backoff,
    BackoffError,
    GaveUpError,
    IfBusy,
    RefusedError,
    State,
    TaskCancelledError,
)
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import (
    TaskCancelled,
    TaskFailed,
    TaskQueued,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks.testing import RecordingInstrument
from tests.fuzz import examples
from tests.virtual_loop import loop_now, run

NAMES = ("a", "b", "c", "d")
BACKOFF = Backoff(initial=1.0, maximum=4.0, give_up_after=3)
WAITS = {1: 1.0, 2: 2.0, 3: math.inf}
RETENTION = 6.0
LIMIT = 2
APART = 2.0**-20
"""Seconds by which things of different jobs are apart: which comes first would else be chance."""


def now() -> float:
    return loop_now().time()


@attrs.define(eq=False)
class Job:
    """A run as the model sees it: what its body will do, and when."""

    name: str
    seconds: float
    fails: bool
    stubborn: bool
    timeout: float
    how: IfBusy
    failures: int = 0
    began: float | None = None
    cancelled_at: float = math.inf
    superseded: bool = False
    task: asyncio.Task[str] | None = None
    joined: list[asyncio.Future[str]] = attrs.Factory(list["asyncio.Future[str]"])

    async def body(self) -> str:
        until = now() + self.seconds
        while now() < until:
            try:
                await asyncio.sleep(until - now())
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise
        if self.fails:
            raise ValueError(self.name)
        return self.name

    @property
    def deadline(self) -> float:
        assert self.began is not None
        return self.began + self.timeout

    @property
    def ends_at(self) -> float:
        assert self.began is not None
        natural = self.began + self.seconds
        if self.stubborn:
            return natural
        return min(natural, max(self.cancelled_at, self.began), self.deadline)

    @property
    def outcome(self) -> str:
        if self.began is None:
            return "superseded" if self.superseded else "cancelled"
        if self.ends_at == self.began + self.seconds and (
            self.stubborn or self.ends_at < min(self.cancelled_at, self.deadline)
        ):
            return "failed" if self.fails else "succeeded"
        return "failed" if self.deadline < self.cancelled_at else "cancelled"


@attrs.define
class Model:
    """Plain dicts; brought up to date before each look."""

    failed: dict[str, tuple[int, float]] = attrs.Factory(dict[str, tuple[int, float]])
    running: dict[str, Job] = attrs.Factory(dict[str, Job])
    pending: dict[str, Job] = attrs.Factory(dict[str, Job])
    line: list[Job] = attrs.Factory(list[Job])

    def state(self, name: str, at: float) -> State:
        if name in self.running:
            return State.RUNNING
        if name not in self.failed or at >= self.failed[name][1] + RETENTION:
            return State.FREE
        retry_at = self.failed[name][1]
        if retry_at == math.inf:
            return State.GAVE_UP
        return State.READY if at >= retry_at else State.WAITING

    def verdict(self, name: str, how: IfBusy) -> str | type[RefusedError]:
        """What a start comes to."""
        state = self.state(name, now())
        if state in (State.FREE, State.READY):
            return "started"
        if how == "skip":
            return "skipped"
        if state is State.RUNNING and how != "refuse":
            return "joined" if how == "join" else "put off"
        if state is State.WAITING and how == "queue":
            return "put off"
        return {
            State.RUNNING: AlreadyRunningError,
            State.WAITING: BackoffError,
            State.GAVE_UP: GaveUpError,
        }[state]

    def admit(self, job: Job, at: float) -> None:
        """Give it its name, and a slot or the last place in line."""
        begun = len(self.running) - len(self.line)
        self._name(job, at)
        if begun < LIMIT:
            job.began = at
        else:
            self.line.append(job)

    def _name(self, job: Job, at: float) -> None:
        known = self.state(job.name, at) is not State.FREE
        job.failures = self.failed[job.name][0] if known else 0
        self.running[job.name] = job

    def put_off(self, job: Job) -> None:
        before = self.pending.get(job.name)
        if before is not None:
            before.superseded = True
        self.pending[job.name] = job
        if job.how == "replace":
            self.cancel(self.running[job.name])

    def cancel(self, job: Job) -> None:
        """The job was told to stop; one that has not begun is gone at once."""
        job.cancelled_at = min(job.cancelled_at, now())
        if job is self.pending.get(job.name):
            del self.pending[job.name]
        elif job.began is None:
            self._end(job, now())

    def advance(self) -> None:
        """Do what must have come about by now, in the order of time."""
        while True:
            due = [(job.ends_at, job) for job in self.running.values() if job.began is not None]
            due += [
                (self.failed[job.name][1], job)
                for job in self.pending.values()
                if job.name not in self.running
            ]
            at, job = min(due, key=lambda one: one[0], default=(math.inf, None))
            if job is None or at > now():
                return
            if job.name in self.running:
                self._end(job, at)
            else:
                self.turn(job.name, at)

    def _end(self, job: Job, at: float) -> None:
        del self.running[job.name]
        if job.outcome == "failed":
            failures = job.failures + 1
            self.failed[job.name] = (failures, at + WAITS[min(failures, 3)])
        elif job.outcome == "succeeded":
            self.failed.pop(job.name, None)
        heir = self.pending.get(job.name)
        if heir is not None and heir.how == "replace":
            del self.pending[job.name]
            self._name(heir, at)
            if job.began is None:
                self.line[self.line.index(job)] = heir
            else:
                heir.began = at
            return
        if job.began is None:
            self.line.remove(job)
        elif self.line:
            self.line.pop(0).began = at
        self.turn(job.name, at)

    def turn(self, name: str, at: float) -> None:
        """What is queued begins, if its name is free by now, or is dropped if that gave up."""
        state = self.state(name, at)
        if name in self.pending and state is not State.WAITING:
            job = self.pending.pop(name)
            if state is not State.GAVE_UP:
                self.admit(job, at)


@attrs.define
class Play:
    """Does each step to the map and to the model, and compares."""

    tasks: TaskMap
    heard: RecordingInstrument
    model: Model = attrs.Factory(Model)
    jobs: list[Job] = attrs.Factory(list[Job])
    put_off: int = 0

    async def start(
        self, name: str, seconds: float, fails: bool, stubborn: bool, timeout: float, how: IfBusy
    ) -> None:
        apart = (len(self.jobs) + 1) * APART
        job = Job(name, seconds + apart, fails, stubborn, timeout + apart, how)
        expected = self.model.verdict(name, how)
        try:
            future = self.tasks.create_task(name, job.body, timeout=job.timeout, if_busy=how)
        except RefusedError as error:
            assert type(error) is expected
            return
        if future is None:
            assert expected == "skipped"
            return
        if expected == "joined":
            shared = self.model.running[name]
            if stubborn:
                future.cancel()  # that is no affair of the run
            else:
                shared.joined.append(future)
            return
        self.jobs.append(job)
        if how == "join":
            job.joined.append(future)
            future = self.tasks[name]
        assert isinstance(future, asyncio.Task)
        job.task = future
        if expected == "put off":
            self.put_off += 1
            self.model.put_off(job)
        else:
            assert expected == "started"
            self.model.admit(job, now())

    async def cancel(self, name: str, by: str) -> None:
        running, pending = self.model.running.get(name), self.model.pending.get(name)
        if by == "the map":
            there = [job for job in (pending, running) if job is not None]
            assert self.tasks.cancel(name) == bool(there)
        else:
            job = running if by == "its task" else pending
            there = [] if job is None else [job]
            for job in there:
                assert job.task is not None
                assert job.task.cancel()
        for job in there:
            self.model.cancel(job)

    async def forget(self, name: str) -> None:
        job = self.model.running.get(name)
        if job is not None:
            known = job.failures > 0
            job.failures = 0
        else:
            known = self.model.state(name, now()) is not State.FREE
        assert self.tasks.forget(name) == known
        self.model.failed.pop(name, None)
        if job is None:
            self.model.turn(name, now())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def compare(self) -> None:
        await loop_now().settle()
        self.model.advance()
        assert set(self.tasks) == set(self.model.running)
        statistics = self.tasks.statistics()
        assert statistics.pending == len(self.model.pending)
        assert statistics.waiting_for_slot == len(self.model.line)
        for name in NAMES:
            assert self.tasks.state(name) is self.model.state(name, now()), name
            if name in self.tasks:
                assert self.tasks[name] is self.model.running[name].task, name

    async def finish(self) -> None:
        """Every run that started ended once, and every Task and future tells how."""
        await self.tasks.wait_idle()
        await self.compare()
        counts = {"succeeded": 0, "failed": 0, "cancelled": 0, "superseded": 0}
        for job in self.jobs:
            assert job.task is not None
            assert job.task.done()
            counts[job.outcome] += 1
            for future in (job.task, *job.joined):
                if job.outcome in ("cancelled", "superseded"):
                    if future is job.task:
                        assert future.cancelled()
                    else:
                        assert isinstance(future.exception(), TaskCancelledError)
                elif job.outcome == "failed":
                    assert isinstance(future.exception(), ValueError | TimeoutError)
                    assert future.exception() is job.task.exception()
                else:
                    assert future.result() == job.name
        assert len(self.heard.of(TaskSucceeded)) == counts["succeeded"]
        assert len(self.heard.of(TaskFailed)) == counts["failed"]
        assert len(self.heard.of(TaskCancelled)) == counts["cancelled"]
        assert len(self.heard.of(TaskSuperseded)) == counts["superseded"]
        assert len(self.heard.of(TaskQueued)) == self.put_off
        begun = sum(job.began is not None for job in self.jobs)
        assert len(self.heard.of(TaskStarted)) == begun


STEPS = st.one_of(
    st.tuples(
        st.just("start"),
        st.sampled_from(NAMES),
        st.sampled_from([0.25, 1.0, 2.5]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([math.inf, 0.6, 2.1]),
        st.sampled_from(["refuse", "skip", "join", "replace", "queue"]),
    ),
    st.tuples(
        st.just("cancel"),
        st.sampled_from(NAMES),
        st.sampled_from(["the map", "its task", "the pending task"]),
    ),
    st.tuples(st.just("forget"), st.sampled_from(NAMES)),
    st.tuples(st.just("sleep"), st.sampled_from([0.25, 0.5, 1.0, 2.0, 6.0])),
)

EAGER = pytest.param(
    True, marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
)


@pytest.mark.parametrize("eager", [False, EAGER])
def test_the_asyncio_map_agrees_with_a_plain_model(eager: bool) -> None:
    @given(st.lists(STEPS, min_size=15, max_size=40))
    @settings(max_examples=examples(200), deadline=None)
    def play(steps: list[tuple[Any, ...]]) -> None:
        async def main() -> None:
            heard = RecordingInstrument()
            async with open_task_map(
                backoff=BACKOFF, retention=RETENTION, limit=LIMIT, instruments=[heard]
            ) as tasks:
                playing = Play(tasks, heard)
                for verb, *args in steps:
                    await getattr(playing, verb)(*args)
                    await playing.compare()
                await playing.finish()

        run(main, eager=eager, collect=False)

    play()
