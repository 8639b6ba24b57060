#!/usr/bin/env bash
# The guess:
#   Each request that uvicorn serves begins with a clean context: a request without a traceparent
#   header begins a new trace, with a span of kind SERVER.
# The behaviour:
#   With uvicorn's default settings on asyncio's own loop, a request pauses the connection when more
#   than 64 KiB of its body wait to be read. It resumes it from inside its own task, and asyncio then
#   reads the socket in a copy of that task's context. All later requests of the same connection
#   inherit the context variables. OpenTelemetry's ASGI middleware takes the finished span of the
#   upload as the parent: one trace for both, and the kind INTERNAL. Variables that structlog has
#   bound are inherited, too. uvloop does not do that, and --reset-contextvars prevents it.
# Seen with:
#   uvicorn 0.54.0, opentelemetry-instrumentation-asgi 0.66b1, opentelemetry-sdk 1.45.1, structlog
#   26.1.0, CPython 3.11.7 on Linux (Kludex/uvicorn#2912, python/cpython#140947)
# Output:
#   /small: SERVER, trace 1, structlog: {}
#   /upload: SERVER, trace 2, structlog: {}
#   /next: INTERNAL, trace 2, structlog: {'path': '/upload'}
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'uvicorn==0.54.0' \
    'opentelemetry-instrumentation-asgi==0.66b1' 'opentelemetry-sdk==1.45.1' 'structlog==26.1.0'

cat >see.py <<'END'
import asyncio
import http.client
import threading
import time

import structlog
import uvicorn
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

bound = {}


async def app(scope, receive, send):
    path = scope["path"]
    bound[path] = structlog.contextvars.get_contextvars()
    if path == "/upload":
        structlog.contextvars.bind_contextvars(path=path)
        await asyncio.sleep(0.5)  # until the connection is paused
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body"})


exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
traced = OpenTelemetryMiddleware(app, tracer_provider=provider, exclude_spans=["receive", "send"])
config = uvicorn.Config(traced, port=0, loop="asyncio", lifespan="off", log_level="warning")
server = uvicorn.Server(config)
thread = threading.Thread(target=server.run)
thread.start()
try:
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for path, size in (("/small", 10), ("/upload", 1_000_000), ("/next", 10)):
        connection.request("POST", path, b"x" * size)
        connection.getresponse().read()
    connection.close()
finally:
    server.should_exit = True
    thread.join()

traces = []
seen = []
for span in exporter.get_finished_spans():
    if span.context.trace_id not in traces:
        traces.append(span.context.trace_id)
    path = span.attributes["http.target"]
    number = traces.index(span.context.trace_id) + 1
    seen.append(f"{path}: {span.kind.name}, trace {number}, structlog: {bound[path]}")
    print(seen[-1])
assert seen == [
    "/small: SERVER, trace 1, structlog: {}",
    "/upload: SERVER, trace 2, structlog: {}",
    "/next: INTERNAL, trace 2, structlog: {'path': '/upload'}",
]
END

timeout 120 venv/bin/python see.py
echo "as described"
