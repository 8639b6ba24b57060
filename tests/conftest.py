"""What all tests share."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator

import pytest
from hypothesis import Phase, settings

settings.register_profile(
    "mutation", phases=[phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)]
)
"""``make mutation``: that a mutant fails is all there is to know."""


ONLY_IF_ASKED = {
    "alerts": "takes three minutes: run make test-alerts",
    "browser": "needs Chromium, playwright and schemathesis: run make test-browser",
    "dask": "needs Dask, and takes long: run make dask",
}
"""Markers of tests that run only with ``-m``, each with the reason of the skip."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that were not asked for."""
    for marker, reason in ONLY_IF_ASKED.items():
        if marker in config.option.markexpr:
            continue
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def sigint_is_heard() -> Generator[None]:
    """Ctrl-C as on a terminal: who starts the tests in the background has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="module")
def garbage_collections_are_short() -> None:
    """Let a garbage collection skip what the tests before have loaded.

    Many tests collect garbage, each time among all objects of pytest, Hypothesis
    and the frameworks. That took two thirds of the time of tests/aio: 49 s with
    it, 17 s without.
    """
    gc.collect()
    gc.freeze()
