"""The instrument of the page: which map it shows, and what it learns from events."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import pytest
import trio
import trio.testing

import namedtasks.asyncio
from namedtasks import Backoff, ThreadTaskMap, open_task_map
from namedtasks.instruments import TaskQueued
from namedtasks.status._watch import EventLog, FailureTimes, MapWatch, RecentEvent
from namedtasks.testing import ManualClock
from tests.virtual_loop import virtual


def new_watch(most: int = 100) -> tuple[MapWatch, EventLog]:
    log = EventLog(most)
    return MapWatch("volumes", log), log


def fail(text: str = "device busy") -> None:
    raise OSError(text)


async def fail_async(after: float = 0) -> None:
    await trio.sleep(after)
    raise OSError("device busy")


def kinds(log: EventLog) -> list[str]:
    return [event.kind for event in log.recent()]


# The map


def test_a_map_is_open_from_its_beginning_to_its_end() -> None:
    watch, _ = new_watch()
    assert "not opened" == watch.status()
    assert watch.tasks() is None
    with ThreadTaskMap(instruments=[watch]) as tasks:
        assert "open" == watch.status()
        assert watch.tasks() is tasks
    assert "closed" == watch.status()
    assert watch.tasks() is None
    assert "<instrument of the status page for the map 'volumes', closed>" == repr(watch)


async def test_a_map_of_trio_is_shown() -> None:
    watch, _ = new_watch()
    async with open_task_map(instruments=[watch]) as tasks:
        assert watch.tasks() is tasks
        assert watch.now() == pytest.approx(trio.current_time(), abs=60)
    assert "closed" == watch.status()


@virtual()
async def test_a_map_of_asyncio_is_shown() -> None:
    watch, _ = new_watch()
    async with namedtasks.asyncio.open_task_map(instruments=[watch]) as tasks:
        assert watch.tasks() is tasks
    assert "closed" == watch.status()


def test_a_map_that_finishes_its_work_is_closing() -> None:
    watch, _ = new_watch()
    done = threading.Event()
    with ThreadTaskMap(instruments=[watch]) as tasks:
        tasks.submit("vol-1", done.wait)
        tasks.close()
        assert "closing" == watch.status()
        done.set()


def test_a_closed_map_without_work_is_closed() -> None:
    """Also if nobody has said so: a map that is closed in a forked child says nothing."""
    watch, _ = new_watch()
    tasks = ThreadTaskMap(instruments=[])
    watch.map_opened(tasks)
    tasks.close()
    assert "closed" == watch.status()


def test_a_map_that_was_dropped_is_closed() -> None:
    watch, _ = new_watch()
    tasks = ThreadTaskMap(instruments=[watch])
    del tasks
    gc.collect()
    assert "closed" == watch.status()


def test_one_open_map_has_an_instrument() -> None:
    watch, _ = new_watch()
    message = (
        r"^the status page already shows a map 'volumes', which is open: "
        r"give each map an instrument with a label of its own$"
    )
    with ThreadTaskMap(instruments=[watch]) as tasks:
        with pytest.raises(ValueError, match=message):
            ThreadTaskMap(instruments=[watch])
        assert watch.tasks() is tasks
        assert "open" == watch.status()


def test_a_map_may_be_opened_again() -> None:
    """As a lifespan does that begins a second time; what failed before is forgotten."""
    watch, _ = new_watch()
    for _ in range(2):
        with ThreadTaskMap(instruments=[watch]) as tasks:
            assert watch.tasks() is tasks
            assert {} == watch.failure_times
            tasks.submit("vol-1", fail).exception()


def test_a_map_that_is_still_closing_keeps_its_instrument() -> None:
    """Otherwise the page would not show what it still runs."""
    watch, _ = new_watch()
    done = threading.Event()
    with ThreadTaskMap(instruments=[watch]) as tasks:
        tasks.submit("vol-1", done.wait)
        tasks.close()
        with pytest.raises(
            ValueError, match=r"^the status page already .* 'volumes', .* closing: "
        ):
            ThreadTaskMap(instruments=[watch])
        assert watch.tasks() is tasks
        done.set()
    with ThreadTaskMap(instruments=[watch]) as successor:
        assert watch.tasks() is successor


def test_the_end_of_an_earlier_map_changes_nothing() -> None:
    """Its last run has ended, and it says so after its successor was opened."""
    watch, _ = new_watch()
    first = ThreadTaskMap(instruments=[])
    watch.map_opened(first)
    first.close()
    with ThreadTaskMap(instruments=[watch]) as second:
        watch.map_closed(first)
        assert watch.tasks() is second


def test_refusals_are_none_of_its_business() -> None:
    """A map that tells nobody of them refuses faster."""
    watch, log = new_watch()
    with ThreadTaskMap(instruments=[watch], clock=ManualClock()) as tasks:
        tasks.submit("vol-1", fail).exception()
        assert tasks.submit("vol-1", fail, if_busy="skip") is None
    assert ["started", "failed"] == sorted(kinds(log), reverse=True)


class BrokenClock:
    """A clock that stops working."""

    def __init__(self) -> None:
        self._clock = ManualClock(100)
        self.wait = self._clock.wait
        self.is_broken = False

    def now(self) -> float:
        if self.is_broken:
            raise RuntimeError("no time")
        return self._clock.now()


def test_times_stand_still_if_a_clock_raises(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the error once."""
    watch, _ = new_watch()
    clock = BrokenClock()
    with ThreadTaskMap(instruments=[watch], clock=clock):
        assert 100.0 == watch.now()
        clock.is_broken = True
        assert (100.0, 100.0) == (watch.now(), watch.now())
        assert "open" == watch.status()
        clock.is_broken = False
    assert ["the status page shows old times of the map 'volumes': its clock raises"] == (
        caplog.messages
    )


# Failures in a row


async def test_failures_in_a_row_have_a_beginning(autojump_clock: trio.testing.MockClock) -> None:
    watch, _ = new_watch()
    async with open_task_map(instruments=[watch]) as tasks:
        begin = trio.current_time()
        for _ in range(3):
            tasks.start_soon("vol-1", fail_async, operation="attach")
            await trio.sleep(10)
        assert {("vol-1", "attach"): FailureTimes(begin, begin + 20)} == watch.failure_times
        tasks.start_soon("vol-1", trio.sleep, 0, operation="attach")
        tasks.start_soon("vol-2", trio.sleep, 0)
        await tasks.wait_idle()
        assert {} == watch.failure_times


async def test_a_failure_after_a_long_run_begins_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch, _ = new_watch()
    async with open_task_map(instruments=[watch], backoff=Backoff(reset_after=600)) as tasks:
        tasks.start_soon("vol-1", fail_async)
        await tasks.wait_free("vol-1")
        tasks.start_soon("vol-1", fail_async, 1000)
        await tasks.wait_idle()
        now = trio.current_time()
        assert {("vol-1", None): FailureTimes(now, now)} == watch.failure_times


async def test_failures_that_do_not_count_are_none_in_a_row() -> None:
    watch, log = new_watch()
    async with open_task_map(instruments=[watch], backoff=None) as tasks:
        tasks.start_soon("vol-1", fail_async)
        await tasks.wait_idle()
        assert {} == watch.failure_times
    assert 0 == log.recent()[-1].details["failures"]


async def test_failures_end_when_they_are_forgotten_or_expire(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch, log = new_watch()
    async with open_task_map(instruments=[watch], retention=60) as tasks:
        tasks.start_soon("vol-1", fail_async)
        tasks.start_soon("vol-2", fail_async)
        await tasks.wait_idle()
        assert tasks.forget("vol-1")
        await trio.sleep(100)
        tasks.start_soon("vol-3", trio.sleep, 0)
        await tasks.wait_idle()
        assert {"forgotten", "expired"} < set(kinds(log))
        assert {} == watch.failure_times


# Events


def test_an_event_has_a_time_of_day() -> None:
    watch, log = new_watch()
    before = time.time()
    with ThreadTaskMap(instruments=[watch], clock=ManualClock(1e6)) as tasks:
        tasks.submit("vol-1", fail, operation="attach").exception()
    started, failed = log.recent()
    assert ("volumes", "started", "vol-1", "attach") == started[1:5]
    assert [1, 2] == [started.number, failed.number]
    assert before <= failed.at <= time.time()
    assert {
        "duration": 0.0,
        "failures": 1,
        "error": "OSError: device busy",
        "retry_in": 0.5,
    } == failed.details


def test_many_short_runs_do_not_displace_a_failure() -> None:
    watch, log = new_watch(2)
    with ThreadTaskMap(instruments=[watch]) as tasks:
        for name in range(5):
            tasks.submit(name, fail if name == 1 else int).exception()
    assert ["failed", "started", "succeeded"] == kinds(log)
    assert 1 == log.recent()[0].name


def test_a_success_after_failures_is_a_recovery() -> None:
    watch, log = new_watch(1)
    clock = ManualClock()
    with ThreadTaskMap(instruments=[watch], clock=clock) as tasks:
        tasks.submit("vol-1", fail).exception()
        clock.advance(5)
        tasks.submit("vol-1", int).result()
        tasks.submit("vol-2", int).result()
    assert ["succeeded", "succeeded"] == kinds(log)
    assert {"duration": 0.0, "failing_for": 5.0} == log.recent()[0].details


async def test_a_failure_tells_what_follows(autojump_clock: trio.testing.MockClock) -> None:
    watch, log = new_watch()
    async with open_task_map(instruments=[watch], backoff=Backoff(give_up_after=2)) as tasks:
        tasks.start_soon("vol-1", fail_async, retry=True)
        await tasks.wait_idle()
    assert ["started", "failed", "started", "failed", "gave_up"] == kinds(log)
    first, again, last, end = (event.details for event in log.recent()[1:])
    assert (0.5, True) == (first["retry_in"], first["will_retry"])
    assert {"failures": 1} == again
    assert {"duration": 0.0, "failures": 2, "error": "OSError: device busy"} == last
    assert {"failures": 2} == end


async def test_a_cancellation_tells_why(autojump_clock: trio.testing.MockClock) -> None:
    watch, log = new_watch()
    async with open_task_map(instruments=[watch], limit=1) as tasks:
        tasks.start_soon("vol-1", trio.sleep, 60)
        tasks.start_soon("vol-2", trio.sleep, 60)
        await trio.sleep(5)
        tasks.cancel("vol-2", reason="the pod\nis gone")
        tasks.cancel("vol-1")
    assert ["started", "cancelled", "cancelled"] == kinds(log)
    assert [{"reason": "the pod\\nis gone"}, {"duration": 5.0}] == [
        event.details for event in log.recent()[1:]
    ]


async def test_a_run_that_does_not_stop_is_overdue(autojump_clock: trio.testing.MockClock) -> None:
    watch, log = new_watch()

    async def detach() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    async with open_task_map(instruments=[watch]) as tasks:
        tasks.start_soon("vol-1", detach, timeout=30)
    assert {"asked_ago": 1.0} == next(
        event.details for event in log.recent() if event.kind == "overdue"
    )


async def test_a_pending_run_is_queued_and_may_be_superseded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch, log = new_watch()
    async with open_task_map(instruments=[watch]) as tasks:
        tasks.start_soon("vol-1", trio.sleep, 5)
        tasks.start_soon("vol-1", trio.sleep, 5, if_busy="queue", operation="resize")
        assert {"vol-1": trio.current_time()} == watch.queued
        tasks.start_soon("vol-1", trio.sleep, 5, if_busy="queue")
    assert {"queued", "superseded"} < set(kinds(log))
    queued = next(event for event in log.recent() if event.kind == "queued")
    assert {"if_busy": "queue"} == queued.details


async def test_the_names_of_pending_runs_are_not_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr("namedtasks.status._watch._SPARE", 2)
    watch, _ = new_watch()
    async with open_task_map(instruments=[watch]) as tasks:
        for name in range(10):
            tasks.start_soon(name, trio.sleep, 5)
            tasks.start_soon(name, trio.sleep, 5, if_busy="queue")
        assert {*range(10)} == watch.queued.keys()
        await tasks.wait_idle()
        tasks.start_soon("vol-1", trio.sleep, 5)
        tasks.start_soon("vol-1", trio.sleep, 5, if_busy="queue")
        assert {"vol-1"} == watch.queued.keys()


def test_an_event_may_come_when_its_map_is_gone() -> None:
    watch, _ = new_watch()
    for name in range(1100):
        watch.task_queued(TaskQueued(name=name, operation=None, at=0.0, if_busy="queue"))
    assert 1100 == len(watch.queued)


def test_an_event_may_come_while_its_thread_adds_another_one() -> None:
    """A finalizer and a signal handler, which come at any time, may use another map."""
    log = EventLog(10)

    class Interrupted(TaskQueued):
        def __getattribute__(self, attribute: str) -> Any:
            if attribute == "operation":
                add("inner", TaskQueued)
            return super().__getattribute__(attribute)

    def add(name: str, kind: type[TaskQueued]) -> None:
        event = kind(name=name, operation=None, at=0.0, if_busy="queue")
        log.add("volumes", event, 0.0, {}, notable=False)

    add("outer", Interrupted)
    assert [("outer", 1), ("inner", 2)] == [(one.name, one.number) for one in log.recent()]


def test_events_of_several_threads_have_numbers_of_their_own() -> None:
    log = EventLog(10_000)
    watches = [MapWatch(str(number), log) for number in range(4)]

    def work(watch: MapWatch) -> None:
        with ThreadTaskMap(instruments=[watch]) as tasks:
            for name in range(50):
                tasks.submit(name, int)

    threads = [threading.Thread(target=work, args=(watch,)) for watch in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [event.number for event in log.recent()]
    assert [*range(1, 401)] == numbers
    assert RecentEvent is type(log.recent()[0])
