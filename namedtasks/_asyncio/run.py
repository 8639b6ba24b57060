"""One run in the asyncio shell."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, final

from namedtasks._asyncio.lots import Lot
from namedtasks._core.callables import Body, close_unbegun
from namedtasks._core.runs import LiveRun, Run
from namedtasks._core.slots import Slots
from namedtasks._core.text import task_text
from namedtasks._log import complain

if TYPE_CHECKING:
    from namedtasks._asyncio.shell import Shell
    from namedtasks._pools import PoolJob


@final
class AsyncioRun(LiveRun[Lot]):
    """A run with what asyncio needs to run it."""

    __slots__ = (
        "deadline_timer",
        "deadline_was_first",
        "driver",
        "is_elsewhere",
        "job",
        "joined",
        "raised",
        "task",
        "turn",
    )

    shell: Shell
    body: Body | None
    """What to await; made when the run is admitted."""

    def __init__(
        self,
        shell: Shell,
        name: Hashable,
        operation: str | None,
        timeout: float,
        slots: Slots[AsyncioRun],
    ) -> None:
        super().__init__(name, operation, timeout, slots, shell)
        self.task: asyncio.Task[Any] | None = None
        """The Task, from when it is known until it is done."""
        self.driver: Body | None = None
        """The coroutine of the Task, until the body begins."""
        self.turn: asyncio.Future[None] | None = None
        """What the Task awaits while it is pending, or waits for a slot."""
        self.joined: dict[asyncio.Future[Any], None] = {}
        """The futures of the starts that joined the run; done in the Task's last step."""
        self.deadline_timer: asyncio.TimerHandle | None = None
        self.deadline_was_first: bool | None = None
        """Whether the deadline came before anybody cancelled the run; None until it came."""
        self.is_elsewhere: bool = False
        """Whether a thread or a process works on it, which no `Task.cancel` reaches."""
        self.raised: BaseException | None = None
        """The executor's error, where the Task raises another one in its place."""
        self.job: PoolJob | None = None
        """What a pool, which may take it back, knows of it."""

    def take_body(self) -> Body:
        """Give the body away, to be awaited."""
        body, self.body = self.body, None
        assert body is not None
        return body

    def close_body(self) -> None:
        """Close a body that never began."""
        body, self.body = self.body, None
        self._close(body)

    def close_driver(self) -> None:
        """Close the coroutine that was to be the Task's; the Task is done.

        A task factory may give the Task another coroutine, which never awaits ours.
        """
        driver, self.driver = self.driver, None
        self._close(driver)

    def _close(self, coroutine: Body | None) -> None:
        close_unbegun(coroutine, lambda: task_text(self.name, self.operation), complain)

    def forget_joined(self, future: asyncio.Future[Any]) -> None:
        """Let go of the *future* of who joined, and has left or been told."""
        self.joined.pop(future, None)

    def disarm(self) -> None:
        """Take the deadline's timer back."""
        if self.deadline_timer is not None:
            self.deadline_timer.cancel()
            self.deadline_timer = None

    def is_asked_to_stop(self) -> bool:
        """Whether it was cancelled or its deadline has passed. Callable from any thread."""
        # In a thread, the time of a loop that sleeps may be an old one (uvloop's).
        return self.deadline_was_first is not None or super().is_asked_to_stop()

    def timed_out(self) -> bool:
        """Whether an absorbed cancellation means that the run's own deadline came first."""
        if self.deadline_was_first is not None:
            return self.deadline_was_first
        return super().timed_out()

    def is_cancel_requested(self) -> bool:
        """Whether somebody has cancelled it, be it with the map's means or with asyncio's."""
        if self.stop_asked_at is not None:
            return True
        return self.task is not None and self.task.cancelling() > 0


def is_ending(run: Run) -> bool:
    """Return whether *run* has ended, and its Task is not done yet."""
    return run.done and isinstance(run, AsyncioRun) and run.task is not None
