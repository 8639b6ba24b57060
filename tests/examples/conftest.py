"""Skips what this machine cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from volume_controller.fuse import FuseBackend
from volume_controller.layout import Layout
from volume_controller.loop import LoopBackend


@pytest.fixture(scope="session")
def loop_obstacle(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """What keeps loop devices from working here, tried out once."""
    return trio.run(LoopBackend.obstacle, Layout(_new(tmp_path_factory)))


@pytest.fixture(scope="session")
def fuse_obstacle(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """What keeps fuse2fs from working here, tried out once."""
    return trio.run(FuseBackend.obstacle, Layout(_new(tmp_path_factory)))


@pytest.fixture
def loop_works(loop_obstacle: str | None) -> None:
    """Skip the test unless loop devices work here."""
    if loop_obstacle is not None:
        pytest.skip(f"needs root and loop devices: run as root on Linux (loop {loop_obstacle})")


@pytest.fixture
def fuse_works(fuse_obstacle: str | None) -> None:
    """Skip the test unless fuse2fs works here."""
    if fuse_obstacle is not None:
        pytest.skip(f"needs fuse2fs and /dev/fuse (fuse {fuse_obstacle})")


def _new(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("try").resolve()
