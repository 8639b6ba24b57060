"""Runs the examples of a page as a reader would: one after the other, from top to bottom.

A ``python`` block runs in the page's own namespace. One whose first line is a
comment with a file name, ``# lamps.py``, is saved under that name in an empty
folder and run from there as a program; a ``# test_….py`` is given to pytest.

A ``text`` block that follows is what was printed, exactly; only how long
pytest took is left out. The pages show all that is printed to standard output;
the README, which has to be short, need not.

A page with tabs is run once for each dialect, without the tabs of the others:
from ``<!-- tabs -->`` to ``<!-- end of tabs -->``, each tab begins with a line
that holds the dialect's name alone, ``**asyncio**``.

`asyncio.run` and `trio.run` run in virtual time, unless the page holds the
invisible comment ``<!-- real time -->``: a page with processes, or with threads
on asyncio, that take their time. Plain threads always take real time.
On a page with ``<!-- each block alone -->`` a block does not see the ones before it.
"""

from __future__ import annotations

import asyncio
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
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any
from unittest import mock

import trio
from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser
from trio.testing import MockClock

from tests.virtual_loop import VirtualLoop

ROOT = pathlib.Path(__file__).parent.parent.parent
README = ROOT / "README.md"
PAGES = [
    README,
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "examples" not in page.parts),
]
REAL_TIME = "<!-- real time -->"
EACH_ALONE = "<!-- each block alone -->"
TABS, END_OF_TABS = "<!-- tabs -->", "<!-- end of tabs -->"
DIALECTS = ("asyncio", "threads", "trio")

_FILE_NAME = re.compile(r"# (\w+\.py)\n")
_PYTEST_OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly")
_TIME_TAKEN = re.compile(r" in [0-9.]+s\b")


def tool(name: str) -> Any:
    """A module of docs/tools. To checkers of types, ``docs`` is the folder beside this file."""
    return importlib.import_module(f"docs.tools.{name}")


def run_page(page: pathlib.Path, folder: pathlib.Path) -> None:
    """Run all examples of *page*, for each dialect that has a tab there.

    Its files go to *folder*, which is empty, or to a folder in it for each dialect.

    Raises:
        AssertionError: something else was printed than the page says.
    """
    text = page.read_text(encoding="utf-8")
    dialects = dialects_of(text)
    if not dialects:
        _run_text(text, page, folder)
    for dialect in dialects:
        (folder / dialect).mkdir()
        _run_text(for_dialect(text, dialect), page, folder / dialect)


def dialects_of(text: str) -> list[str]:
    """Return the dialects that have a tab in *text*."""
    tabs = {tab.strip("*") for tab in text.split("\n") if _is_tab(tab)}
    return [dialect for dialect in DIALECTS if dialect in tabs]


def for_dialect(text: str, dialect: str) -> str:
    """Return *text* with an empty line for each line of another dialect's tab.

    Raises:
        AssertionError: its tabs are not in the form that the site needs.
    """
    lines: list[str] = []
    tab: str | None = None  # "" between the beginning of the tabs and the first of them
    for line in text.split("\n"):
        if line == TABS:
            assert tab is None, "tabs inside tabs"
            tab = ""
        elif line == END_OF_TABS:
            assert tab, "the end of tabs that have not begun, or are empty"
            tab = None
        elif _is_tab(line):
            assert tab is not None, f"{line} outside tabs"
            assert line.strip("*") > tab, f"{line} after {tab}: the order is {DIALECTS}"
            tab = line.strip("*")
        elif tab == "":
            assert line == "", f"text before the first tab: {line}"
        lines.append(line if tab in (None, dialect) else "")
    assert tab is None, "tabs that do not end"
    return "\n".join(lines)


def _is_tab(line: str) -> bool:
    return line.startswith("**") and line.endswith("**") and line.strip("*") in DIALECTS


def _run_text(text: str, page: pathlib.Path, folder: pathlib.Path) -> None:
    reader = _Reader(folder, shows_all=page != README, each_alone=EACH_ALONE in text)
    parsers = [CodeBlockParser("python", reader.run), CodeBlockParser("text", reader.compare)]
    document = Document(text, str(page))
    for parser in parsers:
        for region in parser(document):
            document.add(region)
    time = contextlib.nullcontext() if REAL_TIME in text else _virtual_time()
    with time, _at_home_in(folder), _handlers_put_back():
        for example in document.examples():
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
    run_trio = trio.run

    def run(async_fn: Callable[..., Awaitable[Any]], *args: object) -> Any:
        return run_trio(async_fn, *args, clock=MockClock(autojump_threshold=0))

    with mock.patch("trio.run", run), mock.patch("asyncio.run", _run_asyncio):
        yield


def _run_asyncio(main: Coroutine[Any, Any, Any], *, debug: bool | None = None) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop, debug=debug) as runner:
        loop = runner.get_loop()
        result = runner.run(main)
    assert isinstance(loop, VirtualLoop)
    assert loop.complaints == []
    return result


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
