"""Tells whether something is an executor that a task map can rely on."""

from __future__ import annotations

import tempfile

from namedtasks._core import checks
from namedtasks.testing._executor_rules import (
    check_cancelled_before,
    check_cancelled_while_running,
    check_errors,
    check_exit,
    check_pickling,
    check_results,
    check_slow_job,
    check_two_at_once,
)
from namedtasks.testing._importable import checked, importable_of
from namedtasks.testing._trial import Executor, Trial


async def check_executor(
    executor: Executor, *, importable: str | None = None, patience: float = 30.0
) -> None:
    """Check that *executor* does what a task map relies on. Checkpoint.

    For the tests of whoever implements an executor. It has jobs run that write
    down their start and end in files, so the executor's machine must share the
    temporary folder with this one. Run it on trio's usual clock: it waits for
    threads and processes.

    An executor that hangs and cannot be cancelled hangs the check, too: let
    your test runner have a limit.

    Args:
        executor: What you would give to `namedtasks.TaskMap.start_thread_soon`.
        importable: Where a new interpreter finds an executor of this kind, as
            ``"package.module:attribute"``: there it is used once, and the
            interpreter must exit. By default it is the executor's own place. One
            that has no such place, such as a closure, a method or a partial,
            needs to be told: write a function at the top level of a module of
            your tests that calls it.
        patience: Seconds until something that should come is given up.

    Raises:
        AssertionError: the executor breaks a rule; the text says which and how.
        TypeError: *executor* cannot be called.
        ValueError: it is not found at *importable*, or at its own place.

    Example:
        >>> import trio
        >>> trio.run(check_executor, trio.to_thread.run_sync)  # raises nothing: all is well

    .. versionadded:: 0.1
    """
    checks.function("executor", executor)
    checks.number("patience", patience)
    found_at = importable_of(executor) if importable is None else checked(importable)
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(executor, folder, patience)
        await check_results(trial)
        await check_errors(trial)
        await check_slow_job(trial)
        await check_two_at_once(trial)
        await check_cancelled_while_running(trial)
        await check_cancelled_before(trial)
        await check_pickling(trial)
        await check_exit(found_at, folder, patience)
