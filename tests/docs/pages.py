"""Runs the examples of a page as a reader would: one after the other, from top to bottom.

A ``python`` block runs in the page's own namespace. One whose first line is a
comment with a file name, ``# lamps.py``, is saved under that name in an empty
folder and run from there as a program; a ``# test_….py`` is given to pytest.

A ``text`` block that follows is what was printed, exactly; only how long
pytest took is left out. The pages show all that is printed to standard output;
the README, which has to be short, need not.

`trio.run` runs in virtual time, unless the page holds the invisible comment
``<!-- real time -->``: a page with threads or processes that take their time.
On a page with ``<!-- each block alone -->`` no block knows of the ones before it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pathlib
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from typing import Any
from unittest import mock

import trio
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser
from trio.testing import MockClock

ROOT = pathlib.Path(__file__).parent.parent.parent
README = ROOT / "README.md"
PAGES = [
    README,
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "examples" not in page.parts),
]
REAL_TIME = "<!-- real time -->"
EACH_ALONE = "<!-- each block alone -->"

_FILE_NAME = re.compile(r"# (\w+\.py)\n")
_PYTEST_OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly")
_TIME_TAKEN = re.compile(r" in [0-9.]+s\b")


def tool(name: str) -> Any:
    """A module of docs/tools. To checkers of types, ``docs`` is the folder beside this file."""
    return importlib.import_module(f"docs.tools.{name}")


def run_page(page: pathlib.Path, folder: pathlib.Path) -> None:
    """Run all examples of *page*; its files go to the empty *folder*.

    Raises:
        AssertionError: something else was printed than the page says.
    """
    text = page.read_text(encoding="utf-8")
    reader = _Reader(folder, shows_all=page != README, each_alone=EACH_ALONE in text)
    sybil = Sybil(
        parsers=[CodeBlockParser("python", reader.run), CodeBlockParser("text", reader.compare)]
    )
    time = contextlib.nullcontext() if REAL_TIME in text else _virtual_time()
    with time, _at_home_in(folder), _handlers_put_back():
        for example in sybil.parse(page).examples():
            example.evaluate()
    reader.assert_all_shown("the end")


def code_of(page: pathlib.Path, name: str) -> str:
    """The block of *page* that is the file *name*."""
    sybil = Sybil(parsers=[CodeBlockParser("python", lambda example: None)])
    blocks = [str(example.parsed) for example in sybil.parse(page).examples()]
    return next(block for block in blocks if block.startswith(f"# {name}\n"))


class _Reader:
    def __init__(self, folder: pathlib.Path, *, shows_all: bool, each_alone: bool) -> None:
        self._folder = folder
        self._shows_all = shows_all
        self._each_alone = each_alone
        self._run_here = PythonEvaluator()
        self.printed = ""
        """What the last example printed, until the page has shown it."""

    def run(self, example: Example) -> None:
        self.assert_all_shown(f"line {example.line}")
        source: str = example.parsed
        named = _FILE_NAME.match(source)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            if named is None:
                if self._each_alone:
                    example.namespace.clear()
                self._run_here(example)
            else:
                self._run_file(named[1], source)
        self.printed = out.getvalue()

    def compare(self, example: Example) -> None:
        shown: str = example.parsed
        assert _without_time(shown) == _without_time(self.printed)
        self.printed = ""

    def assert_all_shown(self, where: str) -> None:
        shown = self.printed == "" or not self._shows_all
        assert shown, f"what was printed before {where} is not shown"

    def _run_file(self, name: str, source: str) -> None:
        path = self._folder / name
        path.write_text(source, encoding="utf-8")
        if not name.startswith("test_"):
            # The whole path: multiprocessing looks for its program where it was imported itself.
            runpy.run_path(str(path), run_name="__main__")
            return
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *_PYTEST_OPTIONS, name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        print(done.stdout, end="")


def _without_time(printed: str) -> str:
    return _TIME_TAKEN.sub("", printed)


@contextlib.contextmanager
def _virtual_time() -> Generator[None]:
    really_run = trio.run

    def run(async_fn: Callable[..., Awaitable[Any]], *args: object) -> Any:
        return really_run(async_fn, *args, clock=MockClock(autojump_threshold=0))

    with mock.patch("trio.run", run):
        yield


@contextlib.contextmanager
def _at_home_in(folder: pathlib.Path) -> Generator[None]:
    """Work in *folder*, and find modules there, as programs that are run from there do."""
    modules = set(sys.modules)
    before = pathlib.Path.cwd()
    os.chdir(folder)
    try:
        with mock.patch.object(sys, "path", [str(folder), *sys.path]):
            yield
    finally:
        os.chdir(before)
        for name in set(sys.modules) - modules:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin is not None and pathlib.Path(origin).is_relative_to(folder):
                del sys.modules[name]


@contextlib.contextmanager
def _handlers_put_back() -> Generator[None]:
    """A page may handle signals as the program does that it stands for."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
