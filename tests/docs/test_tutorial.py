"""The three tutorials: the same sections and programs, and a program that ends by Ctrl-C."""

import pathlib
import re
import signal
import subprocess
import sys

import pytest

from tests.docs.pages import DIALECTS, ROOT, code_of

TUTORIAL = ROOT / "docs" / "tutorial"
HEADING = re.compile(r"^#{2,} .+$", re.MULTILINE)
PROGRAM = re.compile(r"^```py(?:thon)?\n# (\w+\.py)$", re.MULTILINE)
OUTPUT = re.compile(r"^```(?:text|console)\n.+?^```$", re.MULTILINE | re.DOTALL)
STOPPING = re.compile(r"^```py\n(# stopping\.py\n.+?)^```$", re.MULTILINE | re.DOTALL)
VIRTUAL_TIME = "virtual_time.py"
"""A program of the page for asyncio alone: the other two frameworks have their own clocks."""


def text_of(dialect: str) -> str:
    return (TUTORIAL / f"{dialect}.md").read_text(encoding="utf-8")


def programs_of(dialect: str) -> list[str]:
    return [name for name in PROGRAM.findall(text_of(dialect)) if name != VIRTUAL_TIME]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_tutorials_have_the_same_sections_and_programs(dialect: str) -> None:
    assert HEADING.findall(text_of("asyncio")) == HEADING.findall(text_of(dialect))
    assert programs_of("asyncio") == programs_of(dialect)
    assert len(programs_of(dialect)) == 11


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_programs_of_the_tutorials_print_the_same(dialect: str) -> None:
    """What is installed for the tests may differ."""
    shown = [
        [block for block in OUTPUT.findall(text_of(page)) if "pip install" not in block]
        for page in ("asyncio", dialect)
    ]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_tutorial_begins_with_links_to_the_others(dialect: str) -> None:
    opening = text_of(dialect).split("\n\n")[1]
    assert opening.startswith(f"This page is for {dialect}; ")
    for other in DIALECTS:
        assert (f"]({other}.md)" in opening) == (other != dialect)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process of several")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_ctrl_c_ends_the_program_of_the_tutorial(dialect: str, tmp_path: pathlib.Path) -> None:
    """The only program of the page that is not run with it, as it does not end by itself."""
    stopping = STOPPING.search(text_of(dialect))
    assert stopping is not None
    lamps = code_of(TUTORIAL / f"{dialect}.md", "lamps.py")
    (tmp_path / "lamps.py").write_text(lamps, encoding="utf-8")
    (tmp_path / "stopping.py").write_text(stopping[1], encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-u", "stopping.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "hall: on\n"
        program.send_signal(signal.SIGINT)
        printed, errors = program.communicate(timeout=60)
    # On trio, Ctrl-C may hit the run that has just printed its line, and then that is logged.
    assert (printed, program.returncode) == ("stopped\n", 0), errors
