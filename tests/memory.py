"""For the tests of what is kept in memory, and what is not."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Generator[None]:
    """So that only what is in no cycle goes away."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
