"""Attachments without a device: a lock for each volume, which has the node.

A lock is a symbolic link whose target is the node's name. Making one is a single step in the file
system, and fails if there is one already.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import attrs

from volume_controller.backend import BackendError


@attrs.frozen
class Locks:
    """The locks in a folder."""

    folder: Path

    def take(self, volume: str, node: str) -> None:
        """Attach *volume* to *node*.

        Raises:
            BackendError: it is attached, there or elsewhere.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            (self.folder / volume).symlink_to(node)
        except FileExistsError as error:
            holder = self.holders().get(volume)
            raise BackendError(f"{volume!r} is attached to {holder!r} already") from error

    def give_back(self, volume: str) -> None:
        """Detach *volume*."""
        (self.folder / volume).unlink()

    def holders(self) -> dict[str, str]:
        """Return the volumes that are attached, and their nodes."""
        found: dict[str, str] = {}
        for lock in self._all():
            with suppress(FileNotFoundError):  # a detach has just released it
                found[lock.name] = str(lock.readlink())
        return found

    def leftovers(self) -> list[str]:
        """Return the locks, one line each."""
        return [f"attachment lock {lock}" for lock in self._all()]

    def clean_up(self) -> None:
        """Release all locks."""
        for lock in self._all():
            lock.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        return [path for path in self.folder.glob("*") if path.is_symlink()]
