"""Every example in the README, the docs and the docstrings runs."""

import doctest
import importlib
import pathlib
import pkgutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser
from trio.testing import MockClock

import namedtasks

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "examples" not in page.parts),
]
SYBIL = Sybil(parsers=[PythonCodeBlockParser()])


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples call `trio.run` as a reader would; here their time is virtual."""
    really_run = trio.run

    def run(async_fn: Callable[[], Awaitable[Any]]) -> Any:
        return really_run(async_fn, clock=MockClock(autojump_threshold=0))

    monkeypatch.setattr(trio, "run", run)


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page: pathlib.Path) -> None:
    """One after the other, in one namespace, as a reader would type them."""
    for example in SYBIL.parse(page).examples():
        example.evaluate()


def test_there_are_examples_to_run() -> None:
    assert len(list(SYBIL.parse(ROOT / "README.md").examples())) == 2


def modules() -> list[str]:
    found = pkgutil.walk_packages(namedtasks.__path__, "namedtasks.")
    return ["namedtasks", *(module.name for module in found)]


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
