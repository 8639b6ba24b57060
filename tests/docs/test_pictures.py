"""The pictures of names over time and of the demos: what they are made of, and how they look."""

import pathlib
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
import trio
from volume_controller.backend import VolumeState
from volume_controller.report import Line

from benchmarks import svg
from tests.docs.pages import tool

demo, glance, terminal, timeline = map(tool, ("demo", "glance", "terminal", "timeline"))
Bar, Event, Wait = timeline.Bar, timeline.Event, timeline.Wait

SVG = "{http://www.w3.org/2000/svg}"
THEMES = pytest.mark.parametrize("theme", [svg.LIGHT, svg.DARK], ids=lambda theme: theme.name)
PAGES = {"light": "#ffffff", "dark": "#0d1117"}
"""The grounds of pages; a site's own differ by a shade."""


def committed(folder: pathlib.Path, name: str, theme: svg.Theme) -> str:
    return (folder / f"{name}-{theme.name}.svg").read_text(encoding="utf-8")


def event(at: float, what: str, operation: str = "mount", **facts: Any) -> Any:
    return Event(at=at, what=what, volume="a", operation=operation, **facts)


def row(*events: Any) -> Any:
    (only,) = timeline.rows_of(events, ["a"])
    return only


# Names over time


@THEMES
def test_the_names_over_time_are_in_step_with_the_code(theme: svg.Theme) -> None:
    """They run in virtual time, always alike. If this fails: ``make pictures``, and look."""
    assert committed(glance.FOLDER, glance.PICTURE, theme) == glance.picture(glance.rows(), theme)


def test_what_the_picture_says_of_the_names_is_so() -> None:
    """Its words are written by hand; what they tell was heard from the map."""
    once, fails, replaced, late = glance.rows()
    assert ["succeeded"] == [bar.how for bar in once.bars]
    assert [0.5, 1.0, 2.0, 4.0] == [round(wait.end - wait.begin, 3) for wait in fails.waits]
    assert [*["failed"] * 4, "succeeded"] == [bar.how for bar in fails.bars]
    assert ["cancelled", "succeeded"] == [bar.how for bar in replaced.bars]
    assert replaced.bars[0].end == replaced.bars[1].begin
    assert late.bars[0].overdue_at is not None
    assert (1, []) == (len(late.bars), late.waits)


def test_a_run_is_drawn_from_its_start_to_its_end() -> None:
    assert [Bar(1, 2, "mount", "succeeded", None)] == row(
        event(1, "started"), event(2, "succeeded")
    ).bars


def test_runs_of_two_operations_are_told_apart() -> None:
    """An operation may be replaced by another one of the same volume."""
    found = row(
        event(1, "started"),
        event(2, "started", "leave"),
        event(3, "cancelled"),
        event(4, "succeeded", "leave"),
    )
    assert [Bar(1, 3, "mount", "cancelled", None), Bar(2, 4, "leave", "succeeded", None)] == (
        found.bars
    )


def test_a_failure_is_followed_by_its_wait() -> None:
    found = row(event(1, "started"), event(2, "failed", retry_in=0.5))
    assert [Wait(2, 2.5)] == found.waits
    assert [] == row(event(1, "started"), event(2, "failed")).waits


def test_what_is_overdue_stays_so_until_it_ends() -> None:
    found = row(event(1, "started"), event(2, "overdue"), event(5, "succeeded"))
    assert [Bar(1, 5, "mount", "succeeded", 2)] == found.bars
    assert found.counts == "1 run, 1 overdue, 0 starts skipped"


def test_what_never_began_or_never_ended_is_no_run() -> None:
    assert [] == row(event(1, "cancelled"), event(2, "started"), event(3, "waiting")).bars


def test_the_words_of_two_marks_do_not_run_into_each_other() -> None:
    """One that has no room before the next stands above it."""
    found = [row(event(0, "started"), event(10, "succeeded"))]
    look = timeline.Look(
        title="T", desc="D", marks={5: "noon", 8: "evening", 8.5: "night"}, captions={}, step=1
    )
    drawn = ElementTree.fromstring(timeline.picture(found, look, svg.LIGHT))
    heights = {text.text: float(text.get("y") or 0) for text in drawn.iter(f"{SVG}text")}
    assert heights["noon"] == heights["night"] > heights["evening"]


# The demos


@THEMES
def test_the_demo_is_shown_as_it_was_kept(theme: svg.Theme) -> None:
    """If this fails: ``make pictures``, and look."""
    kept, folder = demo.load(), demo.DEMO
    assert committed(folder, "day", theme) == demo.day(kept, theme)
    assert committed(folder, "table", theme) == demo.table(kept, theme)


def test_the_kept_day_has_all_that_its_page_tells() -> None:
    """So that a new recording cannot make the words beside its pictures untrue."""
    told = demo.load()["day"]
    rows = {row.volume: row for row in demo.rows(told)}
    failures = {
        name: [bar.operation for bar in row.bars if bar.how == "failed"]
        for name, row in rows.items()
        if row.waits
    }
    assert failures == {
        "db-1": ["unmount", "unmount"],
        "logs-2": ["mount", "mount"],
        "media-3": ["attach"],
    }
    assert ["attach"] == [bar.operation for bar in rows["logs-3"].bars if bar.how == "cancelled"]
    waiting, failed, running = demo.interest(told["frame"])
    assert waiting >= 1
    assert failed >= 2
    assert running >= 1


def test_the_other_demos_pages_have_the_lines_that_were_kept() -> None:
    kept = demo.load()
    for name in demo.PLAIN:
        page = (demo.EXAMPLES / name / "README.md").read_text(encoding="utf-8")
        assert page == demo.page_with(kept["plain"][name], page)
        assert kept["plain"][name][-1] == "result: everything was reached (exit code 0)"


def test_all_of_it_is_written(tmp_path: pathlib.Path) -> None:
    for name in demo.PLAIN:
        page = (demo.EXAMPLES / name / "README.md").read_text(encoding="utf-8")
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(demo.page_with([], page), encoding="utf-8")
    demo.write(demo.load(), tmp_path)
    for file in filter(pathlib.Path.is_file, tmp_path.rglob("*")):
        known = demo.EXAMPLES / file.relative_to(tmp_path)
        assert known.read_text(encoding="utf-8") == file.read_text(encoding="utf-8")
    assert len([*tmp_path.rglob("*.svg")]) == 4


@pytest.mark.trio
async def test_a_screen_keeps_what_the_demo_shows(autojump_clock: trio.abc.Clock) -> None:
    """The lines above the table, the table, and what it was told, without errors' texts."""
    pytest.importorskip("rich")
    screen = demo.Screen()
    screen.show(Line(0.0, "phase", "phase 1 of 1: all", {"title": "all"}))
    facts = {"volume": "a", "operation": "mount", "failures": 1, "retry_in": 0.5, "error": "bad"}
    screen.show(Line(0.0, "failed", "", facts))
    with trio.move_on_after(2.5 * demo.PERIOD):
        await screen.watch(lambda: {"a": VolumeState(provisioned=True)})
    assert [0.0, demo.PERIOD, 2 * demo.PERIOD] == [frame["at"] for frame in screen.frames]
    assert screen.frames[0]["lines"][0] == "   0.00  phase 1 of 1: all"
    assert (1, 1, 0) == demo.interest(screen.frames[0])
    assert screen.events == [
        {"at": 0.0, "what": "phase", "title": "all"},
        {"at": 0.0, "what": "failed", "volume": "a", "operation": "mount", "retry_in": 0.5},
    ]


def test_a_moment_with_more_waits_is_of_more_interest() -> None:
    """Then more failures, then more runs; a wait that is over does not count."""
    over, one, two, busy = (
        {"lines": [f"│ a │ n1 │ {state} │ {failures} │ {wait} │ why │"]}
        for state, failures, wait in [
            ("attached", 3, "0.0 s"),
            ("attached", 1, "0.2 s"),
            ("attached", 2, "0.2 s"),
            ("mount ...", 2, "0.2 s"),
        ]
    )
    assert [over, one, two, busy] == sorted([busy, two, over, one], key=demo.interest)


# All pictures


PICTURES = sorted(file for file in demo.DOCS.rglob("*.svg") if "_build" not in file.parts)


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.stem)
def test_each_picture_is_plain(file: pathlib.Path) -> None:
    """It is well-formed, tells what it is, and fetches nothing from elsewhere."""
    root = ElementTree.parse(file).getroot()
    assert root.findtext(f"{SVG}title")
    assert root.get("role") == "img"
    for element in root.iter():
        assert element.tag.removeprefix(SVG) not in ("script", "image", "style", "foreignObject")
        assert not any("http" in value for value in element.attrib.values())


def test_what_the_terminal_shows_stands_in_the_picture_where_it_stood() -> None:
    """A frame is drawn, as in few fonts its pieces would meet."""
    drawn = ElementTree.fromstring(terminal.picture(["┃ a<b ┃", "  c"], "T", "D", svg.LIGHT))
    first, second = drawn.findall(f"{SVG}text")
    assert [first.text, second.text] == ["a<b", "c"]
    assert first.get("x") == second.get("x")
    assert float(second.get("y") or 0) - float(first.get("y") or 0) == terminal.LINE
    assert len(drawn.findall(f"{SVG}path")) == 1


@THEMES
def test_words_can_be_read(theme: svg.Theme) -> None:
    """A contrast of 4.5, which is what WCAG 2 asks for, on the page and on the bars."""
    page = PAGES[theme.name]
    for colour in (theme.text, theme.quiet, theme.failed):
        assert contrast(colour, page) >= 4.5
    for colour in (theme.text, theme.quiet):
        assert contrast(colour, theme.box) >= 4.5
    for colour in (theme.good, theme.failed, theme.quiet, theme.bad):
        assert contrast(theme.inside, colour) >= 4.5


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2, from 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    found = 0.0
    for at, weight in ((1, 0.2126), (3, 0.7152), (5, 0.0722)):
        share = int(colour[at : at + 2], 16) / 255
        found += weight * (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4)
    return found


def test_what_is_kept_is_no_more_than_is_needed() -> None:
    """No errors' texts with paths in them, for instance; the one frame has what all see."""
    keys = {key for one in demo.load()["day"]["events"] for key in one}
    assert keys == {"at", "what", "volume", "operation", "retry_in", "title"}
