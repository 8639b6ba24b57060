"""Waits for what is left of a pool that has lost a worker, and then tells of its jobs' ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from threading import Lock, Thread

from namedtasks._daemons import make_daemon
from namedtasks._log import complain

_lock = Lock()
_held: dict[int, list[Callable[[], object]]] = {}
"""What tells of the ends of jobs, by the id of their broken pool; it keeps the pool alive."""
_awaited: set[int] = set()
"""The broken pools that a thread waits for."""


def hold(pool: Executor, manager: object, tell: Callable[[], object]) -> None:
    """Have *tell* called, which tells of a job's end, when nothing runs in *pool* any more.

    This is called in the pool's own manager thread, which cannot wait for
    itself. If no thread can be started for it, the names stay taken, and the
    future logs why.
    """
    with _lock:
        _held.setdefault(id(pool), []).append(tell)
        if id(pool) in _awaited:
            return
        _awaited.add(id(pool))
    try:
        in_a_thread(_await_end, pool, manager)
    except BaseException:
        with _lock:
            _awaited.discard(id(pool))  # the next one tries again, for all
        raise


def _await_end(pool: Executor, manager: object) -> None:
    if isinstance(manager, Thread):
        # All that shutdown(wait=True) waits for, even if there was one with wait=False. And
        # the pool's factory may well be calling shutdown(), and loky minds two at a time.
        manager.join()
    else:
        try:
            pool.shutdown(wait=True)
        except BaseException as error:
            complain("shutting a broken pool down failed", error)
    with _lock:
        _awaited.discard(id(pool))
        over = _held.pop(id(pool))
    for tell in over:
        tell()


def in_a_thread(fn: Callable[..., object], *args: object) -> None:
    """Have ``fn(*args)`` called in a thread that never keeps the interpreter from its exit."""
    make_daemon("namedtasks: a pool's jobs", fn, *args).start()
