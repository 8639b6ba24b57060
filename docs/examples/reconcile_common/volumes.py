"""Six volumes made of files, two of which have faults: their state, and their next step.

In the work folder:

    images/vol-1.img      the volume
    attachments/vol-1     a lock: it is attached
    nodes/here/vol-1/     its content
    journal               the operations' own log

This module does not use the task map, with one exception: the two faults end after a number of
failures in a row, which `current_run` has.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import attrs
from volume_controller import content
from volume_controller.backend import VolumeState
from volume_controller.config import Volume
from volume_controller.journal import Findings, Journal, findings, read
from volume_controller.layout import Layout
from volume_controller.locks import Locks

from namedtasks import current_run

Step = Literal["create", "attach", "write", "detach", "delete"]
Wish = Literal["written", "deleted"]
"""The desired state of all volumes."""

NODE = "here"
SIZE = 8 * 1024**2
NAMES = tuple(f"vol-{number}" for number in range(1, 7))

FAILING = "vol-2"
"""Its first two writes fail."""
HANGING = "vol-3"
"""Its first attach waits for a device that does not appear."""


def next_step(wish: Wish, actual: VolumeState) -> Step | None:
    """Return the next step for a volume; None if nothing is missing."""
    match wish:
        case "written" if not actual.provisioned:
            return "create"
        case "written" if actual.attached_to is None:
            return "attach"
        case "written":
            return None if actual.written else "write"
        case "deleted" if actual.attached_to is not None:
            return "detach"
        case "deleted":
            return "delete" if actual.provisioned else None


@attrs.define(eq=False)
class Volumes:
    """The volumes in a work folder. No two operations of one volume may run at once."""

    work: Path
    journal: Journal = attrs.field(init=False)
    _layout: Layout = attrs.field(init=False)
    _locks: Locks = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.journal = Journal(self.work / "journal")
        self._layout = Layout(self.work)
        self._locks = Locks(self._layout.attachments)

    def missing(self, wish: Wish, names: Iterable[str] = NAMES) -> dict[str, Step]:
        """Look at the files, and return the next step of each volume that needs one."""
        attached = self._locks.holders()
        steps: dict[str, Step] = {}
        for name in names:
            node = attached.get(name)
            step = next_step(wish, self._layout.state(Volume(name, SIZE), node, node))
            if step is not None:
                steps[name] = step
        return steps

    def has_device(self, name: str) -> bool:
        """Return whether there is a device for the volume: it may take a while to appear."""
        return name != HANGING or current_run().failures > 0

    def perform(self, name: str, step: Step) -> None:
        """Do *step*, in the thread of a run. It stops in the middle if the run should stop.

        Raises:
            OSError: the first two writes of `FAILING`.
            BackendError: the content differs from what was written, or a volume is attached twice.
        """
        volume, check = Volume(name, SIZE), current_run().check_cancelled
        folder = self._layout.target(volume, NODE)
        match step:
            case "create":
                self._layout.provision(volume)
            case "attach":
                folder.mkdir(parents=True, exist_ok=True)
                self._locks.take(name, NODE)
            case "write":
                if name == FAILING and current_run().failures < 2:
                    raise OSError("bad sector")
                content.write_and_verify(folder, content.size_for(volume), check)
            case "detach":
                content.verify(folder, check)
                self._locks.give_back(name)
            case "delete":
                shutil.rmtree(folder, ignore_errors=True)
                self._layout.delete(volume)

    def findings(self) -> Findings:
        """Return the findings of the operations' own log."""
        return findings(read(self.journal.path))

    def leftovers(self) -> list[str]:
        """Return the attachments and images that exist, one line each."""
        images = [f"image {path}" for path in self.work.glob("images/*")]
        return self._locks.leftovers() + images

    def clean_up(self) -> None:
        """Release all locks, and remove all images. Nothing may run meanwhile."""
        self._locks.clean_up()
        for name in NAMES:
            self._layout.delete(Volume(name, SIZE))
