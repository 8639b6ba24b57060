"""Wrong calls of the trio shell."""

from __future__ import annotations

import namedtasks
from namedtasks import IfBusy, TaskHandle, TaskMap


async def light(lamp: str, watts: int) -> float:
    return 1000 / watts


def weigh(lamp: str) -> int:
    return len(lamp)


async def calls(tasks: TaskMap, said: IfBusy, word: str) -> None:
    tasks.start_soon("a", light, "a")  # wrong
    tasks.start_soon("a", light, "a", "40")  # wrong
    tasks.start_soon("a", light, "a", watts=40)  # wrong
    tasks.start_soon("a", light("a", 40))  # wrong
    tasks.start_soon("a", weigh, "a")  # wrong
    tasks.start_soon(["a"], light, "a", 40)  # wrong
    tasks.start_soon(light, "a", 40)  # wrong
    tasks.start_soon("a", light, "a", 40, if_busy=word)  # wrong
    tasks.start_soon("a", light, "a", 40, if_busy=True)  # wrong
    tasks.start_soon("a", light, "a", 40, timeout="5")  # wrong
    tasks.start_soon("a", light, "a", 40, operation=5)  # wrong
    tasks.start_soon("a", light, "a", 40, if_busy=said).wait()  # wrong
    tasks.start_thread_soon("a", weigh, 5)  # wrong
    tasks.start_thread_soon("a", weigh, "a", executor=weigh)  # wrong
    handle: TaskHandle[float] = tasks.start_soon("a", light, "a", 40, if_busy="skip")  # wrong
    number: int = await tasks.start_soon("a", light, "a", 40).wait()  # wrong
    late: float = tasks.start_soon("a", light, "a", 40).wait()  # wrong
    hours: str = await tasks.start_thread_soon("a", weigh, "a").wait()  # wrong
    handle.done = True  # wrong
    handle.result()  # wrong
    tasks["a"] = handle  # wrong
    tasks.state("a", "attach")  # wrong
    tasks.cancel("a", "dawn")  # wrong
    tasks.wait_idle(5)  # wrong
    with namedtasks.open_task_map():  # wrong
        pass
    async with TaskMap():  # wrong
        pass
    print(number, late, hours)
