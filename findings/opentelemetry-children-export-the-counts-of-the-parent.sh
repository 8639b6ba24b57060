#!/usr/bin/env bash
# The guess:
#   After a fork, each process exports what it has counted itself: OpenTelemetry's metric reader
#   starts its thread anew in the child and takes a new service.instance.id.
# The behaviour:
#   The child keeps the totals of its parent. Each child exports them as its own, with its own
#   service.instance.id and with the parent's start time. A sum over the instances counts what
#   happened before the fork once for each process.
# Seen with:
#   opentelemetry-sdk 1.45.1, CPython 3.11.7 on Linux
#   (apache/airflow#73147; open: open-telemetry/opentelemetry-python#2767)
# Output:
#   counted: 10 before the fork, 1 in each of two children
#   exported: 10, 11, 11 by three instances, with one start time; the sum is 32, not 12
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'opentelemetry-sdk==1.45.1'

cat >see.py <<'END'
import json
import os
import pathlib

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)


class ToFile(MetricExporter):
    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        pathlib.Path(f"{os.getpid()}.json").write_text(metrics_data.to_json())
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        pass


reader = PeriodicExportingMetricReader(ToFile(), export_interval_millis=3_600_000)
provider = MeterProvider([reader], shutdown_on_exit=False)
counter = provider.get_meter("see").create_counter("jobs")
counter.add(10)
for _ in range(2):
    child = os.fork()
    if child == 0:
        counter.add(1)
        provider.force_flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
provider.force_flush()
print("counted: 10 before the fork, 1 in each of two children")

values, instances, starts = [], set(), set()
for path in pathlib.Path.cwd().glob("*.json"):
    (resource,) = json.loads(path.read_text())["resource_metrics"]
    (point,) = resource["scope_metrics"][0]["metrics"][0]["data"]["data_points"]
    values.append(point["value"])
    starts.add(point["start_time_unix_nano"])
    instances.add(resource["resource"]["attributes"]["service.instance.id"])
values.sort()
assert (values, len(instances), len(starts)) == ([10, 11, 11], 3, 1)
print(
    f"exported: {', '.join(map(str, values))} by three instances, with one start time; "
    f"the sum is {sum(values)}, not 12"
)
provider.shutdown()
END

timeout 120 venv/bin/python see.py
echo "as described"
