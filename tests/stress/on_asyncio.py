"""The stress run of the asyncio shell: 16 tasks on 50 names, and on some that overlap."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Hashable
from typing import Any

import namedtasks.asyncio
from namedtasks import RefusedError, current_run
from tests.stress.tally import (
    ACTORS,
    IF_BUSY,
    Listings,
    Stop,
    Tally,
    Trouble,
    attempt_of,
    some_name,
)

LONGEST = 30.0


def run(tally: Tally, stop: Stop) -> None:
    asyncio.run(_run(tally, stop))


async def _run(tally: Tally, stop: Stop) -> None:
    async with namedtasks.asyncio.open_task_map(**tally.settings()) as tasks:
        actors = [_Actor(tally, tasks, number) for number in range(ACTORS)]
        async with asyncio.TaskGroup() as group:
            for actor in actors:
                group.create_task(actor.act(stop))
        async with asyncio.timeout(LONGEST):
            await tasks.wait_idle()
        tally.finish(tasks.statistics())
        await asyncio.sleep(0)
        for actor in actors:
            tally.expect("every task is done", all(one.done() for one in actor.tasks_made))


class _Actor:
    """One of the tasks that do all that can be done, at random."""

    def __init__(self, tally: Tally, tasks: namedtasks.asyncio.TaskMap, number: int) -> None:
        self.tally = tally
        self.tasks = tasks
        self.mine = f"mine {number}"
        self.random = tally.random(number)
        self.listings = Listings(tally, tasks, self.random)
        self.tasks_made: list[asyncio.Future[Any]] = []

    async def act(self, stop: Stop) -> None:
        verbs = (
            [self.start] * 12
            + [self.start_and_wait] * 3
            + [self.start_mine] * 3
            + [self.renew] * 2
            + [self.cancel, self.forget, self.look, self.wait_for_some]
        )
        while not stop():
            try:
                await self.random.choice(verbs)()
            except RefusedError as error:
                self.tally.refused(error)
            await asyncio.sleep(0)
            self.tasks_made = [one for one in self.tasks_made if not one.done()]

    def name(self) -> Hashable:
        return some_name(self.random)

    async def start(self) -> asyncio.Future[Any] | None:
        name = self.name()
        choice = self.random.random()
        start = self.listings.options(name)
        timeout = self.random.choice([None, 0.001, 0.1])
        operation = self.random.choice([None, "mount"])
        is_busy = name in self.tasks
        task: asyncio.Future[Any] | None
        if self.random.random() < 0.3:
            run_in_executor: Any = self.tasks.run_in_executor
            task = run_in_executor(
                name,
                _operate_in_thread,
                self.tally,
                name,
                choice,
                timeout=timeout,
                operation=operation,
                **start.options,
            )
        else:
            create_task: Any = self.tasks.create_task
            task = create_task(
                name,
                _operate,
                self.tally,
                self.tasks,
                name,
                choice,
                timeout=timeout,
                operation=operation,
                **start.options,
            )
        if task is None:
            self.tally.count("skipped")
        else:
            self.tally.count("joined", start.options["if_busy"] == "join" and is_busy)
            self.listings.started(start)
            self.tasks_made.append(task)
            if self.random.random() < 0.1 and task.cancel():
                self.tally.count("cancelled at once")
        return task

    async def start_and_wait(self) -> None:
        task = await self.start()
        if task is None:
            return
        with self.tally.waiting("await task") as wait:
            task.add_done_callback(lambda _: wait.is_over())
            done, _ = await asyncio.wait([task], timeout=LONGEST)
        self.tally.expect("a task ends", task in done)
        error = None if task.cancelled() else task.exception()
        how = "cancelled" if task.cancelled() else type(error).__name__ if error else "well"
        self.tally.count(f"ended: {how}")

    async def start_mine(self) -> None:
        with self.tally.waiting("wait_free()") as wait:

            async def operate() -> None:
                with self.tally.operation(self.mine):
                    await asyncio.sleep(0)
                wait.is_over()

            self.tasks.create_task(self.mine, operate)
            async with asyncio.timeout(LONGEST):
                await self.tasks.wait_free(self.mine)

    async def cancel(self) -> None:
        choice = self.random.random()
        if choice < 0.02:
            count = self.tasks.cancel_matching(lambda name: isinstance(name, int))
        elif choice < 0.2:
            count = self.tasks.cancel_matching(lambda name: isinstance(name, int) and name % 2)
        else:
            count = self.tasks.cancel(self.name())
        self.tally.count("cancelled", count)

    async def forget(self) -> None:
        self.tally.count("forgotten", self.tasks.forget(self.name()))

    async def renew(self) -> None:
        self.listings.renew()

    async def look(self) -> None:
        self.listings.look(self.name())
        for task in self.tasks.values():
            repr(task)

    async def wait_for_some(self) -> None:
        for wait in (self.tasks.wait_idle, self.tasks.wait_empty):
            try:
                async with asyncio.timeout(0.01):
                    await wait()
            except TimeoutError:
                continue
            self.tally.count(f"{wait.__name__}() that came back")
        try:
            async with asyncio.timeout(0.01):
                await self.tasks.wait_free(self.name())
        except TimeoutError:
            pass


def _operate_in_thread(tally: Tally, name: Hashable, choice: float) -> None:
    choice = attempt_of(choice)
    with tally.operation(name):
        if choice < 0.3:
            raise Trouble
        if choice < 0.7:
            current_run().check_cancelled()


async def _operate(
    tally: Tally, tasks: namedtasks.asyncio.TaskMap, name: Hashable, choice: float
) -> None:
    choice = attempt_of(choice)
    chance = random.Random(choice)
    with tally.operation(name):
        if choice < 0.3:
            return
        if choice < 0.5:
            raise Trouble
        if choice < 0.6:
            await asyncio.sleep(chance.random() * 0.02)
        elif choice < 0.7:  # not willing to stop at once
            try:
                await asyncio.sleep(chance.random() * 0.02)
            finally:
                await asyncio.sleep(chance.random() * 0.02)
        elif choice < 0.8:
            tasks.forget(name)
            tasks.cancel(name)
            await asyncio.sleep(0)
        elif choice < 0.85:
            raise asyncio.CancelledError  # nobody asked for it
        else:
            await asyncio.sleep(0)
            tally.expect("one's own name is busy", tasks.check(name) is not None)
            other = chance.choice([name, some_name(chance)])
            with contextlib.suppress(RefusedError):
                tasks.create_task(
                    other, _operate_briefly, tally, other, if_busy=chance.choice(IF_BUSY)
                )


async def _operate_briefly(tally: Tally, name: Hashable) -> None:
    with tally.operation(name):
        await asyncio.sleep(0)
