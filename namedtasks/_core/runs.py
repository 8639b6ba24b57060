"""One admitted run of a name."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from namedtasks._core.errors import TaskCancelledError
from namedtasks._core.records import Record
from namedtasks._core.text import repr_of

if TYPE_CHECKING:
    from namedtasks._core.slots import Slots


class Run:
    """What the engine knows of a run.

    A hand-written class, with one `__init__` for all its subclasses: one is made
    for each start; it says who writes what. All times are seconds on the map's clock.
    """

    __slots__ = (
        "awaited_by",
        "blocker",
        "body",
        "context",
        "deadline",
        "done",
        "error",
        "failures",
        "handle",
        "has_slot",
        "is_pending",
        "name",
        "operation",
        "overdue",
        "place",
        "put_off",
        "reason",
        "record",
        "returned",
        "shell",
        "slots",
        "started_at",
        "stop_asked_at",
        "supersedes",
        "timeout",
        "value",
        "waiters",
        "worker",
    )

    def __init__(
        self,
        name: Hashable,
        operation: str | None,
        timeout: float,
        slots: Slots[Any],
        shell: Any = None,
    ) -> None:
        # What the start gives.
        self.name: Hashable = name
        self.operation: str | None = operation
        self.timeout: float = timeout
        self.slots: Slots[Any] = slots
        """What it needs a slot of, before its body may begin."""
        self.shell: Any = shell
        """The conductor of the map that it is a run of."""

        # What the engine writes. Trio's shell does a little of it in its place, for speed.
        self.failures: int = 0
        """How many runs failed in a row before this one."""
        self.record: Record | None = None
        """The record of those failures, in this run's care until it ends."""
        self.has_slot: bool = False
        self.place: int = 0
        """Its place in the line for a slot."""
        self.started_at: float | None = None
        """When the body began; None until then."""
        self.deadline: float = math.inf
        """When its timeout is over."""
        self.stop_asked_at: float | None = None
        """When someone first cancelled it; None if nobody did."""
        self.reason: str | None = None
        """Why it was cancelled, if somebody said so."""
        self.overdue: bool = False
        """Whether it did not stop for all too long."""
        self.done: bool = False
        self.put_off: Literal["replace", "queue"] | None = None
        """How it was put off; stays if it is superseded or dropped; None once it has its name."""
        self.is_pending: bool = False
        """Whether it is its name's pending run now; asks nothing of the name, as a look would.

        False, too, while a newer one has its place, until that is accepted or rolled back.
        """
        self.blocker: Run | None = None
        """Whose end this pending run waits for; None if it sits out a wait."""
        self.awaited_by: list[Any] | None = None
        """The pending runs whose blocker this is."""
        self.supersedes: Any = None
        """The pending run whose place it takes, until that is sure."""

        # What the conductor writes, and the shell.
        self.returned: bool = False
        """Whether the body gave a value."""
        self.error: BaseException | None = None
        """What the run failed with, in the end."""
        self.handle: Any = None
        """What the starter got; kept here while the map can give it out."""
        self.waiters: Any = None
        """Who waits for the end; made when somebody does."""

        # What the shell alone writes.
        self.value: object = None
        """What the body returned."""
        self.body: Any = None
        """What there is to run, until it begins."""
        self.context: Any = None
        """The context to run it in, where that is not the starter's of that moment."""
        self.worker: Any = None
        """What runs it, while something does."""

    def timed_out(self) -> bool:
        """Whether an absorbed cancellation means that the run's own deadline came first."""
        return self.stop_asked_at is None or self.deadline <= self.stop_asked_at

    def cancelled_error(self) -> TaskCancelledError:
        """What who waits for this run is told if it was cancelled: a new error each time."""
        return TaskCancelledError(self.name, self.operation, self.reason)


class Lot(Protocol):
    """Where those sleep who wait for one thing; each shell has its own kind."""

    def unpark_all(self) -> object:
        """Wake all who sleep here now."""
        ...

    def __len__(self) -> int: ...


LotT = TypeVar("LotT", bound=Lot)


class LiveRun(Run, Generic[LotT]):
    """What all shells have of a run; each shell's own run is a subclass."""

    __slots__ = ()

    waiters: LotT | None

    def is_asked_to_stop(self) -> bool:
        """Whether it was cancelled or its deadline has passed. Callable from any thread."""
        if self.stop_asked_at is not None:
            return True
        now: Callable[[], float] = self.shell.now
        return self.timeout != math.inf and now() >= self.deadline

    def check_cancelled(self) -> None:
        """Raise in a body that should stop. Callable from any thread.

        Raises:
            TaskCancelledError: it should.
        """
        if self.is_asked_to_stop():
            raise self.cancelled_error()

    @property
    def overdue_after(self) -> float:
        """Seconds after it should have stopped when it is overdue."""
        seconds: float = self.shell.overdue_after
        return seconds

    def note_lost_worker(self) -> None:
        """Note that the pool has asked its processes to terminate. Only where verbs are allowed."""
        self.shell.note_lost_worker(self)

    def heeded(self, error: BaseException | None) -> bool:
        """Whether *error* is `check_cancelled`'s, let out by a body that should stop."""
        return (
            type(error) is TaskCancelledError
            and error.name is self.name
            and self.is_asked_to_stop()
        )

    def __repr__(self) -> str:
        return f"{repr_of(self.name)} {'done' if self.done else 'running'}"
