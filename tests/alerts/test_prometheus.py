"""Alerts in Prometheus 2.42 when a scrape fails, and when Prometheus restarts.

`docs/explanation/alerts.md` says so, and the rules in `docs/how-to/alerts` are written for it.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.alerts.servers import Receiver, Server, Workshop, ask, until

pytestmark = pytest.mark.alerts

RULES = """
groups:
  - name: test
    rules:
"""
ALERTMANAGER = """
route:
  receiver: test
  group_by: [alertname]
  group_wait: 0s
  group_interval: 1s
receivers:
  - name: test
    webhook_configs: [{{url: "http://{}/"}}]
"""
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs: [{{job_name: test, static_configs: [{{targets: [{}]}}]}}]
alerting: {{alertmanagers: [{{static_configs: [{{targets: [{}]}}]}}]}}
"""


class Target:
    """A target with one gauge, of which scrapes fail while `broken` is true."""

    def __init__(self) -> None:
        target = self
        self.broken = False

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(500 if target.broken else 200)
                self.end_headers()
                self.wfile.write(b"" if target.broken else b"failing 1\n")

            def log_request(self, code: object = "-", size: object = "-") -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def target() -> Generator[Target]:
    target = Target()
    with target.server:
        thread = threading.Thread(target=target.server.serve_forever)
        thread.start()
        yield target
        target.server.shutdown()
        thread.join()


def alerts(server: Server) -> dict[str, Any]:
    found = ask(server.address, "/api/v1/alerts")["data"]["alerts"]
    return {alert["labels"]["alertname"]: alert for alert in found}


def test_a_failed_scrape_restarts_the_wait_of_an_alert_unless_it_looks_at_several(
    shop: Workshop, target: Target
) -> None:
    shop.write(
        "rules.yml",
        f"{RULES}"
        "    - {alert: Plain, expr: failing > 0, for: 1h}\n"
        "    - {alert: Several, expr: 'min_over_time(failing[10m]) > 0', for: 1h}\n",
    )
    server = shop.prometheus(CONFIG.format(f'"{target.address}"', ""))
    until(lambda: len(alerts(server)) == 2, "both wait", looks_at=server)
    before = alerts(server)
    target.broken = True
    until(lambda: "Plain" not in alerts(server), "the scrape has failed", looks_at=server)
    target.broken = False
    until(lambda: len(alerts(server)) == 2, "both wait again", looks_at=server)
    after = alerts(server)
    assert after["Several"]["activeAt"] == before["Several"]["activeAt"]
    assert after["Plain"]["activeAt"] > before["Plain"]["activeAt"]


def test_a_restart_ends_an_alert_whose_wait_is_neither_short_nor_long(
    shop: Workshop, receiver: Receiver
) -> None:
    """Alertmanager keeps an alert for 4 resends, and Prometheus restores it from a `for` of the
    grace period on: by default after 4 and from 10 minutes, here after 8 and from 14 seconds.
    """
    shop.write(
        "rules.yml",
        f"{RULES}"
        "    - {alert: Between, expr: vector(1), for: 13s}\n"
        "    - {alert: Long, expr: vector(1), for: 14s}\n",
    )
    manager = shop.alertmanager(ALERTMANAGER.format(receiver.address))

    def start() -> Server:
        return shop.prometheus(
            CONFIG.format("", f'"{manager.address}"'),
            "--rules.alert.resend-delay=2s",
            "--rules.alert.for-grace-period=14s",
        )

    server = start()
    changes = [receiver.changes.get(timeout=120) for _ in range(2)]
    assert {change["status"] for change in changes} == {"firing"}
    before = alerts(server)
    server.kill()
    server = start()
    until(
        lambda: alerts(server).get("Long", {}).get("state") == "firing",
        "the alert was restored",
        looks_at=server,
    )
    after = alerts(server)
    assert after["Long"]["activeAt"][:19] == before["Long"]["activeAt"][:19]
    assert after["Between"]["activeAt"] > before["Between"]["activeAt"]
    ends: list[Any] = []
    while not ends or ends[-1]["labels"]["alertname"] != "Between":
        ends.append(receiver.changes.get(timeout=120))
    assert ends[-1]["status"] == "resolved"


def test_a_pending_alert_waits_again_after_a_restart(shop: Workshop) -> None:
    """Also one whose `for` is as long as the grace period: it would be restored if it fired."""
    shop.write("rules.yml", f"{RULES}    - {{alert: Waits, expr: vector(1), for: 5s}}\n")

    def start() -> Server:
        return shop.prometheus(CONFIG.format("", ""), "--rules.alert.for-grace-period=5s")

    server = start()
    until(lambda: "Waits" in alerts(server), "it waits", looks_at=server)
    before = alerts(server)["Waits"]
    assert before["state"] == "pending"
    server.kill()
    server = start()
    until(
        lambda: alerts(server).get("Waits", {}).get("state") == "firing",
        "it fires",
        looks_at=server,
    )
    assert alerts(server)["Waits"]["activeAt"] > before["activeAt"]


def test_alerts_are_reported_as_resolved_when_prometheus_is_gone(
    shop: Workshop, receiver: Receiver
) -> None:
    """After 4 resends, because nothing evaluates them."""
    shop.write("rules.yml", f"{RULES}    - {{alert: Always, expr: vector(1)}}\n")
    manager = shop.alertmanager(ALERTMANAGER.format(receiver.address))
    options = ["--rules.alert.resend-delay=1s"]
    server = shop.prometheus(CONFIG.format("", f'"{manager.address}"'), *options)
    assert receiver.changes.get(timeout=120)["status"] == "firing"
    server.kill()
    assert receiver.changes.get(timeout=120)["status"] == "resolved"


def test_a_restart_ends_an_alert_that_is_only_kept_firing(
    shop: Workshop, target: Target, receiver: Receiver
) -> None:
    """`keep_firing_for` is not restored."""
    shop.write(
        "rules.yml", f"{RULES}    - {{alert: Kept, expr: failing > 0, keep_firing_for: 1h}}\n"
    )
    manager = shop.alertmanager(ALERTMANAGER.format(receiver.address))

    def start() -> Server:
        return shop.prometheus(
            CONFIG.format(f'"{target.address}"', f'"{manager.address}"'),
            "--rules.alert.resend-delay=1s",
        )

    server = start()
    assert receiver.changes.get(timeout=120)["status"] == "firing"
    target.broken = True
    until(lambda: "keepFiringSince" in alerts(server)["Kept"], "it is kept", looks_at=server)
    server.kill()
    server = start()
    assert receiver.changes.get(timeout=120)["status"] == "resolved"
    assert alerts(server) == {}
