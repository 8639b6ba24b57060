"""The JSON API, as its description says."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from namedtasks import Backoff, ThreadTaskMap
from namedtasks.status import StatusPage
from namedtasks.status._board import Board
from namedtasks.status._entries import STATES
from namedtasks.testing import ManualClock
from tests.status.asgi import ask
from tests.status.test_watch import BrokenClock

DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def fail() -> None:
    raise OSError("device busy")


@pytest.fixture
def page() -> StatusPage:
    return StatusPage(title="volume controller", interval=0.01)


@pytest.fixture
def tasks(page: StatusPage) -> Iterator[ThreadTaskMap]:
    clock = ManualClock(100)
    with ThreadTaskMap(
        clock=clock,
        instruments=[page.instrument("volumes")],
        backoff=Backoff(initial=60),
        keep_outcomes=100,
    ) as tasks:
        tasks.submit("vol-1", fail, operation="attach").exception()
        tasks.submit("vol-2", clock.advance, 5).result()
        yield tasks


def test_the_overview_has_the_maps_in_numbers(page: StatusPage, tasks: ThreadTaskMap) -> None:
    answer = ask(page, "/api/")
    assert (200, "application/json") == (answer.status, answer.headers["content-type"])
    overview = answer.json
    assert {"title", "now", "counts", "maps"} == overview.keys()
    assert "volume controller" == overview["title"]
    assert DATE.fullmatch(overview["now"])
    assert (1, 1) == (overview["counts"]["waiting"], overview["counts"]["ended"])
    (one,) = overview["maps"]
    assert ("volumes", "open", True, 1) == tuple(
        one[field] for field in ("map", "status", "accepts_starts", "waiting")
    )
    assert one["oldest_run_since"] is None


def test_a_name_has_all_its_fields(page: StatusPage, tasks: ThreadTaskMap) -> None:
    """Also those that do not apply; times are dates, and count from now as on the map's clock."""
    answer = ask(page, "/api/names").json
    assert (2, None) == (answer["total"], answer["continue"])
    failed, ended = answer["names"]
    schema = description()["components"]["schemas"]["Name"]["properties"]
    assert failed.keys() == ended.keys() == schema.keys()
    assert {
        "map": "volumes",
        "name": "vol-1",
        "operation": "attach",
        "state": "waiting",
        "failures": 1,
        "error": "OSError: device busy",
        "overdue": False,
        "pending": None,
        "holder": None,
        "deadline": None,
        "stopping_at": None,
    }.items() <= failed.items()
    assert seconds(answer["now"], failed["retry_at"]) == pytest.approx(55)
    assert seconds(answer["now"], failed["since"]) == pytest.approx(-5)
    assert failed["since"] == failed["failing_since"] == failed["failed_at"]
    assert ("failed", "OSError: device busy") == (failed["last"]["status"], failed["last"]["error"])
    assert ("ended", 0, None) == (ended["state"], ended["failures"], ended["error"])
    assert {
        "status": "succeeded",
        "ended_at": answer["now"],
        "duration": 5.0,
        "error": None,
    } == ended["last"]


def test_a_name_without_an_outcome_has_none(page: StatusPage) -> None:
    with ThreadTaskMap(instruments=[page.instrument()]) as tasks:
        tasks.submit("vol-1", fail).exception()
        assert ask(page, "/api/names").json["names"][0]["last"] is None


def test_a_map_that_is_opened_during_a_request_does_not_disturb_it(
    page: StatusPage, tasks: ThreadTaskMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be shown or not."""
    with contextlib.ExitStack() as stack:
        look = Board.look

        def look_and_open(board: Board, most_age: float = 0.0) -> None:
            monkeypatch.setattr(Board, "look", look)
            instrument = page.instrument("new")
            opened = stack.enter_context(ThreadTaskMap(instruments=[instrument]))
            opened.submit("vol-3", fail).exception()
            board.look(most_age)

        for target in ("", "names"):
            monkeypatch.setattr(Board, "look", look_and_open)
            assert 200 == ask(page, f"/api/{target}").status
            stack.close()


@pytest.mark.parametrize("path", ["/api/", "/api/names", "/api/snapshot", "/api/events", "/readyz"])
def test_a_map_whose_clock_raises_does_not_hide_the_others(path: str) -> None:
    page, clock = StatusPage(interval=0.01), BrokenClock()
    with (
        ThreadTaskMap(instruments=[page.instrument("broken")], clock=clock),
        ThreadTaskMap(instruments=[page.instrument("sound")]) as tasks,
    ):
        tasks.submit("vol-1", fail).exception()
        clock.is_broken = True
        answer = ask(page, path)
        clock.is_broken = False
    assert 200 == answer.status
    assert "sound" in answer.text


def seconds(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def description() -> Any:
    return ask(StatusPage(), "/api/openapi.json").json


def test_names_come_in_pieces(page: StatusPage) -> None:
    found: list[str] = []
    with ThreadTaskMap(instruments=[page.instrument()], backoff=Backoff(initial=600)) as tasks:
        for number in range(7):
            tasks.submit(number, fail).exception()
        following = ""
        while following is not None:
            answer = ask(page, f"/api/names?limit=3{following and '&continue='}{following}").json
            found += [one["name"] for one in answer["names"]]
            assert 7 == answer["total"]
            following = answer["continue"]
    assert ["0", "1", "2", "3", "4", "5", "6"] == found


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("state=waiting", ["vol-1"]),
        ("state=ended", ["vol-2"]),
        ("prefix=vol-2", ["vol-2"]),
        ("prefix=ol", []),
        ("map=volumes", ["vol-1", "vol-2"]),
        ("map=nodes", []),
        ("map=volumes&state=ended&prefix=vol&limit=500", ["vol-2"]),
    ],
)
def test_names_are_filtered(
    page: StatusPage, tasks: ThreadTaskMap, query: str, names: list[str]
) -> None:
    assert names == [one["name"] for one in ask(page, f"/api/names?{query}").json["names"]]


def token(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        ("names?limit=0", "limit must be a number from 1 to 500"),
        ("names?limit=501", "limit must be a number from 1 to 500"),
        ("names?limit=-1", "limit must be a number from 1 to 500"),
        ("names?limit=%C2%B2", "limit must be a number from 1 to 500"),
        ("names?limit=", "limit must be a number from 1 to 500"),
        ("names?limit=" + "9" * 5000, "limit must be a number from 1 to 500"),
        ("names?state=sleeping", f"state must be one of {', '.join(STATES)}"),
        (
            "names?states=waiting",
            "unknown parameter states: choose from map, state, prefix, limit, continue",
        ),
        ("events?since=1", "unknown parameter since: choose from after"),
        ("snapshot?%0D=1", "unknown parameter \\r: choose from after"),
        ("events?after=x", "after must be a number from 0 to 9223372036854775808"),
        ("snapshot?after=x", "after must be a number from 0 to 9223372036854775808"),
    ],
)
def test_a_bad_parameter_is_refused(page: StatusPage, target: str, detail: str) -> None:
    answer = ask(page, f"/api/{target}")
    assert (400, {"detail": detail}) == (answer.status, answer.json)


@pytest.mark.parametrize(
    "piece",
    [
        "",
        "x",
        "%FF",
        "%C3%A9",
        token("a"),
        token("a\0b\0c"),
        token("a\0b\0c\0d"),
        token("a\0b\0c\0" + "1" * 5000),
        token("a\0b\0c\0001\0002"),
    ],
)
def test_a_piece_that_no_answer_has_named_is_not_found(page: StatusPage, piece: str) -> None:
    answer = ask(page, f"/api/names?continue={piece}")
    detail = "there is no such piece: take the value of 'continue' in an earlier answer"
    assert (404, {"detail": detail}) == (answer.status, answer.json)


def test_the_recent_events_have_numbers(page: StatusPage, tasks: ThreadTaskMap) -> None:
    tasks.close()
    tasks.wait_idle()
    tasks.shutdown()
    events = ask(page, "/api/events").json["events"]
    assert ["started", "failed", "started", "succeeded"] == [one["kind"] for one in events]
    assert [1, 2, 3, 4] == [one["id"] for one in events]
    assert all(DATE.fullmatch(one["at"]) for one in events)
    assert ("attach", "OSError: device busy", 60.0) == tuple(
        events[1][field] for field in ("operation", "error", "retry_in")
    )
    assert events[2:] == ask(page, "/api/events?after=2").json["events"]
    known = description()["components"]["schemas"]["Event"]["properties"].keys()
    assert all(one.keys() <= known for one in events)


def test_the_snapshot_is_what_the_page_begins_with(page: StatusPage, tasks: ThreadTaskMap) -> None:
    first = ask(page, "/api/snapshot").json
    assert ["vol-1", "vol-2"] == [row["name"] for row in first["rows"]]
    assert first["next"] is None
    after = ask(page, f"/api/snapshot?after={first['rows'][0]['id']}").json
    assert ["vol-2"] == [row["name"] for row in after["rows"]]
    schemas = description()["components"]["schemas"]
    assert first.keys() <= schemas["Snapshot"]["properties"].keys()
    assert first["maps"][0].keys() == schemas["MapRow"]["properties"].keys()
    assert first["counts"].keys() == schemas["Counts"]["properties"].keys()
    assert first["rows"][0].keys() <= schemas["Row"]["properties"].keys()


def test_an_unknown_address_is_not_found(page: StatusPage) -> None:
    answer = ask(page, "/api/names/vol-1")
    assert (404, {"detail": "Not Found"}) == (answer.status, answer.json)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("target", ["/", "/api/", "/api/names", "/api/stream", "/healthz"])
def test_nothing_can_be_changed(page: StatusPage, method: str, target: str) -> None:
    answer = ask(page, target, method=method)
    assert 405 == answer.status
    assert {"GET", "HEAD"} == set(answer.headers["allow"].split(", "))


def test_the_description_has_every_endpoint() -> None:
    paths = description()["paths"]
    assert {
        "/api/",
        "/api/names",
        "/api/events",
        "/api/snapshot",
        "/api/stream",
        "/api/session",
        "/api/openapi.json",
        "/healthz",
        "/readyz",
    } == paths.keys()
    for path in paths.keys() - {"/api/stream", "/api/session", "/readyz"}:
        assert 200 == ask(StatusPage(), path).status
