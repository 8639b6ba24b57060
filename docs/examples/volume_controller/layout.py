"""Where things are in the work folder, as far as the backends agree."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import attrs

from volume_controller import content
from volume_controller.backend import BackendError, VolumeState
from volume_controller.config import Volume


@attrs.frozen
class Layout:
    """The images of the volumes, and the nodes' folders."""

    work: Path
    """The work folder, without links and dots in it: the kernel tells it like that."""

    @property
    def nodes(self) -> Path:
        """Has a folder for each node, with the node's mount points."""
        return self.work / "nodes"

    @property
    def attachments(self) -> Path:
        """Tells which volume is attached where."""
        return self.work / "attachments"

    def image(self, volume: Volume) -> Path:
        """The file that is the volume."""
        return self.work / "images" / f"{volume.name}.img"

    def stamp(self, volume: Volume) -> Path:
        """Exists if the volume was checked since it was last attached."""
        return self.work / "images" / f"{volume.name}.img.checked"

    def target(self, volume: Volume, node: str) -> Path:
        """Where the volume is mounted on *node*."""
        return self.nodes / node / volume.name

    def provision(self, volume: Volume) -> None:
        """Make a blank, sparse image: the whole of it, or nothing."""
        image = self.image(volume)
        image.parent.mkdir(parents=True, exist_ok=True)
        new = image.with_suffix(".new")
        with new.open("wb") as file:
            file.truncate(volume.size)
        new.rename(image)

    def delete(self, volume: Volume) -> None:
        """Remove the image; its stamp first, which says something about the image."""
        self.stamp(volume).unlink(missing_ok=True)
        self._unfinished(volume).unlink(missing_ok=True)
        self.image(volume).unlink(missing_ok=True)

    def is_blank(self, volume: Volume) -> bool:
        """Whether the image holds nothing, or half a file system that nobody has used."""
        return self._unfinished(volume).exists() or content.is_blank(self.image(volume))

    @contextmanager
    def formatting(self, volume: Volume) -> Generator[None]:
        """Make a file system in the block. If it does not get to its end, the volume is blank.

        Raises:
            BackendError: the volume is not blank.
        """
        self.check_blank(volume)
        self._unfinished(volume).touch()
        yield
        self._unfinished(volume).unlink()

    def check_blank(self, volume: Volume) -> None:
        """Make sure that formatting destroys nothing.

        Raises:
            BackendError: the volume is not blank.
        """
        if not self.is_blank(volume):
            raise BackendError(f"volume {volume.name!r} is not blank: it must not be formatted")

    def state(self, volume: Volume, attached: str | None, mounted: str | None) -> VolumeState:
        """The volume's state, given the nodes that it is attached to and mounted on."""
        image = self.image(volume)
        provisioned = image.exists()
        try:
            blank = provisioned and mounted is None and self.is_blank(volume)
        except FileNotFoundError:  # a delete has removed the image since
            provisioned = blank = False
        return VolumeState(
            provisioned=provisioned,
            attached_to=attached,
            blank=blank,
            mounted_on=mounted,
            written=mounted is not None and content.is_written(self.target(volume, mounted)),
            checked=self.stamp(volume).exists(),
        )

    def _unfinished(self, volume: Volume) -> Path:
        return self.work / "images" / f"{volume.name}.img.unfinished"
