"""The instrument for Prometheus: counts of events, run times, and gauges read at the scrape.

The instrument itself holds plain integers. Each registry has one `_Collector`, which makes the
metrics of all open maps from them at a scrape, in the scraper's thread. Only the histogram is a
metric of prometheus_client, and observes a run when it ends.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from threading import RLock
from typing import Any, Final, cast, final
from weakref import WeakKeyDictionary, ref

import attrs
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, Metric
from prometheus_client.registry import Collector

from namedtasks._any_task_map import AnyTaskMap
from namedtasks._errors import (
    AlreadyRunningError,
    BackoffError,
    ClosedError,
    GaveUpError,
    RefusedError,
    StaleLookError,
)
from namedtasks._events import (
    Instrument,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskGaveUp,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
)
from namedtasks._logging import log_error
from namedtasks._state import TaskMapStatistics
from namedtasks._validation import check_callable, check_flag, safe_repr
from namedtasks._version import publish

BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
"""The default buckets, from 5 ms to an hour. The defaults of prometheus_client end at 10 s: they
are made for requests, and the operations of a controller take longer."""

_OTHER = "other"
_MOST_VALUES = 50
"""The number of operations, and of groups, that become labels without being announced."""
_MOST_ERRORS = 20
"""The same for types of errors: a program may make a class for each failure."""

_REASONS: dict[type[RefusedError], str] = {
    AlreadyRunningError: "running",
    BackoffError: "waiting",
    GaveUpError: "gave_up",
    StaleLookError: "stale",
    ClosedError: "closed",
}

_HISTOGRAM = "namedtasks_run_duration_seconds"
_RUN_TIME = "Run times of bodies in seconds, whatever their outcome."

# A counter's name ends in _total in all formats; prometheus_client adds that to its samples only.
_STARTED = "namedtasks_runs_started"
_ENDED = "namedtasks_runs_ended"
_FAILURES = "namedtasks_failures"
_REFUSED = "namedtasks_starts_refused"
_GAVE_UP = "namedtasks_give_ups"

_COUNTERS = {
    _STARTED: "Bodies that have begun; each attempt of a retried run is one.",
    _ENDED: "Runs that have ended, by outcome: succeeded, failed or cancelled.",
    _FAILURES: "Runs that have failed, by the type of the error.",
    _REFUSED: "Starts that were refused or skipped, by reason.",
    _GAVE_UP: "Times that a policy gave a name up.",
}

_GAUGES: dict[str, tuple[str, Callable[[TaskMapStatistics], float | None]]] = {
    "namedtasks_names_running": (
        "Names that are taken, with those whose run waits for a slot.",
        lambda counts: counts.running,
    ),
    "namedtasks_names_waiting": (
        "Names and operations that wait after a failure, or are ready to be tried again.",
        lambda counts: counts.waiting,
    ),
    "namedtasks_names_given_up": (
        "Names and operations that start again only after they were forgotten.",
        lambda counts: counts.gave_up,
    ),
    "namedtasks_names_failing": (
        "Names and operations with at least failure_threshold failures in a row.",
        lambda counts: counts.failing,
    ),
    "namedtasks_failures_in_a_row_max": (
        "The most failures in a row that any name and operation has.",
        lambda counts: counts.max_failures,
    ),
    "namedtasks_runs_pending": (
        "Starts that were deferred, and retries that wait.",
        lambda counts: counts.pending,
    ),
    "namedtasks_runs_in_line": (
        "Runs that hold their name and wait for a slot.",
        lambda counts: counts.waiting_for_slot,
    ),
    "namedtasks_runs_overdue": (
        "Runs that were asked to stop overdue_after seconds ago, and go on.",
        lambda counts: counts.overdue,
    ),
    "namedtasks_oldest_run_age_seconds": (
        "Seconds since the body of the oldest run began; 0 if nothing runs.",
        lambda counts: counts.oldest_run_age,
    ),
    "namedtasks_longest_slot_wait_seconds": (
        "Seconds that the first run in line has waited for a slot; 0 if none waits.",
        lambda counts: counts.longest_slot_wait,
    ),
    "namedtasks_slots": (
        "Bodies that may run at once; absent without a limit.",
        lambda counts: counts.limit,
    ),
}


@final
class PrometheusInstrument(Instrument):
    """An instrument that exposes the metrics of one map to Prometheus.

    Counters and a histogram of run times have the labels ``map`` and ``operation``. Gauges, such
    as the number of names that wait, have the label ``map``; they are read at the scrape, from
    any thread. The series exist while the map is open; those of *operations* begin at 0. A later
    map may use the instrument or the label again, and begins at 0. If a `ThreadTaskMap` is dropped
    without being closed, its series are removed, too. If it had runs, give the next map a new
    instrument, because the old one still counts their ends.

    Args:
        map_label: The value of the label ``map``. No other open map in *registry* may have it.
        registry: The registry of the metrics while the map is open; None for
            `prometheus_client.REGISTRY`.
        buckets: The upper bounds of the histogram of run times, in seconds.
        operations: The operations whose series exist from the opening of the map; None stands
            for starts without an operation. The series of others begin with their first event.
        errors: The types of errors whose series exist from the opening of the map.
        group_of: A function that maps a name to the value of a further label, ``group``. There
            should be few values. Without it, no label depends on names.
        groups: The groups whose series exist from the opening of the map.
        refusals: True to count refused and skipped starts. With False, a skipped start costs as
            little as in a map without instruments: about a twentieth.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: *map_label*, an operation or a group cannot be encoded as UTF-8, or *buckets*
            are not valid.
        RuntimeError: prometheus_client is in its multiprocess mode, which does not read the
            metrics at the scrape.

    Example:
        >>> from prometheus_client import CollectorRegistry
        >>> from namedtasks import ThreadTaskMap
        >>> registry = CollectorRegistry()
        >>> volumes = PrometheusInstrument("volumes", registry=registry)
        >>> def attach():
        ...     raise OSError("device busy")
        >>> with ThreadTaskMap(instruments=[volumes]) as tasks:
        ...     _ = tasks.submit("pvc-1", attach).exception()
        ...     tasks.wait_idle()
        ...     registry.get_sample_value("namedtasks_names_waiting", {"map": "volumes"})
        True
        1.0

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        map_label: str,
        *,
        registry: CollectorRegistry | None = None,
        buckets: Sequence[float] = BUCKETS,
        operations: Iterable[str | None] = (None,),
        errors: Iterable[type[BaseException]] = (),
        group_of: Callable[[Hashable], str] | None = None,
        groups: Iterable[str] = (),
        refusals: bool = True,
    ) -> None:
        """Check and keep the settings."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ or "prometheus_multiproc_dir" in os.environ:
            raise RuntimeError(
                "prometheus_client's multiprocess mode reads no metrics at the scrape: unset "
                "PROMETHEUS_MULTIPROC_DIR, and let each process serve its own metrics"
            )
        if group_of is not None:
            check_callable("group_of", group_of)
        self._registry = REGISTRY if registry is None else registry
        self._settings = _Settings(
            label=_check_text("map_label", map_label),
            buckets=tuple(buckets),
            operations=tuple(
                "" if operation is None else _check_text("an operation", operation)
                for operation in _check_several("operations", operations)
            ),
            errors=tuple(_type_text(_check_error(error)) for error in errors),
            group_of=group_of,
            groups=tuple(
                _check_text("a group", group) for group in _check_several("groups", groups)
            ),
            refusals=check_flag("refusals", refusals),
        )
        if not refusals:  # then it does not listen, and the map makes no error for a skip
            self.task_refused = super().task_refused  # type: ignore[method-assign]
        self._use(_Counts(self._settings))  # which checks the buckets

    # The events come one at a time, so the counts need no lock. A run costs two look-ups and two
    # additions more than its observation: a quarter more.

    def map_opened(self, tasks: AnyTaskMap, /) -> None:
        """Register the series of the map.

        Raises:
            ValueError: an open map in the registry has the same label, or the registry has another
                metric of the same name.
        """
        counts = _Counts(self._settings, tasks)
        _register(self._registry, counts)
        self._use(counts)

    def map_closed(self, _: AnyTaskMap, /) -> None:
        """Remove the series of the map."""
        _collectors[self._registry].maps.pop(self._counts, None)

    def task_started(self, event: TaskStarted, /) -> None:
        """Count the run that begins."""
        series = self._known.get(event.operation) or self._counts.find(event)
        series.started += 1

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """Count the success, and observe the run time."""
        series = self._known.get(event.operation) or self._counts.find(event)
        series.succeeded += 1
        series.observe(event.duration)

    def task_failed(self, event: TaskFailed, /) -> None:
        """Count the failure by the type of its error, and observe the run time."""
        series = self._counts.find(event)
        series.failed += 1
        error = self._counts.errors.bounded(_type_text(type(event.error)))
        series.errors[error] = series.errors.get(error, 0) + 1
        series.observe(event.duration)

    def task_cancelled(self, event: TaskCancelled, /) -> None:
        """Count the cancellation, and observe the run time if the body began."""
        series = self._counts.find(event)
        series.cancelled += 1
        if event.duration is not None:
            series.observe(event.duration)

    def task_refused(self, event: TaskRefused, /) -> None:
        """Count the refusal by its reason."""
        self._counts.find(event).refused[_REASONS[type(event.error)]] += 1

    def task_gave_up(self, event: TaskGaveUp, /) -> None:
        """Count the name that was given up."""
        self._counts.find(event).gave_up += 1

    def _use(self, counts: _Counts) -> None:
        self._counts = counts
        self._known = counts.known

    def __repr__(self) -> str:
        return f"<namedtasks.instruments.PrometheusInstrument {self._settings.label!r}>"


# The counts of a map


@attrs.frozen(kw_only=True)
class _Settings:
    """The checked arguments of an instrument."""

    label: str
    buckets: tuple[float, ...]
    operations: tuple[str, ...]
    errors: tuple[str, ...]
    group_of: Callable[[Hashable], str] | None
    groups: tuple[str, ...]
    refusals: bool

    def label_names(self) -> tuple[str, ...]:
        """Return the labels of all counters and of the histogram."""
        return ("map", "operation") if self.group_of is None else ("map", "operation", "group")


@final
class _FewValues:
    """The values of a label: those that were announced, and a limited number of others."""

    def __init__(self, announced: Iterable[str], most: int) -> None:
        self._known = set(announced)
        self._left = most

    def bounded(self, value: str) -> str:
        """Return *value*, or "other" if there are too many values."""
        if value not in self._known:
            if not self._left:
                return _OTHER
            self._left -= 1
            self._known.add(value)
        return value


@final
class _Series:
    """The counts of one operation and group. A hand-written class, as each run writes to it."""

    __slots__ = (
        "cancelled",
        "errors",
        "failed",
        "gave_up",
        "labels",
        "observe",
        "refused",
        "started",
        "succeeded",
    )

    def __init__(
        self,
        labels: dict[str, str],
        errors: Iterable[str],
        reasons: Iterable[str],
        observe: Callable[[float], object],
    ) -> None:
        self.labels = labels
        self.started = self.succeeded = self.failed = self.cancelled = self.gave_up = 0
        self.refused = dict.fromkeys(reasons, 0)
        self.errors = dict.fromkeys((*errors, _OTHER), 0)
        self.observe = observe

    def add_samples(self, families: dict[str, Metric]) -> None:
        """Add a sample of each count to its family. Callable from any thread."""
        ended = {"succeeded": self.succeeded, "failed": self.failed, "cancelled": self.cancelled}
        _add_counter(families[_STARTED], self.labels, self.started)
        for outcome, count in ended.items():
            _add_counter(families[_ENDED], {**self.labels, "outcome": outcome}, count)
        for error, count in list(self.errors.items()):  # in one step, as above
            _add_counter(families[_FAILURES], {**self.labels, "error": error}, count)
        for reason, count in self.refused.items():
            _add_counter(families[_REFUSED], {**self.labels, "reason": reason}, count)
        _add_counter(families[_GAVE_UP], self.labels, self.gave_up)


@final
class _Counts:
    """The counts of one map, from its opening until its last run has ended."""

    def __init__(self, settings: _Settings, tasks: AnyTaskMap | None = None) -> None:
        self.label = settings.label
        self.known: dict[str | None, _Series] = {}
        """The series by the operation of a start; empty if there are groups."""
        self._grouped: dict[tuple[str | None, str], _Series] = {}
        """The series by the operation of a start and the group of its name."""
        self.errors = _FewValues((*settings.errors, _OTHER), _MOST_ERRORS)
        self._settings = settings
        self._operations = _FewValues(settings.operations, _MOST_VALUES)
        self._groups = _FewValues(settings.groups, _MOST_VALUES)
        self._series: dict[tuple[str, ...], _Series] = {}
        self._histogram = Histogram(
            _HISTOGRAM, _RUN_TIME, settings.label_names(), registry=None, buckets=settings.buckets
        )
        self._map = None if tasks is None else ref(tasks)
        self._process = os.getpid()
        for operation in settings.operations:
            if settings.group_of is None:
                self._series_of(operation)
            for group in settings.groups:
                self._series_of(operation, group)

    def find(self, event: TaskEvent) -> _Series:
        """Return the series of *event*. Make it if there is none yet."""
        operation = event.operation
        if self._settings.group_of is not None:
            return self._find_in_group(operation, event.name, self._settings.group_of)
        series = self.known.get(operation)
        if series is None:
            series = self._series_of(self._bounded(operation))
            if self._is_label(operation, series):
                self.known[operation] = series
        return series

    def _find_in_group(
        self, operation: str | None, name: Hashable, group_of: Callable[[Hashable], str]
    ) -> _Series:
        try:
            group = group_of(name)
            series = self._grouped.get((operation, group))
            if series is not None:
                return series
            bounded = self._groups.bounded(_check_text("a group", group))
        except Exception as error:
            log_error(f"the group of {safe_repr(name)} could not be found", error)
            return self._series_of(self._bounded(operation), _OTHER)
        series = self._series_of(self._bounded(operation), bounded)
        if group == bounded and self._is_label(operation, series):
            self._grouped[operation, group] = series
        return series

    def _bounded(self, operation: str | None) -> str:
        return self._operations.bounded("" if operation is None else _text(operation))

    def _is_label(self, operation: str | None, series: _Series) -> bool:
        """Return whether *operation* itself is the label. Only such operations are few."""
        return series.labels["operation"] == (operation or "")

    def _series_of(self, *values: str) -> _Series:
        series = self._series.get(values)
        if series is None:
            labels = dict(zip(self._settings.label_names(), (self.label, *values), strict=True))
            observe = self._histogram.labels(**labels).observe
            reasons = _REASONS.values() if self._settings.refusals else ()
            series = _Series(labels, self._settings.errors, reasons, observe)
            self._series[values] = series
        return series

    def is_open(self) -> bool:
        """Return whether the map still exists, and was opened in this process."""
        is_there = self._map is not None and self._map() is not None
        return is_there and self._process == os.getpid()

    def add_samples(self, families: dict[str, Metric]) -> None:
        """Add the samples of the map to the families. Callable from any thread."""
        for _, series in list(self._series.items()):  # in one step, as another thread may add one
            series.add_samples(families)
        for metric in self._histogram.collect():
            for sample in metric.samples:
                if not sample.name.endswith("_created"):
                    families[_HISTOGRAM].samples.append(sample)
        tasks = None if self._map is None else self._map()
        if tasks is None:  # dropped just now
            return
        try:
            counts = tasks.statistics()
        except Exception as error:  # of a clock, for example: the other metrics are not lost
            log_error(f"the statistics of map {self.label!r} could not be read", error)
            return
        for name, (_, read) in _GAUGES.items():
            value = read(counts)
            if value is not None:
                families[name].add_sample(name, {"map": self.label}, float(value))


def _add_counter(family: Metric, labels: dict[str, str], count: int) -> None:
    family.add_sample(f"{family.name}_total", labels, float(count))


# The collector of a registry


@final
class _Collector(Collector):
    """The metrics of all open maps in one registry: each family may be exposed only once."""

    def __init__(self) -> None:
        self.maps: dict[_Counts, None] = {}
        """The counts of the open maps, in order. Each step on it is a single one."""

    def open_maps(self) -> list[_Counts]:
        """Remove the maps that were dropped, or opened in the parent process; return the others."""
        for counts in list(self.maps):
            if not counts.is_open():
                self.maps.pop(counts, None)
        return list(self.maps)

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples, so that registering reads no map."""
        return list(_families().values())

    def collect(self) -> Iterable[Metric]:
        """Return the families that have samples. Callable from any thread."""
        families = _families()
        for counts in self.open_maps():
            counts.add_samples(families)
        return [family for family in families.values() if family.samples]


_collectors: WeakKeyDictionary[CollectorRegistry, _Collector] = WeakKeyDictionary()
"""The collectors of the registries that have had an open map."""
_lock = RLock()
"""Held to open a map, but neither to close one nor to scrape: a finalizer may close a map in a
thread that scrapes, or that opens another map. For the same reason a collector stays in its
registry when its last map is closed: the registry has a lock that cannot be entered twice."""


def _families() -> dict[str, Metric]:
    """Return all metrics, without samples."""
    return {
        **{name: Metric(name, text, "counter") for name, text in _COUNTERS.items()},
        _HISTOGRAM: Metric(_HISTOGRAM, _RUN_TIME, "histogram"),
        **{name: Metric(name, text, "gauge") for name, (text, _) in _GAUGES.items()},
    }


def _register(registry: CollectorRegistry, counts: _Counts) -> None:
    """Register the metrics of a map in *registry*.

    Raises:
        ValueError: it has an open map with the same label, or another metric of the same name.
    """
    with _lock:
        collector = _collectors.setdefault(registry, _Collector())
        others = collector.open_maps()
        if not others:  # anew, as somebody may have emptied the registry meanwhile
            with contextlib.suppress(KeyError):
                registry.unregister(collector)
            registry.register(collector)
        if any(other.label == counts.label for other in others):
            raise ValueError(
                f"a map with the label {counts.label!r} is open: give each map an instrument "
                "with a label of its own, or close the other map first"
            )
        collector.maps[counts] = None


# Texts: one label that cannot be encoded would make the whole scrape fail


def _text(value: str) -> str:
    return str.encode(value, "utf-8", "backslashreplace").decode()


def _type_text(kind: type[BaseException]) -> str:
    module: Any = kind.__module__  # anything, if it was set
    is_plain = module == "builtins" or not isinstance(module, str)
    return _text(kind.__qualname__ if is_plain else f"{module}.{kind.__qualname__}")


def _check_text(what: str, value: object) -> str:
    """Return *value* if it is a text that can be the value of a label.

    Raises:
        TypeError: it is not a text.
        ValueError: it cannot be encoded.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a text, not {safe_repr(value)}")
    if _text(value) != value:
        raise ValueError(f"{what} must be a text that can be encoded, not {value!r}")
    return value


def _check_several(what: str, values: Iterable[str | None]) -> Iterable[str | None]:
    """Return *values* if they are several values, and not one text.

    Raises:
        TypeError: they are one text.
    """
    if isinstance(values, str):
        raise TypeError(f"{what} must be several texts, for example a tuple, not {values!r}")
    return values


def _check_error(value: Any) -> type[BaseException]:
    if isinstance(value, type) and issubclass(value, BaseException):
        return value
    raise TypeError(f"an error must be a class of exceptions, not {safe_repr(cast('Any', value))}")


publish(PrometheusInstrument, module="namedtasks.instruments")
