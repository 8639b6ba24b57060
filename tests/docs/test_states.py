"""The picture and the table of the states are what the code does today."""

import importlib.util
import pathlib
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from namedtasks import State
from tests.docs.pages import ROOT

SVG = "{http://www.w3.org/2000/svg}"


def script() -> Any:
    """The drawing script as a module; it is in no package."""
    spec = importlib.util.spec_from_file_location(
        "draw_states", ROOT / "docs" / "tools" / "draw_states.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


draw_states = script()


def test_the_picture_and_the_table_are_in_step_with_the_code() -> None:
    """If this fails: ``python docs/tools/draw_states.py``, and look at what has changed."""
    steps = draw_states.all_steps()
    assert draw_states.PICTURE.read_text(encoding="utf-8") == draw_states.picture(steps)
    page = draw_states.PAGE.read_text(encoding="utf-8")
    assert draw_states.page_with(draw_states.table(steps), page) == page


def test_each_state_of_the_code_is_drawn() -> None:
    assert set(draw_states.BOXES) == set(State)
    assert {step.source for step in draw_states.all_steps()} == set(State)


def test_a_transition_that_has_no_place_in_the_picture_is_told() -> None:
    steps = [step for step in draw_states.all_steps() if step.target is not State.GAVE_UP]
    with pytest.raises(ValueError, match=r"^not in both the code and ARROWS: .*GAVE_UP"):
        draw_states.picture(steps)


def test_the_script_writes_both(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw_states.PAGE.read_text(encoding="utf-8")
    page, picture = tmp_path / "states.md", tmp_path / "states.svg"
    page.write_text(draw_states.page_with("", whole), encoding="utf-8")
    monkeypatch.setattr(draw_states, "PAGE", page)
    monkeypatch.setattr(draw_states, "PICTURE", picture)
    draw_states.main()
    assert page.read_text(encoding="utf-8") == whole
    boxes = ElementTree.parse(picture).getroot().findall(f"{SVG}rect")
    assert len(boxes) == len(State)
