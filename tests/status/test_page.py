"""The page as an ASGI app: its files, its headers, its probes, and where it is mounted."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
import threading
from html.parser import HTMLParser
from typing import Any

import pytest
import trio
from starlette.applications import Starlette
from starlette.routing import Mount

import namedtasks.asyncio
import namedtasks.status
from namedtasks import LoggingInstrument, ThreadTaskMap, open_task_map
from namedtasks.abc import Instrument
from namedtasks.status import StatusPage
from namedtasks.status._hosts import HOSTS, Hosts
from tests.status.asgi import ask

FILES = {
    "/": "text/html; charset=utf-8",
    "/page.css": "text/css; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
    "/api/openapi.json": "application/json",
}


def test_without_starlette_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    message = r"^namedtasks\.status needs Starlette: pip install namedtasks\[status\]$"
    with pytest.raises(ImportError, match=message):
        importlib.reload(namedtasks.status)


# Instruments


def test_a_label_has_one_instrument() -> None:
    page = StatusPage()
    assert isinstance(page.instrument(), Instrument)
    assert page.instrument() is page.instrument("tasks")
    assert page.instrument("volumes") is not page.instrument("nodes")


async def test_a_page_shows_maps_of_all_dialects() -> None:
    """From any thread, whether it is served before they are opened or after that."""
    page = StatusPage()
    done = threading.Event()

    async def on_asyncio() -> None:
        instruments = [page.instrument("asyncio")]
        async with namedtasks.asyncio.open_task_map(instruments=instruments) as tasks:
            task = tasks.create_task("vol-1", asyncio.sleep, 600)
            await asyncio.to_thread(done.wait)
            task.cancel()

    instruments = [LoggingInstrument(), page.instrument("trio")]
    threads = ThreadTaskMap(instruments=[page.instrument("threads")])
    threads.submit("vol-1", done.wait)
    async with trio.open_nursery() as nursery:
        async with open_task_map(instruments=instruments) as tasks:
            nursery.start_soon(trio.to_thread.run_sync, lambda: asyncio.run(on_asyncio()))
            tasks.start_soon("vol-1", trio.sleep, 600)
            names: list[Any] = []
            while len(names) < 3:
                answer = await trio.to_thread.run_sync(ask, page, "/api/names")
                names = answer.json["names"]
            assert ["asyncio", "threads", "trio"] == [one["map"] for one in names]
            assert {"vol-1"} == {one["name"] for one in names}
            done.set()
            tasks.cancel_all()
    threads.shutdown()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"title": ""}, "title must have 1 to 100 characters, not 0"),
        ({"title": "x" * 101}, "title must have 1 to 100 characters, not 101"),
        ({"interval": 0}, "interval must be at least 0.01 and at most 3600, not 0"),
        ({"keep_events": -1}, "keep_events must be at least 0, not -1"),
        ({"keep_events": 10_001}, "keep_events must be at most 10000, not 10001"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        StatusPage(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"title": 1}, "title must be a text, not 1"),
        ({"interval": "1"}, "interval must be a number, not '1'"),
        ({"keep_events": None}, "keep_events must be a whole number, not None"),
        ({"keep_events": 1.5}, "keep_events must be a whole number, not 1.5"),
        ({"keep_events": True}, "keep_events must be a whole number, not True"),
    ],
)
def test_a_setting_of_the_wrong_type_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        StatusPage(**arguments)


def test_a_label_is_a_short_text() -> None:
    with pytest.raises(TypeError, match=r"^label must be a text, not <ThreadTaskMap"):
        StatusPage().instrument(_Shown("<ThreadTaskMap>"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^label must have 1 to 100 characters, not 0$"):
        StatusPage().instrument("")


class _Shown:
    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __repr__(self) -> str:
        return self._shown


def test_a_page_says_which_maps_it_has() -> None:
    page = StatusPage()
    assert "<namedtasks.status.StatusPage no maps>" == repr(page)
    page.instrument("volumes")
    page.instrument("nodes")
    shown = "<namedtasks.status.StatusPage volumes: not opened, nodes: not opened>"
    assert shown == repr(page)


# Answers


@pytest.mark.parametrize(("target", "media_type"), FILES.items())
def test_the_files_of_the_page_are_there(target: str, media_type: str) -> None:
    answer = ask(StatusPage(), target)
    assert (200, media_type) == (answer.status, answer.headers["content-type"])
    assert answer.body


@pytest.mark.parametrize(
    "target", [*FILES, "/api/", "/api/names?limit=x", "/none", "/healthz", "/readyz", "/api/stream"]
)
@pytest.mark.parametrize("token", [None, "secret"])
def test_every_answer_keeps_the_browser_safe(target: str, token: str | None) -> None:
    answer = ask(StatusPage(token=token), target, method="HEAD")
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert "'none'" == policy["default-src"]
    assert {"'self'", "'none'"} == set(policy.values())
    assert "'none'" == policy["frame-ancestors"]
    assert {
        "cache-control": "no-store, no-transform",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
    }.items() <= answer.headers.items()


@pytest.mark.parametrize("target", [*FILES, "/api/", "/api/names", "/api/stream", "/healthz"])
def test_a_head_has_no_body(target: str) -> None:
    answer = ask(StatusPage(), target, method="HEAD")
    assert (200, b"") == (answer.status, answer.body)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs), attrs
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        self.scripts += tag == "script"


def test_the_page_asks_no_other_host_and_works_under_any_address() -> None:
    page = StatusPage()
    parser = _Links()
    parser.feed(ask(page, "/").text)
    assert 1 == parser.scripts
    for link in parser.links:
        assert re.fullmatch(r"[a-z][a-z./]*", link), link
        assert 200 == ask(page, f"/{link}").status
    for file in ("/page.js", "/page.css"):
        text = ask(page, file).text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"//\w+\.|innerHTML|insertAdjacent|document\.write|eval\(", text)
    icon = ask(page, "/icon.svg").text.replace("http://www.w3.org/2000/svg", "")
    assert "http" not in icon


def test_mounted_in_another_app_it_has_the_same_answers() -> None:
    page = StatusPage()
    app = Starlette(routes=[Mount("/internal/status", page)])
    for target in (*FILES, "/api/", "/healthz"):
        assert 200 == ask(app, f"/internal/status{target}").status
    assert 307 == ask(app, "/internal/status").status
    assert 404 == ask(app, "/internal/status/none").status
    assert 404 == ask(app, "/api/").status


def test_a_server_may_have_told_it_where_it_is() -> None:
    page = StatusPage()
    assert 200 == ask(page, "/status/api/", added={"root_path": "/status"}).status
    assert 200 == ask(page, "/api/", added={"root_path": "/status"}).status


async def test_it_may_be_the_whole_app() -> None:
    """Then the server tells it of its lifespan."""
    page = StatusPage()
    sent: list[Any] = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        await trio.lowlevel.checkpoint()
        return next(messages)

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message["type"])

    await page({"type": "lifespan", "app": None, "state": {}}, receive, send)
    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == sent


# Probes


async def test_the_process_is_healthy_if_it_answers() -> None:
    page = StatusPage()
    async with open_task_map(instruments=[page.instrument()]) as tasks:
        tasks.close()
        answer = await trio.to_thread.run_sync(ask, page, "/healthz")
    assert (200, "ok\n") == (answer.status, answer.text)


def test_it_is_ready_if_every_map_accepts_starts() -> None:
    """Not if nothing fails: a failure is no reason to take a server out of service."""
    page = StatusPage()

    def ready() -> tuple[int, str]:
        answer = ask(page, "/readyz")
        return answer.status, answer.text

    assert (200, "no maps\n") == ready()
    page.instrument("volumes")
    page.instrument("nodes")
    assert (503, "volumes: not opened\nnodes: not opened\n") == ready()
    with ThreadTaskMap(instruments=[page.instrument("volumes")]) as volumes:
        volumes.submit("vol-1", int, "x").exception()
        with ThreadTaskMap(instruments=[page.instrument("nodes")]) as nodes:
            assert (200, "volumes: open\nnodes: open\n") == ready()
            done = threading.Event()
            nodes.submit("node-1", done.wait)
            nodes.close()
            assert (503, "volumes: open\nnodes: closing\n") == ready()
            done.set()
        assert (503, "volumes: open\nnodes: closed\n") == ready()


# Names of the host


@pytest.mark.parametrize("listens", ["127.0.0.1", "::1", "localhost", "127.8.0.1"])
@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("localhost", True),
        ("localhost:8080", True),
        ("LOCALHOST:8080", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("[::1]", True),
        ("status.localhost:8080", True),
        ("attacker.example", False),
        ("attacker.example:8080", False),
        ("127.0.0.1.attacker.example", False),
        ("10.0.0.1:8080", False),
        ("", False),
        ("localhost:8080:8080", False),
    ],
)
def test_a_local_page_without_a_token_answers_to_local_names(
    listens: str, host: str, is_local: bool
) -> None:
    """Another site could have its own name lead to this machine, and read the answer."""
    added = {HOSTS: Hosts(listens)}
    for target in ("/", "/api/", "/healthz"):
        answer = ask(StatusPage(), target, headers={"host": host}, added=added)
        assert (200 if is_local else 421) == answer.status
        if not is_local:
            assert "it answers only to the names of this machine" in answer.json["detail"]
            assert "DENY" == answer.headers["x-frame-options"]
        # Another site does not have the cookie.
        assert 421 != ask(StatusPage(token="x"), target, headers={"host": host}, added=added).status


@pytest.mark.parametrize("listens", ["0.0.0.0", "::", "10.0.0.1", "status.example"])
def test_a_page_for_other_machines_answers_to_any_name(listens: str) -> None:
    added = {HOSTS: Hosts(listens)}
    assert 200 == ask(StatusPage(), "/", headers={"host": "status.example"}, added=added).status


def test_a_mounted_page_answers_to_any_name() -> None:
    """The server knows its names."""
    assert 200 == ask(StatusPage(), "/", headers={"host": "status.example"}).status


# Texts


def test_markup_stays_text() -> None:
    page = StatusPage(title="<script>alert(1)</script>", interval=0.01)
    with ThreadTaskMap(instruments=[page.instrument("<b>\x00")]) as tasks:
        tasks.submit("<img src=x onerror=alert(1)>\r\n", int, "</script>\ud800").exception()
        for target in ("/api/", "/api/names", "/api/events", "/api/snapshot"):
            answer = ask(page, target)
            assert "application/json" == answer.headers["content-type"]
            assert b"\r" not in answer.body
            assert json.loads(answer.body.decode())
        assert (
            "<img src=x onerror=alert(1)>\\r\\n" == ask(page, "/api/names").json["names"][0]["name"]
        )
