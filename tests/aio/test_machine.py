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
    RefusedError,
    State,
)
from namedtasks.asyncio import TaskMap, open_task_map
from namedtasks.instruments import TaskCancelled, TaskFailed, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument
from tests.virtual_loop import loop_now, run

NAMES = ("a", "b", "c", "d")
BACKOFF = Backoff(initial=1.0, maximum=4.0, give_up_after=4)
WAITS = {1: 1.0, 2: 2.0, 3: 4.0, 4: math.inf}
RETENTION = 6.0
LIMIT = 2


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
    failures: int = 0
    began: float | None = None
    cancelled_at: float = math.inf
    task: asyncio.Task[str] | None = None

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
        assert self.began is not None
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

    def state(self, name: str) -> State:
        if name in self.running:
            return State.RUNNING
        if name not in self.failed or now() >= self.failed[name][1] + RETENTION:
            return State.FREE
        retry_at = self.failed[name][1]
        if retry_at == math.inf:
            return State.GAVE_UP
        return State.READY if now() >= retry_at else State.WAITING

    def failures(self, name: str) -> int:
        return 0 if self.state(name) is State.FREE else self.failed.get(name, (0, 0.0))[0]

    def advance(self) -> None:
        """End what must have ended by now, in the order of time, and let the next ones begin."""
        while True:
            for job in list(self.running.values()):
                if job.began is None and job.cancelled_at <= now():
                    del self.running[job.name]
            ends = [(job.ends_at, job.name) for job in self.running.values() if job.began]
            if not ends or min(ends)[0] > now():
                return
            at, name = min(ends)
            self._end(self.running.pop(name), at)
            line = [job for job in self.running.values() if job.began is None]
            if line:
                line[0].began = at

    def _end(self, job: Job, at: float) -> None:
        if job.outcome == "failed":
            failures = job.failures + 1
            self.failed[job.name] = (failures, at + WAITS[min(failures, 4)])
        elif job.outcome == "succeeded":
            self.failed.pop(job.name, None)


@attrs.define
class Play:
    """Does each step to the map and to the model, and compares."""

    tasks: TaskMap
    heard: RecordingInstrument
    model: Model = attrs.Factory(Model)
    jobs: list[Job] = attrs.Factory(list[Job])

    async def start(
        self, name: str, seconds: float, fails: bool, stubborn: bool, timeout: float, skip: bool
    ) -> None:
        state = self.model.state(name)
        job = Job(name, seconds, fails, stubborn, timeout, self.model.failures(name))
        try:
            job.task = self.tasks.create_task(
                name, job.body, timeout=timeout, if_busy="skip" if skip else "refuse"
            )
        except RefusedError as error:
            expected = {
                State.RUNNING: AlreadyRunningError,
                State.WAITING: BackoffError,
                State.GAVE_UP: GaveUpError,
            }[state]
            assert type(error) is expected
            assert not skip
            return
        if job.task is None:
            assert skip
            assert state not in (State.FREE, State.READY)
            return
        assert state in (State.FREE, State.READY)
        begun = [one for one in self.model.running.values() if one.began is not None]
        if len(begun) < LIMIT:
            job.began = now()
        self.model.running[name] = job
        self.jobs.append(job)

    async def cancel(self, name: str, by_the_map: bool) -> None:
        job = self.model.running.get(name)
        if by_the_map:
            assert self.tasks.cancel(name) == (job is not None)
        elif job is not None:
            assert job.task is not None
            assert job.task.cancel()
        if job is not None:
            job.cancelled_at = min(job.cancelled_at, now())

    async def forget(self, name: str) -> None:
        job = self.model.running.get(name)
        if job is not None:
            known = job.failures > 0
            job.failures = 0
        else:
            known = self.model.state(name) is not State.FREE
        assert self.tasks.forget(name) == known
        self.model.failed.pop(name, None)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def compare(self) -> None:
        await loop_now().settle()
        self.model.advance()
        assert set(self.tasks) == set(self.model.running)
        for name in NAMES:
            assert self.tasks.state(name) is self.model.state(name), name

    async def finish(self) -> None:
        """Every run that started ended once, and every Task tells how."""
        await self.tasks.wait_idle()
        await self.compare()
        counts = {"succeeded": 0, "failed": 0, "cancelled": 0}
        for job in self.jobs:
            assert job.task is not None
            assert job.task.done()
            outcome = "cancelled" if job.began is None else job.outcome
            counts[outcome] += 1
            if outcome == "cancelled":
                assert job.task.cancelled()
            elif outcome == "failed":
                kind = ValueError if job.fails else TimeoutError
                assert isinstance(job.task.exception(), kind | TimeoutError)
            else:
                assert job.task.result() == job.name
        assert len(self.heard.of(TaskSucceeded)) == counts["succeeded"]
        assert len(self.heard.of(TaskFailed)) == counts["failed"]
        assert len(self.heard.of(TaskCancelled)) == counts["cancelled"]
        begun = sum(job.began is not None for job in self.jobs)
        assert len(self.heard.of(TaskStarted)) == begun


# A deadline never falls on the time of something else: which comes first would be chance.
STEPS = st.one_of(
    st.tuples(
        st.just("start"),
        st.sampled_from(NAMES),
        st.sampled_from([0.25, 1.0, 2.5]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([math.inf, 0.6, 2.1]),
        st.booleans(),
    ),
    st.tuples(st.just("cancel"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("forget"), st.sampled_from(NAMES)),
    st.tuples(st.just("sleep"), st.sampled_from([0.25, 0.5, 1.0, 2.0, 6.0])),
)

EAGER = pytest.param(
    True,
    marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12"),
)


@pytest.mark.parametrize("eager", [False, EAGER])
def test_the_asyncio_map_agrees_with_a_plain_model(eager: bool) -> None:
    @given(st.lists(STEPS, max_size=40))
    @settings(max_examples=200, deadline=None)
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
