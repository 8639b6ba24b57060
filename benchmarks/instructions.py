"""Rows of processor instructions, counted by valgrind, instead of seconds.

Each side of a row runs in two processes, with few rounds and with many. The difference, divided by
the operations in it, is the cost of one operation without the start of the process. The same build
gives the same figure again within about 2 %, on a busy machine too. Time in the kernel, waits and
missed caches are not in it.

``python -m benchmarks --instructions`` measures them. It starts ``python -m
benchmarks.instructions`` under valgrind once, as that takes 20 seconds; a child is forked for each
count.
"""

from __future__ import annotations

import atexit
import fnmatch
import functools
import json
import os
import re
import subprocess
import sys

import attrs

from benchmarks.case import Case, Side
from benchmarks.cases import CASES
from benchmarks.measure import Pairs
from benchmarks.settings import Settings

FEW, MANY = 3, 13
"""Rounds of the two processes; ten times as many for a row in nanoseconds."""

SIZE = 100
"""Operations in a round."""

SECTION = "Instructions"

DONE = "the child has ended\n"
"""The line that the process under valgrind prints after each count."""

COUNTED = (
    "start + finish, warm, names as *",
    "start, then wait for the handle, one by one",
    "a run that fails, *",
    "asyncio map, *, names as *",
    "refuse a *",
    "skip a *",
    "name in tasks",
    "tasks.state(name), *",
    "start_thread_soon, bursts of 500",
    "thread map, submit + result, *",
    "thread map on a foreign executor, *",
    "*, a run with *",
    "the methods of PrometheusInstrument for a run",
    "start + finish of (a, b), with ANY in use",
)
"""The rows that are counted: those whose cost is our own code's, in which both sides do the same
number of operations."""


def counted(case: Case) -> Case:
    """Return a row of the instructions of both sides of *case*, with the same target."""
    times = 10 if case.unit == "ns" else 1

    def each(side: Side, workers: bool) -> float:
        few, many = (count(case.name, side, rounds * times, workers) for rounds in (FEW, MANY))
        return (many - few) / ((MANY - FEW) * times * SIZE)

    def measure(settings: Settings) -> Pairs:
        return [(each("ours", settings.workers), each("theirs", settings.workers))]

    return attrs.evolve(
        case,
        name=f"instructions: {case.name}",
        measure=measure,
        unit="k",
        section=SECTION,
        program="valgrind",
    )


def count(name: str, side: Side, rounds: int, workers: bool) -> int:
    """Return the instructions of a process that does one side of a row so many times."""
    process = _valgrind()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([name, side, rounds, workers]) + "\n")
    process.stdin.flush()
    printed: list[str] = []
    for line in process.stdout:
        if line == DONE:
            return int(re.findall(r"Collected : (\d+)", "".join(printed))[-1])
        printed.append(line)
    raise RuntimeError(f"valgrind could not count {name!r}:\n{''.join(printed[-40:])}")


@functools.cache
def _valgrind() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [
            "valgrind",
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            sys.executable,
            "-m",
            "benchmarks.instructions",
        ],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    atexit.register(process.communicate)  # closes its standard input, which ends it
    return process


def main() -> None:
    """Fork a child for each line of the standard input, which names a side of a row."""
    rows = {case.name: case for case in CASES}
    for line in sys.stdin:
        name, side, rounds, workers = json.loads(line)
        repeat = rows[name].repeat
        assert repeat is not None
        child = os.fork()
        if not child:
            repeat(Settings(rounds=rounds, workers=workers, size=SIZE), side)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)
        print(DONE, end="", flush=True)


INSTRUCTIONS = [
    counted(case)
    for case in CASES
    if any(fnmatch.fnmatchcase(case.name, pattern) for pattern in COUNTED)
]
"""The rows, in the order of `CASES`."""

if __name__ == "__main__":
    main()
