"""Keeps measured rows, and writes them into the documentation.

The rows of each Python are kept in a file of ``benchmarks/results/``; the page
``docs/explanation/performance.md`` and its pictures are made of all of them.
``python -m benchmarks --write-docs`` measures and writes; ``python -m
benchmarks.docs`` only writes.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import attrs

from benchmarks import bars, instructions, svg
from benchmarks.cases import CASES, SECTIONS
from benchmarks.instructions import INSTRUCTIONS
from benchmarks.measure import Comparison
from benchmarks.report import as_json, figure, from_json, limit

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FOLDER = ROOT / "docs" / "explanation"
PAGE = FOLDER / "performance.md"
PICTURE = "performance"
_WITHIN_FIGURE = re.compile(
    r"(?<=\d) (?=\d{3}\b|µs|ms|ns|B\b|k\b|\N{MULTIPLICATION SIGN})|(?<=\+) (?=\d)"
)


@attrs.frozen
class Result:
    """The rows of one Python."""

    on: dict[str, Any]
    """The conditions: see `report.conditions`."""
    rows: list[Comparison]
    """In the order of the cases."""

    @property
    def timed(self) -> list[Comparison]:
        """The rows of seconds and bytes."""
        return [row for row in self.rows if row.section != instructions.SECTION]

    @property
    def counted(self) -> list[Comparison]:
        """The rows of instructions."""
        return [row for row in self.rows if row.section == instructions.SECTION]

    @property
    def python(self) -> str:
        """The version, as in 3.11."""
        return ".".join(self.on["python"].split(".")[:2])

    @property
    def has_workers(self) -> bool:
        """True if the maps on trio reused their tasks, as they do by default."""
        return self.on["workers"] is not False

    @property
    def label(self) -> str:
        """The head of the column."""
        return f"Python {self.python}" + ("" if self.has_workers else ", `workers=False`")

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"python-{self.python}" + ("" if self.has_workers else "-no-workers") + ".json"


# The rows that were measured


def load(folder: pathlib.Path) -> list[Result]:
    """Return the kept results, by Python, of the rows and with the targets of today."""
    results: list[Result] = []
    for file in folder.glob("python-*.json"):
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        by_name = {row["name"]: from_json(row) for row in kept["rows"]}
        rows = [
            attrs.evolve(by_name[case.name], target=case.target)
            for case in (*CASES, *INSTRUCTIONS)
            if case.name in by_name
        ]
        results.append(Result(kept["on"], rows))
    return sorted(results, key=_column)


def _column(result: Result) -> tuple[bool, tuple[int, ...]]:
    return not result.has_workers, tuple(map(int, result.python.split(".")))


def save(folder: pathlib.Path, on: dict[str, Any], rows: list[Comparison]) -> None:
    """Keep *rows*; rows that were not measured this time stay as they are."""
    new = Result(on, rows)
    kept = {row.name: row for old in load(folder) if old.file == new.file for row in old.rows}
    kept.update((row.name, row) for row in rows)
    written = {"on": on, "rows": [as_json(row) for row in kept.values()]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / new.file).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


# The page


def tables(results: list[Result]) -> str:
    """Return the tables of all sections, the worst rows first."""
    parts = [*_summary(results)]
    for section in (instructions.SECTION, *SECTIONS):
        if any(row.section == section for result in results for row in result.rows):
            parts += ["", f"### {section}", "", *_table(section, results)]
    return "\n".join(parts) + "\n"


def _summary(results: list[Result]) -> Iterable[str]:
    for result in results:
        met, of = bars.share(result.timed)
        line = f"- {result.label} ({_versions(result.on)}): {met} of {of} targets are met"
        met, of = bars.share(result.counted)
        yield f"{line}, {met} of {of} by instructions." if of else f"{line}."


def _versions(on: dict[str, Any]) -> str:
    return f"{on['python']}, trio {on['trio']}, {on['platform']}"


def _table(section: str, results: list[Result]) -> Iterable[str]:
    columns = [{row.name: row for row in result.rows} for result in results]
    newest = [row for column in reversed(columns) for row in column.values()]
    known = {row.name: row for row in reversed(newest) if row.section == section}
    yield "| | compared with | at most | " + " | ".join(result.label for result in results) + " |"
    yield "|---|---|---|" + "---|" * len(results)
    for row in sorted(known.values(), key=_badness, reverse=True):
        cells = [_cell(column.get(row.name)) for column in columns]
        words = f"| {row.name} | {row.floor} | {pretty(limit(row))} | " + " | ".join(cells) + " |"
        yield unbroken(words)


def _badness(row: Comparison) -> tuple[bool, float]:
    return row.used is not None, row.ratio if row.used is None else row.used


def _cell(row: Comparison | None) -> str:
    if row is None:
        return ""
    spread = f" ({row.low:.2f} to {row.high:.2f})" if row.rounds > 1 else ""
    missed = ", missed" if row.is_met is False else ""
    return pretty(f"{figure(row.ours, row.unit)}, **{row.ratio:.2f} x**{spread}{missed}")


def pretty(words: str) -> str:
    """Return *words* with the signs for micro and times, and each figure on one line."""
    words = words.replace(" us", " µs").replace(" x", " \N{MULTIPLICATION SIGN}")
    return unbroken(words)


def unbroken(words: str) -> str:
    """Return *words* with each figure kept on one line with its thousands and its unit."""
    return _WITHIN_FIGURE.sub("\N{NO-BREAK SPACE}", words)


def between_marks(name: str, block: str, page: str) -> str:
    """Return *page* with *block* in the place that is marked for *name*."""
    begin, end = f"<!-- made by {name} -->\n", "<!-- end of what was made -->\n"
    before, rest = page.split(begin)
    after = rest.split(end, 1)[1]
    return f"{before}{begin}{block}{end}{after}"


def page_with(results: list[Result], page: str) -> str:
    """Return *page* with the tables."""
    return between_marks("python -m benchmarks --write-docs", tables(results), page)


def drawn(results: list[Result]) -> Result:
    """Return the result that the pictures show: the newest Python, with default settings."""
    return [result for result in results if result.has_workers][-1]


def picture(result: Result, theme: svg.Theme) -> str:
    """Return the picture of one result."""
    return bars.picture(f"namedtasks on Python {result.python}", result.timed, theme)


def main() -> None:
    """Write the page and its pictures from the kept results."""
    results = load(RESULTS)
    page = page_with(results, PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(page, encoding="utf-8")
    svg.write_both(FOLDER, PICTURE, lambda theme: picture(drawn(results), theme))


if __name__ == "__main__":
    main()
