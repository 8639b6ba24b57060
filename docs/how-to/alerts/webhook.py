"""A receiver of Alertmanager's webhook, to copy: it prints each change of an alert, once.

    python webhook.py 8099

Alertmanager sends what it knows about a group of alerts, and sends it again: when the group
changes, after ``repeat_interval``, and when an answer was lost. So a receiver compares each alert
with what it has seen before. It reads the status of each alert, not that of the message: a message
whose own status is "firing" may report the end of an alert.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

MOST_BYTES = 4_000_000
Alert = dict[str, Any]


def show(alert: Alert) -> None:
    """Print one line about an alert that began or ended."""
    labels = alert["labels"]
    where = " ".join(f"{label}={labels[label]}" for label in ("map", "instance") if label in labels)
    print(alert["status"], labels["alertname"], where, flush=True)


class Receiver(ThreadingHTTPServer):
    """A server that calls *on_change* once for each beginning and each end of an alert.

    The address is that of this machine alone: Alertmanager runs here, or a proxy that asks for a
    password.
    """

    daemon_threads = True

    def __init__(self, port: int, on_change: Callable[[Alert], object] = show) -> None:
        """Listen on *port* of 127.0.0.1; 0 is any port that is free."""
        super().__init__(("127.0.0.1", port), Handler)
        self._on_change = on_change
        self._seen: dict[str, tuple[str, str]] = {}
        self._lock = Lock()

    def take(self, message: dict[str, Any]) -> None:
        """Report the alerts of *message* that have changed."""
        with self._lock:
            for alert in message["alerts"]:
                change = (alert["status"], alert["startsAt"])
                if self._seen.get(alert["fingerprint"]) != change:
                    self._on_change(alert)
                    self._seen[alert["fingerprint"]] = change


class Handler(BaseHTTPRequestHandler):
    """Answers 200 when the message was taken, and so is not sent again."""

    timeout = 10

    def do_POST(self) -> None:
        """Take one message."""
        assert isinstance(self.server, Receiver)
        try:
            size = int(self.headers["Content-Length"])
            if not 0 < size <= MOST_BYTES:
                raise ValueError(f"a message of {size} bytes")
            message = json.loads(self.rfile.read(size))
            self.server.take(message)
        except (KeyError, TypeError, ValueError) as error:
            self.send_error(400, repr(error))  # it would be no better a second time
            return
        except Exception as error:
            self.send_error(500, repr(error))  # Alertmanager tries again
            return
        self.send_response(200)
        self.end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Do not log requests; errors are logged."""


if __name__ == "__main__":
    with Receiver(int(sys.argv[1])) as receiver:
        receiver.serve_forever()
