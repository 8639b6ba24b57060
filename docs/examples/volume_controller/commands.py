"""Runs the system's commands, and leaves no process behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from volume_controller import kernel
from volume_controller.backend import BackendError

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""The search path, with the folders of mkfs and losetup, which not every shell has."""

_GROUP_TIMEOUT = 1.0
"""Seconds for the children of a killed command to end, too. Pulled out of the air."""

spawn = trio.run_process
"""The function that starts every process. The tests send signals before and after it."""

_HOLD = """
import fcntl, os, signal
folder = os.open(".", os.O_RDONLY)
fcntl.flock(folder, fcntl.LOCK_EX)
print("held", flush=True)
signal.pause()
"""


class CommandError(BackendError):
    """A command that could not be run, or whose exit code says that it failed."""


def find(command: str) -> str | None:
    """Return the path of *command*, or None if it is not installed."""
    return shutil.which(command, path=_PATH)


@contextmanager
def marked(work: Path) -> Generator[None]:
    """Mark processes that start inside the block as those of *work*, for `kernel.processes_of`."""
    os.environ[kernel.MARK] = str(work)
    try:
        yield
    finally:
        del os.environ[kernel.MARK]


async def run(*command: str, success: Collection[int] = (0,)) -> str:
    """Run *command*, and return its output. Checkpoint.

    If it is cancelled, the command and its children have ended when this call ends.

    Raises:
        CommandError: it is not installed, or its exit code is not in *success*.
    """
    found = find(command[0])
    if found is None:
        raise CommandError(f"{command[0]!r} is not installed")
    done = await spawn(
        [found, *command[1:]],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
        start_new_session=True,  # Ctrl-C in the terminal must not reach mkfs
        deliver_cancel=_kill_session,
        env=_environment(),
    )
    output = done.stdout.decode(errors="replace")
    if done.returncode not in success:
        said = _last_line(output)
        raise CommandError(f"{' '.join(command)!r} ended with code {done.returncode}: {said}")
    return output


async def hold(
    folder: Path, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    """Keep *folder* busy with a process that works in it and has locked it, until cancelled.

    For `trio.Nursery.start`, which returns the scope to cancel. Checkpoint.

    Raises:
        CommandError: the process ended before it had locked the folder.
    """
    start = partial(
        spawn,
        [sys.executable, "-I", "-S", "-c", _HOLD],
        stdout=subprocess.PIPE,
        cwd=folder,
        check=False,
        start_new_session=True,
        deliver_cancel=_kill_session,
        env=_environment(),
    )
    held = False
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            with suppress(OSError):
                process: trio.Process = await nursery.start(start)
                if process.stdout is not None:
                    async with process.stdout as stdout:
                        held = bool(await stdout.receive_some())
            if held:
                task_status.started(scope)
    if not held:
        raise CommandError(f"no process could be started to keep {folder} busy")


async def _kill_session(process: trio.Process) -> None:
    # At once: each command is one system call, or its unfinished work is undone or repeated.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _GROUP_TIMEOUT):
            while True:
                os.killpg(process.pid, 0)
                await trio.sleep(0.01)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _PATH, "LC_ALL": "C"}


def _last_line(output: str) -> str:
    # The last line of mount only says where to find more information.
    lines = [line.strip() for line in output.splitlines() if "dmesg(1)" not in line]
    return next((line for line in reversed(lines) if line), "it printed nothing")
