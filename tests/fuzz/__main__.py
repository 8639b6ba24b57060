"""Runs the state machines in turn until the time is over: ``make fuzz``, ``MINUTES=60 make fuzz``.

Exit code 1 if one of them found something. What it found stays in Hypothesis'
database, where the usual tests find it, and its report in `.hypothesis/found`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.fuzz import VARIABLE

ROOT = pathlib.Path(__file__).parent.parent.parent
MACHINES = sorted(ROOT.glob("tests/**/test_*machine.py"))
FOUND = ROOT / ".hypothesis" / "found"

TIMES = 4
"""As many examples as usual in each round: a quarter of a minute to a minute for a machine."""


def fuzz(
    machines: Sequence[pathlib.Path], seconds: float, *, seed: int, found: pathlib.Path
) -> pathlib.Path | None:
    """Run *machines* in turn for *seconds*, each round with another seed.

    Returns:
        The report of the first one that failed, in the folder *found*; None if
        none has.
    """
    end = time.monotonic() + seconds
    for number, machine in zip(itertools.count(seed), itertools.cycle(machines)):
        if time.monotonic() >= end:
            return None
        started = time.monotonic()
        done = run(machine, number)
        took = time.monotonic() - started
        print(f"{machine.stem} of {machine.parent.name}: seed {number}, {took:.0f} s", flush=True)
        if done.returncode:
            found.mkdir(parents=True, exist_ok=True)
            report = found / f"{machine.parent.name}-{machine.stem}-{number}.txt"
            report.write_text(done.stdout + done.stderr, encoding="utf-8")
            print(done.stdout + done.stderr, f"kept in {report}", sep="\n")
            return report
    raise AssertionError("there are no machines")


def run(machine: pathlib.Path, seed: int) -> subprocess.CompletedProcess[str]:
    """One round of the tests of one file."""
    options = ["-q", "--timeout=0", "-p", "no:randomly"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--hypothesis-seed={seed}", str(machine)],
        cwd=ROOT,
        env={**os.environ, VARIABLE: str(TIMES)},
        capture_output=True,
        text=True,
        check=False,
    )


def main() -> int:
    """Fuzz all machines."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all together")
    parser.add_argument("--seed", type=int, help="of the first round; the next one has the next")
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    report = fuzz(MACHINES, options.minutes * 60, seed=seed, found=FOUND)
    return 0 if report is None else 1


if __name__ == "__main__":
    sys.exit(main())
