"""Instruments that are called in the context of a run's body, or of a start's caller."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

import namedtasks
import namedtasks.asyncio
from namedtasks import Backoff, TaskFuture, ThreadTaskMap
from namedtasks._event_bus import EventBus
from namedtasks.executors import from_pool
from namedtasks.instruments import (
    Instrument,
    TaskEvent,
    TaskFailed,
    TaskJoined,
    TaskQueued,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
)
from namedtasks.testing import RecordingInstrument
from tests import virtual_loop
from tests.executors.kinds import process_pool
from tests.threads.helpers import Gate, HandPool, reach

caller: ContextVar[str] = ContextVar("caller", default="nobody")
run: ContextVar[str] = ContextVar("run", default="none")

SOON = Backoff(initial=0.001)


class Marks(Instrument):
    """Notes whose context its methods are called in, and marks the body's."""

    in_context = True

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.threads: list[int] = []

    def _note(self, event: TaskEvent) -> None:
        self.seen.append((event.hook, caller.get()))
        self.threads.append(threading.get_ident())

    def task_started(self, event: TaskStarted, /) -> None:
        self._note(event)
        run.set(f"{event.name} {event.attempts}")

    task_refused = task_joined = task_queued = cast("Any", _note)


def called_by(name: str, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call *fn* in a context of its own, in which *name* is the caller."""

    def call() -> Any:
        caller.set(name)
        return fn(*args, **options)

    return copy_context().run(call)


def look() -> tuple[str, str]:
    return caller.get(), run.get()


async def look_async() -> tuple[str, str]:
    return look()


def hooks(recording: RecordingInstrument) -> list[str]:
    return [event.hook for event in recording.events]


# The body's context


def test_a_body_on_trio_sees_what_its_start_has_set(autojump_clock: MockClock) -> None:
    async def main() -> None:
        async with namedtasks.open_task_map(instruments=[marks], limit=1) as tasks:
            starts = [
                called_by("A", tasks.start_soon, "a", look_async),
                called_by("B", tasks.start_thread_soon, "b", look),
                called_by("C", tasks.start_soon, "b", look_async, if_busy="queue"),
                called_by("D", tasks.start_thread_soon, "d", look, executor=from_pool(pool)),
            ]
            results = [await handle.wait() for handle in starts]
            assert results == [("A", "a 1"), ("B", "b 1"), ("C", "b 1"), ("D", "d 1")]
            assert look() == ("nobody", "none")

    marks = Marks()
    with ThreadPoolExecutor(1) as pool:
        trio.run(main)
    assert marks.seen == [("task_queued", "C"), *[("task_started", name) for name in "ABDC"]]


def test_a_body_on_asyncio_sees_what_its_start_has_set() -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(instruments=[marks], limit=1) as tasks:
            starts = [
                called_by("A", tasks.create_task, "a", look_async),
                called_by("B", tasks.run_in_executor, "b", look),
                called_by("C", tasks.create_task, "b", look_async, if_busy="queue"),
                called_by("D", tasks.run_in_executor, "d", look, executor=pool),
            ]
            results = [await task for task in starts]
            assert results == [("A", "a 1"), ("B", "b 1"), ("C", "b 1"), ("D", "d 1")]
            assert look() == ("nobody", "none")

    marks = Marks()
    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main())
    assert marks.seen == [("task_queued", "C"), *[("task_started", name) for name in "ABDC"]]


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="they came with 3.12")
def test_an_eager_body_sees_it_and_its_caller_does_not() -> None:
    async def main() -> None:
        factory = getattr(asyncio, "eager_task_factory")  # noqa: B009 - not known to 3.11
        asyncio.get_running_loop().set_task_factory(factory)
        async with namedtasks.asyncio.open_task_map(instruments=[Marks()]) as tasks:
            assert await called_by("A", tasks.create_task, "a", look_async) == ("A", "a 1")
            assert look() == ("nobody", "none")

    asyncio.run(main())


def test_a_body_in_a_thread_sees_what_its_start_has_set() -> None:
    marks = Marks()
    with ThreadPoolExecutor(1) as pool, ThreadTaskMap(instruments=[marks], limit=1) as tasks:
        gate = Gate()
        hold = tasks.submit("hold", gate)
        futures = [
            called_by("A", tasks.submit, "a", look),
            called_by("B", tasks.submit, "a", look, if_busy="queue"),
            called_by("C", tasks.submit, "c", look, executor=pool),
        ]
        gate.may_go.set()
        hold.result()
        assert [future.result() for future in futures] == [("A", "a 1"), ("B", "a 1"), ("C", "c 1")]
        assert look() == ("nobody", "none")
    assert marks.seen == [
        ("task_started", "nobody"),
        ("task_queued", "B"),
        *[("task_started", name) for name in "ACB"],
    ]


def test_posted_starts_have_the_context_of_the_poster(autojump_clock: MockClock) -> None:
    marks = Marks()

    async def on_trio() -> None:
        async with namedtasks.open_task_map(instruments=[marks]) as tasks:
            for _ in range(2):
                called_by("A", tasks.post, "a", look_async)
            await trio.testing.wait_all_tasks_blocked()

    async def on_asyncio() -> None:
        async with namedtasks.asyncio.open_task_map(instruments=[marks]) as tasks:
            for _ in range(2):
                called_by("A", tasks.post, "a", look_async)
            await asyncio.sleep(0.001)

    trio.run(on_trio)
    asyncio.run(on_asyncio())
    assert marks.seen == [("task_refused", "A"), ("task_started", "A")] * 2


# Attempts


class Flaky:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self) -> None:
        self.seen.append(look())
        if len(self.seen) < 3:
            raise OSError("device busy")

    async def call(self) -> None:
        self()


ATTEMPTS = [("A", "a 1"), ("A", "a 2"), ("A", "a 3")]


def test_each_attempt_on_trio_is_a_start(autojump_clock: MockClock) -> None:
    async def main() -> None:
        async with namedtasks.open_task_map(instruments=[marks]) as tasks:
            await called_by("A", tasks.start_soon, "a", flaky.call, retry=True).wait()

    marks, flaky = Marks(), Flaky()
    trio.run(main)
    assert (flaky.seen, marks.seen) == (ATTEMPTS, [("task_started", "A")] * 3)


def test_each_attempt_on_asyncio_is_a_start() -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(instruments=[marks]) as tasks:
            await called_by("A", tasks.create_task, "a", flaky.call, retry=True)

    marks, flaky = Marks(), Flaky()
    virtual_loop.run(main)
    assert (flaky.seen, marks.seen) == (ATTEMPTS, [("task_started", "A")] * 3)


@pytest.mark.parametrize("has_pool", [False, True])
def test_each_attempt_in_threads_is_a_start(has_pool: bool) -> None:
    marks, flaky = Marks(), Flaky()
    with (
        ThreadPoolExecutor(1) as pool,
        ThreadTaskMap(
            instruments=[marks], backoff=SOON, executor=pool if has_pool else None
        ) as tasks,
    ):
        called_by("A", tasks.submit, "a", flaky, retry=True).result()
    assert (flaky.seen, marks.seen) == (ATTEMPTS, [("task_started", "A")] * 3)


# The caller's context


def test_refusals_and_joins_on_trio_are_told_in_the_callers_context(
    autojump_clock: MockClock,
) -> None:
    async def main() -> None:
        async with namedtasks.open_task_map(instruments=[marks]) as tasks:
            tasks.start_soon("a", trio.sleep, 1)
            with pytest.raises(namedtasks.AlreadyRunningError):
                called_by("A", tasks.start_soon, "a", look_async)
            assert called_by("B", tasks.start_soon, "a", look_async, if_busy="skip") is None
            called_by("C", tasks.start_soon, "a", look_async, if_busy="join")
            called_by("D", tasks.start_soon, "a", look_async, if_busy="replace")
            assert marks.seen == TOLD

    marks = Marks()
    trio.run(main)


def test_refusals_and_joins_on_asyncio_are_told_in_the_callers_context() -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(instruments=[marks]) as tasks:
            held = tasks.create_task("a", asyncio.sleep, 1)
            with pytest.raises(namedtasks.AlreadyRunningError):
                called_by("A", tasks.create_task, "a", look_async)
            assert called_by("B", tasks.create_task, "a", look_async, if_busy="skip") is None
            called_by("C", tasks.create_task, "a", look_async, if_busy="join")
            called_by("D", tasks.create_task, "a", look_async, if_busy="replace")
            assert marks.seen == TOLD
            assert held.cancelling()

    marks = Marks()
    virtual_loop.run(main)


TOLD = [("task_refused", "A"), ("task_refused", "B"), ("task_joined", "C"), ("task_queued", "D")]


def test_refusals_and_joins_in_threads_are_told_in_the_callers_context_and_thread() -> None:
    """Also while another thread is busy with the delivery of events."""
    delivers, may_deliver = threading.Event(), threading.Event()

    class Slow(Instrument):
        def task_refused(self, event: TaskRefused, /) -> None:
            delivers.set()
            reach(may_deliver)

    marks, gate = Marks(), Gate()
    with ThreadTaskMap(instruments=[Slow(), marks]) as tasks:
        tasks.submit("a", gate)
        slow = threading.Thread(target=tasks.submit, args=("a", look), kwargs={"if_busy": "skip"})
        slow.start()
        reach(delivers)
        reach(gate.begun)
        marks.seen, marks.threads = [], []
        with pytest.raises(namedtasks.AlreadyRunningError):
            called_by("A", tasks.submit, "a", look)
        assert called_by("B", tasks.submit, "a", look, if_busy="skip") is None
        called_by("C", tasks.submit, "a", look, if_busy="join")
        called_by("D", tasks.submit, "a", look, if_busy="replace")
        assert marks.seen == TOLD
        assert set(marks.threads) == {threading.get_ident()}
        may_deliver.set()
        gate.may_go.set()
        slow.join()


# Pools that run no code of ours


def test_in_a_process_pool_the_start_is_told_in_a_copy_of_the_callers_context() -> None:
    marks, recording = Marks(), RecordingInstrument()
    with ThreadTaskMap(instruments=[marks, recording], executor=process_pool()) as tasks:
        called_by("A", tasks.submit, "a", int).result()
        called_by("B", tasks.submit, "b", int).result()
    assert marks.seen == [("task_started", "A"), ("task_started", "B")]
    assert hooks(recording) == ["task_started", "task_succeeded"] * 2


def test_there_it_comes_before_the_end_however_quick_that_is() -> None:
    """The pool ends the job inside its `submit`, before the map has noted that it began."""

    class Order(Marks):
        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            self._note(event)

    order, pool = Order(), HandPool()
    pool.on_submit = lambda job: job.run()
    with ThreadTaskMap(instruments=[order], executor=pool) as tasks:
        called_by("A", tasks.submit, "a", int).result()
    assert [hook for hook, _ in order.seen] == ["task_started", "task_succeeded"]
    assert order.seen[0] == ("task_started", "A")


# The numbers of the runs


def test_all_events_of_a_run_have_its_number(autojump_clock: MockClock) -> None:
    recording = RecordingInstrument()

    async def main() -> None:
        async with namedtasks.open_task_map(instruments=[recording]) as tasks:
            flaky = Flaky()
            tasks.start_soon("a", flaky.call, retry=True)
            tasks.start_soon("a", flaky.call, if_busy="join")
            tasks.start_soon("b", look_async)
            tasks.start_soon("b", look_async, if_busy="skip")

    trio.run(main)
    numbers = {event.run_id for event in recording.events if event.name == "a"}
    others = {event.run_id for event in recording.events if event.name == "b"}
    assert len(numbers) == 1
    assert len(others) == 2
    assert None in others
    assert not numbers & others
    (joined,) = recording.of(TaskJoined)
    assert joined.attempts == 0
    assert [event.attempts for event in recording.of(TaskFailed)] == [1, 2]
    assert [event.attempts for event in recording.of(TaskStarted)] == [1, 1, 2, 3]
    assert [event.attempts for event in recording.of(TaskSucceeded)] == [1, 3]


def test_the_number_is_in_neither_the_repr_nor_comparisons() -> None:
    one = TaskQueued(name="a", operation=None, at=0.0, if_busy="queue", run_id=1, attempts=1)
    other = TaskQueued(name="a", operation=None, at=0.0, if_busy="queue", run_id=2)
    assert one == other
    assert repr(one) == "TaskQueued(name='a', operation=None, at=0.0, if_busy='queue')"


# Instruments


def test_other_instruments_get_the_same_events_in_order() -> None:
    marks, recording = Marks(), RecordingInstrument()
    with ThreadTaskMap(instruments=[marks, recording]) as tasks:
        tasks.submit("a", int).result()
    assert hooks(recording) == ["task_started", "task_succeeded"]
    assert marks.seen == [("task_started", "nobody")]


def test_one_that_raises_is_unplugged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Marks):
        def task_started(self, event: TaskStarted, /) -> None:
            raise ValueError("broken")

        def __repr__(self) -> str:
            return "Broken"

    broken, marks = Broken(), Marks()
    with ThreadTaskMap(instruments=[broken, marks]) as tasks:
        assert tasks.submit("a", look).result() == ("nobody", "a 1")
        assert tasks.submit("a", look).result() == ("nobody", "a 1")
    assert caplog.text.count("instrument Broken raised in task_started() and was unplugged") == 1


def test_one_may_use_the_map() -> None:
    class Counts(Marks):
        def task_refused(self, event: TaskRefused, /) -> None:
            counted.append(tasks.statistics().running)
            if event.operation is None:
                tasks.submit("a", look, if_busy="skip", operation="again")

    counted: list[int] = []
    gate = Gate()
    with ThreadTaskMap(instruments=[Counts()]) as tasks:
        tasks.submit("a", gate)
        tasks.submit("a", look, if_busy="skip")
        assert counted == [1, 1]
        gate.may_go.set()


def test_the_setting_is_a_bool() -> None:
    class Wrong(Instrument):
        in_context = cast("bool", "yes")

    with pytest.raises(TypeError, match=r"^in_context must be True or False, not 'yes'$"):
        EventBus([Wrong()])


def test_a_future_does_not_keep_the_context_of_its_start() -> None:
    """A run in a pool keeps it for the event of its start, whether anybody gets that or not."""

    class Refusals(Instrument):
        in_context = True

        def task_refused(self, event: TaskRefused, /) -> None: ...

    class Value:
        pass

    variable: ContextVar[Value] = ContextVar("variable")
    pool = HandPool()

    def start() -> tuple[TaskFuture[int], weakref.ref[Value]]:
        value = Value()
        variable.set(value)
        return tasks.submit("a", pow, 2, 3), weakref.ref(value)

    with ThreadTaskMap(instruments=[Refusals()], executor=pool) as tasks:
        future, seen = copy_context().run(start)
        pool.jobs.pop().run()
        assert future.result() == 8
        gc.collect()
        assert seen() is None
    assert future.done()
