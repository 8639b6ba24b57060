"""A program whose tasks fail when it is told so: python -m tests.alerts.program trio

It reads commands: after "fail" the tasks fail, until "recover"; after "close" the map is closed,
and the program goes on.
"""

from __future__ import annotations

import asyncio
import sys

import trio
from prometheus_client import start_http_server

import namedtasks.asyncio
from namedtasks import Backoff, ThreadTaskMap
from namedtasks.instruments import PrometheusInstrument

POLICY = Backoff(initial=0.1, maximum=0.4)
VOLUMES = ("pvc-1", "pvc-2")
fails = False


def attach() -> None:
    """Attach a volume, or fail."""
    if fails:
        raise OSError("device busy")


async def attach_async() -> None:
    """Do the same as a coroutine."""
    attach()


def read_command() -> bool:
    """Read a line, and return whether to go on with the map."""
    global fails
    command = sys.stdin.readline().strip()
    fails = command == "fail"
    return command != "close"


def serve() -> None:
    """Serve the metrics on any port that is free, and print the address."""
    server, _ = start_http_server(0, addr="127.0.0.1")
    print(f"serves 127.0.0.1:{server.server_port}", flush=True)


async def on_asyncio() -> None:
    """Run it on asyncio."""
    instrument = PrometheusInstrument("asyncio", operations=["attach"])
    async with namedtasks.asyncio.open_task_map(backoff=POLICY, instruments=[instrument]) as tasks:
        serve()
        while await asyncio.to_thread(read_command):
            for volume in VOLUMES:
                tasks.create_task(
                    volume, attach_async, operation="attach", retry=True, if_busy="skip"
                )
        tasks.cancel_all()
    await asyncio.to_thread(sys.stdin.read)


def in_threads() -> None:
    """Run it in threads."""
    instrument = PrometheusInstrument("threads", operations=["attach"])
    with ThreadTaskMap(backoff=POLICY, instruments=[instrument]) as tasks:
        serve()
        while read_command():
            for volume in VOLUMES:
                tasks.submit(volume, attach, operation="attach", retry=True, if_busy="skip")
        tasks.cancel_all()
    sys.stdin.read()


async def on_trio() -> None:
    """Run it on trio."""
    instrument = PrometheusInstrument("trio", operations=["attach"])
    async with namedtasks.open_task_map(backoff=POLICY, instruments=[instrument]) as tasks:
        serve()
        while await trio.to_thread.run_sync(read_command):
            for volume in VOLUMES:
                tasks.start_soon(
                    volume, attach_async, operation="attach", retry=True, if_busy="skip"
                )
        tasks.cancel_all()
    await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    match sys.argv[1]:
        case "asyncio":
            asyncio.run(on_asyncio())
        case "threads":
            in_threads()
        case _:
            trio.run(on_trio)
