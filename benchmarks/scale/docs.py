"""Describes the report of a run, and writes it into the documentation."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from benchmarks import svg
from benchmarks.docs import FOLDER, PAGE, RESULTS, between_marks
from benchmarks.scale import curves

MEGABYTE = 1e6


def title(told: dict[str, Any]) -> str:
    """Return the title of a report."""
    plan = told["plan"]
    where = {"trio": "on trio, in virtual time", "threads": "in threads"}[plan["shell"]]
    return f"{_spaced(plan['names'])} names over {_spaced(plan['volumes'])} volumes, {where}"


def subtitle(told: dict[str, Any]) -> str:
    """Return the conditions of a report."""
    plan = told["plan"]
    rate = f", {plan['rate']:g} starts a second" if plan["shell"] == "trio" else ""
    return (
        f"{plan['seconds']:g} s{rate}, {plan['failing']:.0%} of the runs fail, and a "
        f"failure is kept for {plan['retention']:g} s"
    )


def lines(told: dict[str, Any]) -> list[str]:
    """Return the findings of a report."""
    first, last = told["samples"][0], told["samples"][-1]
    refused = ", ".join(
        f"{_spaced(count)} {kind.replace(', overlapping', ' (overlapping)')}"
        for kind, count in told["refused"].items()
    )
    found = [
        f"{_spaced(round(told['operations_per_second']))} start calls per second: "
        f"{_spaced(told['operations'])} in {told['real_seconds']:.0f} s",
        f"{_spaced(told['admitted'])} admitted, {_spaced(told['failed'])} failed",
        f"refused: {refused or 'none'}",
        *_memory(told),
        f"at the end {last['running']} names run and {last['waiting']} wait; "
        f"{_megabytes(last['resident'] - first['resident'])} more than at the beginning",
    ]
    if told["plan"]["shell"] == "trio":
        itself = _milliseconds(told["longest_step_itself"])
        found.append(
            f"longest step of a task, during which the loop stopped: "
            f"{_milliseconds(told['longest_step'])}; {itself} without garbage collection"
        )
    call, collection = map(_milliseconds, (told["longest_call"], told["longest_collection"]))
    found.append(f"longest call of the map: {call}; longest garbage collection: {collection}")
    return found


def growth(told: dict[str, Any]) -> tuple[float, float] | None:
    """Return the growth of memory since the beginning, early and late after the retention.

    In bytes: the means of the first and the last third of that time; None if there was too little.
    """
    first = told["samples"][0]["resident"]
    after = [
        sample["resident"] - first
        for sample in told["samples"]
        if told["plan"]["retention"] <= sample["at"] < told["plan"]["seconds"]
    ]
    third = len(after) // 3
    if not third:
        return None
    return sum(after[:third]) / third, sum(after[-third:]) / third


def _memory(told: dict[str, Any]) -> list[str]:
    grown = growth(told)
    most = max(sample["waiting"] for sample in told["samples"])
    if grown is None:
        return [f"at most {_spaced(most)} failures on record"]
    early, late = map(_megabytes, grown)
    return [
        f"memory above that at the beginning: {early} soon after the retention, {late} near the "
        f"end; "
        f"at most {_spaced(most)} failures on record"
    ]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def _megabytes(size: float) -> str:
    return f"{size / MEGABYTE:.1f} MB"


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


# The page


def save(told: dict[str, Any]) -> None:
    """Keep a report."""
    file = RESULTS / f"scale-{told['plan']['shell']}.json"
    file.write_text(json.dumps(told) + "\n", encoding="utf-8")


def load(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the kept reports, trio first."""
    files = sorted(folder.glob("scale-*.json"), reverse=True)
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def block(told: list[dict[str, Any]]) -> str:
    """Return the part of the page that describes the reports."""
    parts: list[str] = []
    for one in told:
        on, name = one["on"], f"scale-{one['plan']['shell']}"
        parts += [
            f"### {title(one)}",
            "",
            "<picture>",
            f'  <source media="(prefers-color-scheme: dark)" srcset="{name}-dark.svg">',
            f'  <img alt="Memory, failures and starts over time" src="{name}-light.svg">',
            "</picture>",
            "",
            f"{subtitle(one)}; on Python {on['python']}, trio {on['trio']}:",
            "",
            *(f"- {line}" for line in lines(one)),
            "",
        ]
    return "\n".join(parts)


def page_with(told: list[dict[str, Any]], page: str) -> str:
    """Return *page* with the reports."""
    return between_marks("python -m benchmarks.scale --write-docs", block(told), page)


def main() -> None:
    """Write the page and its pictures from the kept reports."""
    told = load(RESULTS)
    PAGE.write_text(page_with(told, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for one in told:
        name = f"scale-{one['plan']['shell']}"
        for theme in (svg.LIGHT, svg.DARK):
            drawn = curves.picture(title(one), one, theme)
            (FOLDER / f"{name}-{theme.name}.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
