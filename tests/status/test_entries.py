"""The page shows the names of a map, in each of their states and in each dialect."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import namedtasks.asyncio
from namedtasks import ANY, Backoff, ThreadTaskMap, open_task_map
from namedtasks.abc import AnyTaskMap
from namedtasks.status._entries import Entry, Facts, Reading, read
from namedtasks.status._watch import EventLog, MapWatch
from namedtasks.testing import ManualClock
from tests.virtual_loop import loop_now, virtual


def new_watch() -> MapWatch:
    return MapWatch("volumes", EventLog(10))


def look(watch: MapWatch, tasks: AnyTaskMap, most: int = 100) -> dict[Any, dict[str, Any]]:
    """Return what the page gets of each name and operation, with the times from now on."""
    now = watch.now()
    shown: dict[Any, dict[str, Any]] = {}
    for number, (key, facts) in enumerate(read(watch, tasks, most).facts.items()):
        fields: dict[str, Any] = json.loads(Entry.of(number, watch.label, key, facts).json)
        for field in ("since", "failing_since", "failed_at", "retry_at", "deadline", "stopping_at"):
            if field in fields:
                fields[field] = round(fields[field] - now, 3)
        for field in ("id", "map", "name", "operation"):
            fields.pop(field, None)
        shown[key[0] if key[1] is None else key] = fields
    return shown


async def fail(after: float = 0) -> None:
    await trio.sleep(after)
    raise OSError("device busy")


async def test_each_state_of_a_name_on_trio(autojump_clock: trio.testing.MockClock) -> None:
    watch = new_watch()
    no_patience = Backoff(give_up_after=1)
    async with open_task_map(instruments=[watch], limit=1) as tasks:
        tasks.start_soon("waiting", fail, backoff=Backoff(initial=60))
        tasks.start_soon("retry", fail, backoff=Backoff(initial=60), retry=True)
        tasks.start_soon("ready", fail)
        tasks.start_soon("gave up", fail, backoff=no_patience)
        await trio.sleep(10)
        tasks.start_soon("running", trio.sleep, 600, operation="attach", timeout=30)
        tasks.start_soon("slot", trio.sleep, 600)
        tasks.start_soon("running", trio.sleep, 1, if_busy="queue", operation="detach")
        await trio.sleep(2)
        failed: dict[str, Any] = {"failures": 1, "failing_since": -12.0, "failed_at": -12.0}
        failed["error"] = "OSError: device busy"
        assert {
            "waiting": {"state": "waiting", "since": -12.0, "retry_at": 48.0, **failed},
            "retry": {
                "state": "waiting",
                "since": -12.0,
                "retry_at": 48.0,
                "pending": "retry",
                **failed,
            },
            "ready": {"state": "ready", "since": -11.5, "retry_at": -11.5, **failed},
            "gave up": {"state": "gave_up", "since": -12.0, **failed},
            ("running", "attach"): {"state": "running", "since": -2.0, "deadline": 28.0},
            "slot": {"state": "waiting_for_slot", "since": -2.0},
            ("running", "detach"): {
                "state": "pending",
                "since": -2.0,
                "pending": "queue",
                "holder": "running",
            },
        } == look(watch, tasks)
        tasks.cancel_all()


async def test_a_name_that_fails_shows_it_while_it_runs_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch = new_watch()
    async with open_task_map(instruments=[watch], keep_outcomes=10) as tasks:
        tasks.start_soon("vol-1", fail, 3)
        await trio.sleep(5)
        tasks.start_soon("vol-1", fail, 3)
        await trio.sleep(1)
        assert {
            "vol-1": {
                "state": "running",
                "since": -1.0,
                "failures": 1,
                "failing_since": -3.0,
                "failed_at": -3.0,
                "error": "OSError: device busy",
                "last": {
                    "status": "failed",
                    "ended_at": pytest.approx(watch.now() - 3),
                    "duration": 3.0,
                },
            }
        } == look(watch, tasks)


async def test_a_run_that_should_stop_shows_it(autojump_clock: trio.testing.MockClock) -> None:
    watch = new_watch()

    async def detach() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    async with open_task_map(instruments=[watch]) as tasks:
        tasks.start_soon("vol-1", detach)
        await trio.sleep(1)
        tasks.cancel("vol-1")
        await trio.sleep(0.5)
        shown = {"state": "running", "since": -1.5, "stopping_at": -0.5}
        assert {"vol-1": shown} == look(watch, tasks)
        await trio.sleep(1)
        shown = {"state": "running", "since": -2.5, "stopping_at": -1.5, "overdue": True}
        assert {"vol-1": shown} == look(watch, tasks)


async def test_the_last_outcome_of_a_free_name_is_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch = new_watch()
    async with open_task_map(instruments=[watch], keep_outcomes=10, backoff=None) as tasks:
        tasks.start_soon("good", trio.sleep, 2)
        tasks.start_soon("bad", fail, 3)
        await tasks.wait_idle()
        shown = look(watch, tasks)
    assert {"good": ("ended", -1.0), "bad": ("ended", 0.0)} == {
        name: (row["state"], row["since"]) for name, row in shown.items()
    }
    assert ("succeeded", 2.0) == (
        shown["good"]["last"]["status"],
        shown["good"]["last"]["duration"],
    )
    assert "OSError: device busy" == shown["bad"]["last"]["error"]


async def test_a_pending_run_after_failures_shows_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The wait is over, but that for the other run is not; its last outcome is shown, too."""
    watch = new_watch()
    async with open_task_map(instruments=[watch], keep_outcomes=10) as tasks:
        tasks.start_soon("vol-1", fail, operation="detach")
        tasks.start_soon("vol-2", trio.sleep, 0, operation="detach")
        await trio.sleep(5)
        for name in ("vol-1", "vol-2"):
            tasks.start_soon(name, trio.sleep, 60, operation="attach")
            tasks.start_soon(name, fail, operation="detach", if_busy="queue")
        shown = look(watch, tasks)
        assert ("pending", 1, "queue") == tuple(
            shown["vol-1", "detach"][field] for field in ("state", "failures", "pending")
        )
        assert ("pending", "succeeded") == (
            shown["vol-2", "detach"]["state"],
            shown["vol-2", "detach"]["last"]["status"],
        )
        tasks.cancel_all()


@virtual()
async def test_a_task_of_asyncio_shows_its_times() -> None:
    """The Task itself does not have them."""
    watch = new_watch()
    async with namedtasks.asyncio.open_task_map(instruments=[watch], limit=1) as tasks:
        _ = tasks.create_task("vol-1", asyncio.sleep, 60, operation="attach", timeout=30)
        _ = tasks.create_task("vol-2", asyncio.sleep, 60)
        await loop_now().advance(2)
        assert {
            ("vol-1", "attach"): {"state": "running", "since": -2.0, "deadline": 28.0},
            "vol-2": {"state": "waiting_for_slot", "since": -2.0},
        } == look(watch, tasks)
        tasks.cancel_all()


def test_a_thread_shows_its_times() -> None:
    watch = new_watch()
    clock = ManualClock()
    begun, done = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        done.wait()

    with ThreadTaskMap(instruments=[watch], clock=clock, limit=1) as tasks:
        tasks.submit("vol-1", work)
        begun.wait()
        tasks.submit("vol-2", work)
        clock.advance(2)
        reading = read(watch, tasks, 100)
        assert (0.0, 0.0) == (reading.oldest_run_since, reading.longest_slot_wait_since)
        assert {
            "vol-1": {"state": "running", "since": -2.0},
            "vol-2": {"state": "waiting_for_slot", "since": -2.0},
        } == look(watch, tasks)
        done.set()


async def test_the_oldest_run_is_found(autojump_clock: trio.testing.MockClock) -> None:
    watch = new_watch()
    async with open_task_map(instruments=[watch]) as tasks:
        assert (None, None) == times_of(read(watch, tasks, 100))
        tasks.start_soon("vol-1", trio.sleep, 60)
        assert (None, None) == times_of(read(watch, tasks, 100))
        await trio.sleep(5)
        tasks.start_soon("vol-2", trio.sleep, 60)
        await trio.sleep(5)
        assert (watch.now() - 10, None) == times_of(read(watch, tasks, 100))
        tasks.cancel_all()


def times_of(reading: Reading) -> tuple[float | None, float | None]:
    return reading.oldest_run_since, reading.longest_slot_wait_since


@pytest.mark.parametrize("most", [0, 1, 3, 4, 5, 7, 8, 9, 20])
async def test_too_many_names_are_counted_and_left_out(
    most: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Failures come first, then what runs, what is pending, and what has ended."""
    watch = new_watch()
    async with open_task_map(instruments=[watch], keep_outcomes=10) as tasks:
        for name in range(2):
            tasks.start_soon(("ended", name), trio.sleep, 0)
        for name in range(3):
            tasks.start_soon(("failed", name), fail, backoff=Backoff(initial=600))
        await tasks.wait_idle()
        for name in range(2):
            tasks.start_soon(("runs", name), trio.sleep, 60)
            tasks.start_soon(("runs", name), trio.sleep, 60, operation="next", if_busy="queue")
        reading = read(watch, tasks, most)
        kinds = ["failed"] * 3 + ["runs"] * 4 + ["ended"] * 2
        keys: Any = reading.facts
        assert kinds[:most] == [key[0][0] for key in keys]
        left_out = max(0, 9 - most)
        # The outcomes of failures that are left out are left out, too.
        assert left_out + max(0, 3 - most) == reading.omitted
        tasks.cancel_all()


def test_a_run_that_just_gets_its_name_is_not_pending() -> None:
    """Another thread has taken its mark away, and not yet its entry."""
    watch = new_watch()
    done = threading.Event()
    with ThreadTaskMap(instruments=[watch]) as tasks:
        tasks.submit("vol-1", done.wait)
        tasks.submit("vol-1", done.wait, if_busy="queue", operation="next")
        run = tasks._backend.scheduler.pending["vol-1"]
        run.deferred = None
        assert [("vol-1", None)] == list(read(watch, tasks, 100).facts)
        run.deferred = "queue"
        assert 2 == len(read(watch, tasks, 100).facts)
        done.set()


def unlocked(look: Callable[[], Any]) -> Any:
    return look()


@pytest.mark.parametrize("moment", ["after the first table", "before the last table"])
def test_a_name_that_fails_is_shown_though_its_run_begins_or_ends_meanwhile(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps of asyncio and trio have no lock, so they go on while another thread reads them."""
    watch, clock = new_watch(), ManualClock()
    go_on = threading.Event()

    def fail_when_told() -> None:
        go_on.wait()
        raise OSError("device busy")

    with ThreadTaskMap(instruments=[watch], clock=clock) as tasks:
        go_on.set()
        for name in ("ends", "begins"):
            tasks.submit(name, fail_when_told).exception()
        clock.advance(60)
        go_on.clear()
        ending = tasks.submit("ends", fail_when_told)
        backend = tasks._backend
        records = backend.scheduler.records
        copy, moments = records.snapshot, iter(["first table", "last table"])

        def copy_failures() -> Any:
            table = next(moments)
            if moment == f"before the {table}":
                go_on_without_lock()
            found = copy()
            if moment == f"after the {table}":
                go_on_without_lock()
            return found

        def go_on_without_lock() -> None:
            go_on.set()
            ending.exception()
            go_on.clear()
            tasks.submit("begins", fail_when_told)

        monkeypatch.setattr(records, "snapshot", copy_failures)
        monkeypatch.setattr(backend, "look", unlocked)
        shown = look(watch, tasks)
        assert {"ends", "begins"} == shown.keys()
        assert all(row["failures"] for row in shown.values())
        go_on.set()


async def test_a_retry_is_pending_since_its_wait_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Not since an earlier run of the name was queued."""
    watch, name = new_watch(), ("vol-1", "pod-a")
    async with open_task_map(instruments=[watch], backoff=Backoff(initial=10)) as tasks:
        tasks.start_soon(name, trio.sleep, 1)
        tasks.start_soon(name, trio.sleep, 1, if_busy="queue")
        await trio.sleep(1_000)
        tasks.start_soon(name, fail, retry=True)
        await trio.sleep(1)
        tasks.start_soon(("vol-1", ANY), trio.sleep, 100)
        await trio.sleep(12)
        shown = look(watch, tasks)[name]
        tasks.cancel_all()
    assert ("pending", "retry", -3.0) == (shown["state"], shown["pending"], shown["since"])


def entry(name: str, **facts: Any) -> Entry:
    return Entry.of(1, "volumes", (name, None), Facts(**facts))


def test_the_most_urgent_names_come_first() -> None:
    entries = [
        entry("gave up", state="gave_up", failures=2),
        entry("overdue", state="running", overdue=True),
        entry("ready", state="ready", failures=9),
        entry("runs again", state="running", failures=5),
        entry("waiting", state="waiting", failures=1),
        entry("pending", state="pending"),
        entry("slot", state="waiting_for_slot"),
        entry("a running", state="running"),
        entry("b running", state="running"),
        entry("ended", state="ended"),
    ]
    names = [one.name for one in entries]
    by_name = sorted(entries, key=lambda one: one.name)
    assert names == [one.name for one in sorted(by_name, key=lambda one: one.urgency)]


def test_odd_texts_are_made_safe() -> None:
    key = ("\ud800</script>\x00", "\u202eop" + "x" * 200)
    wire = Entry.of(1, "volumes", key, Facts("pending", holder=("a", "\r"))).json.decode()
    fields = json.loads(wire)
    assert "\\ud800</script>\\x00" == fields["name"]
    assert fields["operation"].startswith("\\u202eop")
    assert len(fields["operation"]) < 120
    assert "('a', '\\r')" == fields["holder"]
