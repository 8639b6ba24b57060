"""The layout of the work folder that the backends share."""

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
    """The work folder, without links and dots in its path, as the kernel shows it."""

    @property
    def nodes(self) -> Path:
        """The folder with a subfolder for each node, for its mount points."""
        return self.work / "nodes"

    @property
    def attachments(self) -> Path:
        """The folder that has the node of each attached volume."""
        return self.work / "attachments"

    def image(self, volume: Volume) -> Path:
        """Return the file that holds the volume."""
        return self.work / "images" / f"{volume.name}.img"

    def stamp(self, volume: Volume) -> Path:
        """Return a file that exists if the volume was checked since it was last attached."""
        return self.work / "images" / f"{volume.name}.img.checked"

    def target(self, volume: Volume, node: str) -> Path:
        """Return the mount point of the volume on *node*."""
        return self.nodes / node / volume.name

    def provision(self, volume: Volume) -> None:
        """Make a blank, sparse image, in one step."""
        image = self.image(volume)
        image.parent.mkdir(parents=True, exist_ok=True)
        new = image.with_suffix(".new")
        with new.open("wb") as file:
            file.truncate(volume.size)
        new.rename(image)

    def delete(self, volume: Volume) -> None:
        """Remove the image, after the stamp, which describes the image."""
        self.stamp(volume).unlink(missing_ok=True)
        self._unfinished(volume).unlink(missing_ok=True)
        self.image(volume).unlink(missing_ok=True)

    def is_blank(self, volume: Volume) -> bool:
        """Return whether the image holds nothing, or an unfinished file system without data."""
        return self._unfinished(volume).exists() or content.is_blank(self.image(volume))

    @contextmanager
    def formatting(self, volume: Volume) -> Generator[None]:
        """Make a file system inside the block. If the block fails, the volume counts as blank.

        Raises:
            BackendError: the volume is not blank.
        """
        self.check_blank(volume)
        self._unfinished(volume).touch()
        yield
        self._unfinished(volume).unlink()

    def check_blank(self, volume: Volume) -> None:
        """Check that formatting destroys nothing.

        Raises:
            BackendError: the volume is not blank.
        """
        if not self.is_blank(volume):
            raise BackendError(f"volume {volume.name!r} is not blank: it must not be formatted")

    def state(self, volume: Volume, attached: str | None, mounted: str | None) -> VolumeState:
        """Return the volume's state, from the nodes that it is attached to and mounted on."""
        image = self.image(volume)
        provisioned = image.exists()
        try:
            blank = provisioned and mounted is None and self.is_blank(volume)
        except FileNotFoundError:  # a delete has just removed the image
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
