"""The picture of a run: memory, names and operations over time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import attrs

from benchmarks import svg

_LEFT, _WIDTH, _RIGHT = 70.0, 760.0, 20.0
_TOP, _HEIGHT, _GAP = 60.0, 120.0, 56.0


@attrs.frozen
class Panel:
    """One curve."""

    title: str
    points: list[tuple[float, float]]


def panels(told: dict[str, Any]) -> list[Panel]:
    """Return the curves of a report."""
    samples: list[dict[str, Any]] = told["samples"]
    first = samples[0]["resident"]
    memory = [(one["at"], (one["resident"] - first) / 1e6) for one in samples]
    waiting = [(one["at"], one["waiting"] / 1e3) for one in samples]
    speed = [
        (after["at"], (after["operations"] - before["operations"]) / 1e3 / taken)
        for before, after in itertools.pairwise(samples[:-1])
        if (taken := after["real"] - before["real"]) > 0
    ]
    return [
        Panel("Memory above that at the beginning, in MB", memory),
        Panel("Failures on record, in thousands", waiting),
        Panel("Start calls, in thousands per second of real time", speed),
    ]


def picture(title: str, told: dict[str, Any], theme: svg.Theme) -> str:
    """Draw the curves of a report one below the other; a line marks the end of the retention."""
    drawn = panels(told)
    until = max(sample["at"] for sample in told["samples"])
    height = _TOP + len(drawn) * (_HEIGHT + _GAP)
    elements = [svg.text(8, 18, title, theme.text, size=14)]
    for number, panel in enumerate(drawn):
        top = _TOP + number * (_HEIGHT + _GAP)
        elements += _panel(panel, top, until, theme)
        for at, words in (
            (told["plan"]["retention"], "retention"),
            (told["plan"]["seconds"], "last start"),
        ):
            elements += _mark(_LEFT + _WIDTH * at / until, top, words, theme)
    return svg.document(_LEFT + _WIDTH + _RIGHT, height, title, elements)


def _panel(panel: Panel, top: float, until: float, theme: svg.Theme) -> Iterable[str]:
    most = _round_up(max((value for _, value in panel.points), default=0))
    bottom = top + _HEIGHT
    yield svg.text(_LEFT, top - 10, panel.title, theme.text)
    for share in (0, 0.5, 1):
        y = bottom - share * _HEIGHT
        yield svg.line([(_LEFT, y), (_LEFT + _WIDTH, y)], theme.faint, 0.5)
        yield svg.text(_LEFT - 8, y + 4, f"{most * share:g}", theme.quiet, "end")
    step = _round_up(until / 8)
    for number in range(int(until / step) + 1):
        x = _LEFT + _WIDTH * number * step / until
        yield svg.text(x, bottom + 16, f"{number * step:g} s", theme.quiet, "middle")
    points = [
        (_LEFT + _WIDTH * at / until, bottom - _HEIGHT * max(0, value) / most)
        for at, value in panel.points
    ]
    yield svg.line(points, theme.good, 2)


def _mark(x: float, top: float, words: str, theme: svg.Theme) -> Iterable[str]:
    if x <= _LEFT + _WIDTH:
        yield svg.line([(x, top), (x, top + _HEIGHT)], theme.bad, 1)
        yield svg.text(x - 4, top + 12, words, theme.bad, "end", size=10)


def _round_up(value: float) -> float:
    """Return the next number above that is 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)
