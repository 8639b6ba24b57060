"""The shared part of the backends whose volumes are image files with ext4 on them."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import attrs
import trio

from volume_controller import content, ext4, kernel
from volume_controller.backend import VolumeState
from volume_controller.config import Volume
from volume_controller.layout import Layout


@attrs.frozen
class ImageBackend(abc.ABC):
    """Volumes in image files; a subclass attaches and mounts them."""

    layout: Layout
    volumes: Mapping[str, Volume]

    @abc.abstractmethod
    def _attached(self) -> Mapping[str, str]:
        """Return the node of each attached volume."""

    def observe(self) -> Mapping[str, VolumeState]:
        """Return the state of all volumes."""
        attached = self._attached()
        targets = kernel.mounts_below(self.layout.nodes)
        mounted = {path.name: path.parent.name for path in targets}
        return {
            name: self.layout.state(volume, attached.get(name), mounted.get(name))
            for name, volume in self.volumes.items()
        }

    async def provision(self, volume: Volume) -> None:
        """Make a blank volume."""
        await trio.to_thread.run_sync(self.layout.provision, volume)

    async def write(self, volume: Volume, node: str) -> None:
        """Write a file of random content, and read it back."""
        target, size = self.layout.target(volume, node), content.size_for(volume)
        await trio.to_thread.run_sync(content.write_and_verify, target, size)

    async def check(self, volume: Volume) -> None:
        """Check the file system, changing nothing."""
        await ext4.check(self.layout.image(volume))
        self.layout.stamp(volume).touch()

    async def damage(self, volume: Volume) -> None:
        """Give a detached volume a file system, and destroy its superblock."""
        image = self.layout.image(volume)
        if not image.exists():
            await self.provision(volume)
        if self.layout.is_blank(volume):
            with self.layout.formatting(volume):
                await ext4.make(volume, image)
        ext4.destroy_superblock(image)
