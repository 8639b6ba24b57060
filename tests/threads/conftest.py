"""What the tests of threads share."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from namedtasks._threads.sigint import deferred_sigint


@pytest.fixture(autouse=True)
def ctrl_c_comes_through() -> Generator[None]:
    """Whatever a test does, the main thread is outside of all maps after it."""
    yield
    assert not deferred_sigint.pending
    assert deferred_sigint._blocks == 0
