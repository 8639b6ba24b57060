"""Runs each behaviour against each shell."""

from __future__ import annotations

import pytest

from tests.conformance.asyncio_driver import AsyncioDriver
from tests.conformance.behaviour import Conform
from tests.conformance.driver import Driver
from tests.conformance.thread_driver import ThreadDriver
from tests.conformance.trio_driver import TrioDriver, TrioDriverWithoutWorkers

DRIVERS: dict[str, type[Driver]] = {
    "trio": TrioDriver,
    "threads": ThreadDriver,
    "asyncio": AsyncioDriver,
}
"""The shells, as the table of the docs has them."""

ALL_DRIVERS: dict[str, type[Driver]] = {**DRIVERS, "trio without workers": TrioDriverWithoutWorkers}


@pytest.fixture(params=ALL_DRIVERS)
def conform(request: pytest.FixtureRequest) -> Conform:
    """Runs a behaviour in one shell; one that it declares a departure is shown as skipped."""
    driver = ALL_DRIVERS[request.param]()
    number = request.node.name.split("_")[1]
    if number in driver.departures:
        pytest.skip(f"{number} on {driver.name}: {driver.departures[number]}")
    return driver.run
