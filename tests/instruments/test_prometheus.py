"""The metrics of a map: each has the right number, in each dialect, and goes with its map."""

from __future__ import annotations

import asyncio
import gc
import json
import pathlib
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Hashable
from importlib import import_module
from typing import Any, cast

import httpx
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse
from starlette.applications import Starlette
from starlette.routing import Mount

import namedtasks.instruments
from namedtasks import Backoff, RefusedError, ThreadTaskMap
from namedtasks.instruments import PrometheusInstrument, prometheus
from namedtasks.testing import ManualClock
from tests.conformance.behaviour import behaviour
from tests.conformance.conftest import conform as conform
from tests.conformance.driver import Driver, Job
from tests.docs.pages import ROOT
from tests.threads.helpers import Gate, run_child, wait_until

# Not all of prometheus_client has types.
generate_open: Any = import_module("prometheus_client.openmetrics.exposition").generate_latest
parse_open: Any = import_module(
    "prometheus_client.openmetrics.parser"
).text_string_to_metric_families
make_asgi_app: Any = import_module("prometheus_client.asgi").make_asgi_app


def boom(error: BaseException | None = None) -> None:
    raise error or OSError("device busy")


def scrape(registry: CollectorRegistry, label: str = "volumes") -> dict[str, float]:
    """Return the samples of one scrape of the map *label*, without that and the common prefix.

    For example ``{"runs_ended_total operation=attach outcome=failed": 1.0}``.
    """
    found: dict[str, float] = {}
    for family in parse(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            if labels.pop("map") == label:
                words = [sample.name.removeprefix("namedtasks_")]
                words += [f"{name}={value}" for name, value in sorted(labels.items())]
                key = " ".join(words)
                assert key not in found
                found[key] = sample.value
    return found


def settle(tasks: ThreadTaskMap) -> None:
    """Wait until nothing runs, and all events are delivered."""
    tasks.wait_idle()
    tasks._backend.scheduler.events.join()


def counted(samples: dict[str, float]) -> dict[str, float]:
    """Return the counters that are not 0."""
    return {name: value for name, value in samples.items() if "_total" in name and value}


def gauges(samples: dict[str, float]) -> dict[str, float]:
    """Return the gauges that are not 0."""
    return {
        name: value
        for name, value in samples.items()
        if value and "_total" not in name and not name.startswith("run_duration")
    }


# The numbers, in each dialect


@behaviour
async def test_every_start_and_every_end_is_counted_by_operation_and_outcome(
    driver: Driver,
) -> None:
    registry = CollectorRegistry()
    volumes = PrometheusInstrument("volumes", registry=registry, operations=["attach", None])
    async with driver.open(instruments=[volumes], limit=2) as world:
        await world.run("a", Job().succeed())
        await world.run("b", Job().succeed(), operation="attach")
        await world.run("c", Job().fail(OSError("busy")), operation="attach")
        await world.run("d", Job().fail(), operation="attach", backoff=None)
        holders = [world.start(name, Job()) for name in ("e", "f")]
        world.start("in line", Job(), operation="attach")
        await world.settle()
        for name in ("in line", "e", "f"):
            world.tasks.cancel(name)
        await world.settle()
        assert len(holders) == 2
        assert counted(scrape(registry)) == {
            "runs_started_total operation=": 3,
            "runs_started_total operation=attach": 3,
            "runs_ended_total operation= outcome=succeeded": 1,
            "runs_ended_total operation= outcome=cancelled": 2,
            "runs_ended_total operation=attach outcome=succeeded": 1,
            "runs_ended_total operation=attach outcome=failed": 2,
            "runs_ended_total operation=attach outcome=cancelled": 1,
            "failures_total error=OSError operation=attach": 1,
            "failures_total error=ValueError operation=attach": 1,
        }


@behaviour
async def test_each_attempt_of_a_retried_run_is_counted(driver: Driver) -> None:
    registry = CollectorRegistry()
    volumes = PrometheusInstrument("volumes", registry=registry)
    async with driver.open(instruments=[volumes]) as world:
        world.start("a", Job().each(OSError("one"), OSError("two"), 3), retry=True)
        await world.advance(100.0)
        await world.advance(100.0)
        assert counted(scrape(registry)) == {
            "runs_started_total operation=": 3,
            "runs_ended_total operation= outcome=succeeded": 1,
            "runs_ended_total operation= outcome=failed": 2,
            "failures_total error=OSError operation=": 2,
        }


@behaviour
async def test_every_refusal_is_counted_by_its_reason(driver: Driver) -> None:
    registry = CollectorRegistry()
    volumes = PrometheusInstrument("volumes", registry=registry)
    async with driver.open(instruments=[volumes], backoff=Backoff(give_up_after=2)) as world:
        await world.run("fails", Job().fail())
        await world.run("gives up", Job().fail(), backoff=Backoff(give_up_after=1))
        look = world.tasks.observe()
        await world.run("stale", Job().succeed())
        holder = Job()
        world.start("runs", holder)
        await world.settle()
        for name in ("runs", "fails", "gives up"):
            assert world.attempt(name) != "accepted"
            assert world.start(name, Job(), if_busy="skip") is None
        assert world.attempt("stale", since=look) == "stale"
        look.close()
        world.tasks.close()
        assert world.attempt("other") == "closed"
        assert counted(scrape(registry)) == {
            "runs_started_total operation=": 4,
            "runs_ended_total operation= outcome=succeeded": 1,
            "runs_ended_total operation= outcome=failed": 2,
            "failures_total error=ValueError operation=": 2,
            "give_ups_total operation=": 1,
            "starts_refused_total operation= reason=running": 2,
            "starts_refused_total operation= reason=waiting": 2,
            "starts_refused_total operation= reason=gave_up": 2,
            "starts_refused_total operation= reason=stale": 1,
            "starts_refused_total operation= reason=closed": 1,
        }
        holder.succeed()


@behaviour
async def test_refusals_that_are_not_counted_cost_nothing(driver: Driver) -> None:
    registry = CollectorRegistry()
    volumes = PrometheusInstrument("volumes", registry=registry, refusals=False)
    async with driver.open(instruments=[volumes]) as world:
        tasks: Any = world.tasks
        assert "task_refused" not in tasks._backend.scheduler.events.listeners
        await world.run("fails", Job().fail())
        assert world.attempt("fails") == "backing off"
        samples = scrape(registry)
        assert samples["runs_ended_total operation= outcome=failed"] == 1
        assert not any("refused" in name for name in samples)


@behaviour
async def test_the_gauges_are_the_statistics_at_the_scrape(driver: Driver) -> None:
    registry = CollectorRegistry()
    volumes = PrometheusInstrument("volumes", registry=registry)
    async with driver.open(instruments=[volumes], limit=1, failure_threshold=2) as world:
        assert gauges(scrape(registry)) == {"slots": 1}
        for _ in range(3):
            await world.run("fails", Job().fail())
            await world.advance(10.0)
        await world.run("gives up", Job().fail(), backoff=Backoff(give_up_after=1))
        overdue = Job()
        world.start("overdue", overdue, heeds=False)
        await world.advance(5.0)
        world.start("in line", Job())
        world.start("overdue", Job(), if_busy="queue")
        await world.advance(2.0)
        world.tasks.cancel("overdue")  # its pending run is cancelled, too
        world.start("overdue", Job(), if_busy="queue")
        await world.advance(3.0)
        assert gauges(scrape(registry)) == {
            "names_running": 2,
            "names_waiting": 1,
            "names_given_up": 1,
            "names_failing": 1,
            "failures_in_a_row_max": 3,
            "runs_pending": 1,
            "runs_in_line": 1,
            "runs_overdue": 1,
            "oldest_run_age_seconds": 10,
            "longest_slot_wait_seconds": 5,
            "slots": 1,
        }
        world.tasks.cancel("in line")
        world.tasks.cancel("overdue")
        overdue.succeed()


@behaviour
async def test_the_histogram_observes_the_run_time_of_every_body(driver: Driver) -> None:
    registry = CollectorRegistry()
    volumes = PrometheusInstrument("volumes", registry=registry, buckets=(2, 5))
    async with driver.open(instruments=[volumes]) as world:
        jobs = Job(), Job(), Job()
        for name, job in zip("abc", jobs, strict=True):
            world.start(name, job)
        await world.advance(1.0)
        jobs[0].succeed()
        await world.advance(2.0)
        jobs[1].fail()
        await world.advance(4.0)
        world.tasks.cancel("c")
        await world.settle()
        samples = scrape(registry)
    assert {name: value for name, value in samples.items() if "run_duration" in name} == {
        "run_duration_seconds_bucket le=2.0 operation=": 1,
        "run_duration_seconds_bucket le=5.0 operation=": 2,
        "run_duration_seconds_bucket le=+Inf operation=": 3,
        "run_duration_seconds_count operation=": 3,
        "run_duration_seconds_sum operation=": 1 + 3 + 7,
    }


def test_the_next_map_of_an_instrument_observes_run_times_too(registry: CollectorRegistry) -> None:
    """A child of a histogram that is kept over `remove()` counts into nothing."""
    volumes = PrometheusInstrument("volumes", registry=registry)
    for _ in range(2):
        with ThreadTaskMap(instruments=[volumes]) as tasks:
            tasks.submit("a", int).result()
            settle(tasks)
            assert scrape(registry)["run_duration_seconds_count operation="] == 1


@behaviour
async def test_the_series_of_a_map_come_at_0_and_go_with_it(driver: Driver) -> None:
    registry = CollectorRegistry()
    volumes = PrometheusInstrument("volumes", registry=registry, operations=["attach"])
    assert scrape(registry) == {}
    for _ in range(2):
        async with driver.open(instruments=[volumes]) as world:
            samples = scrape(registry)
            assert set(samples.values()) == {0}
            assert {"runs_started_total operation=attach", "names_running"} <= samples.keys()
            await world.run("a", Job().succeed(), operation="attach")
            assert scrape(registry)["runs_started_total operation=attach"] == 1
        assert generate_latest(registry) == b""


@behaviour
async def test_two_open_maps_with_one_label_are_a_mistake(driver: Driver) -> None:
    registry = CollectorRegistry()
    volumes = PrometheusInstrument("volumes", registry=registry)
    async with driver.open(instruments=[volumes]) as world:
        for second in (volumes, PrometheusInstrument("volumes", registry=registry)):
            with pytest.raises((ValueError, ExceptionGroup)) as caught:
                async with driver.open(instruments=[second]):
                    raise AssertionError("it is not open")
            error: Any = caught.value
            while hasattr(error, "exceptions"):
                (error,) = error.exceptions
            assert str(error) == (
                "a map with the label 'volumes' is open: give each map an instrument with a label "
                "of its own, or close the other map first"
            )
        await world.run("a", Job().succeed())
        assert scrape(registry)["runs_started_total operation="] == 1
    async with driver.open(instruments=[PrometheusInstrument("volumes", registry=registry)]):
        assert scrape(registry)["runs_started_total operation="] == 0


# Labels


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_maps_with_their_own_labels_share_the_families(registry: CollectorRegistry) -> None:
    """A family may come only once: Prometheus would keep the first one."""
    volumes = PrometheusInstrument("volumes", registry=registry)
    nodes = PrometheusInstrument("nodes", registry=registry, buckets=[1], group_of=str)
    elsewhere = PrometheusInstrument("volumes", registry=CollectorRegistry())
    with (
        ThreadTaskMap(instruments=[volumes, elsewhere]) as one,
        ThreadTaskMap(instruments=[nodes]) as other,
    ):
        one.submit("a", int)
        other.submit("b", int)
        settle(one)
        settle(other)
        lines = generate_latest(registry).decode().splitlines()
        assert scrape(registry)["runs_started_total operation="] == 1
        assert scrape(registry, "nodes")["runs_started_total group=b operation="] == 1
    types = [line for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types)) == 16


def test_the_registry_is_that_of_prometheus_client_by_default() -> None:
    with ThreadTaskMap(instruments=[PrometheusInstrument("volumes")]):
        labels = {"map": "volumes"}
        assert REGISTRY.get_sample_value("namedtasks_names_running", labels) == 0
    assert REGISTRY.get_sample_value("namedtasks_names_running", labels) is None


def test_a_name_is_never_a_label(registry: CollectorRegistry) -> None:
    with ThreadTaskMap(
        instruments=[PrometheusInstrument("volumes", registry=registry)], backoff=None
    ) as tasks:
        for name in ("secret", ("secret", 1)):
            tasks.submit(name, boom).exception()
        settle(tasks)
        assert "secret" not in generate_latest(registry).decode()


def kind_of(name: Any) -> str:
    if name == "fails":
        raise LookupError(name)
    return cast("str", name.partition("-")[0])


def test_a_function_may_map_names_to_a_few_groups(registry: CollectorRegistry) -> None:
    volumes = PrometheusInstrument(
        "volumes", registry=registry, group_of=kind_of, groups=["ssd", "hdd"]
    )
    with ThreadTaskMap(instruments=[volumes]) as tasks:
        samples = scrape(registry)
        assert samples["runs_started_total group=ssd operation="] == 0
        for name in ("ssd-1", "ssd-2", "hdd-1", "nvme-1"):
            tasks.submit(name, int)
        tasks.submit("hdd-2", boom).exception()
        settle(tasks)
        assert counted(scrape(registry)) == {
            "runs_started_total group=ssd operation=": 2,
            "runs_started_total group=hdd operation=": 2,
            "runs_started_total group=nvme operation=": 1,
            "runs_ended_total group=ssd operation= outcome=succeeded": 2,
            "runs_ended_total group=hdd operation= outcome=succeeded": 1,
            "runs_ended_total group=hdd operation= outcome=failed": 1,
            "runs_ended_total group=nvme operation= outcome=succeeded": 1,
            "failures_total error=OSError group=hdd operation=": 1,
        }
        assert scrape(registry)["run_duration_seconds_count group=ssd operation="] == 2
        assert scrape(registry)["names_waiting"] == 1, "the gauges are those of the map"


def wrong(group: Any) -> Callable[[Hashable], str]:
    """Return a function that gives *group* to all names."""
    return lambda _: group


@pytest.mark.parametrize(
    ("group_of", "error"),
    [
        (kind_of, "LookupError: fails"),
        (wrong(3), "TypeError: a group must be a text, not 3"),
        (wrong([]), "unhashable type: 'list'"),
        (wrong("\ud800"), r"ValueError: a group must be a text that can be encoded, not '\ud800'"),
    ],
)
def test_a_function_for_groups_that_fails_loses_no_run(
    group_of: Any, error: str, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    volumes = PrometheusInstrument("volumes", registry=registry, group_of=group_of)
    with ThreadTaskMap(instruments=[volumes]) as tasks:
        tasks.submit("fails", int).result()
        settle(tasks)
        assert counted(scrape(registry)) == {
            "runs_started_total group=other operation=": 1,
            "runs_ended_total group=other operation= outcome=succeeded": 1,
        }
    assert "the group of 'fails' could not be found" in caplog.text
    assert error in caplog.text


def test_labels_are_few_whatever_happens(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a mistake in a program does not fill the memory of Prometheus."""
    assert (prometheus._MOST_VALUES, prometheus._MOST_ERRORS) == (50, 20)
    monkeypatch.setattr(prometheus, "_MOST_VALUES", 5)
    monkeypatch.setattr(prometheus, "_MOST_ERRORS", 2)
    volumes = PrometheusInstrument(
        "volumes",
        registry=registry,
        operations=[f"announced {number}" for number in range(6)],
        errors=[type(f"Announced{number}", (Exception,), {}) for number in range(3)],
        group_of=str,
        groups=[f"announced {number}" for number in range(6)],
    )
    with ThreadTaskMap(instruments=[volumes], limit=1) as tasks:
        for number in range(7):
            error = type(f"Other{number}", (Exception,), {})()
            tasks.submit(number, boom, error, operation=f"other {number}")
        settle(tasks)
        samples = scrape(registry)
    assert len({name for name in samples if name.startswith("runs_started_total")}) == 6 * 6 + 5 + 1
    assert samples["runs_started_total group=4 operation=other 4"] == 1
    assert samples["runs_started_total group=other operation=other"] == 2
    failures = {name: value for name, value in samples.items() if name.startswith("failures_total")}
    assert len({name.split()[1] for name in failures}) == 3 + 2 + 1
    assert sum(failures.values()) == 7
    assert sum(value for name, value in failures.items() if "error=other " in name) == 5


def test_an_error_has_the_name_of_its_type(registry: CollectorRegistry) -> None:
    class Mine(Exception):
        pass

    strange = type("Strange", (Exception,), {"__module__": 3})
    volumes = PrometheusInstrument("volumes", registry=registry, errors=[TimeoutError])
    with ThreadTaskMap(instruments=[volumes], backoff=None) as tasks:
        errors: list[BaseException] = [
            Mine(),
            strange(),
            SystemExit(3),
            ExceptionGroup("", [OSError()]),
        ]
        for error in errors:
            tasks.submit("a", boom, error).exception()
            tasks.wait_free("a")
        settle(tasks)
        failures = [name for name in scrape(registry) if name.startswith("failures_total")]
    assert sorted(name.split()[1] for name in failures) == [
        "error=ExceptionGroup",
        "error=Strange",
        "error=SystemExit",
        "error=TimeoutError",
        "error=other",
        f"error={__name__}.test_an_error_has_the_name_of_its_type.<locals>.Mine",
    ]


def test_a_text_that_cannot_be_encoded_loses_no_scrape(registry: CollectorRegistry) -> None:
    """In prometheus_client 0.26 one lone surrogate in a label does."""
    strange = type("Strange", (Exception,), {"__module__": "\udfff", "__qualname__": "\ud800"})
    volumes = PrometheusInstrument("volumes", registry=registry)
    with ThreadTaskMap(instruments=[volumes], backoff=None) as tasks:
        tasks.submit("a", boom, strange(), operation="\ud800").exception()
        tasks.submit("b", int, operation=r"\ud800").result()
        settle(tasks)
        assert counted(scrape(registry)) == {
            r"runs_started_total operation=\ud800": 2,
            r"runs_ended_total operation=\ud800 outcome=failed": 1,
            r"runs_ended_total operation=\ud800 outcome=succeeded": 1,
            r"failures_total error=\udfff.\ud800 operation=\ud800": 1,
        }


# The registry


def test_opening_a_map_reads_no_map(registry: CollectorRegistry) -> None:
    """A collector that cannot describe its metrics would be scraped when it is registered."""
    looks: list[str] = []

    class Watched:
        def statistics(self) -> object:
            looks.append("statistics")
            raise AssertionError

    PrometheusInstrument("volumes", registry=registry).map_opened(cast("Any", Watched()))
    assert looks == []


def test_metrics_of_the_same_name_are_a_mistake(registry: CollectorRegistry) -> None:
    """As they are between two metrics of prometheus_client; the map is not opened."""
    Gauge("namedtasks_names_running", "Somebody else's.", registry=registry)
    volumes = PrometheusInstrument("volumes", registry=registry)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"namedtasks_names_running"):
            ThreadTaskMap(instruments=[volumes])


def test_a_registry_that_was_emptied_is_no_error(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    volumes = PrometheusInstrument("volumes", registry=registry)
    with ThreadTaskMap(instruments=[volumes]):
        for collector in list(registry._collector_to_names):
            registry.unregister(collector)
    with ThreadTaskMap(instruments=[volumes]):
        assert "names_running" in scrape(registry)
    assert caplog.records == []


def test_closing_a_map_waits_for_no_lock(registry: CollectorRegistry) -> None:
    """A finalizer may close a map anywhere, also in a thread that holds the registry's lock.

    A scrape does, and so does another map that is being opened.
    """
    volumes = PrometheusInstrument("volumes", registry=registry)
    tasks = ThreadTaskMap(instruments=[volumes])
    with prometheus._lock, registry._lock:
        closer = threading.Thread(target=tasks.close, daemon=True)
        closer.start()
        closer.join(10)
        assert not closer.is_alive()
    assert scrape(registry) == {}
    with ThreadTaskMap(instruments=[volumes]):
        assert "names_running" in scrape(registry)


def test_a_map_without_readable_statistics_loses_its_gauges_only(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception inside a collector loses the whole scrape, that of all other metrics, too."""

    class Broken(ManualClock):  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues]
        is_broken = False

        def now(self) -> float:
            if self.is_broken:
                raise OSError("no clock")
            return super().now()

    clock = Broken()
    Counter("mine_total", "Somebody else's.", registry=registry)
    volumes = PrometheusInstrument("volumes", registry=registry)
    with ThreadTaskMap(clock=clock, instruments=[volumes]) as tasks:
        tasks.submit("a", int).result()
        settle(tasks)
        clock.is_broken = True
        text = generate_latest(registry).decode()
        clock.is_broken = False
    assert "\nmine_total 0.0\n" in text
    assert '\nnamedtasks_runs_started_total{map="volumes",operation=""} 1.0\n' in text
    assert "namedtasks_names_running" not in text
    (record,) = caplog.records
    assert record.getMessage() == "the statistics of map 'volumes' could not be read"


def test_a_map_that_is_dropped_frees_its_label(registry: CollectorRegistry) -> None:
    dropped = ThreadTaskMap(instruments=[PrometheusInstrument("volumes", registry=registry)])
    other = ThreadTaskMap(instruments=[PrometheusInstrument("nodes", registry=registry)])
    dropped.submit("a", int).result()
    settle(dropped)
    assert scrape(registry)["runs_started_total operation="] == 1
    del dropped
    gc.collect()
    assert scrape(registry) == {}
    with ThreadTaskMap(instruments=[PrometheusInstrument("volumes", registry=registry)]):
        assert scrape(registry)["runs_started_total operation="] == 0
    other.shutdown()
    assert generate_latest(registry) == b""


def test_a_map_that_is_dropped_during_the_scrape_loses_its_gauges(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = PrometheusInstrument("volumes", registry=registry)
    tasks = [ThreadTaskMap(instruments=[volumes])]
    counts = volumes._counts
    collect = counts._histogram.collect

    def drop() -> Any:
        tasks.clear()
        gc.collect()
        return collect()

    monkeypatch.setattr(counts._histogram, "collect", drop)
    samples = scrape(registry)
    assert "runs_started_total operation=" in samples
    assert "names_running" not in samples


def test_a_map_that_is_dropped_with_runs_does_not_disturb_the_next_one(
    registry: CollectorRegistry,
) -> None:
    """As the docstring says, the next one needs an instrument of its own for that."""
    gate = Gate()
    dropped = ThreadTaskMap(instruments=[PrometheusInstrument("volumes", registry=registry)])
    future = dropped.submit("a", gate)
    gate.wait_begun()
    del dropped
    gc.collect()
    assert scrape(registry) == {}
    with ThreadTaskMap(instruments=[PrometheusInstrument("volumes", registry=registry)]) as tasks:
        gate.open()
        future.result()
        tasks.submit("b", int).result()
        settle(tasks)
        assert counted(scrape(registry)) == {
            "runs_started_total operation=": 1,
            "runs_ended_total operation= outcome=succeeded": 1,
        }


def test_a_map_shows_its_runs_until_the_last_one_has_ended(registry: CollectorRegistry) -> None:
    """Also when it is closed already: somebody may want to know what it waits for."""
    gate = Gate()
    tasks = ThreadTaskMap(instruments=[PrometheusInstrument("volumes", registry=registry)])
    tasks.submit("a", gate)
    gate.wait_begun()
    tasks.close()
    assert scrape(registry)["names_running"] == 1
    gate.open()
    wait_until(lambda: not scrape(registry))


def test_a_forked_child_has_no_series_of_its_parent_and_may_open_its_own() -> None:
    run_child(
        """
        import os, warnings
        from prometheus_client import CollectorRegistry, generate_latest
        from namedtasks import ThreadTaskMap
        from namedtasks.instruments import PrometheusInstrument

        warnings.simplefilter("ignore", DeprecationWarning)
        registry = CollectorRegistry()
        volumes = PrometheusInstrument("volumes", registry=registry)
        with ThreadTaskMap(instruments=[volumes]) as tasks:
            tasks.submit("a", int).result()
            child = os.fork()
            if not child:
                assert generate_latest(registry) == b""
                with ThreadTaskMap(instruments=[volumes]):
                    assert b"namedtasks_runs_started_total" in generate_latest(registry)
                assert generate_latest(registry) == b""
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """
    )


# The formats


def test_both_formats_can_be_parsed(registry: CollectorRegistry) -> None:
    volumes = PrometheusInstrument("volumes", registry=registry, group_of=str)
    with ThreadTaskMap(instruments=[volumes], limit=3) as tasks:
        for name in ("a", 'b"\\\n', "\N{SNOWMAN}"):
            tasks.submit(name, boom, operation='"\\\n').exception()
        settle(tasks)
        text, open_text = generate_latest(registry), generate_open(registry)
    plain = [(one.name, one.type, one.documentation) for one in parse(text.decode())]
    opened = [(one.name, one.type, one.documentation) for one in parse_open(open_text.decode())]
    assert plain == opened
    assert {kind for _, kind, _ in plain} == {"counter", "gauge", "histogram"}
    for name, kind, what in plain:
        assert name.startswith("namedtasks_")
        assert what.endswith(".")
        if name.endswith("_seconds"):
            assert "econds" in what
        else:
            assert kind != "histogram"


def find_promtool() -> str:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return promtool


def test_promtool_finds_nothing_to_improve(registry: CollectorRegistry) -> None:
    promtool = find_promtool()
    with ThreadTaskMap(
        instruments=[PrometheusInstrument("volumes", registry=registry)], limit=1
    ) as tasks:
        tasks.submit("a", boom).exception()
        settle(tasks)
        text = generate_latest(registry)
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_app_of_prometheus_client_answers_every_method_and_path(
    registry: CollectorRegistry,
) -> None:
    """As the how-to says, of prometheus_client 0.26: let the server choose both."""
    app = make_asgi_app(registry)
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        for method, path in (("GET", "/metrics"), ("POST", "/metrics/and/what/not")):
            scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": []}
            await app(scope, receive, send)

    with ThreadTaskMap(instruments=[PrometheusInstrument("volumes", registry=registry)]):
        asyncio.run(main())
    starts = [one["status"] for one in sent if one["type"] == "http.response.start"]
    assert starts == [200, 200]


def test_mounted_the_app_of_prometheus_client_is_redirected(registry: CollectorRegistry) -> None:
    """As the how-to says, of Starlette 1.x: with a route it is not."""
    app = Starlette(routes=[Mount("/metrics", make_asgi_app(registry))])

    async def main() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [(await client.get(path)).status_code for path in ("/metrics", "/metrics/")]

    assert asyncio.run(main()) == [307, 200]


# The how-to

PAGE = (ROOT / "docs" / "how-to" / "prometheus.md").read_text(encoding="utf-8")


def metrics() -> dict[str, str]:
    """Return the type of each metric, by its name in Prometheus."""
    families = prometheus._families().values()
    return {
        f"{one.name}_total" if one.type == "counter" else one.name: one.type for one in families
    }


def test_the_how_to_lists_every_metric_by_its_type() -> None:
    listed: dict[str, str] = {}
    for kind in ("counter", "histogram", "gauge"):
        table = PAGE.partition(f"\n{kind.title()}")[2].partition("\n\n|")[2].partition("\n\n")[0]
        rows = re.findall(r"^\| `(namedtasks_\w+)` \| (\w+) \| \S.* \|$", table, re.MULTILINE)
        assert len(rows) == table.count("| `namedtasks_")
        listed |= dict.fromkeys([name for name, _ in rows], kind)
        assert all(("_seconds" in name) == (unit == "seconds") for name, unit in rows)
    assert listed == metrics()


def test_the_how_to_asks_for_metrics_that_there_are() -> None:
    queries = re.findall(r"^```promql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(queries) == 8
    for query in queries:
        names = re.findall(r"namedtasks_\w+", query)
        assert names
        assert {name.removesuffix("_bucket") for name in names} <= metrics().keys()


def test_the_queries_of_the_how_to_are_valid(tmp_path: pathlib.Path) -> None:
    promtool = find_promtool()
    queries = re.findall(r"^```promql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    rules = [
        {"record": f"rule:{number}", "expr": query.strip()} for number, query in enumerate(queries)
    ]
    page = tmp_path / "rules.yml"  # every JSON text is YAML
    page.write_text(json.dumps({"groups": [{"name": "how-to", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", page], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# The arguments


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"map_label": 3}, "TypeError: map_label must be a text, not 3"),
        (
            {"map_label": "\ud800"},
            r"ValueError: map_label must be a text that can be encoded, not '\ud800'",
        ),
        (
            {"operations": "attach"},
            "TypeError: operations must be several texts, for example a tuple, not 'attach'",
        ),
        ({"operations": [3]}, "TypeError: an operation must be a text, not 3"),
        ({"groups": [None]}, "TypeError: a group must be a text, not None"),
        ({"group_of": "kind"}, "TypeError: group_of must be callable, not 'kind'"),
        (
            {"errors": ["OSError"]},
            "TypeError: an error must be a class of exceptions, not 'OSError'",
        ),
        ({"refusals": None}, "TypeError: refusals must be True or False, not None"),
        ({"errors": [int]}, "TypeError: an error must be a class of exceptions, not <class 'int'>"),
        ({"buckets": [2, 1]}, "ValueError: Buckets not in sorted order"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(arguments: dict[str, Any], error: str) -> None:
    given: dict[str, Any] = {"map_label": "volumes", **arguments}
    with pytest.raises((TypeError, ValueError)) as caught:
        PrometheusInstrument(**given)
    assert f"{type(caught.value).__name__}: {caught.value}" == error


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_the_multiprocess_mode_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It merges files, and asks no collector: all but the histogram would be missing."""
    monkeypatch.setenv(name, "/tmp")
    with pytest.raises(RuntimeError, match=r"^prometheus_client's multiprocess mode reads no "):
        PrometheusInstrument("volumes")


def test_the_default_buckets_go_from_milliseconds_to_an_hour() -> None:
    assert sorted(prometheus.BUCKETS) == list(prometheus.BUCKETS)
    assert (prometheus.BUCKETS[0], prometheus.BUCKETS[-1]) == (0.005, 3600)


def test_it_says_of_which_map_it_is(registry: CollectorRegistry) -> None:
    volumes = PrometheusInstrument("volumes", registry=registry)
    assert repr(volumes) == "<namedtasks.instruments.PrometheusInstrument 'volumes'>"


# The import


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_prometheus_client_is_imported_only_for_its_instrument() -> None:
    code = (
        "import sys, namedtasks.instruments as instruments; "
        "before = 'prometheus_client' in sys.modules; instruments.PrometheusInstrument; "
        "print(before, 'prometheus_client' in sys.modules, "
        "'PrometheusInstrument' in dir(instruments), "
        "instruments.PrometheusInstrument is instruments.PrometheusInstrument)"
    )
    assert run(code) == "False True True True"


def test_without_prometheus_client_the_error_names_the_cure() -> None:
    code = """
import sys
sys.modules["prometheus_client"] = None
import inspect
import namedtasks.instruments
print([name for name, _ in inspect.getmembers(namedtasks.instruments) if name.startswith("P")])
try:
    from namedtasks.instruments import PrometheusInstrument
except ImportError as error:
    print(error)
"""
    assert run(code).splitlines() == [
        "[]",
        "namedtasks.instruments.PrometheusInstrument needs prometheus_client: "
        "pip install 'namedtasks[prometheus]'",
    ]


def test_the_error_for_a_missing_package_keeps_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ModuleNotFoundError("No module named 'x'", name="prometheus_client")

    def import_module(_: str) -> None:
        raise missing

    monkeypatch.setattr(namedtasks.instruments, "_import_module", import_module)
    monkeypatch.delattr(namedtasks.instruments, "PrometheusInstrument", raising=False)
    with pytest.raises(ImportError, match=r"namedtasks\[prometheus\]") as caught:
        _ = namedtasks.instruments.PrometheusInstrument
    assert caught.value.__cause__ is missing


def test_an_error_inside_the_package_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(_: str) -> None:
        raise ModuleNotFoundError("No module named 'decorator'", name="decorator")

    monkeypatch.setattr(namedtasks.instruments, "_import_module", import_module)
    monkeypatch.delattr(namedtasks.instruments, "PrometheusInstrument", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'decorator'$"):
        _ = namedtasks.instruments.PrometheusInstrument


def test_the_module_of_instruments_has_no_other_names() -> None:
    assert {"Instrument", "PrometheusInstrument"} <= set(dir(namedtasks.instruments))
    with pytest.raises(AttributeError, match=r"^module 'namedtasks.instruments' has no attribute "):
        getattr(namedtasks.instruments, "StatsdInstrument")  # noqa: B009 - for mypy


def test_every_kind_of_refusal_has_a_reason() -> None:
    kinds = {kind for kind in RefusedError.__subclasses__() if kind.__module__ == "namedtasks"}
    assert kinds == set(prometheus._REASONS)
