"""The page on real servers: in an event loop, in a thread, and in the user's own server."""

from __future__ import annotations

import asyncio
import builtins
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import uvicorn

import namedtasks.asyncio
from namedtasks import ThreadTaskMap, open_task_map
from namedtasks.status import StatusPage, serve

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
"""Seconds until a server that does not answer counts as stuck: no answer takes as long."""


def fail() -> None:
    raise OSError("device busy")


async def fail_on_trio() -> None:
    await trio.lowlevel.checkpoint()
    raise OSError("device busy")


async def fail_on_asyncio() -> None:
    raise OSError("device busy")


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers, timeout=PATIENCE, trust_env=False)


class Watcher:
    """A client that holds a stream open, and reads only if it is told to."""

    def __init__(self, url: str) -> None:
        target = httpx.URL(url)
        version = get(f"{url}api/snapshot").json()["version"]
        address = (target.host, target.port or 80)
        self._socket = socket.create_connection(address, timeout=PATIENCE)
        path = f"{target.path}api/stream?since={version}"
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        self._socket.sendall(request.encode())
        self.received = b""
        self.read_until(b"retry: ")

    def read_until(self, part: bytes) -> None:
        while part not in self.received:
            received = self._socket.recv(65536)
            assert received, f"closed before {part!r}: {self.received!r}"
            self.received += received

    def close(self) -> None:
        self._socket.close()


# The three ways of serve()


def test_a_thread_serves_the_page_of_any_program() -> None:
    page = StatusPage()
    with ThreadTaskMap(instruments=[page.instrument()]) as tasks, serve(page, port=0) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.url)
        assert f"<namedtasks.status.StatusServer {server.url}>" == repr(server)
        watcher = Watcher(server.url)
        tasks.submit("vol-1", fail).exception()
        watcher.read_until(b"device busy")
        assert "volumes" not in get(f"{server.url}readyz").text
        assert "tasks: open\n" == get(f"{server.url}readyz").text
    # The watcher has not gone, and the server has.
    assert "<namedtasks.status.StatusServer stopped>" == repr(server)
    with pytest.raises(httpx.ConnectError):
        get(server.url)
    watcher.close()


def test_asyncio_serves_the_page_in_its_loop() -> None:
    page = StatusPage()
    watchers: list[Watcher] = []

    async def main() -> str:
        instruments = [page.instrument()]
        async with (
            namedtasks.asyncio.open_task_map(instruments=instruments) as tasks,
            serve(page, port=0) as server,
        ):
            before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
            watcher = await asyncio.to_thread(Watcher, server.url)
            watchers.append(watcher)
            task = tasks.create_task("vol-1", fail_on_asyncio)
            await asyncio.wait([task])
            await asyncio.to_thread(watcher.read_until, b"device busy")
            assert before == [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
            return server.url

    url = asyncio.run(main())
    with pytest.raises(httpx.ConnectError):
        get(url)
    watchers[0].close()


async def test_trio_serves_the_page_in_its_run() -> None:
    page = StatusPage()
    async with open_task_map(instruments=[page.instrument()]) as tasks:
        async with serve(page, port=0) as server:
            watcher = await trio.to_thread.run_sync(Watcher, server.url)
            tasks.start_soon("vol-1", fail_on_trio)
            await trio.to_thread.run_sync(watcher.read_until, b"device busy")
    with pytest.raises(httpx.ConnectError):
        await trio.to_thread.run_sync(get, server.url)
    watcher.close()


async def test_on_trio_an_error_leaves_the_block_bare() -> None:
    with pytest.raises(ValueError, match=r"^mine$"):
        async with serve(StatusPage(), port=0):
            raise ValueError("mine")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_on_trio_an_exit_leaves_the_block_bare(kind: type[BaseException]) -> None:
    """A group would be printed, and would be another exit status."""

    async def main() -> None:
        async with serve(StatusPage(), port=0):
            raise kind

    with pytest.raises(kind):
        trio.run(main)


@pytest.fixture
def failing_hypercorn(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """A server that fails when the event is set, or when it should stop."""
    fails = trio.Event()

    async def serve(
        _app: object, _config: object, *, shutdown_trigger: Any, task_status: Any
    ) -> None:
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shutdown_trigger)
            await fails.wait()
            nursery.cancel_scope.cancel()
        raise OSError("server")

    monkeypatch.setattr("hypercorn.trio.serve", serve)
    return fails


async def test_on_trio_an_error_of_the_server_ends_the_block(failing_hypercorn: trio.Event) -> None:
    with pytest.raises(OSError, match=r"^server$"):
        async with serve(StatusPage(), port=0):
            failing_hypercorn.set()
            await trio.sleep_forever()


async def test_on_trio_no_error_is_lost_if_the_server_fails_too(
    failing_hypercorn: trio.Event,
) -> None:
    with pytest.raises(ValueError, match=r"^mine$") as raised:
        async with serve(StatusPage(), port=0) as server:
            failing_hypercorn.set()
            raise ValueError("mine")
    assert "server" == str(raised.value.__context__)
    assert "<namedtasks.status.StatusServer stopped>" == repr(server)


def test_on_trio_a_server_that_is_cancelled_as_it_begins_leaves_its_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At each step until it serves."""
    listeners: list[socket.socket] = []
    create_server = socket.create_server

    def create(*args: Any, **kwargs: Any) -> socket.socket:
        listeners.append(create_server(*args, **kwargs))
        return listeners[-1]

    monkeypatch.setattr(socket, "create_server", create)

    class Canceller(trio.abc.Instrument):
        def __init__(self, scope: trio.CancelScope, steps: int) -> None:
            self.scope = scope
            self.steps = steps

        def before_task_step(self, task: object) -> None:
            self.steps -= 1
            if self.steps <= 0:
                self.scope.cancel()

    async def serves_after(steps: int) -> bool:
        begun = False
        with trio.CancelScope() as scope:
            canceller = Canceller(scope, steps)
            trio.lowlevel.add_instrument(canceller)
            async with serve(StatusPage(), port=0):
                begun = True
                trio.lowlevel.remove_instrument(canceller)
        if not begun:
            trio.lowlevel.remove_instrument(canceller)
        return begun

    steps = 0
    while not trio.run(serves_after, steps):
        steps += 1
    assert steps > 2
    assert steps + 1 == len(listeners)
    assert {-1} == {listener.fileno() for listener in listeners}


async def test_on_trio_the_block_may_be_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with serve(StatusPage(), port=0) as server:
            watcher = await trio.to_thread.run_sync(Watcher, server.url)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    watcher.close()


def test_on_asyncio_the_block_may_be_cancelled() -> None:
    """Also twice: the server has stopped when the block is left."""
    watchers: list[Watcher] = []

    async def main(begun: asyncio.Event) -> None:
        async with serve(StatusPage(), port=0) as server:
            watchers.append(await asyncio.to_thread(Watcher, server.url))
            begun.set()
            try:
                await asyncio.sleep(PATIENCE)
            finally:
                me = asyncio.current_task()
                assert me is not None
                asyncio.get_running_loop().call_soon(me.cancel)

    async def cancel() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(main(begun))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert {asyncio.current_task()} == asyncio.all_tasks()

    asyncio.run(cancel())
    watchers[0].close()


def test_the_block_may_end_before_the_server_has_begun() -> None:
    """uvicorn before 0.41 went on answering then."""
    urls: list[str] = []

    async def main() -> None:
        async with serve(StatusPage(), port=0) as server:
            urls.append(server.url)
        with pytest.raises(httpx.ConnectError):
            await asyncio.to_thread(get, server.url)

    asyncio.run(main())
    with serve(StatusPage(), port=0) as server:
        urls.append(server.url)
    for url in urls:
        with pytest.raises(httpx.ConnectError):
            get(url)


@pytest.mark.parametrize("is_in_loop", [True, False])
def test_the_server_stops_though_uvicorn_does_not(
    is_in_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server as it was before uvicorn 0.41."""

    async def serve_then_return(self: uvicorn.Server, sockets: Any = None) -> None:
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=sockets)

    async def main() -> None:
        async with serve(StatusPage(), port=0) as server:
            urls.append(server.url)
        with pytest.raises(httpx.ConnectError):
            await asyncio.to_thread(get, server.url)

    urls: list[str] = []
    monkeypatch.setattr(uvicorn.Server, "serve", serve_then_return)
    if is_in_loop:
        asyncio.run(main())
    else:
        with serve(StatusPage(), port=0) as server:
            urls.append(server.url)
    with pytest.raises(httpx.ConnectError):
        get(urls[0])


def test_a_taken_port_is_an_error_of_the_block() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"), serve(StatusPage(), port=port):
            raise AssertionError

        async def on_any() -> None:
            async with serve(StatusPage(), port=port):
                raise AssertionError

        with pytest.raises(OSError, match="in use"):
            asyncio.run(on_any())
        with pytest.raises(OSError, match="in use"):
            trio.run(on_any)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_it_may_listen_on_ipv6() -> None:
    try:
        server = serve(StatusPage(), host="::1", port=0).__enter__()
    except OSError as error:
        pytest.skip(f"needs IPv6: enable it on the loopback interface ({error})")
    assert re.fullmatch(r"http://\[::1\]:\d+/", server.url)
    assert "ok\n" == get(f"{server.url}healthz").text
    server.__exit__(None, None, None)


def test_a_server_is_for_one_block() -> None:
    server = serve(StatusPage(), port=0)
    assert "<namedtasks.status.StatusServer not serving>" == repr(server)
    with pytest.raises(RuntimeError, match=r"^the server has no address before its block"):
        assert server.url
    with server:
        pass
    with pytest.raises(RuntimeError, match=r"^a server is for one block: call serve\(\) again$"):
        server.__enter__()


def test_only_a_page_is_served() -> None:
    with pytest.raises(TypeError, match=r"^serve\(\) takes a StatusPage, not None$"):
        serve(None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"host": None}, "host must be a text, not None"),
        ({"port": "8080"}, "port must be a whole number, not '8080'"),
        ({"port": True}, "port must be a whole number, not True"),
    ],
)
def test_an_address_of_the_wrong_type_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        serve(StatusPage(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"host": ""}, "host must not be empty: for all addresses, give '0.0.0.0'"),
        ({"port": 70_000}, "port must be at most 65535, not 70000"),
        ({"port": -1}, "port must be at least 0, not -1"),
    ],
)
def test_an_impossible_address_is_refused(arguments: Any, message: str) -> None:
    """An empty host would be all addresses, and without the check of the host's name."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        serve(StatusPage(), **arguments)


def test_a_local_server_refuses_other_names() -> None:
    with serve(StatusPage(), port=0) as server:
        assert 200 == get(server.url).status_code
        assert 421 == get(server.url, Host="attacker.example").status_code


@pytest.mark.parametrize("missing", ["uvicorn", "hypercorn"])
def test_what_is_missing_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = builtins.__import__

    def no_import(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ImportError(name)
        return import_module(name, *args, **kwargs)

    async def on_any() -> None:
        async with serve(StatusPage(), port=0):
            raise AssertionError

    monkeypatch.setattr(builtins, "__import__", no_import)
    with pytest.raises(ImportError, match=f"pip install {missing}$"):
        if missing == "uvicorn":
            asyncio.run(on_any())
        else:
            trio.run(on_any)


# The user's own server


PROGRAM = """
import contextlib, sys
from starlette.applications import Starlette
from starlette.routing import Mount
from {package} import open_task_map
from namedtasks.status import StatusPage

page = StatusPage(interval=0.1)

@contextlib.asynccontextmanager
async def lifespan(app):
    async with open_task_map(instruments=[page.instrument("volumes")]) as tasks:
        yield
        print("lifespan ends", flush=True)
        await tasks.shutdown(grace=0)
    print("map has ended", flush=True)

app = Starlette(routes=[Mount("/status", page)], lifespan=lifespan)
"""

ON_TRIO = """
import signal
import hypercorn.config
import hypercorn.trio
import trio
from app import app

async def wait_for_signal():
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as numbers:
        async for number in numbers:
            return

async def main():
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 1.0
    await hypercorn.trio.serve(app, config, shutdown_trigger=wait_for_signal)

trio.run(main)
"""

SERVERS = {
    "uvicorn": ("-m", "uvicorn", "app:app", "--port", "0"),
    "hypercorn on trio": ("serve.py",),
    "hypercorn on asyncio": (
        *("-m", "hypercorn", "app:app", "--bind", "127.0.0.1:0", "--workers", "0"),
        *("--graceful-timeout", "1"),
    ),
}


class Process:
    """A server in a process of its own."""

    def __init__(self, folder: Path, server: str) -> None:
        package = "namedtasks" if server.endswith("trio") else "namedtasks.asyncio"
        (folder / "app.py").write_text(PROGRAM.format(package=package), encoding="utf-8")
        (folder / "serve.py").write_text(ON_TRIO, encoding="utf-8")
        self.process = subprocess.Popen(
            (sys.executable, *SERVERS[server]),
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log: list[str] = []
        found = re.search(r"http://127\.0\.0\.1:\d+", self.read_until("unning on http"))
        assert found is not None
        self.url = f"{found[0]}/status/"

    def read_until(self, text: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            if text in line:
                return line
        raise AssertionError(f"the server has ended without {text!r}:\n{''.join(self.log)}")

    def end(self) -> str:
        """Wait until the process has ended by itself; return its output."""
        assert self.process.stdout is not None
        self.log.extend(self.process.stdout)
        self.process.wait(PATIENCE)
        return "".join(self.log)


@pytest.fixture(params=SERVERS)
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path, request.param)
    yield process
    process.process.kill()
    process.process.wait()
    assert process.process.stdout is not None
    process.process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_do_not_hold_up_the_users_server(
    process: Process, number: signal.Signals
) -> None:
    """The clients neither read nor go, and the server ends in good order."""
    assert "volumes: open\n" == get(f"{process.url}readyz").text
    watchers = [Watcher(process.url) for _ in range(3)]
    process.process.send_signal(number)
    log = process.end()
    assert log.index("lifespan ends") < log.index("map has ended")
    # On Python 3.11 a cancelled connection of asyncio's streams is an unhandled exception.
    assert "Traceback" not in log or "StreamReaderProtocol.connection_made" in log
    for watcher in watchers:
        watcher.close()


def test_an_open_stream_ends_before_the_grace_of_a_server_is_over() -> None:
    """A thread's server would cancel it only after that."""
    page = StatusPage()
    ended = threading.Event()
    with serve(page, port=0) as server:
        watcher = Watcher(server.url)

        def read_all() -> None:
            watcher.read_until(b"\r\n0\r\n\r\n")  # the end of a body in chunks
            ended.set()

        thread = threading.Thread(target=read_all)
        thread.start()
    thread.join()
    assert ended.is_set()
    watcher.close()
