"""The package's shape: no import circle, plain docstrings, few files."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import namedtasks

ROOT = pathlib.Path(namedtasks.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
QUESTION_WORDS = ("Who", "Whose", "What", "Where", "Whether", "How", "Why", "Which")


def module_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: pathlib.Path) -> Iterator[str]:
    """The modules of ours that a module names in an import, for type checkers or at run time."""
    modules = {module_of(one) for one in FILES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            inside = {f"{node.module}.{one.name}" for one in node.names} & modules
            yield from inside or {node.module}


def test_no_modules_import_each_other() -> None:
    """Directly or through others, with what is imported for type checkers counted."""
    left = {module_of(path): set(imports_of(path)) for path in FILES}
    while free := [module for module, imported in left.items() if not imported & left.keys()]:
        for module in free:
            del left[module]
    assert left == {}


def test_no_docstring_begins_with_a_question_word() -> None:
    """It says what a thing is or does, and is no riddle."""
    riddles = [
        f"{path.name}:{node.lineno}: {node.value.value.strip().splitlines()[0]}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and node.value.value.strip().startswith(tuple(f"{word} " for word in QUESTION_WORDS))
    ]
    assert riddles == []
