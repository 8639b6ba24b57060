"""An operation that writes down when it starts and ends, and whether another one runs beside it.

It runs in other processes, so all of it is in files: ``<name>.log`` with a line
for each thing that happens, and ``<name>.go``, which lets it end.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import trio

SOON = 60.0
"""Seconds until what should come is given up: not reached when all is well."""
LOOK_EVERY = 0.005


def is_alive(process: int) -> bool:
    """Whether it runs; a zombie, which only its parent can take away, does not."""
    try:
        os.kill(process, 0)
        stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


class Diary:
    """What has become of the operations called *name*."""

    def __init__(self, folder: pathlib.Path | str, name: str) -> None:
        self._log = pathlib.Path(folder, f"{name}.log")
        self._go = pathlib.Path(folder, f"{name}.go")

    def note(self, what: str) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{what} {os.getpid()}\n")

    def entries(self) -> list[tuple[str, int]]:
        if not self._log.exists():
            return []
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [(what, int(process)) for what, process in (line.split() for line in lines)]

    def what(self) -> list[str]:
        return [what for what, _ in self.entries()]

    def running(self) -> list[int]:
        """The processes that have begun an operation, have not ended it, and live."""
        entries = self.entries()
        ended = [process for what, process in entries if what == "end"]
        begun = [process for what, process in entries if what == "start"]
        for process in ended:
            begun.remove(process)
        return [process for process in begun if is_alive(process)]

    def let_go(self) -> None:
        self._go.touch()

    def hold(self) -> None:
        self._go.unlink(missing_ok=True)

    def wait_for_go(self) -> None:
        limit = time.monotonic() + SOON
        while not self._go.exists():
            assert time.monotonic() < limit
            time.sleep(LOOK_EVERY)

    async def until(self, what: str, times: int = 1) -> int:
        """Wait until something was noted; give the process that noted it last."""
        return await until(
            lambda: [process for each, process in self.entries() if each == what][times - 1 : times]
        )


async def until(found: Callable[[], list[int]]) -> int:
    with trio.fail_after(SOON):
        while not (processes := found()):
            await trio.sleep(LOOK_EVERY)
    return processes[-1]


def operate(folder: str, name: str) -> str:
    """Run until it is let go, or killed."""
    diary = Diary(folder, name)
    if diary.running():
        time.sleep(0.05)  # who was killed has closed its connections before it is gone
    if diary.running():
        diary.note("overlap")
    diary.note("start")
    diary.wait_for_go()
    diary.note("end")
    return name


def operate_and_exit(folder: str, name: str) -> None:
    """Call `sys.exit`."""
    Diary(folder, name).note("start")
    sys.exit(1)


def operate_ignoring_sigterm(folder: str, name: str) -> None:
    """Run until its file says that it may end, or it is killed by SIGKILL."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    diary = Diary(folder, name)
    diary.note("start")
    diary.wait_for_go()
    diary.note("end")


def operate_and_die_slowly(folder: str, name: str) -> None:
    """Run until it is told to terminate, and even then until it is let go."""
    diary = Diary(folder, name)

    def die_slowly(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes twice in Python 3.12
        diary.note("terminating")
        diary.wait_for_go()
        diary.note("end")
        os._exit(1)

    signal.signal(signal.SIGTERM, die_slowly)
    diary.note("start")
    limit = time.monotonic() + SOON
    while time.monotonic() < limit:
        time.sleep(LOOK_EVERY)
