"""One admitted run of a name."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from namedtasks._core.errors import TaskCancelledError
from namedtasks._core.records import Record

if TYPE_CHECKING:
    from namedtasks._core.slots import Slots


class Run:
    """What the core knows of a run; each shell's own run is a subclass.

    A hand-written class: one is made for each start. All times are seconds on
    the map's clock. Only the engine writes to it.
    """

    __slots__ = (
        "deadline",
        "done",
        "failures",
        "has_slot",
        "name",
        "operation",
        "overdue",
        "reason",
        "record",
        "slots",
        "started_at",
        "stop_asked_at",
        "timeout",
    )

    def __init__(
        self, name: Hashable, operation: str | None, timeout: float, slots: Slots[Any]
    ) -> None:
        self.name: Hashable = name
        self.operation: str | None = operation
        self.timeout: float = timeout
        self.slots: Slots[Any] = slots
        """What it needs a slot of, before its body may begin."""
        self.failures: int = 0
        """How many runs failed in a row before this one."""
        self.record: Record | None = None
        """The record of those failures, in this run's care until it ends."""
        self.has_slot: bool = False
        self.started_at: float | None = None
        """When the body began; None until then."""
        self.deadline: float = math.inf
        self.stop_asked_at: float | None = None
        """When someone first cancelled it; None if nobody did."""
        self.reason: str | None = None
        self.overdue: bool = False
        self.done: bool = False

    def timed_out(self) -> bool:
        """Whether an absorbed cancellation means that the run's own deadline came first."""
        return self.stop_asked_at is None or self.deadline <= self.stop_asked_at

    def cancelled_error(self) -> TaskCancelledError:
        """What who waits for this run is told if it was cancelled: a new error each time."""
        return TaskCancelledError(self.name, self.operation, self.reason)
