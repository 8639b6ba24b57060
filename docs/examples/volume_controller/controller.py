"""The controller: compares what is desired with what is, and starts what is missing.

This is the page to copy. `next_step` decides and touches nothing. `reconcile`
looks, asks it, and starts the answers: what is done on a node under the volume and
that node, what is done to the volume as a whole under the volume and `ANY`. All
the rest is the task map's: who excludes whom, and a pause after each failure that
gets longer and longer.
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
    """What to do next for a volume that is desired on a node, on none, or not at all.

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
    """The next step of each volume that needs one, by a look at the real world."""
    actual = backend.observe()
    steps = {name: next_step(wish, actual[name]) for name, wish in desired.items()}
    return {name: step for name, step in steps.items() if step is not None}


@attrs.frozen
class Controller:
    """Reconciles volumes through a task map."""

    volumes: Mapping[str, Volume]
    backend: Backend
    journal: Journal
    faults: Faults
    tasks: TaskMap

    async def reconcile(self, desired: Mapping[str, Desired]) -> None:
        """Come back when nothing is missing and nothing runs any more.

        May be cancelled, and called again with what is desired now. There is no
        checkpoint between a look and its starts: so a name that is free now was
        free when we looked, and nobody has touched what it stands for since.
        """
        self._turn_back(desired)
        while (missing := missing_steps(self.backend, desired)) or len(self.tasks) > 0:
            for volume, step in missing.items():
                if step.operation == "attach" and self.tasks.check(whole(volume)):
                    continue  # gone from its old node, to the eye, but not left it in full
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
        """Stop what is on its way to a node that is not desired any more."""
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
        """Take the volume off its node, however far it had come when it was stopped."""
        with self.journal.run(volume.name, "leave"):
            while (step := next_step(None, self.backend.observe()[volume.name])) and step.node:
                await perform(self.backend, volume, step)
