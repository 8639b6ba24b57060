"""What leans on more of trio than it promises: to be looked at with each new trio.

It is checked with trio 0.31, the oldest that we allow, and with the one that is
pinned (`make matrix`). There are three things, and all are for the workers:

- ``Task._cancel_status``: the innermost cancel scope that a task is in. There is
  no public name for it. `workers` reads it itself, at each end of a body: a call
  would cost each run more. What it holds is only compared, by identity.
- `PLAINLY`: a task may be rescheduled with None in place of an outcome.
- `trap` and `woken`: what a task yields to sleep may be yielded again.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator
from typing import Any

from trio.lowlevel import Abort, wait_task_rescheduled

PLAINLY: Any = None
"""What a worker is rescheduled with: what trio itself begins each task with. No outcome is made
that nobody looks at."""


def trap(abort: Callable[[Any], Abort]) -> object:
    """What trio is told by `wait_task_rescheduled`: it can be told so again and again.

    To make it anew each time costs more than the whole rest of parking.
    """
    waiting: Any = wait_task_rescheduled(abort)  # noqa: ASYNC105
    told: object = waiting.send(None)
    waiting.close()
    return told


@types.coroutine
def woken(trap: object) -> Generator[object, None, None]:
    """Sleep until rescheduled, which is always done with `PLAINLY`."""
    yield trap
