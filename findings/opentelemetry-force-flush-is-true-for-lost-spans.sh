#!/usr/bin/env bash
# The guess:
#   force_flush(timeout) of an OpenTelemetry TracerProvider returns within its timeout, and True
#   means that the spans have been exported.
# The behaviour:
#   The BatchSpanProcessor passes the timeout on to nobody and does not look at the result of the
#   exporter. The call lasts as long as the exporter tries (10 seconds by default for OTLP), and
#   then it returns True, although the collector has not answered and the spans are lost.
# Seen with:
#   opentelemetry-sdk 1.45.1, opentelemetry-exporter-otlp-proto-http 1.45.1, CPython 3.11.7
#   (a fix of the timeout was closed unmerged: open-telemetry/opentelemetry-python#4982)
# Output:
#   force_flush(100 ms) with a collector that does not answer: True, after more than 2 seconds
#   force_flush once more: True, requests to the collector: 1
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'opentelemetry-sdk==1.45.1' \
    'opentelemetry-exporter-otlp-proto-http==1.45.1'

cat >see.py <<'END'
import logging
import socket
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

logging.disable()  # the exporter logs the failure
with socket.create_server(("127.0.0.1", 0)) as collector:
    endpoint = f"http://127.0.0.1:{collector.getsockname()[1]}/v1/traces"
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=3)))
    provider.get_tracer("see").start_span("work").end()

    start = time.monotonic()
    flushed = provider.force_flush(timeout_millis=100)
    assert flushed is True and time.monotonic() - start > 2
    print(
        f"force_flush(100 ms) with a collector that does not answer: {flushed}, "
        "after more than 2 seconds"
    )

    again = provider.force_flush(timeout_millis=100)
    requests = 0
    collector.settimeout(0.5)
    try:
        while True:
            collector.accept()[0].close()
            requests += 1
    except TimeoutError:
        pass
    print(f"force_flush once more: {again}, requests to the collector: {requests}")
    assert again is True and requests == 1
    provider.shutdown()
END

timeout 120 venv/bin/python see.py
echo "as described"
