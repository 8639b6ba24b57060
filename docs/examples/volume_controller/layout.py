"""Where things are in the work folder, as far as both backends agree."""

from __future__ import annotations

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

    def image(self, volume: Volume) -> Path:
        """The file that is the volume."""
        return self.work / "images" / f"{volume.name}.img"

    def stamp(self, volume: Volume) -> Path:
        """Exists if the volume was checked since it was last attached."""
        return self.work / "images" / f"{volume.name}.img.checked"

    def target(self, volume: Volume, node: str) -> Path:
        """Where the volume is mounted on *node*."""
        return self.work / "nodes" / node / volume.name

    def provision(self, volume: Volume) -> None:
        """Make a blank, sparse image: the whole of it, or nothing."""
        image = self.image(volume)
        image.parent.mkdir(parents=True, exist_ok=True)
        new = image.with_suffix(".new")
        with new.open("wb") as file:
            file.truncate(volume.size)
        new.rename(image)

    def check_blank(self, volume: Volume) -> None:
        """Make sure that formatting destroys nothing.

        Raises:
            BackendError: the volume is not blank.
        """
        if not content.is_blank(self.image(volume)):
            raise BackendError(f"volume {volume.name!r} is not blank: it must not be formatted")

    def state(self, volume: Volume, attached: str | None, mounted: str | None) -> VolumeState:
        """The volume's state, given the nodes that it is attached to and mounted on."""
        image = self.image(volume)
        provisioned = image.exists()
        return VolumeState(
            provisioned=provisioned,
            attached_to=attached,
            blank=provisioned and mounted is None and content.is_blank(image),
            mounted_on=mounted,
            written=mounted is not None and content.is_written(self.target(volume, mounted)),
            checked=self.stamp(volume).exists(),
        )
