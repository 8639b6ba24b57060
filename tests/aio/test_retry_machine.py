"""The asyncio map against a plain model: retries, observations and policies of single starts."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings

from tests.conformance.asyncio_driver import AsyncioDriver
from tests.conformance.retry_play import STEPS, play
from tests.fuzz import examples


@given(STEPS)
@settings(max_examples=examples(150), deadline=None)
def test_retries_and_observations_agree_with_a_plain_model(steps: list[tuple[Any, ...]]) -> None:
    play(AsyncioDriver(), steps)
