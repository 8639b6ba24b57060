"""A viewer gets a first view, and then the changes, in pieces of any size."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from namedtasks import Backoff, ThreadTaskMap, open_task_map
from namedtasks.instruments import TaskStarted
from namedtasks.status._board import Board
from namedtasks.status._entries import STATES
from namedtasks.status._watch import EventLog, MapWatch
from namedtasks.testing import ManualClock

EVERYTHING = 1_000_000


class Shown:
    """A board of one map, whose events are not shown."""

    def __init__(self, *labels: str, keep_events: int = 0) -> None:
        self.log = EventLog(keep_events)
        self.watches = {label: MapWatch(label, self.log) for label in labels or ("volumes",)}
        self.board = Board(self.watches, self.log)
        self.watch = next(iter(self.watches.values()))

    def begin(self, most: int = 100) -> dict[str, Any]:
        self.board.look()
        view: dict[str, Any] = json.loads(self.board.begin("title", most))
        return view

    def since(self, number: int, most_bytes: int = EVERYTHING) -> tuple[dict[str, Any], int]:
        self.board.look()
        found = self.board.since(number, most_bytes)
        assert found is not None
        return json.loads(found[0] or b"{}"), found[1]


async def fail() -> None:
    await trio.lowlevel.checkpoint()
    raise OSError("device busy")


async def test_the_first_view_has_everything(autojump_clock: trio.testing.MockClock) -> None:
    shown = Shown(keep_events=10)
    async with open_task_map(instruments=[shown.watch], limit=5) as tasks:
        tasks.start_soon("vol-1", fail, operation="attach")
        tasks.start_soon("vol-2", trio.sleep, 60)
        await trio.sleep(0.1)
        view = shown.begin()
        assert ["vol-1", "vol-2"] == [row["name"] for row in view["rows"]]
        assert ("title", None) == (view["title"], view["next"])
        assert {"volumes": round(trio.current_time(), 3)} == view["now"]
        assert {"started", "failed"} == {event["kind"] for event in view["events"]}
        assert {state: int(state in ("waiting", "running")) for state in STATES} == {
            state: view["counts"][state] for state in STATES
        }
        assert (1, 0) == (view["counts"]["failing"], view["counts"]["overdue"])
        (summary,) = view["maps"]
        assert ("volumes", "open", 1, 5) == tuple(
            summary[field] for field in ("map", "status", "running", "limit")
        )
        tasks.cancel_all()


async def test_an_update_has_only_what_changed(autojump_clock: trio.testing.MockClock) -> None:
    shown = Shown(keep_events=10)
    async with open_task_map(instruments=[shown.watch]) as tasks:
        for number in range(1000):
            tasks.start_soon(number, trio.sleep, 60)
        await trio.sleep(1)
        version = shown.begin()["version"]
        assert ({}, version) == shown.since(version)
        await trio.sleep(1)  # ages do not change anything
        assert ({}, version) == shown.since(version)
        tasks.start_soon("vol-1", fail)
        await trio.sleep(0.1)
        update, version = shown.since(version)
        assert {"at", "now", "rows", "maps", "counts", "events"} == update.keys()
        assert ["vol-1"] == [row["name"] for row in update["rows"]]
        assert ["started", "failed"] == [event["kind"] for event in update["events"]]
        tasks.forget("vol-1")
        update, version = shown.since(version)
        assert 1 == len(update["gone"])
        assert "rows" not in update
        assert ({}, version) == shown.since(version)
        tasks.cancel_all()


async def test_overdue_runs_are_counted(autojump_clock: trio.testing.MockClock) -> None:
    shown = Shown()

    async def detach() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    async with open_task_map(instruments=[shown.watch]) as tasks:
        tasks.start_soon("vol-1", detach, timeout=1)
        await trio.sleep(10)
        assert 1 == shown.begin()["counts"]["overdue"]
        await tasks.wait_idle()
        assert 0 == shown.begin()["counts"]["overdue"]


def test_a_map_that_was_not_opened_is_shown_as_such() -> None:
    (summary,) = Shown().begin()["maps"]
    assert ("not opened", 0, None) == tuple(summary[one] for one in ("status", "running", "limit"))


async def test_when_a_map_ends_its_names_go() -> None:
    shown = Shown("volumes", "nodes")
    async with open_task_map(instruments=[shown.watch]) as tasks:
        tasks.start_soon("vol-1", fail)
        await tasks.wait_idle()
        view = shown.begin()
        assert 1 == len(view["rows"])
    update, _ = shown.since(view["version"])
    assert [view["rows"][0]["id"]] == update["gone"]
    assert ["closed"] == [one["status"] for one in update["maps"]]
    assert {"volumes": "closed", "nodes": "not opened"} == {
        one.label: one.status for one in shown.board.summaries()
    }


async def test_the_rest_of_many_names_comes_in_pieces() -> None:
    shown = Shown()
    async with open_task_map(instruments=[shown.watch], backoff=Backoff(initial=600)) as tasks:
        for number in range(10):
            tasks.start_soon(number, fail)
        await tasks.wait_idle()
        view = shown.begin(3)
        assert 3 == len(view["rows"])
        found: set[str] = set()
        following = view["next"]
        while following is not None:
            piece = json.loads(shown.board.after(following, 4))
            assert piece["version"] >= view["version"]
            names = {row["name"] for row in piece["rows"]}
            assert not names & found
            found |= names
            following = piece["next"]
        assert {str(number) for number in range(10)} == found
        assert [] == json.loads(shown.board.after(1000, 4))["rows"]


@pytest.mark.parametrize("distance", [-EVERYTHING, -1, 1, EVERYTHING])
def test_a_viewer_that_knows_another_board_begins_anew(distance: int) -> None:
    """For example one that has seen this page before its process was started again."""
    shown = Shown()
    first = shown.board._oldest
    last = shown.begin()["version"]
    assert shown.board.since(first, 1) is not None
    assert shown.board.since(last, 1) is not None
    assert shown.board.since((last if distance > 0 else first) + distance, 1) is None


async def test_a_viewer_that_has_missed_too_much_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("namedtasks.status._board.MOST_GONE", 3)
    shown = Shown()
    async with open_task_map(instruments=[shown.watch]) as tasks:
        before = shown.begin()["version"]
        for number in range(4):
            tasks.start_soon(number, fail)
        await tasks.wait_idle()
        version = shown.begin()["version"]
        for number in range(4):
            tasks.forget(number)
        assert shown.board.since(before, EVERYTHING) is not None
        shown.board.look()
        assert shown.board.since(before, 1) is None
        assert shown.board.since(version, 1) is None
        assert shown.board.since(version + 1, 1) is not None


def test_the_numbers_of_two_boards_are_far_apart() -> None:
    """Also of two that are made in the same millisecond."""
    one, other = Shown(), Shown()
    assert other.board.since(one.begin()["version"], 1) is None


def test_a_viewer_gets_everything_though_all_of_it_changes_all_the_time() -> None:
    """It gets the numbers and the newest events each time, and the rows in turn."""
    shown, clock = Shown(keep_events=10), ManualClock()
    names = [f"pvc-{number}" for number in range(60)]
    ended_at: dict[str, float] = {}
    with ThreadTaskMap(instruments=[shown.watch], clock=clock, keep_outcomes=100) as tasks:
        number = shown.begin()["version"]
        for turn in range(40):
            clock.advance(1)
            tasks.submit(f"broken-{turn}", fail_now).exception()
            for name in names:
                tasks.submit(name, int).result()
            tasks.wait_free("nobody")  # which delivers the events
            update, number = shown.since(number, 2_000)
            assert turn + 1 == update["counts"]["failing"]
            assert turn + 1 == update["maps"][0]["waiting"]
            ended_at |= {row["name"]: row["last"]["ended_at"] for row in update.get("rows", ())}
            newest = update["events"][-1]["id"]
            assert turn * 122 < newest <= (turn + 1) * 122
    assert set(names) < ended_at.keys()
    assert min(ended_at[name] for name in names) > 10


@pytest.mark.parametrize("most", [1, 100, 1_000, 20_000])
def test_a_viewer_gets_every_row_however_small_the_pieces(most: int) -> None:
    """Although new events come before the rows in each piece."""
    shown = Shown(keep_events=10)
    rows: dict[int, str] = {}
    with ThreadTaskMap(instruments=[shown.watch], keep_outcomes=100) as tasks:
        number = shown.begin()["version"]
        for turn in range(30):
            tasks.submit(f"pvc-{turn}", int).result()
            tasks.wait_idle()
            update, number = shown.since(number, most)
            rows |= {row["id"]: row["state"] for row in update.get("rows", ())}
        while (found := shown.board.since(number, most)) is not None and found[0]:
            update, number = json.loads(found[0]), found[1]
            rows |= {row["id"]: row["state"] for row in update.get("rows", ())}
        assert rows == {one: entry.facts.state for one, entry in shown.board._entries.items()}
        assert len(rows) == 30


def test_routine_events_do_not_displace_failures_in_an_update() -> None:
    shown = Shown(keep_events=100)
    with ThreadTaskMap(instruments=[shown.watch]) as tasks:
        number = shown.begin()["version"]
        tasks.submit("broken", fail_now).exception()
        for turn in range(50):
            tasks.submit(f"pvc-{turn}", int).result()
        tasks.wait_idle()
        update, _ = shown.since(number, 2_000)
    kinds = [event["kind"] for event in update["events"]]
    assert "failed" == kinds[0]
    assert 1 < len(kinds) < 20


async def test_a_viewer_whose_place_is_forgotten_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("namedtasks.status._board.MOST_SWEEPS", 2)
    shown = Shown()
    async with open_task_map(instruments=[shown.watch]) as tasks:
        before = shown.begin()["version"]
        for number in range(4):
            tasks.start_soon(number, fail)
        await tasks.wait_idle()
        _, first = shown.since(before, 1)
        _, second = shown.since(first, 1)
        assert shown.board.since(first, 1) is not None
        shown.since(second, 1)
        assert shown.board.since(first, 1) is None
        assert shown.board.since(before, 1) is None  # it may be one that is forgotten


async def test_events_that_are_forgotten_are_not_sent() -> None:
    shown = Shown(keep_events=2)
    begun = shown.begin()["version"]
    for number in range(5):
        event = TaskStarted(name=number, operation=None, at=0.0, failures=0)
        shown.watch.task_started(event)
        shown.board.look()
    update, _ = shown.since(begun)
    assert ["3", "4"] == [event["name"] for event in update["events"]]
    assert ["3", "4"] == [event["name"] for event in shown.begin()["events"]]
    assert "operation" not in update["events"][0]


def test_nobody_looks_twice_in_a_short_time() -> None:
    shown = Shown()
    with ThreadTaskMap(instruments=[shown.watch]):
        shown.board.look(3600)
        assert "open" == shown.board.summaries()[0].status
    shown.board.look(3600)
    assert "open" == shown.board.summaries()[0].status
    shown.board.look()
    assert "closed" == shown.board.summaries()[0].status


async def test_names_are_selected_by_map_state_and_prefix() -> None:
    shown = Shown("volumes", "nodes")
    one, other = shown.watches.values()
    async with (
        open_task_map(instruments=[one], backoff=Backoff(initial=600)) as volumes,
        open_task_map(instruments=[other]) as nodes,
    ):
        for name in ("vol-2", "vol-1", "snap-1"):
            volumes.start_soon(name, fail)
        volumes.start_soon("vol-1", fail, operation="attach", if_busy="queue")
        await volumes.wait_idle()
        nodes.start_soon("vol-3", trio.sleep, 60)
        shown.board.look()

        def names(
            label: str | None = None, states: Any = STATES, prefix: str = "", most: int = 100
        ) -> list[str]:
            found = shown.board.select(label, states, prefix, None, most)
            return [json.loads(wire)["name"] for wire in found.rows]

        assert ["vol-3", "snap-1", "vol-1", "vol-1", "vol-2"] == names()
        assert ["snap-1", "vol-1", "vol-1", "vol-2"] == names("volumes")
        assert [] == names("pods")
        assert ["vol-3"] == names(states=["running"])
        assert ["vol-3", "vol-1", "vol-1", "vol-2"] == names(prefix="vol-")
        pieces: list[str] = []
        after = None
        while True:
            found = shown.board.select(None, STATES, "", after, 2)
            assert 5 == found.total
            pieces += [json.loads(wire)["name"] for wire in found.rows]
            after = found.more_after
            if after is None:
                break
        assert names() == pieces
        nodes.cancel_all()


def test_a_board_may_be_looked_at_by_many_threads() -> None:
    shown = Shown()
    stop = threading.Event()
    problems: list[BaseException] = []

    def watch() -> None:
        try:
            view = Viewer(shown)
            while not stop.is_set():
                view.catch_up(500)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    with ThreadTaskMap(instruments=[shown.watch], keep_outcomes=20) as tasks:
        for number in range(300):
            fn: Any = fail_now if number % 2 else int
            tasks.submit(number % 50, fn, if_busy="skip", backoff=None)
        tasks.wait_idle()
        stop.set()
        for thread in threads:
            thread.join()
        assert [] == problems
        view = Viewer(shown)
        assert 20 == len(view.rows)


def fail_now() -> None:
    raise OSError("device busy")


# Whatever happens, a viewer that applies what it gets shows what the board has


class Viewer:
    """Does what page.js does."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        view = shown.begin(EVERYTHING)
        self._version: int = view["version"]
        self.rows = {row["id"]: row for row in view["rows"]}
        self.counts = view["counts"]
        self.maps = {one["map"]: one for one in view["maps"]}

    def catch_up(self, most_bytes: int) -> bool:
        """Apply what has changed; return False if there is nothing more."""
        self._shown.board.look()
        found = self._shown.board.since(self._version, most_bytes)
        if found is None:
            self.__init__(self._shown)  # type: ignore[misc]
            return False
        wire, self._version = found
        update = json.loads(wire or b"{}")
        self.rows |= {row["id"]: row for row in update.get("rows", ())}
        for number in update.get("gone", ()):
            self.rows.pop(number, None)
        self.counts = update.get("counts", self.counts)
        self.maps |= {one["map"]: one for one in update.get("maps", ())}
        return bool(wire)


NAMES = st.integers(0, 5)


class Viewers(RuleBasedStateMachine):
    """Viewers that look now and then, some in small pieces, while the names of a map change."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.shown = Shown()
        self.tasks = ThreadTaskMap(
            clock=self.clock,
            instruments=[self.shown.watch],
            backoff=Backoff(initial=1, give_up_after=3),
            keep_outcomes=3,
            retention=20,
        )
        self.viewers: list[Viewer] = []

    @rule(name=NAMES, fn=st.sampled_from([int, fail_now]), operation=st.sampled_from([None, "a"]))
    def run(self, name: int, fn: Any, operation: str | None) -> None:
        future = self.tasks.submit(name, fn, operation=operation, if_busy="skip")
        if future is not None:
            future.exception()

    @rule(name=NAMES)
    def forget(self, name: int) -> None:
        self.tasks.forget(name)

    @rule(seconds=st.integers(1, 30))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: len(self.viewers) < 3)
    @rule()
    def join(self) -> None:
        self.viewers.append(Viewer(self.shown))

    @precondition(lambda self: self.viewers)
    @rule(place=st.integers(0, 2), most_bytes=st.sampled_from([1, 300, EVERYTHING]))
    def look(self, place: int, most_bytes: int) -> None:
        self.viewers[place % len(self.viewers)].catch_up(most_bytes)

    @invariant()
    def the_board_agrees_with_itself(self) -> None:
        fresh = Viewer(self.shown)
        rows = fresh.rows.values()
        for state in STATES:
            assert fresh.counts[state] == sum(row["state"] == state for row in rows)
        assert fresh.counts["failing"] == sum("failures" in row for row in rows)

    def teardown(self) -> None:
        for viewer in self.viewers:
            while viewer.catch_up(100):
                pass
            fresh = Viewer(self.shown)
            assert fresh.rows == viewer.rows
            assert fresh.counts == viewer.counts
            assert fresh.maps == viewer.maps
        self.tasks.shutdown()


TestViewers = Viewers.TestCase
TestViewers.settings = settings(deadline=None, max_examples=50)
