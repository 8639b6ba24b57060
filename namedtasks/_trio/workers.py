"""The trio tasks that bodies run in, and that are used again.

Spawning a trio task and making a cancel scope for it costs more than all else that a map does
for a run. So a task whose run has ended does not exit: it parks inside its scope, and gets the
next run. The next run must not notice this:

- It runs in a copy of its starter's context. Each run has its own, and the task uses it from
  its next step on.
- The scope of its worker cancels it. After a scope was cancelled or has passed its deadline, its
  worker is not used again.
- Its name is the name of the task.
- A worker ends with its run if the body raised an error that is not an `Exception`, or left a
  cancel scope open.

There are three differences from a separate task for each run. Several runs have one task, one
after the other. Trio's instruments see no spawn and no exit for each run. Idle workers are among
``nursery.child_tasks``. The number of idle workers is limited, and they exit when they have been
idle for long while others work. Without reuse, each worker runs one body.

The loop around the bodies is not protected from Ctrl-C, because the bodies are not. An error that
leaves the loop while the worker has a run belongs to that run. `Worker.run` holds the run, and
only protected functions change it.

This module is the only one that relies on details of trio that trio does not promise. It is
tested with trio 0.31, the oldest that we allow, and with the pinned one (``make matrix``):

- ``Task._cancel_status``, the innermost cancel scope that a task is in. It is only compared,
  by identity.
- A task may be rescheduled with None in place of an outcome: trio begins each task so.
- The object that a task yields to sleep (`_sleep_request`) may be yielded again.
"""

from __future__ import annotations

import math
import types
from collections.abc import Generator
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol, final

import trio
from trio.lowlevel import Abort, disable_ki_protection, enable_ki_protection, reschedule

from namedtasks._base import Backend
from namedtasks._context import running_in
from namedtasks._decisions import NO_EFFECTS, Effects
from namedtasks._scheduler import Scheduler
from namedtasks._state import SUCCEEDED
from namedtasks._validation import call_body, remove_tb_frames, safe_repr

_MOST_IDLE = 1_000
"""The largest number of idle workers: they use about 2.5 MB."""

_IDLE_SECONDS = 10.0
"""The seconds after which a worker that has been idle for longest exits while others work; they
count from the beginning of its last run."""

_NO_OUTCOME: Any = None


class Host(Backend[Any], Protocol):
    """The part of the backend that its workers use."""

    def begun(self, run: Any, scope: trio.CancelScope) -> None: ...
    def carry_out(self, effects: Effects[Any]) -> None: ...
    def fail(self, run: Any, error: BaseException) -> Effects[Any]: ...
    def end_escaped(self, run: Any, error: BaseException | None) -> None: ...


@final
class Worker:
    """A trio task for many runs, one after the other."""

    __slots__ = ("cancel_status", "is_idle", "last_began", "run", "scope", "task")

    task: Any
    """A `trio.lowlevel.Task`, from its first step on."""
    cancel_status: object
    """The innermost scope of its task between bodies. If another scope is the innermost after a
    body, that body has left a scope open."""
    last_began: float
    """The time at which its last run began; reading the clock at the end would cost more."""

    def __init__(self, run: Any) -> None:
        self.run: Any = run
        """The run, from its assignment until its end is noted; else None."""
        self.scope: trio.CancelScope = trio.CancelScope()
        self.task = None
        self.is_idle: bool = False

    def leave(self, _: Any = None) -> Abort:
        """Let the worker exit if it is idle, because it was cancelled or is not needed."""
        if self.is_idle:
            self.is_idle = False
            reschedule(self.task, _NO_OUTCOME)
        return Abort.FAILED  # so trio does not wake the task itself


@final
class Workers:
    """The workers of one map."""

    __slots__ = ("_host", "_idle", "_no_context", "_nursery", "_reuse")

    def __init__(self, host: Host, nursery: trio.Nursery, *, reuse: bool) -> None:
        self._host = host
        self._nursery = nursery
        self._no_context = Context()
        self._idle: list[Worker] = []
        """The worker that has been idle for longest is the first; some may have exited."""
        self._reuse: bool = reuse

    def begin_soon(self, run: Any, context: Context | None = None) -> None:
        """Let the body of *run* begin, in *context* or in a copy of the caller's."""
        name = run.name if isinstance(run.name, str) else safe_repr(run.name)
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
                reschedule(task, _NO_OUTCOME)
                return
        worker = Worker(run)
        start_soon: Any = partial(self._nursery.start_soon, self._work, worker, name=name)
        start_soon() if context is None else context.run(start_soon)
        run.worker = worker

    @enable_ki_protection
    def stop(self) -> None:
        """Let the idle workers exit, and let no worker become idle any more."""
        self._reuse = False
        idle, self._idle = self._idle, []
        for worker in idle:
            worker.leave()

    @enable_ki_protection
    async def _work(self, worker: Worker) -> None:
        error: BaseException | None = None
        try:
            with worker.scope:
                worker.task = trio.lowlevel.current_task()
                worker.cancel_status = worker.task._cancel_status  # noqa: SLF001
                await self._run_bodies(worker)
        except BaseException as caught:
            error = remove_tb_frames(caught, _OUR_FRAMES)
        worker.is_idle = False
        run, worker.run = worker.run, None
        try:
            if run is not None:
                self._host.end_escaped(run, error)
            elif error is not None:
                raise error
        finally:
            del error, run  # no cycle through the error's traceback

    @disable_ki_protection
    @types.coroutine
    def _run_bodies(self, worker: Worker) -> Generator[Any, Any, None]:
        # A generator can yield the request to sleep itself. A coroutine would have to await a
        # function for that, for each run.
        begin, now = self._host.scheduler.begin, self._host.now
        request: object = None
        run = worker.run
        while run is not None:
            running_in.set(run)
            if begin(run, now()):
                self._host.begun(run, worker.scope)
            body, run.body = run.body, None
            try:
                if type(body) is not types.CoroutineType:  # of a compiled function, for example
                    body = body.__await__()
                run.value = yield from body  # pyright: ignore[reportGeneralTypeIssues]
            except Exception as error:
                is_idle = self._end(worker, run, error)
            else:
                is_idle = self._end(worker, run)
            if not is_idle:
                return
            del body, run
            if request is None:
                request = _sleep_request(worker)
            yield request
            run = worker.run

    @enable_ki_protection
    def _end(self, worker: Worker, run: Any, error: Exception | None = None) -> bool:
        """End *run*, whose body has returned a value or raised *error*.

        If the body left a cancel scope open, the run does not end here. Its worker ends, because
        leaving the scope around it raises an error.

        Returns:
            True if *worker* is idle now, False if it must exit.
        """
        if worker.task._cancel_status is not worker.cancel_status:  # noqa: SLF001
            if error is not None:
                raise error
            return False
        worker.run = run.worker = None
        host = self._host
        began = run.started_at  # read now, because an instrument may begin another attempt
        if error is None:
            effects = host.scheduler.finish(run, SUCCEEDED, host.now)
            host.waits.note_end(run)
            run.handle = run.source = None
        else:
            # If it is cancelled, but not by its own scope, an enclosing scope was cancelled.
            if run.retry and not worker.scope.cancel_called:
                run.retry = trio.current_effective_deadline() != -math.inf
            effects = host.fail(run, remove_tb_frames(error, _OUR_FRAMES))
        scheduler = host.scheduler
        is_plain = effects is NO_EFFECTS and not scheduler.timers.changed
        if not is_plain or scheduler.events.queued or host.ends_when_idle:
            host.carry_out(effects)
        if not self._reuse or run.cancelled_at is not None:
            return False
        if run.timeout != math.inf:
            if worker.scope.cancel_called:
                return False
            worker.scope.deadline = math.inf
        worker.last_began = began
        worker.is_idle = True
        worker.task.context = self._no_context  # the run's context refers to the run
        idle = self._idle
        idle.append(worker)
        if idle[0].last_began < began - _IDLE_SECONDS or len(idle) > _MOST_IDLE:
            idle.pop(0).leave()
        return True


# `_run_bodies` calls it directly, and is not protected.
enable_ki_protection(Scheduler[Any].begin)


def _sleep_request(worker: Worker) -> object:
    """Return the object that a task yields to sleep until it is rescheduled."""
    waiting: Any = trio.lowlevel.wait_task_rescheduled(worker.leave)  # noqa: ASYNC105
    request: object = waiting.send(None)
    waiting.close()
    return request


_OURS = (Workers._run_bodies, Workers._end)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
_OUR_FRAMES = frozenset(function.__code__ for function in (*_OURS, call_body))
"""The frames between the place where a body's error is caught and the body."""
