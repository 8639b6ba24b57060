"""Alerts arrive, from a failing task to the message that it has recovered.

Each minute of the rules and of alertmanager.yml is a second here.
"""

from __future__ import annotations

import functools
import re
import time
from typing import Any
from urllib.parse import quote

import attrs
import pytest

from tests.alerts import files
from tests.alerts.servers import Process, Receiver, Server, Workshop, ask, until
from tests.docs.pages import DIALECTS

pytestmark = pytest.mark.alerts


@attrs.frozen
class Stage:
    """Prometheus and Alertmanager with our files, programs, and the receiver."""

    prometheus: Server
    alertmanager: Server
    receiver: Receiver
    programs: dict[str, Process]

    def alerts(self) -> dict[tuple[str, str], str]:
        """Return the state of each alert in Prometheus, by name and map."""
        alerts = ask(self.prometheus.address, "/api/v1/alerts")["data"]["alerts"]
        return {key(alert): alert["state"] for alert in alerts}

    def firing(self) -> set[tuple[str, str]]:
        """Return the alerts that fire."""
        return {alert for alert, state in self.alerts().items() if state == "firing"}

    def query(self, expression: str) -> list[Any]:
        """Return the result of an expression of PromQL."""
        path = f"/api/v1/query?query={quote(expression, safe='')}"
        result: list[Any] = ask(self.prometheus.address, path)["data"]["result"]
        return result


def key(alert: dict[str, Any]) -> tuple[str, str]:
    labels = alert["labels"]
    return labels["alertname"], labels.get("map", "")


def set_stage(shop: Workshop, receiver: Receiver, *programs: tuple[str, ...]) -> Stage:
    """Start all with the files of the docs, with other addresses and shorter times."""
    started = {arguments[-1]: shop.program(arguments[-1], *arguments) for arguments in programs}
    alertmanager = shop.alertmanager(
        replaced(
            "alertmanager.yml",
            ("127.0.0.1:8099", receiver.address),
            ("group_wait: 30s", "group_wait: 500ms"),
            ("group_interval: 5m", "group_interval: 5s"),
        )
    )
    shop.write("rules.yml", fast_rules())
    targets = ", ".join(f'"{address}"' for _, address in started.values())
    prometheus = shop.prometheus(
        replaced(
            "prometheus.yml",
            ('"127.0.0.1:8000"', targets),
            ("127.0.0.1:9093", alertmanager.address),
            ("scrape_interval: 15s", "scrape_interval: 1s"),
            ("evaluation_interval: 15s", "evaluation_interval: 1s"),
        )
    )
    processes = {name: process for name, (process, _) in started.items()}
    return Stage(prometheus, alertmanager, receiver, processes)


def replaced(name: str, *changes: tuple[str, str]) -> str:
    text = (files.FILES / name).read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def fast_rules() -> str:
    """Return rules.yml with a second for each minute of `for`, and two for each of a range.

    A range of two seconds would be empty whenever a busy machine scrapes late.
    """
    text = re.sub(r"for: (\d+)m\b", r"for: \1s", files.RULES)
    return re.sub(r"\[(\d+)m\]", lambda found: f"[{2 * int(found[1])}s]", text)


def test_an_alert_travels_from_the_failing_task_to_the_receiver_and_back(
    shop: Workshop, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    """In each dialect. The times are printed, not asserted."""
    stage = set_stage(shop, receiver, *(("tests.alerts.program", dialect) for dialect in DIALECTS))
    alerts = {("NamedtasksNameKeepsFailing", dialect) for dialect in DIALECTS}
    times: list[tuple[float, str]] = []

    def note(what: str) -> None:
        times.append((time.monotonic(), what))

    def wait_until_alerts(what: str, *states: str | None) -> None:
        until(lambda: {stage.alerts().get(alert) for alert in alerts} <= {*states}, what)
        note(what)

    scraped = "count(count_over_time(namedtasks_names_failing[1m]) > 2) == 3"
    until(lambda: stage.query(scraped), "the programs are scraped", looks_at=stage.prometheus)
    assert stage.alerts() == {}
    tell(stage, "fail")
    note("the tasks begin to fail")
    wait_until_alerts("Prometheus has the alerts as pending", "pending", "firing")
    wait_until_alerts("Prometheus has the alerts as firing", "firing")
    wait_for(stage, alerts, "firing")
    note("the receiver has all of them")
    tell(stage, "recover")
    note("the tasks begin to succeed")
    wait_until_alerts("Prometheus has the alerts no more", None)
    wait_for(stage, alerts, "resolved")
    note("the receiver has them as resolved")
    with capsys.disabled():
        print("\n\nThe journey of an alert, with a second for each minute:")
        for moment, what in times:
            print(f"{moment - times[0][0]:7.1f} s  {what}")


def tell(stage: Stage, command: str) -> None:
    for process in stage.programs.values():
        process.say(command)


def wait_for(stage: Stage, alerts: set[tuple[str, str]], status: str) -> None:
    """Wait until the last that the receiver was told of all *alerts* is *status*."""
    last: dict[tuple[str, str], str] = {}
    while {alert for alert, told in last.items() if told == status} < alerts:
        change = stage.receiver.changes.get(timeout=120)
        if key(change) in alerts:
            last[key(change)] = change["status"]


def test_each_trouble_has_its_alert_until_it_is_over(shop: Workshop, receiver: Receiver) -> None:
    stage = set_stage(shop, receiver, ("tests.alerts.troubles",))
    expected = {
        ("NamedtasksNameKeepsFailing", "failing"),
        ("NamedtasksNameGivenUp", "refusing"),
        ("NamedtasksMapStuck", "stuck"),
        ("NamedtasksStartsRefused", "refusing"),
        ("NamedtasksRunOverdue", "overdue"),
    }
    wait_for(stage, expected, "firing")
    until(lambda: stage.firing() == expected, "these alerts fire, and no others")
    for title, expression in files.panels():  # there is something to see in each panel
        query = files.with_all_chosen(expression)
        until(functools.partial(stage.query, query), f"something to see: {title}")
    stage.programs["tests.alerts.troubles"].say("end")
    wait_for(stage, expected, "resolved")
    until(lambda: not stage.alerts(), "all alerts have ended")


def test_a_closed_map_and_a_dead_program_end_their_alerts(
    shop: Workshop, receiver: Receiver
) -> None:
    """Their series are gone, so "resolved" does not mean "works again"."""
    stage = set_stage(
        shop, receiver, ("tests.alerts.program", "asyncio"), ("tests.alerts.program", "threads")
    )
    alerts = {("NamedtasksNameKeepsFailing", name) for name in ("asyncio", "threads")}
    tell(stage, "fail")
    wait_for(stage, alerts, "firing")
    stage.programs["asyncio"].say("close")
    wait_for(stage, {("NamedtasksNameKeepsFailing", "asyncio")}, "resolved")
    until(lambda: stage.query('up{job="namedtasks"} == 1'), "the program is still there")
    stage.programs["threads"].kill()
    wait_for(stage, {("NamedtasksTargetDown", "")}, "firing")
    until(lambda: not alerts & stage.alerts().keys(), "the alert of the dead program has ended")
