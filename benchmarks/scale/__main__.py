"""Runs a controller of very many names for minutes: its speed, memory and pauses."""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

import attrs

from benchmarks import svg
from benchmarks.report import conditions
from benchmarks.scale import curves, docs, on_threads, on_trio
from benchmarks.scale.watch import Plan
from benchmarks.settings import Settings

LARGE = {"trio": 1_000_000, "threads": 100_000}
"""The default number of names."""

RETENTION = {"trio": 244.0, "threads": 5.0}
"""The default of the seconds for which a failure that is not retried is kept."""


def main(argv: list[str] | None = None) -> None:
    """Read the arguments, run, print, write."""
    args = parser().parse_args(argv)
    settings = Settings(workers=not args.no_workers)
    plan = plan_of(args)
    print(*(f"{name} {value}" for name, value in conditions(settings).items()), sep="  ")
    asked = {"plan": attrs.asdict(plan)}
    print(docs.title(asked), docs.subtitle(asked), f"seed {plan.seed}", sep=", ", flush=True)
    shell = on_trio if plan.shell == "trio" else on_threads
    told = shell.run(plan, settings).report(plan, conditions(settings))
    print(*docs.lines(told), sep="\n")
    args.out.mkdir(parents=True, exist_ok=True)
    name = f"scale-{plan.shell}"
    (args.out / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    svg.write_both(args.out, name, lambda theme: curves.picture(docs.title(told), told, theme))
    if args.write_docs:
        docs.save(told)
        docs.main()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    made.add_argument("--shell", choices=list(LARGE), default="trio")
    made.add_argument("--names", type=int, help="default 1 000 000; 100 000 for threads")
    made.add_argument("--volumes", type=int, help="default a tenth of the names")
    made.add_argument("--minutes", type=float, default=10.0, help="of virtual time, on trio")
    made.add_argument("--seconds", type=float, default=30.0, help="of real time, with threads")
    made.add_argument(
        "--rate", type=float, help="starts per virtual second, on trio; default names / 100"
    )
    made.add_argument("--retention", type=float, help="seconds; default 244, for threads 5")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--no-workers", action="store_true", help="open the map with workers=False")
    made.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("build/scale"),
        metavar="DIR",
        help="where to write JSON and pictures (default build/scale)",
    )
    made.add_argument(
        "--write-docs",
        action="store_true",
        help="keep it in benchmarks/results, and write docs/explanation/performance.md and scale-*",
    )
    return made


def plan_of(args: Any) -> Plan:
    """Return the plan that the arguments ask for."""
    names = args.names or LARGE[args.shell]
    return Plan(
        shell=args.shell,
        names=names,
        volumes=args.volumes or max(1, names // 10),
        seconds=60 * args.minutes if args.shell == "trio" else args.seconds,
        seed=args.seed,
        rate=args.rate or names / 100,
        retention=args.retention or RETENTION[args.shell],
    )


if __name__ == "__main__":
    main()
