"""The steps that a volume can take, the names they run under, and how a backend takes one."""

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
    """One operation that brings a volume nearer to what is desired."""

    operation: Operation
    """What to do."""
    node: str | None = None
    """Where, if it matters."""

    def name(self, volume: str) -> tuple[str, Hashable]:
        """What it runs under: *volume* and its node, or all of them if it has none."""
        return whole(volume) if self.node is None else (volume, self.node)


def whole(volume: str) -> tuple[str, Hashable]:
    """The name that excludes all other operations of *volume*, on whatever node."""
    return volume, ANY


def parts(name: Hashable) -> tuple[str, Hashable]:
    """The volume and the node of a task's name: all names here have both."""
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
