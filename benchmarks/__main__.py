"""Measures it all and prints one table: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import AsyncIterator

import attrs
import trio

import namedtasks
from benchmarks import overlap, size, speed
from benchmarks.measure import Case, Comparison


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="rounds of each case (default 40)")
    parser.add_argument("--quick", action="store_true", help="few rounds and small sizes: a trial")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows with TEXT in them")
    args = parser.parse_args()
    rows = trio.run(measure, 3 if args.quick else args.rounds, args.quick, args.json, args.only)
    if args.json:
        print(json.dumps({"on": conditions(), "rows": [attrs.asdict(row) for row in rows]}))


async def measure(rounds: int, quick: bool, as_json: bool, only: str) -> list[Comparison]:
    """Measure every case, and print each row as it comes."""
    million, thousands = (10_000, 1_000) if quick else (1_000_000, 100_000)
    counts = [0, 100, million // 10, million]
    overlapping = [100, 1_000] if quick else [1_000, 100_000]

    def wanted(case: Case) -> bool:
        return only in case[0]

    parts: list[AsyncIterator[Comparison]] = [
        speed.starts(rounds, wanted),
        speed.refusals(rounds, wanted),
        overlap.price(rounds, wanted),
        overlap.flatness([10, *overlapping], rounds, wanted),
    ]
    if only in "wait_idle()":
        parts.append(size.flatness(counts, rounds))
    if only in "bytes per running name":
        parts.append(size.running(thousands))
    if only in "bytes per waiting name":
        parts.append(size.waiting(million))
    rows: list[Comparison] = []
    if not as_json:
        print(" ".join(f"{name} {value}" for name, value in conditions().items()))
        print(HEAD)
    for part in parts:
        async for row in part:
            rows.append(row)
            if not as_json:
                print(line(row), flush=True)
    return rows


def conditions() -> dict[str, str]:
    """What the figures depend on, beside the machine."""
    return {
        "python": platform.python_version(),
        "trio": trio.__version__,
        "namedtasks": namedtasks.__version__,
        "platform": sys.platform,
    }


COLUMNS = "{:<52} {:>10} {:>10}    {:<31} {:>6}  {:<13}"
HEAD = COLUMNS.format("", "ours", "floor", "", "ratio", "half of rounds")


def line(row: Comparison) -> str:
    """A row of the table."""
    return COLUMNS.format(
        row.what,
        f"{row.ours:.4g} {row.unit}",
        f"{row.theirs:.4g} {row.unit}",
        row.floor,
        f"{row.ratio:.2f}",
        f"{row.low:.2f} .. {row.high:.2f}" if row.rounds > 1 else "",
    )


if __name__ == "__main__":
    main()
