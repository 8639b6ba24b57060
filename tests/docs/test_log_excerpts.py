"""The log excerpts on the page about logs are what its programs log."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from namedtasks import LoggingInstrument
from namedtasks._logging import record_fields
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "how-to" / "logging.md").read_text(encoding="utf-8")
BLOCK = r"```python\n(# {}\n.*?)```\n.*?```console\n(.*?)```"
PROGRAMS = re.findall(BLOCK.format("lamps.py"), PAGE, re.DOTALL)
SETTINGS = re.findall(BLOCK.format("settings.py"), PAGE, re.DOTALL)


def logged(folder: pathlib.Path, source: str) -> str:
    """Return what the program logs, on standard error, without its folder."""
    path = folder / "lamps.py"
    path.write_text(source, encoding="utf-8")
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    return done.stderr.replace(f"{path}", path.name)


def without_durations(text: str) -> str:
    """How long a body takes depends on the machine."""
    return re.sub(r"failed after [0-9.]+ s", "failed after 0 s", text)


@pytest.mark.parametrize(("program", "excerpt"), PROGRAMS, ids=["asyncio", "threads", "trio"])
def test_a_program_logs_what_the_page_shows(
    program: str, excerpt: str, tmp_path: pathlib.Path
) -> None:
    text = without_durations(logged(tmp_path, program))
    assert f"$ python lamps.py\n{text}" == excerpt


def test_the_settings_log_what_the_page_shows(tmp_path: pathlib.Path) -> None:
    ((settings, excerpt),) = SETTINGS
    program = PROGRAMS[0][0].replace("range(2)", "range(1)")
    configured = f"{settings}\nimport logging.config\nlogging.config.dictConfig(LOGGING)\n"
    text = logged(tmp_path, configured + program)
    assert excerpt == text.partition("Traceback")[0]


def test_the_page_and_the_docstring_list_all_fields() -> None:
    fields = list(record_fields("failed"))
    assert fields == re.findall(r"^\| `(task_\w+)`", PAGE, re.MULTILINE)
    docstring = LoggingInstrument.__doc__ or ""
    assert fields == re.findall(r"^ *``(task_\w+)`` ", docstring, re.MULTILINE)
