"""The pool of own threads, which the thread map and the asyncio map use."""

import sys
import threading
import time
from collections.abc import Callable, Generator
from functools import partial
from operator import call
from typing import Any

import pytest

from namedtasks import _thread_pool as pool_module
from namedtasks._thread_pool import ThreadPool

Job = Callable[[], object]

SOON = 60.0
"""Seconds after which a test gives up: not reached when all is well."""


def call_pool(
    start: Callable[[threading.Thread], None] = threading.Thread.start,
) -> ThreadPool[Job]:
    """Return a pool whose jobs are functions."""
    return ThreadPool[Job]("test", call, start)


def wait_for(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.0005)


class Starter:
    """Starts threads as long as there are some."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self, thread: threading.Thread) -> None:
        if not self.left:
            raise RuntimeError("can't start new thread")
        self.left -= 1
        thread.start()


def test_a_job_is_given_to_work_in_a_daemon_thread_with_the_pools_name() -> None:
    seen: list[tuple[object, str, bool]] = []
    done = threading.Event()

    def work(job: object) -> None:
        thread = threading.current_thread()
        seen.append((job, thread.name, thread.daemon))
        done.set()

    pool = ThreadPool[object]("test", work)
    pool.submit("job")
    assert done.wait(SOON)
    pool.close()
    assert seen == [("job", "test", True)]


def test_an_idle_thread_takes_the_next_job() -> None:
    pool = call_pool()
    idents: list[int] = []
    for _ in range(3):
        pool.submit(lambda: idents.append(threading.get_ident()))
        wait_for(lambda: pool._idle and not pool._jobs)
    pool.close()
    assert len(idents) == 3
    assert len(set(idents)) == 1


def test_a_thread_that_is_idle_for_long_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "LINGERS", 0.0)
    pool = call_pool()
    threads: list[threading.Thread] = []
    pool.submit(lambda: threads.append(threading.current_thread()))
    wait_for(lambda: threads)
    threads[0].join(SOON)
    assert not threads[0].is_alive()
    assert not pool._idle
    assert not pool._alive


def test_idle_threads_leave_when_the_pool_is_closed_and_busy_ones_after_their_job() -> None:
    pool = call_pool()
    threads: list[threading.Thread] = []
    gate, barrier = threading.Event(), threading.Barrier(3)

    def job(event: threading.Event | None) -> None:
        threads.append(threading.current_thread())
        barrier.wait(SOON)
        if event is not None:
            assert event.wait(SOON)

    pool.submit(partial(job, None))
    pool.submit(partial(job, gate))
    barrier.wait(SOON)
    wait_for(lambda: pool._idle)
    pool.close()
    wait_for(lambda: len(pool._alive) == 1)
    gate.set()
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()


@pytest.mark.parametrize("closed", [False, True])
def test_a_thread_that_is_called_as_its_time_is_up_comes(
    monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    monkeypatch.setattr(pool_module, "LINGERS", 0.0)
    done = threading.Event()

    class Idle(dict[Any, None]):
        def pop(self, wake: Any, default: Any = None) -> Any:
            if not done.is_set():  # another thread is faster
                super().pop(wake)
                pool.closed = closed
                pool._jobs.append(done.set)
                wake.release()
            return super().pop(wake, default)

    pool = call_pool()
    pool._idle = Idle()
    pool.submit(int)
    assert done.wait(SOON)
    wait_for(lambda: not pool._alive)


def test_a_thread_does_not_sleep_or_leave_while_a_job_is_in_line() -> None:
    """Its submitter could start no thread, and counts on this one."""
    done = [threading.Event(), threading.Event()]

    class Idle(dict[Any, None]):
        def __setitem__(self, wake: Any, value: None) -> None:
            if not done[0].is_set():
                pool._jobs.append(done[0].set)
            super().__setitem__(wake, value)

    class Alive(dict[Any, None]):
        def __delitem__(self, wake: Any) -> None:
            if not done[1].is_set():
                pool._jobs.append(done[1].set)
            super().__delitem__(wake)

    pool = call_pool()
    pool._idle, pool._alive = Idle(), Alive()
    pool.submit(int)
    assert done[0].wait(SOON)
    pool.close()
    assert done[1].wait(SOON)
    wait_for(lambda: not pool._alive)


def test_a_burst_of_short_jobs_needs_few_threads() -> None:
    pool = call_pool()
    done: list[int] = []
    gate = threading.Event()
    pool.submit(lambda: gate.wait(SOON))
    for number in range(500):
        pool.submit(partial(done.append, number))
    wait_for(lambda: len(done) == 500)
    gate.set()
    assert sorted(done) == list(range(500))
    assert len(pool._alive) < 100
    pool.close()


def test_no_job_waits_for_another_one_to_end() -> None:
    """All of them meet at a barrier, which opens only when all have begun."""
    pool = call_pool()
    barrier = threading.Barrier(101)
    for _ in range(100):
        pool.submit(lambda: barrier.wait(SOON))
    barrier.wait(SOON)
    pool.close()


# No thread can be started


def test_without_any_thread_submit_raises_and_the_job_is_out_of_line() -> None:
    pool = call_pool(Starter(0))
    with pytest.raises(RuntimeError, match=r"^can't start new thread$"):
        pool.submit(int)
    assert not pool._jobs
    assert not pool._coming


def test_a_job_that_a_thread_has_taken_meanwhile_is_not_refused() -> None:
    ran: list[str] = []

    def no_thread(thread: threading.Thread) -> None:
        pool._jobs.popleft()()
        raise RuntimeError("can't start new thread")

    pool = call_pool(no_thread)
    pool.submit(lambda: ran.append("it"))
    assert ran == ["it"]


def test_the_jobs_of_others_do_not_depend_on_a_start_that_may_fail() -> None:
    """Each submitter that finds only such a start tries one of its own."""
    errors: list[str] = []

    def no_thread(thread: threading.Thread) -> None:
        if not errors:
            errors.append("outer")
            with pytest.raises(RuntimeError, match=r"^inner$"):
                pool.submit(int)  # as from another thread
            raise RuntimeError("outer")
        raise RuntimeError("inner")

    pool = call_pool(no_thread)
    with pytest.raises(RuntimeError, match=r"^outer$"):
        pool.submit(int)
    assert not pool._jobs


def test_while_another_thread_lives_the_job_stays_in_line() -> None:
    """It runs when that thread has time."""
    pool = call_pool(Starter(1))
    gate, done = threading.Event(), threading.Event()
    pool.submit(lambda: gate.wait(SOON))
    wait_for(lambda: not pool._coming and not pool._jobs)
    pool.submit(done.set)
    assert len(pool._jobs) == 1
    gate.set()
    assert done.wait(SOON)
    pool.close()


def test_jobs_behind_a_long_one_get_a_thread_as_soon_as_one_can_be_started() -> None:
    """The next call of a thread is made by the next submitter, or with the next job."""
    starter = Starter(1)
    pool = call_pool(starter)
    gate, done = threading.Event(), [threading.Event(), threading.Event()]
    pool.submit(lambda: gate.wait(SOON))
    wait_for(lambda: not pool._coming and not pool._jobs)
    pool.submit(done[0].set)
    starter.left = 1
    pool.submit(done[1].set)
    for event in done:
        assert event.wait(SOON)
    gate.set()
    pool.close()


# Races


@pytest.fixture
def fast_switches() -> Generator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def refuse_some(thread: threading.Thread, numbers: dict[int, int]) -> None:
    """Refuse two thirds of all starts."""
    numbers[0] = number = numbers.get(0, 0) + 1
    if number % 3:
        raise RuntimeError("can't start new thread")
    thread.start()


@pytest.mark.usefixtures("fast_switches")
@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("lingers", [0.0, 0.0001, 10.0])
def test_each_job_runs_once_whoever_submits_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch, lingers: float, refuses: bool
) -> None:
    """No job is left in line while all threads sleep, or have left."""
    monkeypatch.setattr(pool_module, "LINGERS", lingers)
    submitters, rounds = 6, 60
    ran: list[list[int]] = [[] for _ in range(submitters)]
    start = partial(refuse_some, numbers={}) if refuses else threading.Thread.start

    def work(job: tuple[int, int, threading.Lock]) -> None:
        submitter, number, lock = job
        ran[submitter].append(number)
        lock.release()

    def submit_all(submitter: int) -> None:
        """Submit jobs in bursts of several sizes, and wait for the end of each burst."""
        number = 0
        for size in (size for _ in range(rounds) for size in (1, 2, 5)):
            locks: list[threading.Lock] = []
            while len(locks) < size:
                lock = threading.Lock()
                lock.acquire()
                try:
                    pool.submit((submitter, number, lock))
                except RuntimeError:
                    assert refuses
                    continue
                locks.append(lock)
                number += 1
            for lock in locks:
                assert lock.acquire(timeout=SOON)

    pool = ThreadPool[tuple[int, int, threading.Lock]]("test", work, start)
    threads = [threading.Thread(target=submit_all, args=[number]) for number in range(submitters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    wait_for(lambda: not pool._alive)
    assert not pool._jobs
    assert [sorted(numbers) for numbers in ran] == [list(range(8 * rounds))] * submitters
