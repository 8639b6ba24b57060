"""How to shut down: the page's programs as processes of their own, which get real signals."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests.docs.pages import DIALECTS, ROOT, code_of, for_dialect

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are of Unix")

PAGE = ROOT / "docs" / "how-to" / "shutdown.md"
PATIENCE = 30.0
"""Seconds until a process that should end is taken for stuck: nobody waits so long."""

JOBS = {
    "asyncio": """
import asyncio
async def take_jobs(tasks):
    tasks.create_task("short", work, "short", 0.01)
    tasks.create_task("long", work, "long", 3600)
    await tasks["short"]
    await asyncio.sleep(3600)
service.take_jobs = take_jobs
def run():
    return asyncio.run(service.main())
""",
    "threads": """
import threading
def start_jobs(tasks):
    long = tasks.submit("long", work, "long", 3600)
    tasks.submit("short", work, "short", 0.01).result()
    while long.started_at is None:
        threading.Event().wait(0.001)
service.start_jobs = start_jobs
run = service.main
""",
    "trio": """
import trio
async def take_jobs(tasks):
    tasks.start_soon("long", work, "long", 3600)
    await tasks.start_soon("short", work, "short", 0.01).wait()
    await trio.sleep_forever()
service.take_jobs = take_jobs
def run():
    return trio.run(service.main)
""",
}
"""A short job and a long one, of which the short one is done before the signal."""

DEAF = """
import threading
def start_jobs(tasks):
    begun = threading.Event()
    def be_deaf():
        begun.set()
        threading.Event().wait()
    tasks.submit("deaf", be_deaf)
    begun.wait()
    print("short is done", flush=True)
service.start_jobs = start_jobs
run = service.main
"""

TELL = {
    "trio": """
really_cancel = service.cancel_at_next
async def cancel_at_next(signals, tasks):
    print("stopping", flush=True)
    await really_cancel(signals, tasks)
service.cancel_at_next = cancel_at_next
""",
    "asyncio": """
handlers, really_install = [], service.on_signals
def on_signals(callback):
    really_install(callback)
    handlers.append(callback)
    if len(handlers) == 2:
        print("stopping", flush=True)
service.on_signals = on_signals
""",
}
"""Prints a line once a second signal would cut the grace short."""
TELL["threads"] = TELL["asyncio"]

PROGRAM = """
import functools, sys
import service
service.GRACE = {grace}
service.print = functools.partial(print, flush=True)
work = service.work
{jobs}
{tell}
sys.exit(run())
"""


class Program:
    """The page's program for *dialect*, with other jobs and another grace."""

    def __init__(self, folder: pathlib.Path, dialect: str, jobs: str, grace: float) -> None:
        page = folder / "page.md"
        page.write_text(for_dialect(PAGE.read_text(encoding="utf-8"), dialect), encoding="utf-8")
        (folder / "service.py").write_text(code_of(page, "service.py"), encoding="utf-8")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "error",
                "-c",
                PROGRAM.format(jobs=jobs, tell=TELL[dialect], grace=grace),
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_line(self, line: str) -> None:
        assert self.process.stdout is not None
        assert f"{line}\n" == self.process.stdout.readline()

    def finish(self) -> tuple[str, str, int]:
        """Return what it printed, what it complained about, and its exit code."""
        with self.process:
            try:
                out, err = self.process.communicate(timeout=PATIENCE)
            finally:
                self.process.kill()
        return out, err, self.process.returncode


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_lets_runs_clean_up_when_the_grace_is_over(
    tmp_path: pathlib.Path, dialect: str, number: signal.Signals
) -> None:
    program = Program(tmp_path, dialect, JOBS[dialect], grace=0.05)
    program.wait_for_line("short is done")
    program.process.send_signal(number)
    assert ("stopping\nlong cleans up\n", "", 0) == program.finish()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_second_signal_cuts_the_grace_short(tmp_path: pathlib.Path, dialect: str) -> None:
    program = Program(tmp_path, dialect, JOBS[dialect], grace=3600.0)
    program.wait_for_line("short is done")
    program.process.send_signal(signal.SIGTERM)
    program.wait_for_line("stopping")
    program.process.send_signal(signal.SIGINT)
    assert ("long cleans up\n", "", 0) == program.finish()


def test_a_thread_that_does_not_stop_makes_the_exit_code_1(tmp_path: pathlib.Path) -> None:
    """The program ends all the same."""
    program = Program(tmp_path, "threads", DEAF, grace=0.0)
    program.wait_for_line("short is done")
    program.process.send_signal(signal.SIGTERM)
    out, err, code = program.finish()
    assert ("stopping\n", 1) == (out, code)
    assert err.startswith("task 'deaf' was asked to stop")
