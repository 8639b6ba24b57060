"""Three things that go wrong, each for real, and each over after a few failures.

The destroyed superblock: the volume's mount fails, so its name waits. The repair
runs under the volume and any node: no mount runs while it does, and the wait of
the mount does not hold it back, as each name has failures of its own. It *queues*:
if an earlier repair failed, it comes when that one's wait is over.

The busy mount point: a process works in it, so it cannot be unmounted until that
process has gone.

The hanging attach: a child process that never ends. The task's timeout ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import ClassVar

import attrs
import trio

from namedtasks import TaskFailedError, TaskMap
from namedtasks.instruments import Instrument, TaskEvent, TaskFailed, TaskSucceeded
from volume_controller import commands
from volume_controller.backend import Backend
from volume_controller.config import Config, FaultKind, Volume
from volume_controller.journal import Journal
from volume_controller.layout import Layout
from volume_controller.steps import Operation, Step, parts, perform, whole

MOUNT_FAILURES = 2
"""How often the mount fails before somebody comes to repair."""

UNMOUNT_FAILURES = 2
"""How often the unmount fails before the process leaves the mount point."""

HANG_TIMEOUT = 0.5
"""Seconds for the attach that hangs: a demo cannot wait for the usual timeout."""

OPERATION_TIMEOUT = 20.0
"""Seconds. More than ten times what the slowest operation took on two slow cores."""


@attrs.define(eq=False)
class Fault(Instrument):
    """Something that goes wrong with one operation of *volume*. It counts the failures."""

    operation: ClassVar[Operation]
    """The operation that fails."""
    title: ClassVar[str]
    """What goes wrong, for people."""

    volume: Volume
    failures: int = attrs.field(default=0, init=False)
    """How often the operation failed."""
    survived: bool = attrs.field(default=False, init=False)
    """Whether the operation succeeded after all."""

    def task_failed(self, event: TaskFailed, /) -> None:
        """Count it, if it is our operation's failure."""
        if self._is_ours(event):
            self.failures += 1
            self.failed()

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """Note that it is over."""
        if self._is_ours(event):
            self.survived = self.survived or self.failures > 0

    def _is_ours(self, event: TaskEvent) -> bool:
        volume, _ = parts(event.name)
        return (volume, event.operation) == (self.volume.name, self.operation)

    def failed(self) -> None:
        """The operation has failed once more."""

    def timeout(self, step: Step) -> float:  # noqa: ARG002 - for those who differ
        """Seconds for *step* of the volume."""
        return OPERATION_TIMEOUT

    async def before(self, step: Step) -> None:  # noqa: ARG002
        """Go wrong before *step* of the volume, if it is to be now. Checkpoint."""
        await trio.lowlevel.checkpoint()

    async def after(self, step: Step) -> None:  # noqa: ARG002
        """Prepare what is to go wrong later, after *step*. Checkpoint."""
        await trio.lowlevel.checkpoint()

    async def run(self, tasks: TaskMap, nursery: trio.Nursery) -> None:  # noqa: ARG002
        """Get ready before the first phase; what takes longer goes into *nursery*. Checkpoint."""
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class DestroyedSuperblock(Fault):
    """The volume cannot be mounted, until an administrator comes to repair it."""

    operation: ClassVar[Operation] = "mount"
    title: ClassVar[str] = (
        f"loses its superblock; it is repaired once {MOUNT_FAILURES} mounts have failed"
    )

    backend: Backend
    journal: Journal
    _tasks: TaskMap | None = attrs.field(default=None, init=False)

    def failed(self) -> None:
        """Have the volume repaired once the mount has failed often enough."""
        if self._tasks is not None and self.failures >= MOUNT_FAILURES:
            name = whole(self.volume.name)
            self._tasks.start_soon(name, self._repair, operation="repair", if_busy="queue")

    async def run(self, tasks: TaskMap, nursery: trio.Nursery) -> None:  # noqa: ARG002
        """Destroy the superblock, unless the volume is in use. Checkpoint."""
        name = self.volume.name
        if self.backend.observe()[name].attached_to is not None:
            return
        handle = tasks.start_soon(whole(name), self._damage, operation="damage")
        with suppress(TaskFailedError):  # the report has told it
            await handle.wait()
        self._tasks = tasks

    async def _damage(self) -> None:
        with self.journal.run(self.volume.name, "damage"):
            await self.backend.damage(self.volume)

    async def _repair(self) -> None:
        with self.journal.run(self.volume.name, "repair"):
            await self.backend.repair(self.volume)


@attrs.define(eq=False)
class BusyMountPoint(Fault):
    """The volume cannot be unmounted, while a process works in it."""

    operation: ClassVar[Operation] = "unmount"
    title: ClassVar[str] = (
        f"is kept busy by a process, which leaves once {UNMOUNT_FAILURES} unmounts have failed"
    )

    layout: Layout
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _holder: trio.CancelScope | None = attrs.field(default=None, init=False)

    def failed(self) -> None:
        """Send the process away once the unmount has failed often enough."""
        if self._holder is not None and self.failures >= UNMOUNT_FAILURES:
            self._holder.cancel()

    async def run(self, tasks: TaskMap, nursery: trio.Nursery) -> None:  # noqa: ARG002
        """Keep *nursery*: the process lives longer than the mount that it waits for."""
        self._nursery = nursery
        await trio.lowlevel.checkpoint()

    async def after(self, step: Step) -> None:
        """Start the process as soon as the volume is mounted for the first time."""
        if step.operation == "mount" and step.node and self._nursery and not self._holder:
            target = self.layout.target(self.volume, step.node)
            self._holder = await self._nursery.start(commands.hold, target)


@attrs.define(eq=False)
class HangingAttach(Fault):
    """The first attach never ends by itself."""

    operation: ClassVar[Operation] = "attach"
    title: ClassVar[str] = (
        f"hangs when it is attached for the first time, and is given {HANG_TIMEOUT:g} s"
    )

    def timeout(self, step: Step) -> float:
        """A short one for what hangs; the usual one for all else, also the next try."""
        hangs = step.operation == self.operation and self.failures == 0
        return HANG_TIMEOUT if hangs else OPERATION_TIMEOUT

    async def before(self, step: Step) -> None:
        """Hang, the first time."""
        if step.operation == self.operation and self.failures == 0:
            await commands.run("sleep", "3600")


@attrs.frozen
class Faults:
    """All that goes wrong in a session."""

    all: Mapping[FaultKind, Fault]
    """The faults, by the keys that the TOML file has for them."""

    @property
    def survived(self) -> bool:
        """Whether each fault was met, and was over in the end."""
        return all(fault.survived for fault in self.all.values())

    def timeout(self, volume: str, step: Step) -> float:
        """Seconds for *step* of *volume*."""
        return min((fault.timeout(step) for fault in self._of(volume)), default=OPERATION_TIMEOUT)

    async def perform(self, backend: Backend, volume: Volume, step: Step) -> None:
        """Do *step* to *volume*, and what is to go wrong with it. Checkpoint."""
        for fault in self._of(volume.name):
            await fault.before(step)
        await perform(backend, volume, step)
        for fault in self._of(volume.name):
            await fault.after(step)

    def _of(self, volume: str) -> list[Fault]:
        return [fault for fault in self.all.values() if fault.volume.name == volume]


def make_faults(config: Config, backend: Backend, journal: Journal, layout: Layout) -> Faults:
    """Make the faults that *config* wants."""
    found: dict[FaultKind, Fault] = {}
    for kind, name in config.faults.items():
        volume = config.volumes[name]
        match kind:
            case "destroyed_superblock":
                found[kind] = DestroyedSuperblock(volume, backend, journal)
            case "busy_mount_point":
                found[kind] = BusyMountPoint(volume, layout)
            case "hanging_attach":
                found[kind] = HangingAttach(volume)
    return Faults(found)
