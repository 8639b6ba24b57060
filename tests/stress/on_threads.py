"""The stress run of the thread shell: 16 threads on 50 names, and on some that overlap."""

from __future__ import annotations

import concurrent.futures
import contextlib
import random
import threading
import time
from collections.abc import Hashable
from typing import Any

from namedtasks import NamedTasksError, RefusedError, TaskFuture, ThreadTaskMap, current_run
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
"""Seconds that nothing here takes: a future that takes longer is lost."""


def run(tally: Tally, stop: Stop) -> None:
    with (
        concurrent.futures.ThreadPoolExecutor(4) as pool,
        ThreadTaskMap(**tally.settings()) as tasks,
    ):
        actors = [_Actor(tally, tasks, pool, number) for number in range(ACTORS)]
        threads = [threading.Thread(target=actor.act, args=(stop,)) for actor in actors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with tally.waiting("wait_idle() at the end"):
            tally.expect("wait_idle() comes back", tasks.wait_idle(LONGEST))
        tally.finish(tasks.statistics())
        for actor in actors:
            tally.expect("every future is done", all(one.done() for one in actor.futures))


class _Actor:
    """One of the threads that do all that can be done, at random."""

    def __init__(
        self, tally: Tally, tasks: ThreadTaskMap, pool: concurrent.futures.Executor, number: int
    ) -> None:
        self.tally = tally
        self.tasks = tasks
        self.pool = pool
        self.mine = f"mine {number}"
        self.random = tally.random(number)
        self.listings = Listings(tally, tasks, self.random)
        self.futures: list[TaskFuture[None]] = []

    def act(self, stop: Stop) -> None:
        verbs = (
            [self.start] * 12
            + [self.start_and_wait] * 3
            + [self.start_mine] * 3
            + [self.renew] * 2
            + [self.cancel, self.forget, self.look, self.wait_for_some]
        )
        while not stop():
            try:
                self.random.choice(verbs)()
            except RefusedError as error:
                self.tally.refused(error)
            except BaseException as error:
                self.tally.faults.append(f"{self.mine} was hit by {error!r}")
                raise
            self.futures = [one for one in self.futures if not one.done()]

    def name(self) -> Hashable:
        return some_name(self.random)

    def start(self) -> TaskFuture[None] | None:
        name = self.name()
        start = self.listings.options(name)
        future: TaskFuture[None] | None = self.tasks.submit(
            name,
            _operate,
            self.tally,
            self.tasks,
            name,
            self.random.random(),
            executor=self.random.choice([None, None, self.pool]),
            timeout=self.random.choice([None, 0.001, 0.1]),
            operation=self.random.choice([None, "mount"]),
            **start.options,
        )
        if future is None:
            self.tally.count("skipped")
        else:
            self.futures.append(future)
            self.listings.started(start)
            # Its run may have ended, and have no other future any more.
            run: Any = future._run
            self.tally.count("joined", future in (run.joined or ()))
            if self.random.random() < 0.1 and future.cancel():
                self.tally.count("cancelled before they began")
        return future

    def start_and_wait(self) -> None:
        future = self.start()
        if future is None:
            return
        with self.tally.waiting("result()") as wait:
            future.add_done_callback(lambda _: wait.is_over())
            _outcome(self.tally, future)

    def start_mine(self) -> None:
        """Under a name that nobody else uses: so it is known when it is free."""
        with self.tally.waiting("wait_free()") as wait:
            future = self.tasks.submit(self.mine, _operate_briefly, self.tally, self.mine)
            future.add_done_callback(lambda _: wait.is_over())
            self.tally.expect("a name becomes free", self.tasks.wait_free(self.mine, LONGEST))

    def cancel(self) -> None:
        choice = self.random.random()
        if choice < 0.02:
            self.tally.count("cancelled", self.tasks.cancel_all(reason="all"))
        elif choice < 0.2:
            even = self.tasks.cancel_matching(lambda name: isinstance(name, int) and name % 2)
            self.tally.count("cancelled", even)
        else:
            self.tally.count("cancelled", self.tasks.cancel(self.name()))

    def forget(self) -> None:
        self.tally.count("forgotten", self.tasks.forget(self.name()))

    def renew(self) -> None:
        self.listings.renew()

    def look(self) -> None:
        self.listings.look(self.name())
        for future in self.tasks.values():
            repr(future)

    def wait_for_some(self) -> None:
        self.tally.count("wait_idle() that came back", self.tasks.wait_idle(0.01))
        self.tally.count("wait_empty() that came back", self.tasks.wait_empty(0.01))
        self.tasks.wait_free(self.name(), 0.01)


def _outcome(tally: Tally, future: TaskFuture[None]) -> None:
    try:
        future.result(LONGEST)
    except concurrent.futures.CancelledError:
        tally.count("ended cancelled")
    except NamedTasksError:
        tally.count("ended cancelled")
    except (Trouble, SystemExit):
        tally.count("ended failed")
    except TimeoutError:
        tally.expect("a future is completed", future.done())
        tally.count("ended too slow")


def _operate_briefly(tally: Tally, name: Hashable) -> None:
    with tally.operation(name):
        time.sleep(0)


def _operate(tally: Tally, tasks: ThreadTaskMap, name: Hashable, choice: float) -> None:
    """One of the things that an operation may do."""
    choice = attempt_of(choice)
    chance = random.Random(choice)
    with tally.operation(name):
        if choice < 0.3:
            return
        if choice < 0.5:
            raise Trouble
        if choice < 0.6:  # willing to stop
            for _ in range(chance.randrange(10)):
                time.sleep(0.001)
                current_run().check_cancelled()
        elif choice < 0.7:  # not willing
            time.sleep(chance.random() * 0.02)
        elif choice < 0.8:
            tasks.forget(name)
            tasks.cancel(name)
        elif choice < 0.9:
            tally.expect("one's own name is busy", tasks.check(name) is not None)
            other = chance.choice([name, some_name(chance)])
            with contextlib.suppress(RefusedError):
                tasks.submit(other, _operate_briefly, tally, other, if_busy=chance.choice(IF_BUSY))
        else:
            raise SystemExit
