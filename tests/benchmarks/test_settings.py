"""The settings of a measurement, and the maps that they open."""

from typing import Any

import pytest

import namedtasks
from benchmarks.settings import Settings


@pytest.mark.parametrize("workers", [True, False])
def test_maps_have_no_instruments_and_the_workers_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, workers: bool
) -> None:
    opened: list[dict[str, Any]] = []

    def open_task_map(**settings: Any) -> None:
        opened.append(settings)

    monkeypatch.setattr(namedtasks, "open_task_map", open_task_map)
    Settings(workers=workers).open_map()
    assert opened[0]["workers"] is workers
    assert opened[0]["instruments"] == ()


def test_a_trial_is_small_and_never_empty() -> None:
    trial = Settings(quick=True)
    assert (trial.batch(1000), trial.batch(1)) == (50, 10)
    assert (trial.many(1_000_000), trial.many(1_000), trial.many(1)) == (1000, 10, 1)
    assert (Settings().batch(1000), Settings().many(1_000_000)) == (1000, 1_000_000)


def test_a_size_holds_for_each_batch() -> None:
    """So that instructions can be divided by the number of operations."""
    assert (Settings(size=100).batch(1000), Settings(size=100).batch(1)) == (100, 100)


def test_names_are_text_integers_or_tuples() -> None:
    settings = Settings(size=2)
    assert settings.names(9) == ["volume-0", "volume-1"]
    assert settings.names(9, "integers") == [0, 1]
    assert settings.names(9, "tuples") == [("volume-0", "node-1"), ("volume-1", "node-1")]
