"""The JSON API. ``openapi.json`` describes it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, cast, final

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from namedtasks.status._board import Board, MapSummary, Place, event_fields
from namedtasks.status._entries import STATES, TIMES
from namedtasks.status._stream import EventStream
from namedtasks.status._text import iso, plain, time_of_day
from namedtasks.status._thread import in_thread
from namedtasks.status._watch import EventLog, MapWatch

MOST_NAMES: Final = 500
"""Names in one answer, which is held in memory and sent in one piece."""

FIRST_ROWS: Final = 100
"""Names in the first piece: the page shows as many at once."""

MOST_ROWS: Final = 200
"""Names in each further piece, which has about 60 KB then."""

_FIELDS: Final = (
    "id",
    "map",
    "name",
    "operation",
    "state",
    "failures",
    "error",
    "pending",
    "holder",
)


@final
class Api:
    """The endpoints of the API."""

    def __init__(
        self,
        title: str,
        interval: float,
        watches: Mapping[str, MapWatch],
        log: EventLog,
        board: Board,
    ) -> None:
        self._title = title
        self._interval = interval
        self._watches = watches
        self._log = log
        self._board = board

    async def overview(self, _: Request) -> Response:
        """Return the maps in numbers."""
        return await in_thread(self._overview)

    def _overview(self) -> Response:
        self._board.look()
        summaries, counts = self._board.summaries(), self._board.counts()
        clock = self._clock()  # afterwards, because it must have the clocks of all these maps
        maps = [_map_of(summary, clock) for summary in summaries]
        return JSONResponse(
            {"title": self._title, "now": clock.iso, "counts": counts, "maps": maps}
        )

    async def names(self, request: Request) -> Response:
        """Return names, sorted by maps and names, in pieces."""
        query = _query(request, "map", "state", "prefix", "limit", "continue")
        after = None if "continue" not in query else _decoded_place(query["continue"])
        state = query.get("state")
        if state is not None and state not in STATES:
            raise HTTPException(400, f"state must be one of {', '.join(STATES)}")
        select = partial(
            self._board.select,
            query.get("map"),
            STATES if state is None else (state,),
            query.get("prefix", ""),
            after,
            _number(query.get("limit"), 100, 1, MOST_NAMES, "limit"),
        )
        return await in_thread(partial(self._names, select))

    def _names(self, select: Callable[[], Any]) -> Response:
        self._board.look()
        found = select()
        clock = self._clock()
        return JSONResponse(
            {
                "now": clock.iso,
                "total": found.total,
                "names": [_name_of(json.loads(row), clock) for row in found.rows],
                "continue": None if found.more_after is None else _encoded_place(found.more_after),
            }
        )

    async def events(self, request: Request) -> Response:
        """Return the recent events, the oldest first."""
        after = _number(_query(request, "after").get("after"), 0, 0, 2**63, "after")
        events = [
            {**fields, "at": iso(datetime.fromtimestamp(fields["at"], UTC))}
            for event in self._log.recent()
            if event.number > after
            for fields in [cast("dict[str, Any]", dict(event_fields(event)))]
        ]
        return JSONResponse({"now": self._clock().iso, "events": events})

    async def snapshot(self, request: Request) -> Response:
        """Return a piece of the page: the most urgent names, or those after a number."""
        text = _query(request, "after").get("after")
        if text is None:
            body = await in_thread(self._begin)
        else:
            after = _number(text, 0, 0, 2**63, "after")
            body = await in_thread(partial(self._board.after, after, MOST_ROWS))
        return Response(body, media_type="application/json")

    async def stream(self, _: Request) -> Response:
        """Return the changes from now on, as server-sent events."""
        return EventStream(self._board, self._interval)

    def _begin(self) -> bytes:
        self._board.look(self._interval / 2)  # the stream brings newer changes
        return self._board.begin(self._title, FIRST_ROWS)

    def _clock(self) -> _Clock:
        now = {label: watch.now() for label, watch in list(self._watches.items())}
        return _Clock(datetime.now(UTC), now)


@final
class _Clock:
    """Converts times of the maps to dates."""

    def __init__(self, at: datetime, now: Mapping[str, float]) -> None:
        self._at = at
        self._now = now
        self.iso: str = iso(at)

    def date_of(self, label: str, moment: float | None) -> str | None:
        return time_of_day(moment, self._now[label], self._at)


def _name_of(row: dict[str, Any], clock: _Clock) -> dict[str, object]:
    label: str = row["map"]
    last: dict[str, Any] | None = row.get("last")
    if last is not None:
        same_error = row.get("error") if last["status"] == "failed" else None
        last = {"error": same_error, **last, "ended_at": clock.date_of(label, last["ended_at"])}
    return {
        **{field: row.get(field) for field in _FIELDS},
        **{field: clock.date_of(label, row.get(field)) for field in TIMES},
        "failures": row.get("failures", 0),
        "overdue": row.get("overdue", False),
        "last": last,
    }


def _map_of(summary: MapSummary, clock: _Clock) -> dict[str, object]:
    fields: dict[str, Any] = dict(summary.fields())
    label = summary.label
    for field in ("oldest_run_since", "longest_slot_wait_since"):
        fields[field] = clock.date_of(label, fields[field])
    return {"accepts_starts": summary.status == "open", **fields}


# Parameters


def _query(request: Request, *known: str) -> QueryParams:
    """Return the parameters of *request*, all of which are *known*.

    Raises:
        HTTPException: one is unknown. An ignored slip would return all names in place of some.
    """
    for name in request.query_params:
        if name not in known:
            text = plain(name, 100)
            raise HTTPException(400, f"unknown parameter {text}: choose from {', '.join(known)}")
    return request.query_params


def _number(text: str | None, default: int, least: int, most: int, name: str) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise HTTPException(400, f"{name} must be a number from {least} to {most}")
    return int(text)


def _encoded_place(place: Place) -> str:
    """Return *place* as text for an address."""
    text = "\0".join(map(str, place))  # texts that are shown contain no NUL
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded_place(token: str) -> Place:
    """Return the place in a *token* of `_encoded_place`.

    Raises:
        HTTPException: it is no such token.
    """
    try:
        padded = token.encode() + b"=" * (-len(token) % 4)
        label, name, operation, number = base64.urlsafe_b64decode(padded).decode().split("\0")
        return label, name, operation, int(number)
    except ValueError:
        detail = "there is no such piece: take the value of 'continue' in an earlier answer"
        raise HTTPException(404, detail) from None
