"""Alertmanager 0.25, with alerts that end and receivers that fail.

`docs/explanation/alerts.md` says so. The alerts come from the tests, as Prometheus would send them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.alerts.servers import Receiver, Server, Workshop, ask, now

pytestmark = pytest.mark.alerts

CONFIG = """
route:
  receiver: test
  group_by: [group]
  group_wait: 0s
  group_interval: 1s
receivers:
  - name: test
    webhook_configs: [{{url: "http://{}/"}}]
inhibit_rules:
  - source_matchers: [alertname = Down]
    target_matchers: [alertname != Down]
    equal: [instance]
"""


def send(server: Server, name: str, status: str = "firing", **labels: str) -> None:
    """Send an alert that began ten seconds ago, and ends now or in an hour."""
    alert = {
        "labels": {"alertname": name, "group": "one", **labels},
        "startsAt": now(-10),
        "endsAt": now(3600 if status == "firing" else -0.001),
    }
    ask(server.address, "/api/v2/alerts", [alert])


def next_of(receiver: Receiver) -> tuple[str, dict[str, str]]:
    """Return the status of the next message, and that of each of its alerts."""
    message = receiver.messages.get(timeout=120)
    alerts = {alert["labels"]["alertname"]: alert["status"] for alert in message["alerts"]}
    return message["status"], alerts


@pytest.fixture
def server(shop: Workshop, receiver: Receiver) -> Server:
    return shop.alertmanager(CONFIG.format(receiver.address))


def test_an_alert_that_came_and_went_between_two_messages_is_reported_as_resolved(
    server: Server, receiver: Receiver
) -> None:
    """The message is "firing", because another alert of the group is: read that of each alert."""
    send(server, "Other")
    assert next_of(receiver) == ("firing", {"Other": "firing"})
    send(server, "Short", "resolved")
    assert next_of(receiver) == ("firing", {"Other": "firing", "Short": "resolved"})


def silence(server: Server, name: str) -> Callable[[], object]:
    matcher = {"name": "alertname", "value": name, "isRegex": False, "isEqual": True}
    texts = {"createdBy": "test", "comment": "test"}
    body = {"matchers": [matcher], "startsAt": now(), "endsAt": now(3600), **texts}
    number = ask(server.address, "/api/v2/silences", body)["silenceID"]
    return lambda: ask(server.address, f"/api/v2/silence/{number}", method="DELETE")


def inhibit(server: Server, name: str) -> Callable[[], object]:
    send(server, "Down", group="two", instance="a")
    return lambda: send(server, "Down", "resolved", group="two", instance="a")


@pytest.mark.parametrize("mute", [silence, inhibit])
def test_an_alert_that_ends_while_it_is_muted_is_never_reported_as_resolved(
    mute: Callable[[Server, str], Callable[[], object]], server: Server, receiver: Receiver
) -> None:
    send(server, "Muted", instance="a")
    assert next_of(receiver) == ("firing", {"Muted": "firing"})
    unmute = mute(server, "Muted")
    if mute is inhibit:
        assert next_of(receiver) == ("firing", {"Down": "firing"})
    send(server, "Muted", "resolved", instance="a")
    send(server, "Next")  # its message shows that the turn of the group has passed
    assert next_of(receiver) == ("firing", {"Next": "firing"})
    unmute()
    if mute is inhibit:
        assert next_of(receiver) == ("resolved", {"Down": "resolved"})
    send(server, "Last")
    assert next_of(receiver) == ("firing", {"Next": "firing", "Last": "firing"})


@pytest.mark.parametrize("mute", [silence, inhibit])
def test_an_alert_that_still_fires_is_reported_when_it_is_no_longer_muted(
    mute: Callable[[Server, str], Callable[[], object]], server: Server, receiver: Receiver
) -> None:
    unmute = mute(server, "Muted")
    if mute is inhibit:
        assert next_of(receiver) == ("firing", {"Down": "firing"})
    send(server, "Muted", instance="a")
    send(server, "Next")
    assert next_of(receiver) == ("firing", {"Next": "firing"})
    unmute()
    messages = [next_of(receiver)]
    if mute is inhibit:  # the end of the other alert, in the other group
        messages.append(next_of(receiver))
    assert ("firing", {"Muted": "firing", "Next": "firing"}) in messages


@pytest.mark.parametrize("error", [ValueError("400"), RuntimeError("500")])
@pytest.mark.parametrize("status", ["firing", "resolved"])
def test_a_message_that_the_receiver_refuses_is_sent_again(
    error: Exception, status: str, server: Server, receiver: Receiver
) -> None:
    """With 500 it is tried again soon, with 400 after `group_interval`."""
    if status == "resolved":
        send(server, "Alert")
        assert next_of(receiver) == ("firing", {"Alert": "firing"})
    receiver.refusals += [error, error]
    send(server, "Alert", status)
    assert next_of(receiver) == (status, {"Alert": status})
    assert receiver.refusals == []


def test_alertmanager_forgets_its_alerts_when_it_restarts_until_they_are_sent_again(
    shop: Workshop, server: Server, receiver: Receiver
) -> None:
    """After SIGKILL it has also forgotten what it has reported, so a message comes twice."""
    send(server, "Alert")
    assert next_of(receiver) == ("firing", {"Alert": "firing"})
    server.kill()
    server = shop.alertmanager(CONFIG.format(receiver.address))
    assert ask(server.address, "/api/v2/alerts") == []
    send(server, "Alert")
    assert next_of(receiver) == ("firing", {"Alert": "firing"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_alert_that_ends_during_a_restart_is_reported_as_resolved_unless_it_was_a_kill(
    number: signal.Signals, shop: Workshop, server: Server, receiver: Receiver
) -> None:
    """Alertmanager saves what it has reported when it ends, and every 15 minutes."""
    send(server, "Alert")
    assert next_of(receiver) == ("firing", {"Alert": "firing"})
    send(server, "Other")  # its message shows that the answer to the first one was noted
    assert next_of(receiver) == ("firing", {"Alert": "firing", "Other": "firing"})
    server.popen.send_signal(number)
    server.popen.wait()
    server = shop.alertmanager(CONFIG.format(receiver.address))
    send(server, "Alert", "resolved")
    if number == signal.SIGTERM:
        assert next_of(receiver) == ("resolved", {"Alert": "resolved"})
    send(server, "Next", group="two")
    assert next_of(receiver) == ("firing", {"Next": "firing"})
    assert receiver.messages.empty()


@pytest.mark.parametrize(("number", "kept"), [(signal.SIGTERM, 1), (signal.SIGKILL, 0)])
def test_a_silence_outlives_a_restart_unless_it_was_a_kill(
    number: signal.Signals, kept: int, shop: Workshop, server: Server, receiver: Receiver
) -> None:
    silence(server, "Alert")
    server.popen.send_signal(number)
    server.popen.wait()
    server = shop.alertmanager(CONFIG.format(receiver.address))
    assert len(ask(server.address, "/api/v2/silences")) == kept


def test_the_example_reports_each_change_once(server: Server, receiver: Receiver) -> None:
    send(server, "Alert")
    assert receiver.changes.get(timeout=120)["status"] == "firing"
    send(server, "Other")
    assert receiver.changes.get(timeout=120)["labels"]["alertname"] == "Other"
    send(server, "Alert", "resolved")
    change: Any = receiver.changes.get(timeout=120)
    assert (change["labels"]["alertname"], change["status"]) == ("Alert", "resolved")
