"""One run in the thread shell, and who the calling thread runs for."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, final

from namedtasks._core.callables import plain_result
from namedtasks._core.runs import LiveRun
from namedtasks._core.slots import Slots
from namedtasks._current import running_in
from namedtasks._log import complain
from namedtasks._threads.locking import Lot

if TYPE_CHECKING:
    from namedtasks._pools import PoolJob, PoolOrFactory
    from namedtasks._threads.future import TaskFuture
    from namedtasks._threads.shell import Shell

VERB, CURE = "submit()", "use a TaskMap or namedtasks.asyncio"
"""The method and the cure that the error for an async function names."""


@final
class ThreadRun(LiveRun[Lot]):
    """A run with what a thread, or somebody's pool, needs to run it."""

    __slots__ = (
        "args",
        "fn",
        "futures",
        "handed_over",
        "is_taken_over",
        "job",
        "outer",
        "pool",
    )

    shell: Shell

    def __init__(
        self,
        shell: Shell,
        name: Hashable,
        operation: str | None,
        timeout: float,
        slots: Slots[ThreadRun],
        fn: Callable[..., object],
        args: tuple[object, ...],
        pool: PoolOrFactory | None,
    ) -> None:
        super().__init__(name, operation, timeout, slots, shell)
        self.fn: Callable[..., object] | None = fn
        self.args: tuple[object, ...] = args
        self.context: contextvars.Context | None = contextvars.copy_context()
        self.pool: PoolOrFactory | None = pool
        """Whose threads or processes run it; None for the map's own threads."""
        self.futures: list[TaskFuture[Any]] = []
        """What the starter has first, then those of who joined; let go of when they are told."""
        self.job: PoolJob | None = None
        self.handed_over: bool = False
        """Whether a pool has it that does not tell when a body begins: it may have."""
        self.is_taken_over: bool = False
        """Whether somebody is about to end it, begun or not: nobody may cancel it as unbegun."""
        self.outer: ThreadRun | None = None
        """The run inside of which this thread runs this one: with a pool that runs it in place."""

    def call(self) -> object:
        """Call the function, in its context."""
        fn, args, context = self.fn, self.args, self.context
        assert fn is not None
        assert context is not None
        self.let_go()
        try:
            return context.run(_call, self, fn, args)
        finally:
            del self, fn, args, context  # an error's traceback leads to this frame

    def enter_thread(self) -> None:
        """The calling thread works for this run from here on; `leave_thread` follows."""
        self.outer, _here.run = _here.run, self

    def leave_thread(self) -> None:
        """The calling thread works for what it worked for before."""
        _here.run, self.outer = self.outer, None

    def let_go(self) -> None:
        """Keep nothing of the user's that the run has no use for any more."""
        self.fn = self.context = None
        self.args = ()


def _call(run: ThreadRun, fn: Callable[..., object], args: tuple[object, ...]) -> object:
    running_in.set(run)
    try:
        return plain_result(VERB, fn, fn(*args), CURE, complain)
    finally:
        del run, fn, args  # as above


class _Here(threading.local):
    run: ThreadRun | None = None


_here = _Here()


def runs_here() -> Iterator[ThreadRun]:
    """The runs that the calling thread works for, and that have not ended, innermost first."""
    run = _here.run
    while run is not None:
        if not run.done:
            yield run
        run = run.outer


OUR_FRAMES = frozenset({ThreadRun.call.__code__, _call.__code__})
"""What stands between who runs a run and the user's own function."""
