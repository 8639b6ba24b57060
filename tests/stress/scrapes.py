"""Scrapes the metrics of a map under stress, from threads of its own, and checks all numbers.

The counts of the events are kept here once more. At the map's end, when all events are
delivered, the last scrape must have the same.
"""

from __future__ import annotations

import collections
import importlib
import itertools
import math
import threading
from typing import Any, Protocol, final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from namedtasks.abc import AnyTaskMap
from namedtasks.instruments import (
    Instrument,
    PrometheusInstrument,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskGaveUp,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
)

PAUSE = 0.01
"""Seconds between two scrapes of one thread: else the map would hardly get the GIL."""
PARSED = 10
"""One in so many scrapes is parsed, which takes several times as long as the scrape."""

generate_open_metrics: Any = importlib.import_module(
    "prometheus_client.openmetrics.exposition"
).generate_latest
REFUSALS = {
    "AlreadyRunningError": "running",
    "BackoffError": "waiting",
    "GaveUpError": "gave_up",
    "StaleLookError": "stale",
    "ClosedError": "closed",
}

Key = tuple[str, ...]
"""A metric and the values of its labels, in the order of their names."""


class Faults(Protocol):
    """An object to which faults are reported."""

    def count(self, what: str, by: int = 1) -> None: ...
    def expect(self, what: str, holds: object) -> None: ...


@final
class Scraper(Instrument):
    """Counts events, and compares the scrapes of a `PrometheusInstrument` beside it."""

    def __init__(self, tally: Faults, limit: int) -> None:
        self._tally = tally
        self._limit = limit
        self._registry = CollectorRegistry()
        self._counts: collections.Counter[Key] = collections.Counter()
        self._run_time = 0.0
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._scrape_on, args=(generate,), daemon=True)
            for generate in (generate_latest, generate_open_metrics)
        ]
        self.prometheus: PrometheusInstrument = PrometheusInstrument(
            "stress", registry=self._registry, operations=[None, "mount"]
        )
        """The instrument that is scraped; it has to come after this one."""

    # In the threads that scrape

    def _scrape_on(self, generate: Any) -> None:
        before: dict[Key, float] = {}
        for number in itertools.count():
            if self._over.wait(PAUSE):
                return
            try:
                text = generate(self._registry).decode()
            except BaseException as error:
                self._tally.expect(f"a scrape succeeds: {error!r}", False)
                raise
            self._tally.count("scrapes")
            if number % PARSED:
                continue
            samples = self._parse(text)
            for key, value in samples.items():
                self._tally.expect(f"{key} is finite", math.isfinite(value))
                self._tally.expect(f"{key} is not negative", value >= 0)
                if is_counter(key):
                    self._tally.expect(f"{key} never falls", value >= before.get(key, 0))
            for key in before:
                self._tally.expect(f"{key} does not vanish", not samples or key in samples)
            before = samples

    def _parse(self, text: str) -> dict[Key, float]:
        text = text.removesuffix("# EOF\n")
        samples: dict[Key, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = [value for _, value in sorted(sample.labels.items())]
                key = (sample.name.removeprefix("namedtasks_"), *labels)
                self._tally.expect(f"{key} comes once", key not in samples)
                samples[key] = sample.value
        return samples

    # In the map

    def map_opened(self, tasks: AnyTaskMap, /) -> None:
        for thread in self._threads:
            thread.start()

    def _add(self, what: str, event: TaskEvent, *label: str, before: bool = False) -> None:
        operation = event.operation or ""
        labels = (*label, "stress", operation) if before else ("stress", operation, *label)
        self._counts[what, *labels] += 1

    def _end(self, event: TaskEvent, outcome: str, duration: float | None) -> None:
        self._add("runs_ended_total", event, outcome)
        if duration is not None:
            self._add("run_duration_seconds_count", event)
            self._run_time += duration

    def task_started(self, event: TaskStarted, /) -> None:
        self._add("runs_started_total", event)

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        self._end(event, "succeeded", event.duration)

    def task_failed(self, event: TaskFailed, /) -> None:
        self._end(event, "failed", event.duration)
        kind = type(event.error)
        is_builtin = kind.__module__ == "builtins"
        name = kind.__qualname__ if is_builtin else f"{kind.__module__}.{kind.__qualname__}"
        self._add("failures_total", event, name, before=True)

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        self._end(event, "cancelled", event.duration)

    def task_refused(self, event: TaskRefused, /) -> None:
        self._add("starts_refused_total", event, REFUSALS[type(event.error).__name__])

    def task_gave_up(self, event: TaskGaveUp, /) -> None:
        self._add("give_ups_total", event)

    def map_closed(self, tasks: AnyTaskMap, /) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        samples = self._parse(generate_latest(self._registry).decode())
        scraped = {key: value for key, value in samples.items() if is_counter(key) and value}
        expected = {key: float(count) for key, count in self._counts.items()}
        for key in sorted(expected.keys() | scraped.keys()):
            shown, right = scraped.get(key), expected.get(key)
            self._tally.expect(f"{key} is {right}, and not {shown}", shown == right)
        run_time = sum(samples["run_duration_seconds_sum", "stress", one] for one in ("", "mount"))
        self._tally.expect("the run time is right", math.isclose(run_time, self._run_time))
        counts = tasks.statistics()
        gauges = {
            "names_running": 0,
            "names_waiting": counts.waiting,
            "names_given_up": counts.gave_up,
            "names_failing": counts.failing,
            "failures_in_a_row_max": counts.max_failures,
            "runs_pending": 0,
            "runs_in_line": 0,
            "runs_overdue": 0,
            "oldest_run_age_seconds": 0,
            "longest_slot_wait_seconds": 0,
            "slots": self._limit,
        }
        for name, value in gauges.items():
            shown = samples[name, "stress"]
            self._tally.expect(f"{name} is {value}, and not {shown}", shown == value)
        self._tally.count("series compared", len(scraped) + len(gauges))


def is_counter(key: Key) -> bool:
    """Return whether a series never falls. The sum and the buckets of the histogram are others."""
    return key[0].endswith(("_total", "_count"))
