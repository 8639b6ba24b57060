"""The scale run works at any size, and reports its figures. No timed assertions."""

import json
import pathlib
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from benchmarks import svg
from benchmarks.docs import FOLDER, PAGE, RESULTS
from benchmarks.scale import curves, docs
from benchmarks.scale.__main__ import main
from benchmarks.scale.watch import Plan

SVG = "{http://www.w3.org/2000/svg}"


def report(folder: pathlib.Path, *args: str) -> dict[str, Any]:
    """Return the report of a run with these arguments."""
    main([*args, "--out", str(folder)])
    (file,) = folder.glob("*.json")
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for theme in ("light", "dark"):
        picture = ElementTree.parse(folder / f"{file.stem}-{theme}.svg").getroot()
        assert len(picture.findall(f"{SVG}polyline")) >= 3
    return told


def small_on_trio(folder: pathlib.Path) -> dict[str, Any]:
    return report(
        folder, "--names", "200", "--volumes", "20", "--minutes", "10", "--rate", "5", "--seed", "3"
    )


def test_a_controller_on_trio(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Failures lapse, names are refused for all reasons, and in the end nothing is left."""
    told = small_on_trio(tmp_path)
    assert told["operations"] == told["admitted"] + sum(told["refused"].values())
    assert told["admitted"] > 2000
    assert 0.03 < told["failed"] / told["admitted"] < 0.07
    assert {"AlreadyRunningError", "BackoffError"} <= set(told["refused"])
    last = told["samples"][-1]
    assert (last["running"], last["waiting"]) == (0, 0)
    assert max(sample["waiting"] for sample in told["samples"]) > 0
    assert "longest step of a task" in capsys.readouterr().out


def test_the_same_seed_starts_the_same_names(tmp_path: pathlib.Path) -> None:
    """So that a run can be repeated."""
    one, other = (small_on_trio(tmp_path / name) for name in ("one", "other"))
    assert (one["operations"], one["refused"]) == (other["operations"], other["refused"])


def test_a_thread_map(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = report(
        tmp_path, "--shell", "threads", "--names", "20", "--seconds", "0.2", "--retention", "0.1"
    )
    assert told["admitted"] > 0
    last = told["samples"][-1]
    assert (last["running"], last["waiting"]) == (0, 0)
    assert "longest call of the map" in capsys.readouterr().out


def test_the_names_are_volumes_on_nodes() -> None:
    plan = Plan(shell="trio", names=5, volumes=2, seconds=1, seed=1, rate=1)
    assert plan.tuples() == [
        ("volume-0", "node-0"),
        ("volume-1", "node-0"),
        ("volume-0", "node-1"),
        ("volume-1", "node-1"),
        ("volume-0", "node-2"),
    ]


def test_growth_is_counted_from_the_end_of_the_retention_on() -> None:
    """Before it the map fills, and after the last start it empties."""
    sizes = [10, 50, 70, 71, 72, 73, 74, 75, 12]
    told = {
        "samples": [{"at": at, "resident": size} for at, size in enumerate(sizes)],
        "plan": {"seconds": 8, "retention": 2},
    }
    assert docs.growth(told) == (60.5, 64.5)
    assert docs.growth({**told, "plan": {"seconds": 8, "retention": 7}}) is None


def test_the_page_and_its_pictures_show_the_kept_reports() -> None:
    """If this fails: ``python -m benchmarks.scale.docs``, and look at the difference."""
    kept = docs.load(RESULTS)
    page = PAGE.read_text(encoding="utf-8")
    assert docs.page_with(kept, page) == page
    for told in kept:
        for theme in (svg.LIGHT, svg.DARK):
            file = FOLDER / f"scale-{told['plan']['shell']}-{theme.name}.svg"
            drawn = curves.picture(docs.title(told), told, theme)
            assert file.read_text(encoding="utf-8") == drawn
