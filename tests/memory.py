"""For the tests of what is kept in memory, and what is not."""

from __future__ import annotations

import gc
import sysconfig
from collections.abc import Generator
from contextlib import contextmanager

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def free_those_of_other_threads() -> None:
    """Free what nothing refers to any more.

    With the GIL that has been done already. Without it, an object of which
    another thread drops the last reference is freed when the thread that made
    it goes on, or ends, and that thread may be idle; or by a garbage collection.
    """
    if FREE_THREADED:
        gc.collect()


@contextmanager
def no_garbage_collection() -> Generator[None]:
    """So that only what is in no cycle goes away."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
