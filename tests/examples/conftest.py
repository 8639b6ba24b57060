"""Skips what this machine cannot do."""

from __future__ import annotations

import pytest
import trio
from volume_controller.loop import LoopBackend


@pytest.fixture(scope="session")
def loop_obstacle() -> str | None:
    """What keeps loop devices from working here, tried out once."""
    return trio.run(LoopBackend.obstacle)


@pytest.fixture
def loop_works(loop_obstacle: str | None) -> None:
    """Skip the test unless loop devices work here."""
    if loop_obstacle is not None:
        pytest.skip(f"needs root and loop devices: run as root on Linux (loop {loop_obstacle})")
