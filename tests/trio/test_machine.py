"""The trio map against a plain model, in virtual time: any order of what users do."""

import math
from collections.abc import Callable
from typing import Any

import attrs
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import (
    AlreadyRunningError,
    Backoff,
    BackoffError,
    GaveUpError,
    RefusedError,
    State,
    TaskCancelledError,
    TaskFailedError,
)
from namedtasks.instruments import TaskCancelled, TaskFailed, TaskStarted, TaskSucceeded
from namedtasks.testing import RecordingInstrument
from tests.fuzz import examples

NAMES = ("a", "b", "c", "d")
BACKOFF = Backoff(initial=1.0, maximum=4.0, give_up_after=4)
WAITS = {1: 1.0, 2: 2.0, 3: 4.0, 4: math.inf}
RETENTION = 6.0
LIMIT = 2


@attrs.define(eq=False)
class Job:
    """A run as the model sees it: what its body will do, and when."""

    name: str
    seconds: float
    fails: bool
    stubborn: bool
    failures: int = 0
    began: float | None = None
    cancelled_at: float | None = None
    handle: namedtasks.TaskHandle[Any] | None = None

    async def body(self) -> str:
        self.began = trio.current_time()
        with trio.CancelScope(shield=self.stubborn):
            await trio.sleep(self.seconds)
        if self.fails:
            raise ValueError(self.name)
        return self.name


@attrs.define
class Model:
    """Plain dicts; brought up to date before each look."""

    limit: float
    failed: dict[str, tuple[int, float]] = attrs.Factory(dict[str, tuple[int, float]])
    running: dict[str, Job] = attrs.Factory(dict[str, Job])

    def state(self, name: str, now: float) -> State:
        if name in self.running:
            return State.RUNNING
        if name not in self.failed or now >= self.failed[name][1] + RETENTION:
            return State.FREE
        retry_at = self.failed[name][1]
        if retry_at == math.inf:
            return State.GAVE_UP
        return State.READY if now >= retry_at else State.WAITING

    def failures(self, name: str, now: float) -> int:
        return 0 if self.state(name, now) is State.FREE else self.failed.get(name, (0, 0.0))[0]

    def advance(self, now: float) -> None:
        """End what must have ended by now, in the order of time, and let the next ones begin."""
        while True:
            begun = [job for job in self.running.values() if job.began is not None]
            for job in list(self.running.values()):
                if job.began is None and job.cancelled_at is not None:
                    del self.running[job.name]
            ends = sorted((self.end_of(job), job.name) for job in begun)
            if not ends or ends[0][0] > now:
                return
            at, name = ends[0]
            self.end(self.running.pop(name), at)
            line = [job for job in self.running.values() if job.began is None]
            if (
                line and len(self.running) - len(line) < self.limit
            ):  # else its body has told already
                line[0].began = at

    def end_of(self, job: Job) -> float:
        assert job.began is not None
        natural = job.began + job.seconds
        if job.cancelled_at is None or job.stubborn:
            return natural
        return min(natural, max(job.cancelled_at, job.began))

    def end(self, job: Job, at: float) -> None:
        assert job.began is not None
        whole = at == job.began + job.seconds and (job.cancelled_at is None or job.stubborn)
        if not whole:
            return
        if job.fails:
            failures = job.failures + 1
            self.failed[job.name] = (failures, at + WAITS[min(failures, 4)])
        else:
            self.failed.pop(job.name, None)


@attrs.define
class Play:
    """Does each step to the map and to the model, and compares."""

    tasks: namedtasks.TaskMap
    heard: RecordingInstrument
    model: Model
    jobs: list[Job] = attrs.Factory(list[Job])

    async def settle(self) -> None:
        await wait_all_tasks_blocked()
        self.model.advance(trio.current_time())

    def start(self, name: str, seconds: float, fails: bool, stubborn: bool, skip: bool) -> None:
        now = trio.current_time()
        state = self.model.state(name, now)
        job = Job(name, seconds, fails, stubborn, self.model.failures(name, now))
        try:
            handle = self.tasks.start_soon(name, job.body, if_busy="skip" if skip else "refuse")
        except RefusedError as error:
            expected = {
                State.RUNNING: AlreadyRunningError,
                State.WAITING: BackoffError,
                State.GAVE_UP: GaveUpError,
            }[state]
            assert type(error) is expected
            assert not skip
            return
        if handle is None:
            assert skip
            assert state not in (State.FREE, State.READY)
            return
        assert state in (State.FREE, State.READY)
        assert handle.failures == job.failures
        job.handle = handle
        begun = [one for one in self.model.running.values() if one.began is not None]
        if len(begun) < self.model.limit:
            job.began = now
        self.model.running[name] = job
        self.jobs.append(job)

    def cancel(self, name: str) -> None:
        job = self.model.running.get(name)
        assert self.tasks.cancel(name) == (job is not None)
        if job is not None and job.cancelled_at is None:
            job.cancelled_at = trio.current_time()

    def forget(self, name: str) -> None:
        now = trio.current_time()
        job = self.model.running.get(name)
        if job is not None:
            known = job.failures > 0
            job.failures = 0
        else:
            known = self.model.state(name, now) is not State.FREE
        assert self.tasks.forget(name) == known
        self.model.failed.pop(name, None)

    def compare(self) -> None:
        now = trio.current_time()
        assert set(self.tasks) == set(self.model.running)
        for name in NAMES:
            assert self.tasks.state(name) is self.model.state(name, now), name

    async def finish(self) -> None:
        """Every run that started ended once, and every handle tells how."""
        self.tasks.cancel_all()
        await self.tasks.wait_idle()
        for job in self.jobs:
            assert job.handle is not None
            try:
                assert await job.handle.wait() == job.name
            except TaskFailedError:
                assert job.fails
            except TaskCancelledError:
                assert not job.stubborn or job.began is None or job.cancelled_at is None
        ends = TaskSucceeded | TaskFailed | TaskCancelled
        ended = [event for event in self.heard.events if isinstance(event, ends)]
        assert len(ended) == len(self.jobs)
        begun = [event for event in ended if getattr(event, "duration", None) is not None]
        assert len(self.heard.of(TaskStarted)) == len(begun)


Step = Callable[[Play], None]

STEPS = st.one_of(
    st.tuples(
        st.just("start"),
        st.sampled_from(NAMES),
        st.sampled_from([0.25, 1.0, 2.5]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    st.tuples(st.just("cancel"), st.sampled_from(NAMES)),
    st.tuples(st.just("forget"), st.sampled_from(NAMES)),
    st.tuples(st.just("sleep"), st.sampled_from([0.25, 0.5, 1.0, 2.0, 6.0])),
)


@given(st.lists(STEPS, max_size=40), st.booleans(), st.sampled_from([LIMIT, None]))
@settings(max_examples=examples(300), deadline=None)
def test_the_trio_map_agrees_with_a_plain_model(
    steps: list[tuple[Any, ...]], workers: bool, limit: int | None
) -> None:
    async def main() -> None:
        heard = RecordingInstrument()
        async with namedtasks.open_task_map(
            backoff=BACKOFF, retention=RETENTION, limit=limit, instruments=[heard], workers=workers
        ) as tasks:
            play = Play(tasks, heard, Model(math.inf if limit is None else limit))
            for verb, *args in steps:
                if verb == "sleep":
                    await trio.sleep(*args)
                else:
                    getattr(play, verb)(*args)
                await play.settle()
                play.compare()
            await play.finish()

    trio.run(main, clock=MockClock(autojump_threshold=0))
