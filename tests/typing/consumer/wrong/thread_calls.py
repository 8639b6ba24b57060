"""Wrong calls of the thread shell."""

from __future__ import annotations

from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor

from namedtasks import IfBusy, TaskFuture, ThreadTaskMap


def weigh(lamp: str) -> int:
    return len(lamp)


async def calls(tasks: ThreadTaskMap, said: IfBusy, word: str) -> None:
    tasks.submit("a", weigh, 5)  # wrong
    tasks.submit("a", weigh)  # wrong
    tasks.submit("a", weigh, lamp="a")  # wrong
    tasks.submit({"a"}, weigh, "a")  # wrong
    tasks.submit("a", weigh, "a", if_busy=word)  # wrong
    tasks.submit("a", weigh, "a", executor=ThreadPoolExecutor)(5)  # wrong
    tasks.submit("a", weigh, "a", if_busy=said).result()  # wrong
    future: TaskFuture[int] = tasks.submit("a", weigh, "a", if_busy="skip")  # wrong
    text: str = tasks.submit("a", weigh, "a").result()  # wrong
    awaited: Awaitable[int] = tasks.submit("a", weigh, "a")  # wrong
    await tasks.wait_idle()  # wrong
    tasks.start_soon("a", weigh, "a")  # wrong
    tasks.wait_free("a", operation=5)  # wrong
    tasks.shutdown(5)  # wrong
    future.name = "b"  # wrong
    print(text, awaited)
    async with tasks:  # wrong
        pass
