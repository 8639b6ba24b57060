"""What all tests share."""

from __future__ import annotations

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
