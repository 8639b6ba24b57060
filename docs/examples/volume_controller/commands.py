"""Runs the system's commands, and leaves no process behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Collection
from contextlib import suppress

import trio

from volume_controller.backend import BackendError

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""Where mkfs and losetup are, also for root in a shell that does not look there."""

_GRACE = 2.0
"""Seconds from asking a process to stop to killing it. Pulled out of the air."""


class CommandError(BackendError):
    """A command could not be run, or its exit code says that it failed."""


def find(command: str) -> str | None:
    """Where *command* is, if it is installed."""
    return shutil.which(command, path=_PATH)


async def run(*command: str, success: Collection[int] = (0,)) -> str:
    """Run *command*, and give back what it printed. Checkpoint.

    If it is cancelled, the command and its children are over when this ends.

    Raises:
        CommandError: it is not installed, or its exit code is none of *success*.
    """
    found = find(command[0])
    if found is None:
        raise CommandError(f"{command[0]!r} is not installed")
    done = await trio.run_process(
        [found, *command[1:]],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
        start_new_session=True,  # the terminal's Ctrl-C is for us, not for mkfs
        deliver_cancel=_end_session,
        env={**os.environ, "PATH": _PATH, "LC_ALL": "C"},
    )
    output = done.stdout.decode(errors="replace")
    if done.returncode not in success:
        said = _last_line(output)
        raise CommandError(f"{' '.join(command)!r} ended with code {done.returncode}: {said}")
    return output


async def _end_session(process: trio.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        await trio.sleep(_GRACE)
        os.killpg(process.pid, signal.SIGKILL)


def _last_line(output: str) -> str:
    # What mount says last is only where else one might look.
    lines = [line.strip() for line in output.splitlines() if "dmesg(1)" not in line]
    return next((line for line in reversed(lines) if line), "it said nothing")
