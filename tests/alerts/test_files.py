"""The rules and the dashboard use metrics and labels that exist, and have the right form."""

import re

import pytest

from tests.alerts import files
from tests.alerts.metrics import exposed
from tests.alerts.promql import Use, faults, uses
from tests.docs.pages import PAGES, ROOT

KNOWN = exposed()
PAGE = ROOT / "docs" / "how-to" / "alerts.md"


def by_name(rule: files.Rule) -> str:
    return rule.name


def test_an_expression_is_read() -> None:
    text = 'a{x="1", y=~"$z|"} > 0 unless on (p, q) sum by (r) (rate(b[10m]) / c) and d offset 5m'
    assert uses(text) == [
        Use("a", ("x", "y")),
        Use("b", ()),
        Use("c", ()),
        Use("d", ()),
        Use("", ("p", "q"), ("a", "b", "c", "d")),
        Use("", ("r",), ("b", "c")),
    ]


@pytest.mark.parametrize("text", ['{job="x"}', "sum(a) by (x)", "sum by (x) (a", "a & b"])
def test_what_cannot_be_checked_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        uses(text)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ("namedtasks_names_fail > 0", "no metric namedtasks_names_fail"),
        ("rate(namedtasks_runs_started[5m])", "no metric namedtasks_runs_started"),
        (
            'namedtasks_names_failing{operation="mount"}',
            "no label operation of namedtasks_names_failing",
        ),
        ("sum by (name) (namedtasks_names_failing)", "no label name of namedtasks_names_failing"),
        (
            "up and on (map, task) namedtasks_names_failing",
            "no label task of up, namedtasks_names_failing",
        ),
    ],
)
def test_names_that_do_not_exist_are_found(wrong: str, fault: str) -> None:
    assert faults(wrong, KNOWN) == [fault]


@pytest.mark.parametrize("rule", files.rules(), ids=by_name)
def test_a_rule_uses_metrics_and_labels_that_exist(rule: files.Rule) -> None:
    assert faults(rule.expression, KNOWN) == []


@pytest.mark.parametrize(("title", "expression"), list(files.panels()))
def test_a_panel_uses_metrics_and_labels_that_exist(title: str, expression: str) -> None:
    assert faults(expression, KNOWN) == []


def test_the_queries_on_the_pages_use_metrics_and_labels_that_exist() -> None:
    for page in PAGES:
        for block in re.findall(
            r"```promql\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL
        ):
            assert faults(block, KNOWN) == [], f"{page.name}: {block}"


@pytest.mark.parametrize(("name", "selector", "label"), list(files.variables()))
def test_a_variable_lists_a_label_that_exists(name: str, selector: str, label: str) -> None:
    assert name == label
    assert faults(selector, KNOWN) == []
    assert label in KNOWN[uses(selector)[0].metric]


@pytest.mark.parametrize("rule", files.rules(), ids=by_name)
def test_a_restart_of_prometheus_does_not_report_the_end_of_an_alert(rule: files.Rule) -> None:
    """It does if `for` lies between 2 and 10 minutes: `test_prometheus.py` shows it."""
    wait = files.seconds(rule.wait)
    assert wait <= 120 or wait >= 600


@pytest.mark.parametrize("rule", files.rules(), ids=by_name)
def test_a_rule_never_looks_at_one_scrape_alone(rule: files.Rule) -> None:
    """As a failed scrape leaves nothing to see: each metric stands under a range."""
    tokens = re.sub(r"\{[^}]*\}", "", rule.expression)
    for use in uses(rule.expression):
        if use.metric:
            assert f"{use.metric}[" in tokens


@pytest.mark.parametrize("rule", files.rules(), ids=by_name)
def test_a_rule_says_how_grave_it_is_and_where_the_runbook_is(rule: files.Rule) -> None:
    assert rule.severity in ("warning", "critical")
    assert list(rule.annotations) == ["summary", "description", "runbook_url"]
    page, _, anchor = rule.annotations["runbook_url"].partition("#")
    assert page == "https://namedtasks.example/how-to/alerts.html"
    assert anchor == rule.name.lower()


def test_each_alert_has_its_section_in_the_runbook() -> None:
    sections = re.findall(r"^### (Namedtasks\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [rule.name for rule in files.rules()] == sections


@pytest.mark.parametrize("rule", files.rules(), ids=by_name)
def test_each_alert_has_tests_in_which_it_fires_and_does_not(rule: files.Rule) -> None:
    tests = (files.FILES / "rules_test.yml").read_text(encoding="utf-8")
    expected = re.findall(rf"alertname: {rule.name}\n +eval_time: \w+\n +exp_alerts:(.*)\n", tests)
    assert sorted(set(expected)) == ["", " []"]


def test_the_panels_do_not_overlap() -> None:
    """Grafana would move them."""
    taken: set[tuple[int, int]] = set()
    for panel in files.DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + line)
            for column in range(place["w"])
            for line in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in files.DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_the_dashboard_asks_for_its_source_of_data_when_it_is_imported() -> None:
    inputs = [entry["name"] for entry in files.DASHBOARD["__inputs"]]
    assert inputs == ["DS_PROMETHEUS"]
    text = (files.FILES / "dashboard.json").read_text(encoding="utf-8")
    assert set(re.findall(r'"uid": ("[^"]*"|null)', text)) == {'"${DS_PROMETHEUS}"', "null"}
    assert files.DASHBOARD["id"] is None
    for panel in files.DASHBOARD["panels"]:
        assert panel["type"] == "row" or panel["description"]
