"""The keyed map that a user of trio would write by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import trio


class BusyError(Exception):
    """The name runs."""


class HandWrittenMap:
    """One run of a name at a time, each in a cancel scope of its own; nothing else."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scopes: dict[Hashable, trio.CancelScope] = {}
        self._idle = trio.Event()

    def start_soon(
        self, name: Hashable, async_fn: Callable[..., Awaitable[Any]], *args: Any
    ) -> None:
        """Start a run, unless the name has one."""
        if name in self._scopes:
            raise BusyError(name)
        self._scopes[name] = trio.CancelScope()
        self._nursery.start_soon(self._run, name, async_fn, args)

    async def _run(
        self, name: Hashable, async_fn: Callable[..., Awaitable[Any]], args: Any
    ) -> None:
        try:
            with self._scopes[name]:
                await async_fn(*args)
        except Exception as error:
            print(name, error)
        finally:
            del self._scopes[name]
            if not self._scopes:
                self._idle.set()

    def cancel(self, name: Hashable) -> None:
        """Cancel the run of a name."""
        self._scopes[name].cancel()

    async def wait_idle(self) -> None:
        """Wait until nothing runs."""
        while self._scopes:
            self._idle = trio.Event()
            await self._idle.wait()
