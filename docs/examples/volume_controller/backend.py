"""What a backend does for the controller, and which one is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from volume_controller.config import InputError, Volume

if TYPE_CHECKING:
    from volume_controller.layout import Layout

BLANK_BYTES = 64 * 1024
"""A volume whose first bytes are all zero is blank; any other is never formatted."""


TRY_OUT_TIMEOUT = 15.0
"""Seconds to undo one volume. Pulled out of the air: it takes less than one."""


class BackendError(Exception):
    """An operation on a volume failed; the text says which and why."""


@attrs.frozen(kw_only=True)
class VolumeState:
    """What a look at the real world says about a volume."""

    provisioned: bool = False
    """Whether there is an image."""
    attached_to: str | None = None
    """The node that it is attached to."""
    blank: bool = True
    """Whether it has no file system; not looked at while it is mounted."""
    mounted_on: str | None = None
    """The node that it is mounted on."""
    written: bool = False
    """Whether it holds a file that was read back; only known while it is mounted."""
    checked: bool = False
    """Whether its file system was checked since it was last attached."""


class Backend(Protocol):
    """Works on volumes. No method may be called for a volume while another one works on it.

    That is the controller's duty, and the task map's. An operation raises an `Exception` if it
    fails, and may be tried again.
    """

    def observe(self) -> Mapping[str, VolumeState]:
        """Look at all volumes. It blocks: 1 to 4 ms for twelve, 30 ms at worst, on two cores."""
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
        """Mend the superblock from its backup."""
        ...

    async def leftovers(self) -> list[str]:
        """What is still attached, mounted or running for the work folder, one line each."""
        ...

    async def clean_up(self) -> None:
        """End, unmount and detach what there is for the work folder, as far as it goes."""
        ...


class BackendKind(Protocol):
    """Makes a backend, where it works."""

    def __call__(self, layout: Layout, volumes: Mapping[str, Volume]) -> Backend:
        """Make one for *volumes*, in the work folder of *layout*."""
        ...

    async def obstacle(self, layout: Layout) -> str | None:
        """Try it out in a folder: what keeps this kind from working here; None if it works."""
        ...


@attrs.frozen
class Choice:
    """A backend, and why it was chosen."""

    kind: BackendKind
    """What makes it."""
    name: str
    """What ``--backend`` calls it."""
    reason: str
    """Why, for people: goes after a comma."""


async def choose(kinds: Mapping[str, BackendKind], wanted: str | None, folder: Layout) -> Choice:
    """Choose the kind called *wanted*, or else the first one that works in *folder*.

    Raises:
        InputError: there is none of that name, or it cannot work here.
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
    raise InputError(f"no backend is left, because {'; '.join(obstacles)}")


async def try_out(backend: Backend, volume: Volume) -> None:
    """Bring *volume* all the way up on a node called "here", and down again.

    Raises:
        Exception: it cannot be done here.
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
            f"backend {wanted} cannot be used: it {obstacle}; mend that, or use --backend {others}"
        )
    return Choice(kind, wanted, "as asked for")
