"""The picture and the tables of the states are what the code does today."""

import pathlib
import re
import xml.etree.ElementTree as ElementTree
from typing import get_args

import pytest

import namedtasks
from benchmarks import svg
from namedtasks import State
from tests.docs.pages import tool

SVG = "{http://www.w3.org/2000/svg}"

draw_states, busy_tables = tool("draw_states"), tool("busy_tables")


def test_the_picture_and_the_table_are_in_step_with_the_code() -> None:
    """If this fails: ``make states``, and look at what has changed."""
    steps = draw_states.all_steps()
    for theme in (svg.LIGHT, svg.DARK):
        file = draw_states.FOLDER / f"{draw_states.PICTURE}-{theme.name}.svg"
        assert file.read_text(encoding="utf-8") == draw_states.picture(steps, theme)
    page = draw_states.PAGE.read_text(encoding="utf-8")
    assert draw_states.page_with(draw_states.table(steps), page) == page


def test_each_state_of_the_code_is_drawn() -> None:
    assert set(draw_states.BOXES) == set(State)
    assert {step.source for step in draw_states.all_steps()} == set(State)


def test_a_transition_that_has_no_place_in_the_picture_is_told() -> None:
    steps = [step for step in draw_states.all_steps() if step.target is not State.GAVE_UP]
    with pytest.raises(ValueError, match=r"^not in both the code and ARROWS: .*GAVE_UP"):
        draw_states.picture(steps, svg.LIGHT)


def test_the_script_writes_both(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw_states.PAGE.read_text(encoding="utf-8")
    page = tmp_path / "states.md"
    page.write_text(draw_states.page_with("", whole), encoding="utf-8")
    monkeypatch.setattr(draw_states, "PAGE", page)
    monkeypatch.setattr(draw_states, "FOLDER", tmp_path)
    draw_states.main()
    assert page.read_text(encoding="utf-8") == whole
    for picture in ("states-light.svg", "states-dark.svg"):
        boxes = ElementTree.parse(tmp_path / picture).getroot().findall(f"{SVG}rect")
        assert len(boxes) == len(State)


def test_the_tables_of_busy_names_are_in_step_with_the_code() -> None:
    """If this fails: ``make states``, and look at what has changed."""
    page = busy_tables.PAGE.read_text(encoding="utf-8")
    assert busy_tables.page_with(busy_tables.all_tables(), page) == page


def test_they_have_a_row_for_each_state_and_a_column_for_each_policy() -> None:
    header, _, *rows = busy_tables.starts().splitlines()
    assert re.findall(r'`"(\w+)"`', header) == list(get_args(namedtasks.IfBusy))
    places = [row.split("|")[1].strip() for row in rows]
    assert all(any(state.value in place for place in places) for state in State)


def test_the_script_writes_them(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = busy_tables.PAGE.read_text(encoding="utf-8")
    page = tmp_path / "states.md"
    page.write_text(
        busy_tables.page_with(dict.fromkeys(busy_tables.TABLES, ""), whole), encoding="utf-8"
    )
    monkeypatch.setattr(busy_tables, "PAGE", page)
    busy_tables.main()
    assert page.read_text(encoding="utf-8") == whole
