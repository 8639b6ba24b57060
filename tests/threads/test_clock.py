"""The clock that a thread map has if nobody injects another."""

import math
import threading
import time

import pytest

from namedtasks import _thread_pool as clock_module
from namedtasks._thread_pool import MonotonicClock
from tests.threads.helpers import InThread


def held() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def test_it_is_the_systems_monotonic_clock() -> None:
    before = time.monotonic()
    assert before <= MonotonicClock().now() <= time.monotonic()


def test_a_wait_ends_when_it_is_woken_or_its_time_has_come() -> None:
    clock, lock = MonotonicClock(), held()
    waiter = InThread(clock.wait, lock, math.inf)
    lock.release()
    assert waiter.result() is None
    InThread(clock.wait, held(), clock.now() - 1).result()
    InThread(clock.wait, held(), clock.now() + 0.001).result()


def test_in_the_main_thread_it_looks_up_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a Ctrl-C that came just before the wait would be heard only at its end."""
    monkeypatch.setattr(clock_module, "_LONGEST_IN_MAIN_THREAD", 0.001)
    lock = held()
    MonotonicClock().wait(lock, math.inf)
    assert lock.locked()
