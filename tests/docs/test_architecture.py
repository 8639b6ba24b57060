"""The page on the architecture names every file of the package, and only what there is."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "explanation" / "architecture.md"
PACKAGE = ROOT / "namedtasks"
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))

_SPAN = re.compile(r"`([A-Za-z_][\w.]*)`")


def rows() -> list[list[str]]:
    """The cells of the page's tables, of rows that name a file."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [row for row in cells if any(f"`{file}`" in cell for cell in row for file in FILES)]


def names_in(source: str) -> set[str]:
    """The functions, classes, methods and globals of a module."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                found.add(target.id)
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(f"{node.name}.{member.name}")
    return found


NAMES = {file: names_in((PACKAGE / file).read_text(encoding="utf-8")) for file in FILES}
ALL_NAMES = {name for names in NAMES.values() for name in names}


def test_each_file_of_the_package_has_one_row_in_the_layout() -> None:
    layout = PAGE.read_text(encoding="utf-8").partition("## The layout")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `([^`]+)` \|", layout, re.MULTILINE)
    assert sorted(listed) == FILES


def test_what_a_row_names_first_is_in_its_file() -> None:
    """In a row with a file and a function, the latter is in the former."""
    for row in rows():
        files = [
            (n, file) for n, cell in enumerate(row) for file in FILES if cell.strip() == f"`{file}`"
        ]
        for column, file in files:
            first = _SPAN.match(row[column + 1].strip()) if column + 1 < len(row) else None
            if first is not None and file != "__init__.py":
                assert first[1] in NAMES[file] or first[1] == "__str__", row


@pytest.mark.parametrize("heading", ["One start, step by step", "Where to change what"])
def test_each_function_on_the_page_exists(heading: str) -> None:
    text = PAGE.read_text(encoding="utf-8").partition(f"## {heading}")[2].partition("\n## ")[0]
    methods = {
        name for name in _SPAN.findall(text) if re.match(r"[A-Z]\w*[a-z]\w*\.[a-z_]+$", name)
    }
    assert len(methods) > 20
    assert sorted(methods - ALL_NAMES) == []


def test_each_word_of_the_vocabulary_is_in_its_file() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## The vocabulary")[2].partition("\n## ")[0]
    words = re.findall(r"^\| (`[^|]+) \| `([^`]+)` \|", text, re.MULTILINE)
    assert len(words) > 10
    for cell, file in words:
        assert set(_SPAN.findall(cell)) <= NAMES[file]
