"""What the tests of threads share."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from namedtasks._threads.interrupts import uninterrupted


@pytest.fixture(autouse=True)
def ctrl_c_comes_through() -> Generator[None]:
    """Whatever a test does, the main thread is outside of all maps after it."""
    yield
    inside = (uninterrupted._depth, uninterrupted._asleep, uninterrupted._guards)
    assert inside == (0, 0, 0)
    assert uninterrupted._held_back is None
