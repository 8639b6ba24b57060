"""The waits of the thread shell, and why a task may not wait for itself.

The step that finds a reason to sleep, under the guard, also registers the
sleeper. So what ends the wait can not come in between.

If there is no thread for the map's timer, who waits does its work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

from namedtasks._core.holds import Hold, WaitForName, waits_for_its_map, waits_for_its_run
from namedtasks._threads import turnstile
from namedtasks._threads.clock import MonotonicClock
from namedtasks._threads.interrupts import uninterrupted
from namedtasks._threads.locking import REENTERED, Lot, Sleeper
from namedtasks._threads.run import ThreadRun, runs_here

if TYPE_CHECKING:
    from namedtasks._threads.shell import Shell


_REAL_TIME = MonotonicClock()
"""The time in which the timeouts of futures count, whatever the map's own clock."""

_LONGEST_STAND_IN = 1.0
"""Seconds after which who waits for a future looks again whether something is due earlier."""


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
                until = min(hold.until, deadline, shell.alarm.due_unseen())
                sleeper = hold.lot.enter()
            try:
                _sleep(shell, sleeper, until)
            finally:
                with shell.guard:
                    hold.lot.leave(sleeper)
            shell.alarm.stand_in()


def _sleep(shell: Shell, sleeper: Sleeper, until: float) -> None:
    uninterrupted.sleep(lambda: shell.clock.wait(sleeper.lock, until))


def wait_free(shell: Shell, name: Hashable, operation: str | None, deadline: float) -> bool:
    """Wait until nothing stands in the way of a start of *name*."""
    wait = WaitForName(shell, name, operation)
    with uninterrupted:
        try:
            return sleep_while(shell, wait.hold, deadline)
        finally:
            with shell.guard:
                wait.forsake()


def stand_in_for_the_alarm(
    shell: Shell, future: Future[Any], timeout: float | None
) -> float | None:
    """Do what is due while *future* is not done, if there is no thread that does.

    Returns:
        What is left of the *timeout* (seconds).
    """
    end = math.inf if timeout is None else _REAL_TIME.now() + timeout
    while shell.alarm.is_missing and not future.done():
        left = end - _REAL_TIME.now()
        if left <= 0:
            break
        with shell.guard:
            due_in = shell.alarm.due_unseen() - shell.now()
        wait((future,), min(left, max(due_in, 0.0), _LONGEST_STAND_IN))
        shell.alarm.stand_in()
    return None if timeout is None else max(end - _REAL_TIME.now(), 0.0)


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


def refuse_block(shell: Shell) -> None:
    """Refuse a block whose end would wait for its caller.

    Raises:
        RuntimeError: the caller is inside a task of the same map, of a call to it, or of a
            callback or an instrument that it is just calling.
    """
    refuse_inside_map(shell, "the end of its block")
    if shell.tells_here():
        raise RuntimeError(
            "the end of its block from inside a callback of a future, or an instrument, of the "
            "same map would wait for itself: call it from outside"
        )


def refuse_inside_run(run: ThreadRun, what: str) -> None:
    """Refuse what would wait for its caller.

    Raises:
        RuntimeError: the caller is inside this *run*, or keeps it from its beginning.
    """
    if run.started_at is None and turnstile.has_deferred(run.shell):
        raise RuntimeError(REENTERED)
    if any(here is run for here in runs_here()):
        raise waits_for_its_run(run, what)
