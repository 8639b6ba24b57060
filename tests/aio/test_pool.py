"""The map's own threads: made on demand, used again, let go in the end."""

from __future__ import annotations

import threading

import pytest

from namedtasks._asyncio import pool as pool_module
from namedtasks._asyncio.pool import ThreadPool


def test_a_thread_that_has_nothing_to_do_is_used_again() -> None:
    pool = ThreadPool("mine")
    seen: list[threading.Thread] = []
    for _ in range(2):
        done = threading.Event()

        def job(done: threading.Event = done) -> None:
            seen.append(threading.current_thread())
            done.set()

        pool.submit(job)
        assert done.wait(20)
        while not pool._idle:
            pass
    assert seen[0] is seen[1]
    assert seen[0].daemon
    pool.close()
    seen[0].join(20)
    assert not seen[0].is_alive()


def test_a_thread_that_is_done_after_the_close_goes() -> None:
    pool = ThreadPool("mine")
    let_go, threads = threading.Event(), list[threading.Thread]()

    def job() -> None:
        threads.append(threading.current_thread())
        let_go.wait(20)

    pool.submit(job)
    pool.close()
    let_go.set()
    while not threads:
        pass
    threads[0].join(20)
    assert not threads[0].is_alive()


def test_a_thread_that_nobody_needs_goes_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_LINGERS", 0.0)
    pool = ThreadPool("mine")
    threads: list[threading.Thread] = []
    pool.submit(lambda: threads.append(threading.current_thread()))
    while not threads:
        pass
    threads[0].join(20)
    assert not threads[0].is_alive()
    assert not pool._idle


def test_a_job_may_come_just_as_the_thread_has_had_enough_of_waiting() -> None:
    pool = ThreadPool("mine")
    worker = pool_module._Worker(pool)

    def job() -> None:
        raise AssertionError

    class Wake:
        def acquire(self, timeout: float | None = None) -> bool:
            if timeout is not None:
                pool.submit(job)
            return timeout is None

        def release(self) -> None:
            pass

    worker.wake = Wake()  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    assert pool.rest(worker)
    assert worker.job is job


def test_a_worker_without_a_job_does_nothing() -> None:
    pool_module._Worker(ThreadPool("mine")).work()
