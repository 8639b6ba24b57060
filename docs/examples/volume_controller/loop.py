"""Real block devices: image files behind loop devices, with ext4 on them. Root on Linux only.

In the work folder:

    images/db-1.img            the volume
    images/db-1.img.checked    exists if it was checked since it was last attached
    attachments/node-1/db-1    the same image (a hard link); the loop device is set up
                               on this path, so the kernel shows the node
    nodes/node-1/db-1/         its mount point
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

_COMMANDS = ("losetup", "mount", "umount", *ext4.COMMANDS)


_TRIES = 3
"""Tries. All programs of a machine share its loop devices, and a ``losetup --detach`` may detach
the device of the next owner. So `obstacle` tries again, as the task map does."""


@attrs.frozen
class LoopBackend(ImageBackend):
    """Volumes on loop devices."""

    @staticmethod
    async def obstacle(layout: Layout) -> str | None:
        """Try it out; return the reason if it does not work here, otherwise None."""
        if sys.platform != "linux":
            return "needs Linux"
        if os.geteuid() != 0:
            return "needs root"
        for command in _COMMANDS:
            if commands.find(command) is None:
                return f"needs the command {command}, which is not installed"
        volume, why = Volume("try", LEAST_SIZE), ""
        for _ in range(_TRIES):
            try:
                await try_out(LoopBackend(layout, {volume.name: volume}), volume)
            except Exception as error:
                why = str(error)
            else:
                return None
        return f"needs loop devices that can be mounted: {why}"

    def _attached(self) -> Mapping[str, str]:
        return {path.name: path.parent.name for path in self._devices()}

    async def attach(self, volume: Volume, node: str) -> None:
        """Set up a loop device for *node*; refuse if the image has one, on any path."""
        # losetup would use that one, with exit code 0, and undo its detach if one is in progress.
        image = self.layout.image(volume)
        taken = await commands.run("losetup", "--associated", str(image))
        if taken:
            raise BackendError(f"{volume.name!r} is attached already: {taken.strip()}")
        self.layout.stamp(volume).unlink(missing_ok=True)
        link = self._link(volume, node)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.hardlink_to(image)
        await commands.run("losetup", "--find", "--nooverlap", str(link))

    async def format(self, volume: Volume) -> None:
        """Make an ext4 on a blank volume; refuse one that is not blank."""
        with self.layout.formatting(volume):
            await ext4.make(volume, self._device(volume))

    async def mount(self, volume: Volume, node: str) -> None:
        """Mount it below the folder of *node*."""
        target = self.layout.target(volume, node)
        target.mkdir(parents=True, exist_ok=True)
        options = ("-t", "ext4", "-o", "nosuid,nodev,noexec")
        await commands.run("mount", *options, str(self._device(volume)), str(target))

    async def unmount(self, volume: Volume, node: str) -> None:
        """Unmount it."""
        await commands.run("umount", str(self.layout.target(volume, node)))

    async def detach(self, volume: Volume, node: str) -> None:
        """Detach its loop device, and wait until it is detached."""
        link = self._link(volume, node)
        if link not in self._devices():
            raise BackendError(f"volume {volume.name!r} is not attached to {node!r}")
        await cleanup.detach(link)

    async def delete(self, volume: Volume) -> None:
        """Remove the image, and the links to it that a cancelled detach has left."""
        self._remove_links(volume.name)
        await trio.to_thread.run_sync(self.layout.delete, volume)

    async def repair(self, volume: Volume) -> None:
        """Restore the superblock from its backup."""
        await ext4.repair(volume, self._device(volume))

    async def leftovers(self) -> list[str]:
        """Return what is attached, mounted or running for the work folder, one line each."""
        await trio.lowlevel.checkpoint()
        return cleanup.leftovers(self.layout.work)

    async def clean_up(self) -> None:
        """End, unmount and detach everything of the work folder, as far as possible."""
        await cleanup.clean_up(self.layout.work)
        if not self._devices():
            self._remove_links("*")

    def _device(self, volume: Volume) -> Path:
        for link, device in self._devices().items():
            if link.name == volume.name:
                return Path(device)
        raise BackendError(f"volume {volume.name!r} is not attached")

    def _devices(self) -> dict[Path, str]:
        return kernel.loop_devices_below(self.layout.attachments)

    def _remove_links(self, name: str) -> None:
        for link in self.layout.attachments.glob(f"*/{name}"):
            link.unlink(missing_ok=True)

    def _link(self, volume: Volume, node: str) -> Path:
        return self.layout.attachments / node / volume.name
