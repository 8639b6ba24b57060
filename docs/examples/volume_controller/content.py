"""The content of a volume: checks that it is blank, and that it returns what was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import trio

from volume_controller.backend import BLANK_BYTES, BackendError
from volume_controller.config import Volume

CONTENT = "content.bin"
STAMP = "content.sha256"
"""The checksum of CONTENT. The file gets this name only after CONTENT was read back."""

Check = Callable[[], None]
"""A function called between two chunks, which raises if the work should stop."""

_CHUNK = 1024**2
_MOST = 32 * 1024**2
"""With this limit the whole demo writes less than 200 MiB."""


def is_blank(image: Path) -> bool:
    """Return whether the first 64 KiB of *image* are all zero."""
    with image.open("rb") as file:
        return not any(file.read(BLANK_BYTES))


def size_for(volume: Volume) -> int:
    """Return the number of bytes to write into *volume*."""
    return min(volume.size // 4, _MOST)


def is_written(folder: Path) -> bool:
    """Return whether *folder* holds a file that was once read back."""
    try:
        return (folder / STAMP).exists()
    except OSError:  # mounted, but its fuse2fs has died
        return False


def write_and_verify(
    folder: Path, size: int, check: Check = trio.from_thread.check_cancelled
) -> None:
    """Write *size* random bytes to the disk, read them back and compare.

    Call it in a thread: in one of trio's, or with a *check* for another framework. It stops
    between two chunks if it is cancelled.

    Raises:
        BackendError: the file differs from what was written.
    """
    written = _write(folder / CONTENT, size, check)
    new_stamp = folder / f"{STAMP}.new"
    new_stamp.write_text(written + "\n", encoding="ascii")
    _compare(folder / CONTENT, written, check)
    new_stamp.rename(folder / STAMP)


def verify(folder: Path, check: Check = trio.from_thread.check_cancelled) -> None:
    """Compare the file in *folder* with its checksum.

    Raises:
        BackendError: they differ.
    """
    _compare(folder / CONTENT, (folder / STAMP).read_text(encoding="ascii").strip(), check)


def _write(path: Path, size: int, check: Check) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for left in range(size, 0, -_CHUNK):
            check()
            chunk = os.urandom(min(left, _CHUNK))
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            # Read it back from the disk, not from the cache.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()


def _compare(path: Path, expected: str, check: Check) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            check()
            digest.update(chunk)
    if digest.hexdigest() != expected:
        raise BackendError(f"{path} does not hold what was written into it")
