"""How our maps are opened to be measured."""

from typing import Any

import pytest

import namedtasks
from benchmarks import settings
from benchmarks.settings import Settings


@pytest.mark.parametrize("workers", [True, False])
def test_workers_are_asked_for_only_where_there_are_any(
    monkeypatch: pytest.MonkeyPatch, workers: bool
) -> None:
    """So that the same benchmarks measure a version that does not know them."""
    told: list[dict[str, Any]] = []

    def open_task_map(**more: Any) -> None:
        told.append(more)

    monkeypatch.setattr(namedtasks, "open_task_map", open_task_map)
    monkeypatch.setattr(settings, "HAS_WORKERS", True)
    Settings(workers=workers).open_map()
    monkeypatch.setattr(settings, "HAS_WORKERS", False)
    Settings(workers=workers).open_map()
    assert told[0].pop("workers") is workers
    assert told[0] == told[1]
    assert told[0]["instruments"] == ()


def test_a_trial_is_small_and_never_empty() -> None:
    trial = Settings(quick=True)
    assert (trial.batch(1000), trial.batch(1)) == (50, 10)
    assert (trial.many(1_000_000), trial.many(1_000), trial.many(1)) == (1000, 10, 1)
    assert (Settings().batch(1000), Settings().many(1_000_000)) == (1000, 1_000_000)
