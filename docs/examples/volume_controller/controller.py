"""The controller: compares what is desired with what is, and starts what is missing.

This is the page to copy. `next_step` decides and touches nothing. `reconcile`
looks, asks it, and starts the answers under the volumes' names. All the rest is
the task map's: one operation of a volume at a time, and a pause after each
failure that gets longer and longer.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio

from namedtasks import TaskMap
from volume_controller.backend import Backend, VolumeState
from volume_controller.config import DELETED, Desired, Volume
from volume_controller.faults import Faults
from volume_controller.journal import Journal
from volume_controller.steps import Step

PERIOD = 0.1
"""Seconds between two looks at the world."""


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

        There is no checkpoint between a look and its starts: a name that is
        free now was free when we looked, so nobody has touched its volume since.
        """
        while (missing := missing_steps(self.backend, desired)) or len(self.tasks) > 0:
            for name, step in missing.items():
                self.tasks.start_soon(
                    name,
                    self._run,
                    self.volumes[name],
                    step,
                    if_busy="skip",
                    timeout=self.faults.timeout(name, step),
                    operation=step.operation,
                )
            await trio.sleep(PERIOD)

    async def _run(self, volume: Volume, step: Step) -> None:
        with self.journal.run(volume.name, step.operation):
            await self.faults.perform(self.backend, volume, step)
