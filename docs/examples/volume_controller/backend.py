"""The interface of backends, and the choice of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from volume_controller.config import InputError, Volume

if TYPE_CHECKING:
    from volume_controller.layout import Layout

BLANK_BYTES = 64 * 1024
"""A volume is blank if its first bytes are all zero. Only a blank one is ever formatted."""


TRY_OUT_TIMEOUT = 15.0
"""Seconds to clean up one volume. Pulled out of the air: it takes less than one."""


class BackendError(Exception):
    """A failed operation on a volume; the text says which operation, and why it failed."""


@attrs.frozen(kw_only=True)
class VolumeState:
    """The actual state of a volume."""

    provisioned: bool = False
    """True if it has an image."""
    attached_to: str | None = None
    """The node that it is attached to."""
    blank: bool = True
    """True if it has no file system; not checked while it is mounted."""
    mounted_on: str | None = None
    """The node that it is mounted on."""
    written: bool = False
    """True if it holds a file that was read back; only known while it is mounted."""
    checked: bool = False
    """True if its file system was checked since it was last attached."""


class Backend(Protocol):
    """Works on volumes. Only one method at a time may be called for a volume.

    The controller and the task map ensure that. An operation raises an `Exception` if it fails,
    and may be tried again.
    """

    def observe(self) -> Mapping[str, VolumeState]:
        """Return the state of all volumes.

        It blocks: for twelve volumes 1 to 4 ms, and 30 ms at worst, on two cores.
        """
        ...

    async def provision(self, volume: Volume) -> None:
        """Make a blank volume."""
        ...

    async def attach(self, volume: Volume, node: str) -> None:
        """Make it a device of *node*."""
        ...

    async def format(self, volume: Volume) -> None:
        """Make a file system on a blank volume; refuse one that is not blank."""
        ...

    async def mount(self, volume: Volume, node: str) -> None:
        """Make its file system visible on *node*."""
        ...

    async def write(self, volume: Volume, node: str) -> None:
        """Write a file of random content, and read it back."""
        ...

    async def unmount(self, volume: Volume, node: str) -> None:
        """Undo `mount`."""
        ...

    async def detach(self, volume: Volume, node: str) -> None:
        """Undo `attach`."""
        ...

    async def check(self, volume: Volume) -> None:
        """Check the file system of a detached volume."""
        ...

    async def delete(self, volume: Volume) -> None:
        """Remove a detached volume, and all that is in it."""
        ...

    async def damage(self, volume: Volume) -> None:
        """Give a detached volume a file system, and destroy its superblock."""
        ...

    async def repair(self, volume: Volume) -> None:
        """Restore the superblock from its backup."""
        ...

    async def leftovers(self) -> list[str]:
        """Return what is attached, mounted or running for the work folder, one line each."""
        ...

    async def clean_up(self) -> None:
        """End, unmount and detach everything of the work folder, as far as possible."""
        ...


class BackendKind(Protocol):
    """Makes a backend, if it works here."""

    def __call__(self, layout: Layout, volumes: Mapping[str, Volume]) -> Backend:
        """Make one for *volumes*, in the work folder of *layout*."""
        ...

    async def obstacle(self, layout: Layout) -> str | None:
        """Try it out in a folder; return the reason if it does not work here, otherwise None."""
        ...


@attrs.frozen
class Choice:
    """The chosen backend, and the reason for the choice."""

    kind: BackendKind
    """The kind that makes it."""
    name: str
    """Its name for ``--backend``."""
    reason: str
    """The reason, to be printed after a comma."""


async def choose(kinds: Mapping[str, BackendKind], wanted: str | None, folder: Layout) -> Choice:
    """Choose the kind called *wanted*, or else the first one that works in *folder*.

    Raises:
        InputError: there is no such kind, or it does not work here.
    """
    if wanted is not None:
        return await _forced(kinds, wanted, folder)
    obstacles: list[str] = []
    for name, kind in kinds.items():
        obstacle = await kind.obstacle(folder)
        if obstacle is None:
            why = "; ".join(obstacles)
            return Choice(kind, name, f"because {why}" if why else "because it works here")
        obstacles.append(f"{name} {obstacle}")
    raise InputError(f"no backend works here, because {'; '.join(obstacles)}")


async def try_out(backend: Backend, volume: Volume) -> None:
    """Provision, format and mount *volume* on a node called "here", and undo it.

    Raises:
        Exception: the backend does not work here.
    """
    try:
        await backend.provision(volume)
        await backend.attach(volume, "here")
        await backend.format(volume)
        await backend.mount(volume, "here")
        await backend.unmount(volume, "here")
        await backend.detach(volume, "here")
    finally:
        with trio.move_on_after(TRY_OUT_TIMEOUT, shield=True):
            await backend.clean_up()


async def _forced(kinds: Mapping[str, BackendKind], wanted: str, folder: Layout) -> Choice:
    kind = kinds.get(wanted)
    if kind is None:
        raise InputError(f"unknown backend {wanted!r}: choose from {', '.join(kinds)}")
    obstacle = await kind.obstacle(folder)
    if obstacle is not None:
        others = " or ".join(name for name in kinds if name != wanted)
        raise InputError(
            f"backend {wanted} cannot be used: it {obstacle}; fix that, or use --backend {others}"
        )
    return Choice(kind, wanted, "as asked for")
