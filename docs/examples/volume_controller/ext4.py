"""The file system of real volumes: makes, checks, damages and mends an ext4."""

from __future__ import annotations

from pathlib import Path

from volume_controller import commands
from volume_controller.backend import BackendError
from volume_controller.config import Volume

COMMANDS = ("mkfs.ext4", "e2fsck")
"""What has to be installed."""

_SUPERBLOCK = 1024
"""Where ext4 keeps its superblock, and how long that is, in bytes."""

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
        BackendError: it has errors, or the kernel met one while it was mounted.
    """
    await commands.run("e2fsck", "-fn", str(image))
    # For that e2fsck ends with code 0 (1.47.0), although writes may have been lost.
    with image.open("rb") as file:
        file.seek(_STATE)
        state = int.from_bytes(file.read(2), "little")
    if state & _HAS_ERRORS:
        raise BackendError(f"the kernel met an error in the file system of {image}")


async def repair(volume: Volume, device: Path) -> None:
    """Mend the superblock from its backup."""
    size = block_size(volume)
    # The first group's blocks are as many as one block has bits; with blocks
    # of 1 KiB the groups begin at block 1.
    backup = size * 8 + (1 if size == 1024 else 0)
    where = ("-b", str(backup), "-B", str(size))
    await commands.run("e2fsck", "-fy", *where, str(device), success=(0, _CORRECTED))


def destroy_superblock(image: Path) -> None:
    """Write garbage over it."""
    with image.open("r+b") as file:
        file.seek(_SUPERBLOCK)
        file.write(b"garbage!" * (_SUPERBLOCK // 8))


def block_size(volume: Volume) -> int:
    """The size of a block of *volume*'s file system, in bytes.

    From mke2fs.conf(5), "small": a small volume has small blocks. So it also
    has a second group of blocks, whose beginning holds the backup superblock.
    """
    return 1024 if volume.size < 512 * 1024**2 else 4096
