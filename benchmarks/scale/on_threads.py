"""A controller with a thread map, in real time: two threads submit, many threads work."""

from __future__ import annotations

import random
import threading
import time

from benchmarks.scale.watch import Plan, VolumeError, Watch, set_aside
from benchmarks.settings import Settings
from namedtasks import Backoff, RefusedError, ThreadTaskMap

BACKOFF = Backoff(initial=0.1, maximum=1.0)

SUBMITTERS = 2
WORKERS = 32
BACKLOG = 1000
"""Running names at which the submitters pause."""
A_MOMENT = 0.001


def run(plan: Plan, settings: Settings) -> Watch:
    """Carry out *plan*."""
    with set_aside(plan) as names:
        return _run(plan, settings, names)


def _run(plan: Plan, settings: Settings, names: list[tuple[str, str]]) -> Watch:
    watch = Watch()
    with (
        watch.collections(),
        settings.open_thread_map(backoff=BACKOFF, limit=WORKERS, retention=plan.retention) as tasks,
    ):
        begin = time.perf_counter()
        ends = begin + plan.seconds
        watches = [Watch() for _ in range(SUBMITTERS)]
        threads = [
            threading.Thread(target=_submit, args=(plan, number, tasks, names, own, ends))
            for number, own in enumerate(watches)
        ]
        for thread in threads:
            thread.start()
        while (now := time.perf_counter()) < ends:
            _sum_up(watch, watches)
            watch.look(now - begin, tasks.statistics())
            time.sleep(plan.seconds / plan.samples)
        for thread in threads:
            thread.join()
        watch.stop()
        tasks.wait_empty()
        _sum_up(watch, watches)
        watch.look(time.perf_counter() - begin, tasks.statistics())
    return watch


def _submit(
    plan: Plan,
    number: int,
    tasks: ThreadTaskMap,
    names: list[tuple[str, str]],
    watch: Watch,
    ends: float,
) -> None:
    choose = random.Random(plan.seed + number)

    def body() -> None:
        if choose.random() < plan.failing:
            watch.failed += 1
            raise VolumeError("the volume cannot be mounted")

    while (begin := time.perf_counter()) < ends:
        name = names[int(choose.random() * len(names))]
        try:
            tasks.submit(name, body)
            watch.called(time.perf_counter() - begin)
            watch.admitted += 1
        except RefusedError as error:
            watch.called(time.perf_counter() - begin)
            watch.refuse(error)
        if len(tasks) > BACKLOG:
            time.sleep(A_MOMENT)


def _sum_up(whole: Watch, parts: list[Watch]) -> None:
    whole.admitted = sum(part.admitted for part in parts)
    whole.failed = sum(part.failed for part in parts)
    whole.longest_call = max(part.longest_call for part in parts)
    whole.refused.clear()
    for part in parts:
        whole.refused.update(dict(part.refused))
