"""Traces the runs of a map under stress: each body has the span of its own run, which ends once."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any, final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from namedtasks.instruments import OpenTelemetryInstrument
from tests.stress.scrapes import Faults


@final
class Spans(SpanProcessor):
    """Counts the spans of an `OpenTelemetryInstrument`, and compares them with the bodies."""

    def __init__(self, tally: Faults) -> None:
        self._tally = tally
        self._open: set[int] = set()
        self._lock = threading.Lock()
        provider = TracerProvider()
        provider.add_span_processor(self)
        self.instrument: OpenTelemetryInstrument = OpenTelemetryInstrument(tracer_provider=provider)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._tally.count("spans begun")
        with self._lock:
            self._open.add(span_id(span))

    def on_end(self, span: ReadableSpan) -> None:
        self._tally.count("spans ended")
        has_outcome = "namedtasks.outcome" in (span.attributes or {})
        self._tally.expect("a span that ends has an outcome", has_outcome)
        with self._lock:
            self._open.remove(span_id(span))

    def check_body(self, name: Hashable) -> None:
        """Compare the current span with that of a body of *name*."""
        span: Any = trace.get_current_span()
        is_own = span.is_recording() and (
            span.attributes["namedtasks.name"] == (name if isinstance(name, str) else repr(name))
        )
        self._tally.expect(f"the body of {name!r} has its own span, and not {span}", is_own)

    def finish(self) -> None:
        """All is over: no span is left."""
        self._tally.expect("each span ends", not self._open)
        self._tally.expect("no span is kept", "0 open" in repr(self.instrument))


def span_id(span: ReadableSpan) -> int:
    """Return the number of *span*."""
    context = span.get_span_context()
    assert context is not None
    return context.span_id
