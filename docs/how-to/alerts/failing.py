"""A program to try the alerts with: one name keeps failing, and one is given up.

    python failing.py 8000

It serves its metrics on that port of 127.0.0.1, and runs until Ctrl-C.
"""

from __future__ import annotations

import asyncio
import sys

from prometheus_client import start_http_server

import namedtasks.asyncio
from namedtasks import Backoff, LoggingInstrument
from namedtasks.instruments import PrometheusInstrument


async def attach() -> None:
    """Fail, as if the device were busy."""
    raise OSError("device busy")


async def main(port: int) -> None:
    """Serve the metrics, and try the names again and again."""
    server, _ = start_http_server(port, addr="127.0.0.1")
    print(f"serves http://127.0.0.1:{server.server_port}/metrics", flush=True)
    metrics = PrometheusInstrument("volumes", operations=["attach"])
    instruments = [LoggingInstrument(), metrics]
    async with namedtasks.asyncio.open_task_map(instruments=instruments) as tasks:
        keeps_failing = tasks.create_task("vol-1", attach, operation="attach", retry=True)
        policy = Backoff(give_up_after=1)
        given_up = tasks.create_task("vol-2", attach, operation="attach", backoff=policy)
        await asyncio.wait([keeps_failing, given_up])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
