"""The page on performance is made of the kept results."""

import pathlib
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import docs, svg
from benchmarks.cases import CASES
from benchmarks.measure import Comparison, Target, summary
from benchmarks.report import limit

ON = {"python": "3.11.7", "trio": "0.35.0", "platform": "linux", "workers": True}
SVG = "{http://www.w3.org/2000/svg}"


def row(number: int, ours: float, target: Target | None = None) -> Comparison:
    """Return a row in place of the case of that *number*."""
    case = CASES[number]
    return summary(case.name, "the floor", case.section, "us", target, [(ours * 1e-6, 1e-6)])


def test_the_page_and_its_pictures_show_the_kept_results() -> None:
    """If this fails: ``python -m benchmarks.docs``, and look at the difference."""
    results = docs.load(docs.RESULTS)
    page = docs.PAGE.read_text(encoding="utf-8")
    assert docs.page_with(results, page) == page
    for theme in (svg.LIGHT, svg.DARK):
        file = docs.FOLDER / f"{docs.PICTURE}-{theme.name}.svg"
        drawn = docs.picture(docs.drawn(results), theme)
        assert file.read_text(encoding="utf-8") == drawn


def test_a_row_that_is_measured_again_replaces_the_old_one(tmp_path: pathlib.Path) -> None:
    """Other rows stay, so that a single row can be refreshed."""
    docs.save(tmp_path, ON, [row(1, 1.0), row(0, 1.0)])
    docs.save(tmp_path, ON, [row(1, 2.0)])
    (result,) = docs.load(tmp_path)
    assert [(row.name, row.ours) for row in result.rows] == [
        (CASES[0].name, 1.0),
        (CASES[1].name, 2.0),
    ]


def test_each_python_has_a_column_and_maps_without_workers_come_last(
    tmp_path: pathlib.Path,
) -> None:
    docs.save(tmp_path, {**ON, "workers": False}, [row(0, 4.0)])
    docs.save(tmp_path, {**ON, "python": "3.13.0", "workers": True}, [row(0, 2.0)])
    docs.save(tmp_path, {**ON, "python": "3.9.1"}, [row(0, 3.0)])
    results = docs.load(tmp_path)
    assert [result.label for result in results] == [
        "Python 3.9",
        "Python 3.13",
        "Python 3.11, `workers=False`",
    ]
    assert docs.drawn(results).python == "3.13"
    cells = docs.pretty(
        f"| {limit(results[0].rows[0])} | 3 us, **3.00 x**, missed | 2 us, **2.00 x**, missed "
        "| 4 us, **4.00 x**, missed |"
    )
    name = docs.unbroken(CASES[0].name)
    assert f"| {name} | the floor {cells}" in docs.tables(results)


def test_the_worst_come_first() -> None:
    """First the rows that use most of their target, last those without one."""
    rows = [row(0, 9.0), row(1, 1.0, Target(2.0)), row(2, 3.0, Target(2.0))]
    lines = docs.tables([docs.Result(ON, rows)]).splitlines()
    named = [line.split(" | ")[0].strip("| ") for line in lines if "the floor" in line]
    assert named == [docs.unbroken(CASES[number].name) for number in (2, 1, 0)]
    assert "- Python 3.11 (3.11.7, trio 0.35.0, linux): 1 of 2 targets are met." in lines
    assert any(line.endswith(docs.pretty("**3.00 x**, missed |")) for line in lines)


def test_a_page_without_the_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="unpack"):
        docs.page_with([], "no marks here")


@pytest.mark.parametrize("theme", [svg.LIGHT, svg.DARK], ids=lambda theme: theme.name)
def test_each_row_with_a_target_has_a_bar(theme: svg.Theme) -> None:
    """A bar that ends outside the picture has a tip, and none goes to the left."""
    rows = [
        row(0, 1.0, Target(2.0)),
        row(1, 9.0, Target(2.0)),
        row(2, -1.0, Target(2.0)),
        row(3, 1.0),
    ]
    drawn = ElementTree.fromstring(docs.picture(docs.Result(ON, rows), theme))
    bars = drawn.findall(f"{SVG}rect")
    assert len(bars) == 3
    assert min(float(bar.attrib["width"]) for bar in bars) == 0
    assert [bar.attrib["fill"] for bar in bars] == [theme.bad, theme.good, theme.good]
    assert len(drawn.findall(f"{SVG}path")) == 1
