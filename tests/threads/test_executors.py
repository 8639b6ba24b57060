"""Somebody else's pools: which can tell what, and what becomes of a run in them."""

import contextvars
import multiprocessing
import threading
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from typing import Any

import pytest

from namedtasks import Backoff, State, ThreadTaskMap, _executors, current_run
from namedtasks.instruments import TaskCancelled, TaskStarted
from namedtasks.testing import RecordingInstrument
from tests.threads.helpers import Gate, HandPool, InThread, boom, slots_used

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def test_a_pool_of_threads_runs_in_the_callers_context_and_knows_the_run() -> None:
    def body() -> tuple[object, str]:
        return current_run().name, VARIABLE.get()

    VARIABLE.set("set")
    with ThreadPoolExecutor(1) as pool, ThreadTaskMap(executor=pool) as tasks:
        assert tasks.submit("a", body).result() == ("a", "set")
        with pytest.raises(ValueError, match=r"^boom$"):
            tasks.submit("b", boom).result()
        assert tasks.state("b") is State.WAITING


def test_a_run_that_waits_in_a_pool_of_threads_can_be_cancelled() -> None:
    """Its body begins under the map's guard: what was cancelled before never does."""
    gate = Gate()
    ran: list[int] = []
    with ThreadPoolExecutor(1) as pool, ThreadTaskMap(executor=pool) as tasks:
        tasks.submit("a", gate)
        waits = tasks.submit("b", ran.append, 1)
        assert waits.cancel()
        assert tasks.state("b") is State.FREE
        gate.open()
        tasks.submit("b", ran.append, 2).result()
    assert ran == [2]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_pool_of_processes(method: str) -> None:
    context = multiprocessing.get_context(method)
    heard = RecordingInstrument()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with ThreadTaskMap(executor=pool, instruments=[heard]) as tasks:
            future = tasks.submit("a", divmod, 7, 2)
            assert future.started_at is not None, "when it was handed over"
            assert future.result() == (3, 1)
            with pytest.raises(ValueError, match=r"^invalid literal for int"):
                tasks.submit("b", int, "no number").result()
            lock: Any = threading.Lock()
            unpicklable: Any = tasks.submit("c", int, lock)
            # Python 3.14 and newer add lines that say where the object was found.
            message = r"^cannot pickle '_thread.lock' object(\nwhen serializing .*)*$"
            with pytest.raises(TypeError, match=message):
                unpicklable.result()
            assert tasks.state("c") is State.WAITING
    assert [event.name for event in heard.of(TaskStarted)] == ["a", "b", "c"]


def test_a_factory_gives_the_pool_of_each_run() -> None:
    pools = [HandPool(), HandPool()]
    with ThreadTaskMap(executor=iter(pools).__next__) as tasks:
        futures = [tasks.submit("a", str, 1), tasks.submit("b", str, 2)]
        for pool in pools:
            pool.jobs[0].run()
        assert [future.result() for future in futures] == ["1", "2"]


def test_a_pool_that_is_done_inside_submit_settles_later() -> None:
    """The submitter gets its future first, and the name is free once that is done."""
    pool = HandPool()
    pool.on_submit = lambda job: job.run()
    heard = RecordingInstrument()
    with ThreadTaskMap(executor=pool, instruments=[heard]) as tasks:
        for number in range(50):
            assert tasks.submit("a", str, number).result() == str(number)
    assert len(heard.of(TaskStarted)) == 50
    assert slots_used(tasks) == 0


def test_a_result_before_submit_is_back_is_no_harm() -> None:
    """Another thread of the pool may be that quick."""
    pool = HandPool()
    pool.on_submit = lambda job: InThread(job.run).result()
    with ThreadTaskMap(executor=pool) as tasks:
        future = tasks.submit("a", str, 5)
        assert future.result() == "5"
        run: Any = future._run
        assert run.job is None, "it keeps no pool alive"


def test_a_future_that_is_cancelled_behind_our_back_ends_its_run() -> None:
    pool = HandPool()
    heard = RecordingInstrument()
    with ThreadTaskMap(executor=pool, instruments=[heard]) as tasks:
        future = tasks.submit("a", str)
        assert pool.jobs[0].future.cancel()
        with pytest.raises(CancelledError):
            future.result()
        assert tasks.state("a") is State.FREE
    assert [event.reason for event in heard.of(TaskCancelled)] == [
        "it was taken back from its pool"
    ]


def test_a_pool_that_is_shut_down_ends_what_it_has_not_begun() -> None:
    gate = Gate()
    pool = ThreadPoolExecutor(1)
    with ThreadTaskMap(executor=pool) as tasks:
        runs = tasks.submit("a", gate, "done")
        gate.wait_begun()
        waits = tasks.submit("b", str)
        pool.shutdown(wait=False, cancel_futures=True)
        assert waits.cancelled()
        with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
            tasks.submit("b", str)
        assert tasks.state("b") is State.FREE
        gate.open()
        assert runs.result() == "done"
    pool.shutdown()


def test_a_pool_of_threads_that_cannot_begin_fails_its_runs() -> None:
    """Its initializer raises: the pool is broken, and the bodies never ran."""
    ran: list[int] = []
    gate = Gate()

    def initializer() -> None:
        gate()
        raise ValueError

    with ThreadPoolExecutor(1, initializer=initializer) as pool:
        with ThreadTaskMap(executor=pool, instruments=()) as tasks:
            future = tasks.submit("a", ran.append, 1)
            gate.open()
            assert isinstance(future.exception(), BrokenExecutor)
            assert future.started_at is None
            assert tasks.state("a") is State.WAITING
    assert ran == []


def test_a_pool_that_refuses_the_first_run_is_heard_at_the_call() -> None:
    pool = HandPool()
    pool.raises = RuntimeError("full")
    heard = RecordingInstrument()
    with ThreadTaskMap(executor=pool, limit=1, instruments=[heard]) as tasks:
        with pytest.raises(RuntimeError, match=r"^full$"):
            tasks.submit("a", str)
        assert tasks.state("a") is State.FREE
        pool.raises = None
        future = tasks.submit("a", str)
        pool.jobs[0].run()
        assert future.result() == ""
    assert len(heard.of(TaskStarted)) == 1


def test_a_pool_that_refuses_a_follow_up_run_fails_it() -> None:
    pool = HandPool()
    heard = RecordingInstrument()
    with ThreadTaskMap(executor=pool, limit=1, instruments=[heard]) as tasks:
        tasks.submit("a", str)
        waits = tasks.submit("b", str)
        third = tasks.submit("c", str)
        pool.raises = RuntimeError("full")
        pool.jobs[0].run()
        assert isinstance(waits.exception(), RuntimeError)
        assert isinstance(third.exception(), RuntimeError)
        assert tasks.state("b") is tasks.state("c") is State.WAITING
    assert [event.name for event in heard.of(TaskStarted)] == ["a"], "the others never began"


def test_a_job_of_a_believable_pool_is_taken_back_by_a_cancel() -> None:
    """One of processes has it queued, and says honestly whether it could be had."""
    gate = Gate()
    with ThreadPoolExecutor(1) as threads:

        class Believed(HandPool):
            def submit(self, fn: Any, /, *args: Any, **options: Any) -> Future[Any]:
                return threads.submit(fn, *args, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_executors, "_is_honest", bool)
            with ThreadTaskMap(executor=Believed()) as tasks:
                blocks = tasks.submit("a", gate)
                gate.wait_begun()
                one, other = tasks.submit("b", str), tasks.submit("c", str)
                assert tasks.cancel("b", reason="enough")
                assert one.cancelled()
                assert other.cancel()
                assert other.cancelled()
                assert not blocks.cancel()
                gate.open()


def test_a_run_that_got_its_slot_from_another_is_begun_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slot may be free just after the admission: whoever gave it begins the run."""
    pool = HandPool()
    spawned: list[Any] = []

    class Lock:
        """The map's lock, after whose release another thread ends the first run."""

        def __init__(self, lock: Any) -> None:
            self.lock = lock

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()
            if "second" in tasks and not spawned:
                spawned.append(1)
                InThread(pool.jobs[0].run).result()

        def _is_owned(self) -> bool:
            return bool(self.lock._is_owned())

    with ThreadTaskMap(executor=pool, limit=1) as tasks:
        tasks.submit("first", str)
        tasks._backend.lock = Lock(tasks._backend.lock)
        future = tasks.submit("second", str)
        assert spawned
        assert len(pool.jobs) == 2
        pool.jobs[1].run()
        assert future.result() == ""


def test_a_run_cancelled_before_its_follow_up_start_is_not_handed_over() -> None:
    """It is cancelled after it got its slot, and before its pool got it."""
    pool = HandPool()
    asked: list[int] = []

    def factory() -> Executor:
        asked.append(1)
        if len(asked) == 2:
            assert tasks["b"].cancel()
        return pool

    with ThreadTaskMap(executor=factory, limit=1) as tasks:
        tasks.submit("a", str)
        waits = tasks.submit("b", str)
        pool.jobs[0].run()
        assert waits.cancelled()
        assert len(pool.jobs) == 1


def test_a_run_cancelled_while_a_pool_of_threads_gets_it_is_taken_back() -> None:
    gate = Gate()
    cancelled: list[bool] = []

    class Pool(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **options: Any) -> Future[Any]:
            future = super().submit(fn, *args, **options)
            if "b" in tasks:
                cancelled.append(tasks["b"].cancel())
            return future

    with Pool(1) as pool, ThreadTaskMap(executor=pool) as tasks:
        tasks.submit("a", gate)
        future = tasks.submit("b", str)
        assert cancelled == [True]
        assert future.cancelled()
        gate.open()


def test_a_pool_that_runs_in_place_may_run_what_calls_the_map() -> None:
    """A pool of threads that has none, as in some tests: the body may submit and wait."""

    class InPlace(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **options: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(fn(*args, **options))
            return future

    with ThreadTaskMap(executor=InPlace()) as tasks:
        future = tasks.submit("a", lambda: tasks.submit("b", str, 5).result())
        assert future.result() == "5"


def test_a_pool_that_runs_in_place_has_run_it_also_when_there_is_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end is told in the call, then: a start that raises says that nothing has run."""

    class InPlace(Executor):
        def submit(self, fn: Any, /, *args: Any, **options: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(fn(*args, **options))
            return future

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with ThreadTaskMap(executor=InPlace(), limit=1) as tasks:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            futures = [tasks.submit("a", divmod, 7, 2) for _ in range(2)]
        assert [future.result(0) for future in futures] == [(3, 1)] * 2
        assert len(tasks) == 0


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
@pytest.mark.parametrize("pool", ["own threads", "a pool of threads"])
def test_whatever_a_function_raises_is_a_failure_with_its_own_error(
    kind: type[BaseException], pool: str
) -> None:
    """The future has the original, as futures do; the program and the other runs go on."""

    def raises() -> None:
        raise kind("stop")

    with ThreadPoolExecutor(1) as threads, ThreadTaskMap(instruments=()) as tasks:
        executor = threads if pool == "a pool of threads" else None
        error = tasks.submit("a", raises, executor=executor).exception()
        assert type(error) is kind
        failure = tasks.failure("a")
        assert failure is not None
        assert (failure.failures, type(failure.error)) == (1, kind)
        assert tasks.submit("b", len, "abc").result() == 3


def test_an_exempt_stop_iteration_starts_no_wait() -> None:
    with ThreadTaskMap(backoff=Backoff(exempt=(StopIteration,)), instruments=()) as tasks:
        assert isinstance(tasks.submit("a", next, iter(())).exception(), StopIteration)
        assert tasks.state("a") is State.FREE
