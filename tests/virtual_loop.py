"""An asyncio loop whose time only goes by when a test says so, or when all wait for it."""

from __future__ import annotations

import asyncio
import functools
import gc
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, final

P = ParamSpec("P")

_LONGEST = 20.0
"""Real seconds to wait for a thread, when all else has come to rest."""


@final
class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on virtual time.

    Args:
        autojump: Go to the next timer whenever all wait. Else only `advance`
            lets time go by, and a test may wait for threads.
    """

    def __init__(self, *, autojump: bool = True) -> None:
        self.virtual_now = 1000.0
        self.autojump = autojump
        self.turns = 0
        """How often the loop has looked for something to do."""
        self.on_turn: Callable[[], object] = lambda: None
        """Called between two turns, before the callbacks that are scheduled for the next one."""
        self.settlers: list[asyncio.Future[None]] = []
        self.complaints: list[dict[str, Any]] = []
        """What the loop's exception handler was told; at the end there is to be nothing left."""
        super().__init__(_Selector(self))
        self.set_exception_handler(lambda _, context: self.complaints.append(context))

    def time(self) -> float:
        return self.virtual_now

    async def settle(self) -> None:
        """Let everything happen that can happen without time going by."""
        settled: asyncio.Future[None] = self.create_future()
        self.settlers.append(settled)
        await settled

    async def advance(self, seconds: float) -> None:
        """Settle, let time go by, and settle again."""
        await self.settle()
        self.virtual_now += seconds
        await self.settle()

    def come_to_rest(self) -> bool:
        """All wait: do something about it; whether there was something to be done."""
        if self.settlers:
            settlers, self.settlers = self.settlers, []
            for settled in settlers:
                if not settled.done():
                    settled.set_result(None)
            return True
        any_self: Any = self
        timers: list[asyncio.TimerHandle] = any_self._scheduled
        if self.autojump and timers:
            self.virtual_now = max(self.virtual_now, timers[0].when())
            return True
        return False


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type, unused-ignore]
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.turns += 1
        self._loop.on_turn()
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0) or self._loop.come_to_rest():
            return ready
        ready = super().select(_LONGEST)
        if not ready:
            raise AssertionError("the test hangs: all wait, and nothing comes from a thread")
        return ready


def loop_now() -> VirtualLoop:
    """The loop of the running test."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def run(
    main: Callable[[], Coroutine[Any, Any, object]],
    *,
    autojump: bool = True,
    debug: bool | None = None,
    eager: bool = False,
    collect: bool = True,
) -> None:
    """Run *main* on virtual time; in the end the loop may have had nothing to complain about."""

    def make_loop() -> VirtualLoop:
        loop = VirtualLoop(autojump=autojump)
        if eager:
            loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - 3.12
        return loop

    with asyncio.Runner(loop_factory=make_loop, debug=debug) as runner:
        loop = runner.get_loop()
        runner.run(main())
    if collect:
        gc.collect()  # "Task exception was never retrieved" comes then
    assert isinstance(loop, VirtualLoop)
    assert loop.complaints == []


def virtual(
    *, autojump: bool = True, debug: bool | None = None, eager: bool = False
) -> Callable[[Callable[P, Awaitable[None]]], Callable[P, None]]:
    """Make a test of an async function, which is run on virtual time."""

    def decorate(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
        @functools.wraps(test)
        def run_test(*args: P.args, **kwargs: P.kwargs) -> None:
            async def main() -> None:
                await test(*args, **kwargs)

            run(main, autojump=autojump, debug=debug, eager=eager)

        return run_test

    return decorate
