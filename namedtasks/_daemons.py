"""Makes the package's own threads."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from typing import Any


def make_daemon(name: str, target: Callable[..., object], *args: object) -> threading.Thread:
    """Return a daemon thread, not yet started, that calls ``target(*args)`` in an empty context.

    A daemon thread does not hold up the interpreter's exit.
    A thread of the package works for many callers. With the context of the
    caller that made it start, it would keep that caller's objects alive, and
    show that caller's context variables and warning filters to the callbacks
    and instruments of all others.

    Raises:
        RuntimeError: the caller is in a sub-interpreter that allows no daemon threads.
    """
    try:
        return threading.Thread(
            target=target, args=args, name=name, daemon=True, **_empty_context_option()
        )
    except RuntimeError as error:  # only there
        raise RuntimeError(
            "the threads of a task map are daemon threads, which are disabled in this "
            "sub-interpreter: use the map in the main interpreter, or pass a "
            "concurrent.futures.ThreadPoolExecutor as its executor (on trio by "
            "namedtasks.executors.from_pool)"
        ) from error


def _empty_context_option() -> dict[str, Any]:
    """Return the option that makes a thread begin with an empty context.

    Before Python 3.14 there is no such option, and every thread begins so. From
    3.14 on, threads inherit the context of the thread that starts them on
    free-threaded builds, and elsewhere with ``-X thread_inherit_context=1``.
    """
    return {"context": contextvars.Context()} if sys.version_info >= (3, 14) else {}
