"""The waits of the trio shell, and why a task may not wait for itself.

Each wait is a loop around its condition with no checkpoint between the last
look and the return: so the condition still holds when the caller goes on, until
the caller's next checkpoint.

A wait that would wait for its caller is refused at the call. Who the caller is,
is read off trio's task tree, which is exact; a context variable is not, because
it is copied into whatever the task starts in other nurseries.

The waits are protected from Ctrl-C, as a cancel scope that is left half entered
or half left is not to be repaired; it arrives where they park.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import ParkingLot, Task, checkpoint, current_task, enable_ki_protection

from namedtasks._core.ledger import Closed, refusal
from namedtasks._core.text import repr_of
from namedtasks._trio.run import TrioRun

if TYPE_CHECKING:
    from namedtasks._trio.shell import Shell


@enable_ki_protection
async def wait_done(run: TrioRun) -> None:
    """Wait until *run* has ended."""
    if run.done:
        await checkpoint()
        return
    refuse_inside_run(run, "wait() of its own handle")
    while not run.done:
        await _park_with(run)


@enable_ki_protection
async def wait_idle(shell: Shell) -> None:
    """Wait until nothing runs."""
    await checkpoint()
    while shell.engine.ledger.running:
        await shell.changed.park()


@enable_ki_protection
async def wait_empty(shell: Shell) -> None:
    """Wait until nothing runs and no failure waits."""
    await checkpoint()
    ledger = shell.engine.ledger
    while True:
        if ledger.running:
            await shell.changed.park()
            continue
        lapse = ledger.records.next_lapse(shell.now())
        if lapse is None:
            return
        with trio.CancelScope(deadline=lapse):
            await shell.changed.park()


@enable_ki_protection
async def wait_free(shell: Shell, name: Hashable, operation: str | None) -> None:
    """Wait until nothing stands in the way of a start of *name*."""
    await checkpoint()
    while (obstacle := shell.engine.ledger.obstacle(name, operation, shell.now())) is not None:
        if isinstance(obstacle, TrioRun):
            await _park_with(obstacle)
        elif isinstance(obstacle, Closed) or obstacle.gave_up:
            raise refusal(obstacle, name, operation, shell.now())
        else:
            await _park_until(shell, name, obstacle.retry_at)


@enable_ki_protection
async def _park_with(run: TrioRun) -> None:
    """Sleep until *run* ends, or the map closes."""
    if run.waiters is None:
        run.waiters = ParkingLot()
    await run.waiters.park()


@enable_ki_protection
async def _park_until(shell: Shell, name: Hashable, retry_at: float) -> None:
    """Sleep until *retry_at*, or *name* is forgotten, or the map closes."""
    lot = shell.waiting_for.setdefault(name, ParkingLot())
    try:
        with trio.CancelScope(deadline=retry_at):
            await lot.park()
    finally:
        if not lot and shell.waiting_for.get(name) is lot:
            del shell.waiting_for[name]


def refuse_inside_map(shell: Shell, what: str) -> None:
    """Refuse what would wait for its caller.

    Raises:
        RuntimeError: the caller is inside a task of the same map.
    """
    if any(task.parent_nursery is shell.nursery for task in _ancestors()):
        raise RuntimeError(
            f"{what} from inside a task of the same map would wait for itself: "
            "call it from outside, or wait for the handles that are meant"
        )


def refuse_inside_run(run: TrioRun, what: str) -> None:
    """Refuse what would wait for its caller.

    Raises:
        RuntimeError: the caller is inside this *run*.
    """
    if run.task is not None and run.task in _ancestors():
        raise RuntimeError(
            f"{what} from inside task {repr_of(run.name)} would wait for itself: "
            "call it from outside"
        )


def _ancestors() -> Iterator[Task]:
    """The current task, who opened the nursery that it is in, and so on up."""
    task: Task | None = current_task()
    while task is not None:
        yield task
        nursery = task.parent_nursery
        task = None if nursery is None else nursery.parent_task
