"""Which thread is the main one: only there does Python run signal handlers."""

from __future__ import annotations

import threading
from threading import get_ident


class _Main:
    """Who it is; asked several times in each call, so it is looked up once."""

    __slots__ = ("ident",)

    def __init__(self) -> None:
        self.ident = threading.main_thread().ident


_main = _Main()


def is_main() -> bool:
    """Whether the calling thread is the main one."""
    return get_ident() == _main.ident


def become_main() -> bool:
    """Call this in a forked child, whose main thread is the one that has forked.

    Returns:
        Whether it was another one before.
    """
    before, _main.ident = _main.ident, get_ident()
    return before != _main.ident
