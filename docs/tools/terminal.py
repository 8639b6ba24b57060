"""Draws what a terminal shows: lines of text on a background."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from benchmarks import svg

FONT = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"
SIZE, LETTER, LINE, EDGE = 12, 7.2, 16, 14
"""The font size, the width of a letter, the height of a line and the margin, in pixels."""

_LEFT, _RIGHT, _UP, _DOWN = "l", "r", "u", "d"
_FRAME = {
    "─": "lr",
    "━": "lr",
    "│": "ud",
    "┃": "ud",
    "┏": "rd",
    "┳": "lrd",
    "┓": "ld",
    "┡": "rud",
    "╇": "lrud",
    "┩": "lud",
    "├": "rud",
    "┼": "lrud",
    "┤": "lud",
    "└": "ru",
    "┴": "lru",
    "┘": "lu",
}
"""The strokes of each frame character. They are drawn as lines: in few fonts they would meet."""
_BOLD = "━┃┏┳┓"


def picture(lines: Sequence[str], title: str, desc: str, theme: svg.Theme) -> str:
    """Return the *lines* as SVG."""
    width = max(map(len, lines)) * LETTER + 2 * EDGE
    height = len(lines) * LINE + 2 * EDGE
    parts = [
        f"<rect x='0.5' y='0.5' width='{width - 1:.1f}' height='{height - 1}' rx='6' "
        f"fill='{theme.box}' stroke='{theme.faint}'/>"
    ]
    for number, line in enumerate(lines):
        top = EDGE + number * LINE
        parts += _frame(line, top, theme)
        parts += _words(line, top, theme)
    return svg.document(round(width), height, title, parts, desc)


def _frame(line: str, top: float, theme: svg.Theme) -> Iterable[str]:
    strokes = {False: "", True: ""}
    for column, letter in enumerate(line):
        x, y = EDGE + (column + 0.5) * LETTER, top + LINE / 2
        ways = {
            _LEFT: f"h{-LETTER / 2:g}",
            _RIGHT: f"h{LETTER / 2:g}",
            _UP: f"v{-LINE / 2:g}",
            _DOWN: f"v{LINE / 2:g}",
        }
        for way in _FRAME.get(letter, ""):
            strokes[letter in _BOLD] += f"M{x:.1f},{y:g}{ways[way]}"
    for is_bold, path in strokes.items():
        if path:
            width = 1.6 if is_bold else 0.8
            yield f"<path d='{path}' fill='none' stroke='{theme.quiet}' stroke-width='{width}'/>"


def _words(line: str, top: float, theme: svg.Theme) -> Iterable[str]:
    """Yield the text between the strokes, each piece at its own place and width."""
    column = 0
    for piece in _pieces(line):
        words = piece.strip()
        if words:
            x = EDGE + (column + len(piece) - len(piece.lstrip())) * LETTER
            yield (
                f"<text x='{x:.1f}' y='{top + 12:g}' fill='{theme.text}' font-size='{SIZE}' "
                f"font-family='{FONT}' "
                f"textLength='{len(words) * LETTER:.1f}' lengthAdjust='spacingAndGlyphs'>"
                f"{escape(words)}</text>"
            )
        column += len(piece) + 1


def _pieces(line: str) -> list[str]:
    return "".join("\0" if letter in _FRAME else letter for letter in line).split("\0")
