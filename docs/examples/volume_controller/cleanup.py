"""Undoes everything that is mounted, attached or running for a work folder, from any process.

It only touches the controller's own subfolders: even ``--work /`` unmounts nothing else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import trio

from volume_controller import commands, kernel
from volume_controller.backend import BackendError

TRIES = 3
"""Tries to unmount. Pulled out of the air: a process may keep it busy just after it was killed."""

SERVER_TIMEOUT = 10.0
"""Seconds for a fuse2fs to write its data back after the unmount. Pulled out of the air."""

DETACH_TIMEOUT = 5.0
"""Seconds for other programs to close a loop device. Pulled out of the air: with 64 controllers on
two cores it took up to 0.4."""

_PAUSE = 0.02
_OURS = ("nodes", "attachments", "probe")

_in_thread = trio.to_thread.run_sync
"""The function that runs each detach. The tests send signals before and after it."""


def leftovers(work: Path) -> list[str]:
    """Return what the kernel still has for *work*, one line each."""
    mounts = [f"mount on {target}" for target in _mounts(work)]
    loops = [f"loop device on {file}" for file in _loop_devices(work)]
    pids = {*kernel.processes_of(work), *_servers(work)}
    return mounts + loops + [f"process {pid}" for pid in sorted(pids)]


async def clean_up(work: Path) -> None:
    """End, unmount and detach everything, as far as possible. Checkpoint.

    A fuse2fs is unmounted before it is ended, so that it writes its data back.
    """
    servers = _servers(work)
    await _end(set(kernel.processes_of(work)) - set(servers))
    for target in _mounts(work):
        await _unmount(target)
    with trio.move_on_after(SERVER_TIMEOUT):
        await wait_until_over(servers)
    await _end({*kernel.processes_of(work), *_servers(work)})
    with suppress(BackendError):
        await detach(*_places(work))


async def detach(*places: Path) -> None:
    """Detach the loop devices of files at or below *places*, and remove those links. Checkpoint.

    It returns when the kernel has no such device any more. A detach is only a request: it takes
    effect when the last program closes the device, and each ``losetup --find`` on the machine
    opens all devices for a moment. If another program undoes the request, it is made again.

    Raises:
        BackendError: some devices are still attached after a while.
    """
    links: set[Path] = set()
    why = "another program has it open"
    with trio.move_on_after(DETACH_TIMEOUT):
        while devices := kernel.loop_devices_below(*places):
            links |= devices.keys()
            for link, device in devices.items():
                if kernel.is_being_detached(device):
                    continue
                try:
                    await _in_thread(kernel.detach_loop_device, link, device)
                except OSError as error:
                    why = str(error)
            if kernel.loop_devices_below(*places):
                await trio.sleep(_PAUSE)
    left = kernel.loop_devices_below(*places)
    for link in links - left.keys():
        link.unlink(missing_ok=True)
    if left:
        raise BackendError(f"{', '.join(left.values())} cannot be detached: {why}")
    await trio.lowlevel.checkpoint()


async def unmount_fuse(target: Path) -> None:
    """Unmount the file system of a fuse2fs, and wait until it has written everything. Checkpoint.

    Raises:
        BackendError: the mount point is busy, or nothing is mounted there.
    """
    servers = kernel.servers_below(target)
    await commands.run(fusermount(), "-u", str(target))
    await wait_until_over(servers)


def fusermount() -> str:
    """Return the command that unmounts without root: that of fuse3, or that of fuse2."""
    return "fusermount" if commands.find("fusermount3") is None else "fusermount3"


async def wait_until_over(pids: Collection[int]) -> None:
    """Wait until all of the processes have ended. Checkpoint."""
    while not all(kernel.is_over(pid) for pid in pids):  # noqa: ASYNC110 - not our children
        await trio.sleep(_PAUSE)
    await trio.lowlevel.checkpoint()


async def _end(pids: Collection[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await wait_until_over(pids)


async def _unmount(target: Path) -> None:
    for _ in range(TRIES):
        with suppress(BackendError):
            if os.geteuid() == 0:
                await commands.run("umount", str(target))
            else:
                await commands.run(fusermount(), "-u", str(target))
            return
        await trio.sleep(_PAUSE)


def _mounts(work: Path) -> list[Path]:
    return [target for place in _places(work) for target in kernel.mounts_below(place)]


def _loop_devices(work: Path) -> dict[Path, str]:
    return kernel.loop_devices_below(*_places(work))


def _servers(work: Path) -> dict[int, Path]:
    return {
        pid: where for place in _places(work) for pid, where in kernel.servers_below(place).items()
    }


def _places(work: Path) -> list[Path]:
    return [work / name for name in _OURS]
