"""The waits of the asyncio shell, and why a task may not wait for itself.

Each wait is a loop around its condition with no await between the last look and
the return: so the condition still holds when the caller goes on, until the
caller's next suspension.

A wait that would wait for its caller is refused at the call. Who the caller is
says a context variable, with the run that the caller is inside of. It is copied
into all that the run starts; a copy that outlives its run counts for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING

from namedtasks._asyncio.lots import Lot
from namedtasks._asyncio.run import AsyncioRun
from namedtasks._core.holds import Hold, WaitForName, waits_for_its_map, waits_for_its_run
from namedtasks._current import running_in

if TYPE_CHECKING:
    from namedtasks._asyncio.shell import Shell


async def sleep_while(
    shell: Shell, holds: Callable[[], Hold[Lot] | None], deadline: float = math.inf
) -> bool:
    """Sleep while something *holds*; whether it has let go before the *deadline*."""
    while True:
        with shell.guard:
            hold = holds()
        if hold is None:
            return True
        if shell.now() >= deadline:
            return False
        await hold.lot.park(min(hold.until, deadline))


async def wait_free(shell: Shell, name: Hashable, operation: str | None) -> None:
    """Wait until nothing stands in the way of a start of *name*."""
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
    if any(run.shell is shell for run in _runs_around()):
        raise waits_for_its_map(what)


def refuse_inside_run(run: AsyncioRun, what: str) -> None:
    """Refuse what would wait for its caller.

    Raises:
        RuntimeError: the caller is inside this *run*.
    """
    if any(one is run for one in _runs_around()):
        raise waits_for_its_run(run, what)


def _runs_around() -> Iterator[AsyncioRun]:
    """The run that the caller is inside of, the one in which that run's map was opened, ..."""
    run = running_in.get(None)
    while isinstance(run, AsyncioRun) and not run.done:
        yield run
        run = run.shell.opened_in
