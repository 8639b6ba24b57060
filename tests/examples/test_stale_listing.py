"""The stale-listing experiment: exactly one run for each name with a cure, and more without."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from typing import get_args

import pytest
import trio
from stale_listing.experiment import (
    NAMES,
    Cure,
    Server,
    reconcile_in_threads,
    reconcile_on_asyncio,
    reconcile_on_trio,
    seconds_of,
)
from trio.testing import MockClock

from tests import virtual_loop


def on_trio(cure: Cure) -> Server:
    server = Server()
    trio.run(reconcile_on_trio, server, cure, clock=MockClock(autojump_threshold=0))
    return server


def on_asyncio(cure: Cure) -> Server:
    server = Server()
    virtual_loop.run(lambda: reconcile_on_asyncio(server, cure))
    return server


def in_threads(cure: Cure) -> Server:
    server = Server()
    reconcile_in_threads(server, cure)
    return server


Dialect = Callable[[Cure], Server]

DIALECTS: list[Dialect] = [on_trio, on_asyncio, in_threads]
CURES = [cure for cure in get_args(Cure) if cure != "none"]


@pytest.mark.parametrize("cure", CURES)
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
def test_with_a_cure_each_name_runs_exactly_once(dialect: Dialect, cure: Cure) -> None:
    """200 names, a listing that is 20 ms old, and runs of 1 to 50 ms: 200 runs."""
    assert sorted(dialect(cure).runs) == list(NAMES)


@pytest.mark.parametrize("dialect", [on_trio, on_asyncio], ids=lambda dialect: dialect.__name__)
def test_without_a_cure_names_run_again(dialect: Dialect) -> None:
    """In virtual time: on real threads that is as good as certain, and no more."""
    server = dialect("none")
    assert set(server.runs) == set(NAMES)
    assert len(server.runs) > len(NAMES) * 5 / 4


def test_the_runs_take_from_1_to_50_ms() -> None:
    seconds = {seconds_of(name) for name in NAMES}
    assert (min(seconds), max(seconds)) == (0.001, 0.05)


def test_the_script_prints_the_runs_with_each_cure(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("stale_listing", run_name="__main__")
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["runs", "for", "200", "names", "asyncio", "threads", "trio"]
    assert [row.rsplit(maxsplit=3)[1:] for row in rows[1:]] == [["200", "200", "200"]] * 2
    assert all(int(count) >= len(NAMES) for count in rows[0].rsplit(maxsplit=3)[1:])
