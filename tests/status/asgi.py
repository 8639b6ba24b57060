"""A client of the page without a server: it calls the ASGI app as a server does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import attrs
import trio

App = Callable[[Any, Any, Any], Awaitable[None]]


@attrs.frozen
class Answer:
    """The answer to one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def scope_of(
    method: str, target: str, headers: Mapping[str, str], added: Mapping[str, object]
) -> dict[str, object]:
    url = urlsplit(target)
    path = url.path
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": url.query.encode(),
        "root_path": "",
        "headers": [
            (name.lower().encode(), value.encode("latin-1"))
            for name, value in {"host": "localhost", **headers}.items()
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **added,
    }


async def request(
    app: App, method: str, target: str, headers: Mapping[str, str], added: Mapping[str, object]
) -> Answer:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope_of(method, target, headers, added), receive, send)
    start, *rest = sent
    names = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], names, b"".join(one.get("body", b"") for one in rest))


def ask(
    app: App,
    target: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    added: Mapping[str, object] | None = None,
) -> Answer:
    """Return the answer to a request; *added* is for its scope."""
    return trio.run(request, app, method, target, headers or {}, added or {})


@attrs.define(eq=False)
class Stream:
    """The answer to a request for events, which come one after the other."""

    status: int
    headers: dict[str, str]
    _bodies: trio.MemoryReceiveChannel[bytes]
    _gone: trio.Event

    async def next(self) -> tuple[str, int | None, Any]:
        """Return the name, the id and the data of the next event.

        Raises:
            trio.EndOfChannel: the stream has ended.
        """
        while True:
            body = await self._bodies.receive()
            assert body.endswith(b"\n\n")
            lines = dict(line.split(b": ", 1) for line in body.strip().splitlines())
            if b"event" in lines:
                number = lines.get(b"id")
                name = lines[b"event"].decode()
                return name, None if number is None else int(number), json.loads(lines[b"data"])

    async def end(self) -> None:
        """Wait until the app has ended the stream."""
        with contextlib.suppress(trio.EndOfChannel):
            while True:
                await self.next()

    def leave(self) -> None:
        """Close the connection."""
        self._gone.set()


@contextlib.asynccontextmanager
async def stream(
    app: App,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    raises: BaseException | None = None,
    added: Mapping[str, object] | None = None,
) -> AsyncGenerator[Stream]:
    """Open a stream; where the block ends, the client goes, and the app has to end, too."""
    sender, bodies = trio.open_memory_channel[bytes](1000)
    started, gone = trio.Event(), trio.Event()
    start: dict[str, Any] = {}

    async def receive() -> dict[str, object]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            started.set()
            return
        if raises is not None:
            raise raises
        if message.get("body"):
            await sender.send(message["body"])

    async def run() -> None:
        await app(scope_of("GET", target, headers or {}, added or {}), receive, send)
        sender.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await started.wait()
        names = {name.decode(): value.decode() for name, value in start["headers"]}
        yield Stream(start["status"], names, bodies, gone)
        gone.set()
