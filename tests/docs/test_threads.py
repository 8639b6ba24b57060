"""How to use threads, and how to stop them: the pages' programs as processes of their own."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys

import pytest

import namedtasks
from tests.docs.pages import ROOT, code_of

PAGE = ROOT / "docs" / "how-to" / "threads.md"
PATIENCE = 30.0
"""Seconds until a process that should end is taken for stuck: nobody waits so long."""

DEAF = """
import threading
begun = threading.Event()
def be_deaf():
    begun.set()
    threading.Event().wait()
"""

unix = pytest.mark.skipif(sys.platform == "win32", reason="signals are of Unix")


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Where the page's programs are."""
    for name in ("serve.py", "background.py", "service.py"):
        (tmp_path / name).write_text(code_of(PAGE, name), encoding="utf-8")
    return tmp_path


def start(folder: pathlib.Path, program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    with process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return out, err, process.returncode


def wait_for_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


SERVE = """
import time
from serve import main, refresh
def serve(tasks):
    future = tasks.submit("refresh", refresh)
    while future.started_at is None:
        time.sleep(0.001)
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
main(serve)
"""
"""It sleeps often and briefly: a signal that comes just before a sleep does not end that one."""


@unix
def test_ctrl_c_in_the_block_stops_what_listens(folder: pathlib.Path) -> None:
    """The one traceback is the program's own."""
    process = start(folder, SERVE)
    wait_for_line(process, "ready")
    process.send_signal(signal.SIGINT)
    out, err, code = finish(process)
    assert ("tidied up\n", -signal.SIGINT) == (out, code)
    assert err.count("Traceback") == 1
    assert err.endswith("KeyboardInterrupt\n")


CTRL_C_TWICE = (
    DEAF
    + """
import namedtasks.instruments
class Tell(namedtasks.instruments.Instrument):
    def task_overdue(self, event):
        print("overdue", flush=True)
with namedtasks.ThreadTaskMap(overdue_after=0.01, instruments=[Tell()]) as tasks:
    tasks.submit("deaf", be_deaf)
    begun.wait()
    print("ready", flush=True)
    while True:
        threading.Event().wait(0.01)
"""
)


@unix
def test_a_second_ctrl_c_leaves_though_a_body_does_not_listen(folder: pathlib.Path) -> None:
    """The first one asks, and waits."""
    process = start(folder, CTRL_C_TWICE)
    wait_for_line(process, "ready")
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "overdue")
    process.send_signal(signal.SIGINT)
    _, _, code = finish(process)
    assert -signal.SIGINT == code


def test_a_map_that_is_shut_down_at_exit_ends_with_the_program(folder: pathlib.Path) -> None:
    """What listens is asked to stop, what does not is left: the exit is bounded."""
    program = (
        DEAF
        + """
import background, serve
background.tasks.submit("deaf", be_deaf)
refreshing = background.tasks.submit("refresh", serve.refresh)
while refreshing.started_at is None:
    serve.time.sleep(0.001)
begun.wait()
print("end", flush=True)
"""
    )
    (folder / "background.py").write_text(
        code_of(PAGE, "background.py").replace("grace=2.0", "grace=0.01")
    )
    out, err, code = finish(start(folder, program))
    assert ("end\ntidied up\n", 0) == (out, code)
    assert "task 'deaf'" in err  # the log says that it does not stop
    assert "Traceback" not in err


POOLED = """
import concurrent.futures.thread, time
import background
def work(number):
    if LASTS:
        while not concurrent.futures.thread._shutdown:  # the exit has begun
            time.sleep(0.001)
    print("did", number)
for number in (1, 2, 3):
    background.tasks.submit(number, work, number)
background.tasks.submit(1, work, 4, if_busy="queue")
"""


@pytest.mark.parametrize("is_shut_down_before", [False, True])
def test_a_map_with_a_pool_is_shut_down_before_the_exit(
    folder: pathlib.Path, is_shut_down_before: bool
) -> None:
    """Else the pool is closed first, and what stands in line fails."""
    (folder / "background.py").write_text(
        "import concurrent.futures\n"
        + code_of(PAGE, "background.py").replace(
            "limit=8", "limit=1, executor=concurrent.futures.ThreadPoolExecutor(2)"
        )
    )
    program = f"LASTS = {not is_shut_down_before}\n{POOLED}"
    if is_shut_down_before:
        program += "background.tasks.shutdown(grace=60.0)"
    out, err, code = finish(start(folder, program))
    refused = err.count("): RuntimeError: cannot schedule new futures after interpreter shutdown")
    if is_shut_down_before:
        assert ("did 1\ndid 2\ndid 3\ndid 4\n", "", 0) == (out, err, code)
    else:
        assert ("did 1\n", 3, 0) == (out, refused, code)


def test_the_pages_program_with_a_pool_runs_all(folder: pathlib.Path) -> None:
    (folder / "pooled.py").write_text(code_of(PAGE, "pooled.py"), encoding="utf-8")
    assert ("a\nb\nc\n", "", 0) == finish(start(folder, "import pooled; pooled.main()"))


@unix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_noted_signal_ends_the_service_in_order(
    folder: pathlib.Path, number: signal.Signals
) -> None:
    """The exit code is the shells' one, and nothing is complained about."""
    text = code_of(PAGE, "service.py").replace("signal.SIGTERM)  #", f"signal.{number.name})  #")
    (folder / "service.py").write_text(text)
    out, err, code = finish(start(folder, "import sys, service; sys.exit(service.main())"))
    assert ("tidied up\n", "", 128 + number) == (out, err, code)


def test_a_body_in_another_process_does_not_listen() -> None:
    """It does not even know that it is a task."""
    spawn = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool,
        namedtasks.ThreadTaskMap(executor=pool, instruments=[]) as tasks,
        pytest.raises(RuntimeError, match=r"^current_run\(\) must be called from inside a task$"),
    ):
        tasks.submit("job", namedtasks.current_run).result()
