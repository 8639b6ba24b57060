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
