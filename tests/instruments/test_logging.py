"""The default instrument: the events that it logs, and those that it does not."""

import logging

import pytest
import trio
from trio.testing import MockClock

import namedtasks
from namedtasks import Backoff, LoggingInstrument


async def boom() -> None:
    raise ValueError("boom")


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


async def test_failures_are_warnings_with_their_traceback(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with namedtasks.open_task_map() as tasks:
        tasks.start_soon(("vol", 1), boom, operation="mount")
    assert said(caplog) == [
        (
            "WARNING",
            "task ('vol', 1) (operation 'mount') failed after 0 s (failures in a row: 1; "
            "it may start again in 0.5 s): ValueError: boom",
        )
    ]
    (record,) = caplog.records
    assert record.name == "namedtasks"
    assert record.exc_info is not None
    assert record.exc_info[2] is not None


async def test_giving_up_is_an_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with namedtasks.open_task_map(backoff=Backoff(give_up_after=1)) as tasks:
        tasks.start_soon("a", boom)
    assert said(caplog) == [
        (
            "WARNING",
            "task 'a' failed after 0 s (failures in a row: 1; it gives up): ValueError: boom",
        ),
        (
            "ERROR",
            "task 'a' gave up (failures in a row: 1) and starts again only after forget(): "
            "ValueError: boom",
        ),
    ]


async def test_without_backoff_it_may_start_again_at_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with namedtasks.open_task_map(backoff=None) as tasks:
        tasks.start_soon("a", boom)
    assert said(caplog)[0][1] == (
        "task 'a' failed after 0 s (not counted; it may start again at once): ValueError: boom"
    )


async def test_an_overdue_run_is_a_warning(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    async with namedtasks.open_task_map(overdue_after=2.5) as tasks:
        tasks.start_soon("a", stubborn, timeout=1)
    assert said(caplog) == [
        ("WARNING", "task 'a' was asked to stop 2.5 s ago and still runs: its name stays taken")
    ]


async def test_refusals_successes_and_cancellations_are_quiet(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "namedtasks")
    async with namedtasks.open_task_map() as tasks:
        handle = tasks.start_soon("a", trio.sleep, 1)
        tasks.start_soon("a", trio.sleep, 1, if_busy="skip")
        handle.cancel()
        tasks.start_soon("b", trio.sleep, 1)
    assert said(caplog) == []


async def test_a_logger_of_ones_own(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    mine = LoggingInstrument(logging.getLogger("mine"))
    assert repr(mine) == "<namedtasks.LoggingInstrument logger='mine'>"
    async with namedtasks.open_task_map(instruments=[mine]) as tasks:
        tasks.start_soon("a", boom)
    assert [record.name for record in caplog.records] == ["mine"]
