"""The rules of executors: how each reads, and how a broken one is found out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import trio
from trio.testing import wait_all_tasks_blocked

from namedtasks._core.text import error_text, repr_of
from namedtasks.testing import _jobs
from namedtasks.testing._jobs import JobError
from namedtasks.testing._trial import Trial, broken

GRACE = 0.3
"""Seconds for an executor to react when it is cancelled, and for a job that goes on to show it.

Jobs look every 5 ms. On a machine that is so slow that this does not do, a wrong
executor may pass; a right one is never blamed.
"""
LONG = 0.5
"""Seconds that a slow job takes. What gives up on jobs earlier is no executor for us."""
SHORTLY = 0.05
"""Seconds for an executor to do in its own thread what it would do at once."""


RESULT = "a call gives back what the function returns for just these arguments"
ERROR = "a call raises what the function raises, with its type and arguments"
TWO = "two calls at once each have an end of their own"
SLOW = "a slow job is waited for, while the other tasks of the trio run go on"
CANCEL = "a cancelled call comes back when the work has really ended, not earlier"
OUTCOME = "a cancelled call lets trio.Cancelled out, or gives or raises what the function does"
UNBEGUN = "a call that was cancelled before its work began leaves no work behind"
PICKLING = "what cannot be pickled works, or makes the call raise an Exception"
AFTERWARDS = "an executor goes on to work after a call that failed or was cancelled"
EXIT = "an interpreter that has used the executor exits by itself, and in time"


async def check_results(trial: Trial) -> None:
    values = (None, 5, "é", b"\0" * 100_000, (1, [2.5], {"a": {3}}))
    for value in values:
        given = await trial.result(RESULT, _jobs.echo, value, "second")
        if given != (value, "second"):
            broken(RESULT, f"it gave {repr_of(given)} for {repr_of((value, 'second'))}")
    given = await trial.result(RESULT, _jobs.give_error, "given", 7)
    if type(given) is not JobError or given.args != ("given", 7):
        broken(RESULT, f"it gave {repr_of(given)} for JobError('given', 7), which was returned")


async def check_errors(trial: Trial) -> None:
    try:
        given = await trial.call(ERROR, _jobs.fail, "boom", 7)
    except JobError as error:
        if error.args != ("boom", 7):
            broken(ERROR, f"it raised {repr_of(error)} for JobError('boom', 7)", error)
    except Exception as error:
        broken(ERROR, f"it raised {error_text(error)} for JobError('boom', 7)", error)
    else:
        broken(ERROR, f"it gave {repr_of(given)} for JobError('boom', 7), which was raised")
    await _check_works(trial)


async def check_slow_job(trial: Trial) -> None:
    async with trial.open_nursery() as nursery:
        call = await trial.start_held(SLOW, nursery, "slow")
        with trio.move_on_after(LONG):
            await call.done.wait()
        if call.done.is_set():
            broken(SLOW, f"it {call.outcome()} before the job had ended", call.error)
        await call.end(SLOW)


async def check_two_at_once(trial: Trial) -> None:
    """Whether they really run at once is up to the executor: it may have one worker."""
    async with trial.open_nursery() as nursery:
        first = await trial.start_held(TWO, nursery, "first")
        second = trial.held("second")
        nursery.start_soon(second.run)
        await first.end(TWO)
        with trio.move_on_after(GRACE):
            await wait_all_tasks_blocked(SHORTLY)
        if second.done.is_set():
            broken(TWO, f"the second {second.outcome()} when the first ended", second.error)
        await second.end(TWO)


async def check_cancelled_while_running(trial: Trial) -> None:
    async with trial.open_nursery() as nursery:
        call = await trial.start_held(CANCEL, nursery, "cancelled")
        call.scope.cancel()
        with trio.move_on_after(GRACE):
            await call.done.wait()
        call.let_go()
        await call.come_back(CANCEL)
    if not call.had_ended:  # then the work was stopped
        await trio.sleep(GRACE)
        if call.has_ended():
            broken(CANCEL, f"it {call.outcome()} while the job ran on", call.error)
    if not call.was_cancelled and call.result != call.expected:
        broken(OUTCOME, f"it {call.outcome()}", call.error)
    await _check_works(trial)


async def check_cancelled_before(trial: Trial) -> None:
    call = trial.held("cancelled-before")
    call.let_go()  # it may begin: then it must be waited for
    call.scope.cancel()
    await call.run()
    begun, ended = call.has_begun(), call.has_ended()
    await trio.sleep(GRACE)
    if call.has_begun() != begun or call.has_ended() != ended:
        broken(UNBEGUN, f"it {call.outcome()}, and the job ran after that")


async def check_pickling(trial: Trial) -> None:
    for fn, args in ((_jobs.echo, (threading.Lock(),)), (_jobs.give_lock, ())):
        try:
            await trial.call(PICKLING, fn, *args)
        except AssertionError:
            raise
        except Exception:
            pass  # the function cannot get there, or its result back: fair enough
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | trio.Cancelled):
                raise
            broken(PICKLING, f"it raised {error_text(error)}", error)
        await _check_works(trial)


async def check_exit(importable: str, folder: str, patience: float) -> None:
    log = trio.Path(folder, "exit.log")
    path = os.pathsep.join(entry or os.curdir for entry in sys.path)
    done: subprocess.CompletedProcess[bytes] | None = None
    async with await log.open("wb") as output:  # a worker left behind would keep a pipe open
        with trio.move_on_after(patience):
            done = await trio.run_process(
                [sys.executable, "-m", "namedtasks.testing._use_executor", importable],
                env={**os.environ, "PYTHONPATH": path},
                stdout=output.fileno(),
                stderr=subprocess.STDOUT,
                check=False,
                deliver_cancel=_kill,
            )
    said = (await log.read_text(encoding="utf-8", errors="replace")).strip()
    if done is None:
        broken(EXIT, f"it still ran after {patience:g} s; it said {said!r}")
    if done.returncode != 0:
        broken(EXIT, f"it ended with status {done.returncode} and said {said!r}")


async def _check_works(trial: Trial) -> None:
    """Whether it still does what it did before."""
    given = await trial.result(AFTERWARDS, _jobs.echo, "still")
    if given != ("still",):
        broken(AFTERWARDS, f"the next call gave {repr_of(given)} for ('still',)")


async def _kill(process: trio.Process) -> None:
    process.kill()
