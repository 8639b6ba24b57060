"""The picture of the table: the share of its target that each row uses."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks import svg
from benchmarks.measure import Comparison
from benchmarks.report import limit, reached

_LEFT, _WIDTH, _RIGHT = 440.0, 400.0, 160.0
_TOP, _STEP, _THICK = 44.0, 22.0, 12.0
_MOST = 2.0
"""The length at which a bar is cut off, in targets."""


def picture(title: str, rows: Iterable[Comparison], theme: svg.Theme) -> str:
    """Draw a bar for each of *rows* that has a target, the worst first."""
    drawn = sorted(
        (row for row in rows if row.used is not None), key=lambda row: row.used or 0, reverse=True
    )
    bottom = _TOP + len(drawn) * _STEP
    elements = [svg.text(8, 16, title, theme.text, size=14), *_scale(bottom, theme)]
    for number, row in enumerate(drawn):
        elements += _bar(row, _TOP + number * _STEP, theme)
    elements.append(svg.line([(_x(1), _TOP - 6), (_x(1), bottom)], theme.text, 1.5))
    return svg.document(_LEFT + _WIDTH + _RIGHT, bottom + 12, title, elements)


def _x(used: float) -> float:
    return _LEFT + _WIDTH * max(0, min(used, _MOST)) / _MOST


def _scale(bottom: float, theme: svg.Theme) -> Iterable[str]:
    for mark in (0, 0.5, 1, 1.5, 2):
        yield svg.line([(_x(mark), _TOP - 6), (_x(mark), bottom)], theme.faint, 0.5)
        words = "target" if mark == 1 else f"{mark:.0%}"
        yield svg.text(
            _x(mark), _TOP - 10, words, theme.text if mark == 1 else theme.quiet, "middle"
        )


def _bar(row: Comparison, top: float, theme: svg.Theme) -> Iterable[str]:
    used = row.used or 0
    colour = theme.good if row.is_met else theme.bad
    middle = top + _THICK / 2
    yield svg.text(_LEFT - 8, middle + 4, row.name, theme.text, "end")
    yield svg.bar(_LEFT, top, _x(used) - _LEFT, _THICK, colour)
    if used > _MOST:  # the bar is cut off
        yield svg.tip(_LEFT + _WIDTH + 2, top, _THICK, colour)
    elif row.target is not None and row.target.of == "ratio" and row.rounds > 1:
        ends = [_x(row.low / row.target.most), _x(row.high / row.target.most)]
        yield svg.line([(end, middle) for end in ends], theme.text)
        for end in ends:
            yield svg.line([(end, middle - 3), (end, middle + 3)], theme.text)
    words = f"{reached(row)} of {limit(row)}"
    yield svg.text(_LEFT + _WIDTH + 16, middle + 4, words, colour, size=11)


def share(rows: Iterable[Comparison]) -> tuple[int, int]:
    """Return the number of targets of *rows* that are met, and the number of all."""
    told = [row.is_met for row in rows if row.is_met is not None]
    return sum(told), len(told)
