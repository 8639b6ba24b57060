"""The waits of the thread shell, and why a task may not wait for itself.

The step that finds a reason to sleep, under the guard, also registers the
sleeper. So what ends the wait can not come in between.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from namedtasks._core.holds import Hold, waits_for_its_map, waits_for_its_run
from namedtasks._threads import turnstile
from namedtasks._threads.interrupts import uninterrupted
from namedtasks._threads.locking import REENTERED, Lot, Sleeper
from namedtasks._threads.run import ThreadRun, runs_here

if TYPE_CHECKING:
    from namedtasks._threads.shell import Shell


def sleep_while(shell: Shell, holds: Callable[[], Hold[Lot] | None], deadline: float) -> bool:
    """Sleep while something *holds*; whether it has let go before the *deadline*."""
    with uninterrupted:
        while True:
            with shell.guard:
                hold = holds()
                if hold is None:
                    return True
                if shell.now() >= deadline:
                    return False
                sleeper = hold.lot.enter()
            try:
                _sleep(shell, sleeper, min(hold.until, deadline))
            finally:
                with shell.guard:
                    hold.lot.leave(sleeper)


def _sleep(shell: Shell, sleeper: Sleeper, until: float) -> None:
    uninterrupted.sleep(lambda: shell.clock.wait(sleeper.lock, until))


def wait_free(shell: Shell, name: Hashable, operation: str | None, deadline: float) -> bool:
    """Wait until nothing stands in the way of a start of *name*."""
    lots: set[Lot] = set()

    def holds() -> Hold[Lot] | None:
        hold = shell.hold_free(name, operation)
        if hold is not None:
            lots.add(hold.lot)
        return hold

    with uninterrupted:
        try:
            return sleep_while(shell, holds, deadline)
        finally:
            with shell.guard:
                for lot in lots:
                    shell.forsake(name, lot)


def refuse_reentry(shell: Shell) -> None:
    """Refuse what would wait for what its own thread is just about to do.

    Raises:
        RuntimeError: a signal handler, or the like, has come in between.
    """
    if shell.is_mine() or turnstile.delays(shell):
        raise RuntimeError(REENTERED)


def refuse_inside_map(shell: Shell, what: str) -> None:
    """Refuse what would wait for its caller.

    Raises:
        RuntimeError: the caller is inside a task of the same map, or of a call to it.
    """
    refuse_reentry(shell)
    if any(run.shell is shell for run in runs_here()):
        raise waits_for_its_map(what)


def refuse_inside_run(run: ThreadRun, what: str) -> None:
    """Refuse what would wait for its caller.

    Raises:
        RuntimeError: the caller is inside this *run*, or keeps it from its beginning.
    """
    if run.started_at is None and turnstile.has_put_off(run.shell):
        raise RuntimeError(REENTERED)
    if any(here is run for here in runs_here()):
        raise waits_for_its_run(run, what)
