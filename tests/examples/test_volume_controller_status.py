"""The status page of the volume controller, while it runs."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from volume_controller.__main__ import parse
from volume_controller.config import InputError
from volume_controller.status import Address

from tests.examples.test_volume_controller_end_to_end import (
    COMMAND,
    DESIRED,
    ENVIRONMENT,
    make_unmountable,
)

CURE = "install the test tools: make test"


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A day that does not end by itself: one mount always fails."""
    desired = tmp_path / "desired.toml"
    desired.write_text(DESIRED, encoding="utf-8")
    work = tmp_path / "work"
    make_unmountable(work)
    return [str(desired), "--backend", "dir", "--work", str(work)]


def get(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def test_the_page_shows_the_volumes_while_the_controller_runs(arguments: list[str]) -> None:
    """It ends with the controller."""
    pytest.importorskip("starlette", reason=CURE)
    pytest.importorskip("hypercorn", reason=CURE)
    command = [*COMMAND, *arguments, "--json", "--status", "127.0.0.1:0"]
    url = ""
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "status":
                url = event["url"]
            elif event.get("volume") == "a" and "FAILED" in event.get("text", ""):
                break
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        overview = get(f"{url}api/")
        assert "volume controller" == overview["title"]
        assert ["volumes"] == [one["map"] for one in overview["maps"]]
        assert 6 == overview["maps"][0]["limit"]
        names = get(f"{url}api/names")["names"]
        (mount,) = [one for one in names if one["name"].startswith("('a'") and one["failures"]]
        assert "mount" == mount["operation"]
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert 128 + signal.SIGTERM == process.returncode
    with pytest.raises(OSError, match="refused"):
        get(f"{url}api/")


def test_without_the_packages_the_error_says_what_to_install(arguments: list[str]) -> None:
    """The controller begins nothing."""
    code = f"""
import sys
sys.modules["starlette"] = None
from volume_controller.__main__ import main
sys.exit(main({[*arguments, "--status", "127.0.0.1:0"]!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    message = (
        "volume_controller: --status needs packages that are missing: "
        "python -m pip install 'namedtasks[status]' hypercorn\n"
    )
    assert (2, "", message) == (done.returncode, done.stdout, done.stderr)


def test_a_taken_address_is_bad_input(arguments: list[str]) -> None:
    pytest.importorskip("starlette", reason=CURE)
    pytest.importorskip("hypercorn", reason=CURE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, *arguments, "--status", f"127.0.0.1:{port}"],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (2, "") == (done.returncode, done.stdout)
    begin = f"volume_controller: no status page at 127.0.0.1 port {port}: "
    assert done.stderr.startswith(begin)
    assert "in use" in done.stderr


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: Address) -> None:
    assert address == parse(["--status", text]).status


@pytest.mark.parametrize("text", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:65536", "h:x"])
def test_anything_else_is_bad_input(text: str) -> None:
    with pytest.raises(InputError, match=r"^--status must be a host and a port such as "):
        parse(["--status", text])


def test_there_is_no_page_by_default() -> None:
    assert parse([]).status is None
