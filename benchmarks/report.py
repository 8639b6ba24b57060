"""Measured rows as a table for people and as JSON for programs."""

from __future__ import annotations

import platform
import sys
from typing import Any

import attrs
import trio

import namedtasks
from benchmarks.measure import Comparison, Target
from benchmarks.settings import Settings

_COLUMNS = "{:<77} {:>10} {:>10}  {:<62} {:>6}  {:<13}  {:<9} {}"
HEAD = _COLUMNS.format("", "ours", "floor", "", "ratio", "half of rounds", "at most", "").rstrip()


def line(row: Comparison) -> str:
    """Return a line of the table."""
    return _COLUMNS.format(
        row.name,
        figure(row.ours, row.unit),
        figure(row.theirs, row.unit),
        row.floor,
        f"{row.ratio:.2f}",
        spread(row),
        limit(row),
        {True: "met", False: "MISSED", None: ""}[row.is_met],
    ).rstrip()


def figure(value: float, unit: str) -> str:
    """Return a figure with three digits and its unit."""
    return f"{digits(value)} {unit}"


def digits(value: float) -> str:
    """Return a number with three digits, and without a power of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(row: Comparison) -> str:
    """Return the range in which half of the ratios lie."""
    return f"{row.low:.2f} .. {row.high:.2f}" if row.rounds > 1 else ""


def limit(row: Comparison) -> str:
    """Return the target of the row."""
    if row.target is None:
        return ""
    if row.target.of == "ours":
        return figure(row.target.most, row.unit)
    return f"{row.target.most:g} x"


def reached(row: Comparison) -> str:
    """Return the figure that the target limits; the ratio, if there is no target."""
    if row.target is not None and row.target.of == "ours":
        return figure(row.ours, row.unit)
    return f"{row.ratio:.2f} x"


def conditions(settings: Settings) -> dict[str, Any]:
    """Return the conditions that the figures depend on, except the machine."""
    return {
        "python": platform.python_version(),
        "trio": trio.__version__,
        "namedtasks": namedtasks.__version__,
        "platform": sys.platform,
        "workers": settings.workers,
        "instruments": [],
        "quick": settings.quick,
    }


def as_json(row: Comparison) -> dict[str, Any]:
    """Return a row for programs."""
    return {**attrs.asdict(row), "met": row.is_met}


def from_json(read: dict[str, Any]) -> Comparison:
    """Return the row that `as_json` was given."""
    fields = {field.name: read[field.name] for field in attrs.fields(Comparison)}
    target = fields.pop("target")
    return Comparison(**fields, target=None if target is None else Target(**target))
