"""Real file systems without root: image files with ext4 on them, served by fuse2fs. Linux only.

In the work folder:

    images/db-1.img            the volume
    images/db-1.img.checked    exists if it was checked since it was last attached
    attachments/db-1           a lock: the node that it is attached to (locks.py)
    nodes/node-1/db-1/         its mount point, served by a fuse2fs in the background

An unmount is over when the fuse2fs has ended: only then the image has everything that was written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import trio

from volume_controller import cleanup, commands, ext4, kernel
from volume_controller.backend import BackendError, try_out
from volume_controller.config import LEAST_SIZE, Volume
from volume_controller.images import ImageBackend
from volume_controller.layout import Layout
from volume_controller.locks import Locks

_DEVICE = "/dev/fuse"


@attrs.frozen
class FuseBackend(ImageBackend):
    """Volumes in image files, each mounted by a process of its own."""

    @staticmethod
    async def obstacle(layout: Layout) -> str | None:
        """Try it out; return the reason if it does not work here, otherwise None."""
        if sys.platform != "linux":
            return "needs Linux"
        for command in ("fuse2fs", cleanup.fusermount(), *ext4.COMMANDS):
            if commands.find(command) is None:
                return f"needs the command {command}, which is not installed"
        if not os.access(_DEVICE, os.R_OK | os.W_OK):
            return f"needs {_DEVICE}, which you may not read and write"
        try:
            volume = Volume("try", LEAST_SIZE)
            await try_out(FuseBackend(layout, {volume.name: volume}), volume)
        except Exception as error:
            return f"needs a {_DEVICE} that works: {error}"
        return None

    def _attached(self) -> Mapping[str, str]:
        return self._locks.holders()

    async def attach(self, volume: Volume, node: str) -> None:
        """Take the volume's lock for *node*."""
        self.layout.stamp(volume).unlink(missing_ok=True)
        self._locks.take(volume.name, node)
        await trio.lowlevel.checkpoint()

    async def format(self, volume: Volume) -> None:
        """Make an ext4 on a blank volume; refuse one that is not blank."""
        with self.layout.formatting(volume):
            await ext4.make(volume, self.layout.image(volume))

    async def mount(self, volume: Volume, node: str) -> None:
        """Start a fuse2fs that serves it below the folder of *node*."""
        target = self.layout.target(volume, node)
        await self._wait_for_server(volume)
        target.mkdir(parents=True, exist_ok=True)
        options = ("-o", "fakeroot,nosuid,nodev,noexec")
        said = await commands.run("fuse2fs", str(self.layout.image(volume)), str(target), *options)
        await trio.to_thread.run_sync(_check_served, target, said)

    async def unmount(self, volume: Volume, node: str) -> None:
        """Unmount it, and wait until its fuse2fs has ended."""
        await cleanup.unmount_fuse(self.layout.target(volume, node))

    async def detach(self, volume: Volume, node: str) -> None:  # noqa: ARG002 - there is one lock
        """Release the lock."""
        await self._wait_for_server(volume)
        self._locks.give_back(volume.name)

    async def delete(self, volume: Volume) -> None:
        """Remove the image."""
        await trio.to_thread.run_sync(self.layout.delete, volume)

    async def repair(self, volume: Volume) -> None:
        """Restore the superblock from its backup."""
        await ext4.repair(volume, self.layout.image(volume))

    async def leftovers(self) -> list[str]:
        """Return what is attached, mounted or running for the work folder, one line each."""
        await trio.lowlevel.checkpoint()
        return self._locks.leftovers() + cleanup.leftovers(self.layout.work)

    async def clean_up(self) -> None:
        """End, unmount and detach everything of the work folder, as far as possible."""
        await cleanup.clean_up(self.layout.work)
        self._locks.clean_up()

    async def _wait_for_server(self, volume: Volume) -> None:
        # A fuse2fs whose unmount was cancelled may still write.
        servers = kernel.servers_below(self.layout.nodes)
        ours = [pid for pid, target in servers.items() if target.name == volume.name]
        await cleanup.wait_until_over(ours)

    @property
    def _locks(self) -> Locks:
        return Locks(self.layout.attachments)


def _check_served(target: Path, said: str) -> None:
    """Raise an error with the reason from fuse2fs, unless *target* is mounted and served.

    The exit code does not help: it is 0 even if libfuse has refused the mount (fuse2fs 1.47.0),
    for example because a file is in the mount point.
    """
    if not kernel.is_served(target):
        reasons = [line for line in said.splitlines() if line.startswith("fuse")]
        why = reasons[0] if reasons else said.strip() or "it printed nothing"
        raise BackendError(f"fuse2fs has not mounted {target}: {why}")
