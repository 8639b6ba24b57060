"""The file system of real volumes: makes, checks, damages and repairs an ext4."""

from __future__ import annotations

from pathlib import Path

from volume_controller import commands
from volume_controller.backend import BackendError
from volume_controller.config import Volume

COMMANDS = ("mkfs.ext4", "e2fsck")
"""The commands that it needs."""

_SUPERBLOCK = 1024
"""The offset and the length of the superblock of an ext4, in bytes."""

_STATE = _SUPERBLOCK + 0x3A
"""The offset of the two bytes of the superblock that hold the state of the file system."""

_HAS_ERRORS = 2
"""The bit of the state that the kernel sets at an error."""

_CORRECTED = 1
"""e2fsck's exit code for "errors were corrected"."""


async def make(volume: Volume, device: Path) -> None:
    """Make an ext4 on a blank *device* or image."""
    await commands.run("mkfs.ext4", "-q", "-F", "-b", str(block_size(volume)), str(device))


async def check(image: Path) -> None:
    """Check the file system, changing nothing.

    Raises:
        BackendError: it has errors, or the kernel found one while it was mounted.
    """
    await commands.run("e2fsck", "-fn", str(image))
    # After an error e2fsck (1.47.0) ends with code 0, although writes may have been lost.
    with image.open("rb") as file:
        file.seek(_STATE)
        state = int.from_bytes(file.read(2), "little")
    if state & _HAS_ERRORS:
        raise BackendError(f"the kernel found an error in the file system of {image}")


async def repair(volume: Volume, device: Path) -> None:
    """Restore the superblock from its backup."""
    size = block_size(volume)
    # The first group has as many blocks as one block has bits; with blocks of 1 KiB, the groups
    # begin at block 1.
    backup = size * 8 + (1 if size == 1024 else 0)
    where = ("-b", str(backup), "-B", str(size))
    await commands.run("e2fsck", "-fy", *where, str(device), success=(0, _CORRECTED))


def destroy_superblock(image: Path) -> None:
    """Overwrite the superblock with garbage."""
    with image.open("r+b") as file:
        file.seek(_SUPERBLOCK)
        file.write(b"garbage!" * (_SUPERBLOCK // 8))


def block_size(volume: Volume) -> int:
    """Return the block size of the file system of *volume*, in bytes.

    From mke2fs.conf(5), "small": a small volume has small blocks. So it also has a second group of
    blocks, which begins with the backup superblock.
    """
    return 1024 if volume.size < 512 * 1024**2 else 4096
