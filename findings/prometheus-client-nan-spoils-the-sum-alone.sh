#!/usr/bin/env bash
# The guess:
#   observe(NaN) of a prometheus_client Histogram raises, or is ignored, or counts as one
#   observation; and a Counter, which refuses negative amounts, refuses NaN as well.
# The behaviour:
#   Nothing is raised. The observation is in no bucket, not even +Inf, and not in the count, but
#   the sum is NaN from then on: averages (rate of _sum by rate of _count) are NaN until the process
#   restarts, while the count and the quantiles look healthy. A Summary does count it.
#   A Counter takes NaN, and is NaN from then on. OpenTelemetry's counter ignores it.
# Seen with:
#   prometheus_client 0.26.0, opentelemetry-sdk 1.45.1, CPython 3.11.7
# Output:
#   histogram after 1, NaN, 1: +Inf 2.0, count 2.0, sum nan
#   summary after 1, NaN, 1: count 3.0, sum nan
#   counter after 1, NaN, 1: nan
#   OpenTelemetry's counter after 1, NaN, 1: 2
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'prometheus_client==0.26.0' \
    'opentelemetry-sdk==1.45.1'

cat >see.py <<'END'
import logging

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, Counter, Histogram, Summary

logging.disable()  # OpenTelemetry warns
registry = CollectorRegistry()
histogram = Histogram("histogram", "Seconds", registry=registry)
summary = Summary("summary", "Seconds", registry=registry)
counter = Counter("counter", "Bytes", registry=registry)
reader = InMemoryMetricReader()
other = MeterProvider([reader]).get_meter("see").create_counter("other")
for value in (1, float("nan"), 1):
    histogram.observe(value)
    summary.observe(value)
    counter.inc(value)
    other.add(value)

get = registry.get_sample_value
(resource,) = reader.get_metrics_data().resource_metrics
(point,) = resource.scope_metrics[0].metrics[0].data.data_points
seen = [
    f"histogram after 1, NaN, 1: +Inf {get('histogram_bucket', {'le': '+Inf'})}, "
    f"count {get('histogram_count')}, sum {get('histogram_sum')}",
    f"summary after 1, NaN, 1: count {get('summary_count')}, sum {get('summary_sum')}",
    f"counter after 1, NaN, 1: {get('counter_total')}",
    f"OpenTelemetry's counter after 1, NaN, 1: {point.value}",
]
print(*seen, sep="\n")
assert seen == [
    "histogram after 1, NaN, 1: +Inf 2.0, count 2.0, sum nan",
    "summary after 1, NaN, 1: count 3.0, sum nan",
    "counter after 1, NaN, 1: nan",
    "OpenTelemetry's counter after 1, NaN, 1: 2",
]
END

timeout 120 venv/bin/python see.py
echo "as described"
