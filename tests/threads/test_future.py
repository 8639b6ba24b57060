"""The future of a run: a `concurrent.futures.Future` that knows its task."""

import concurrent.futures
import logging
import threading
from concurrent.futures import Future, as_completed
from typing import Any

import pytest

from namedtasks import State, TaskCancelledError, TaskFuture, ThreadTaskMap, current_run
from namedtasks._base import run_due
from namedtasks._threads.backend import ThreadBackend
from namedtasks.testing import ManualClock
from tests.threads.helpers import (
    PATIENCE,
    Gate,
    HandPool,
    InThread,
    boom,
    idle_threads,
    reach,
    wait_until,
)


def test_a_run_that_has_begun_cannot_be_cancelled() -> None:
    """`Future.cancel` is True only before the body begins; `ThreadTaskMap.cancel` asks a body."""
    gate = Gate()
    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", gate, "done")
        gate.wait_begun()
        assert future.running()
        assert not future.cancel()
        gate.open()
        assert future.result() == "done"
        assert not future.cancel()


def test_a_cancelled_run_releases_everything() -> None:
    """Its name, its place in line; and its body never runs."""
    gate = Gate()
    ran: list[int] = []
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", gate)
        future = tasks.submit("a", ran.append, 1)
        assert future.cancel()
        assert future.cancel(), "as often as one likes"
        assert future.cancelled()
        assert tasks.state("a") is State.FREE
        assert tasks.statistics().waiting_for_slot == 0
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()
        again = tasks.submit("a", ran.append, 2)
        gate.open()
        again.result()
    assert ran == [2]


def test_a_run_that_was_cancelled_before_it_began_tells_the_reason() -> None:
    """Other than `concurrent.futures.CancelledError` itself, its cause has a place for one."""
    gate = Gate()
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", gate)
        future = tasks.submit("a", int)
        tasks.cancel("a", reason="not needed")
        for ask in (future.result, future.exception):
            with pytest.raises(concurrent.futures.CancelledError) as caught:
                ask()
            cause = caught.value.__cause__
            assert isinstance(cause, TaskCancelledError)
            assert (cause.name, cause.reason) == ("a", "not needed")
        gate.open()


@pytest.mark.parametrize("how", ["wait", "as_completed"])
def test_who_waits_for_many_hears_of_a_cancelled_one(how: str) -> None:
    gate = Gate()
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", gate)
        future = tasks.submit("a", int)
        waits_already = threading.Event()

        class Watched(list[Future[Any]]):
            def __iter__(self) -> Any:
                waits_already.set()
                return super().__iter__()

        def wait() -> Any:
            if how == "wait":
                return concurrent.futures.wait(Watched([future]), PATIENCE).done
            return set(as_completed(Watched([future]), PATIENCE))

        waiter = InThread(wait)
        reach(waits_already)
        assert future.cancel()
        assert waiter.result() == {future}
        gate.open()


def test_a_callback_that_exits_keeps_no_waiter_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`SystemExit` in the callback of a cancelled future is logged, and the rest is done."""

    def leave(_: object) -> None:
        raise SystemExit(3)

    gate = Gate()
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", gate)
        future = tasks.submit("a", int)
        future.add_done_callback(leave)
        inside: Any = concurrent.futures._base
        waiter = inside._create_and_install_waiters([future], "FIRST_COMPLETED")
        assert future.cancel()
        assert waiter.event.is_set()
        gate.open()
    assert "a callback of the future of task 'a' failed" in caplog.text


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3)])
def test_a_callback_that_raises_harms_nothing(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the map goes on."""

    def callback(_: object) -> None:
        raise error

    gate = Gate()
    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", gate)
        future.add_done_callback(callback)
        gate.open()
        future.result()
    assert repr(error) in caplog.text or str(error) in caplog.text
    assert len(tasks) == 0


def test_a_callback_may_start_the_same_name_again() -> None:
    """The future is completed after the name is free; also at the end of the block."""
    seen: list[TaskFuture[int]] = []
    gate = Gate()

    def again(future: Future[Any]) -> None:
        if len(seen) < 3:
            seen.append(tasks.submit("a", len, "four"))
            seen[-1].add_done_callback(again)

    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", gate)
        future.add_done_callback(again)
        gate.open()
    assert [one.result() for one in seen] == [4, 4, 4]


def test_a_callback_may_start_something_while_another_run_ends_the_block() -> None:
    """The block is over when nobody is being told who may start something yet."""
    tells = threading.Event()
    other_is_told = threading.Event()
    started: list[TaskFuture[str]] = []

    def callback(_: object) -> None:
        tells.set()
        reach(other_is_told)
        started.append(tasks.submit("next", str, 5))

    def body() -> None:
        reach(may_end)

    may_end = threading.Event()
    with ThreadTaskMap() as tasks:
        shell = tasks._backend
        slow = tasks.submit("slow to tell", body)
        slow.add_done_callback(callback)
        gate = Gate()
        other = tasks.submit("other", gate)

        def drive() -> None:
            while not shell.block_done:
                pass
            may_end.set()
            reach(tells)
            gate.open()
            other.result(PATIENCE)
            worker_is_through(tasks)
            other_is_told.set()

        driver = InThread(drive)
    driver.result()
    assert started[0].result() == "5"


def test_the_block_does_not_close_the_map_while_a_future_is_about_to_be_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The callbacks of a run that has ended may start something, though another run ends now."""
    publish: Any = ThreadBackend._publish
    ends, may_publish = threading.Event(), threading.Event()
    started: list[TaskFuture[str]] = []
    gates = [Gate(), Gate()]

    def slow_publish(backend: Any, run: Any, *args: Any, **options: Any) -> None:
        if run.name == "slow to end":
            ends.set()
            reach(may_publish)
        publish(backend, run, *args, **options)

    monkeypatch.setattr(ThreadBackend, "_publish", slow_publish)
    with ThreadTaskMap() as tasks:
        slow, other = tasks.submit("slow to end", gates[0]), tasks.submit("other", gates[1])
        slow.add_done_callback(lambda _: started.append(tasks.submit("next", str, 5)))

        def drive() -> None:
            wait_until(lambda: tasks._backend.block_done)
            gates[0].open()
            reach(ends)
            gates[1].open()
            other.result(PATIENCE)
            worker_is_through(tasks)
            may_publish.set()

        driver = InThread(drive)
    driver.result()
    assert started[0].result() == "5"


def worker_is_through(tasks: ThreadTaskMap) -> None:
    """Wait until the thread that has ended a run is ready for another."""
    while not idle_threads(tasks):
        pass


def test_a_result_that_is_late_for_its_reader_comes_later() -> None:
    gate = Gate()
    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", gate, "value")
        with pytest.raises(TimeoutError):
            future.result(0)
        with pytest.raises(TimeoutError):
            future.exception(0)
        gate.open()
        assert future.result() == "value"
        assert future.exception() is None


@pytest.mark.parametrize("method", ["result", "exception"])
def test_waiting_for_oneself_is_refused(method: str) -> None:
    def body() -> None:
        with pytest.raises(
            RuntimeError,
            match=rf"^inside task 'a', {method}\(\) of its own future would wait for the task "
            r"itself: call it outside the task$",
        ):
            getattr(tasks["a"], method)()

    with ThreadTaskMap() as tasks:
        tasks.submit("a", body).result()


def test_a_future_tells_its_state() -> None:
    clock = ManualClock()
    gate = Gate()
    pool = HandPool()
    with ThreadTaskMap(limit=1, clock=clock, instruments=(), backoff=None) as tasks:
        future = tasks.submit("a", gate, timeout=1)
        waits = tasks.submit("b", boom)
        assert repr(waits) == "<namedtasks.TaskFuture 'b' not begun>"
        gate.wait_begun()
        assert repr(future) == "<namedtasks.TaskFuture 'a' running>"
        clock.advance(5)
        run_due(tasks._backend)
        assert repr(future) == "<namedtasks.TaskFuture 'a' overdue>"
        gate.open()
        future.result()
        assert repr(future) == "<namedtasks.TaskFuture 'a' succeeded>"
        waits.exception()
        assert repr(waits) == "<namedtasks.TaskFuture 'b' failed>"
        held = tasks.submit("c", int, executor=pool)
        never = tasks.submit("d", int)
        assert never.cancel()
        assert repr(never) == "<namedtasks.TaskFuture 'd' cancelled>"
        assert repr(held) == "<namedtasks.TaskFuture 'c' running>", "as far as anybody knows"
        pool.jobs[0].run()

        def heeds() -> None:
            tasks.cancel("e")
            current_run().check_cancelled()

        heeded = tasks.submit("e", heeds)
        assert isinstance(heeded.exception(), TaskCancelledError)
        assert repr(heeded) == "<namedtasks.TaskFuture 'e' cancelled>"


def test_cancel_is_true_before_the_future_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second caller that cancels gets the same answer, while the first one still publishes."""
    gate = Gate()
    answers: list[bool] = []
    kind: Any = TaskFuture
    publish = kind._publish

    def slow_publish(future: TaskFuture[Any]) -> None:
        if future.name == "a":
            assert not future.done()
            answers.append(InThread(future.cancel).result())
        publish(future)

    monkeypatch.setattr(TaskFuture, "_publish", slow_publish)
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", gate)
        future = tasks.submit("a", int)
        future.add_done_callback(id)
        assert future.cancel()
        gate.open()
    assert answers == [True]


def test_cancel_is_true_before_a_joined_future_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the run, which others share, goes on."""
    gate = Gate()
    answers: list[bool] = []
    kind: Any = TaskFuture
    publish = kind._publish

    def slow_publish(future: TaskFuture[Any]) -> None:
        if not answers:
            answers.append(InThread(future.cancel).result())
        publish(future)

    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", gate)
        first = tasks.submit("a", str, 5)
        joined = tasks.submit("a", str, 5, if_busy="join")
        joined.add_done_callback(id)
        with monkeypatch.context() as patch:
            patch.setattr(TaskFuture, "_publish", slow_publish)
            assert joined.cancel()
        assert joined.cancelled()
        gate.open()
        assert first.result() == "5"
    assert answers == [True]


def test_the_maps_lock_is_not_held_while_the_futures_condition_is_awaited() -> None:
    """A thread that holds the Condition, as `Future.done` does, may ask for the map's lock."""
    pool = HandPool()
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("holds the slot", int, executor=pool)
        future = tasks.submit("a", str)
        with future._condition:
            pool.jobs[0].run()
            wait_until(lambda: tasks.state("a") is State.FREE)
            assert InThread(tasks.statistics).result().running == 0
            assert not future.done()
        assert future.result() == ""


def test_waiting_in_a_foreign_result_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        with ThreadTaskMap() as tasks:
            assert tasks.submit("a", int).result(PATIENCE) == 0
    assert caplog.text == ""
