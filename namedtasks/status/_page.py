"""The page as an ASGI app: its routes, and the security headers of its answers."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from importlib.resources import files
from typing import Final, TypeAlias, final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from namedtasks._events import Instrument
from namedtasks._validation import check_number, check_whole, safe_repr
from namedtasks._version import publish
from namedtasks.status._api import Api
from namedtasks.status._board import Board
from namedtasks.status._hosts import ANY_HOST, HOSTS, WRONG_HOST
from namedtasks.status._text import plain
from namedtasks.status._token import refusal, token_or_none
from namedtasks.status._watch import EventLog, MapStatus, MapWatch

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

MOST_LABEL: Final = 100
"""Characters of a label, and of the title."""

_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "json": "application/json",
}

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_SAFETY: Final = [
    (b"cache-control", b"no-store, no-transform"),
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
"""Headers of all answers: caches do not keep them, other sites cannot show them, and browsers run
no script but that of the page."""


@final
class StatusPage:
    """A web page that shows what runs, waits, is pending and gave up: an ASGI app.

    Mount it in an app of Starlette or FastAPI, or serve it by itself with `serve`. Give each map
    an instrument of the page. The page is read-only, and reads maps of all dialects from any
    thread.

    It has the page (``/``), live updates, a JSON API (``/api/``) and two probes: ``/healthz``
    answers 200 while the process answers, and ``/readyz`` while all maps accept starts.

    Args:
        title: The title of the page.
        token: A secret that requests to the API need, in a header ``Authorization: Bearer``. A
            browser asks for it once. The probes, and the page without its content, need none. None
            lets everyone who reaches the page read it.
        interval: Seconds between two updates while the page is open in a browser.
        keep_events: The number of recent routine events to keep (starts, successes, queued and
            superseded starts), and of other recent events.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of its range.

    Example:
        >>> from namedtasks import ThreadTaskMap
        >>> page = StatusPage(title="volume controller")
        >>> with ThreadTaskMap(instruments=[page.instrument("volumes")]) as tasks:
        ...     page
        <namedtasks.status.StatusPage volumes: open>

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        *,
        title: str = "namedtasks",
        token: str | None = None,
        interval: float = 1.0,
        keep_events: int = 100,
    ) -> None:
        self._log = EventLog(whole_number("keep_events", keep_events, most=10_000))
        self._token = token_or_none(token)
        self._lock = threading.RLock()  # a signal handler may ask for an instrument, too
        self._watches: dict[str, MapWatch] = {}
        board = Board(self._watches, self._log)
        interval = check_number("interval", interval, least=0.01, most=3600)
        api = Api(_checked("title", title), interval, self._watches, self._log, board)
        self._app = Starlette(
            routes=[
                Route("/", _file("index.html")),
                *(Route(f"/{name}", _file(name)) for name in ("page.css", "page.js", "icon.svg")),
                Route("/healthz", _answer_health),
                Route("/readyz", self._answer_readiness),
                *self._api_routes(api),
            ],
            exception_handlers={HTTPException: _answer_refusal},
        )

    def _api_routes(self, api: Api) -> Iterator[Route]:
        endpoints: dict[str, Endpoint] = {
            "": api.overview,
            "names": api.names,
            "events": api.events,
            "snapshot": api.snapshot,
            "stream": api.stream,
            "openapi.json": _file("openapi.json"),
        }
        for name, endpoint in endpoints.items():
            yield Route(f"/api/{name}", self._guarded(endpoint))
        yield Route("/api/session", self._guarded(self._sign_in), methods=["POST"])

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """Return *endpoint*, which refuses requests without the token."""

        async def answer(request: Request) -> Response:
            return refusal(self._token, request) or await endpoint(request)

        return answer

    def instrument(self, label: str = "tasks", /) -> Instrument:
        """Return the instrument for the map that the page shows under *label*.

        Each label has one instrument. Pass it to a map when you open the map, beside your other
        instruments. The next map may get it when that one is closed and all its runs have ended.
        From this call on, ``/readyz`` answers 503 until that map is open.

        Raises:
            TypeError: *label* is no text.
            ValueError: *label* is empty or too long.

        Example:
            >>> from namedtasks import LoggingInstrument, ThreadTaskMap
            >>> page = StatusPage()
            >>> with ThreadTaskMap(instruments=[LoggingInstrument(), page.instrument()]) as tasks:
            ...     page
            <namedtasks.status.StatusPage tasks: open>
            >>> page
            <namedtasks.status.StatusPage tasks: closed>
        """
        label = _checked("label", label)
        with self._lock:
            watch = self._watches.get(label)
            if watch is None:
                watch = self._watches[label] = MapWatch(label, self._log)
            return watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as an ASGI app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_body = scope["method"] != "HEAD"

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_SAFETY]}
            elif not has_body:
                message = {**message, "body": b""}
            await send(message)

        app: ASGIApp = self._app
        if self._token is None and not scope.get(HOSTS, ANY_HOST).admits(scope):
            app = JSONResponse({"detail": WRONG_HOST}, 421)
        await app(scope, receive, send_safely)

    async def _sign_in(self, request: Request) -> Response:
        """Answer a request with the token, and set the cookie."""
        response = Response(status_code=204)
        if self._token is not None:
            response.headers["Set-Cookie"] = self._token.cookie(request)
        return response

    async def _answer_readiness(self, _: Request) -> Response:
        statuses = self._statuses()
        lines = [f"{label}: {status}\n" for label, status in statuses.items()]
        is_ready = all(status == "open" for status in statuses.values())
        return PlainTextResponse("".join(lines) or "no maps\n", 200 if is_ready else 503)

    def _statuses(self) -> dict[str, MapStatus]:
        return {label: watch.status() for label, watch in list(self._watches.items())}

    def __repr__(self) -> str:
        statuses = ", ".join(f"{label}: {status}" for label, status in self._statuses().items())
        return f"<namedtasks.status.StatusPage {statuses or 'no maps'}>"


def whole_number(what: str, value: int, *, most: int) -> int:
    """Return *value*, which must be a whole number from 0 to *most*.

    Raises:
        TypeError: it is not a whole number; a bool does not count as one.
        ValueError: it is outside the range.
    """
    if check_whole(what, value) > most:
        raise ValueError(f"{what} must be at most {most}, not {value}")
    return value


def _checked(what: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a text, not {safe_repr(value)}")
    if not 0 < len(value) <= MOST_LABEL:
        raise ValueError(f"{what} must have 1 to {MOST_LABEL} characters, not {len(value)}")
    return plain(value, 10 * MOST_LABEL)


def _file(name: str) -> Endpoint:
    """Return an endpoint that answers with a file of this package."""
    body = files("namedtasks.status").joinpath("static", name).read_bytes()
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]

    async def answer(_: Request) -> Response:
        return Response(body, media_type=media_type)

    return answer


async def _answer_health(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


publish(StatusPage, module="namedtasks.status")
