"""The instrument for OpenTelemetry: a span for each run.

It needs the API package only, ``opentelemetry-api``. The program sets up the SDK, which records
and exports the spans; without one they cost very little.

Theory of operation. A body runs in a copy of its caller's context. So in the step before the
body's first, the current span is that of the caller. It becomes the parent, and the run's span
becomes the current one in the body's context. So the spans of the libraries that the body calls
are children of the run's span.
"""

from __future__ import annotations

import math
import traceback
from contextvars import ContextVar
from typing import Any, Final, final

from opentelemetry import context as contexts, trace

from namedtasks._events import (
    Instrument,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskJoined,
    TaskOverdue,
    TaskQueued,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
)
from namedtasks._logging import exc_info_of, one_line, type_name
from namedtasks._validation import check_flag, error_text, name_text, safe_repr, safe_str
from namedtasks._version import __version__, publish

_NAME: Final = "namedtasks.name"
_OPERATION: Final = "namedtasks.operation"
_OUTCOME: Final = "namedtasks.outcome"

_MOST_TEXT = 1_000
"""The number of characters of a text that are kept. A name or an error may have any length."""

_MOST_TRACEBACK = 20_000
"""The number of characters of a traceback that are kept: the last, which show where it failed."""

_entered: ContextVar[tuple[int | None, contexts.Context]] = ContextVar("namedtasks.entered")
"""The run whose span is in the current context, and the context in which it was started. All
attempts of a run on asyncio share one context, and no attempt may be the child of another."""


@final
class OpenTelemetryInstrument(Instrument):
    """An instrument that makes a span for each run, and for each attempt of a retried one.

    The span is the current one in the body, so the spans of the libraries that the body calls
    are its children. Its parent is the span in which the start was made, which may have ended
    when the run begins, for example if the run was queued. A start that is refused, skipped or
    queued, or that replaces or joins a run, adds an event to the span in which it was made. A run
    that never begins has no span.

    It needs ``namedtasks[opentelemetry]``. Several maps may share one instrument. The attributes
    of a span:

    ========================  ================================================================
    ``namedtasks.name``       the name, if it is a str; else its repr
    ``namedtasks.operation``  the operation, if there is one; also in the name of the span
    ``namedtasks.failures``   the number of failures in a row before the run
    ``namedtasks.attempt``    the number of the attempt: 1 without ``retry=True``
    ``namedtasks.map``        *map_label*, if it was given
    ``namedtasks.outcome``    ``"succeeded"``, ``"failed"`` or ``"cancelled"``
    ``namedtasks.reason``     the reason of a cancellation, if there is one
    ``namedtasks.retry_in``   seconds until the name may start again after a failure
    ``namedtasks.gave_up``    True if the name was given up
    ``error.type``            the class of the error; the error is also an event of the span
    ========================  ================================================================

    Args:
        map_label: The value of ``namedtasks.map``, to tell the spans of several maps apart.
        new_trace: If true, each run begins a trace of its own, with a link to the span in which
            the start was made.
        tracer_provider: The provider that makes the spans; None for the global one, which may be
            set later.

    Raises:
        TypeError: an argument is of the wrong type.

    Example:
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        >>> from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        >>> from namedtasks import ThreadTaskMap
        >>> exporter, provider = InMemorySpanExporter(), TracerProvider()
        >>> provider.add_span_processor(SimpleSpanProcessor(exporter))
        >>> instrument = OpenTelemetryInstrument(tracer_provider=provider)
        >>> with ThreadTaskMap(instruments=[instrument]) as tasks:
        ...     _ = tasks.submit("pvc-1", print, "attached", operation="attach")
        attached
        >>> (span,) = exporter.get_finished_spans()
        >>> span.name, span.attributes["namedtasks.name"], span.attributes["namedtasks.outcome"]
        ('namedtasks.run attach', 'pvc-1', 'succeeded')

    .. versionadded:: 0.1
    """

    in_context = True

    def __init__(
        self,
        *,
        map_label: str | None = None,
        new_trace: bool = False,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        """Make spans with *tracer_provider*, by default the global one."""
        if map_label is not None and not isinstance(map_label, str):
            raise TypeError(f"map_label must be a str or None, not {safe_repr(map_label)}")
        self._map_label = None if map_label is None else _text(map_label)
        self._new_trace = check_flag("new_trace", new_trace)
        self._tracer = trace.get_tracer("namedtasks", __version__, tracer_provider)
        self._spans: dict[tuple[int | None, int], trace.Span] = {}
        """The open spans that record, by run and attempt. Each step on it is a single one."""

    def task_started(self, event: TaskStarted, /) -> None:
        """Begin a span, and make it the current one of the run's body."""
        context = contexts.get_current()
        run_id, before = _entered.get((None, context))
        if run_id == event.run_id:
            context = before
        attributes: dict[str, str | int] = {
            **_labels(event),
            "namedtasks.failures": event.failures,
            "namedtasks.attempt": event.attempts,
        }
        if self._map_label is not None:
            attributes["namedtasks.map"] = self._map_label
        parent, links = context, None
        if self._new_trace:
            caller = trace.get_current_span(context).get_span_context()
            links = [trace.Link(caller)] if caller.is_valid else None
            parent = trace.set_span_in_context(trace.INVALID_SPAN, context)
        name = "namedtasks.run"
        if event.operation is not None:
            name = f"{name} {attributes[_OPERATION]}"
        span = self._tracer.start_span(name, parent, attributes=attributes, links=links)
        if span.is_recording():
            self._spans[event.run_id, event.attempts] = span
        if span.get_span_context().is_valid:  # also one that is not sampled: so are its children
            _entered.set((event.run_id, context))
            contexts.attach(trace.set_span_in_context(span, context))

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """End the span."""
        span = self._spans.pop((event.run_id, event.attempts), None)
        if span is not None and span.is_recording():  # the body may have ended it
            span.set_attribute(_OUTCOME, "succeeded")
            span.end()

    def task_failed(self, event: TaskFailed, /) -> None:
        """End the span, with the error and the status ERROR."""
        span = self._spans.pop((event.run_id, event.attempts), None)
        if span is None or not span.is_recording():
            return
        error_type = _text(type_name(event.error))
        attributes: dict[str, str | float] = {_OUTCOME: "failed", "error.type": error_type}
        if event.retry_in == math.inf:
            attributes["namedtasks.gave_up"] = True
        elif event.retry_in is not None:
            attributes["namedtasks.retry_in"] = event.retry_in
        span.set_attributes(attributes)
        # Not record_exception(): it calls str() of the error, which may raise, and keeps all.
        error = {
            "exception.type": error_type,
            "exception.message": _encodable(safe_str(event.error)[:_MOST_TEXT]),
            "exception.stacktrace": _encodable(
                safe_repr(event.error, _traceback)[-_MOST_TRACEBACK:]
            ),
        }
        span.add_event("exception", error)
        span.set_status(trace.Status(trace.StatusCode.ERROR, _text(error_text(event.error))))
        span.end()

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """End the span, with the reason."""
        span = self._spans.pop((event.run_id, event.attempts), None)
        if span is not None and span.is_recording():
            span.set_attribute(_OUTCOME, "cancelled")
            if event.reason is not None:
                span.set_attribute("namedtasks.reason", _text(event.reason))
            span.end()

    def task_overdue(self, event: TaskOverdue, /) -> None:
        """Add an event to the span."""
        span = self._spans.get((event.run_id, event.attempts))
        if span is not None and span.is_recording():
            span.add_event("namedtasks.overdue")

    def task_refused(self, event: TaskRefused, /) -> None:
        """Add an event to the span of the start's caller."""
        span = trace.get_current_span()
        if span.is_recording():
            attributes: dict[str, str | bool] = {
                **_labels(event),
                "error.type": type_name(event.error),
                "namedtasks.skipped": event.skipped,
            }
            span.add_event("namedtasks.refused", attributes)

    def task_queued(self, event: TaskQueued, /) -> None:
        """Add an event to the span of the start's caller."""
        span = trace.get_current_span()
        if span.is_recording():
            attributes = {**_labels(event), "namedtasks.if_busy": event.if_busy}
            span.add_event("namedtasks.queued", attributes)

    def task_joined(self, event: TaskJoined, /) -> None:
        """Add an event to the span of the start's caller, and a link to the run's span."""
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event("namedtasks.joined", _labels(event))
            joined = self._spans.get((event.run_id, event.attempts))
            if joined is not None:
                span.add_link(joined.get_span_context(), _labels(event))

    def __repr__(self) -> str:
        return f"<namedtasks.instruments.OpenTelemetryInstrument {len(self._spans)} open>"


def _labels(event: TaskEvent) -> dict[str, str]:
    labels = {_NAME: _text(name_text(event.name))}
    if event.operation is not None:
        labels[_OPERATION] = _text(event.operation)
    return labels


def _text(text: str) -> str:
    """Return the beginning of *text* in one line, as `LoggingInstrument` has it in its fields."""
    text = text[:_MOST_TEXT]
    return text if text.isascii() and text.isprintable() else one_line(text)


def _encodable(text: str) -> str:
    """Return *text* without lone surrogates, which no exporter can encode."""
    return text.encode("utf-8", "backslashreplace").decode()


def _traceback(error: Any) -> str:
    return "".join(traceback.format_exception(*exc_info_of(error)))


publish(OpenTelemetryInstrument, module="namedtasks.instruments")
