"""What the tests of executors share."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Executor

import pytest

from tests.executors import kinds

CURE = "install the test tools: make test"


@pytest.fixture
def loky_pool(monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[[], Executor]]:
    """loky, as a factory; its processes are gone after the test.

    loky 3.7 passes on to its workers how multiprocessing's logger formats, and
    they die of it if that has a handler that multiprocessing has not made.
    pytest adds one, once anybody has asked for the logger, as trio-parallel does.
    """
    pytest.importorskip("loky", reason=CURE)
    monkeypatch.setattr("multiprocessing.util._logger", None)
    yield kinds.loky_pool
    kinds.loky_pool().shutdown(wait=True)
