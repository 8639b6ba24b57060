"""Who calls a map from inside of a call: signal handlers, ``__del__``, names, pools."""

import gc
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from namedtasks import AlreadyRunningError, ClosedError, State, ThreadTaskMap
from namedtasks._threads.locking import REENTERED
from tests.threads.helpers import PATIENCE, Gate, HandPool, InThread

MESSAGE = (
    "a task map was called from inside of one of its own calls, by a signal handler, a "
    "__del__, a name's __eq__, or a pool that runs functions in place: there only close() "
    "and cancel_all() may be called"
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


def inside_the_guard(tasks: ThreadTaskMap, does: Callable[[], object]) -> None:
    """Have *does* called by a signal handler while this thread is inside of the map."""
    with handler(does) as send:
        with tasks._shell.guard:
            send()


def test_inside_of_a_call_everything_that_needs_an_answer_is_refused() -> None:
    """At once, and never as a deadlock."""
    gate = Gate()
    called: list[int] = []

    def handle() -> None:
        for call in (
            lambda: tasks.submit("b", int),
            lambda: tasks.state("a"),
            lambda: tasks.cancel("a"),
            lambda: tasks.forget("a"),
            lambda: tasks.wait_idle(),
            lambda: tasks.wait_free("b"),
            lambda: tasks.shutdown(),
            lambda: tasks["a"],
            lambda: len(tasks),
            lambda: repr(tasks),
        ):
            with pytest.raises(RuntimeError) as caught:
                call()
            assert str(caught.value) == MESSAGE == REENTERED
            called.append(1)

    with ThreadTaskMap() as tasks:
        tasks.submit("a", gate)
        inside_the_guard(tasks, handle)
        assert len(called) == 10
        assert tasks.submit("b", int).result() == 0, "the refused shutdown has closed nothing"
        gate.open()


def test_close_and_cancel_all_are_noted_and_done_a_moment_later() -> None:
    gate = Gate()
    pool = HandPool()
    with ThreadTaskMap(limit=1, executor=pool) as tasks:
        tasks.submit("a", gate)
        waits = tasks.submit("b", int)

        def handle() -> None:
            tasks.close()
            assert tasks.cancel_all(reason="first") == 0
            assert tasks.cancel_all(reason="second") == 0
            with pytest.raises(TypeError, match=r"^reason must be a str or None, not 5$"):
                five: Any = 5
                tasks.cancel_all(reason=five)
            assert not waits.done()

        inside_the_guard(tasks, handle)
        assert waits.cancelled()
        assert waits._run.reason == "first"
        with pytest.raises(ClosedError):
            tasks.submit("c", int)
        pool.jobs[0].future.set_result(None)


def test_what_was_noted_is_done_by_the_thread_that_noted_it() -> None:
    """Others that come and go at the same moment do not trip over it."""
    gate = Gate()
    with ThreadTaskMap() as tasks:
        tasks.submit("a", gate)
        stop = threading.Event()

        def come_and_go() -> None:
            while not stop.is_set():
                tasks.state("a")

        others = [InThread(come_and_go) for _ in range(2)]
        for _ in range(300):
            inside_the_guard(tasks, tasks.cancel_all)
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


def test_another_map_may_be_called_while_a_run_is_handed_over() -> None:
    """Two maps may share a pool, and always share the locks of `threading`: it starts later."""
    pool = HandPool()
    futures: list[Any] = []

    def handle() -> None:
        futures.append(other.submit("b", str, 5))
        assert len(pool.jobs) == 1, "it was put off"
        with pytest.raises(RuntimeError) as caught:
            other.wait_idle()
        assert str(caught.value) == MESSAGE
        other.cancel_all()

    with ThreadTaskMap(executor=pool) as tasks, ThreadTaskMap(executor=pool) as other:
        other.submit("a", int)
        pool.jobs.pop().run()
        call_while_handing_over(tasks, pool, handle)
        assert futures[0].cancelled()
        again = InThread(other.submit, "c", str, 5).result()
        for job in pool.jobs:
            job.run()
        assert again.result() == "5"


def test_no_lock_of_threading_is_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that comes while a thread is being started starts none in there."""
    here = threading.local()
    deepest: list[int] = []
    start = threading.Thread.start
    futures: list[Any] = []
    clock_is = [0.0]

    def handle() -> None:
        futures.append(other.submit("b", str, 5))
        other.submit("c", str, 6, timeout=9)

    with ThreadTaskMap() as tasks, ThreadTaskMap() as other, handler(handle) as send:

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
            assert futures[0].result() == "5"
    assert set(deepest) == {1}
    assert clock_is == [0.0]


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


def test_a_name_that_raises_is_freed_all_the_same() -> None:
    """Whatever its ``__eq__`` and ``__hash__`` do by then."""

    def fail() -> None:
        raise ZeroDivisionError

    one, other = Tricky(), Tricky()
    gate = Gate()
    with ThreadTaskMap() as tasks:
        tasks.submit(one, gate)
        future = tasks.submit(other, gate)
        one.on_eq = other.on_eq = fail
        with pytest.raises(ZeroDivisionError):
            tasks.submit(Tricky(), int)
        gate.open()
        assert tasks.wait_idle()
        assert future.result() is None
        assert len(tasks) == 0
        assert tasks._shell.engine.slots.used == 0


class CallsWhenGone:
    """An object in a cycle, that calls a map when it is collected."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.me = self

    def __del__(self) -> None:
        self.call()


def test_a_del_inside_of_a_call_may_close_and_cancel() -> None:
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
        name = Tricky()
        name.on_eq = gc.collect
        other = Tricky()
        assert tasks.state(name) is State.FREE
        with tasks._shell.guard:
            gc.collect()
        assert refused == [MESSAGE]
        assert waits.cancelled()
        with pytest.raises(ClosedError):
            tasks.submit(other, int)
        gate.open()


def test_a_done_callback_and_a_policy_are_outside() -> None:
    """They may call whatever they like."""
    seen: list[Any] = []

    class Policy:
        def delay(self, failures: int, error: BaseException) -> float:
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


def test_a_call_at_any_depth_of_the_stack_leaves_the_map_whole() -> None:
    """`RecursionError` may come anywhere in it."""
    with ThreadTaskMap(instruments=()) as tasks:

        def dig(left: int) -> None:
            if left:
                dig(left - 1)
            else:
                tasks.submit("a", int, if_busy="skip")

        limit = sys.getrecursionlimit()
        here = len(__import__("inspect").stack())
        failed = 0
        for depth in range(limit - here - 70, limit - here + 1):
            try:
                dig(depth)
            except RecursionError:
                failed += 1
            assert InThread(tasks.wait_idle, PATIENCE).result()
            assert tasks._shell._guard._owner is None
        assert failed > 3
        assert tasks._shell.engine.slots.used == 0
        assert tasks._shell.engine.thread_slots.used == 0
