"""Calls of a map from inside one of its calls: signal handlers, ``__del__``, names, pools."""

import gc
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from namedtasks import AlreadyRunningError, ClosedError, State, ThreadTaskMap
from namedtasks._scheduler import Scheduler
from namedtasks._threads.backend import REENTERED
from namedtasks.abc import FailedRun
from tests.threads.helpers import PATIENCE, Gate, HandPool, InThread, boom

MESSAGE = (
    "this call interrupts another call of a task map in the same thread (in a signal handler, a "
    "__del__, a name's __eq__, or a pool that runs functions inside submit()): only close(), the "
    "cancel methods and the methods that only read are allowed there"
)


class Tricky:
    """A name that does something when it is compared."""

    def __init__(self, hash_value: int = 1) -> None:
        self.hash_value = hash_value
        self.on_eq: Callable[[], object] = lambda: None

    def __hash__(self) -> int:
        return self.hash_value

    def __eq__(self, other: object) -> bool:
        self.on_eq()
        return self is other


@contextmanager
def handler(does: Callable[[], object]) -> Generator[Callable[[], None]]:
    """Have a signal handler do something; gives what sends that signal."""

    def handle(_signum: int, _frame: object) -> None:
        does()

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        yield lambda: signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def inside_a_call(tasks: ThreadTaskMap, does: Callable[[], object]) -> None:
    """Have *does* called by a signal handler while this thread owns the lock of the map.

    The call that it interrupts changes nothing.
    """
    free = tasks._backend.scheduler.forget

    def interrupted(_: object, *args: Any) -> Any:
        send()
        return free(*args)

    with handler(does) as send, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scheduler, "forget", interrupted)
        tasks.forget("nobody")


def test_inside_a_call_starts_and_waits_are_refused() -> None:
    """At once, and never as a deadlock."""
    gate = Gate()
    called: list[int] = []
    futures: list[Any] = []

    def handle() -> None:
        for call in (
            lambda: tasks.submit("b", int),
            lambda: tasks.forget("a"),
            lambda: tasks.wait_idle(),
            lambda: tasks.wait_empty(),
            lambda: tasks.wait_free("b"),
            lambda: tasks.shutdown(),
            lambda: futures[0].result(),
            lambda: futures[0].exception(),
            lambda: futures[0].cancel(),
            lambda: tasks.__enter__(),
        ):
            with pytest.raises(RuntimeError) as caught:
                call()
            assert str(caught.value) == MESSAGE == REENTERED
            called.append(1)

    tasks = ThreadTaskMap()
    futures.append(tasks.submit("a", gate))
    inside_a_call(tasks, handle)
    assert len(called) == 10
    assert tasks.submit("b", int).result() == 0, "the refused shutdown has closed nothing"
    gate.open()
    with tasks:
        pass


def test_inside_a_call_a_map_can_be_looked_at() -> None:
    gate = Gate()
    looks: list[Any] = []

    def handle() -> None:
        looks.extend(
            [
                "a" in tasks,
                len(tasks),
                list(tasks),
                tasks["a"].done(),
                tasks.get("b"),
                tasks.state("a"),
                tasks.failure("c") is not None,
                type(tasks.check("a")),
                tasks.statistics().running,
                repr(tasks),
            ]
        )

    with ThreadTaskMap(instruments=()) as tasks:
        tasks.submit("c", boom).exception()
        tasks.submit("a", gate)
        inside_a_call(tasks, handle)
        gate.open()
    assert looks == [
        True,
        1,
        ["a"],
        False,
        None,
        State.RUNNING,
        True,
        AlreadyRunningError,
        1,
        "<namedtasks.ThreadTaskMap running=1 waiting=1>",
    ]


def test_close_and_the_cancel_methods_are_noted_and_done_a_moment_later() -> None:
    """They return what a look says at that moment."""
    gate = Gate()
    pool = HandPool()
    with ThreadTaskMap(limit=1, executor=pool) as tasks:
        tasks.submit("a", gate)
        waits = tasks.submit("b", int)
        after_that = tasks.submit("a", int, if_busy="queue")

        def handle() -> None:
            tasks.close()
            assert tasks.cancel("b", reason="first")
            assert not tasks.cancel("nobody")
            assert tasks.cancel_matching(lambda name: name == "b", reason="second") == 1
            assert tasks.cancel_all(reason="third") == 2
            with pytest.raises(TypeError, match=r"^reason must be a str or None, not 5$"):
                five: Any = 5
                tasks.cancel_all(reason=five)
            assert not waits.done()
            assert tasks.check("c") is None

        inside_a_call(tasks, handle)
        assert waits.cancelled()
        assert waits._run.reason == "first"
        assert after_that.cancelled()
        assert after_that._run.reason == "third"
        with pytest.raises(ClosedError):
            tasks.submit("c", int)
        pool.jobs[0].future.set_result(None)


def test_what_was_noted_is_done_while_other_threads_call() -> None:
    """Others that come and go at the same moment neither lose nor repeat it."""
    gate = Gate()
    with ThreadTaskMap() as tasks:
        tasks.submit("a", gate)
        stop = threading.Event()

        def come_and_go() -> None:
            while not stop.is_set():
                tasks.statistics()

        others = [InThread(come_and_go) for _ in range(2)]
        for number in range(300):
            if number == 150:
                assert tasks._backend.scheduler.running["a"].cancelled_at is not None
            inside_a_call(tasks, tasks.cancel_all)
            assert not tasks._backend.postponed
        stop.set()
        for other in others:
            other.result()
        gate.open()


def test_a_handler_between_two_calls_may_do_anything() -> None:
    results: list[Any] = []
    with ThreadTaskMap() as tasks:
        with handler(lambda: results.append(tasks.submit("a", str, 5).result())) as send:
            send()
    assert results == ["5"]


def call_while_handing_over(
    tasks: ThreadTaskMap, pool: HandPool, does: Callable[[], object]
) -> None:
    """Have *does* called by a handler while this thread is inside of the pool's submit."""
    with handler(does) as send:

        def send_once(_: object) -> None:
            pool.on_submit = lambda job: None
            send()

        pool.on_submit = send_once
        tasks.submit("handed over", int)


def test_a_submit_while_a_run_is_handed_over_is_refused() -> None:
    """A pool's locks are not asked for twice; waits would wait for what is being handed over."""
    pool = HandPool()
    called: list[int] = []

    def handle() -> None:
        for call in (
            lambda: tasks.submit("b", int),
            lambda: tasks.wait_idle(),
            lambda: tasks.wait_free("handed over"),
            lambda: tasks.shutdown(),
        ):
            with pytest.raises(RuntimeError) as caught:
                call()
            assert str(caught.value) == MESSAGE
            called.append(1)
        assert tasks.state("handed over") is State.RUNNING

    with ThreadTaskMap(executor=pool) as tasks:
        call_while_handing_over(tasks, pool, handle)
        assert len(called) == 4
        tasks.submit("b", int)
        for job in pool.jobs:
            job.run()


def test_a_cancel_while_a_run_is_handed_over_starts_the_next_a_moment_later() -> None:
    """What it makes room for is not handed over inside of the other's handing over."""
    pool = HandPool()
    with ThreadTaskMap(limit=2, executor=pool) as tasks:
        tasks.submit("a", int)
        first = pool.jobs[0]

        def handle() -> None:
            tasks.submit  # noqa: B018
            assert InThread(tasks.submit, "next", str).result() is not None
            first.run()
            assert len(pool.jobs) == 2
            assert not tasks["next"].done()
            with pytest.raises(RuntimeError) as caught:
                tasks["next"].result()
            assert str(caught.value) == MESSAGE

        call_while_handing_over(tasks, pool, handle)
        assert len(pool.jobs) == 3
        for job in pool.jobs[1:]:
            job.run()


def test_a_next_one_that_then_cannot_start_fails() -> None:
    pool = HandPool()
    with ThreadTaskMap(limit=2, executor=pool, instruments=()) as tasks:
        tasks.submit("a", int)
        first = pool.jobs[0]
        futures: list[Any] = []

        def handle() -> None:
            futures.append(InThread(tasks.submit, "next", str).result())
            first.run()
            pool.raises = RuntimeError("full")

        call_while_handing_over(tasks, pool, handle)
        assert isinstance(futures[0].exception(), RuntimeError)
        pool.jobs[1].run()


def test_another_map_is_refused_starts_too_while_a_run_is_handed_over() -> None:
    """Two maps may share a pool, and always share the locks of `threading`."""
    pool = HandPool()
    called: list[int] = []

    def handle() -> None:
        for call in (lambda: other.submit("c", str, 5), lambda: other.wait_idle()):
            with pytest.raises(RuntimeError) as caught:
                call()
            assert str(caught.value) == MESSAGE
            called.append(1)
        assert other.cancel_all(reason="noted") == 2
        assert not waits.done()

    with ThreadTaskMap(executor=pool) as tasks, ThreadTaskMap(limit=1, executor=pool) as other:
        runs = other.submit("a", int)
        waits = other.submit("b", int)
        call_while_handing_over(tasks, pool, handle)
        assert len(called) == 2
        assert waits.cancelled()
        for job in pool.jobs:
            job.run()
        assert runs.result() == 0


def test_no_lock_of_threading_is_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that interrupts the start of a thread starts none in there."""
    here = threading.local()
    deepest: list[int] = []
    start = threading.Thread.start
    gate = Gate()

    def handle() -> None:
        for timeout in (None, 9):
            with pytest.raises(RuntimeError, match=r"^this call interrupts another call "):
                other.submit("b", str, 5, timeout=timeout)
        assert other.cancel("deaf"), "which needs the timer, a moment later"

    with ThreadTaskMap() as tasks, ThreadTaskMap() as other, handler(handle) as send:
        other.submit("deaf", gate)
        gate.wait_begun()

        def guarded_start(self: threading.Thread) -> None:
            here.starting = getattr(here, "starting", 0) + 1
            deepest.append(here.starting)
            if len(deepest) == 1:
                send()
            start(self)
            here.starting -= 1

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", guarded_start)
            tasks.submit("a", int).result()
        assert other._backend._has_timer
        gate.open()
    assert deepest == [1, 1]


def test_a_name_whose_eq_calls_the_map_is_told_so() -> None:
    name, other = Tricky(), Tricky()
    gate = Gate()
    with ThreadTaskMap() as tasks:
        other.on_eq = name.on_eq = lambda: tasks.submit(object(), int)
        tasks.submit(name, gate)
        with pytest.raises(RuntimeError) as caught:
            tasks.submit(other, int)
        assert str(caught.value) == MESSAGE
        gate.open()
        assert tasks.wait_idle()
        assert tasks.submit("y", int).result() == 0


class CallsWhenGone:
    """An object in a cycle, that calls a map when it is collected."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.me = self

    def __del__(self) -> None:
        self.call()


def test_a_del_inside_a_call_may_close_and_cancel() -> None:
    """The garbage collector runs wherever it likes."""
    gate = Gate()
    refused: list[str] = []

    def call() -> None:
        tasks.close()
        tasks.cancel_all(reason="gone")
        with pytest.raises(RuntimeError) as caught:
            tasks.submit("c", int)
        refused.append(str(caught.value))

    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("a", gate)
        waits = tasks.submit("b", int)
        CallsWhenGone(call)
        name = Tricky(hash("a"))
        name.on_eq = gc.collect
        assert tasks.forget(name) is False
        assert refused == [MESSAGE]
        assert waits.cancelled()
        with pytest.raises(ClosedError):
            tasks.submit("d", int)
        gate.open()


def test_a_done_callback_and_a_policy_are_outside() -> None:
    """They may call whatever they like."""
    seen: list[Any] = []

    class Policy:
        def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float:
            with pytest.raises(AlreadyRunningError):
                tasks.submit("a", int)
            seen.append(tasks.submit("from the policy", int).result(PATIENCE))
            return 1.0

    def fail() -> None:
        raise ValueError

    with ThreadTaskMap(backoff=Policy(), instruments=()) as tasks:
        tasks.submit("a", fail).add_done_callback(
            lambda _: seen.append(tasks.submit("from the callback", str).result(PATIENCE))
        )
    assert seen == [0, ""]
