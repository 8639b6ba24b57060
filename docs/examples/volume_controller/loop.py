"""Real block devices: image files behind loop devices, with ext4 on them. Root on Linux only.

In the work folder:

    images/db-1.img            the volume
    images/db-1.img.checked    it was checked since it was last attached
    attachments/node-1/db-1    the same image (a hard link); the loop device is set up
                               on this path, so the kernel itself tells the node
    nodes/node-1/db-1/         where it is mounted
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import attrs
import trio

from volume_controller import commands, content
from volume_controller.backend import BLANK_BYTES, BackendError, VolumeState
from volume_controller.config import LEAST_SIZE, Volume
from volume_controller.layout import Layout

_COMMANDS = ("losetup", "mkfs.ext4", "mount", "umount", "e2fsck")
_SUPERBLOCK = 1024
"""Where ext4 keeps its superblock, and how long that is, in bytes."""

_CORRECTED = 1
"""e2fsck's exit code for "errors were corrected"."""


@attrs.frozen
class LoopBackend:
    """Volumes on loop devices."""

    layout: Layout
    volumes: Mapping[str, Volume]

    @staticmethod
    async def obstacle() -> str | None:
        """Try it out: what keeps this backend from working here; None if it works."""
        if sys.platform != "linux":
            return "needs Linux"
        if os.geteuid() != 0:
            return "needs root"
        for command in _COMMANDS:
            if commands.find(command) is None:
                return f"needs the command {command}, which is not installed"
        try:
            await _try_out()
        except Exception as error:
            return f"needs loop devices that can be mounted: {error}"
        return None

    def observe(self) -> Mapping[str, VolumeState]:
        """Look at all volumes."""
        attached = {path.name: path.parent.name for path in self._devices()}
        mounted = {path.name: path.parent.name for path in self._mounts()}
        return {
            name: self.layout.state(volume, attached.get(name), mounted.get(name))
            for name, volume in self.volumes.items()
        }

    async def provision(self, volume: Volume) -> None:
        """Make a blank volume."""
        await trio.to_thread.run_sync(self.layout.provision, volume)

    async def attach(self, volume: Volume, node: str) -> None:
        """Set up a loop device for *node*."""
        self.layout.stamp(volume).unlink(missing_ok=True)
        link = self._link(volume, node)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.hardlink_to(self.layout.image(volume))
        await commands.run("losetup", "--find", "--nooverlap", str(link))

    async def format(self, volume: Volume) -> None:
        """Make an ext4 on a blank volume; refuse one that is not blank."""
        await self._make_file_system(volume, self._device(volume))

    async def mount(self, volume: Volume, node: str) -> None:
        """Mount it below the folder of *node*."""
        target = self.layout.target(volume, node)
        target.mkdir(parents=True, exist_ok=True)
        options = ("-t", "ext4", "-o", "nosuid,nodev,noexec")
        await commands.run("mount", *options, self._device(volume), str(target))

    async def write(self, volume: Volume, node: str) -> None:
        """Write a file of random content, and read it back."""
        target, size = self.layout.target(volume, node), content.size_for(volume)
        await trio.to_thread.run_sync(content.write_and_verify, target, size)

    async def unmount(self, volume: Volume, node: str) -> None:
        """Unmount it."""
        await commands.run("umount", str(self.layout.target(volume, node)))

    async def detach(self, volume: Volume, node: str) -> None:
        """Take its loop device away."""
        await commands.run("losetup", "--detach", self._device(volume))
        self._link(volume, node).unlink(missing_ok=True)

    async def check(self, volume: Volume) -> None:
        """Check the file system, changing nothing."""
        await commands.run("e2fsck", "-fn", str(self.layout.image(volume)))
        self.layout.stamp(volume).touch()

    async def damage(self, volume: Volume) -> None:
        """Give a detached volume a file system, and destroy its superblock."""
        image = self.layout.image(volume)
        if not image.exists():
            await self.provision(volume)
        if content.is_blank(image):
            await self._make_file_system(volume, str(image))
        with image.open("r+b") as file:
            file.seek(_SUPERBLOCK)
            file.write(b"garbage!" * (_SUPERBLOCK // 8))

    async def repair(self, volume: Volume) -> None:
        """Mend the superblock from its backup."""
        size = block_size(volume)
        # The first group's blocks are as many as one block has bits; with blocks
        # of 1 KiB the groups begin at block 1.
        backup = size * 8 + (1 if size == 1024 else 0)
        where = ("-b", str(backup), "-B", str(size))
        success = (0, _CORRECTED)
        await commands.run("e2fsck", "-fy", *where, self._device(volume), success=success)

    async def leftovers(self) -> list[str]:
        """What is still attached or mounted below the work folder, one line each."""
        listed = await commands.run("losetup", "--list", "--noheadings", "--output", "BACK-FILE")
        files = [line.strip() for line in listed.splitlines()]
        inside = [file for file in files if file.startswith(f"{self.layout.work}{os.sep}")]
        mounts = [f"mount on {target}" for target in self._mounts()]
        return mounts + [f"loop device on {file}" for file in inside]

    async def clean_up(self) -> None:
        """Unmount and detach what there is below the work folder, as far as it goes."""
        for target in list(self._mounts()):
            with suppress(BackendError):
                await commands.run("umount", str(target))
        for link, device in self._devices().items():
            with suppress(BackendError, OSError):
                await commands.run("losetup", "--detach", device)
                link.unlink()

    async def _make_file_system(self, volume: Volume, device: str) -> None:
        self.layout.check_blank(volume)
        try:
            await commands.run("mkfs.ext4", "-q", "-F", "-b", str(block_size(volume)), device)
        except BaseException:
            _blank(Path(device))  # half a file system would never be formatted again
            raise

    def _device(self, volume: Volume) -> str:
        for link, device in self._devices().items():
            if link.name == volume.name:
                return device
        raise BackendError(f"volume {volume.name!r} is not attached")

    def _devices(self) -> dict[Path, str]:
        """Our loop devices, by the paths that they were set up on."""
        return {path: device for path, device in _loop_devices() if self._is_ours(path)}

    def _mounts(self) -> Iterator[Path]:
        return (path for path in _mount_points() if self._is_ours(path))

    def _is_ours(self, path: Path) -> bool:
        return path.is_relative_to(self.layout.work)

    def _link(self, volume: Volume, node: str) -> Path:
        return self.layout.work / "attachments" / node / volume.name


def block_size(volume: Volume) -> int:
    """The size of a block of *volume*'s file system, in bytes.

    From mke2fs.conf(5), "small": a small volume has small blocks. So it also
    has a second group of blocks, whose beginning holds the backup superblock.
    """
    return 1024 if volume.size < 512 * 1024**2 else 4096


def unescaped(path: bytes) -> Path:
    r"""A path as proc(5) writes it: ``\040`` is a space, and so on."""
    plain = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), path)
    return Path(os.fsdecode(plain))


def _loop_devices() -> Iterator[tuple[Path, str]]:
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # it went away meanwhile
            path = os.fsdecode(file.read_bytes().removesuffix(b"\n"))
            yield Path(path), f"/dev/{file.parent.parent.name}"


def _mount_points() -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    return [unescaped(line.split()[4]) for line in lines]


def _blank(device: Path) -> None:
    with device.open("r+b") as file:
        file.write(bytes(BLANK_BYTES))


async def _try_out() -> None:
    with tempfile.TemporaryDirectory(prefix="volume_controller-try-") as folder:
        volume = Volume("try", LEAST_SIZE)
        backend = _backend_in(Path(folder), volume)
        try:
            await backend.provision(volume)
            await backend.attach(volume, "here")
            await backend.format(volume)
            await backend.mount(volume, "here")
        finally:
            with trio.CancelScope(shield=True):
                await backend.clean_up()


def _backend_in(folder: Path, volume: Volume) -> LoopBackend:
    return LoopBackend(Layout(folder.resolve()), {volume.name: volume})
