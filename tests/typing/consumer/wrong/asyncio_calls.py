"""Wrong calls of the asyncio shell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import namedtasks
import namedtasks.asyncio
from namedtasks import IfBusy


async def light(lamp: str, watts: int) -> float:
    return 1000 / watts


def weigh(lamp: str) -> int:
    return len(lamp)


def awaitable(lamp: str) -> Awaitable[int]:
    raise NotImplementedError


async def calls(tasks: namedtasks.asyncio.TaskMap, said: IfBusy, word: str) -> None:
    tasks.create_task("a", light, "a")  # wrong
    tasks.create_task("a", light, 5, 40)  # wrong
    tasks.create_task("a", light("a", 40))  # wrong
    tasks.create_task("a", weigh, "a")  # wrong
    tasks.create_task("a", awaitable, "a")  # wrong
    tasks.create_task([], light, "a", 40)  # wrong
    tasks.create_task("a", light, "a", 40, if_busy=word)  # wrong
    tasks.create_task("a", light, "a", 40, timeout="5")  # wrong
    tasks.run_in_executor("a", weigh, 5)  # wrong
    await tasks.create_task("a", light, "a", 40, if_busy=said)  # wrong
    joined: asyncio.Task[float] = tasks.create_task("a", light, "a", 40, if_busy="join")  # wrong
    skipped: asyncio.Task[float] = tasks.create_task("a", light, "a", 40, if_busy="skip")  # wrong
    text: str = await tasks.create_task("a", light, "a", 40)  # wrong
    tasks.start_soon("a", light, "a", 40)  # wrong
    tasks.wait_free("a", 5)  # wrong
    other: namedtasks.TaskMap = tasks  # wrong
    print(joined, skipped, text, other)
