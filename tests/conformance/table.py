"""Prints which dialect has which behaviour: ``python -m tests.conformance.table``.

It runs the suite and prints the results. The page in the docs has the same table, made of the
drivers' declarations; a test keeps the page in step.
"""

from __future__ import annotations

import importlib
import inspect
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from tests.conformance.conftest import DRIVERS

MODULES = (
    "test_ancestor_cases",
    "test_ancestor_rules",
    "test_overlapping_names",
    "test_ancestor_faults",
    "test_busy_names",
    "test_executors",
    "test_retries",
    "test_stale_listings",
    "test_start_policies",
    "test_listing",
    "test_open_and_closed",
)
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "explanation" / "conformance.md"
CODE = (
    "wait_empty",
    "wait_free",
    "wait_idle",
    "next_retry_at",
    "keep_ends",
    "reset_after",
    "if_busy",
    "ANY",
    "None",
)
"""Names of code that occur in titles."""
MARKS = "<!-- made by make conformance -->\n", "<!-- end of what was made -->\n"


def behaviours() -> dict[str, str]:
    """Return the titles of the behaviours in the order of the list, by the names of their tests."""
    found: dict[str, str] = {}
    for module in MODULES:
        tests = importlib.import_module(f"tests.conformance.{module}")
        for name, value in vars(tests).items():
            if name.startswith("test_") and inspect.isfunction(value):
                number, _, words = name.removeprefix("test_").partition("_")
                if not re.fullmatch(r"[A-Z]\d\d", number):
                    number, words = "", name.removeprefix("test_")
                found[name] = f"{number} | {title(words)}"
    return found


def title(words: str) -> str:
    """Return the title of a behaviour: its *words*, with the names of code as they are."""
    found = re.sub(r"^(with(out)? backoff) ", r"\1, ", words.replace("_", " "))
    for name in CODE:
        found = found.replace(name.replace("_", " "), f"`{name}`")
    return found


def number_of(test: str) -> str:
    """Return the number of a behaviour in the list; its first word if it has none."""
    return test.split("_")[1]


def declared() -> dict[tuple[str, str], str]:
    """Return the declaration of the driver, for each test and dialect."""
    return {
        (test, dialect): f"no: {driver.departures[number_of(test)]}"
        if number_of(test) in driver.departures
        else "yes"
        for test in behaviours()
        for dialect, driver in DRIVERS.items()
    }


def table(verdicts: Mapping[tuple[str, str], str]) -> str:
    """Return the table in Markdown, with the remarks below it."""
    dialects = list(DRIVERS)
    lines = [
        f"| # | behaviour | {' | '.join(dialects)} |",
        f"|---|---|{'---|' * len(dialects)}",
        *(
            f"| {title} | {' | '.join(verdicts[test, dialect] for dialect in dialects)} |"
            for test, title in behaviours().items()
        ),
        "",
        *(
            f"- {number} on {dialect}: {remark}."
            for dialect, driver in DRIVERS.items()
            for number, remark in driver.remarks.items()
        ),
    ]
    return "\n".join(lines)


class Results:
    """Collects the result of each test, as a plugin of pytest."""

    def __init__(self) -> None:
        self.verdicts: dict[tuple[str, str], str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        found = re.search(r"::(test_\w+)\[(\w+)]", report.nodeid)
        if found is None or (report.when != "call" and report.passed):
            return
        if report.skipped:
            verdict = "no: " + str(report.longrepr[2]).partition(": ")[2].partition(": ")[2]
        else:
            verdict = "yes" if report.passed else "FAILED"
        self.verdicts[found[1], found[2]] = verdict


def page() -> str:
    """Return the page in the docs, with the table as the drivers declare it."""
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{table(declared())}\n\n{MARKS[1]}{after}"


def main() -> int:
    results = Results()
    code = pytest.main(["-q", "--no-header", "-p", "no:randomly", "tests/conformance"], [results])
    print(table(results.verdicts))
    PAGE.write_text(page())
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
