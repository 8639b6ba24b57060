"""A controller of volumes on trio, in virtual time: a loop starts names, and their bodies sleep.

Ten times a second the loop starts names at random, and again those that failed
in the round before and are urgent. Now and then it starts a whole volume, which
excludes each of its nodes. A failure that is not retried lapses. A body sleeps
for up to a second; one in twenty fails.
"""

from __future__ import annotations

import random
import time
from collections.abc import Hashable

import attrs
import trio
import trio.testing

from benchmarks.scale.watch import Plan, Steps, VolumeError, Watch, set_aside
from benchmarks.settings import Settings
from namedtasks import ANY, Backoff, RefusedError, TaskMap

TICK = 0.1
"""Seconds between two rounds of the loop."""

WHOLE_VOLUMES = 0.001
"""Share of the starts that are for a whole volume."""

URGENT = 0.5
"""Share of the starts that are asked for again in the next round if they fail."""

AT_ONCE = 100
"""Starts that the loop makes before a checkpoint."""

BACKOFF = Backoff()


def run(plan: Plan, settings: Settings) -> Watch:
    """Carry out *plan*."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    with set_aside(plan) as names:
        watch = Watch()
        with watch.collections():
            trio.run(_main, plan, names, settings, watch, clock=clock, instruments=[Steps(watch)])
    return watch


async def _main(plan: Plan, names: list[tuple[str, str]], settings: Settings, watch: Watch) -> None:
    async with settings.open_map(backoff=BACKOFF, retention=plan.retention) as tasks:
        controller = Controller(plan, watch, tasks, names)
        await controller.work()
        watch.stop()
        await tasks.wait_empty()
        watch.look(trio.current_time() - controller.begin, tasks.statistics())


@attrs.frozen
class Ask:
    """One start that is wanted, with its outcome.

    All random numbers are drawn when it is made, because trio runs tasks in an
    order of its own.
    """

    number: int
    name: Hashable
    ticks: float
    """The time that the body takes; it ends between two rounds of the loop."""
    fails: bool
    is_urgent: bool
    """True if it is asked for again in the next round, if it fails."""


@attrs.define
class Controller:
    """Starts names, round by round."""

    plan: Plan
    watch: Watch
    tasks: TaskMap
    names: list[tuple[str, str]]
    begin: float = attrs.field(factory=trio.current_time)
    _number: int = attrs.field(init=False, default=0)
    _random: random.Random = attrs.field(init=False)
    _again: list[Ask] = attrs.field(init=False, factory=list[Ask])
    """Failed starts, and those refused after that, for the next round."""

    def __attrs_post_init__(self) -> None:
        """Begin with the seed of the plan."""
        self._random = random.Random(self.plan.seed)

    async def work(self) -> None:
        """Do all rounds, and take samples."""
        rounds = max(1, round(self.plan.seconds / TICK))
        every = max(1, rounds // self.plan.samples)
        owed = 0.0
        for number in range(rounds):
            if number % every == 0:
                self.watch.look(trio.current_time() - self.begin, self.tasks.statistics())
            owed += self.plan.rate * TICK
            await self._ask_for_all(int(owed))
            owed -= int(owed)
            await trio.sleep_until(self.begin + (number + 1) * TICK)

    async def _ask_for_all(self, count: int) -> None:
        again, self._again = sorted(self._again, key=lambda ask: ask.number), []
        for place, old in enumerate(again):
            if not self._ask(self._drawn(old.name)):
                self._again.append(old)
            if place % AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        for place in range(count):
            self._ask(self._drawn(self._any_name()))
            if place % AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    def _any_name(self) -> Hashable:
        name = self.names[int(self._random.random() * len(self.names))]
        return (name[0], ANY) if self._random.random() < WHOLE_VOLUMES else name

    def _drawn(self, name: Hashable) -> Ask:
        self._number += 1
        chance = self._random.random
        fails, is_urgent = chance() < self.plan.failing, chance() < URGENT
        return Ask(self._number, name, int(chance() * 10) + 0.5, fails, is_urgent)

    def _ask(self, ask: Ask) -> bool:
        begin = time.perf_counter()
        try:
            self.tasks.start_soon(ask.name, self._body, ask)
        except RefusedError as error:
            self.watch.called(time.perf_counter() - begin)
            self.watch.refuse(error)
            return False
        self.watch.called(time.perf_counter() - begin)
        self.watch.admitted += 1
        return True

    async def _body(self, ask: Ask) -> None:
        await trio.sleep(TICK * ask.ticks)
        if ask.fails:
            self.watch.failed += 1
            if ask.is_urgent:
                self._again.append(ask)
            raise VolumeError("the volume cannot be mounted")
