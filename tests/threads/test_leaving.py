"""How a block ends, and what the interpreter's exit does to a map without one."""

import gc
import signal
import threading
import weakref
from typing import Any

import pytest

from namedtasks import ClosedError, State, TaskCancelledError, ThreadTaskMap, current_run
from namedtasks.instruments import Instrument, TaskSucceeded
from tests.threads.helpers import (
    PATIENCE,
    Gate,
    InThread,
    WatchedClock,
    reach,
    run_child,
    wait_until,
)


def test_the_end_of_the_block_waits_for_what_runs() -> None:
    clock = WatchedClock()
    gate = Gate()

    def open_when_waited_for() -> None:
        clock.wait_for_sleepers()
        gate.open()

    opener = InThread(open_when_waited_for)
    with ThreadTaskMap(clock=clock) as tasks:
        future = tasks.submit("a", gate, "done")
    assert future.result(0) == "done"
    opener.result()
    assert repr(tasks) == "<namedtasks.ThreadTaskMap running=0 waiting=0 closed>"


def test_an_exception_in_the_block_asks_what_runs_to_stop_and_leaves_bare() -> None:
    def body() -> None:
        begun.set()
        while True:
            current_run().check_cancelled()

    begun = threading.Event()
    with pytest.raises(ZeroDivisionError):
        with ThreadTaskMap() as tasks:
            future = tasks.submit("a", body)
            reach(begun)
            raise ZeroDivisionError("mine")
    error = future.exception()
    assert isinstance(error, TaskCancelledError)
    assert error.reason == "the map's block raised ZeroDivisionError: mine"


class InterruptingClock(WatchedClock):
    """Who sleeps in the main thread is interrupted by Ctrl-C."""

    def wait(self, wake: threading.Lock, until: float, /) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)
        super().wait(wake, until)


def test_ctrl_c_at_the_end_of_the_block_asks_what_runs_to_stop() -> None:
    class OnceInterruptingClock(InterruptingClock):
        interrupts = 1

        def wait(self, wake: threading.Lock, until: float, /) -> None:
            if threading.current_thread() is threading.main_thread():
                self.interrupts -= 1
                if self.interrupts:
                    return self.manual.wait(wake, until)
            return super().wait(wake, until)

    def body() -> None:
        begun.set()
        while True:
            current_run().check_cancelled()

    begun = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        with ThreadTaskMap(clock=OnceInterruptingClock()) as tasks:
            future = tasks.submit("a", body)
            reach(begun)
    error = future.exception(0)
    assert isinstance(error, TaskCancelledError)
    assert error.reason == "the map's block raised KeyboardInterrupt"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_leaves_at_once() -> None:
    """Also if what runs does not stop."""
    gate = Gate()
    with pytest.raises(KeyboardInterrupt):
        with ThreadTaskMap(clock=InterruptingClock()) as tasks:
            future = tasks.submit("a", gate, "late")
            gate.wait_begun()
    assert tasks.state("a") is State.RUNNING
    with pytest.raises(ClosedError):
        tasks.submit("b", int)
    gate.open()
    assert future.result() == "late"


def test_a_task_may_submit_while_the_block_ends() -> None:
    """It is waited for, too; and after the last one the map is closed."""
    clock = WatchedClock()
    gate = Gate()
    started: list[Any] = []

    def body() -> None:
        gate()
        started.append(tasks.submit("b", str, 5))

    def open_when_waited_for() -> None:
        clock.wait_for_sleepers()
        gate.open()

    opener = InThread(open_when_waited_for)
    with ThreadTaskMap(clock=clock) as tasks:
        tasks.submit("a", body)
    opener.result()
    assert started[0].result(0) == "5"
    with pytest.raises(ClosedError):
        tasks.submit("c", int)


def test_a_block_may_be_left_in_another_thread() -> None:
    tasks = ThreadTaskMap().__enter__()
    tasks.submit("a", int)
    InThread(tasks.__exit__, None, None, None).result()
    with pytest.raises(ClosedError):
        tasks.submit("b", int)


def test_all_has_been_heard_when_the_block_is_left() -> None:
    class Slow(Instrument):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def task_succeeded(self, event: TaskSucceeded, /) -> None:
            hears.set()
            reach(may_go)
            self.heard.append(str(event.name))

    hears, may_go = threading.Event(), threading.Event()
    slow = Slow()

    def let_go() -> None:
        reach(hears)
        wait_until(lambda: tasks._backend.block_done)
        may_go.set()

    with ThreadTaskMap(instruments=[slow]) as tasks:
        other = InThread(let_go)
        tasks.submit("a", int)
        reach(hears)
    assert slow.heard == ["a"]
    other.result()


def test_the_block_leaves_no_cycle_and_no_thread() -> None:
    """The map's idle threads end with it, whenever they came to be idle."""
    names = {thread.ident for thread in threading.enumerate()}
    gc.collect()
    gc.disable()
    try:
        with ThreadTaskMap() as tasks:
            for number in range(3):
                tasks.submit(number, int)
        mine = [thread for thread in threading.enumerate() if thread.ident not in names]
        for thread in mine:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        reference = weakref.ref(tasks)
        del tasks
        assert reference() is None
    finally:
        gc.enable()


def test_a_hung_body_does_not_hold_up_the_interpreters_exit() -> None:
    """Without a block nobody waits for it."""
    child = run_child(
        """
        import threading
        import namedtasks

        begun = threading.Event()

        def hang():
            begun.set()
            threading.Event().wait()

        tasks = namedtasks.ThreadTaskMap()
        tasks.submit("hangs", hang, timeout=0.01)
        begun.wait()
        tasks.submit("fine", int).result()
        print("bye")
        """
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "bye\n", "")


def test_a_hung_body_in_a_block_is_left_by_a_second_ctrl_c() -> None:
    """The traceback is the KeyboardInterrupt's; at the exit there is no other."""
    child = run_child(
        """
        import signal, threading
        import namedtasks
        from namedtasks.testing import ManualClock

        signal.signal(signal.SIGINT, signal.default_int_handler)
        clock = ManualClock()
        begun = threading.Event()

        class Clock:
            now = staticmethod(clock.now)

            def wait(self, wake, until):
                if threading.current_thread() is threading.main_thread():
                    signal.raise_signal(signal.SIGINT)
                clock.wait(wake, until)

        def hang():
            begun.set()
            threading.Event().wait()

        try:
            with namedtasks.ThreadTaskMap(clock=Clock()) as tasks:
                tasks.submit("hangs", hang)
                begun.wait()
        except KeyboardInterrupt:
            print("bye", list(tasks))
        """
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "bye ['hangs']\n", "")
