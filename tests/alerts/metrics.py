"""The metrics and labels that `PrometheusInstrument` exposes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from namedtasks import ThreadTaskMap
from namedtasks.instruments import PrometheusInstrument


def exposed() -> dict[str, set[str]]:
    """Return the labels of each metric of an open map with a limit, and of Prometheus' own."""
    registry = CollectorRegistry()
    instrument = PrometheusInstrument("volumes", registry=registry)
    found: dict[str, set[str]] = {}
    with ThreadTaskMap(limit=1, instruments=[instrument]):
        for metric in registry.collect():
            for sample in metric.samples:
                found.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    found["up"] = {"job", "instance"}
    found["ALERTS"] = {"alertname", "alertstate", "severity", "job", "instance", "map", "reason"}
    return found
