"""Runs the volume controller many times, and sends it signals at chosen moments.

Reads cases from its input, a JSON object per line, and answers each with one:
what the exit code was, what was printed, how many commands there were, and what
was still mounted, attached or running at the moment when the controller ended.

It forks: to import trio 300 times would take two minutes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

from volume_controller import cleanup, commands, directory
from volume_controller.__main__ import main

SIGNALS = (signal.SIGINT, signal.SIGTERM)

AT_ONCE = 32
"""Controllers. They sleep more than they compute."""

Case = dict[str, Any]


class Injector:
    """Sends this process a signal before or behind the *nth* command, or around all from it on."""

    def __init__(self, case: Case) -> None:
        self.seen = 0
        self._nth: int | None = case.get("nth")
        self._when: str = case.get("when", "")
        self._signal: int = case.get("signal", signal.SIGTERM)

    def around(self, fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(fn)
        async def with_signals(*args: Any, **kwargs: Any) -> Any:
            self.seen += 1
            number = self.seen
            self._perhaps(number, "before")
            try:
                return await fn(*args, **kwargs)
            finally:
                self._perhaps(number, "after")

        return with_signals

    def _perhaps(self, number: int, when: str) -> None:
        if self._nth is None:
            return
        storm = self._when == "storm" and number >= self._nth
        if storm or (number, when) == (self._nth, self._when):
            os.kill(os.getpid(), self._signal)


def traces(work: str) -> list[str]:
    """What the system knows of *work*: found without any help of the example's."""
    mark = work.encode()
    found = [
        line.decode()
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines()
        if mark in line
    ]
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if mark in file.read_bytes():
                found.append(str(file))
        except OSError:
            pass
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(mark in (folder / name).read_bytes() for name in ("cmdline", "environ")):
                found.append(f"{folder}: {(folder / 'cmdline').read_bytes()!r}")
        except OSError:
            pass
    found += [str(lock) for lock in Path(work).glob("attachments/*") if lock.is_symlink()]
    if (Path(work) / "files").exists():  # backend dir: what is there is mounted
        found += [str(folder) for folder in Path(work).glob("nodes/*/*")]
    return found


def child(case: Case, output: int, count: int) -> int:
    os.dup2(output, 1)
    os.dup2(output, 2)
    injector = Injector(case)
    doors = ((commands, "spawn"), (cleanup, "_in_thread"), (directory, "_in_thread"))
    for module, door in doors:
        setattr(module, door, injector.around(getattr(module, door)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return main(case["arguments"])
    finally:
        os.write(count, str(injector.seen).encode())
        sys.stdout.flush()
        sys.stderr.flush()


def fork(case: Case, output: int, count: int) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = child(case, output, count)
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            os.write(output, traceback.format_exc().encode())
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return pid


class Run:
    """One controller that runs."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by answer()
        self._count = tempfile.TemporaryFile()  # noqa: SIM115
        self._due: float | None = time.monotonic() + case["delay"] if "delay" in case else None
        self.pid = fork(case, self._output.fileno(), self._count.fileno())

    def send_if_due(self) -> None:
        if self._due is not None and time.monotonic() >= self._due:
            os.kill(self.pid, self._case["signal"])
            self._due = None

    def answer(self, status: int) -> Case:
        left = traces(self._case["work"])
        code = os.waitstatus_to_exitcode(status)
        with self._output, self._count:
            self._output.seek(0)
            self._count.seek(0)
            return {
                **self._case,
                "code": 128 - code if code < 0 else code,  # as shells do
                "seen": int(self._count.read() or b"0"),
                "output": self._output.read().decode(errors="replace"),
                "left": left,
            }


def run_all(cases: list[Case]) -> None:
    running: dict[int, Run] = {}
    while cases or running:
        while cases and len(running) < AT_ONCE:
            new = Run(cases.pop())
            running[new.pid] = new
        for run in running.values():
            run.send_if_due()
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            print(json.dumps(running.pop(pid).answer(status)), flush=True)
        else:
            time.sleep(0.002)


if __name__ == "__main__":
    run_all([json.loads(line) for line in sys.stdin])
