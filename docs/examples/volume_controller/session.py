"""One session of the controller: a backend, the phases, a time limit, and a clean-up."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Hashable, Mapping

import attrs
import trio

from namedtasks import Backoff, TaskMap, open_task_map
from namedtasks.instruments import Instrument, TaskStarted
from volume_controller import cleanup
from volume_controller.backend import Backend, BackendKind, choose
from volume_controller.config import Config, Desired, Phase
from volume_controller.controller import Controller, missing_steps
from volume_controller.faults import Faults, make_faults
from volume_controller.journal import Journal, findings, read
from volume_controller.layout import Layout
from volume_controller.report import Outcome, Report
from volume_controller.stopping import Stop
from volume_controller.workfolder import WorkFolder

LIMIT = 6
"""Operations at once. They wait for the disk and for commands more than they compute."""

BACKOFF = Backoff(initial=0.2, maximum=5.0)
"""Short, for a demo. Kubernetes begins with 0.5 s and goes up to 2 min 2 s."""

KEEP_OUTCOMES = 500
"""Outcomes that the status page shows: the last ones of a hundred volumes."""

CLEAN_UP_TIMEOUT = 60.0
"""Seconds. Pulled out of the air: cleaning up a hundred volumes takes less than ten."""


@attrs.define(eq=False)
class Watch(Instrument):
    """Cancels *scope* when a run has begun under each of *names*."""

    names: set[Hashable] = attrs.field(factory=set[Hashable])
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def task_started(self, event: TaskStarted, /) -> None:
        """Remove its name from *names*."""
        if event.name in self.names:
            self.names.remove(event.name)
            if not self.names:
                self.scope.cancel()


@attrs.define(eq=False)
class Session:
    """Goes through the phases of a config, and cleans up."""

    config: Config
    kinds: Mapping[str, BackendKind]
    wanted: str | None
    """The requested backend, if any."""
    work: WorkFolder
    report: Report
    stop: Stop
    time_limit: float
    instruments: Collection[Instrument] = ()
    """More instruments for the map."""
    _backend: Backend | None = attrs.field(default=None, init=False)
    _faults: Faults = attrs.field(factory=lambda: Faults({}), init=False)
    _watch: Watch = attrs.field(factory=Watch, init=False)
    _reached: bool = attrs.field(default=False, init=False)
    _desired: Mapping[str, Desired] = attrs.field(factory=dict[str, Desired], init=False)
    _found: Collection[str] = attrs.field(default=(), init=False)
    _left: Collection[str] = attrs.field(default=(), init=False)

    async def run(self) -> Outcome:
        """Run all phases, and clean up, even if a signal stops the session.

        Raises:
            InputError: the requested backend does not work here.
        """
        journal = Journal(self.work.path / "journal")
        try:
            with self.stop.scope:
                backend = await self._prepare()
                self._faults = make_faults(self.config, backend, journal, Layout(self.work.path))
                await self._go_through_phases(backend, journal)
        finally:
            await self._clean_up()
        return Outcome(
            reached=self._reached,
            stopped_by=self.stop.signal,
            found=self._found,
            left=self._left,
            journal=findings(read(journal.path)),
            faults=list(self._faults.all.values()),
        )

    async def _prepare(self) -> Backend:
        """Clean up after an earlier session, and choose a backend."""
        earlier = self.work.backend
        if earlier is not None and earlier in self.kinds:
            await self._clean_up_earlier(self.kinds[earlier](Layout(self.work.path), {}))
        wanted = self.work.choose_backend(self.wanted)
        probe = self.work.path / "probe"
        await cleanup.clean_up(self.work.path)
        choice = await choose(self.kinds, wanted, Layout(probe))
        shutil.rmtree(probe, ignore_errors=True)
        self.work.keep_backend(choice.name)
        reason = choice.reason if earlier is None else "as before in this work folder"
        text = f"backend: {choice.name}, {reason}"
        self.report.tell("begin", text, backend=choice.name)
        folder = self.work.path
        self.report.tell("begin", f"work folder: {folder}", work=str(folder))
        self._backend = choice.kind(Layout(folder), self.config.volumes)
        return self._backend

    async def _clean_up_earlier(self, backend: Backend) -> None:
        found = await backend.leftovers()
        if found:
            text = f"cleaning up after an earlier session: {len(found)} leftovers"
            self.report.tell("cleaning up", text, leftovers=found)
            await backend.clean_up()

    async def _go_through_phases(self, backend: Backend, journal: Journal) -> None:
        hear = [self.report, self._watch, *self._faults.all.values(), *self.instruments]
        with trio.move_on_after(self.time_limit):
            async with (
                open_task_map(
                    backoff=BACKOFF, limit=LIMIT, instruments=hear, keep_outcomes=KEEP_OUTCOMES
                ) as tasks,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self.report.display.watch, backend.observe)
                for fault in self._faults.all.values():
                    text = f"fault: {fault.volume.name} {fault.title}"
                    self.report.tell("fault", text, volume=fault.volume.name)
                    await fault.run(tasks, nursery)
                await self._reconcile(backend, journal, tasks)
                nursery.cancel_scope.cancel()
        self._tell_end(backend)

    async def _reconcile(self, backend: Backend, journal: Journal, tasks: TaskMap) -> None:
        controller = Controller(self.config.volumes, backend, journal, self._faults, tasks)
        phases = self.config.phases
        for number, phase in enumerate(phases, 1):
            self._desired = phase.desired
            text = f"phase {number} of {len(phases)}: {phase.title}"
            self.report.tell("phase", text, phase=number, title=phase.title)
            if phase.at_first:
                await self._set_out(controller, phase)
            await controller.reconcile(phase.desired)
            self.report.tell("phase reached", f"phase {number} reached", phase=number)
        self._reached = True

    async def _set_out(self, controller: Controller, phase: Phase) -> None:
        """Begin the moves to the first nodes, and stop when all of them have begun."""
        self._watch.names |= set(phase.at_first.items())
        with trio.CancelScope() as self._watch.scope:
            await controller.reconcile({**phase.desired, **phase.at_first})
        wrong = ", ".join(f"{name} not to {node}" for name, node in phase.at_first.items())
        self.report.tell("change of mind", f"change of mind: {wrong}")

    def _tell_end(self, backend: Backend) -> None:
        if self._reached:
            return
        steps = missing_steps(backend, self._desired)
        missing = ", ".join(f"{name} ({step.operation})" for name, step in steps.items())
        limit = f"after {self.time_limit:g} s (--timeout)"
        text = f"time is up {limit}, next would be: {missing or 'the next phase'}"
        self.report.tell("time is up", text)

    async def _clean_up(self) -> None:
        """Find and undo all leftovers of the work folder, even when cancelled."""
        with trio.move_on_after(CLEAN_UP_TIMEOUT, shield=True) as scope:
            self._left = self._found = await self._leftovers()
            if self._found:
                text = f"cleaning up {len(self._found)} mounts, attachments and processes"
                self.report.tell("cleaning up", text, leftovers=self._found)
                if self._backend is None:
                    await cleanup.clean_up(self.work.path)
                else:
                    await self._backend.clean_up()
                self._left = await self._leftovers()
        if scope.cancelled_caught:
            self._left = [*self._left, f"clean-up not over after {CLEAN_UP_TIMEOUT:g} s"]
        if self._left:
            self.work.remove = False

    async def _leftovers(self) -> list[str]:
        if self._backend is None:
            await trio.lowlevel.checkpoint()
            return cleanup.leftovers(self.work.path)
        return await self._backend.leftovers()


async def clean(work: WorkFolder, kinds: Mapping[str, BackendKind]) -> list[str]:
    """Clean up after a controller in *work*; return the leftovers that cannot be undone."""
    kind = kinds.get(work.backend or "")
    if kind is None:
        await cleanup.clean_up(work.path)
        return cleanup.leftovers(work.path)
    backend = kind(Layout(work.path), {})
    await backend.clean_up()
    return await backend.leftovers()
