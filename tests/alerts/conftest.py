"""Fixtures of the tests with real servers, which run in ``make test-alerts`` only."""

from __future__ import annotations

import shutil
from collections.abc import Generator

import pytest

from tests.alerts.servers import Receiver, Workshop, workshop

SERVERS = ("prometheus", "promtool", "prometheus-alertmanager", "amtool")
CURE = "apt-get install prometheus prometheus-alertmanager"


@pytest.fixture
def tools() -> None:
    """Prometheus and Alertmanager, with their tools."""
    missing = [server for server in SERVERS if shutil.which(server) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: {CURE}")


@pytest.fixture
def shop(tools: None) -> Generator[Workshop]:
    """A folder in which servers are started."""
    with workshop() as shop:
        yield shop


@pytest.fixture
def receiver() -> Generator[Receiver]:
    """The receiver of alerts, from the example."""
    receiver = Receiver()
    yield receiver
    receiver.close()
