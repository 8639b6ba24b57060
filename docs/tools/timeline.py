"""Draws what a task map did over time: a row for each volume, a bar for each run.

The picture is made of events alone: see `rows_of`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import attrs

from benchmarks import svg

End = Literal["succeeded", "failed", "cancelled"]


@attrs.frozen(kw_only=True)
class Event:
    """The part of an event that a picture needs."""

    at: float
    """Seconds since the beginning."""
    what: str
    """started, succeeded, failed, cancelled, overdue or skipped; other events are ignored."""
    volume: str
    operation: str
    retry_in: float | None = None
    """The wait after a failure, in seconds."""


@attrs.frozen
class Bar:
    """A run."""

    begin: float
    end: float
    operation: str
    how: End
    overdue_at: float | None
    """The time at which it became overdue; None if it did not."""


@attrs.frozen
class Wait:
    """The wait of a name after a failure."""

    begin: float
    end: float


@attrs.define
class Row:
    """The runs, waits and skipped starts of one volume."""

    volume: str
    bars: list[Bar] = attrs.field(factory=list[Bar])
    waits: list[Wait] = attrs.field(factory=list[Wait])
    skipped: list[float] = attrs.field(factory=list[float])
    """The times of the skipped starts."""

    @property
    def counts(self) -> str:
        """The numbers of runs, failures and skipped starts, in words."""
        failed = sum(bar.how == "failed" for bar in self.bars)
        overdue = sum(bar.overdue_at is not None for bar in self.bars)
        words = [_counted(len(self.bars), "run")]
        words += [f"{failed} failed"] if failed else []
        words += [f"{overdue} overdue"] if overdue else []
        return ", ".join([*words, f"{_counted(len(self.skipped), 'start')} skipped"])


def rows_of(events: Iterable[Event], volumes: Iterable[str]) -> list[Row]:
    """Return a row for each of *volumes*, made of *events*. A run without an end is left out."""
    rows = {volume: Row(volume) for volume in volumes}
    begun: dict[tuple[str, str], float] = {}
    overdue: dict[tuple[str, str], float] = {}
    for event in events:
        row, run = rows[event.volume], (event.volume, event.operation)
        match event.what:
            case "started":
                begun[run] = event.at
            case "overdue":
                overdue[run] = event.at
            case "skipped":
                row.skipped.append(event.at)
            case "succeeded" | "failed" | "cancelled" as how if run in begun:
                late = overdue.pop(run, None)
                row.bars.append(Bar(begun.pop(run), event.at, event.operation, how, late))
                if event.retry_in:
                    row.waits.append(Wait(event.at, event.at + event.retry_in))
            case _:
                pass
    return list(rows.values())


# The picture

WIDTH, LEFT, RIGHT = 720, 72, 44
BAR, TEXT, LETTER = 14, 11, 6.4
"""The height of a bar, the size of the text, and the approximate width of a letter."""


@attrs.frozen(kw_only=True)
class Look:
    """The texts and the layout of a timeline."""

    title: str
    desc: str
    marks: Mapping[float, str]
    """Texts above the rows, by the time at which they apply."""
    captions: Mapping[str, str]
    """Texts above the bars, by volume."""
    step: float
    """Seconds between two lines of the grid."""

    @property
    def height(self) -> int:
        """The height of a row."""
        return 54 if self.captions else 24


def picture(rows: Sequence[Row], look: Look, theme: svg.Theme) -> str:
    """Return the *rows* over time, as SVG."""
    end = max(bar.end for row in rows for bar in row.bars)
    scale = (WIDTH - LEFT - RIGHT) / end
    top = 46 if look.marks else 24
    bottom = top + look.height * len(rows)
    parts = _grid(end, scale, top, bottom, look, theme)
    for number, row in enumerate(rows):
        parts += _row(row, top + number * look.height, scale, look, theme)
    parts += _legend(rows, bottom + 36, theme)
    return svg.document(WIDTH, bottom + 48, look.title, [*parts], look.desc)


def _grid(
    end: float, scale: float, top: float, bottom: float, look: Look, theme: svg.Theme
) -> list[str]:
    parts = [svg.text(0, 14, look.title, theme.text, size=14)]
    for number in range(int(end / look.step) + 1):
        x = LEFT + number * look.step * scale
        parts += [
            svg.line([(x, top), (x, bottom)], theme.faint, 0.5),
            svg.text(x, bottom + 14, f"{number * look.step:g} s", theme.quiet, "middle", TEXT),
        ]
    places = [(LEFT + at * scale, words) for at, words in look.marks.items()]
    for (x, words), (following, _) in itertools.pairwise([*places, (WIDTH + 6, "")]):
        fits = x + 4 + len(words) * LETTER + 6 < following
        y = top - 4 if fits else top - 16
        parts.append(svg.line([(x, y - 8), (x, bottom)], theme.text, 1))
        parts.append(svg.text(x + 4, y, words, theme.text, size=TEXT))
    return parts


def _row(row: Row, top: float, scale: float, look: Look, theme: svg.Theme) -> list[str]:
    caption = look.captions.get(row.volume)
    y = top + (24 if caption else 4)
    parts = [svg.text(LEFT - 8, y + 11, row.volume, theme.text, "end")]
    if caption:
        parts.append(svg.text(LEFT + 4, y - 9, caption, theme.quiet, size=TEXT))
    for wait in row.waits:
        is_alone = not any(wait.begin < bar.begin < wait.end for bar in row.bars)
        parts += _wait(wait, y, scale, theme, _seconds(wait) if is_alone else "")
    for bar in sorted(
        row.bars, key=lambda bar: bar.how == "cancelled"
    ):  # they are short: draw them last, so that no bar hides them
        parts += _bar(bar, y, scale, theme)
    for at in row.skipped:
        x = LEFT + at * scale
        parts.append(svg.line([(x, y + BAR + 2), (x, y + BAR + 6)], theme.quiet))
    return parts


def _bar(bar: Bar, y: float, scale: float, theme: svg.Theme) -> list[str]:
    x, width = LEFT + bar.begin * scale, max((bar.end - bar.begin) * scale, 2)
    colours = {"succeeded": theme.good, "failed": theme.failed, "cancelled": theme.quiet}
    colour = colours[bar.how]
    parts = [svg.bar(x, y, width, BAR, colour)]
    if bar.how == "failed":
        parts.append(_cross(x + width, y + BAR / 2, theme))
    if bar.overdue_at is not None:
        late = (bar.end - bar.overdue_at) * scale
        parts.append(svg.bar(x + width - late, y, late, BAR, theme.bad))
        width -= late
    if len(bar.operation) * LETTER + 6 < width:
        parts.append(svg.text(x + 4, y + 11, bar.operation, theme.inside, size=TEXT))
    return parts


def _cross(x: float, y: float, theme: svg.Theme) -> str:
    """Return the mark of a failure, for readers who cannot tell red from blue."""
    return (
        f"<path d='M{x - 3.5:.1f},{y - 3.5:.1f} l7,7 m0,-7 l-7,7' fill='none' "
        f"stroke='{theme.text}' stroke-width='1.5'/>"
    )


def _wait(wait: Wait, y: float, scale: float, theme: svg.Theme, words: str = "") -> list[str]:
    begin, end = LEFT + wait.begin * scale, LEFT + wait.end * scale
    middle = y + BAR / 2
    parts = [
        f"<path d='M{begin:.1f},{middle:.1f} H{end:.1f} m0,-4 v8' fill='none' "
        f"stroke='{theme.failed}' stroke-width='1.5' stroke-dasharray='3 2'/>"
    ]
    if words and len(words) * LETTER < end - begin:
        parts.append(svg.text((begin + end) / 2, middle - 4, words, theme.failed, "middle", 10))
    return parts


def _seconds(wait: Wait) -> str:
    return f"{wait.end - wait.begin:.3g} s"


def _legend(rows: Sequence[Row], y: float, theme: svg.Theme) -> list[str]:
    """Return a legend of the marks that occur in *rows*."""
    bars = [bar for row in rows for bar in row.bars]
    y -= 11
    ways: dict[End, str] = {"succeeded": "succeeds", "failed": "fails", "cancelled": "is cancelled"}
    samples = [
        (words, _bar(Bar(0, 14, "", how, None), y, 1, theme))
        for how, words in ways.items()
        if any(bar.how == how for bar in bars)
    ]
    if any(bar.overdue_at is not None for bar in bars):
        late = _bar(Bar(0, 14, "", "succeeded", 0), y, 1, theme)
        samples.append(("asked to stop, and does not", late))
    if any(row.waits for row in rows):
        samples.append(("waits", _wait(Wait(0, 14), y, 1, theme)))
    if any(row.skipped for row in rows):
        ticks = [LEFT + step for step in (2, 7, 12)]
        marks = [svg.line([(x, y + 4), (x, y + 8)], theme.quiet) for x in ticks]
        samples.append(("starts skipped", marks))
    parts: list[str] = []
    at = 0.0
    for words, elements in samples:
        parts += [f"<g transform='translate({at - LEFT:.1f} 0)'>", *elements, "</g>"]
        parts.append(svg.text(at + 22, y + 11, words, theme.quiet, size=TEXT))
        at += 22 + len(words) * LETTER + 16
    return parts


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
