"""One thing that goes wrong: a volume's superblock is destroyed, and mended later.

The volume's mount fails, so its name waits. The repair is another operation of
the same name: the task map keeps failures apart by operation, so the wait of the
mount does not hold the repair back, and no mount runs while the repair does.
"""

from __future__ import annotations

from contextlib import suppress

import attrs
import trio

from namedtasks import TaskFailedError, TaskMap
from namedtasks.instruments import Instrument, TaskFailed
from volume_controller.backend import Backend
from volume_controller.config import Volume
from volume_controller.journal import Journal

MOUNT_FAILURES = 2
"""How often the mount fails before somebody comes to repair."""


@attrs.frozen(eq=False)
class DestroyedSuperblock(Instrument):
    """A fault of *volume*, and the administrator who comes to repair it."""

    volume: Volume
    backend: Backend
    journal: Journal
    _called: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def inject(self, tasks: TaskMap) -> None:
        """Destroy the superblock, unless the volume is in use."""
        name = self.volume.name
        if self.backend.observe()[name].attached_to is not None:
            return
        handle = tasks.start_soon(name, self._damage, operation="damage")
        with suppress(TaskFailedError):  # the report has told it
            await handle.wait()

    def task_failed(self, event: TaskFailed, /) -> None:
        """Call for the repair once the mount has failed often enough."""
        ours = (event.name, event.operation) == (self.volume.name, "mount")
        if ours and event.failures >= MOUNT_FAILURES:
            self._called.set()

    async def repair_when_called(self, tasks: TaskMap) -> None:
        """Repair the volume while its mount waits; a repair that fails waits, too."""
        await self._called.wait()
        name, repaired = self.volume.name, False
        while not repaired:
            await tasks.wait_free(name, operation="repair")
            handle = tasks.start_soon(name, self._repair, operation="repair")
            with suppress(TaskFailedError):
                await handle.wait()
                repaired = True

    async def _damage(self) -> None:
        with self.journal.run(self.volume.name, "damage"):
            await self.backend.damage(self.volume)

    async def _repair(self) -> None:
        with self.journal.run(self.volume.name, "repair"):
            await self.backend.repair(self.volume)
