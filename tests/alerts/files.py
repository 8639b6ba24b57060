"""The rules and the dashboard of `docs/how-to/alerts`, and the metrics that there really are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import attrs

from tests.docs.pages import ROOT

FILES = ROOT / "docs" / "how-to" / "alerts"
RULES = (FILES / "rules.yml").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))

_RULE = re.compile(
    r"""\ {6}-\ alert:\ (?P<name>\w+)\n
    (?:\ +\#[^\n]*\n)*
    \ {8}expr:\ \|\n(?P<expression>(?:\ {10}[^\n]+\n)+)
    \ {8}for:\ (?P<wait>\w+)\n
    \ {8}labels:\n\ {10}severity:\ (?P<severity>\w+)\n
    \ {8}annotations:\n(?P<annotations>(?:\ {10}\w+:[^\n]+\n)+)""",
    re.VERBOSE,
)
_ANNOTATION = re.compile(r'^\s+(\w+): "?(.+?)"?$', re.MULTILINE)


@attrs.frozen
class Rule:
    """A rule of rules.yml."""

    name: str
    expression: str
    wait: str
    severity: str
    annotations: dict[str, str]


def rules() -> list[Rule]:
    """Return the rules. They are read without a library, as all are written in one form."""
    found = [
        Rule(
            name=rule["name"],
            expression=" ".join(rule["expression"].split()),
            wait=rule["wait"],
            severity=rule["severity"],
            annotations=dict(_ANNOTATION.findall(rule["annotations"])),
        )
        for rule in _RULE.finditer(RULES)
    ]
    assert len(found) == RULES.count("- alert:"), "a rule is written in another form"
    return found


def seconds(duration: str) -> int:
    """Return the seconds of a duration in one unit, such as 10m."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[duration[-1]]


def in_seconds(text: str) -> str:
    """Return the *text* of rules.yml with a second for each minute in ranges and `for`."""
    return re.sub(r"(\[|for: )(\d+)m\b", r"\1\2s", text)


def panels() -> Iterator[tuple[str, str]]:
    """Return title and expression of each query of the dashboard."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def variables() -> Iterator[tuple[str, str, str]]:
    """Return name, selector and label of each variable of the dashboard."""
    for variable in DASHBOARD["templating"]["list"]:
        query = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert query is not None
        yield variable["name"], query[1], query[2]


def with_all_chosen(expression: str) -> str:
    """Return an expression of the dashboard as Prometheus gets it, if all values are chosen."""
    for name, _, _ in variables():
        expression = expression.replace(f"${name}", ".*")
    return expression.replace("$__rate_interval", "1m")
