"""The stress run of the trio shell: 16 tasks on 50 names, and on some that overlap."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Hashable
from typing import Any

import trio

import namedtasks
from namedtasks import NamedTasksError, RefusedError, TaskHandle, TaskMap, current_run
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
    trio.run(_run, tally, stop)


async def _run(tally: Tally, stop: Stop) -> None:
    workers = tally.shell == "trio"
    async with namedtasks.open_task_map(**tally.settings(), workers=workers) as tasks:
        actors = [_Actor(tally, tasks, number) for number in range(ACTORS)]
        async with trio.open_nursery() as nursery:
            for actor in actors:
                nursery.start_soon(actor.act, stop)
        with trio.fail_after(LONGEST):
            await tasks.wait_idle()
        tally.finish(tasks.statistics())
        for actor in actors:
            tally.expect("every handle is done", all(one.done for one in actor.handles))


class _Actor:
    """One of the tasks that do all that can be done, at random."""

    def __init__(self, tally: Tally, tasks: TaskMap, number: int) -> None:
        self.tally = tally
        self.tasks = tasks
        self.mine = f"mine {number}"
        self.random = tally.random(number)
        self.listings = Listings(tally, tasks, self.random)
        self.handles: list[TaskHandle[Any]] = []

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
            await trio.lowlevel.checkpoint()
            self.handles = [one for one in self.handles if not one.done]

    def name(self) -> Hashable:
        return some_name(self.random)

    async def start(self) -> TaskHandle[Any] | None:
        name = self.name()
        choice = self.random.random()
        start = self.listings.options(name)
        options: Any = {
            **start.options,
            "timeout": self.random.choice([None, 0.001, 0.1]),
            "operation": self.random.choice([None, "mount"]),
        }
        before = set(self.tasks.values())
        if self.random.random() < 0.3:
            handle: TaskHandle[Any] | None = self.tasks.start_thread_soon(
                name, _operate_in_thread, self.tally, name, choice, **options
            )
        else:
            handle = self.tasks.start_soon(
                name, _operate, self.tally, self.tasks, name, choice, **options
            )
        if handle is None:
            self.tally.count("skipped")
        else:
            joined = options["if_busy"] == "join" and handle in before
            self.tally.count("joined", joined)
            self.listings.started(start)
            self.handles.append(handle)
            if self.random.random() < 0.1 and handle.cancel():
                self.tally.count("cancelled at once")
        return handle

    async def start_and_wait(self) -> None:
        handle = await self.start()
        if handle is None:
            return
        with self.tally.waiting("wait()"):
            try:
                with trio.fail_after(LONGEST):
                    await handle.wait()
            except NamedTasksError as error:
                self.tally.count(f"ended: {type(error).__name__}")

    async def start_mine(self) -> None:
        with self.tally.waiting("wait_free()") as wait:

            async def operate() -> None:
                with self.tally.operation(self.mine):
                    await trio.lowlevel.checkpoint()
                wait.is_over()

            self.tasks.start_soon(self.mine, operate)
            with trio.move_on_after(LONGEST) as scope:
                await self.tasks.wait_free(self.mine)
        self.tally.expect("a name becomes free", not scope.cancelled_caught)

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
        for handle in self.tasks.values():
            repr(handle)

    async def wait_for_some(self) -> None:
        for wait in (self.tasks.wait_idle, self.tasks.wait_empty):
            with trio.move_on_after(0.01) as scope:
                await wait()
            self.tally.count(f"{wait.__name__}() that came back", not scope.cancelled_caught)
        with trio.move_on_after(0.01):
            await self.tasks.wait_free(self.name())


def _operate_in_thread(tally: Tally, name: Hashable, choice: float) -> None:
    choice = attempt_of(choice)
    with tally.operation(name):
        if choice < 0.3:
            raise Trouble
        if choice < 0.7:
            current_run().check_cancelled()


async def _operate(tally: Tally, tasks: TaskMap, name: Hashable, choice: float) -> None:
    choice = attempt_of(choice)
    chance = random.Random(choice)
    with tally.operation(name):
        if choice < 0.3:
            return
        if choice < 0.5:
            raise Trouble
        if choice < 0.6:
            await trio.sleep(chance.random() * 0.02)
        elif choice < 0.7:  # not willing to stop
            with trio.CancelScope(shield=True):
                await trio.sleep(chance.random() * 0.02)
        elif choice < 0.8:
            tasks.forget(name)
            tasks.cancel(name)
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint()
            tally.expect("one's own name is busy", tasks.check(name) is not None)
            other = chance.choice([name, some_name(chance)])
            with contextlib.suppress(RefusedError):
                tasks.start_soon(
                    other, _operate_briefly, tally, other, if_busy=chance.choice(IF_BUSY)
                )


async def _operate_briefly(tally: Tally, name: Hashable) -> None:
    with tally.operation(name):
        await trio.lowlevel.checkpoint()
