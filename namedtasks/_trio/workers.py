"""The trio tasks that bodies run in, and that are used again.

Theory of operation. To spawn a trio task and to make a cancel scope for it
costs more than all that a map does for a run. So a task whose run is over does
not exit: it parks, inside of its scope, and the next run is given to it. What
that run shall not notice:

- It runs in a copy of its starter's context: each run brings its own, and the
  task steps in it from its next step on.
- It is cancelled by its worker's scope. A scope that was cancelled, or whose
  deadline has passed, is of no more use, and neither is its worker.
- Its name is its task's name.
- Whatever came out of a body but a value or an `Exception` takes the worker
  with it, and so does a body that left a cancel scope open.

What differs from a task of its own: the task's identity is that of other runs,
before and after; instruments of trio's see no spawn and no exit for each run;
and idle workers are among ``nursery.child_tasks``.

Idle workers are bounded, and leave when they have been idle for long while
others work. Those that are cancelled while idle just leave. Without reuse,
each worker runs one body.

The loop around the bodies is not protected from Ctrl-C, as the bodies are not.
What comes out of it while the worker has a run is that run's; `worker.run` says
so, and is changed by protected functions only.
"""

from __future__ import annotations

import math
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, final

import trio
from trio.lowlevel import (
    Abort,
    current_task,
    disable_ki_protection,
    enable_ki_protection,
    reschedule,
)

from namedtasks._core.events import TaskStarted
from namedtasks._core.frames import without_our_frames
from namedtasks._core.text import name_text
from namedtasks._current import running_in
from namedtasks._trio.inside import PLAINLY, trap, woken
from namedtasks._trio.run import TrioRun

if TYPE_CHECKING:
    from namedtasks._trio.shell import Shell

_MOST_IDLE = 1_000
"""Idle workers that are kept: some 2.5 MB at most."""

_IDLE_SECONDS = 10.0
"""How long after its last run began the one that has been idle for longest is kept while others
work."""


@final
class Worker:
    """A trio task for one run after the other."""

    __slots__ = ("cancel_status", "is_idle", "last_began", "run", "scope", "task", "trap")

    task: Any
    """A `trio.lowlevel.Task`, from its first step on."""

    def __init__(self, run: TrioRun) -> None:
        self.run: TrioRun | None = run
        """What it runs, from when it is given that until its end was noted."""
        self.scope: trio.CancelScope = trio.CancelScope()
        self.task = None
        self.cancel_status: object = None
        """The innermost scope of its task between bodies: if another one is, then a body has
        left one open. See `inside`."""
        self.trap: object = None
        """What to tell trio when idle, see `inside.trap`."""
        self.is_idle: bool = False
        self.last_began: float = 0.0
        """When its last run began: to ask when that ended would be a look at the clock."""

    def leave(self, _: Any = None) -> Abort:
        """Leave, if it is idle: it was cancelled, or is not needed."""
        if self.is_idle:
            self.is_idle = False
            reschedule(self.task, PLAINLY)
        return Abort.FAILED  # which only says that it is not for trio to wake us


@final
class Workers:
    """The workers of one map."""

    __slots__ = ("_idle", "_no_context", "_nursery", "_shell", "reuse")

    def __init__(self, shell: Shell, nursery: trio.Nursery, *, reuse: bool) -> None:
        self._shell = shell
        self._nursery = nursery
        self._no_context = Context()
        self._idle: list[Worker] = []
        """Those who have been idle for longest come first; some may have left."""
        self.reuse: bool = reuse

    @enable_ki_protection
    def begin_soon(self, run: TrioRun, context: Context | None = None) -> None:
        """Have the body of *run* begin, in *context* or in a copy of the caller's."""
        name = run.name if type(run.name) is str else name_text(run.name)
        idle = self._idle
        while idle:
            worker = idle.pop()
            if worker.is_idle:
                worker.is_idle = False
                worker.run = run
                run.worker = worker
                task = worker.task
                task.name = name
                task.context = copy_context() if context is None else context
                reschedule(task, PLAINLY)
                break
        else:
            worker = run.worker = Worker(run)
            if context is None:
                self._nursery.start_soon(self._work, worker, name=name)
            else:
                context.run(partial(self._nursery.start_soon, name=name), self._work, worker)
        if run.stop_asked_at is not None:
            worker.scope.cancel(run.reason)

    @enable_ki_protection
    def stop(self) -> None:
        """Have the idle workers leave, and nobody become one."""
        self.reuse = False
        idle, self._idle = self._idle, []
        for worker in idle:
            worker.leave()

    @enable_ki_protection
    async def _work(self, worker: Worker) -> None:
        error: BaseException | None = None
        try:
            with worker.scope:
                worker.task = current_task()
                worker.cancel_status = worker.task._cancel_status  # noqa: SLF001 - see `inside`
                await self._run_bodies(worker)
        except BaseException as caught:
            error = without_our_frames(caught, _OUR_FRAMES)
        worker.is_idle = False
        run, worker.run = worker.run, None
        try:
            if run is not None:
                self._shell.finish(run, error)
            elif error is not None:
                raise error
        finally:
            del error, run  # no cycle through the error's traceback

    @disable_ki_protection
    async def _run_bodies(self, worker: Worker) -> None:
        shell = self._shell
        now = shell.now
        dispatch = shell.engine.dispatch
        while True:
            if worker.is_idle:
                if worker.trap is None:
                    worker.trap = trap(worker.leave)
                await woken(worker.trap)
            run = worker.run
            if run is None:
                return
            running_in.set(run)
            if (
                run.timeout != math.inf
                or run.stop_asked_at is not None
                or TaskStarted in dispatch.listeners
            ):
                shell.begin(run, worker.scope)
            else:
                run.started_at = now()
            body, run.body = run.body, None
            assert body is not None
            try:
                run.value = await body
            except Exception as error:
                goes_on = self._end_failed(worker, run, error)
            else:
                goes_on = self._end_returned(worker, run)
            if not goes_on:
                return
            del body, run

    @enable_ki_protection
    def _end_returned(self, worker: Worker, run: TrioRun) -> bool:
        """End the run, which has its value, unless something is not as it should be.

        Returns:
            Whether *worker* goes on.
        """
        if worker.task._cancel_status is not worker.cancel_status:  # noqa: SLF001
            return False  # and leaving our scope raises
        worker.run = None
        self._shell.end_returned(run)
        return self._become_idle(worker, run)

    @enable_ki_protection
    def _end_failed(self, worker: Worker, run: TrioRun, error: Exception) -> bool:
        """The same for a run that has failed; raises the error where that is for `_work` to do."""
        if worker.task._cancel_status is not worker.cancel_status:  # noqa: SLF001
            raise error
        worker.run = None
        self._shell.end_failed(run, without_our_frames(error, _OUR_FRAMES))
        return self._become_idle(worker, run)

    def _become_idle(self, worker: Worker, run: TrioRun) -> bool:
        """Put *worker*, whose *run* is over, among the idle ones, if that can be."""
        run.worker = None
        idle = self._idle
        if not self.reuse or len(idle) >= _MOST_IDLE or self._shell.block_done:
            return False
        if run.stop_asked_at is not None or (
            run.timeout != math.inf and not _take_back_deadline(worker.scope)
        ):
            return False
        began = run.started_at
        assert began is not None
        worker.last_began = began
        worker.is_idle = True
        worker.task.context = self._no_context  # the run's leads to the run
        idle.append(worker)
        if idle[0].last_began < began - _IDLE_SECONDS:
            idle.pop(0).leave()
        return True


_OUR_FRAMES = frozenset(
    code.__code__
    for code in (Workers._run_bodies, Workers._end_failed)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
)
"""What stands between who catches a body's error and the body."""


def _take_back_deadline(scope: trio.CancelScope) -> bool:
    """Whether the deadline of *scope* had not passed."""
    if scope.cancel_called:
        return False
    scope.deadline = math.inf
    return True
