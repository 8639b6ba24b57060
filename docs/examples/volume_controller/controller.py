"""The controller: compares the desired with the actual state, and starts the missing steps.

This is the page to copy. `next_step` decides and changes nothing. `reconcile` looks at the actual
state, asks `next_step`, and starts the answers. A step on a node runs under the volume and that
node, and a step on the whole volume runs under the volume and `ANY`. The task map does the rest:
it excludes conflicting steps, and makes a step wait after a failure, longer each time.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio

from namedtasks import TaskMap
from volume_controller.backend import Backend, VolumeState
from volume_controller.config import DELETED, Desired, Volume
from volume_controller.faults import OPERATION_TIMEOUT, Faults
from volume_controller.journal import Journal
from volume_controller.steps import Step, parts, perform, whole

PERIOD = 0.1
"""Seconds between two looks at the world."""

TOWARDS = ("attach", "mount", "write")
"""The operations that bring a volume to a node, or use it there."""


def next_step(desired: Desired, actual: VolumeState) -> Step | None:
    """Return the next step for a volume that should be on a node, detached, or deleted.

    Returns:
        None if nothing is missing.
    """
    in_place = desired == actual.attached_to == actual.mounted_on
    if actual.mounted_on is not None and not in_place:
        return Step("unmount", actual.mounted_on)
    if actual.attached_to not in (None, desired):
        return Step("detach", actual.attached_to)
    if desired is DELETED:
        return Step("delete") if actual.provisioned else None
    if desired is not None:
        return _next_step_towards(desired, actual)
    if actual.provisioned and not actual.blank and not actual.checked:
        return Step("check")
    return None


def _next_step_towards(node: str, actual: VolumeState) -> Step | None:
    if not actual.provisioned:
        return Step("provision")
    if actual.attached_to is None:
        return Step("attach", node)
    if actual.mounted_on is None:
        return Step("format") if actual.blank else Step("mount", node)
    return None if actual.written else Step("write", node)


def missing_steps(backend: Backend, desired: Mapping[str, Desired]) -> dict[str, Step]:
    """Look at the actual state, and return the next step of each volume that needs one."""
    actual = backend.observe()
    steps = {name: next_step(wish, actual[name]) for name, wish in desired.items()}
    return {name: step for name, step in steps.items() if step is not None}


@attrs.frozen
class Controller:
    """Reconciles volumes with a task map."""

    volumes: Mapping[str, Volume]
    backend: Backend
    journal: Journal
    faults: Faults
    tasks: TaskMap

    async def reconcile(self, desired: Mapping[str, Desired]) -> None:
        """Start the missing steps, until nothing is missing and nothing runs.

        It may be cancelled, and called again with another desired state. There is no checkpoint
        between a look and its starts. So a name that is free at the start was free at the look,
        and nothing has changed its volume since.
        """
        self._turn_back(desired)
        while (missing := missing_steps(self.backend, desired)) or len(self.tasks) > 0:
            for volume, step in missing.items():
                if step.operation == "attach" and self.tasks.check(whole(volume)):
                    continue  # it looks detached from its old node, but the detach has not ended
                self.tasks.start_soon(
                    step.name(volume),
                    self._run,
                    self.volumes[volume],
                    step,
                    if_busy="skip",
                    timeout=self.faults.timeout(volume, step),
                    operation=step.operation,
                )
            await trio.sleep(PERIOD)

    def _turn_back(self, desired: Mapping[str, Desired]) -> None:
        """Stop operations that bring a volume to a node that is no longer desired."""
        for name, handle in self.tasks.items():
            volume, node = parts(name)
            if handle.operation in TOWARDS and node != desired[volume]:
                self.tasks.start_soon(
                    whole(volume),
                    self._leave,
                    self.volumes[volume],
                    if_busy="replace",
                    timeout=OPERATION_TIMEOUT,
                    operation="leave",
                )

    async def _run(self, volume: Volume, step: Step) -> None:
        with self.journal.run(volume.name, step.operation):
            await self.faults.perform(self.backend, volume, step)

    async def _leave(self, volume: Volume) -> None:
        """Take the volume off its node, from any state in which its operation was stopped."""
        with self.journal.run(volume.name, "leave"):
            while (step := next_step(None, self.backend.observe()[volume.name])) and step.node:
                await perform(self.backend, volume, step)
