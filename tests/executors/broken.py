"""Executors that break one rule of `check_executor` each."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import trio

from namedtasks.testing import _check_executor, _jobs

Fn = Callable[..., Any]


class RealError(BaseException):
    """No `Exception`."""


async def in_thread(fn: Fn, *args: object) -> Any:
    """A right one, that the others begin with."""
    return await trio.to_thread.run_sync(fn, *args)


async def gives_text(fn: Fn, *args: object) -> Any:
    return str(await in_thread(fn, *args))


async def turns_arguments(fn: Fn, *args: object) -> Any:
    return await in_thread(fn, *reversed(args))


async def raises_what_is_returned(fn: Fn, *args: object) -> Any:
    result = await in_thread(fn, *args)
    if isinstance(result, Exception):
        raise result
    return result


async def gives_none_for_errors(fn: Fn, *args: object) -> Any:
    result = await in_thread(fn, *args)
    return None if isinstance(result, Exception) else result


async def returns_what_is_raised(fn: Fn, *args: object) -> Any:
    try:
        return await in_thread(fn, *args)
    except _jobs.JobError as error:
        return error


async def wraps_what_is_raised(fn: Fn, *args: object) -> Any:
    try:
        return await in_thread(fn, *args)
    except _jobs.JobError as error:
        raise RuntimeError("it failed") from error


async def loses_arguments_of_errors(fn: Fn, *args: object) -> Any:
    try:
        return await in_thread(fn, *args)
    except _jobs.JobError as error:
        raise _jobs.JobError(str(error)) from None


async def never_begins(fn: Fn, *args: object) -> Any:
    if fn is _jobs.hold:
        await trio.sleep_forever()
    return await in_thread(fn, *args)


async def refuses_to_begin(fn: Fn, *args: object) -> Any:
    if fn is _jobs.hold:
        raise OSError("no room")
    return await in_thread(fn, *args)


async def blocks_the_loop(fn: Fn, *args: object) -> Any:
    await trio.lowlevel.checkpoint()
    return fn(*args)


async def gives_up_on_slow_jobs(fn: Fn, *args: object) -> Any:
    with trio.move_on_after(0.1 if fn is _jobs.hold else math.inf):
        return await trio.to_thread.run_sync(fn, *args, abandon_on_cancel=True)


async def never_comes_back(fn: Fn, *args: object) -> Any:
    result = await in_thread(fn, *args)
    if fn is _jobs.hold:
        await trio.sleep_forever()
    return result


async def gives_another_result(fn: Fn, *args: object) -> Any:
    result = await in_thread(fn, *args)
    return 5 if fn is _jobs.hold else result


class EndsAllAtOnce:
    """The end of one job is taken for the end of all."""

    def __init__(self) -> None:
        self.scopes: set[trio.CancelScope] = set()

    async def __call__(self, fn: Fn, *args: object) -> Any:
        with trio.CancelScope() as scope:
            self.scopes.add(scope)
            result = await trio.to_thread.run_sync(fn, *args, abandon_on_cancel=True)
            self.scopes.discard(scope)
            for other in self.scopes:
                other.cancel()
            self.scopes.clear()
            return result


async def abandons(fn: Fn, *args: object) -> Any:
    return await trio.to_thread.run_sync(fn, *args, abandon_on_cancel=True)


def hold_on(*args: object) -> None:
    """As `hold`, but it takes its time to end, once it was let go."""
    folder, name = str(args[0]), str(args[1])
    _jobs.note(folder, name, "start")
    while not _jobs.path_of(folder, name, "go").exists():
        time.sleep(_jobs.LOOK_EVERY)
    time.sleep(0.1)
    _jobs.note(folder, name, "end")


async def abandons_at_the_end(fn: Fn, *args: object) -> Any:
    """It waits long enough to be taken for one that waits for the end."""
    if fn is not _jobs.hold or args[1] != "cancelled":
        return await in_thread(fn, *args)
    folder, name = str(args[0]), str(args[1])
    try:
        await trio.to_thread.run_sync(hold_on, *args, abandon_on_cancel=True)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            while not _jobs.path_of(folder, name, "go").exists():
                await trio.sleep(_jobs.LOOK_EVERY)
        raise


async def gives_none_when_cancelled(fn: Fn, *args: object) -> Any:
    result = await in_thread(fn, *args)
    try:
        await trio.lowlevel.checkpoint_if_cancelled()
    except trio.Cancelled:
        return None
    return result


async def fails_when_cancelled(fn: Fn, *args: object) -> Any:
    result = await in_thread(fn, *args)
    try:
        await trio.lowlevel.checkpoint_if_cancelled()
    except trio.Cancelled:
        raise OSError("it was interrupted") from None
    return result


async def hangs_when_cancelled(fn: Fn, *args: object) -> Any:
    """For as long as the check is ready to wait, and a bit."""
    result = await in_thread(fn, *args)
    try:
        await trio.lowlevel.checkpoint_if_cancelled()
    except trio.Cancelled:
        with trio.CancelScope(shield=True), trio.move_on_after(1.2):
            await trio.sleep_forever()
        raise
    return result


async def starts_what_was_cancelled(fn: Fn, *args: object) -> Any:
    try:
        await trio.lowlevel.checkpoint_if_cancelled()
    except trio.Cancelled:
        threading.Timer(0.05, fn, args).start()
        raise
    return await in_thread(fn, *args)


def _is_lock(value: object) -> bool:
    return isinstance(value, type(threading.Lock()))


async def hangs_on_locks(fn: Fn, *args: object) -> Any:
    result = await in_thread(fn, *args)
    if _is_lock(result):
        await trio.sleep_forever()
    return result


async def raises_no_exception_for_locks(fn: Fn, *args: object) -> Any:
    result = await in_thread(fn, *args)
    if _is_lock(result):
        raise RealError
    return result


class StopsWorking:
    """After what `is_last` says."""

    def __init__(self, is_last: Callable[[Fn, tuple[object, ...]], bool], how: str) -> None:
        self.is_last = is_last
        self.how = how
        self.is_over = False

    async def __call__(self, fn: Fn, *args: object) -> Any:
        if self.is_over and self.how == "raises":
            raise OSError("it is broken")
        if self.is_over and self.how == "hangs":
            await trio.sleep_forever()
        if self.is_over:
            return None
        self.is_over = self.is_last(fn, args)
        return await in_thread(fn, *args)


# What becomes of an interpreter


async def keeps_the_interpreter(fn: Fn, *args: object) -> Any:
    if _check_executor.PROGRAM in sys.orig_argv:
        print("used", flush=True)
        threading.Thread(target=threading.Event().wait).start()
    return await in_thread(fn, *args)


async def is_wrong_elsewhere(fn: Fn, *args: object) -> Any:
    if _check_executor.PROGRAM in sys.orig_argv:
        return None
    return await in_thread(fn, *args)
