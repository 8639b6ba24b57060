"""Pictures as text: the few elements of SVG that are used, in a light and a dark theme."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable
from xml.sax.saxutils import escape

import attrs

FONT = "font-family='system-ui, sans-serif'"


@attrs.frozen
class Theme:
    """The colours of a picture, whose background is that of the page."""

    name: str
    text: str
    faint: str
    """For the grid; too faint for words."""
    good: str
    bad: str
    failed: str
    quiet: str
    """For secondary words, and for starts that were refused."""
    inside: str
    """For words on a bar."""
    box: str
    """For the background of a box."""


LIGHT = Theme(
    name="light",
    text="#1f2328",
    faint="#8c959f",
    good="#0969da",
    bad="#bc4c00",
    failed="#cf222e",
    quiet="#59636e",
    inside="#ffffff",
    box="#f6f8fa",
)
DARK = Theme(
    name="dark",
    text="#e6edf3",
    faint="#6e7681",
    good="#58a6ff",
    bad="#f0883e",
    failed="#ff7b72",
    quiet="#9198a1",
    inside="#0d1117",
    box="#161b22",
)


def document(
    width: float, height: float, title: str, elements: Iterable[str], desc: str = ""
) -> str:
    """Return a whole picture; *title* and *desc* describe it to screen readers."""
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' "
        f"width='{width:g}' height='{height:g}' role='img' {FONT}>"
    )
    said = [f"<title>{escape(title)}</title>", *([f"<desc>{escape(desc)}</desc>"] if desc else [])]
    return "\n".join([head, *said, *elements, "</svg>"]) + "\n"


def text(
    x: float, y: float, words: str, colour: str, anchor: str = "start", size: float = 12
) -> str:
    """Return words at a point."""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' fill='{colour}' font-size='{size:g}' "
        f"text-anchor='{anchor}'>{escape(words)}</text>"
    )


def bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    """Return a filled bar."""
    return (
        f"<rect x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height:.1f}' "
        f"rx='2' fill='{colour}'/>"
    )


def tip(x: float, y: float, height: float, colour: str) -> str:
    """Return the tip of an arrow to the right."""
    half = height / 2
    return f"<path d='M{x:.1f},{y:.1f} l{half:g},{half:g} l-{half:g},{half:g} z' fill='{colour}'/>"


def line(points: Iterable[tuple[float, float]], colour: str, width: float = 1) -> str:
    """Return a line from point to point."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='{width:g}'/>"


def write_both(folder: pathlib.Path, name: str, draw: Callable[[Theme], str]) -> None:
    """Write a picture into *folder* in both themes: ``name-light.svg`` and ``name-dark.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    for theme in (LIGHT, DARK):
        (folder / f"{name}-{theme.name}.svg").write_text(draw(theme), encoding="utf-8")
