"""Stresses the shells: ``python -m tests.stress --seconds 60``; ``make stress``.

Exit code 1 if two runs of a name overlapped, a waiter came late, or anything
else was not as it should be.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import random
import sys
from collections.abc import Callable

from tests.stress.tally import Stop, Tally, stop_after

SHELLS = ("threads", "trio", "trio-own-tasks", "asyncio")
"""The trio shell twice: with workers, and with a trio task of its own for each run."""


def run_of(shell: str) -> Callable[[Tally, Stop], None]:
    """What stresses a shell."""
    run: Callable[[Tally, Stop], None]
    run = importlib.import_module(f"tests.stress.on_{shell.partition('-')[0]}").run
    return run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each shell")
    parser.add_argument("--seed", type=int, help="repeats the choices of an earlier run")
    parser.add_argument("--shell", choices=SHELLS, action="append", help="only this one")
    parser.add_argument("--scrape", action="store_true", help="scrape its metrics all the time")
    parser.add_argument("--trace", action="store_true", help="trace each run")
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    # Python 3.12 and older have no such function, and always the GIL.
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"Python {platform.python_version()}, {'with' if has_gil else 'without'} the GIL")
    faults = 0
    for shell in options.shell or SHELLS:
        print(f"{shell}: {options.seconds:g} s with seed {seed} ...", flush=True)
        tally = Tally(shell, seed, is_scraped=options.scrape, is_traced=options.trace)
        run_of(shell)(tally, stop_after(options.seconds))
        print(tally.report(), flush=True)
        faults += len(tally.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
