"""One session of the controller: the phases, a time limit, and a clean-up at the end."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Collection, Mapping

import attrs
import trio

from namedtasks import Backoff, TaskMap, open_task_map
from namedtasks.instruments import Instrument
from volume_controller.backend import Backend
from volume_controller.config import Config
from volume_controller.controller import Controller, missing_steps
from volume_controller.faults import MOUNT_FAILURES, DestroyedSuperblock
from volume_controller.journal import Journal, findings, read
from volume_controller.report import Outcome, Report

LIMIT = 6
"""Operations at once. They wait for the disk and for commands more than they compute."""

BACKOFF = Backoff(initial=0.2, maximum=5.0)
"""Short, for a demo. Kubernetes begins with 0.5 s and goes up to 2 min 2 s."""

CLEAN_UP_TIMEOUT = 15.0
"""Seconds. Pulled out of the air: to unmount and detach twelve volumes takes less than one."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@attrs.define(eq=False)
class Session:
    """Goes through the phases of a config, and leaves nothing behind."""

    config: Config
    backend: Backend
    journal: Journal
    report: Report
    time_limit: float
    _reached: bool = attrs.field(default=False, init=False)
    _stopped_by: int | None = attrs.field(default=None, init=False)
    _desired: Mapping[str, str | None] = attrs.field(factory=dict[str, str | None], init=False)
    _found: Collection[str] = attrs.field(default=(), init=False)
    _left: Collection[str] = attrs.field(default=(), init=False)

    async def run(self) -> Outcome:
        """Go through the phases until the time is up; then clean up."""
        scope = trio.CancelScope(deadline=trio.current_time() + self.time_limit)
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_on_signal, signals, scope)
                try:
                    with scope:
                        await self._go_through_phases()
                    self._tell_end()
                finally:
                    await self._clean_up()
                nursery.cancel_scope.cancel()
        proof = findings(read(self.journal.path))
        return Outcome(self._reached, self._stopped_by, self._found, self._left, proof)

    async def _go_through_phases(self) -> None:
        fault = self._fault()
        hear: list[Instrument] = [self.report] if fault is None else [self.report, fault]
        async with (
            open_task_map(backoff=BACKOFF, limit=LIMIT, instruments=hear) as tasks,
            trio.open_nursery() as nursery,
        ):
            if fault is not None:
                self.report.say(
                    f"fault: {fault.volume.name} loses its superblock; "
                    f"it is repaired once {MOUNT_FAILURES} mounts have failed"
                )
                await fault.inject(tasks)
                nursery.start_soon(fault.repair_when_called, tasks)
            await self._reconcile(tasks)
            nursery.cancel_scope.cancel()

    async def _reconcile(self, tasks: TaskMap) -> None:
        controller = Controller(self.config.volumes, self.backend, self.journal, tasks)
        for number, phase in enumerate(self.config.phases, 1):
            self._desired = phase.desired
            self.report.say(f"phase {number} of {len(self.config.phases)}: {phase.title}")
            await controller.reconcile(phase.desired)
            self.report.say(f"phase {number} reached")
        self._reached = True

    def _fault(self) -> DestroyedSuperblock | None:
        if self.config.damaged is None:
            return None
        volume = self.config.volumes[self.config.damaged]
        return DestroyedSuperblock(volume, self.backend, self.journal)

    async def _stop_on_signal(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            self.report.say(f"stopping because of {signal.Signals(number).name}")
            self._stopped_by = number
            scope.cancel()

    def _tell_end(self) -> None:
        if self._reached or self._stopped_by is not None:
            return
        steps = missing_steps(self.backend, self._desired)
        missing = ", ".join(f"{name} ({step.operation})" for name, step in steps.items())
        limit = f"after {self.time_limit:g} s (--timeout)"
        self.report.say(f"time is up {limit}, next would be: {missing or 'the next phase'}")

    async def _clean_up(self) -> None:
        """Look what is left, by the work folder, and undo it: also when cancelled."""
        with trio.move_on_after(CLEAN_UP_TIMEOUT, shield=True) as scope:
            self._left = self._found = await self.backend.leftovers()
            if self._found:
                self.report.say(f"cleaning up {len(self._found)} mounts and attachments")
                await self.backend.clean_up()
                self._left = await self.backend.leftovers()
        if scope.cancelled_caught:
            self._left = [*self._left, f"clean-up not over after {CLEAN_UP_TIMEOUT:g} s"]
