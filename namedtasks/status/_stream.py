"""Live updates: server-sent events with what has changed.

A stream keeps one number for its client: that of the last change sent. It ends after `MOST_BYTES`,
and the browser opens the next one with that number. So a client that does not read blocks no send,
and no server that stops. (hypercorn 0.18 on trio sends in a shielded scope, and uvicorn 0.54 waits
until its transport has sent everything.)
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, final

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from namedtasks.status._board import Board
from namedtasks.status._thread import in_thread

MOST_BYTES: Final = 48 * 1024
"""Bytes of one stream. A socket takes them even if the client does not read: 64 KB is the usual
window."""

PULSE: Final = 10.0
"""Seconds without a change after which the clocks are sent. The page reconnects if it gets nothing
for 25 seconds, because an EventSource does not notice a dead server."""

STEP: Final = 0.25
"""Seconds after which a stream notices that its server stops."""

SHORT_LIFE: Final = 5.0
"""Seconds after which a stream ends, if it cannot notice that its server stops."""

STOPPING: Final = "namedtasks.status.stopping"
"""A key of an ASGI scope. Its value is a function that returns whether the server stops."""

HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would collect some KB of events
]


@final
class EventStream(Response):
    """An answer with the changes of a *board*, which it updates every *interval* seconds."""

    # An attribute of the class, because freezegun replaces that of the module.
    _monotonic = staticmethod(time.monotonic)

    def __init__(self, board: Board, interval: float) -> None:
        super().__init__()
        self._board = board
        self._interval = interval

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the changes until the client or the server ends it."""
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        request = Request(scope)
        since = _number(request.headers.get("last-event-id") or request.query_params.get("since"))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_on_disconnect, receive, tasks.cancel_scope)
                with contextlib.suppress(OSError):  # some servers raise it: the client is gone
                    await self._send_changes(send, since, _stopping_of(scope))
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # hypercorn on trio logs a group and goes on, even if a KeyboardInterrupt is in it.
            raise group.exceptions[0] from None

    async def _send_changes(
        self, send: Send, since: int, stopping: Callable[[], bool] | None
    ) -> None:
        ends_at = math.inf if stopping is not None else self._monotonic() + SHORT_LIFE
        sent = await _send(send, b"retry: 250\n\n")
        pulse_at = self._monotonic() + PULSE
        looks_at = -math.inf
        while sent < MOST_BYTES // 2:  # so that the last piece has room for many events
            now = self._monotonic()
            if now >= ends_at or (stopping is not None and stopping()):
                break
            if now >= looks_at:
                looks_at = now + self._interval
                event, since = await in_thread(partial(self._next, since, MOST_BYTES - sent))
                if event is None and now >= pulse_at:
                    event = _event("tick", None, await in_thread(self._board.clocks))
                if event is not None:
                    pulse_at = now + PULSE
                    sent += await _send(send, event)
                    if since < 0:
                        break
            await anyio.sleep(min(STEP, self._interval))
        await send({"type": "http.response.body"})

    def _next(self, since: int, most: int) -> tuple[bytes | None, int]:
        """Return the event with what has changed, if anything has, and the number after it.

        The number is negative if the client has to begin again.
        """
        self._board.look(self._interval / 2)
        found = self._board.since(since, most)
        if found is None:
            return _event("resync", None, b"{}"), -1
        changes, since = found
        return (_event("update", since, changes) if changes else None), since


def _event(name: str, number: int | None, data: bytes) -> bytes:
    # The names have a prefix, because an event named "error" looks like a lost connection.
    number_line = b"" if number is None else b"id: %d\n" % number
    return b"event: namedtasks.%s\n%sdata: %s\n\n" % (name.encode(), number_line, data)


async def _send(send: Send, body: bytes) -> int:
    await send({"type": "http.response.body", "body": body, "more_body": True})
    return len(body)


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    message: Message = {}
    while message.get("type") != "http.disconnect":
        message = await receive()
    scope.cancel()


def _number(text: str | None) -> int:
    """Return the number in *text*, or -1, which no board uses, if there is none."""
    is_number = text is not None and text.isascii() and text.isdecimal() and len(text) < 20
    return int(text or "") if is_number else -1


# Whether the server stops


def _stopping_of(scope: Scope) -> Callable[[], bool] | None:
    """Return a function that returns whether the server stops; None if that cannot be known.

    A server waits for its requests before it tells its app that it stops. On trio, hypercorn
    cancels them after its graceful timeout.
    """
    stopping: Callable[[], bool] | None = scope.get(STOPPING)
    if stopping is None and not is_on_asyncio():
        return _never
    server = uvicorn_server()
    if stopping is None and server is not None and _serves(server, scope):
        return lambda: uvicorn_server() is not server or server.should_exit
    return stopping


def is_on_asyncio() -> bool:
    """Return whether the caller runs in an event loop of asyncio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _never() -> bool:
    return False


def uvicorn_server() -> Any:
    """Return the uvicorn server that handles SIGTERM in this process, or None."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if isinstance(getattr(server, "should_exit", None), bool) else None


def _serves(server: Any, scope: Scope) -> bool:
    """Return whether *server* has got the request of *scope*.

    A process may have several servers, of which one handles SIGTERM.
    """
    loop, address = asyncio.get_running_loop(), scope.get("server")
    return address is not None and any(
        listener.get_loop() is loop and address[1] == socket.getsockname()[1]
        for listener in getattr(server, "servers", ())
        for socket in listener.sockets
    )
