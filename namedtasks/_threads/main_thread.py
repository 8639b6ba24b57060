"""Which thread is the main one: only there does Python run signal handlers."""

from __future__ import annotations

import contextlib
import os
import threading
from threading import get_ident


class _Main:
    """Who it is; asked several times in each call, so it is looked up once."""

    __slots__ = ("ident",)

    def __init__(self) -> None:
        self.look()

    def look(self) -> None:
        self.ident = threading.main_thread().ident


_main = _Main()
with contextlib.suppress(AttributeError):  # where there is no fork
    os.register_at_fork(after_in_child=_main.look)  # the thread that forks is the child's main one


def is_main() -> bool:
    """Whether the calling thread is the main one."""
    return get_ident() == _main.ident
