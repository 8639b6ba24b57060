"""The files of `docs/how-to/alerts`, checked by promtool and amtool."""

import pathlib
import shutil
import subprocess

import pytest

from tests.alerts import files


def run(*command: str, package: str = "prometheus") -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}: apt-get install {package}")
    done = subprocess.run(command, cwd=files.FILES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_have_no_fault() -> None:
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", "rules.yml")


def test_the_rules_fire_when_they_should() -> None:
    run("promtool", "test", "rules", "rules_test.yml")


def test_the_configuration_of_prometheus_has_no_fault() -> None:
    run("promtool", "check", "config", "prometheus.yml")


def test_the_configuration_of_alertmanager_has_no_fault() -> None:
    run("amtool", "check-config", "alertmanager.yml", package="prometheus-alertmanager")


def test_the_expressions_of_the_dashboard_have_no_fault(tmp_path: pathlib.Path) -> None:
    lines = ["groups:", "  - name: dashboard", "    rules:"]
    for number, (_, expression) in enumerate(files.panels()):
        lines.append(f"      - record: panel:{number}")
        lines.append(f"        expr: '{files.with_all_chosen(expression)}'")
    rules = tmp_path / "rules.yml"
    rules.write_text("\n".join(lines), encoding="utf-8")
    run("promtool", "check", "rules", str(rules))
