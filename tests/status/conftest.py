"""What the tests of the status page share."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

NEEDED = ("starlette", "httpx", "uvicorn", "hypercorn")

# All of them are among the test tools: make test
collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ["test_*.py"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that take a browser or many requests, unless they were asked for."""
    if "browser" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("browser"):
            reason = "needs Chromium, playwright and schemathesis: run make test-browser"
            item.add_marker(pytest.mark.skip(reason=reason))
