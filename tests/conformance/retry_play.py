"""Retries, observations and policies of single starts against a plain model, in any dialect.

The bodies end when a step says so. Time goes by in steps that end where something falls due: so
the order of all that happens is known, and nothing depends on how a dialect's clock jumps.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
from hypothesis import strategies as st

from namedtasks import (
    AlreadyRunningError,
    Backoff,
    BackoffError,
    ClosedError,
    GaveUpError,
    IfBusy,
    Observation,
    RefusedError,
    StaleLookError,
    State,
)
from namedtasks.instruments import TaskFailed, TaskStarted
from namedtasks.testing import RecordingInstrument
from tests.conformance.driver import Driver, Job, World

NAMES = ("a", "b", "c")
MAP = Backoff(initial=1.0, maximum=4.0, give_up_after=3, exempt=(KeyError,))
OWN = Backoff(initial=0.5, factor=1.0, reset_after=2.0)
RETENTION = 3.0
APART = 2.0**-12
"""Seconds between any two things that fall due later."""


@attrs.define(eq=False)
class Start:
    """A start that was accepted, as the model sees it."""

    name: str
    how: IfBusy
    policy: Any
    retry: bool
    stubborn: bool
    timeout: float
    body: Job
    handles: list[Any] = attrs.Factory(list[Any])
    kind: str = "running"
    due: float | None = None
    """The time that a pending run waits for."""
    attempts: list[int] = attrs.Factory(list[int])
    failures: int = 0
    began: float | None = None
    is_cancelled: bool = False
    last_error: BaseException | None = None
    end: str = ""
    value: object = None

    @property
    def stops_at(self) -> float:
        """The time at which its body stops by itself."""
        if self.began is None or self.stubborn:
            return math.inf
        return self.began + self.timeout


@attrs.define
class Look:
    observation: Observation
    began: int


@attrs.define
class Play:
    """Does each step to the map and to the model, and compares."""

    world: World
    heard: RecordingInstrument
    failed: dict[str, tuple[int, float]] = attrs.Factory(dict[str, tuple[int, float]])
    running: dict[str, Start] = attrs.Factory(dict[str, Start])
    pending: dict[str, Start] = attrs.Factory(dict[str, Start])
    starts: list[Start] = attrs.Factory(list[Start])
    looks: list[Look] = attrs.Factory(list[Look])
    ends: list[str] = attrs.Factory(list[str])
    will_retry: list[bool] = attrs.Factory(list[bool])
    is_closed: bool = False
    things: int = 0

    # The model

    @property
    def now(self) -> float:
        return self.world.now()

    def apart(self) -> float:
        self.things += 1
        return self.things * APART

    def record(self, name: str) -> tuple[int, float] | None:
        found = self.failed.get(name)
        is_kept = name in self.pending and self.pending[name].kind == "retry"
        expired = found is not None and self.now >= found[1] + RETENTION and not is_kept
        return None if expired else found

    def state(self, name: str) -> State:
        found = self.record(name)
        if name in self.running:
            return State.RUNNING
        if found is None:
            return State.FREE
        if found[1] == math.inf:
            return State.GAVE_UP
        return State.READY if self.now >= found[1] else State.WAITING

    def expected(self, name: str, how: IfBusy, look: Look | None) -> object:
        """What a start comes to: a word, the start that it joins, or the error."""
        if self.is_closed:
            return ClosedError
        if look is not None and name in self.ends[look.began :]:
            return "skipped" if how == "skip" else StaleLookError
        state = self.state(name)
        if state in (State.FREE, State.READY):
            return "admitted"
        if how == "skip":
            return "skipped"
        if state is State.RUNNING:
            words = {"join": self.running[name], "refuse": AlreadyRunningError}
            return words.get(how, "deferred")
        if state is State.GAVE_UP:
            return GaveUpError
        waits = self.pending.get(name)
        if how == "join" and waits is not None and waits.kind == "retry":
            return waits
        return "deferred" if how == "queue" else BackoffError

    def admit(self, start: Start) -> None:
        was_retry = start.kind == "retry"
        found = self.failed.get(start.name) if was_retry else self.record(start.name)
        if found is None:
            self.failed.pop(start.name, None)
        start.kind, start.due = "running", None
        start.failures = 0 if found is None else found[0]
        start.began, start.is_cancelled = self.now, False
        start.attempts.append(len(start.attempts) + 1)
        self.running[start.name] = start

    def turn(self, name: str) -> None:
        """See what becomes of the pending run of *name*, which does not run."""
        start = self.pending.get(name)
        if start is None or name in self.running:
            return
        state = self.state(name)
        if start.kind == "replace" or state in (State.FREE, State.READY):
            del self.pending[name]
            self.admit(start)
        elif state is State.GAVE_UP or self.is_closed:
            self.drop(start)
        else:
            start.due = self.failed[name][1]

    def drop(self, start: Start, end: str = "dropped") -> None:
        del self.pending[start.name]
        start.end = "cancelled" if start.last_error is None else end

    def stop(self, start: Start) -> None:
        """Somebody asks a run to stop."""
        if start.kind != "running":
            self.drop(start, "cancelled")
            return
        start.is_cancelled = True
        if not start.stubborn:
            self.leave(start, "cancelled")

    def leave(self, start: Start, end: str) -> None:
        del self.running[start.name]
        self.ends.append(start.name)
        start.end = end
        self.turn(start.name)

    def fail(self, start: Start, error: BaseException) -> None:
        assert start.began is not None
        policy = MAP if start.policy == "map" else start.policy
        is_first = policy == OWN and self.now - start.began >= 2.0
        failures = 1 if is_first else start.failures + 1
        delay: float | None
        if policy == OWN:
            delay = 0.5
        elif policy is None or isinstance(error, KeyError):
            delay = None
        else:
            delay = {1: 1.0, 2: 2.0}.get(failures, math.inf)
        if delay is not None:
            self.failed[start.name] = failures, self.now + delay
        is_retried = (
            start.retry
            and delay not in (None, math.inf)
            and not start.is_cancelled
            and not self.is_closed
            and start.name not in self.pending
        )
        self.will_retry.append(is_retried)
        start.last_error = error
        if not is_retried:
            self.leave(start, "failed")
            return
        del self.running[start.name]
        self.ends.append(start.name)
        start.kind, start.began, start.due = "retry", None, self.failed[start.name][1]
        self.pending[start.name] = start

    def due(self) -> tuple[float, Start | None]:
        """What comes next by itself, and when."""
        due = [(start.stops_at, start) for start in self.running.values()]
        due += [(one.due, one) for one in self.pending.values() if one.due is not None]
        return min(due, key=lambda one: one[0], default=(math.inf, None))

    # The steps

    async def start(
        self,
        name: str,
        how: IfBusy,
        policy: Any,
        retry: bool,
        stubborn: bool,
        timeout: float,
        which: int,
    ) -> None:
        look = self.looks[which % len(self.looks)] if self.looks and which >= 0 else None
        body = Job()
        body.further = [None] * 100
        retry = retry and policy is not None
        start = Start(name, how, policy, retry, stubborn, timeout + self.apart(), body)
        expected = self.expected(name, how, look)
        try:
            handle = self.world.start(
                name,
                body,
                if_busy=how,
                timeout=None if timeout == math.inf else start.timeout,
                heeds=not stubborn,
                backoff=policy,
                since=None if look is None else look.observation,
                retry=retry,
            )
        except RefusedError as error:
            assert type(error) is expected
            return
        if handle is None:
            assert expected == "skipped"
        elif isinstance(expected, Start):
            expected.handles.append(handle)
        else:
            start.handles.append(handle)
            self.starts.append(start)
            if expected == "admitted":
                self.admit(start)
            else:
                assert expected == "deferred"
                self.defer(start)
        await self.world.settle()

    def defer(self, start: Start) -> None:
        before = self.pending.get(start.name)
        if before is not None:
            self.drop(before)
        start.kind = start.how
        self.pending[start.name] = start
        self.turn(start.name)
        if start.how == "replace":
            self.stop(self.running[start.name])

    async def end(self, name: str, kind: type[Exception] | None) -> None:
        """Let the body that runs return a value, or raise."""
        if name not in self.running:
            return
        await self.advance(APART * (self.things + 1))
        self.things += 1
        start = self.running.get(name)
        if start is None:
            return
        if kind is None:
            start.body.succeed(len(start.attempts))
            self.failed.pop(name, None)
            start.value = len(start.attempts)
            self.leave(start, "succeeded")
        else:
            error = kind(len(start.attempts))
            start.body.fail(error)
            self.fail(start, error)
        await self.world.settle()

    async def cancel(self, name: str) -> None:
        found = [table[name] for table in (self.pending, self.running) if name in table]
        assert self.world.tasks.cancel(name, reason="asked") == bool(found)
        for start in found:
            self.stop(start)
        await self.world.settle()

    async def forget(self, name: str) -> None:
        start = self.running.get(name)
        known = self.record(name) is not None if start is None else start.failures > 0
        assert self.world.tasks.forget(name) == known
        if known:
            del self.failed[name]
            if start is not None:
                start.failures = 0
            self.turn(name)
        await self.world.settle()

    async def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            at, start = self.due()
            await self.world.advance(min(at, end) - self.now)
            if start is None or self.now < at:
                continue
            if start.kind == "running":
                self.fail(start, TimeoutError())
            else:
                self.turn(start.name)

    async def observe(self) -> None:
        self.looks.append(Look(self.world.tasks.observe(), len(self.ends)))

    async def close_look(self, which: int) -> None:
        if self.looks:
            self.looks.pop(which % len(self.looks)).observation.close()

    async def close(self, really: int) -> None:
        if really == 0 and not self.is_closed:
            self.is_closed = True
            self.world.tasks.close()
            for start in list(self.pending.values()):
                if start.name not in self.running:
                    self.drop(start)
            await self.world.settle()

    async def compare(self) -> None:
        tasks = self.world.tasks
        assert set(tasks) == set(self.running)
        for name in NAMES:
            assert tasks.state(name) is self.state(name), name
            for look in self.looks:
                error = tasks.check(name, since=look.observation)
                expected = self.expected(name, "refuse", look)
                assert expected == "admitted" if error is None else type(error) is expected
        assert {(run.name, run.kind, run.retry_at) for run in tasks.pending()} == {
            (start.name, start.kind, start.due) for start in self.pending.values()
        }
        waits = [
            found[1]
            for name in NAMES
            if (found := self.record(name)) is not None
            and name not in self.running
            and self.now < found[1] < math.inf
        ]
        assert tasks.next_retry_at() == min(waits, default=None)
        for start in self.starts:
            assert start.body.attempts == start.attempts

    async def finish(self) -> None:
        """Every start that was accepted has one outcome, and each of its handles tells it."""
        self.world.tasks.cancel_all()
        for start in [*self.pending.values(), *self.running.values()]:
            self.stop(start)
        await self.world.settle()
        for name in list(self.running):
            await self.end(name, None)
        assert not self.running
        await self.compare()
        for start in self.starts:
            for handle in start.handles:
                await self.check_outcome(start, handle)
        failed = [event.will_retry for event in self.heard.of(TaskFailed)]
        assert failed == self.will_retry
        begun = sum(len(start.attempts) for start in self.starts)
        assert len(self.heard.of(TaskStarted)) == begun

    async def check_outcome(self, start: Start, handle: Any) -> None:
        if start.end == "succeeded":
            assert await self.world.result(handle) == start.value
        elif start.end == "dropped":
            error = await self.world.error_of_dropped(handle)
            cause = error.__cause__
            assert cause is not None
            if not isinstance(start.last_error, TimeoutError):
                assert cause is not start.last_error
                assert repr(cause) == repr(start.last_error)
        elif start.end == "cancelled":
            await self.world.was_cancelled(handle)
        elif isinstance(start.last_error, TimeoutError):
            with pytest.raises(Exception, match=r"^it took longer than its timeout of .* s$"):
                await self.world.result(handle)
        else:
            assert start.last_error is not None
            with pytest.raises(type(start.last_error)) as caught:
                await self.world.result(handle)
            assert caught.value is start.last_error


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("start"),
            st.sampled_from(NAMES),
            st.sampled_from(["refuse", "skip", "join", "replace", "queue"]),
            st.sampled_from(["map", "map", OWN, None]),
            st.booleans(),
            st.booleans(),
            st.sampled_from([math.inf, math.inf, 1.5]),
            st.integers(-3, 2),
        ),
        st.tuples(
            st.just("end"),
            st.sampled_from(NAMES),
            st.sampled_from([None, ValueError, ValueError, KeyError]),
        ),
        st.tuples(st.just("cancel"), st.sampled_from(NAMES)),
        st.tuples(st.just("forget"), st.sampled_from(NAMES)),
        st.tuples(st.just("advance"), st.sampled_from([0.25, 0.5, 1.0, 2.0, 6.0])),
        st.tuples(st.just("observe")),
        st.tuples(st.just("close_look"), st.integers(0, 2)),
        st.tuples(st.just("close"), st.integers(0, 9)),
    ),
    min_size=10,
    max_size=40,
)


def play(driver: Driver, steps: list[tuple[Any, ...]]) -> None:
    """Do the *steps* in the dialect of *driver*."""

    async def behaviour(driver: Driver) -> None:
        heard = RecordingInstrument()
        async with driver.open(backoff=MAP, retention=RETENTION, instruments=[heard]) as world:
            playing = Play(world, heard)
            for verb, *args in steps:
                await getattr(playing, verb)(*args)
                await playing.compare()
            await playing.finish()

    driver.run(behaviour)
