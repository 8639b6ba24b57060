"""The time of a first import, in new processes."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.case import Case
from benchmarks.measure import Pairs, Target
from benchmarks.settings import Settings

TIMED = "import time; begin = time.perf_counter(); {}; print(time.perf_counter() - begin)"
"""The program of a process."""


def importing(statement: str, floor: str, most: float) -> Case:
    """Return a row that compares one import statement with another.

    The statement names the class or function that a user needs: ``import namedtasks`` alone
    imports hardly anything, because the package imports a name when it is first used.
    """

    def measure(settings: Settings) -> Pairs:
        pairs: Pairs = []
        for number in range(settings.rounds + 1):
            if number % 2:
                mine, its = seconds_to_run(statement), seconds_to_run(floor)
            else:
                its, mine = seconds_to_run(floor), seconds_to_run(statement)
            if number:  # the first has to read from the disk, or even to compile
                pairs.append((mine, its))
        return pairs

    return Case(name=statement, floor=floor, measure=measure, target=Target(most), unit="ms")


def seconds_to_run(statement: str) -> float:
    """Return the seconds that *statement* takes in a new process."""
    command = [sys.executable, "-c", TIMED.format(statement)]
    # Or each process would compile the package, and find trio compiled.
    variables = {key: os.environ[key] for key in os.environ if key != "PYTHONDONTWRITEBYTECODE"}
    return float(subprocess.check_output(command, text=True, env=variables))
