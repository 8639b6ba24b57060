#!/usr/bin/env bash
# The guess:
#   A plain generator behind Starlette's StreamingResponse runs in one context, as it does in a
#   'for' loop: what it binds before its first chunk holds until its end.
# The behaviour:
#   Each chunk is a call of its own in a worker thread, in a new copy of the request's context.
#   Whatever the generator binds is gone after the next 'yield': structlog's bound variables, and
#   the current span of OpenTelemetry, so that later spans begin traces of their own. At the end
#   OpenTelemetry logs that it cannot detach the span. An async generator keeps what it binds.
# Seen with:
#   starlette 1.10.0, structlog 26.1.0, opentelemetry-sdk 1.45.1, CPython 3.11.7
# Output:
#   async generator: bound {'job': 1}, {'job': 1}; traces: 1; logged: nothing
#   plain generator: bound {'job': 1}, {}; traces: 2; logged: Failed to detach context
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'starlette==1.10.0' \
    'structlog==26.1.0' 'opentelemetry-sdk==1.45.1'

cat >see.py <<'END'
import asyncio
import logging

from opentelemetry.sdk.trace import TracerProvider
from starlette.responses import StreamingResponse
from structlog.contextvars import bound_contextvars, get_contextvars

logged = []
logger = logging.getLogger("opentelemetry")
logger.propagate = False
handler = logging.Handler()
handler.emit = lambda record: logged.append(record.getMessage())
logger.addHandler(handler)
tracer = TracerProvider().get_tracer("see")
bound = []
traces = set()


def note():
    bound.append(get_contextvars())
    with tracer.start_as_current_span("chunk") as span:
        traces.add(span.get_span_context().trace_id)


def plain_generator():
    with bound_contextvars(job=1), tracer.start_as_current_span("export"):
        for _ in range(2):
            note()
            yield b"chunk\n"


async def async_generator():
    for chunk in plain_generator():
        yield chunk


async def receive():
    await asyncio.Event().wait()


async def send(message):
    pass


async def serve(generator):
    await StreamingResponse(generator)({"type": "http"}, receive, send)


seen = []
for name, generator in (("async", async_generator()), ("plain", plain_generator())):
    bound.clear()
    traces.clear()
    logged.clear()
    asyncio.run(serve(generator))
    variables = ", ".join(map(str, bound))
    seen.append(
        f"{name} generator: bound {variables}; traces: {len(traces)}; "
        f"logged: {', '.join(logged) or 'nothing'}"
    )
    print(seen[-1])
assert seen == [
    "async generator: bound {'job': 1}, {'job': 1}; traces: 1; logged: nothing",
    "plain generator: bound {'job': 1}, {}; traces: 2; logged: Failed to detach context",
]
END

timeout 120 venv/bin/python see.py
echo "as described"
