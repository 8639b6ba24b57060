"""Spans of runs, by the SDK's in-memory exporter."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import trio
from opentelemetry import baggage, context as contexts, trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from trio.testing import MockClock

import namedtasks
import namedtasks.asyncio
import namedtasks.instruments
from namedtasks import Backoff, ThreadTaskMap
from namedtasks.executors import from_pool
from namedtasks.instruments import Instrument, OpenTelemetryInstrument, TaskSucceeded
from namedtasks.testing import ManualClock
from tests import virtual_loop
from tests.executors.kinds import process_pool
from tests.threads.helpers import Gate, boom, reach, run_child, wait_until

SOON = Backoff(initial=0.001)


class Traces:
    """Spans that are kept in memory, and the instrument that makes them."""

    def __init__(self, sampler: Sampler | None = None, **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.library = self.provider.get_tracer("library")
        """The tracer of another library, which bodies use."""
        self.instrument = OpenTelemetryInstrument(tracer_provider=self.provider, **settings)
        self.map: dict[str, Any] = {"instruments": [self.instrument]}
        """The settings of a map with the instrument."""

    def call_library(self) -> None:
        with self.library.start_as_current_span("library"):
            pass

    async def call_library_async(self) -> None:
        self.call_library()

    def calling(self, name: str, start: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make a start inside a span, which ends with it."""
        with self.library.start_as_current_span(name):
            return start(*args, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Return the spans that have ended, in the order in which they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def runs(self, name: str | None = None) -> list[ReadableSpan]:
        """Return the spans of runs, of the name only if one is given."""
        found = [span for span in self.spans if span.name.startswith("namedtasks.run")]
        return [one for one in found if name in (None, attributes(one)["namedtasks.name"])]

    def run(self, name: str | None = None) -> ReadableSpan:
        """Return the only span of a run."""
        (span,) = self.runs(name)
        return span

    def named(self, name: str) -> ReadableSpan:
        """Return the only span with this name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def tree(self) -> list[str]:
        """Return the path of each span from its root, in order."""
        spans = {span_id(span): span for span in self.spans}

        def path(span: ReadableSpan) -> Iterator[str]:
            if span.parent is not None:
                yield from path(spans[span.parent.span_id])
            yield str(attributes(span).get("namedtasks.name", span.name))

        return sorted("/".join(path(span)) for span in spans.values())


def attributes(span: Any) -> dict[str, Any]:
    return dict(span.attributes or {})


def span_id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def events(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, attributes(event)) for event in span.events]


@pytest.fixture
def traces() -> Traces:
    return Traces()


# A span for each run


def in_asyncio(traces: Traces) -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(**traces.map) as tasks:
            start = tasks.create_task
            traces.calling("caller", start, "a", traces.call_library_async, operation="attach")

    asyncio.run(main())


def in_threads(traces: Traces) -> None:
    with ThreadTaskMap(**traces.map) as tasks:
        traces.calling("caller", tasks.submit, "a", traces.call_library, operation="attach")


def in_trio(traces: Traces) -> None:
    async def main() -> None:
        async with namedtasks.open_task_map(**traces.map) as tasks:
            start = tasks.start_soon
            traces.calling("caller", start, "a", traces.call_library_async, operation="attach")

    trio.run(main)


def in_asyncio_thread(traces: Traces, **options: Any) -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(**traces.map) as tasks:
            start = tasks.run_in_executor
            traces.calling("caller", start, "a", traces.call_library, operation="attach", **options)

    asyncio.run(main())


def in_trio_thread(traces: Traces, **options: Any) -> None:
    async def main() -> None:
        async with namedtasks.open_task_map(**traces.map) as tasks:
            start = tasks.start_thread_soon
            traces.calling("caller", start, "a", traces.call_library, operation="attach", **options)

    trio.run(main)


def in_asyncio_pool(traces: Traces) -> None:
    with ThreadPoolExecutor(1) as pool:
        in_asyncio_thread(traces, executor=pool)


def in_threads_pool(traces: Traces) -> None:
    with ThreadPoolExecutor(1) as pool, ThreadTaskMap(executor=pool, **traces.map) as tasks:
        traces.calling("caller", tasks.submit, "a", traces.call_library, operation="attach")


def in_trio_pool(traces: Traces) -> None:
    with ThreadPoolExecutor(1) as pool:
        in_trio_thread(traces, executor=from_pool(pool))


def in_asyncio_post(traces: Traces) -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(**traces.map) as tasks:
            post = tasks.post
            traces.calling("caller", post, "a", traces.call_library_async, operation="attach")
            await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.parametrize(
    "run",
    [
        *(in_asyncio, in_asyncio_thread, in_asyncio_pool, in_asyncio_post),
        *(in_threads, in_threads_pool),
        *(in_trio, in_trio_thread, in_trio_pool),
    ],
)
def test_a_run_is_a_span_between_its_caller_and_the_library(
    run: Callable[[Traces], object], traces: Traces
) -> None:
    run(traces)
    assert traces.tree() == ["caller", "caller/a", "caller/a/library"]
    span = traces.run()
    assert span.name == "namedtasks.run attach"
    assert span.kind is trace.SpanKind.INTERNAL
    assert attributes(span) == {
        "namedtasks.name": "a",
        "namedtasks.operation": "attach",
        "namedtasks.failures": 0,
        "namedtasks.attempt": 1,
        "namedtasks.outcome": "succeeded",
    }
    assert span.status.status_code is trace.StatusCode.UNSET
    assert (events(span), span.links) == ([], ())
    assert repr(traces.instrument) == "<namedtasks.instruments.OpenTelemetryInstrument 0 open>"


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="they came with 3.12")
def test_so_is_that_of_an_eager_task(traces: Traces) -> None:
    async def main() -> None:
        factory = getattr(asyncio, "eager_task_factory")  # noqa: B009 - not known to 3.11
        asyncio.get_running_loop().set_task_factory(factory)
        async with namedtasks.asyncio.open_task_map(**traces.map) as tasks:
            with traces.library.start_as_current_span("caller"):
                await tasks.create_task("a", traces.call_library_async)
                traces.call_library()

    asyncio.run(main())
    assert traces.tree() == ["caller", "caller/a", "caller/a/library", "caller/library"]


def test_without_a_caller_it_is_the_root_of_a_trace(traces: Traces) -> None:
    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit("a", traces.call_library).result()
        tasks.submit("b", traces.call_library).result()
    assert traces.tree() == ["a", "a/library", "b", "b/library"]
    assert {span.name for span in traces.runs()} == {"namedtasks.run"}


def test_a_run_that_a_body_starts_is_its_child(traces: Traces) -> None:
    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit("a", tasks.submit, "b", traces.call_library)
    assert traces.tree() == ["a", "a/b", "a/b/library"]


def test_nothing_crosses_into_a_process(traces: Traces) -> None:
    """The run has its span, with the pid of the process that started it among its resources."""
    with ThreadTaskMap(executor=process_pool(), **traces.map) as tasks:
        pid = traces.calling("caller", tasks.submit, "a", os.getpid)
        assert pid.result() != os.getpid()
        failed = traces.calling("other", tasks.submit, "b", boom)
        assert isinstance(failed.exception(), ValueError)
    assert traces.tree() == ["caller", "caller/a", "other", "other/b"]
    outcomes = {span.name: attributes(span)["namedtasks.outcome"] for span in traces.runs()}
    assert outcomes == {"namedtasks.run": "failed"}


def test_the_name_of_the_map_is_an_attribute() -> None:
    traces = Traces(map_label="volumes")
    in_threads(traces)
    assert attributes(traces.run())["namedtasks.map"] == "volumes"


def test_two_maps_may_share_an_instrument(traces: Traces) -> None:
    """Their runs may have equal names."""
    gate = Gate()
    with ThreadTaskMap(**traces.map) as one, ThreadTaskMap(**traces.map) as other:
        one.submit("a", gate)
        reach(gate.begun)
        other.submit("a", boom).exception()
        other.wait_idle()
        wait_until(traces.runs)
        assert attributes(traces.run())["namedtasks.outcome"] == "failed"
        assert repr(traces.instrument) == "<namedtasks.instruments.OpenTelemetryInstrument 1 open>"
        gate.may_go.set()
    outcomes = [attributes(span)["namedtasks.outcome"] for span in traces.runs()]
    assert outcomes == ["succeeded", "failed"]


def test_a_run_may_begin_before_the_end_of_the_last_one_was_delivered(traces: Traces) -> None:
    delivers, may_deliver = threading.Event(), threading.Event()

    class Slow(Instrument):
        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            delivers.set()
            reach(may_deliver)

    with ThreadTaskMap(instruments=[Slow(), traces.instrument]) as tasks:
        tasks.submit("a", int).result()
        reach(delivers)
        assert isinstance(tasks.submit("a", boom).exception(), ValueError)
        assert traces.runs() == []
        may_deliver.set()
    outcomes = [attributes(span)["namedtasks.outcome"] for span in traces.runs()]
    assert outcomes == ["succeeded", "failed"]


# Ends


def test_a_failure_has_the_status_error_and_the_exception(traces: Traces) -> None:
    with ThreadTaskMap(clock=ManualClock(), **traces.map) as tasks:
        tasks.submit("a", boom).exception()
    span = traces.run()
    assert attributes(span) == {
        "namedtasks.name": "a",
        "namedtasks.failures": 0,
        "namedtasks.attempt": 1,
        "namedtasks.outcome": "failed",
        "namedtasks.retry_in": 0.5,
        "error.type": "ValueError",
    }
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.status.description == "ValueError: boom"
    ((name, exception),) = events(span)
    assert name == "exception"
    assert exception.pop("exception.stacktrace").splitlines()[-1] == "ValueError: boom"
    assert exception == {"exception.type": "ValueError", "exception.message": "boom"}


def test_the_traceback_has_no_frames_of_the_map(traces: Traces) -> None:
    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit("a", boom).exception()
    ((_, exception),) = events(traces.run())
    lines = exception["exception.stacktrace"].splitlines()
    assert [line for line in lines if line.startswith("  File")] == [
        f'  File "{boom.__code__.co_filename}", line {boom.__code__.co_firstlineno + 1}, in boom'
    ]


def test_the_next_failures_count_and_the_last_one_gives_up(traces: Traces) -> None:
    clock = ManualClock()
    with ThreadTaskMap(clock=clock, backoff=Backoff(give_up_after=2), **traces.map) as tasks:
        tasks.submit("a", boom).exception()
        clock.advance(0.5)
        tasks.submit("a", boom).exception()
    first, last = map(attributes, traces.runs())
    assert (first["namedtasks.failures"], last["namedtasks.failures"]) == (0, 1)
    assert last["namedtasks.gave_up"] is True
    assert "namedtasks.retry_in" not in last
    assert "namedtasks.gave_up" not in first


def test_a_failure_that_does_not_count_has_no_wait(traces: Traces) -> None:
    with ThreadTaskMap(backoff=None, **traces.map) as tasks:
        tasks.submit("a", boom).exception()
    assert attributes(traces.run()).keys() & {"namedtasks.retry_in", "namedtasks.gave_up"} == set()


async def test_a_cancelled_run_has_an_outcome_and_no_error(
    autojump_clock: MockClock, traces: Traces
) -> None:
    """The SDK itself says nothing of a span whose body was cancelled."""
    async with namedtasks.open_task_map(**traces.map) as tasks:
        tasks.start_soon("a", trio.sleep, 60)
        tasks.start_soon("b", trio.sleep, 60)
        await trio.sleep(1)
        tasks.cancel("a", reason="the pod is gone")
        tasks.cancel("b")
    first, other = traces.run("a"), traces.run("b")
    assert attributes(first)["namedtasks.outcome"] == "cancelled"
    assert attributes(first)["namedtasks.reason"] == "the pod is gone"
    assert first.status.status_code is trace.StatusCode.UNSET
    assert events(first) == []
    assert attributes(other)["namedtasks.outcome"] == "cancelled"
    assert "namedtasks.reason" not in attributes(other)


def test_a_cancelled_task_on_asyncio_has_it_too(traces: Traces) -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(**traces.map) as tasks:
            task = tasks.create_task("a", asyncio.sleep, 60)
            await asyncio.sleep(1)
            task.cancel()

    virtual_loop.run(main)
    assert attributes(traces.run())["namedtasks.outcome"] == "cancelled"


async def test_a_timeout_is_a_failure(autojump_clock: MockClock, traces: Traces) -> None:
    async with namedtasks.open_task_map(**traces.map) as tasks:
        tasks.start_soon("a", trio.sleep, 60, timeout=30)
    span = traces.run()
    assert attributes(span)["namedtasks.outcome"] == "failed"
    assert attributes(span)["error.type"] == "trio.TooSlowError"
    assert span.status.description == "TooSlowError: it took longer than its timeout of 30 s"


async def test_an_overdue_run_has_an_event(autojump_clock: MockClock, traces: Traces) -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    async with namedtasks.open_task_map(**traces.map) as tasks:
        tasks.start_soon("a", stubborn, timeout=30)
    assert events(traces.run()) == [("namedtasks.overdue", {})]
    assert attributes(traces.run())["namedtasks.outcome"] == "succeeded"


def test_an_error_that_leaves_the_block_ends_the_span(traces: Traces) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def main() -> None:
        async with namedtasks.open_task_map(**traces.map) as tasks:
            tasks.start_soon("a", leave)
            tasks.start_soon("b", trio.sleep_forever)

    with pytest.raises(SystemExit):
        trio.run(main)
    assert attributes(traces.run("a"))["error.type"] == "SystemExit"
    assert attributes(traces.run("b"))["namedtasks.outcome"] == "cancelled"
    assert repr(traces.instrument).endswith(" 0 open>")


def test_a_run_that_outlives_its_map_ends_its_span_when_it_ends(traces: Traces) -> None:
    gate = Gate()
    tasks = ThreadTaskMap(overdue_after=0.0, **traces.map)
    tasks.submit("a", gate)
    reach(gate.begun)
    assert tasks.shutdown(grace=0) == ("a",)
    assert traces.runs() == []
    gate.may_go.set()
    wait_until(traces.runs)
    assert attributes(traces.run())["namedtasks.outcome"] == "succeeded"


# Attempts


class Flaky:
    """A body that fails twice, and calls a library each time."""

    def __init__(self, traces: Traces) -> None:
        self.traces = traces
        self.calls = 0

    def __call__(self) -> None:
        self.traces.call_library()
        self.calls += 1
        if self.calls < 3:
            raise OSError("device busy")

    async def call(self) -> None:
        self()


def retry_on_asyncio(traces: Traces) -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(**traces.map) as tasks:
            await traces.calling("caller", tasks.create_task, "a", Flaky(traces).call, retry=True)

    virtual_loop.run(main)


def retry_in_threads(traces: Traces) -> None:
    with ThreadTaskMap(backoff=SOON, **traces.map) as tasks:
        traces.calling("caller", tasks.submit, "a", Flaky(traces), retry=True).result()


def retry_on_trio(traces: Traces) -> None:
    async def main() -> None:
        async with namedtasks.open_task_map(**traces.map) as tasks:
            await traces.calling(
                "caller", tasks.start_soon, "a", Flaky(traces).call, retry=True
            ).wait()

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("run", [retry_on_asyncio, retry_in_threads, retry_on_trio])
def test_each_attempt_is_a_span_of_the_caller(
    run: Callable[[Traces], object], traces: Traces
) -> None:
    """None is the child of the one before it, though on asyncio they have one context."""
    run(traces)
    assert traces.tree() == ["caller", *["caller/a"] * 3, *["caller/a/library"] * 3]
    keys = ("namedtasks.attempt", "namedtasks.failures", "namedtasks.outcome")
    facts = [tuple(attributes(span)[key] for key in keys) for span in traces.runs()]
    assert facts == [(1, 0, "failed"), (2, 1, "failed"), (3, 2, "succeeded")]


def test_the_attempts_of_a_run_inside_a_body_are_children_of_that_body(traces: Traces) -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(**traces.map) as tasks:

            async def outer() -> None:
                await tasks.create_task("b", Flaky(traces).call, retry=True)

            await tasks.create_task("a", outer)

    virtual_loop.run(main)
    assert traces.tree() == ["a", *["a/b"] * 3, *["a/b/library"] * 3]


def test_a_retry_that_is_dropped_has_the_spans_of_its_attempts(traces: Traces) -> None:
    with ThreadTaskMap(clock=ManualClock(), **traces.map) as tasks:
        tasks.submit("a", boom, retry=True)
        wait_until(tasks.pending)
        tasks.cancel("a")
    assert attributes(traces.run())["namedtasks.outcome"] == "failed"
    assert repr(traces.instrument).endswith(" 0 open>")


# Starts of a busy name


def test_a_queued_run_is_a_child_of_its_caller_which_has_ended(traces: Traces) -> None:
    gate = Gate()
    with ThreadTaskMap(**traces.map) as tasks:
        traces.calling("first", tasks.submit, "a", gate)
        traces.calling("second", tasks.submit, "a", traces.call_library, if_busy="queue")
        gate.may_go.set()
    assert traces.tree() == ["first", "first/a", "second", "second/a", "second/a/library"]
    assert events(traces.named("second")) == [
        ("namedtasks.queued", {"namedtasks.name": "a", "namedtasks.if_busy": "queue"})
    ]
    caller, run = traces.named("second"), traces.runs()[1]
    assert caller.end_time is not None
    assert run.start_time is not None
    assert caller.end_time < run.start_time


async def test_a_replaced_run_has_the_reason(autojump_clock: MockClock, traces: Traces) -> None:
    async with namedtasks.open_task_map(**traces.map) as tasks:
        traces.calling("first", tasks.start_soon, "a", trio.sleep, 60)
        await trio.sleep(1)
        start = tasks.start_soon
        traces.calling("second", start, "a", traces.call_library_async, if_busy="replace")
    old, new = traces.runs()
    assert attributes(old)["namedtasks.outcome"] == "cancelled"
    assert attributes(old)["namedtasks.reason"] == "replaced by a newer start"
    assert attributes(new)["namedtasks.outcome"] == "succeeded"
    assert traces.tree() == ["first", "first/a", "second", "second/a", "second/a/library"]
    assert events(traces.named("second"))[0][1]["namedtasks.if_busy"] == "replace"


async def test_a_run_that_never_begins_has_no_span(
    autojump_clock: MockClock, traces: Traces
) -> None:
    async with namedtasks.open_task_map(limit=1, **traces.map) as tasks:
        tasks.start_soon("a", trio.sleep, 1)
        tasks.start_soon("a", trio.sleep, 1, if_busy="queue", operation="superseded")
        tasks.start_soon("a", trio.sleep, 1, if_busy="queue", operation="cancelled").cancel()
        tasks.start_soon("b", trio.sleep, 1).cancel()
    assert [attributes(span)["namedtasks.name"] for span in traces.spans] == ["a"]
    assert repr(traces.instrument).endswith(" 0 open>")


async def test_a_join_is_an_event_and_a_link_of_its_caller(
    autojump_clock: MockClock, traces: Traces
) -> None:
    async with namedtasks.open_task_map(**traces.map) as tasks:
        traces.calling("first", tasks.start_soon, "a", trio.sleep, 1, if_busy="join")
        traces.calling("early", tasks.start_soon, "a", trio.sleep, 1, if_busy="join")
        await trio.sleep(0.5)
        traces.calling("late", tasks.start_soon, "a", trio.sleep, 1, if_busy="join")
        tasks.start_soon("a", trio.sleep, 1, if_busy="join")
    run, early, late = traces.run(), traces.named("early"), traces.named("late")
    assert traces.tree() == ["early", "first", "first/a", "late"]
    assert events(traces.named("first")) == []
    assert events(early) == events(late) == [("namedtasks.joined", {"namedtasks.name": "a"})]
    assert early.links == ()  # the body had not begun
    (link,) = late.links
    assert link.context == run.get_span_context()
    assert attributes(link) == {"namedtasks.name": "a"}


def test_a_refusal_is_an_event_of_its_caller(traces: Traces) -> None:
    gate = Gate()
    with ThreadTaskMap(clock=ManualClock(), **traces.map) as tasks:
        tasks.submit("a", gate)
        tasks.submit("b", boom).exception()
        with traces.library.start_as_current_span("caller"):
            with pytest.raises(namedtasks.AlreadyRunningError):
                tasks.submit("a", int, operation="resize")
            assert tasks.submit("b", int, if_busy="skip") is None
            tasks.close()
            with pytest.raises(namedtasks.ClosedError):
                tasks.submit("c", int)
        assert tasks.state("a") is namedtasks.State.RUNNING
        gate.may_go.set()
    named, kind, skipped = "namedtasks.name", "error.type", "namedtasks.skipped"
    refusals = [
        {
            named: "a",
            "namedtasks.operation": "resize",
            kind: "namedtasks.AlreadyRunningError",
            skipped: False,
        },
        {named: "b", kind: "namedtasks.BackoffError", skipped: True},
        {named: "c", kind: "namedtasks.ClosedError", skipped: False},
    ]
    found = events(traces.named("caller"))
    assert found == [("namedtasks.refused", refusal) for refusal in refusals]


def test_without_a_caller_nothing_is_told_of_a_busy_name(traces: Traces) -> None:
    gate = Gate()
    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit("a", gate)
        reach(gate.begun)
        for if_busy in ("skip", "join", "queue"):
            _ = tasks.submit("a", int, if_busy=if_busy)
        gate.may_go.set()
    assert [(span.events, span.links) for span in traces.spans] == [((), ())] * 2


def test_inside_a_body_the_caller_is_the_run(traces: Traces) -> None:
    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit("a", lambda: tasks.submit("a", int, if_busy="skip"))
    assert [name for name, _ in events(traces.run())] == ["namedtasks.refused"]


# Traces of their own


def test_with_new_trace_a_run_has_a_link_to_its_caller() -> None:
    traces = Traces(new_trace=True)

    def look() -> object:
        traces.call_library()
        return baggage.get_baggage("tenant")

    with ThreadTaskMap(**traces.map) as tasks:
        token = contexts.attach(baggage.set_baggage("tenant", "acme"))
        future = traces.calling("caller", tasks.submit, "a", look)
        contexts.detach(token)
        assert future.result() == "acme"
        tasks.submit("b", int).result()
    assert traces.tree() == ["a", "a/library", "b", "caller"]
    (link,) = traces.run("a").links
    assert link.context == traces.named("caller").get_span_context()
    assert traces.run("b").links == ()


def test_each_attempt_has_that_link_too() -> None:
    traces = Traces(new_trace=True)
    retry_on_asyncio(traces)
    assert traces.tree() == [*["a"] * 3, *["a/library"] * 3, "caller"]
    caller = traces.named("caller").get_span_context()
    assert [[link.context for link in span.links] for span in traces.runs()] == [[caller]] * 3


# Text


class Unreadable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    def __repr__(self) -> str:
        raise ValueError("no text")


class Untraceable(ValueError):
    """An error whose traceback cannot be formatted."""

    def __getattribute__(self, name: str) -> object:
        if name == "__notes__":
            raise SystemExit
        return super().__getattribute__(name)


def fail(error: BaseException) -> None:
    raise error


def texts(span: ReadableSpan) -> list[str]:
    values = [*attributes(span).values()]
    values += [value for _, event in events(span) for value in event.values()]
    return [span.name, span.status.description or "", *(v for v in values if isinstance(v, str))]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vol-1", "vol-1"),
        (("vol", 1), "('vol', 1)"),
        (b"vol", "b'vol'"),
        ("vol\ud800", r"vol\ud800"),
        ("vol\n1", r"vol\n1"),
        ("größe", "größe"),
        ("v" * 2000, "v" * 1000),
    ],
)
def test_a_name_is_text_that_can_be_exported(name: Any, text: str, traces: Traces) -> None:
    """A lone surrogate in the name or the status of a span makes the OTLP exporter lose the batch.

    So would a tuple (seen with opentelemetry-exporter-otlp-proto-common 1.45.2).
    """
    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit(name, int).result()
    assert attributes(traces.run())["namedtasks.name"] == text


def test_so_is_all_other_text(traces: Traces) -> None:
    strange = type("Strange", (ValueError,), {"__module__": "m", "__qualname__": "\ud801"})
    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit("a", fail, strange("\ud800"), operation="\udfff").exception()
    span = traces.run()
    assert [text.encode() for text in texts(span)]
    assert attributes(span)["error.type"] == r"m.\ud801"
    assert span.name == r"namedtasks.run \udfff"
    assert span.status.description == r"\ud801: \ud800"
    ((_, exception),) = events(span)
    assert exception["exception.message"] == r"\ud800"


async def test_so_is_the_reason_of_a_cancellation(
    autojump_clock: MockClock, traces: Traces
) -> None:
    async with namedtasks.open_task_map(**traces.map) as tasks:
        tasks.start_soon("a", trio.sleep, 60)
        await trio.sleep(1)
        tasks.cancel("a", reason="\ud800" * 2000)
    assert attributes(traces.run())["namedtasks.reason"] == r"\ud800" * 1000


def test_errors_are_bounded(traces: Traces) -> None:
    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit("a", fail, ValueError("long" * 10_000)).exception()
    ((_, exception),) = events(traces.run())
    assert exception["exception.message"] == "long" * 250
    assert len(exception["exception.stacktrace"]) == 20_000
    assert len(traces.run().status.description or "") == 1_000


@pytest.mark.parametrize(
    ("error", "text", "traceback"),
    [
        (
            Unreadable(),
            "<Unreadable whose str raises>",
            "tests.instruments.test_opentelemetry.Unreadable: <exception str() failed>",
        ),
        (Untraceable("boom"), "boom", "<Untraceable whose _traceback raises>"),
    ],
)
def test_an_error_that_cannot_be_read_ends_the_span_all_the_same(
    error: Exception, text: str, traceback: str, traces: Traces
) -> None:
    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit("a", fail, error).exception()
    ((_, exception),) = events(traces.run())
    assert exception["exception.message"] == text
    assert exception["exception.stacktrace"].splitlines()[-1] == traceback


# The SDK


class Raises(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise OSError("no collector")


def test_an_exporter_that_raises_disturbs_nothing(
    traces: Traces, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK logs it."""
    traces.provider.add_span_processor(SimpleSpanProcessor(Raises()))
    with ThreadTaskMap(**traces.map) as tasks:
        assert tasks.submit("a", int).result() == 0
        assert tasks.submit("a", int).result() == 0
    assert len(traces.runs()) == 2
    assert "unplugged" not in caplog.text
    assert caplog.text.count("OSError: no collector") == 2


class Refuses(SpanProcessor):
    def on_start(self, span: Span, parent_context: contexts.Context | None = None) -> None:
        raise ValueError("no spans, please")


def test_a_processor_that_raises_unplugs_the_instrument(
    traces: Traces, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadTaskMap(**traces.map) as tasks:
        traces.provider.add_span_processor(Refuses())
        assert tasks.submit("a", int).result() == 0
        assert tasks.submit("a", int).result() == 0
    what = "OpenTelemetryInstrument 0 open> raised in task_started() and was unplugged"
    assert caplog.text.count(what) == 1


def test_without_a_provider_nothing_is_made() -> None:
    instrument = OpenTelemetryInstrument()
    with ThreadTaskMap(instruments=[instrument]) as tasks:
        seen = tasks.submit("a", trace.get_current_span).result()
        assert seen is trace.INVALID_SPAN
        assert tasks.submit("a", boom).exception() is not None
        assert tasks.submit("a", int, if_busy="skip") is None
    assert repr(instrument) == "<namedtasks.instruments.OpenTelemetryInstrument 0 open>"


def test_without_a_provider_the_trace_of_a_request_goes_on() -> None:
    """Context that came from outside reaches the body, and the services that it calls."""
    context = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    remote = trace.set_span_in_context(trace.NonRecordingSpan(context))
    with ThreadTaskMap(instruments=[OpenTelemetryInstrument()]) as tasks:
        token = contexts.attach(remote)
        future = tasks.submit("a", trace.get_current_span)
        contexts.detach(token)
        assert future.result().get_span_context() == context


def test_the_global_provider_may_be_set_later() -> None:
    program = """
    from namedtasks import ThreadTaskMap
    from namedtasks.instruments import OpenTelemetryInstrument
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    instrument = OpenTelemetryInstrument()
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with ThreadTaskMap(instruments=[instrument]) as tasks:
        tasks.submit("a", int).result()
        trace.set_tracer_provider(provider)
        tasks.submit("b", int).result()
    print([span.attributes["namedtasks.name"] for span in exporter.get_finished_spans()])
    """
    child = run_child(program)
    assert (child.stdout, child.stderr) == ("['b']\n", "")


def test_a_run_that_is_not_sampled_hides_what_its_body_calls() -> None:
    """Otherwise the library would begin traces of its own."""
    traces = Traces(ParentBased(ALWAYS_OFF))
    with ThreadTaskMap(**traces.map) as tasks:

        def look() -> trace.SpanContext:
            traces.call_library()
            return trace.get_current_span().get_span_context()

        context = tasks.submit("a", look).result()
        tasks.submit("b", boom).exception()
        tasks.submit("b", boom, if_busy="skip")
    assert context.is_valid
    assert not context.trace_flags.sampled
    assert traces.spans == []
    assert repr(traces.instrument).endswith(" 0 open>")


class DropsWatch(Sampler):
    """A sampler that reads the attributes of the run."""

    def should_sample(
        self,
        parent_context: contexts.Context | None,
        trace_id: int,
        name: str,
        kind: trace.SpanKind | None = None,
        attributes: Mapping[str, Any] | None = None,
        links: Any = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        is_dropped = (attributes or {}).get("namedtasks.operation") == "watch"
        return SamplingResult(
            Decision.DROP if is_dropped else Decision.RECORD_AND_SAMPLE, attributes
        )

    def get_description(self) -> str:
        return "drops the operation watch"


def test_a_sampler_may_choose_by_the_operation() -> None:
    traces = Traces(ParentBased(DropsWatch()))
    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit("a", traces.call_library, operation="watch")
        tasks.submit("b", traces.call_library, operation="attach")
    assert traces.tree() == ["b", "b/library"]


def test_the_body_may_write_to_its_span(traces: Traces) -> None:
    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit("a", lambda: trace.get_current_span().set_attribute("blocks", 3)).result()
    assert attributes(traces.run())["blocks"] == 3


def test_the_status_ok_of_a_body_is_final(traces: Traces) -> None:
    """So says the specification of OpenTelemetry; the other facts of a failure are there."""

    def claim() -> None:
        trace.get_current_span().set_status(trace.StatusCode.OK)
        boom()

    with ThreadTaskMap(**traces.map) as tasks:
        tasks.submit("a", claim).exception()
    span = traces.run()
    assert span.status.status_code is trace.StatusCode.OK
    assert attributes(span)["namedtasks.outcome"] == "failed"


@pytest.mark.parametrize("error", [None, ValueError("boom"), namedtasks.TaskCancelledError("a")])
def test_a_body_may_end_its_span(
    error: Exception | None, traces: Traces, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the instrument writes no more to it, as the SDK would log a warning."""

    def end() -> None:
        trace.get_current_span().end()
        tasks.cancel("a")
        wait_until(lambda: tasks["a"].overdue)
        if error is not None:
            raise error

    with ThreadTaskMap(overdue_after=0.0, **traces.map) as tasks:
        tasks.submit("a", end).exception()
    assert "namedtasks.outcome" not in attributes(traces.run())
    assert not [one for one in caplog.records if one.name.startswith("opentelemetry")]


# The extra


@pytest.fixture
def not_imported(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let the instrument be imported when it is used next."""
    monkeypatch.delitem(vars(namedtasks.instruments), "OpenTelemetryInstrument", raising=False)
    monkeypatch.delitem(sys.modules, "namedtasks.instruments.opentelemetry", raising=False)
    return monkeypatch


@pytest.fixture
def no_package(not_imported: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let the import of OpenTelemetry fail, once the first part of its name is replaced."""
    for module in [name for name in sys.modules if name.startswith("opentelemetry.")]:
        not_imported.delitem(sys.modules, module)
    return not_imported


def test_without_the_package_the_extra_is_named(no_package: pytest.MonkeyPatch) -> None:
    no_package.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError) as caught:
        _ = namedtasks.instruments.OpenTelemetryInstrument
    assert str(caught.value) == (
        "namedtasks.instruments.OpenTelemetryInstrument needs opentelemetry: "
        "pip install 'namedtasks[opentelemetry]'"
    )
    assert "OpenTelemetryInstrument" not in dir(namedtasks.instruments)


def test_other_packages_of_opentelemetry_are_not_enough(no_package: pytest.MonkeyPatch) -> None:
    """It is a namespace: of opentelemetry-proto, for example, which does not need the API."""
    namespace = ModuleType("opentelemetry")
    namespace.__path__ = []
    no_package.setitem(sys.modules, "opentelemetry", namespace)
    assert "OpenTelemetryInstrument" not in dir(namedtasks.instruments)
    with pytest.raises(ImportError, match=r"pip install 'namedtasks\[opentelemetry\]'$"):
        _ = namedtasks.instruments.OpenTelemetryInstrument


def test_another_module_that_is_missing_is_told_as_it_is(not_imported: pytest.MonkeyPatch) -> None:
    not_imported.setitem(sys.modules, "namedtasks._validation", None)
    with pytest.raises(ModuleNotFoundError, match=r"^import of namedtasks\._validation halted"):
        _ = namedtasks.instruments.OpenTelemetryInstrument


def test_it_is_listed_with_the_package(not_imported: pytest.MonkeyPatch) -> None:
    assert "OpenTelemetryInstrument" in dir(namedtasks.instruments)
    assert namedtasks.instruments.OpenTelemetryInstrument.__name__ == "OpenTelemetryInstrument"


def test_without_it_all_else_can_be_imported() -> None:
    program = """
    import sys

    sys.modules["opentelemetry"] = None
    from namedtasks.instruments import *

    print(LoggingInstrument())
    """
    child = run_child(program)
    logging = "<namedtasks.LoggingInstrument logger='namedtasks'>\n"
    assert (child.stdout, child.stderr) == (logging, "")


def test_it_is_imported_only_when_it_is_used() -> None:
    program = """
    import sys
    import namedtasks.instruments

    print("opentelemetry" in sys.modules)
    namedtasks.instruments.OpenTelemetryInstrument
    print("opentelemetry" in sys.modules, "opentelemetry.sdk" in sys.modules)
    """
    child = run_child(program)
    assert (child.stdout, child.stderr) == ("False\nTrue False\n", "")


def test_there_is_no_other_instrument() -> None:
    message = r"^module 'namedtasks.instruments' has no attribute 'Nothing'$"
    with pytest.raises(AttributeError, match=message):
        getattr(namedtasks.instruments, "Nothing")  # noqa: B009


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"map_label": 3}, r"^map_label must be a str or None, not 3$"),
        ({"new_trace": "yes"}, r"^new_trace must be True or False, not 'yes'$"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        OpenTelemetryInstrument(**settings)
