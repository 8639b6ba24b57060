"""Three real faults, each of which ends after a few failures.

The destroyed superblock: the mount of the volume fails, so its name waits. The repair runs under
the volume and `ANY`. So no mount runs during the repair, and the wait of the mount does not delay
the repair, because each name has failures of its own. The repair is *queued*: if an earlier repair
failed, it runs when the wait of that one is over.

The busy mount point: a process works in it, so it cannot be unmounted until that process has
ended.

The hanging attach: it starts a child process that never ends, and the timeout of the task ends it.
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
"""Failures of the mount before the repair."""

UNMOUNT_FAILURES = 2
"""Failures of the unmount before the process leaves the mount point."""

HANG_TIMEOUT = 0.5
"""Seconds for the attach that hangs; the usual timeout is too long for a demo."""

OPERATION_TIMEOUT = 20.0
"""Seconds: more than ten times what the slowest operation took on two slow cores."""


@attrs.define(eq=False)
class Fault(Instrument):
    """A fault of one operation of *volume*. It counts the failures."""

    operation: ClassVar[Operation]
    """The operation that fails."""
    title: ClassVar[str]
    """A description of the fault, for people."""

    volume: Volume
    failures: int = attrs.field(default=0, init=False)
    """The failures of the operation."""
    survived: bool = attrs.field(default=False, init=False)
    """True if the operation succeeded after a failure."""

    def task_failed(self, event: TaskFailed, /) -> None:
        """Count the failure, if it is one of our operation."""
        if self._is_ours(event):
            self.failures += 1
            self.failed()

    def task_succeeded(self, event: TaskSucceeded, /) -> None:
        """Note that the fault is over."""
        if self._is_ours(event):
            self.survived = self.survived or self.failures > 0

    def _is_ours(self, event: TaskEvent) -> bool:
        volume, _ = parts(event.name)
        return (volume, event.operation) == (self.volume.name, self.operation)

    def failed(self) -> None:
        """React to one more failure of the operation."""

    def timeout(self, step: Step) -> float:  # noqa: ARG002 - for subclasses
        """Return the seconds for *step* of the volume."""
        return OPERATION_TIMEOUT

    async def before(self, step: Step) -> None:  # noqa: ARG002
        """Cause the fault before *step* of the volume, if it is due now. Checkpoint."""
        await trio.lowlevel.checkpoint()

    async def after(self, step: Step) -> None:  # noqa: ARG002
        """Prepare a later fault after *step*. Checkpoint."""
        await trio.lowlevel.checkpoint()

    async def run(self, tasks: TaskMap, nursery: trio.Nursery) -> None:  # noqa: ARG002
        """Prepare the fault before the first phase; *nursery* is for longer tasks. Checkpoint."""
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class DestroyedSuperblock(Fault):
    """The volume cannot be mounted until it is repaired."""

    operation: ClassVar[Operation] = "mount"
    title: ClassVar[str] = (
        f"loses its superblock; it is repaired once {MOUNT_FAILURES} mounts have failed"
    )

    backend: Backend
    journal: Journal
    _tasks: TaskMap | None = attrs.field(default=None, init=False)

    def failed(self) -> None:
        """Start the repair after enough failures of the mount."""
        if self._tasks is not None and self.failures >= MOUNT_FAILURES:
            name = whole(self.volume.name)
            self._tasks.start_soon(name, self._repair, operation="repair", if_busy="queue")

    async def run(self, tasks: TaskMap, nursery: trio.Nursery) -> None:  # noqa: ARG002
        """Destroy the superblock, unless the volume is in use. Checkpoint."""
        name = self.volume.name
        if self.backend.observe()[name].attached_to is not None:
            return
        handle = tasks.start_soon(whole(name), self._damage, operation="damage")
        with suppress(TaskFailedError):  # the report has shown it
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
    """The volume cannot be unmounted while a process works in it."""

    operation: ClassVar[Operation] = "unmount"
    title: ClassVar[str] = (
        f"is kept busy by a process, which leaves once {UNMOUNT_FAILURES} unmounts have failed"
    )

    layout: Layout
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _holder: trio.CancelScope | None = attrs.field(default=None, init=False)

    def failed(self) -> None:
        """End the process after enough failures of the unmount."""
        if self._holder is not None and self.failures >= UNMOUNT_FAILURES:
            self._holder.cancel()

    async def run(self, tasks: TaskMap, nursery: trio.Nursery) -> None:  # noqa: ARG002
        """Keep *nursery* for the process, which outlives the mount operation. Checkpoint."""
        self._nursery = nursery
        await trio.lowlevel.checkpoint()

    async def after(self, step: Step) -> None:
        """Start the process after the first mount of the volume."""
        if step.operation == "mount" and step.node and self._nursery and not self._holder:
            target = self.layout.target(self.volume, step.node)
            self._holder = await self._nursery.start(commands.hold, target)


@attrs.define(eq=False)
class HangingAttach(Fault):
    """The first attach never ends by itself."""

    operation: ClassVar[Operation] = "attach"
    title: ClassVar[str] = f"hangs on its first attach, which has a timeout of {HANG_TIMEOUT:g} s"

    def timeout(self, step: Step) -> float:
        """Return a short timeout for the first attach, and the usual one for everything else."""
        hangs = step.operation == self.operation and self.failures == 0
        return HANG_TIMEOUT if hangs else OPERATION_TIMEOUT

    async def before(self, step: Step) -> None:
        """Hang before the first attach."""
        if step.operation == self.operation and self.failures == 0:
            await commands.run("sleep", "3600")


@attrs.frozen
class Faults:
    """All faults of a session."""

    all: Mapping[FaultKind, Fault]
    """The faults, by their keys in the TOML file."""

    @property
    def survived(self) -> bool:
        """True if each fault occurred, and was over in the end."""
        return all(fault.survived for fault in self.all.values())

    def timeout(self, volume: str, step: Step) -> float:
        """Return the seconds for *step* of *volume*."""
        return min((fault.timeout(step) for fault in self._of(volume)), default=OPERATION_TIMEOUT)

    async def perform(self, backend: Backend, volume: Volume, step: Step) -> None:
        """Do *step* to *volume*, with its faults. Checkpoint."""
        for fault in self._of(volume.name):
            await fault.before(step)
        await perform(backend, volume, step)
        for fault in self._of(volume.name):
            await fault.after(step)

    def _of(self, volume: str) -> list[Fault]:
        return [fault for fault in self.all.values() if fault.volume.name == volume]


def make_faults(config: Config, backend: Backend, journal: Journal, layout: Layout) -> Faults:
    """Return the faults of *config*."""
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
