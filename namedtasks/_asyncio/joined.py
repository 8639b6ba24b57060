"""What those have who share a run: futures that follow it, and do nothing to it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, final

from namedtasks._asyncio import waits
from namedtasks._asyncio.run import AsyncioRun


@final
class JoinedFuture(asyncio.Future[Any]):
    """Tells what becomes of a run; cancelled, it only leaves, and the run forgets it."""

    def __init__(self, run: AsyncioRun, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._run = run
        run.joined[self] = None
        self.add_done_callback(run.forget_joined)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the run's end.

        Raises:
            RuntimeError: the caller is inside this very run.
        """
        if not self.done():
            waits.refuse_inside_run(self._run, "await of its own future")
        return super().__await__()


def tell_joined(run: AsyncioRun, error: BaseException | None, value: object = None) -> None:
    """Complete the futures of the starts that joined *run*, as its Task is completed."""
    joined, run.joined = run.joined, {}
    for future in joined:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        elif isinstance(error, asyncio.CancelledError):
            future.cancel(run.reason)
        else:
            future.set_exception(error)
            future.exception()  # marks it as retrieved, as the Task's is
