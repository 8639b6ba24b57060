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

import math
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import Task, checkpoint, current_task, enable_ki_protection

from namedtasks._core.holds import (
    Hold,
    WaitForName,
    queued_behind,
    waits_for_its_map,
    waits_for_its_run,
)
from namedtasks._trio.lots import Lot
from namedtasks._trio.run import TrioRun

if TYPE_CHECKING:
    from namedtasks._trio.shell import Shell


@enable_ki_protection
async def sleep_while(shell: Shell, holds: Callable[[], Hold[Lot] | None]) -> None:
    """Sleep while something *holds*. Checkpoint."""
    await checkpoint()
    while True:
        with shell.guard:
            hold = holds()
        if hold is None:
            return
        if hold.until == math.inf:
            await hold.lot.park()
        else:
            with trio.CancelScope(deadline=hold.until):
                await hold.lot.park()


@enable_ki_protection
async def wait_free(shell: Shell, name: Hashable, operation: str | None) -> None:
    """Wait until nothing stands in the way of a start of *name*. Checkpoint."""
    wait = WaitForName(shell, name, operation)
    try:
        await sleep_while(shell, wait.hold)
    finally:
        wait.forsake()


def refuse_inside_map(shell: Shell, what: str) -> None:
    """Refuse what would wait for its caller.

    Raises:
        RuntimeError: the caller is inside a task of the same map.
    """
    if any(task.parent_nursery is shell.nursery for task in _ancestors()):
        raise waits_for_its_map(what)


def refuse_inside_run(run: TrioRun, what: str) -> None:
    """Refuse what would wait for its caller.

    Raises:
        RuntimeError: the caller is inside this *run*.
    """
    if run.worker is not None and run.worker.task in _ancestors():
        raise waits_for_its_run(run, what)


def refuse_to_wait_for_oneself(run: TrioRun) -> None:
    """Refuse a wait for the end of *run* that would wait for its caller.

    Raises:
        RuntimeError: the caller is inside this run, or inside the one that it is queued behind.
    """
    refuse_inside_run(run, "wait() of its own handle")
    before = queued_behind(run)
    if before is not None:
        refuse_inside_run(before, "wait() for what is queued behind it")


def _ancestors() -> Iterator[Task]:
    """The current task, who opened the nursery that it is in, and so on up."""
    task: Task | None = current_task()
    while task is not None:
        yield task
        nursery = task.parent_nursery
        task = None if nursery is None else nursery.parent_task
