"""Servers for a page: in the event loop of the program, or in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncGenerator, Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast, final

from starlette.types import ASGIApp, Receive, Scope, Send

from namedtasks._validation import safe_repr
from namedtasks._version import publish
from namedtasks.status._hosts import HOSTS, Hosts
from namedtasks.status._page import StatusPage, whole_number
from namedtasks.status._stream import STOPPING, is_on_asyncio

if TYPE_CHECKING:
    import uvicorn

GRACE: Final = 1
"""Seconds for the answers in progress when a server stops. Streams end within a quarter of one."""


def serve(page: StatusPage, *, host: str = "127.0.0.1", port: int = 8080) -> StatusServer:
    r"""Return a server that serves *page* in a block.

    ``async with`` serves it in the event loop of the program: with uvicorn on asyncio, with
    hypercorn on trio. ``with`` serves it in a thread, with uvicorn, in any program. The server
    installs no signal handlers and does not configure logging.

    Args:
        page: The page.
        host: The address to listen on. Only this machine can reach the default; ``"0.0.0.0"`` is
            all addresses. At any other address everyone who reaches it can read a page without a
            token.
        port: The port; 0 for a free one.

    Raises:
        TypeError: *page* is no `StatusPage`, *host* is no text, or *port* is no whole number.
        ValueError: *host* is empty, or *port* is above 65535.

    Example:
        >>> import urllib.request
        >>> page = StatusPage()
        >>> with serve(page, port=0) as server:
        ...     with urllib.request.urlopen(f"{server.url}healthz") as answer:
        ...         answer.read()
        b'ok\n'

    .. versionadded:: 0.1
    """
    return StatusServer(page, host, port)


@final
class StatusServer:
    """A server for one `StatusPage` and one block, made by `serve`.

    Example:
        >>> with serve(StatusPage(), port=0) as server:
        ...     server.url.startswith("http://127.0.0.1:")
        True

    .. versionadded:: 0.1
    """

    def __init__(self, page: StatusPage, host: str, port: int) -> None:
        if not isinstance(page, StatusPage):
            raise TypeError(f"serve() takes a StatusPage, not {safe_repr(page)}")
        if not isinstance(host, str):
            raise TypeError(f"host must be a text, not {safe_repr(host)}")
        if not host:
            raise ValueError("host must not be empty: for all addresses, give '0.0.0.0'")
        self._serving = _Serving(page, host, whole_number("port", port, most=65_535))
        self._stack = contextlib.ExitStack()
        self._async_stack = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """The address of the page.

        Raises:
            RuntimeError: the block has not begun.
        """
        address = self._serving.address
        if address is None:
            raise RuntimeError("the server has no address before its block begins")
        return f"http://{address}/"

    async def __aenter__(self) -> Self:
        """Listen, and serve the page in this event loop. Checkpoint.

        Raises:
            OSError: the server cannot listen on the address.
            ImportError: uvicorn, or hypercorn on trio, is not installed.
        """
        serve = _on_asyncio if is_on_asyncio() else _on_trio
        await self._async_stack.enter_async_context(serve(self._serving))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._async_stack.__aexit__(exc_type, exc, traceback)

    def __enter__(self) -> Self:
        """Listen, and serve the page in a thread.

        Raises:
            OSError: the server cannot listen on the address.
            ImportError: uvicorn is not installed.
        """
        self._stack.enter_context(_in_thread(self._serving))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(exc_type, exc, traceback)

    def __repr__(self) -> str:
        serving = self._serving
        state = "not serving" if serving.address is None else self.url
        return f"<namedtasks.status.StatusServer {'stopped' if serving.is_stopping else state}>"


@final
class _Serving:
    """The address of a server, and whether it stops."""

    def __init__(self, page: StatusPage, host: str, port: int) -> None:
        self._page = page
        self._host = host
        self._port = port
        self.address: str | None = None
        """The host and port, once the server listens."""
        self.is_stopping = False

    def listen(self) -> socket.socket:
        """Return a listening socket, and note its address."""
        if self.address is not None:
            raise RuntimeError("a server is for one block: call serve() again")
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, self._port), family=family, backlog=128)
        host, port = listener.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return listener

    def stop(self) -> None:
        """End the streams."""
        self.is_stopping = True

    def app(self) -> ASGIApp:
        """Return an app that tells the page, in the scope, when the server stops."""
        hosts, page = Hosts(self._host), self._page

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            added = {STOPPING: lambda: self.is_stopping, HOSTS: hosts}
            await page({**scope, **added}, receive, send)

        return app


@contextlib.contextmanager
def _in_thread(serving: _Serving) -> Generator[None]:
    server = _uvicorn_server(serving)
    listener = serving.listen()
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(server, listener)), name="namedtasks.status", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        serving.stop()
        server.should_exit = True
        thread.join()


@contextlib.asynccontextmanager
async def _on_asyncio(serving: _Serving) -> AsyncGenerator[None]:
    server = _uvicorn_server(serving)
    task = asyncio.create_task(_serve(server, serving.listen()), name="namedtasks.status")
    try:
        yield
    finally:
        serving.stop()
        server.should_exit = True
        await _end_of(task)


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until the server should exit."""
    await server.serve(sockets=[listener])
    # uvicorn before 0.41 goes on answering if it should exit before it has started.
    if any(one.is_serving() for one in server.servers):
        await server.shutdown(sockets=[listener])


async def _end_of(task: asyncio.Task[None]) -> None:
    """Wait until *task* is done, about a second at most, even if the caller is cancelled.

    The task itself must not be cancelled: uvicorn would go on answering.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()


def _uvicorn_server(serving: _Serving) -> uvicorn.Server:
    try:
        import uvicorn  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError("serve() needs uvicorn here: pip install uvicorn") from error
    config = uvicorn.Config(
        serving.app(),
        access_log=False,
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        ws="none",
    )
    server: Any = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # the program handles its own
    return cast("uvicorn.Server", server)


@contextlib.asynccontextmanager
async def _on_trio(serving: _Serving) -> AsyncGenerator[None]:
    import trio  # noqa: PLC0415 - a program on asyncio does not need it

    try:
        import hypercorn.config  # noqa: PLC0415 - optional
        import hypercorn.trio  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("serve() needs hypercorn on trio: pip install hypercorn") from error
    config: Any = hypercorn.config.Config()
    config.errorlog = logging.getLogger("hypercorn.error")
    config.graceful_timeout = GRACE
    config.include_server_header = False
    stopped = trio.Event()
    raised: BaseException | None = None
    with serving.listen() as listener:
        config.create_sockets = lambda: hypercorn.config.Sockets([], [listener], [])
        try:
            async with trio.open_nursery() as nursery:
                start: Any = cast("Any", hypercorn.trio).serve
                app = serving.app()
                await nursery.start(partial(start, app, config, shutdown_trigger=stopped.wait))
                try:
                    yield
                except BaseException as error:  # not wrapped in a group by the nursery
                    if nursery.cancel_scope.cancel_called:  # because the server has failed
                        raise
                    raised = error
                serving.stop()
                stopped.set()
        except BaseExceptionGroup as group:
            raise _only_error(group) from None
        finally:
            serving.stop()
            if raised is not None:  # it comes first; an error of the server is its context
                raise raised


def _only_error(error: BaseException) -> BaseException:
    """Return the error in a group that has only one, else the group."""
    is_group = isinstance(error, BaseExceptionGroup)
    inside: tuple[BaseException, ...] = cast("Any", error).exceptions if is_group else ()
    return _only_error(inside[0]) if len(inside) == 1 else error


publish(serve, StatusServer, module="namedtasks.status")
