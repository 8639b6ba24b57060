"""Watches a run: starts, refusals, memory over time, pauses."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import attrs
import trio

from benchmarks.memory import resident
from namedtasks import AlreadyRunningError, RefusedError, TaskMapStatistics


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of a run."""

    shell: str
    """``trio`` or ``threads``."""
    names: int
    volumes: int
    seconds: float
    """Of the map's own clock."""
    seed: int
    rate: float
    """Starts in a second of that clock, on trio; threads make all they can."""
    retention: float = 244.0
    """Seconds after the end of its wait when a failure that is not retried lapses."""
    failing: float = 0.05
    """Share of the runs that fail."""
    samples: int = 120
    """The number of samples."""

    def tuples(self) -> list[tuple[str, str]]:
        """Return the names: volumes, each on a few nodes."""
        volumes = [f"volume-{number}" for number in range(self.volumes)]
        nodes = [f"node-{number}" for number in range(-(-self.names // self.volumes))]
        pairs = ((volume, node) for node in nodes for volume in volumes)
        return [pair for pair, _ in zip(pairs, range(self.names), strict=False)]


@contextmanager
def set_aside(plan: Plan) -> Generator[list[tuple[str, str]]]:
    """Make the names of the controller, and keep them from the garbage collector."""
    names = plan.tuples()
    gc.collect()
    gc.freeze()
    try:
        yield names
    finally:
        gc.unfreeze()


class VolumeError(Exception):
    """The failure of a body."""


@attrs.frozen
class Sample:
    """The figures of one moment."""

    at: float
    """Seconds on the map's clock since the beginning."""
    real: float
    """Seconds since the beginning."""
    resident: int
    """Bytes in memory."""
    operations: int
    """Starts asked for so far."""
    running: int
    waiting: int


@attrs.define
class Watch:
    """The figures so far."""

    samples: list[Sample] = attrs.field(factory=list[Sample])
    admitted: int = 0
    failed: int = 0
    refused: Counter[str] = attrs.field(factory=Counter[str])
    longest_call: float = 0.0
    """Seconds that the longest call of the map took, collections of garbage included."""
    longest_step: float = 0.0
    """Seconds for which the longest step of a task kept all others from running."""
    longest_step_itself: float = 0.0
    """The same without the collections of garbage that fell into it."""
    longest_collection: float = 0.0
    """Seconds that the longest collection of garbage took."""
    collected: float = 0.0
    """Seconds that all collections of garbage took."""
    seconds: float = 0.0
    """Seconds of real time until the last start."""
    _begin: float = attrs.field(factory=time.perf_counter)

    @property
    def operations(self) -> int:
        """Starts asked for so far."""
        return self.admitted + self.refused.total()

    def refuse(self, error: RefusedError) -> None:
        """Count a refusal."""
        kind = type(error).__name__
        if isinstance(error, AlreadyRunningError) and error.holders != (error.name,):
            kind += ", overlapping"
        self.refused[kind] += 1

    def called(self, seconds: float) -> None:
        """Note that a call of the map took *seconds*."""
        self.longest_call = max(self.longest_call, seconds)

    def stop(self) -> None:
        """Note the time of the last start."""
        self.seconds = time.perf_counter() - self._begin

    def look(self, at: float, statistics: TaskMapStatistics) -> None:
        """Take a sample."""
        real = time.perf_counter() - self._begin
        running, waiting = statistics.running, statistics.waiting
        self.samples.append(Sample(at, real, resident(), self.operations, running, waiting))

    @contextmanager
    def collections(self) -> Generator[None]:
        """Time the collections of garbage inside the block."""
        begin = 0.0

        def called(phase: str, info: dict[str, int]) -> None:
            nonlocal begin
            del info
            if phase == "start":
                begin = time.perf_counter()
            else:
                taken = time.perf_counter() - begin
                self.collected += taken
                self.longest_collection = max(self.longest_collection, taken)

        gc.callbacks.append(called)
        try:
            yield
        finally:
            gc.callbacks.remove(called)

    def report(self, plan: Plan, on: dict[str, Any]) -> dict[str, Any]:
        """Return a report for programs."""
        return {
            "on": on,
            "plan": attrs.asdict(plan),
            "real_seconds": self.seconds,
            "operations": self.operations,
            "operations_per_second": self.operations / self.seconds,
            "admitted": self.admitted,
            "failed": self.failed,
            "refused": dict(sorted(self.refused.items())),
            "longest_call": self.longest_call,
            "longest_step": self.longest_step,
            "longest_step_itself": self.longest_step_itself,
            "longest_collection": self.longest_collection,
            "samples": [attrs.asdict(sample) for sample in self.samples],
        }


class Steps(trio.abc.Instrument):
    """Times the steps of all tasks of trio: during a step nothing else runs."""

    def __init__(self, watch: Watch) -> None:
        """Keep the figures in *watch*."""
        self._watch = watch
        self._begin = 0.0
        self._collected = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Begin to count."""
        del task
        self._collected = self._watch.collected
        self._begin = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Keep the longest."""
        del task
        taken = time.perf_counter() - self._begin
        watch = self._watch
        if taken > watch.longest_step_itself:
            watch.longest_step = max(watch.longest_step, taken)
            itself = taken - (watch.collected - self._collected)
            watch.longest_step_itself = max(watch.longest_step_itself, itself)
