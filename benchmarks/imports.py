"""How long the first import takes, in new processes."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.case import Case
from benchmarks.measure import Pairs, Target
from benchmarks.settings import Settings

TIMED = "import time; begin = time.perf_counter(); import {}; print(time.perf_counter() - begin)"
"""What a process does."""


def importing(name: str, floor: str, target: Target) -> Case:
    """A row of importing one module beside another."""

    def measure(settings: Settings) -> Pairs:
        pairs: Pairs = []
        for number in range(settings.rounds + 1):
            if number % 2:
                mine, its = seconds_to_import(name), seconds_to_import(floor)
            else:
                its, mine = seconds_to_import(floor), seconds_to_import(name)
            if number:  # the first has to read from the disk, or even to compile
                pairs.append((mine, its))
        return pairs

    return Case(
        name=f"import {name}",
        floor=f"import {floor}",
        measure=measure,
        target=target,
        unit="ms",
    )


def seconds_to_import(name: str) -> float:
    """How long a new process takes to import the module *name*."""
    return float(subprocess.check_output([sys.executable, "-c", TIMED.format(name)], text=True))
