"""Names whose own code raises in the middle: a call may raise, and nothing is lost by it."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, NoReturn

import pytest
import trio
from trio.testing import MockClock

from namedtasks import (
    ANY,
    AlreadyRunningError,
    Backoff,
    IfBusy,
    RefusedError,
    TaskCancelledError,
    TaskFailedError,
    TaskHandle,
    TaskMap,
    open_task_map,
)

KINDS = ["bare", "field", "with ANY"]
DEEDS = [
    "start",
    "end",
    "fail",
    "cancel",
    "forget",
    "queue",
    "queue twice",
    "end queued",
    "replace",
    "replace twice",
    "end replaced",
]


TUPLES_KEEP_THEIR_HASH = sys.version_info >= (3, 14)
"""So a field of a name that was hashed before is not always asked again."""


class OwnCodeError(Exception):
    """What the name's own code raises."""


class Field:
    """Equal to all of its kind, until its hash or equality is asked for once too often."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.has_raised = False

    def _tick(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.has_raised = True
                raise OwnCodeError

    def __hash__(self) -> int:
        self._tick()
        return 1

    def __eq__(self, other: object) -> bool:
        self._tick()
        return isinstance(other, Field)

    def __repr__(self) -> str:
        return "Field()"


async def fail() -> NoReturn:
    raise ValueError("no such volume")


class World:
    """One map, one name, and what was started under it."""

    def __init__(self, tasks: TaskMap, field: Field, name: Any) -> None:
        self.tasks = tasks
        self.field = field
        self.name = name
        self.handles: list[TaskHandle[Any]] = []

    def start(self, async_fn: Any, *args: Any, **how: Any) -> None:
        with contextlib.suppress(OwnCodeError, RefusedError):
            handle: Any = self.tasks.start_soon(self.name, async_fn, *args, **how)
            self.handles.append(handle)

    def do(self, deed: str, calls: int) -> None:
        """The deed, in which the name's own code raises at and after that many calls."""
        tasks = self.tasks
        if deed == "forget":
            self.field.left = calls
            with contextlib.suppress(OwnCodeError):
                tasks.forget(self.name)
            return
        if deed == "start":
            self.field.left = calls
            self.start(trio.sleep, 1)
            return
        if deed == "fail":
            self.start(fail)
        else:
            self.start(trio.sleep, 1)
        for how in ("queue", "replace"):
            if how in deed and deed != how:
                self.start(trio.sleep, 1, if_busy=how)
        self.field.left = calls
        if deed.split(maxsplit=1)[0] in ("queue", "replace"):
            self.start(trio.sleep, 1, if_busy=deed.split(maxsplit=1)[0])
        elif deed == "cancel":
            with contextlib.suppress(OwnCodeError):
                tasks.cancel(self.name)


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_whose_own_code_raises_leaves_the_map_whole(kind: str, deed: str) -> None:
    """At each call of it in turn: no name, no slot, no pending run and no handle stays behind."""

    async def main(calls: int) -> bool:
        field = Field()
        name = {"bare": field, "field": (field, "pod"), "with ANY": (field, ANY)}[kind]
        async with open_task_map(backoff=Backoff(initial=0.1), limit=2, instruments=()) as tasks:
            if kind == "with ANY":
                tasks.start_soon(("other", ANY), trio.sleep, 0)
            world = World(tasks, field, name)
            world.start(fail)
            await trio.sleep(0.2)
            world.do(deed, calls)
            await trio.sleep(2)
            field.left = None
            with trio.fail_after(100):
                await tasks.wait_idle()
            assert all(handle.done for handle in world.handles)
            numbers = tasks.statistics()
            assert (numbers.running, numbers.pending, numbers.waiting_for_slot) == (0, 0, 0)
            fresh = [tasks.start_soon(number, trio.sleep, 1) for number in range(2)]
            await trio.sleep(0.5)
            assert all(handle.started_at is not None for handle in fresh), "both slots are back"
        return field.has_raised

    calls = 0
    while trio.run(main, calls, clock=MockClock(autojump_threshold=0)):
        calls += 1
    assert calls > 0 or (TUPLES_KEEP_THEIR_HASH and kind != "bare"), "it was tried"


async def test_what_goes_up_goes_up_whatever_the_name_does() -> None:
    """The body's own exception, not that of the name; and the handle knows."""
    field = Field()

    async def leave() -> NoReturn:
        field.left = 0
        raise SystemExit(3)

    handle: Any = None
    with pytest.RaisesGroup(SystemExit, allow_unwrapped=True) as caught:
        async with open_task_map(backoff=Backoff(initial=0), instruments=()) as tasks:
            with contextlib.suppress(TaskFailedError):
                await tasks.start_soon(field, fail).wait()
            handle = tasks.start_soon(field, leave)
            await trio.sleep(1)
    assert getattr(caught.value, "code", 3) == 3
    assert handle.done


async def test_names_that_overlap_never_run_at_once_whatever_another_name_does() -> None:
    field = Field()

    async def spoil() -> NoReturn:
        field.left = 0
        raise ValueError

    async with open_task_map(instruments=()) as tasks:
        tasks.start_soon(("other", ANY), trio.sleep, 0)
        healthy = tasks.start_soon(("vol-1", "pod-a"), trio.sleep, 1)
        with pytest.raises(TaskFailedError):
            await tasks.start_soon(("vol-2", field), spoil).wait()
        with pytest.raises(AlreadyRunningError):
            tasks.start_soon(("vol-1", ANY), trio.sleep, 0)
        tasks.cancel_all()
        with pytest.raises(TaskCancelledError):
            await healthy.wait()


class Unlike:
    """Of one hash, and not to be compared with another."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Unlike) and other.number != self.number:
            raise OwnCodeError
        return self is other


@pytest.mark.parametrize("if_busy", ["refuse", "replace", "queue"])
async def test_a_start_that_raises_half_way_has_started_nothing(
    if_busy: IfBusy, autojump_clock: MockClock
) -> None:
    async with open_task_map(instruments=()) as tasks:
        tasks.start_soon(("vol-2", ANY), trio.sleep, 1)
        tasks.start_soon(("vol-1", Unlike(1)), trio.sleep, 1)
        with pytest.raises((OwnCodeError, RefusedError)):
            tasks.start_soon(("vol-2", Unlike(2)), trio.sleep, 1, if_busy=if_busy)
        assert len(tasks) == 2
        assert all(handle.name for handle in tasks.values())
        assert tasks.statistics().pending == 0
