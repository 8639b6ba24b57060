"""The steps of a volume, the names that they run under, and a function that does a step."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, cast

import attrs

from namedtasks import ANY
from volume_controller.backend import Backend
from volume_controller.config import Volume

Operation = Literal[
    "provision", "attach", "format", "mount", "write", "unmount", "detach", "check", "delete"
]


@attrs.frozen
class Step:
    """One operation that brings a volume closer to its desired state."""

    operation: Operation
    """The operation."""
    node: str | None = None
    """Its node, if it has one."""

    def name(self, volume: str) -> tuple[str, Hashable]:
        """Return the name of its run: *volume* and its node, or `ANY` if it has none."""
        return whole(volume) if self.node is None else (volume, self.node)


def whole(volume: str) -> tuple[str, Hashable]:
    """Return the name that excludes all other operations of *volume*, on any node."""
    return volume, ANY


def parts(name: Hashable) -> tuple[str, Hashable]:
    """Return the volume and the node of a task's name: all names here have both."""
    volume, node = cast("tuple[str, Hashable]", name)
    return volume, node


async def perform(backend: Backend, volume: Volume, step: Step) -> None:
    """Do *step* to *volume*."""
    match step:
        case Step("provision"):
            await backend.provision(volume)
        case Step("attach", str(node)):
            await backend.attach(volume, node)
        case Step("format"):
            await backend.format(volume)
        case Step("mount", str(node)):
            await backend.mount(volume, node)
        case Step("write", str(node)):
            await backend.write(volume, node)
        case Step("unmount", str(node)):
            await backend.unmount(volume, node)
        case Step("detach", str(node)):
            await backend.detach(volume, node)
        case Step("check"):
            await backend.check(volume)
        case Step("delete"):
            await backend.delete(volume)
        case _:
            raise ValueError(f"{step} lacks its node")
