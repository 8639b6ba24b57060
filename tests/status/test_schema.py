"""The API does what its description says, whatever requests come: schemathesis makes them up."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from namedtasks import Backoff, ThreadTaskMap
from namedtasks.status import StatusPage, serve

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        find_spec("schemathesis") is None, reason="needs schemathesis: pip install schemathesis"
    ),
]

TOKEN = "correct-horse"
HOSTILE = "<img src=x onerror=alert(1)>\r\n\ud800\u202e\x00"


def fail() -> None:
    raise OSError(HOSTILE)


def test_no_request_makes_an_answer_that_the_description_does_not_have(tmp_path: Path) -> None:
    """No 500 either, and a request that the description forbids is refused."""
    page = StatusPage(title=HOSTILE, token=TOKEN, interval=0.05)
    instruments = [page.instrument(HOSTILE)]
    with (
        ThreadTaskMap(instruments=instruments, backoff=Backoff(initial=600)) as tasks,
        serve(page, port=0) as server,
    ):
        for number in range(5):
            tasks.submit((HOSTILE, number), fail, operation=HOSTILE).exception()
        options = ["--request-timeout", "10", "--max-examples", "10", "--seed", "1", "--no-color"]
        options += ["--header", f"Authorization: Bearer {TOKEN}"]
        address = f"{server.url}api/openapi.json"
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", address, *options],
            cwd=tmp_path,
            env={**os.environ, "NO_PROXY": "*", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "No issues found" in done.stdout
