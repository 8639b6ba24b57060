"""A program in which all goes wrong that has an alert, until it reads a line.

The alert about a run of more than an hour has no test that takes an hour.
"""

from __future__ import annotations

import sys
import threading

from prometheus_client import start_http_server

from namedtasks import Backoff, ThreadTaskMap
from namedtasks.instruments import PrometheusInstrument


def fail() -> None:
    """Fail."""
    raise OSError("device busy")


def open_map(label: str, limit: int | None = None) -> ThreadTaskMap:
    """Open a map with an instrument of its own."""
    return ThreadTaskMap(
        limit=limit,
        backoff=Backoff(initial=0.1, maximum=0.4),
        overdue_after=0.1,
        instruments=[PrometheusInstrument(label)],
    )


def main() -> None:
    """Cause each trouble, and end all of them after a line was read."""
    end, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait()

    def ask_in_vain(tasks: ThreadTaskMap) -> None:
        while not end.wait(0.1):
            tasks.submit("pvc-1", fail, if_busy="skip")

    with (
        open_map("failing") as failing,
        open_map("refusing") as refusing,
        open_map("stuck", limit=1) as stuck,
        open_map("overdue") as overdue,
    ):
        retried = failing.submit("pvc-1", lambda: None if end.is_set() else fail(), retry=True)
        refusing.submit("pvc-1", fail, backoff=Backoff(give_up_after=1)).exception()
        asking = threading.Thread(target=ask_in_vain, args=[refusing])
        asking.start()
        stuck.submit("pvc-1", end.wait)
        stuck.submit("pvc-2", end.wait)
        overdue.submit("pvc-1", work)
        begun.wait()
        overdue.cancel("pvc-1")
        server, _ = start_http_server(0, addr="127.0.0.1")
        print(f"serves 127.0.0.1:{server.server_port}", flush=True)
        sys.stdin.readline()
        end.set()
        asking.join()
        refusing.forget("pvc-1")
        refusing.submit("pvc-1", int).result()
        retried.result()
        sys.stdin.read()


if __name__ == "__main__":
    main()
