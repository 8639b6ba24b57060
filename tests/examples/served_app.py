"""The program of the how-to for web applications, with work that a test controls.

A run of vol-2 fails, as on the page. A run of another volume ends when the working
folder holds a file ``<volume>.done``. Further endpoints do what the page warns of.
Each line that is printed is an event that a test may wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

import namedtasks

page: Any = importlib.import_module("app")
fail: Callable[[str], Any] = page.attach

GIVE_UP_AFTER = int(os.environ.get("GIVE_UP_AFTER", "5"))
page.BACKOFF = namedtasks.Backoff(initial=600, maximum=600, give_up_after=GIVE_UP_AFTER)
page.GRACE = float(os.environ.get("GRACE", "0"))
page.TIMEOUT = page.PATIENCE = 600.0


def say(*words: object) -> None:
    print(*words, flush=True)


async def attach(volume: str) -> str:
    if volume == "vol-2":
        await fail(volume)
    say("begun", volume)
    done = Path(f"{volume}.done")
    try:
        while not done.exists():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        say("cancelled", volume)
        raise
    done.unlink()
    say("done", volume)
    return f"/dev/{volume}"


page.attach = attach


async def stream(request: Request) -> Response:
    """Await a run, in an answer that Starlette cancels when its client disconnects."""
    volume, if_busy = request.path_params["volume"], request.query_params["if_busy"]

    async def answer() -> AsyncIterator[str]:
        yield "please wait"
        try:
            await request.state.tasks.create_task(volume, attach, volume, if_busy=if_busy)
        finally:
            say("left", volume)

    return StreamingResponse(answer())


def in_thread(request: Request) -> Response:
    """Use the map in an endpoint that is a plain function."""
    tasks = request.state.tasks
    verbs: dict[str, Callable[[], object]] = {
        "state": lambda: tasks.state("vol-1"),
        "check": lambda: tasks.check("vol-1"),
        "create_task": lambda: tasks.create_task("vol-1", attach, "vol-1"),
        "run_in_executor": lambda: tasks.run_in_executor("vol-1", print),
        "cancel": lambda: tasks.cancel("vol-1"),
        "forget": lambda: tasks.forget("vol-1"),
    }
    raised: dict[str, str | None] = {}
    for name, verb in verbs.items():
        raised[name] = None
        try:
            verb()
        except RuntimeError as error:
            raised[name] = type(error).__name__
    return JSONResponse(raised)


async def in_background(request: Request) -> Response:
    async def start() -> None:
        request.state.tasks.create_task("vol-1", attach, "vol-1")

    return PlainTextResponse("accepted", 202, background=BackgroundTask(start))


async def close(request: Request) -> Response:
    request.state.tasks.close()
    return PlainTextResponse("closed")


async def where_is_the_map(request: Request) -> Response:
    places = {"request.state": request.state, "request.app.state": request.app.state}
    return JSONResponse({name: hasattr(place, "tasks") for name, place in places.items()})


@contextlib.asynccontextmanager
async def mounted_lifespan(app: Starlette) -> AsyncGenerator[None]:
    say("began the lifespan of the mounted application")
    yield


def make_app() -> ASGIApp:
    mounted = Starlette(routes=[Route("/", where_is_the_map)], lifespan=mounted_lifespan)
    made = Starlette(
        routes=[
            *page.app.routes,
            Route("/stream/{volume}", stream),
            Route("/thread", in_thread),
            Route("/background", in_background, methods=["POST"]),
            Route("/close", close, methods=["POST"]),
            Mount("/mounted", mounted),
        ],
        lifespan=page.lifespan,
        exception_handlers=page.app.exception_handlers,
    )

    async def announce(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # no endpoint of the page awaits before it has started its run
            say("got", scope["method"], scope["path"])
        await made(scope, receive, send)

    return announce


app = make_app()


async def serve_two() -> None:
    """Serve two applications on one loop."""
    configs = [uvicorn.Config(make_app(), port=0, use_colors=False) for _ in range(2)]
    await asyncio.gather(*(uvicorn.Server(config).serve() for config in configs))


if __name__ == "__main__":
    sys.exit(asyncio.run(serve_two()))
