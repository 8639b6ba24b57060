"""Threads of the page's own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from namedtasks.status import StatusPage
from tests.status.asgi import request


@pytest.mark.parametrize("run", [anyio.run, trio.run], ids=["asyncio", "trio"])
def test_the_page_answers_while_all_threads_of_the_program_are_busy(
    run: Callable[..., Any],
) -> None:
    """Busy threads may be the reason for opening it. All requests share a few other threads."""
    page, done = StatusPage(), threading.Event()
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append((await request(page, "GET", "/api/", {}, {})).status)

    async def main() -> None:
        busy = anyio.to_thread.current_default_thread_limiter()
        busy.total_tokens = 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, partial(done.wait, None))
            await anyio.wait_all_tasks_blocked()
            assert 0 == busy.available_tokens
            async with anyio.create_task_group() as requests:
                for _ in range(10):
                    requests.start_soon(ask)
            done.set()

    run(main)
    assert [200] * 10 == statuses
