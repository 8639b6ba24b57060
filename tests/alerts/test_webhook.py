"""The receiver of the how-to: each change of an alert once, and no message lost."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.alerts.files import FILES
from tests.alerts.servers import Receiver


def message(status: str, begin: str = "2026-12-01T08:00:00Z") -> dict[str, Any]:
    labels = {"alertname": "NamedtasksMapStuck", "map": "volumes", "instance": "a"}
    alert = {"status": status, "labels": labels, "startsAt": begin, "fingerprint": "7f"}
    return {"status": "firing", "alerts": [alert]}


def post(address: str, body: bytes, method: str = "POST") -> int:
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, "/", body)
        return connection.getresponse().status
    finally:
        connection.close()


def send(receiver: Receiver, *args: str) -> int:
    return post(receiver.address, json.dumps(message(*args)).encode())


def changes(receiver: Receiver) -> list[str]:
    return [receiver.changes.get()["status"] for _ in range(receiver.changes.qsize())]


def test_a_change_is_reported_once_however_often_it_is_sent(receiver: Receiver) -> None:
    for args in (["firing"], ["firing"], ["resolved"], ["resolved"]):
        assert send(receiver, *args) == 200
    assert changes(receiver) == ["firing", "resolved"]


def test_an_alert_that_fires_again_is_a_change(receiver: Receiver) -> None:
    """Also if its end was never reported: it began at another time."""
    assert send(receiver, "firing") == 200
    assert send(receiver, "firing", "2026-12-01T09:00:00Z") == 200
    assert changes(receiver) == ["firing", "firing"]


def test_a_message_that_could_not_be_handled_is_asked_for_again(receiver: Receiver) -> None:
    receiver.refusals.append(OSError("the disk is full"))
    assert send(receiver, "firing") == 500
    assert send(receiver, "firing") == 200
    assert changes(receiver) == ["firing"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"alerts": [{}]}', b'{"alerts": 1}', b"\xff", b'"alerts"']
)
def test_what_is_no_message_is_refused(body: bytes, receiver: Receiver) -> None:
    assert post(receiver.address, body) == 400
    assert changes(receiver) == []


def test_only_messages_are_answered(receiver: Receiver) -> None:
    assert post(receiver.address, b"", "GET") == 501


def test_the_program_prints_a_line_for_each_change() -> None:
    probe = (
        "import runpy, sys\n"
        "webhook = runpy.run_path(sys.argv[1])\n"
        "with webhook['Receiver'](0) as receiver:\n"
        "    print(receiver.server_address[1], flush=True)\n"
        "    receiver.serve_forever()\n"
    )
    command = [sys.executable, "-c", probe, str(FILES / "webhook.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            port = program.stdout.readline().strip()
            body = json.dumps(message("firing")).encode()
            assert post(f"127.0.0.1:{port}", body) == 200
            shown = program.stdout.readline()
        finally:
            program.kill()
    assert shown == "firing NamedtasksMapStuck map=volumes instance=a\n"
