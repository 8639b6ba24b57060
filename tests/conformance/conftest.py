"""Runs each behaviour in each dialect."""

from __future__ import annotations

import pytest

from tests.conformance.asyncio_driver import AsyncioDriver
from tests.conformance.behaviour import Conform
from tests.conformance.driver import Driver
from tests.conformance.thread_driver import ThreadDriver
from tests.conformance.trio_driver import TrioDriver, TrioDriverWithoutWorkers

DRIVERS: dict[str, type[Driver]] = {
    "asyncio": AsyncioDriver,
    "threads": ThreadDriver,
    "trio": TrioDriver,
}
"""The dialects, in the order of the table in the docs."""

ALL_DRIVERS: dict[str, type[Driver]] = {**DRIVERS, "trio without workers": TrioDriverWithoutWorkers}


@pytest.fixture(params=ALL_DRIVERS)
def conform(request: pytest.FixtureRequest) -> Conform:
    """Run a behaviour in one dialect; skip it if the driver declares it a departure."""
    driver = ALL_DRIVERS[request.param]()
    number = request.node.name.split("_")[1]
    if number in driver.departures:
        pytest.skip(f"{number} on {driver.name}: {driver.departures[number]}")
    return driver.run
