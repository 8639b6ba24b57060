"""Prometheus, Alertmanager, a receiver and programs, all on 127.0.0.1 and in one folder.

Each server chooses a free port itself and writes it to its log, so no port is taken twice. Each
`until` waits for what must come, with a limit that only a hang reaches.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from tests.alerts.files import FILES
from tests.docs.pages import ROOT

LIMIT = 120.0
"""Seconds after which something hangs."""

T = TypeVar("T")
Json = Any

_LISTENING = re.compile(r'msg="Listening on" address=(127\.0\.0\.1:\d+)')
_without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def until(read: Callable[[], T | None], what: str, *, looks_at: Process | None = None) -> T:
    """Return the first result of *read* that is true.

    Raises:
        AssertionError: none was for `LIMIT` seconds, or the process has ended.
    """
    end = time.monotonic() + LIMIT
    while True:
        found = read()
        if found:
            return found
        if looks_at is not None and looks_at.popen.poll() is not None:
            raise AssertionError(f"it ended before {what}:\n{looks_at.text()}")
        if time.monotonic() > end:
            log = "" if looks_at is None else f":\n{looks_at.text()}"
            raise AssertionError(f"not within {LIMIT:.0f} s: {what}{log}")
        time.sleep(0.05)


def ask(address: str, path: str, body: Json = None, *, method: str | None = None) -> Json:
    """Return the JSON that a server answers; with a *body* it is a POST."""
    request = urllib.request.Request(
        f"http://{address}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method=method,
    )
    with _without_proxy.open(request, timeout=LIMIT) as answer:
        text = answer.read()
    return json.loads(text) if text else None


class Process:
    """A process in a group of its own, with its output in a file."""

    def __init__(self, folder: pathlib.Path, name: str, *command: str, reads: bool = False) -> None:
        self.log = folder / f"{name}.log"
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith("COVERAGE")
        }
        environment["PYTHONPATH"] = str(ROOT)
        with self.log.open("a") as log:
            self.popen = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        """Return what it has written."""
        return self.log.read_text(encoding="utf-8")

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{line}\n".encode())
        self.popen.stdin.flush()

    def kill(self) -> None:
        """Kill it and wait for its end; may be called again."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        if self.popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.popen.stdin.close()


class Server(Process):
    """A process that has logged its address."""

    def __init__(self, folder: pathlib.Path, name: str, *command: str) -> None:
        super().__init__(folder, name, *command)
        self._length = 0
        try:
            self.address = until(self._find_address, f"{name} listens", looks_at=self)
        except BaseException:
            self.kill()
            raise

    def _find_address(self) -> str | None:
        found = _LISTENING.findall(self.text())
        return found[-1] if found else None

    def is_ready(self) -> bool:
        """Return whether it answers."""
        with contextlib.suppress(OSError):
            with _without_proxy.open(f"http://{self.address}/-/ready", timeout=LIMIT) as answer:
                return bool(answer.status == 200)
        return False


# The servers


class Workshop:
    """A folder in which servers are started, and killed at the end."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._all: list[Process] = []
        self._starts = 0

    def start(self, name: str, *command: str, reads: bool = False) -> Process:
        """Start a process."""
        process = Process(self.folder, name, *command, reads=reads)
        self._all.append(process)
        return process

    def serve(self, name: str, *command: str) -> Server:
        """Start a server, and wait until it answers."""
        self._starts += 1
        server = Server(self.folder, f"{name}-{self._starts}", *command)
        self._all.append(server)
        until(server.is_ready, f"{name} is ready", looks_at=server)
        return server

    def write(self, name: str, text: str) -> pathlib.Path:
        """Write a file."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def alertmanager(self, config: str) -> Server:
        """Start Alertmanager; without an address for its cluster, or it opens a port for gossip."""
        return self.serve(
            "alertmanager",
            "prometheus-alertmanager",
            f"--config.file={self.write('alertmanager.yml', config)}",
            f"--storage.path={self.folder / 'alertmanager'}",
            "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=",
        )

    def prometheus(self, config: str, *options: str) -> Server:
        """Start Prometheus; another one in the same folder has the data of the one before."""
        return self.serve(
            "prometheus",
            "prometheus",
            f"--config.file={self.write('prometheus.yml', config)}",
            f"--storage.tsdb.path={self.folder / 'prometheus'}",
            "--web.listen-address=127.0.0.1:0",
            *options,
        )

    def program(self, name: str, *arguments: str) -> tuple[Process, str]:
        """Start a program of this folder that prints its address first, and return both."""
        command = (sys.executable, "-m", *arguments)
        process = self.start(name, *command, reads=True)
        found = until(
            lambda: re.search(r"^serves (127\.0\.0\.1:\d+)$", process.text(), re.MULTILINE),
            f"{name} serves its metrics",
            looks_at=process,
        )
        return process, found[1]

    def end(self) -> None:
        """Kill whatever is left."""
        for process in self._all:
            process.kill()


class Receiver:
    """The example `docs/how-to/alerts/webhook.py` on a free port, and what it was sent."""

    def __init__(self) -> None:
        self.changes: queue.SimpleQueue[Json] = queue.SimpleQueue()
        """Alerts that began or ended, each once."""
        self.messages: queue.SimpleQueue[Json] = queue.SimpleQueue()
        """Messages, in the order in which they came."""
        self.refusals: list[Exception] = []
        """Errors that refuse the next messages: a ValueError with 400, others with 500."""
        spec = importlib.util.spec_from_file_location("webhook", FILES / "webhook.py")
        assert spec is not None
        assert spec.loader is not None
        webhook: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(webhook)
        self._server = webhook.Receiver(0, self.changes.put)
        self._take = self._server.take
        self._server.take = self._record
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])
        self._thread.start()

    def _record(self, message: Json) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.messages.put(message)
        self._take(message)

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def workshop() -> Generator[Workshop]:
    """A folder that is removed at the end, after its processes were killed."""
    with tempfile.TemporaryDirectory(prefix="namedtasks-alerts-") as folder:
        shop = Workshop(pathlib.Path(folder))
        try:
            yield shop
        finally:
            shop.end()


def now(seconds: float = 0.0) -> str:
    """Return the time in *seconds*, as Alertmanager reads it."""
    when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return when.isoformat()
