"""Compares operations of namedtasks with their floors, and prints a table."""

from __future__ import annotations

import argparse
import fnmatch
import json
import pathlib
import sys
from collections.abc import Iterator

from benchmarks import docs, report, svg
from benchmarks.case import Case
from benchmarks.cases import CASES
from benchmarks.instructions import INSTRUCTIONS
from benchmarks.measure import Comparison
from benchmarks.settings import Settings


def main() -> None:
    """Read the arguments, measure, print."""
    args = parser().parse_args()
    settings = Settings(
        rounds=args.rounds or (3 if args.quick else Settings().rounds),
        quick=args.quick,
        workers=not args.no_workers,
    )
    rows_of_kind = INSTRUCTIONS if args.instructions else CASES
    cases = [case for case in rows_of_kind if matches(case, args.only)]
    if args.list:
        print(*(f"{case.section}: {case.name}" for case in cases), sep="\n")
        return
    if args.write_docs and args.quick:
        sys.exit("--quick gives figures that mean little: not for the documentation")
    if not cases:
        sys.exit(f"no row matches {args.only!r}: see --list")
    rows = list(measured(cases, settings))
    on = report.conditions(settings)
    if args.json:
        kept = {"on": on, "rows": [report.as_json(row) for row in rows]}
        args.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        result = docs.Result(on, rows)
        svg.write_both(args.plot, docs.PICTURE, lambda theme: docs.picture(result, theme))
    if args.write_docs:
        docs.save(docs.RESULTS, on, rows)
        docs.main()
    if args.check:
        sys.exit(verdict(rows))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("--rounds", type=int, help="rounds of each row (default 60)")
    made.add_argument("--quick", action="store_true", help="few rounds and small sizes: a trial")
    made.add_argument(
        "--only",
        default="",
        metavar="PATTERN",
        help="only rows whose section or name has PATTERN in it; * and ? as in file names",
    )
    made.add_argument(
        "--instructions",
        action="store_true",
        help="count instructions under valgrind, instead of taking the time",
    )
    made.add_argument("--list", action="store_true", help="print the rows, and measure nothing")
    made.add_argument(
        "--no-workers", action="store_true", help="open maps on trio with workers=False"
    )
    made.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the rows to FILE")
    made.add_argument(
        "--plot", type=pathlib.Path, metavar="DIR", help="draw the rows, in a light and a dark SVG"
    )
    made.add_argument(
        "--write-docs",
        action="store_true",
        help="keep the rows in benchmarks/results, and write docs/explanation/performance.*",
    )
    made.add_argument("--check", action="store_true", help="fail if a row misses its target")
    return made


def matches(case: Case, pattern: str) -> bool:
    """Return True if *pattern* is in the section and name of *case*."""
    return fnmatch.fnmatch(f"{case.section}: {case.name}".lower(), f"*{pattern.lower()}*")


def verdict(rows: list[Comparison]) -> str | None:
    """Return a message that lists the missed targets; None if there is none."""
    missed = [row.name for row in rows if row.is_met is False]
    if not missed:
        return None
    return f"{len(missed)} of {len(rows)} rows miss their target: {'; '.join(missed)}"


def measured(cases: list[Case], settings: Settings) -> Iterator[Comparison]:
    """Measure *cases*, and print each row when it is measured."""
    print(*(f"{name} {value}" for name, value in report.conditions(settings).items()), sep="  ")
    print(report.HEAD)
    section = ""
    for case in cases:
        if case.section != section:
            section = case.section
            print(f"\n{section}")
        if case.obstacle is not None:
            print(f"{case.name}: skipped, {case.obstacle}")
            continue
        row = case.row(settings)
        print(report.line(row), flush=True)
        yield row


if __name__ == "__main__":
    main()
