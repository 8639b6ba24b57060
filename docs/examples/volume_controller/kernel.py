"""Asks the kernel about a folder: its mounts, loop devices and processes. Linux only.

The answers need no records of the controller, so they include what a killed controller left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

MARK = "VOLUME_CONTROLLER_WORK"
"""The environment variable that has the work folder, for each child and its children."""

_MOUNTS = Path("/proc/self/mountinfo")

_LOOP_CLR_FD = 0x4C01
"""From linux/loop.h: the request of ``losetup --detach``."""


def mounts_below(folder: Path) -> list[Path]:
    """Return the mount points below *folder*, the innermost first."""
    if not _MOUNTS.exists():
        return []
    # The kernel escapes spaces, tabs and line feeds in paths; other white space stays as it is.
    lines = _MOUNTS.read_bytes().removesuffix(b"\n").split(b"\n")
    points = [unescaped(line.split(b" ")[4]) for line in lines]
    return [point for point in reversed(points) if point.is_relative_to(folder)]


def is_served(target: Path) -> bool:
    """Return whether *target* is a mount point that answers. It blocks.

    `os.path.ismount` does not help: it is False for a mount point whose server has died.
    """
    if target not in mounts_below(target):
        return False
    try:
        target.stat()
    except OSError:
        return False
    return True


def loop_devices_below(*folders: Path) -> dict[Path, str]:
    """Return the loop devices of files at or below *folders*, by the paths of the files."""
    return {
        path: device
        for path, device in _loop_devices()
        if any(path.is_relative_to(folder) for folder in folders)
    }


def detach_loop_device(file: Path, device: str) -> None:
    """Detach *device* from *file*, as soon as no program has it open. It blocks.

    If the device belongs to another file now, nothing happens. ``losetup --detach`` only knows the
    number of the device, and would detach it from its next owner.

    Raises:
        OSError: it cannot be opened, or the kernel refuses.
    """
    try:
        number = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:  # while it is open here, no other file can get it
            if _backing_file(Path("/sys/block", Path(device).name)) == file:
                fcntl.ioctl(number, _LOOP_CLR_FD)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno != errno.ENXIO:  # it is being detached already
            raise


def is_being_detached(device: str) -> bool:
    """Return whether *device* will be detached as soon as no program has it open.

    The kernel calls that AUTOCLEAR. ``losetup --nooverlap`` for the same file turns it off, with
    exit code 0 (util-linux 2.38.1), and the device then stays.
    """
    return _loop_attribute(Path("/sys/block", Path(device).name), "autoclear") == b"1"


def processes_of(work: Path) -> list[int]:
    """Return the processes that a controller with this work folder started, and their children."""
    mark = f"{MARK}={work}".encode()
    return [pid for pid in _pids() if mark in _words(pid, "environ")]


def servers_below(folder: Path) -> dict[int, Path]:
    """Return the running fuse2fs of mount points below *folder*: process ids, with mount points."""
    return {pid: target for pid, target in _servers() if target.is_relative_to(folder)}


def is_over(pid: int) -> bool:
    """Return whether the process has ended, even if its parent has not noticed yet."""
    return _words(pid, "cmdline") == [b""]


def unescaped(path: bytes) -> Path:
    r"""Return the path that proc(5) writes as *path*: ``\040`` is a space, and so on."""
    plain = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), path)
    return Path(os.fsdecode(plain))


def _loop_devices() -> Iterator[tuple[Path, str]]:
    for block in Path("/sys/block").glob("loop*"):
        path = _backing_file(block)
        if path is not None:
            yield path, f"/dev/{block.name}"


def _backing_file(block: Path) -> Path | None:
    path = _loop_attribute(block, "backing_file")
    return None if path is None else Path(os.fsdecode(path))


def _loop_attribute(block: Path, name: str) -> bytes | None:
    try:
        return (block / "loop" / name).read_bytes().removesuffix(b"\n")
    except OSError:  # the device has no file, or no longer one
        return None


def _servers() -> Iterator[tuple[int, Path]]:
    for pid in _pids():
        match _words(pid, "cmdline"):
            case [command, _, target, *_] if command.endswith(b"fuse2fs"):
                yield pid, Path(os.fsdecode(target))
            case _:
                pass


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[1-9]*") if path.name.isdecimal()]


def _words(pid: int, file: str) -> list[bytes]:
    """Return the NUL-terminated words of a process's *file*; one empty word if it is unreadable."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes().removesuffix(b"\0").split(b"\0")
    except OSError:
        return [b""]
