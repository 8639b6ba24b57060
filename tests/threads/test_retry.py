"""Retried runs in threads and pools, where the attempts of one run might get mixed up."""

from __future__ import annotations

import contextvars
import gc
import queue
import threading
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import pytest

from namedtasks import Backoff, State, TaskCancelledError, TaskFuture, ThreadTaskMap, current_run
from namedtasks._context import running_in
from namedtasks._threads import backend as backend_module
from namedtasks._threads.sigint import deferred_sigint
from namedtasks.instruments import Instrument, TaskFailed
from namedtasks.testing import ManualClock, RecordingInstrument
from tests.threads.helpers import PATIENCE, Gate, HandPool, InThread, wait_until

VAR: contextvars.ContextVar[int] = contextvars.ContextVar("VAR", default=0)
STEADY = Backoff(initial=5, factor=1)
TIMER = "namedtasks: the map's timer"


def make_map(clock: ManualClock, **settings: Any) -> ThreadTaskMap:
    plain: dict[str, Any] = {"backoff": STEADY, "instruments": (), "clock": clock}
    return ThreadTaskMap(**plain | settings)


class Flaky:
    """A function that fails so often, and then returns the number of its call."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError(f"busy {self.calls}")
        return self.calls


class HandThreads(HandPool, ThreadPoolExecutor):
    """A `HandPool` that is believed to be one of threads of this process."""


class HandQueue(Executor):
    """A pool of an unknown kind with the `submit` of a known one: its `cancel` is believed."""

    submit = ThreadPoolExecutor.submit

    def __init__(self) -> None:
        self._shutdown_lock = threading.Lock()
        self._broken = self._shutdown = False
        self._work_queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def _adjust_thread_count(self) -> None:
        pass

    def run_one(self) -> None:
        self._work_queue.get(timeout=PATIENCE).run()


def wait_to_retry(future: TaskFuture[Any], attempts: int = 1) -> None:
    """Wait until so many attempts of the run have failed, and the next one is pending."""
    run: Any = future._run
    wait_until(lambda: run.deferred == "retry" and run.attempt == attempts)


def dropped(future: TaskFuture[Any]) -> tuple[str | None, str]:
    """Return the reason of a retry that was dropped, and its last failure."""
    with pytest.raises(TaskCancelledError) as caught:
        future.result(PATIENCE)
    return caught.value.reason, repr(caught.value.__cause__)


# A retry that waits is ended


CANCELS: list[Callable[[ThreadTaskMap], object]] = [
    lambda tasks: tasks.cancel("a", reason="enough"),
    lambda tasks: tasks.cancel_all(reason="enough"),
    lambda tasks: tasks.cancel_matching("a".__eq__, reason="enough"),
]


@pytest.mark.parametrize("cancel", CANCELS, ids=["cancel", "cancel_all", "cancel_matching"])
def test_a_retry_that_waits_is_cancelled_at_once(cancel: Callable[[ThreadTaskMap], object]) -> None:
    with make_map(ManualClock()) as tasks:
        future = tasks.submit("a", Flaky(1), retry=True)
        wait_to_retry(future)
        joined = tasks.submit("a", int, if_busy="join")
        assert cancel(tasks)
        assert tasks.pending() == []
        assert dropped(future) == ("enough", "OSError('busy 1')")
        assert dropped(joined) == ("enough", "OSError('busy 1')")
        assert (future.cancelled(), future.attempts) == (False, 1)


def test_the_future_of_a_retry_that_waits_cancels_it() -> None:
    with make_map(ManualClock()) as tasks:
        future = tasks.submit("a", Flaky(1), retry=True)
        wait_to_retry(future)
        assert future.cancel()
        assert future.cancelled()
        assert tasks.pending() == []
        with pytest.raises(CancelledError):
            future.result(PATIENCE)


def test_an_exception_of_the_block_ends_a_retry_that_waits() -> None:
    futures: list[TaskFuture[int]] = []

    def block() -> None:
        with make_map(ManualClock()) as tasks:
            futures.append(tasks.submit("a", Flaky(1), retry=True))
            wait_to_retry(futures[0])
            raise ValueError("no more")

    with pytest.raises(ValueError, match=r"^no more$"):
        block()
    assert dropped(futures[0])[0] == "the map's block raised ValueError: no more"


def test_a_start_in_a_cancelled_block_is_not_retried() -> None:
    """The block ends: so it does not wait for attempt after attempt."""
    begun, late = threading.Event(), list[TaskFuture[int]]()

    def starts_another() -> None:
        run = current_run()
        begun.set()
        wait_until(lambda: run.cancel_requested)
        late.append(tasks.submit("late", Flaky(10**9), retry=True))

    def block() -> None:
        with tasks:
            tasks.submit("a", starts_another)
            assert begun.wait(PATIENCE)
            raise ValueError("no more")

    tasks = make_map(ManualClock())
    with pytest.raises(ValueError, match=r"^no more$"):
        block()
    assert repr(late[0].exception(PATIENCE)) == "OSError('busy 1')"


def test_close_drops_a_retry_that_waits_for_a_run() -> None:
    """Not only one that waits for a time; the run in its way goes on."""
    gate, clock = Gate(), ManualClock()
    with make_map(clock) as tasks:
        future = tasks.submit("a", Flaky(1), retry=True)
        wait_to_retry(future)
        other = tasks.submit("a", gate, operation="other")
        gate.wait_begun()
        clock.advance(5)
        wait_until(lambda: tasks.pending()[0].holder == "a")
        tasks.close()
        assert tasks.pending() == []
        assert dropped(future) == ("the map is closing", "OSError('busy 1')")
        assert not other.done()
        gate.open()


def test_a_retry_that_is_cancelled_while_others_are_being_begun_does_not_hold_them_up() -> None:
    """Between the end of its wait and its submission; all three fall due in one step."""
    entered, goes_on, calls = threading.Event(), threading.Event(), list[int]()

    def factory() -> Executor:
        calls.append(1)
        if len(calls) == 2:
            entered.set()
            assert goes_on.wait(PATIENCE)
        return pool

    clock = ManualClock()
    with ThreadPoolExecutor(1) as pool, make_map(clock) as tasks:
        futures = [
            tasks.submit(
                number,
                Flaky(1),
                retry=True,
                executor=factory if number == 1 else None,
                backoff=Backoff(initial=number, factor=1),
            )
            for number in (1, 2, 3)
        ]
        for future in futures:
            wait_to_retry(future)
        clock.advance(5)
        assert entered.wait(PATIENCE)
        assert tasks.cancel(2, reason="enough")
        goes_on.set()
        assert futures[0].result(PATIENCE) == futures[2].result(PATIENCE) == 2
        assert dropped(futures[1]) == ("enough", "OSError('busy 1')")
        assert futures[1].attempts == 1
        assert len(tasks) == 0


# Pools


def test_a_job_that_its_pool_has_kept_runs_no_later_attempt() -> None:
    """The pool queued it before its submit raised: that attempt has failed, and is over."""

    def refuses(_: object) -> None:
        raise RuntimeError("can't start new thread")

    pool, clock, recorder = HandThreads(), ManualClock(), RecordingInstrument()
    body = Flaky(1)
    with make_map(clock, executor=pool, instruments=[recorder]) as tasks:
        future = tasks.submit("a", body, retry=True)
        pool.jobs[0].run()
        pool.on_submit = refuses
        clock.advance(5)
        wait_to_retry(future, 2)
        pool.on_submit = lambda _: None
        clock.advance(5)
        wait_until(lambda: len(pool.jobs) == 3)
        pool.jobs[1].run()
        assert (body.calls, "a" in tasks, future.done()) == (1, True, False)
        pool.jobs[2].run()
        assert (future.result(PATIENCE), future.attempts) == (2, 2)
    assert [repr(event.error) for event in recorder.of(TaskFailed)] == [
        "OSError('busy 1')",
        'RuntimeError("can\'t start new thread")',
    ]


def test_a_job_that_its_pool_has_kept_does_not_begin_an_attempt_that_is_being_submitted() -> None:
    """The run has its name and its slot then, and its function is not with a pool yet."""
    calls: list[int] = []

    def refuses(_: object) -> None:
        raise RuntimeError("can't start new thread")

    def factory() -> Executor:
        if len(pool.jobs) == 2:
            pool.on_submit = lambda _: None
            pool.jobs[1].run()
            calls.append(body.calls)
        return pool

    pool, clock, body = HandThreads(), ManualClock(), Flaky(1)
    with make_map(clock) as tasks:
        future = tasks.submit("a", body, retry=True, executor=factory)
        pool.jobs[0].run()
        pool.on_submit = refuses
        clock.advance(5)
        wait_to_retry(future, 2)
        clock.advance(5)
        wait_until(lambda: len(pool.jobs) == 3)
        assert calls == [1]
        pool.jobs[2].run()
        assert future.result(PATIENCE) == 2


def test_a_job_that_its_pool_has_kept_does_not_end_the_attempt_under_way() -> None:
    """The name stays taken while the body runs."""

    def refuses(_: object) -> None:
        raise RuntimeError("can't start new thread")

    gate, ends = Gate(), iter([OSError("busy"), "attached"])
    pool, clock = HandThreads(), ManualClock()
    with make_map(clock, executor=pool) as tasks:
        gate.open()
        future = tasks.submit("a", lambda: gate(next(ends)), retry=True)
        pool.jobs[0].run()
        pool.on_submit = refuses
        clock.advance(5)
        wait_to_retry(future, 2)
        gate.begun.clear()
        gate.may_go.clear()
        pool.on_submit = lambda _: None
        clock.advance(5)
        wait_until(lambda: len(pool.jobs) == 3)
        attempt = InThread(pool.jobs[2].run)
        gate.wait_begun()
        pool.jobs[1].run()
        assert (future.running(), "a" in tasks) == (True, True)
        gate.open()
        assert future.result(PATIENCE) == "attached"
        attempt.result()


def test_a_submit_that_raises_after_the_body_has_failed_takes_nothing_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The caller gets the future, as the run goes on; the pool's error is logged."""

    def runs_and_raises(job: Any) -> None:
        job.run()
        raise RuntimeError("can't start new thread")

    pool, clock = HandThreads(), ManualClock()
    with make_map(clock, executor=pool) as tasks:
        pool.on_submit = runs_and_raises
        future = tasks.submit("a", Flaky(1), retry=True)
        assert [record.message for record in caplog.records] == [
            "a pool's submit() raised an error, and the pool runs the job all the same"
        ]
        assert tasks.pending()[0].kind == "retry"
        pool.on_submit = lambda job: job.run()
        clock.advance(5)
        assert future.result(PATIENCE) == 2


def test_a_later_submit_that_raises_after_the_body_has_succeeded_fails_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def runs_and_raises(job: Any) -> None:
        job.run()
        raise RuntimeError("can't start new thread")

    pool, clock = HandThreads(), ManualClock()
    with make_map(clock, executor=pool) as tasks:
        future = tasks.submit("a", Flaky(1), retry=True)
        pool.jobs[0].run()
        pool.on_submit = runs_and_raises
        clock.advance(5)
        assert future.result(PATIENCE) == 2
        wait_until(lambda: caplog.records)


@pytest.mark.parametrize("kind", [HandPool, HandThreads])
def test_attempts_count_only_bodies_that_began(kind: Callable[[], HandPool]) -> None:
    """A pool that refuses an attempt has called no body."""
    pool, clock, body = kind(), ManualClock(), Flaky(1)
    with make_map(clock, executor=pool) as tasks:
        future = tasks.submit("a", body, retry=True)
        pool.jobs[0].run()
        pool.raises = RuntimeError("full")
        for attempt in (2, 3, 4):
            clock.advance(5)
            wait_to_retry(future, attempt)
        assert future.attempts == 1
        pool.raises = None
        clock.advance(5)
        wait_until(lambda: len(pool.jobs) == 2)
        pool.jobs[1].run()
        assert (future.result(PATIENCE), body.calls, future.attempts) == (2, 2, 2)


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_future_cancels_an_attempt_that_is_queued_in_a_pool(attempts: int) -> None:
    """The first as any later one."""
    pool, clock, body = HandQueue(), ManualClock(), Flaky(1)
    with make_map(clock, executor=pool) as tasks:
        future = tasks.submit("a", body, retry=True)
        if attempts == 2:
            pool.run_one()
            clock.advance(5)
            run: Any = future._run
            wait_until(lambda: run.attempt == 1 and run.in_pool and run.job is not None)
        assert future.cancel()
        assert future.cancelled()
        with pytest.raises(CancelledError):
            future.result(PATIENCE)
        assert (body.calls, len(tasks), tasks.pending()) == (attempts - 1, 0, [])


def test_a_future_does_not_cancel_an_attempt_that_runs() -> None:
    gate, clock = Gate(), ManualClock()
    with make_map(clock) as tasks:
        future = tasks.submit("a", gate, 1, retry=True)
        gate.wait_begun()
        assert not future.cancel()
        gate.open()
        assert future.result(PATIENCE) == 1


def lose_worker(run: Any, attempt: int) -> None:
    """Do what a pool does that has lost a worker in an attempt."""
    run.backend.note_lost_worker(run, attempt)


@pytest.mark.parametrize("cancels", [False, True])
def test_a_lost_worker_is_retried_unless_the_run_is_cancelled_after_it(cancels: bool) -> None:
    gate, clock, calls = Gate(), ManualClock(), list[int]()

    def body() -> int:
        calls.append(1)
        if len(calls) == 1:
            lose_worker(running_in.get(), 0)
            gate(BrokenProcessPool("lost"))
        return len(calls)

    with make_map(clock) as tasks:
        future = tasks.submit("a", body, retry=True)
        gate.wait_begun()
        if cancels:
            assert tasks.cancel("a", reason="enough")
            gate.open()
            assert isinstance(future.exception(PATIENCE), BrokenProcessPool)
        else:
            gate.open()
            wait_to_retry(future)
            clock.advance(5)
            assert future.result(PATIENCE) == 2


def test_a_worker_lost_in_an_earlier_attempt_does_not_stop_a_later_one() -> None:
    gate, clock, ends = Gate(), ManualClock(), iter([OSError("busy"), "attached"])
    with make_map(clock) as tasks:
        gate.open()
        future = tasks.submit("a", lambda: gate(next(ends)), retry=True)
        wait_to_retry(future)
        gate.begun.clear()
        gate.may_go.clear()
        clock.advance(5)
        gate.wait_begun()
        run: Any = future._run
        lose_worker(run, 0)
        assert not run.is_asked_to_stop()
        lose_worker(run, 1)
        assert run.is_asked_to_stop()
        gate.open()
        assert future.result(PATIENCE) == "attached"


def test_a_submit_that_raises_for_an_attempt_that_was_cancelled_meanwhile_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The pool does not run it either: all is well."""

    def cancels_and_raises(_: object) -> None:
        assert InThread(tasks.cancel, "a", reason="enough").result()
        raised.set()
        raise RuntimeError("can't start new thread")

    pool, clock, raised = HandThreads(), ManualClock(), threading.Event()
    with make_map(clock) as tasks:
        future = tasks.submit("a", Flaky(1), executor=pool, retry=True)
        pool.jobs[0].run()
        pool.on_submit = cancels_and_raises
        clock.advance(5)
        assert raised.wait(PATIENCE)
        assert dropped(future) == ("enough", "OSError('busy 1')")
        # The timer goes on with other retries.
        other = tasks.submit("b", Flaky(1), retry=True)
        wait_to_retry(other)
        clock.advance(5)
        assert other.result(PATIENCE) == 2
    assert caplog.records == []


# The timer


@contextmanager
def no_timer() -> Generator[None]:
    """No thread can be had for the map's timer; for anything else there are some."""

    def start(thread: threading.Thread, start: Any = threading.Thread.start) -> None:
        if thread.name == TIMER:
            raise RuntimeError("can't start new thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        yield


@pytest.mark.parametrize("asks_future", [False, True])
def test_a_wait_starts_the_timer_that_could_not_be_started_for_a_retry(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, asks_future: bool
) -> None:
    """Its thread had left, and there was none to be had when the attempt failed."""
    monkeypatch.setattr(backend_module, "LINGERS", 0.001)
    gate, clock, ends = Gate(), ManualClock(), iter([OSError("busy"), "attached"])
    with make_map(clock) as tasks:
        future = tasks.submit("a", lambda: gate(next(ends)), retry=True)
        gate.wait_begun()
        wait_until(lambda: not tasks._backend._has_timer)
        with no_timer():
            gate.open()
            wait_until(lambda: caplog.records)
        assert "no thread can be started for a map's timer" in caplog.records[0].message
        clock.advance(5)
        assert not tasks._backend._has_timer
        assert asks_future or tasks.wait_idle(PATIENCE)
        assert future.result(PATIENCE) == "attached"


# Attempts


def test_each_attempt_has_its_own_copy_of_the_context_of_the_start() -> None:
    """What one attempt sets is not there in the next one, nor what the starter sets later."""
    seen: list[int] = []

    def body() -> None:
        seen.append(VAR.get())
        VAR.set(VAR.get() + 1)
        if len(seen) < 3:
            raise OSError("busy")

    clock = ManualClock()
    with make_map(clock) as tasks:
        VAR.set(10)
        future = tasks.submit("a", body, retry=True)
        VAR.set(99)
        for attempts in (1, 2):
            wait_to_retry(future, attempts)
            clock.advance(5)
        future.result(PATIENCE)
    assert seen == [10, 10, 10]


def test_without_retention_failures_of_a_retry_are_still_counted() -> None:
    clock = ManualClock()
    with make_map(clock, backoff=Backoff(initial=1, give_up_after=3), retention=0) as tasks:
        future = tasks.submit("a", Flaky(10**9), retry=True)
        for attempts in (1, 2):
            wait_to_retry(future, attempts)
            clock.advance(2)
        assert repr(future.exception(PATIENCE)) == "OSError('busy 3')"
        assert tasks.state("a") is State.GAVE_UP


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_an_instrument_may_end_the_run_when_it_hears_of_a_failure(end: str) -> None:
    class Ends(Instrument):
        def task_failed(self, event: TaskFailed, /) -> None:
            assert event.will_retry
            if end == "close":
                tasks.close()
            else:
                tasks.cancel("a", reason="enough")

    with make_map(ManualClock(), instruments=[Ends()]) as tasks:
        future = tasks.submit("a", Flaky(1), retry=True)
        reason, cause = dropped(future)
    assert cause == "OSError('busy 1')"
    assert reason == ("the map is closing" if end == "close" else "enough")


def test_an_instrument_may_forget_the_name_when_it_hears_of_a_failure() -> None:
    class Forgets(Instrument):
        def task_failed(self, event: TaskFailed, /) -> None:
            tasks.forget("a")

    with make_map(ManualClock(), instruments=[Forgets()]) as tasks:
        assert tasks.submit("a", Flaky(2), retry=True).result(PATIENCE) == 3


# Futures


def test_a_joined_future_that_has_an_error_cannot_be_cancelled() -> None:
    """The run's own is cancelled, as its body never began; the joined one knows the reason."""
    gate = Gate()
    with make_map(ManualClock(), limit=1) as tasks:
        tasks.submit("a", gate)
        own = tasks.submit("b", int)
        joined = tasks.submit("b", int, if_busy="join")
        tasks.cancel("b", reason="enough")
        assert dropped(joined) == ("enough", "None")
        assert (joined.cancel(), joined.cancelled()) == (False, False)
        assert (own.cancel(), own.cancelled()) == (True, True)
        gate.open()


def test_a_retry_that_the_map_has_dropped_is_not_cancelled_by_its_future() -> None:
    """It has an error. One that its future has cancelled stays cancelled."""
    with make_map(ManualClock()) as tasks:
        futures = [tasks.submit(number, Flaky(1), retry=True) for number in range(2)]
        for future in futures:
            wait_to_retry(future)
        tasks.cancel(0)
        assert dropped(futures[0]) == (None, "OSError('busy 1')")
        assert (futures[0].cancel(), futures[0].cancelled()) == (False, False)
        for _ in range(2):
            assert (futures[1].cancel(), futures[1].cancelled()) == (True, True)


def test_a_forked_child_cancels_no_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on in the parent process."""
    with make_map(ManualClock()) as tasks:
        future = tasks.submit("a", Flaky(1), retry=True)
        wait_to_retry(future)
        monkeypatch.setattr(tasks._backend.scheduler, "forked", True)
        assert (future.cancel(), future.cancelled()) == (False, False)
        monkeypatch.undo()
        assert future.cancel()


def outcome_of(future: TaskFuture[Any]) -> str:
    return "cancelled" if future.cancelled() else repr(future.exception())


@pytest.mark.parametrize("outcome", ["None", "OSError('busy 1')", "cancelled"])
def test_whoever_waits_as_for_any_future_is_woken(outcome: str) -> None:
    """By `concurrent.futures.wait`, which registers with each future."""
    gate = Gate()
    with make_map(ManualClock(), limit=1) as tasks:
        tasks.submit("first", gate)
        gate.wait_begun()
        future: Any = tasks.submit("a", Flaky(int(outcome != "None")))
        waits = InThread(wait, [future])
        wait_until(lambda: future._waiters)
        if outcome == "cancelled":
            future.cancel()
        gate.open()
        assert waits.result().done == {future}
        assert outcome_of(future) == outcome


def test_with_nothing_deferred_there_is_no_ctrl_c_to_deliver() -> None:
    assert not deferred_sigint.pending
    deferred_sigint.deliver()


def test_a_future_that_has_left_a_run_is_cancelled_for_good() -> None:
    gate = Gate()
    with make_map(ManualClock()) as tasks:
        own = tasks.submit("a", gate, 1)
        joined = tasks.submit("a", gate, if_busy="join")
        assert (joined.cancel(), joined.cancel(), joined.cancelled()) == (True, True, True)
        gate.open()
        assert own.result(PATIENCE) == 1
        assert (own.cancel(), own.cancelled()) == (False, False)
        assert (joined.cancel(), joined.cancelled()) == (True, True)


def test_all_who_join_get_the_outcome_of_the_last_attempt() -> None:
    clock = ManualClock()
    with make_map(clock) as tasks:
        first = tasks.submit("a", Flaky(1), if_busy="join", retry=True)
        wait_until(tasks.pending)
        second = tasks.submit("a", int, if_busy="join")
        assert repr(second) == "<namedtasks.TaskFuture 'a' waiting to retry>"
        clock.advance(5)
        assert (first.result(PATIENCE), second.result(PATIENCE)) == (2, 2)


def test_a_future_tells_that_its_run_waits_to_retry() -> None:
    clock = ManualClock()
    with make_map(clock) as tasks:
        future = tasks.submit("a", Flaky(1), retry=True)
        wait_to_retry(future)
        assert repr(future) == "<namedtasks.TaskFuture 'a' waiting to retry>"
        assert (future.running(), future.started_at, future.attempts) == (False, None, 1)
        clock.advance(5)
        future.result(PATIENCE)
        assert repr(future) == "<namedtasks.TaskFuture 'a' succeeded>"


@pytest.mark.parametrize("verb", ["result", "exception"])
def test_a_run_may_not_wait_for_the_retry_that_waits_for_it(verb: str) -> None:
    """It would wait for its own end."""

    def body() -> None:
        clock.advance(5)
        wait_until(lambda: tasks.pending()[0].holder == "a")
        with pytest.raises(RuntimeError, match=message):
            getattr(future, verb)(timeout=PATIENCE)

    message = rf"^inside task 'a', {verb}\(\) of a run that is queued behind it would wait for the "
    clock = ManualClock()
    with make_map(clock) as tasks:
        future = tasks.submit("a", Flaky(1), retry=True)
        wait_to_retry(future)
        tasks.submit("a", body, operation="other").result(PATIENCE)
        assert future.result(PATIENCE) == 2


# What is kept


@pytest.mark.parametrize("if_busy", ["refuse", "join"])
@pytest.mark.parametrize("calls", [1, 2])
def test_nothing_of_the_start_is_kept_after_the_end(calls: int, if_busy: Any) -> None:
    class Argument:
        pass

    box: list[int] = []

    def body(_: Argument) -> None:
        box.append(1)
        if len(box) < calls:
            raise OSError("busy")

    argument = Argument()
    weak = weakref.ref(argument)
    clock = ManualClock()
    with make_map(clock) as tasks:
        future: Any = tasks.submit("a", body, argument, retry=True, if_busy=if_busy)
        del argument
        if calls == 2:
            wait_to_retry(future)
            clock.advance(5)
        future.result(PATIENCE)
    gc.collect()
    assert weak() is None
    run: Any = future._run
    assert (run.source, run.fn, run.args, run.context) == (None, None, (), None)


@pytest.mark.parametrize("end", ["cancel", "future", "give up"])
def test_nothing_of_a_start_that_did_not_succeed_is_kept(end: str) -> None:
    clock = ManualClock()
    with make_map(clock, backoff=Backoff(initial=5, give_up_after=2)) as tasks:
        future = tasks.submit("a", Flaky(2), retry=True)
        wait_to_retry(future)
        if end == "cancel":
            tasks.cancel("a")
        elif end == "future":
            future.cancel()
        else:
            clock.advance(5)
        assert tasks.wait_idle(PATIENCE)
    run: Any = future._run
    assert (run.source, run.fn, run.args, run.context) == (None, None, (), None)
    assert (run.handle, run.job) == (None, None)


# Waits


def test_each_kind_of_wait_waits_for_a_retry() -> None:
    gate, ends, clock = Gate(), iter([OSError("busy"), "attached"]), ManualClock()
    with make_map(clock) as tasks:
        future = tasks.submit("a", lambda: gate(next(ends)), retry=True)
        gate.wait_begun()
        waits = [
            InThread[Any](future.result, PATIENCE),
            InThread[Any](tasks.wait_idle),
            InThread[Any](tasks.wait_empty),
            InThread[Any](tasks.wait_free, "a"),
        ]
        gate.open()
        wait_to_retry(future)
        assert not tasks.wait_idle(0)
        assert not tasks.wait_empty(0)
        assert not tasks.wait_free("a", 0)
        assert tasks.wait_free("a", 0, operation="other")
        assert not any(wait.is_done for wait in waits)
        clock.advance(5)
        assert [wait.result() for wait in waits] == ["attached", True, True, True]


def test_shutdown_drops_a_retry_and_waits_for_an_attempt() -> None:
    gate = Gate()
    with make_map(ManualClock()) as tasks:
        waits = tasks.submit("waits", Flaky(1), retry=True)
        wait_to_retry(waits)
        runs = tasks.submit("runs", gate, OSError("busy"), retry=True)
        gate.wait_begun()
        ends = InThread(tasks.shutdown)
        assert dropped(waits) == ("the map is closing", "OSError('busy 1')")
        assert not ends.is_done
        gate.open()
        assert ends.result() == ()
        assert repr(runs.exception(PATIENCE)) == "OSError('busy')"


def test_the_end_of_the_block_waits_for_a_retry() -> None:
    def block() -> TaskFuture[int]:
        with tasks:
            return tasks.submit("a", Flaky(1), retry=True)

    clock = ManualClock()
    tasks = make_map(clock)
    leaves = InThread(block)
    wait_until(tasks.pending)
    assert not leaves.is_done
    clock.advance(5)
    assert leaves.result().result(0) == 2
