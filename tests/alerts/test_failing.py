"""The program of the how-to whose tasks fail: it has what two of the alerts look for."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys

from tests.alerts.files import FILES
from tests.docs.pages import ROOT


def test_one_name_keeps_failing_and_one_is_given_up() -> None:
    with subprocess.Popen(
        [sys.executable, str(FILES / "failing.py"), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stderr is not None
            address = program.stdout.readline().strip().removeprefix("serves http://")
            for line in program.stderr:
                if "failures in a row: 3" in line:  # the other name was given up before
                    break
            connection = http.client.HTTPConnection(address.removesuffix("/metrics"), timeout=60)
            connection.request("GET", "/metrics")
            metrics = connection.getresponse().read().decode()
            connection.close()
        finally:
            program.kill()
    assert 'namedtasks_names_failing{map="volumes"} 1.0' in metrics
    assert 'namedtasks_names_given_up{map="volumes"} 1.0' in metrics
