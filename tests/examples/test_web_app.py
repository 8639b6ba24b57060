"""The program of docs/how-to/web-applications.md, on a real server, with a real client."""

from __future__ import annotations

import asyncio
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import namedtasks.asyncio

CURE = "needs {}: python -m pip install -r .ci/requirements.txt"
httpx: Any = pytest.importorskip("httpx", reason=CURE.format("httpx"))
pytest.importorskip("starlette", reason=CURE.format("starlette"))
pytest.importorskip("uvicorn", reason=CURE.format("uvicorn"))

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = (ROOT / "docs" / "how-to" / "web-applications.md").read_text(encoding="utf-8")

PATIENCE = 120.0
"""Seconds until a server that does not answer counts as stuck: no answer takes as long."""

RUNNING = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:(\d+))")

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")


def block(first_line: str) -> str:
    """Return the block of the page that begins with *first_line*."""
    blocks: list[str] = re.findall(r"^```py(?:thon)?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return next(code for code in blocks if code.startswith(first_line))


class Server:
    """A process that serves the program of the page."""

    def __init__(self, folder: Path, *command: str, **settings: str) -> None:
        self.folder = folder
        (folder / "app.py").write_text(block("# app.py\n"), encoding="utf-8")
        self.log: list[str] = []
        self.process = subprocess.Popen(
            (sys.executable, *command),
            cwd=folder,
            env={
                **os.environ,
                **settings,
                "PYTHONPATH": os.pathsep.join([str(folder), str(HERE), str(ROOT)]),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.use(self.read_until("Uvicorn running on"))

    def use(self, line: str) -> None:
        """Send requests to the address in *line*."""
        running = RUNNING.search(line)
        assert running is not None, line
        self.port = int(running[2])
        self.client = httpx.Client(base_url=running[1], timeout=PATIENCE, trust_env=False)

    def read_until(self, text: str) -> str:
        """Return the next line of the log with *text*, when the server has written it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            if text in line:
                return line
        raise AssertionError(f"the server has ended without {text!r}:\n{''.join(self.log)}")

    def send(self, method: str, path: str) -> socket.socket:
        """Send a request, and return its connection when the endpoint has it."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        self.read_until(f"got {method} {path.partition('?')[0]}")
        return connection

    def finish(self, volume: str) -> None:
        """Let the run of *volume* succeed."""
        (self.folder / f"{volume}.done").touch()

    def end(self, number: signal.Signals | None = None) -> tuple[str, int]:
        """Wait for the end, after a signal if there is one; return the log and the exit code."""
        if number is not None:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        self.log.extend(self.process.stdout)  # communicate() would lose what is read ahead
        return "".join(self.log), self.process.wait(PATIENCE)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    servers: list[Server] = []

    def start(*options: str, **settings: str) -> Server:
        uvicorn = ("-m", "uvicorn", "served_app:app", "--port", "0", "--no-use-colors")
        servers.append(Server(tmp_path, *uvicorn, *options, **settings))
        return servers[-1]

    yield start
    for server in servers:
        with server:
            pass


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve()


def test_the_page_shows_what_curl_prints(server: Server) -> None:
    """Every answer on the page, but for the times in it, and headers that it leaves out."""
    console = re.search(r"^```console\n(\$ curl.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert console is not None
    exchanges = re.split(r"^\$ curl -i ", console[1], flags=re.MULTILINE)[1:]
    assert len(exchanges) == 8
    for exchange in exchanges:
        command, _, shown = exchange.strip().partition("\n")
        method, path = re.fullmatch(r"(?:-X (\w+) )?http://localhost:8000(/\S+)", command).groups()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
        answer = server.client.request(method or "GET", path)
        head, _, body = shown.partition("\n\n")
        status, *headers = head.split("\n")
        assert f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}" == status
        got = {name: answer.headers.get(name) for name in ("location", "retry-after")}
        printed = [f"{name}: {value}" for name, value in got.items() if value is not None]
        assert masked("\n".join(headers)) == masked("\n".join(printed))
        assert masked(body) == masked(answer.text)


def masked(text: str) -> str:
    text = TIME.sub("<time>", text)
    text = re.sub(r"retry-after: \d+", "retry-after: <seconds>", text)
    return re.sub(r"http://(localhost|127\.0\.0\.1):\d+", "<server>", text)


def test_a_second_start_is_refused_while_the_first_runs(server: Server) -> None:
    first = server.client.post("/volumes/vol-1/attach")
    assert 202 == first.status_code
    assert {"volume": "vol-1", "state": "running"} == first.json()
    server.read_until("begun vol-1")
    second = server.client.post("/volumes/vol-1/attach")
    assert 409 == second.status_code
    assert "retry-after" not in second.headers
    assert masked(second.text) == masked(server.client.get(first.headers["location"]).text)
    assert second.json().keys() == {"volume", "state", "started_at"}
    assert 202 == server.client.post("/volumes/vol-3/attach").status_code

    server.finish("vol-1")
    server.read_until("done vol-1")
    status = server.client.get("/volumes/vol-1").json()
    assert ("free", "succeeded") == (status["state"], status["last"])
    assert 202 == server.client.post("/volumes/vol-1/attach").status_code


def test_a_start_during_the_wait_is_told_when_to_come_back(server: Server) -> None:
    """In whole seconds, for machines, and as a time of day."""
    assert 202 == server.client.post("/volumes/vol-2/attach").status_code
    server.read_until("task 'vol-2' failed")
    refused = server.client.post("/volumes/vol-2/attach")
    assert 409 == refused.status_code
    assert re.fullmatch(r"[1-9]\d*", refused.headers["retry-after"])
    assert int(refused.headers["retry-after"]) <= 600
    status = refused.json()
    assert ("waiting", 1, "OSError") == (status["state"], status["failures"], status["error"])
    wait = datetime.fromisoformat(status["retry_at"]) - datetime.fromisoformat(status["ended_at"])
    assert abs(wait - timedelta(seconds=600)) < timedelta(seconds=PATIENCE)
    assert ["vol-2"] == server.client.get("/volumes").json()["waiting"]


def test_a_name_that_gave_up_starts_again_when_it_is_forgotten(serve: Serve) -> None:
    server = serve(GIVE_UP_AFTER="1")
    assert 502 == server.client.put("/volumes/vol-2/attach").status_code
    refused = server.client.post("/volumes/vol-2/attach")
    assert (409, "gave up") == (refused.status_code, refused.json()["state"])
    assert "retry-after" not in refused.headers
    assert "retry_at" not in refused.json()
    assert ["vol-2"] == server.client.get("/volumes").json()["gave up"]
    assert 204 == server.client.delete("/volumes/vol-2/failures").status_code
    assert 202 == server.client.post("/volumes/vol-2/attach").status_code


def test_a_closed_map_answers_503(server: Server) -> None:
    server.client.post("/close")
    answer = server.client.post("/volumes/vol-1/attach")
    assert 503 == answer.status_code
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    ("retry_in", "seconds"), [(5e-324, "1"), (0.5, "1"), (1.0, "1"), (1.0001, "2"), (122, "122")]
)
def test_seconds_are_rounded_up(tmp_path: Path, retry_in: float, seconds: str) -> None:
    """A client that waits for so long is admitted; no client is told to come back at once."""
    (tmp_path / "app.py").write_text(block("# app.py\n"), encoding="utf-8")
    refused = runpy.run_path(str(tmp_path / "app.py"))["refused"]
    refusal = namedtasks.BackoffError("vol-1", None, 1, 0.0, retry_in)

    async def answer() -> Any:
        async with namedtasks.asyncio.open_task_map() as tasks:
            request = SimpleNamespace(state=SimpleNamespace(tasks=tasks))
            return await refused(request, refusal)

    assert seconds == asyncio.run(answer()).headers["retry-after"]


def test_cancelling_stops_the_run(server: Server) -> None:
    assert 404 == server.client.delete("/volumes/vol-1/attach").status_code
    server.client.post("/volumes/vol-1/attach")
    server.read_until("begun vol-1")
    cancelled = server.client.delete("/volumes/vol-1/attach")
    assert (202, "running") == (cancelled.status_code, cancelled.json()["state"])
    server.read_until("cancelled vol-1")
    status = server.client.get("/volumes/vol-1").json()
    assert ("free", "cancelled") == (status["state"], status["last"])
    assert 202 == server.client.post("/volumes/vol-1/attach").status_code


def test_volumes_that_do_not_exist_are_not_found(server: Server) -> None:
    for method, path in [
        ("GET", "/volumes/vol-9"),
        ("POST", "/volumes/vol-9/attach"),
        ("PUT", "/volumes/vol-1%0A/attach"),
        ("DELETE", "/volumes/%FF/attach"),
        ("DELETE", "/volumes/vol-9/failures"),
    ]:
        assert 404 == server.client.request(method, path).status_code
    assert server.client.get("/volumes").json()["running"] == []


def test_requests_join_one_run(server: Server) -> None:
    with ThreadPoolExecutor(2) as pool:
        answers: list[Future[Any]] = []
        for _ in range(2):
            answers.append(pool.submit(server.client.put, "/volumes/vol-1/attach"))
            server.read_until("got PUT")
        server.finish("vol-1")
        for answer in answers:
            assert {"device": "/dev/vol-1"} == answer.result().json()
    log, _ = server.end(signal.SIGTERM)
    assert 1 == log.count("begun vol-1")


def test_a_cancelled_run_answers_those_that_wait_for_it(server: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.client.put, "/volumes/vol-1/attach")
        server.read_until("begun vol-1")
        assert 202 == server.client.delete("/volumes/vol-1/attach").status_code
        answer = waiting.result()
    assert (502, "TaskCancelledError") == (answer.status_code, answer.text)


def test_a_failure_answers_the_request_that_waits_for_it(server: Server) -> None:
    answer = server.client.put("/volumes/vol-2/attach")
    assert (502, "OSError") == (answer.status_code, answer.text)
    again = server.client.put("/volumes/vol-2/attach")
    assert (409, True) == (again.status_code, "retry-after" in again.headers)


def test_a_client_that_disconnects_does_not_cancel_the_run(server: Server) -> None:
    server.send("PUT", "/volumes/vol-1/attach").close()
    assert "running" == server.client.get("/volumes/vol-1").json()["state"]
    server.finish("vol-1")
    server.read_until("done vol-1")


@pytest.mark.parametrize("if_busy", ["refuse", "join"])
def test_a_cancelled_request_leaves_a_run_that_it_has_joined(server: Server, if_busy: str) -> None:
    """One that awaits the Task of a plain start cancels it: asyncio does."""
    with server.send("GET", f"/stream/vol-1?if_busy={if_busy}") as connection:
        server.read_until("begun vol-1")
        assert connection.recv(1) == b"H"
    if if_busy == "refuse":
        server.read_until("cancelled vol-1")
    server.read_until("left vol-1")
    if if_busy == "join":
        server.finish("vol-1")
        server.read_until("done vol-1")


def test_the_verbs_raise_in_an_endpoint_that_is_a_plain_function(server: Server) -> None:
    raised = server.client.get("/thread").json()
    assert [None, None] == [raised.pop("state"), raised.pop("check")]
    assert dict.fromkeys(raised, "RuntimeError") == raised
    assert raised.keys() == {"create_task", "run_in_executor", "cancel", "forget"}


def test_a_refusal_in_a_background_task_comes_too_late(server: Server) -> None:
    server.client.post("/volumes/vol-1/attach")
    assert 202 == server.client.post("/background").status_code
    server.read_until("namedtasks.AlreadyRunningError")
    server.read_until("response already started")


def test_a_mounted_application_finds_the_map_in_the_state_of_the_request(server: Server) -> None:
    places = server.client.get("/mounted/").json()
    assert {"request.state": True, "request.app.state": False} == places
    log, _ = server.end(signal.SIGTERM)
    assert "lifespan of the mounted application" not in log


def test_two_applications_have_a_map_each(tmp_path: Path) -> None:
    with Server(tmp_path, str(HERE / "served_app.py")) as server:
        one = server.client
        server.use(server.read_until("Uvicorn running on"))
        assert 202 == one.post("/volumes/vol-1/attach").status_code
        assert 202 == server.client.post("/volumes/vol-1/attach").status_code
        assert 409 == one.post("/volumes/vol-1/attach").status_code
        one.close()


# The end of the server


def running(server: Server) -> Server:
    server.client.post("/volumes/vol-1/attach")
    server.read_until("begun vol-1")
    return server


def test_a_run_may_end_during_the_grace(serve: Serve) -> None:
    """Neither uvicorn's own timeout nor Ctrl-C cuts the grace short; the port is closed."""
    server = running(serve("--timeout-graceful-shutdown", "0", GRACE="600"))
    server.process.send_signal(signal.SIGTERM)
    server.read_until("Waiting for application shutdown")
    server.process.send_signal(signal.SIGINT)
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.client.base_url, timeout=PATIENCE, trust_env=False)
    server.finish("vol-1")
    server.read_until("done vol-1")
    log, code = server.end()
    assert "Application shutdown complete." in log
    assert "cancelled" not in log
    assert -signal.SIGTERM == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -15), (signal.SIGINT, 0)])
def test_a_run_is_cancelled_after_the_grace(
    serve: Serve, number: signal.Signals, code: int
) -> None:
    """However well all ends, SIGTERM is the exit status."""
    log, exit_code = running(serve(GRACE="0")).end(number)
    assert log.index("Waiting for application shutdown.") < log.index("cancelled vol-1")
    assert log.index("cancelled vol-1") < log.index("Application shutdown complete.")
    assert code == exit_code
    assert "Traceback" not in log


def test_the_grace_begins_when_the_requests_are_over(serve: Serve) -> None:
    server = serve(GRACE="0")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.client.put, "/volumes/vol-1/attach")
        server.read_until("begun vol-1")
        server.process.send_signal(signal.SIGTERM)
        server.read_until("Waiting for connections to close")
        server.finish("vol-1")
        assert {"device": "/dev/vol-1"} == waiting.result().json()
    log, _ = server.end()
    assert "Application shutdown complete." in log


def test_a_request_that_is_cancelled_at_the_end_leaves_its_run(serve: Serve) -> None:
    server = serve("--timeout-graceful-shutdown", "0", GRACE="600")
    with server.send("PUT", "/volumes/vol-1/attach"):
        server.read_until("begun vol-1")
        server.process.send_signal(signal.SIGTERM)
        server.read_until("Cancel 1 running task(s)")
        server.read_until("Waiting for application shutdown")
        server.finish("vol-1")
        server.read_until("done vol-1")
        log, _ = server.end()
    assert "Application shutdown complete." in log
    assert "cancelled vol-1" not in log


def test_a_second_ctrl_c_cancels_the_runs_at_once(serve: Serve) -> None:
    server = serve(GRACE="600")
    with server.send("PUT", "/volumes/vol-1/attach"):
        server.read_until("begun vol-1")
        server.process.send_signal(signal.SIGINT)
        server.read_until("Waiting for connections to close")
        log, _ = server.end(signal.SIGINT)
    assert "cancelled vol-1" in log
    assert "Waiting for application shutdown." not in log


# The other programs of the page


def run_test_of_the_page(folder: Path, test: str) -> None:
    (folder / "test_app.py").write_text(test, encoding="utf-8")
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly")
    done = subprocess.run(
        (sys.executable, "-m", "pytest", *options, "test_app.py"),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_test_of_the_page_passes(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(block("# app.py\n"), encoding="utf-8")
    run_test_of_the_page(tmp_path, block("# test_app.py\n"))


ON_TRIO = """
def test_on_trio() -> None:
    with TestClient(app) as client:
        assert client.put("/volumes/vol-2/attach").text == "OSError"
        assert client.post("/volumes/vol-2/attach").headers["retry-after"].isdecimal()
        assert client.get("/volumes/vol-2").json()["failures"] == 1
        assert client.post("/volumes/vol-1/attach").status_code == 202
        assert client.delete("/volumes/vol-1/attach").status_code == 202
"""


def test_the_program_runs_on_trio_with_the_words_of_the_page(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (?:`([^`]+)` )?\|$", PAGE, re.MULTILINE)
    assert len(rows) == 7
    program = block("# app.py\n")
    ensure = re.search(r"async def ensure.*?\n\n\n", program, re.DOTALL)
    assert ensure is not None
    program = program.replace(ensure[0], block("async def ensure") + "\n\n")
    for ours, theirs in rows:
        assert ours in program
        program = program.replace(ours, theirs)
    assert "asyncio" not in program
    program = program.replace("initial=5", "initial=600")
    (tmp_path / "app.py").write_text(program, encoding="utf-8")
    test = block("# test_app.py\n") + ON_TRIO
    run_test_of_the_page(tmp_path, test.replace("(app)", '(app, backend="trio")'))
