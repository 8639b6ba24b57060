"""A volume that moves between nodes: its operations never clash, on whatever nodes they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock
from volume_controller.backend import Backend, VolumeState
from volume_controller.config import DELETED, Desired, Volume
from volume_controller.controller import Controller
from volume_controller.faults import Faults
from volume_controller.journal import Journal, findings, read

from namedtasks import TaskMap, open_task_map

pytestmark = pytest.mark.trio

VOLUME = Volume("v", 1)
MOUNTED = VolumeState(
    provisioned=True, attached_to="n1", blank=False, mounted_on="n1", written=True
)


@attrs.define
class Fake:
    """One volume in memory: what is done to it takes effect at once, and ends a second later."""

    state: VolumeState
    stubborn: bool = False
    """Whether what was begun goes on when it is cancelled."""
    at_work: list[str] = attrs.field(factory=list[str])
    done: list[str] = attrs.field(factory=list[str])

    def observe(self) -> Mapping[str, VolumeState]:
        return {"v": self.state}

    @asynccontextmanager
    async def doing(self, what: str, **change: Any) -> AsyncGenerator[None]:
        assert self.at_work == [], f"{what} clashes with {self.at_work}"
        self.at_work.append(what)
        try:
            yield
            self.state = attrs.evolve(self.state, **change)
            with trio.CancelScope(shield=self.stubborn):
                await trio.sleep(1)
            self.done.append(what)
        finally:
            self.at_work.remove(what)

    async def provision(self, volume: Volume) -> None:
        async with self.doing("provision", provisioned=True, blank=True):
            pass

    async def attach(self, volume: Volume, node: str) -> None:
        async with self.doing(f"attach {node}", attached_to=node, checked=False):
            assert self.state.attached_to is None
            if node == "swamp":
                await trio.sleep_forever()

    async def format(self, volume: Volume) -> None:
        async with self.doing("format", blank=False):
            pass

    async def mount(self, volume: Volume, node: str) -> None:
        async with self.doing(f"mount {node}", mounted_on=node):
            assert self.state.attached_to == node

    async def write(self, volume: Volume, node: str) -> None:
        async with self.doing(f"write {node}", written=True):
            pass

    async def unmount(self, volume: Volume, node: str) -> None:
        async with self.doing(f"unmount {node}", mounted_on=None):
            pass

    async def detach(self, volume: Volume, node: str) -> None:
        async with self.doing(f"detach {node}", attached_to=None):
            assert self.state.mounted_on is None

    async def check(self, volume: Volume) -> None:
        async with self.doing("check", checked=True):
            pass

    async def delete(self, volume: Volume) -> None:
        async with self.doing("delete", provisioned=False):
            assert self.state.attached_to is None


@attrs.define
class World:
    tasks: TaskMap
    controller: Controller
    journal: Path

    async def reconcile(self, desired: Desired, *, seconds: float = 1000.0) -> None:
        with trio.move_on_after(seconds):
            await self.controller.reconcile({"v": desired})

    def assert_nothing_overlapped(self) -> None:
        assert findings(read(self.journal)).overlaps == 0


@asynccontextmanager
async def world(tmp_path: Path, fake: Fake) -> AsyncGenerator[World]:
    journal = Journal(tmp_path / "journal")
    async with open_task_map() as tasks:
        backend = cast("Backend", fake)
        controller = Controller({"v": VOLUME}, backend, journal, Faults({}), tasks)
        yield World(tasks, controller, journal.path)


async def test_it_is_attached_to_the_new_node_when_the_detach_has_ended(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Not when the world looks as if: the detach takes effect long before its end."""
    fake = Fake(MOUNTED)
    async with world(tmp_path, fake) as w:
        await w.reconcile("n2")
        w.assert_nothing_overlapped()
    assert fake.done == ["unmount n1", "detach n1", "attach n2", "mount n2"]


async def test_an_attach_that_hangs_gives_way_when_another_node_is_desired(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """There is nothing to take away, and the volume goes where it is wanted."""
    fake = Fake(VolumeState(provisioned=True, blank=False, written=True))
    async with world(tmp_path, fake) as w:
        await w.reconcile("swamp", seconds=5.05)
        assert fake.at_work == ["attach swamp"]
        begun = trio.current_time()
        await w.reconcile("n2")
        w.assert_nothing_overlapped()
        assert trio.current_time() - begun < 3, "nobody sat out a wait"
    assert fake.done == ["attach n2", "mount n2"]


@pytest.mark.parametrize("stubborn", [False, True])
async def test_how_far_it_has_come_does_not_matter(
    tmp_path: Path, autojump_clock: MockClock, stubborn: bool
) -> None:
    """Whenever the wish changes, and whether or not what is under way can be stopped."""
    for tenths in range(1, 60):
        fake = Fake(VolumeState(), stubborn)
        async with world(tmp_path, fake) as w:
            await w.reconcile("n1", seconds=tenths / 10 + 0.05)
            await w.reconcile("n2")
            assert (fake.state.attached_to, fake.state.mounted_on) == ("n2", "n2")
            w.assert_nothing_overlapped()


@pytest.mark.parametrize("last", [None, DELETED, "n2"])
async def test_a_mind_may_change_again_and_again(
    tmp_path: Path, autojump_clock: MockClock, last: Desired
) -> None:
    for tenths in range(1, 30):
        fake = Fake(MOUNTED, stubborn=tenths % 2 == 0)
        async with world(tmp_path, fake) as w:
            for node in ("n2", "n3", "n1", "n2"):
                await w.reconcile(node, seconds=tenths / 10 + 0.05)
            await w.reconcile(last)
            w.assert_nothing_overlapped()
        assert fake.state.attached_to == (None if last is DELETED else last)
        assert fake.state.provisioned == (last is not DELETED)


async def test_a_delete_waits_for_what_runs_on_any_node(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    fake = Fake(MOUNTED)
    async with world(tmp_path, fake) as w:
        await w.reconcile(DELETED)
        w.assert_nothing_overlapped()
    assert fake.done == ["unmount n1", "detach n1", "delete"]
