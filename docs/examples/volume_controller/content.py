"""The bytes in a volume: is it blank, and does it give back what was written?"""

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
"""Says what CONTENT must be. It gets its name only after CONTENT was read back."""

Check = Callable[[], None]
"""Is called between two chunks: raises if the work should stop."""

_CHUNK = 1024**2
_MOST = 32 * 1024**2
"""So that the whole demo writes less than 200 MiB."""


def is_blank(image: Path) -> bool:
    """Whether the image's first 64 KiB are all zero."""
    with image.open("rb") as file:
        return not any(file.read(BLANK_BYTES))


def size_for(volume: Volume) -> int:
    """How much to write into *volume*, in bytes."""
    return min(volume.size // 4, _MOST)


def is_written(folder: Path) -> bool:
    """Whether *folder* holds a file that was once read back."""
    try:
        return (folder / STAMP).exists()
    except OSError:  # mounted, but nobody serves it any more
        return False


def write_and_verify(
    folder: Path, size: int, check: Check = trio.from_thread.check_cancelled
) -> None:
    """Write *size* random bytes to the disk, and compare what comes back.

    To be called in a thread, of trio's unless *check* is another world's; stops
    between two chunks if it is cancelled.

    Raises:
        BackendError: what comes back is something else.
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
