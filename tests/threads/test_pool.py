"""The map's own threads."""

import threading
from typing import Any

import pytest

from namedtasks import ThreadTaskMap, _thread_pool as pool_module
from namedtasks._thread_pool import ThreadPool
from namedtasks.testing import ManualClock
from tests.threads.helpers import Gate, HandPool, reach


def test_a_thread_that_rests_takes_the_next_job() -> None:
    pool = ThreadPool("test")
    idents: list[int] = []
    done = threading.Event()

    def job() -> None:
        idents.append(threading.get_ident())
        done.set()

    for _ in range(3):
        done.clear()
        pool.submit(job)
        reach(done)
        while not pool._idle:
            threading.Event().wait(0.0005)
    pool.close()
    assert len(set(idents)) == 1


def test_a_thread_that_has_rested_for_long_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_LINGERS", 0.0)
    pool = ThreadPool("test")
    threads: list[threading.Thread] = []
    pool.submit(lambda: threads.append(threading.current_thread()))
    while not threads:
        threading.Event().wait(0.0005)
    threads[0].join(60)
    assert not threads[0].is_alive()
    assert not pool._idle


def test_a_job_given_at_the_very_end_of_a_rest_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has waited long enough, and somebody has just chosen it for a job."""
    monkeypatch.setattr(pool_module, "_LINGERS", 0.0)
    done = threading.Event()

    class Idle(dict[Any, None]):
        def __delitem__(self, worker: Any) -> None:
            if not done.is_set():
                worker.job = done.set
                worker.wake.release()
                raise KeyError(worker)
            super().__delitem__(worker)

    pool = ThreadPool("test")
    pool._idle = Idle()
    pool.submit(lambda: None)
    reach(done)


def test_the_watch_is_not_started_while_the_thread_is_inside_of_somebodys_pool() -> None:
    """To start a thread takes locks that this thread may hold: it is done a moment later."""
    pool, gate, clock = HandPool(), Gate(), ManualClock()
    with ThreadTaskMap(instruments=(), clock=clock, overdue_after=1.0) as tasks:
        future = tasks.submit("deaf", gate)
        gate.wait_begun()

        def cancel_and_run(job: Any) -> None:
            tasks.cancel("deaf")
            job.run()

        pool.on_submit = cancel_and_run
        tasks.submit("a", int, executor=pool)
        clock.advance(1.0)
        while not future.overdue:
            threading.Event().wait(0.0005)
        gate.open()


def test_a_run_with_a_timeout_keeps_the_watch_when_another_ends() -> None:
    gate = Gate()
    with ThreadTaskMap(instruments=()) as tasks:
        future = tasks.submit("slow", gate, "in time", timeout=1000)
        gate.wait_begun()
        assert tasks.submit("a", int).result() == 0
        gate.open()
        assert future.result() == "in time"


def test_a_manual_clock_tells_its_time() -> None:
    clock = ManualClock(2.5)
    assert repr(clock) == "<namedtasks.testing.ManualClock 2.5 s, 0 wait>"
