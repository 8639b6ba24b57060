"""Live updates: what a browser gets, how it goes on after a break, and when a stream ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
import trio
import uvicorn
from starlette.responses import PlainTextResponse

from namedtasks import Backoff, TaskMap, ThreadTaskMap, open_task_map
from namedtasks.status import StatusPage, _stream
from tests.status.asgi import ask, request, scope_of, stream


async def fail(text: str = "device busy") -> None:
    await trio.lowlevel.checkpoint()
    raise OSError(text)


def new_page() -> StatusPage:
    return StatusPage(interval=0.01)


async def version_of(page: StatusPage) -> int:
    await request(page, "GET", "/api/", {}, {})  # which looks anew
    answer = await request(page, "GET", "/api/snapshot", {}, {})
    version: int = answer.json["version"]
    return version


async def fail_names(tasks: TaskMap, count: int, text: str = "device busy") -> None:
    for number in range(count):
        tasks.start_soon(number, fail, text, backoff=Backoff(initial=600))
    await tasks.wait_idle()


async def test_a_stream_has_what_has_changed_since_a_snapshot() -> None:
    page = new_page()
    async with open_task_map(instruments=[page.instrument()]) as tasks:
        await fail_names(tasks, 2)
        since = await version_of(page)
        async with stream(page, f"/api/stream?since={since}") as events:
            assert 200 == events.status
            assert "text/event-stream; charset=utf-8" == events.headers["content-type"]
            assert "no" == events.headers["x-accel-buffering"]
            tasks.start_soon("vol-1", fail, backoff=Backoff(initial=600))
            await tasks.wait_idle()
            name, number, data = await events.next()
            assert "namedtasks.update" == name
            assert ["vol-1"] == [row["name"] for row in data["rows"]]
            assert number is not None
            assert number > since


async def test_a_browser_goes_on_where_it_was() -> None:
    """It sends the id of its last event, which wins over the address of the stream."""
    page = new_page()
    async with open_task_map(instruments=[page.instrument()]) as tasks:
        before = await version_of(page)
        await fail_names(tasks, 1)
        since = await version_of(page)
        tasks.start_soon("vol-1", fail, backoff=Backoff(initial=600))
        await tasks.wait_idle()
        headers = {"Last-Event-ID": str(since)}
        async with stream(page, f"/api/stream?since={before}", headers=headers) as events:
            _, _, data = await events.next()
            assert ["vol-1"] == [row["name"] for row in data["rows"]]


@pytest.mark.parametrize(
    "since",
    ["", "?since=", "?since=0", "?since=-1", "?since=x", "?since=%C2%B2", "?since=" + "9" * 30],
)
async def test_a_browser_that_knows_nothing_of_it_begins_anew(since: str) -> None:
    page = new_page()
    async with stream(page, f"/api/stream{since}") as events:
        assert ("namedtasks.resync", None, {}) == await events.next()
        await events.end()


async def test_a_stream_without_changes_tells_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a browser knows that the server lives."""
    monkeypatch.setattr(_stream, "PULSE", 0.0)
    page = new_page()
    page.instrument("volumes")
    since = await version_of(page)
    async with stream(page, f"/api/stream?since={since}") as events:
        for _ in range(2):
            name, number, data = await events.next()
            assert ("namedtasks.tick", None) == (name, number)
            assert {"at", "now"} == data.keys()
            assert {"volumes"} == data["now"].keys()


async def test_a_stream_ends_before_it_can_fill_a_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read would else hold up its server; the next stream goes on."""
    monkeypatch.setattr(_stream, "MOST_BYTES", 2000)
    page = new_page()
    async with open_task_map(instruments=[page.instrument()]) as tasks:
        since = await version_of(page)
        await fail_names(tasks, 30)
        names: set[str] = set()
        streams = 0
        while len(names) < 30:
            streams += 1
            async with stream(page, f"/api/stream?since={since}") as events:
                _, number, data = await events.next()
                assert number is not None
                since = number
                names |= {row["name"] for row in data.get("rows", ())}
                if len(names) < 30:
                    await events.end()
        assert streams > 2


async def test_two_viewers_share_a_look() -> None:
    page = new_page()
    async with open_task_map(instruments=[page.instrument()]) as tasks:
        since = await version_of(page)
        address = f"/api/stream?since={since}"
        await fail_names(tasks, 1)
        async with stream(page, address) as one, stream(page, address) as other:
            assert (await one.next())[2]["rows"] == (await other.next())[2]["rows"]


async def test_a_client_that_goes_ends_its_stream() -> None:
    page = new_page()
    since = await version_of(page)
    async with stream(page, f"/api/stream?since={since}") as events:
        events.leave()
    # The block ends only when the app has ended.


async def test_a_server_that_raises_when_the_client_is_gone_is_understood() -> None:
    """As servers do from version 2.4 of the specification on."""
    async with stream(new_page(), "/api/stream?since=1", raises=OSError("gone")) as events:
        await trio.testing.wait_all_tasks_blocked()
        events.leave()


async def test_ctrl_c_comes_out_of_a_stream_bare() -> None:
    """hypercorn on trio goes on after a group of exceptions."""

    async def receive() -> Any:
        await trio.sleep_forever()

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.body":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await new_page()(scope_of("GET", "/api/stream", {}, {}), receive, send)


def test_a_head_opens_no_stream() -> None:
    answer = ask(new_page(), "/api/stream", method="HEAD")
    assert (200, b"") == (answer.status, answer.body)
    assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]


# Servers that stop


async def test_a_stream_ends_when_its_server_says_that_it_stops() -> None:
    page = new_page()
    stopping = False
    added: dict[str, Any] = {_stream.STOPPING: lambda: stopping}
    since = await version_of(page)
    async with stream(page, f"/api/stream?since={since}", added=added) as events:
        stopping = True
        await events.end()


@pytest.fixture
def uvicorn_server() -> Iterator[SimpleNamespace]:
    """The handler of SIGTERM in a process that uvicorn serves."""

    class Server(SimpleNamespace):
        def handle_exit(self, number: int, frame: object) -> None:
            raise AssertionError

    listener: Any = SimpleNamespace(
        get_loop=asyncio.get_running_loop,
        sockets=[SimpleNamespace(getsockname=lambda: ("127.0.0.1", 80))],
    )
    server = Server(should_exit=False, servers=[listener])
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    yield server
    signal.signal(signal.SIGTERM, before)


def stream_on_asyncio(page: StatusPage, until: Callable[[list[bytes]], object]) -> list[bytes]:
    """Return what a stream has sent by its end; *until* is called with each part."""
    sent: list[bytes] = []

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        until(sent)

    async def main() -> None:
        since = await version_of(page)
        await page(scope_of("GET", f"/api/stream?since={since}", {}, {}), receive, send)

    anyio.run(main, backend="asyncio")
    return sent


def test_a_stream_on_asyncio_ends_when_uvicorn_stops(uvicorn_server: SimpleNamespace) -> None:
    """Nobody tells an app of it, but the server is what handles SIGTERM."""

    def until(sent: list[bytes]) -> None:
        uvicorn_server.should_exit = True

    assert [b"", b"retry: 250\n\n", b""] == stream_on_asyncio(new_page(), until)


def test_a_stream_on_asyncio_is_short_if_nobody_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stream, "SHORT_LIFE", 0.0)
    assert [b"", b"retry: 250\n\n", b""] == stream_on_asyncio(new_page(), len)


def test_a_stream_on_asyncio_ends_when_its_uvicorn_is_gone(uvicorn_server: SimpleNamespace) -> None:
    def until(sent: list[bytes]) -> None:
        if len(sent) == 2:
            del uvicorn_server.should_exit

    assert [b"", b"retry: 250\n\n", b""] == stream_on_asyncio(new_page(), until)


@pytest.mark.parametrize(
    "other",
    [{"server": ("127.0.0.1", 81)}, {"server": ("/run/status.sock", None)}, {"server": None}, {}],
)
async def test_a_second_server_of_the_process_is_not_taken_for_the_first(
    other: dict[str, Any], uvicorn_server: SimpleNamespace
) -> None:
    """Its streams would not notice that it stops, but for their short lives."""

    async def main(scope: dict[str, Any]) -> bool:
        return _stream._stopping_of(scope) is None

    def run(scope: dict[str, Any]) -> bool:
        return anyio.run(main, scope, backend="asyncio")

    assert await trio.to_thread.run_sync(run, other)
    first = {"server": ("127.0.0.1", 80)}
    assert not await trio.to_thread.run_sync(run, first)
    uvicorn_server.servers[0].get_loop = lambda: None  # it serves in another thread
    assert await trio.to_thread.run_sync(run, first)
    del uvicorn_server.servers  # it has not started
    assert await trio.to_thread.run_sync(run, first)


def test_uvicorn_is_found_if_it_serves_the_page() -> None:
    """The real one."""
    found: list[bool] = []

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            stopping = _stream._stopping_of(scope)
            assert stopping is not None
            found.append(stopping())
            server.should_exit = True
            found.append(stopping())
            await PlainTextResponse("")(scope, receive, send)

        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"))
        before = signal.signal(signal.SIGTERM, server.handle_exit)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(server.serve, sockets=[listener]))
                async with httpx.AsyncClient(trust_env=False) as client:
                    await client.get(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        finally:
            signal.signal(signal.SIGTERM, before)

    anyio.run(main, backend="asyncio")
    assert [False, True] == found


def test_other_handlers_are_no_servers() -> None:
    assert _stream.uvicorn_server() is None
    with ThreadTaskMap(instruments=[]):
        assert _stream.uvicorn_server() is None
