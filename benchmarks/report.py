"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import platform
import sys
from typing import Any

import attrs
import trio

import namedtasks
from benchmarks.measure import Comparison, Target
from benchmarks.settings import HAS_WORKERS, Settings

_COLUMNS = "{:<66} {:>10} {:>10}  {:<62} {:>6}  {:<13}  {:<9} {}"
HEAD = _COLUMNS.format("", "ours", "floor", "", "ratio", "half of rounds", "at most", "").rstrip()


def line(row: Comparison) -> str:
    """A row of the table."""
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
    """A figure with three digits and its unit."""
    return f"{digits(value)} {unit}"


def digits(value: float) -> str:
    """A number with three digits, and no power of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(row: Comparison) -> str:
    """Between which ratios half of the rounds lie."""
    return f"{row.low:.2f} .. {row.high:.2f}" if row.rounds > 1 else ""


def limit(row: Comparison) -> str:
    """What the row may be at most."""
    if row.target is None:
        return ""
    if row.target.of == "ratio":
        return f"{row.target.most:g} x"
    return _in_words(row.target.most, row)


def reached(row: Comparison) -> str:
    """What there is of what its target limits; the ratio, if it has none."""
    if row.target is None:
        return f"{row.ratio:.2f} x"
    return _in_words(row.target.reached(row.ours, row.theirs, row.ratio), row)


def _in_words(value: float, row: Comparison) -> str:
    of = "ratio" if row.target is None else row.target.of
    if of == "ratio":
        return f"{value:.2f} x"
    if of == "difference":
        return f"{'+' if value >= 0 else '-'} {figure(abs(value), row.unit)}"
    return figure(value, row.unit)


def conditions(settings: Settings) -> dict[str, Any]:
    """What the figures depend on, beside the machine."""
    return {
        "python": platform.python_version(),
        "trio": trio.__version__,
        "namedtasks": namedtasks.__version__,
        "platform": sys.platform,
        "workers": settings.workers if HAS_WORKERS else None,
        "instruments": [],
        "quick": settings.quick,
    }


def as_json(row: Comparison) -> dict[str, Any]:
    """A row for programs."""
    return {**attrs.asdict(row), "met": row.is_met}


def from_json(told: dict[str, Any]) -> Comparison:
    """The row that `as_json` told."""
    fields = {field.name: told[field.name] for field in attrs.fields(Comparison)}
    target = fields.pop("target")
    return Comparison(**fields, target=None if target is None else Target(**target))
