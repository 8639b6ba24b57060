"""A pool's job ends when its work has really ended, and says so once."""

import functools
import logging
import multiprocessing
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from concurrent.futures.thread import BrokenThreadPool
from contextvars import ContextVar
from typing import Any

import pytest

from namedtasks import _executors
from namedtasks._executors import is_in_process, pool_of, submit
from tests.executors.pools import SOON, AtOnce, ByHand, Ends, Gate, OfProcesses
from tests.memory import no_garbage_collection


def raise_error(error: BaseException) -> None:
    raise error


# The end


def test_a_job_that_is_done_has_ended() -> None:
    with ThreadPoolExecutor(1) as pool:
        ends = Ends()
        job = submit(pool, divmod, (7, 2), ends)
        assert ends.wait().result() == (3, 1)
        assert not job.cancel()


def test_a_job_that_failed_has_ended() -> None:
    with ThreadPoolExecutor(1) as pool:
        ends = Ends()
        submit(pool, raise_error, (ValueError("boom"),), ends)
        assert repr(ends.wait().exception()) == "ValueError('boom')"


def test_a_job_that_its_pool_dropped_has_ended() -> None:
    gate, ends = Gate(), Ends()
    with ThreadPoolExecutor(1) as pool:
        submit(pool, gate, (), Ends())
        submit(pool, gate, (), ends)
        pool.shutdown(wait=False, cancel_futures=True)
        assert ends.wait().cancelled()
        gate.go.set()


def test_the_end_is_never_told_inside_of_submit() -> None:
    """Whoever submits may hold a lock that the end wants, too."""
    lock, ends = threading.Lock(), Ends()

    def ended(future: Future[Any]) -> None:
        with lock:
            ends(future)

    with lock:
        submit(AtOnce(), divmod, (7, 2), ended)
        assert ends.futures == []
    assert ends.wait().result() == (3, 1)
    assert ends.thread is not None
    assert ends.thread.daemon
    assert ends.thread is not threading.current_thread()


def test_an_end_is_told_inside_of_submit_when_there_is_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pool has run the function in place: to raise would say that nothing ran."""

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    ends = Ends()
    monkeypatch.setattr(_executors, "_start_thread", no_thread)
    submit(AtOnce(), divmod, (7, 2), ends)
    assert ends.futures[0].result() == (3, 1)
    assert ends.thread is threading.current_thread()


def test_an_end_in_a_thread_of_the_pools_is_told_there() -> None:
    pool, ends = ByHand(), Ends()
    submit(pool, print, (), ends)
    pool.futures[0].set_result(5)
    assert ends.wait().result() == 5
    assert ends.thread is threading.current_thread()


def test_what_is_called_at_the_end_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    pool = ByHand()
    submit(pool, print, (), lambda future: raise_error(SystemExit("boom")))
    pool.futures[0].set_result(5)
    assert [record.getMessage() for record in caplog.records] == [
        "what is called at the end of a pool's job failed"
    ]


def test_a_job_that_is_over_is_in_no_cycle() -> None:
    class Result:
        pass

    pool, ends = ByHand(), Ends()
    with no_garbage_collection():
        result = Result()
        gone = weakref.ref(result)
        job = submit(pool, print, (), ends)
        pool.futures.pop().set_result(result)
        del result
        assert gone() is ends.futures[0].result()
        ends.futures.clear()
        assert gone() is None
        assert not job.cancel()


# The pool


def test_a_factory_is_asked_for_each_job() -> None:
    pools = [ByHand(), ByHand()]
    left = list(pools)
    for _ in range(2):
        submit(lambda: left.pop(0), print, (), Ends())
    assert [len(pool.futures) for pool in pools] == [1, 1]


def test_a_factory_must_give_a_pool() -> None:
    def no_pool() -> Any:
        return 5

    no_pool.__qualname__ = "no_pool"
    with pytest.raises(
        TypeError,
        match=r"^the function for the pool must return a concurrent\.futures\.Executor, "
        r"and <function no_pool at 0x\w+> returned 5$",
    ):
        pool_of(no_pool)


def test_a_pool_that_was_shut_down_raises_at_the_call() -> None:
    pool, ends = ThreadPoolExecutor(1), Ends()
    pool.shutdown()
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        submit(pool, print, (), ends)
    assert ends.futures == []


def test_so_does_a_pool_of_processes() -> None:
    """It has forgotten its processes by then."""
    pool, ends = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")), Ends()
    pool.shutdown()
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        submit(pool, print, (), ends)
    assert ends.futures == []


def test_in_a_pool_of_threads_the_callers_context_is_seen() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("the caller's")
    with ThreadPoolExecutor(1) as pool:
        ends = Ends()
        submit(pool, variable.get, (), ends)
        assert ends.wait().result() == "the caller's"


def test_which_pools_are_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interpreters(ThreadPoolExecutor):
        """As Python 3.14 has them."""

    module = types.ModuleType("concurrent.futures.interpreter")
    monkeypatch.setattr(module, "InterpreterPoolExecutor", Interpreters, raising=False)
    monkeypatch.setitem(sys.modules, "concurrent.futures.interpreter", module)
    for pool, expected in (
        (ThreadPoolExecutor(1), True),
        (ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")), False),
        (Interpreters(1), False),
        (ByHand(), False),
    ):
        assert is_in_process(pool) is expected
        pool.shutdown()


def test_dask_is_told_that_no_two_jobs_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would give a second run of the same function and arguments the first one's result."""
    told: list[dict[str, Any]] = []

    class ClientExecutor(AtOnce):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            told.append(kwargs)
            return super().submit(fn, *args)

    module = types.ModuleType("distributed.cfexecutor")
    monkeypatch.setattr(module, "ClientExecutor", ClientExecutor, raising=False)
    monkeypatch.setitem(sys.modules, "distributed.cfexecutor", module)
    monkeypatch.setitem(sys.modules, "distributed.protocol.pickle", pickle)
    ends = Ends()
    submit(ClientExecutor(), divmod, (7, 2), ends)
    assert ends.wait().result() == (3, 1)
    assert told == [{"pure": False}]


def test_dask_is_given_no_result_that_it_cannot_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would never tell that the job is done."""
    monkeypatch.setitem(sys.modules, "distributed.protocol.pickle", pickle)
    with pytest.raises(TypeError, match=r"^cannot pickle '_thread\.lock' object$"):
        _executors.call_on_dask(threading.Lock)


# Taking a job back


def test_a_job_that_has_not_begun_is_taken_back() -> None:
    gate, ends = Gate(), Ends()
    with ThreadPoolExecutor(1) as pool:
        running = submit(pool, gate, (), Ends())
        queued = submit(pool, raise_error, (AssertionError("it ran"),), ends)
        assert gate.running.wait(SOON)
        assert queued.cancel()
        assert ends.wait().cancelled()
        assert not running.cancel()
        gate.go.set()


class Overridden(ThreadPoolExecutor):
    """Who knows what it makes of a job?"""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(fn, *args, **kwargs)


def test_a_pool_that_we_do_not_know_is_not_even_asked() -> None:
    """Its future might say that it was cancelled, and the work go on."""
    pool, ends = ByHand(), Ends()
    job = submit(pool, print, (), ends)
    assert not job.cancel()
    assert not pool.futures[0].cancelled()
    with Overridden(1) as threads:
        gate = Gate()
        submit(threads, gate, (), Ends())
        assert not submit(threads, gate, (), ends).cancel()
        gate.go.set()


def test_a_process_pool_is_asked_where_it_can_take_it() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        ends = [Ends() for _ in range(8)]
        jobs = [submit(pool, divmod, (7, 2), end) for end in ends]
        taken_back = jobs[-1].cancel()
        assert taken_back <= (sys.version_info >= (3, 12, 1))
        for end in ends[:-1]:
            assert end.wait().result() == (3, 1)
        assert ends[-1].wait().cancelled() is taken_back


# A lost worker


def lose_a_worker(pool: ByHand, *numbers: int) -> None:
    for number in numbers:
        pool.futures[number].set_exception(BrokenExecutor("a worker died"))


def test_a_job_of_a_broken_pool_ends_when_its_processes_have() -> None:
    """One thread waits for all of them: there may be thousands."""
    pool, ends = OfProcesses(), [Ends() for _ in range(3)]
    for one in ends:
        submit(pool, print, (), one)
    lose_a_worker(pool, 0, 1)
    assert pool.is_waited_for.wait(SOON)
    lose_a_worker(pool, 2)
    assert [one.futures for one in ends] == [[], [], []]
    pool.go.set()
    assert [type(one.wait().exception()) for one in ends] == [BrokenExecutor] * 3
    assert pool.shut_down == 1


def test_a_pool_that_cannot_be_shut_down_is_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    pool, ends = OfProcesses(), Ends()
    pool.error = ValueError("boom")
    pool.go.set()
    submit(pool, print, (), ends)
    lose_a_worker(pool, 0)
    ends.wait()
    assert caplog.record_tuples == [
        ("namedtasks", logging.ERROR, "shutting a broken pool down failed")
    ]


class Process:
    """A worker process that ends when the test says so."""

    pid = -1  # nobody has it

    def __init__(self, exitcode: int | None = None) -> None:
        self.exitcode = exitcode
        self.sentinel, self._alive = multiprocessing.Pipe(duplex=False)
        self.was_told = threading.Event()
        self.error: Exception | None = None

    def end(self) -> None:
        self._alive.close()

    def kill(self) -> None:
        self.was_told.set()
        if self.error is not None:
            raise self.error
        self.end()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> dict[int, Process]:
    """Those of any pool."""
    processes: dict[int, Process] = {}

    def processes_of(pool: Executor) -> dict[int, Process]:
        return processes

    monkeypatch.setattr(_executors, "_processes_of", processes_of)
    monkeypatch.setattr(_executors, "GRACE", 0.01)
    return processes


def lose_a_worker_of(processes: dict[int, Process], **options: Any) -> Ends:
    """Have a job of a pool of these *processes* end, and loky's way to forget them."""
    pool, ends = OfProcesses(), Ends()
    submit(pool, print, (), ends, **options)
    processes.clear()
    lose_a_worker(pool, 0)
    return ends


def test_all_processes_are_waited_for_and_none_that_has_ended(
    processes: dict[int, Process],
) -> None:
    """Also those that the pool has forgotten. The id of one that has ended may be another's."""
    first, second, ended = Process(), Process(), Process(exitcode=-9)
    processes.update({1: first, 2: second, 3: ended})
    ends = lose_a_worker_of(processes, overdue_after=SOON)
    first.end()
    assert not ends.futures
    second.end()
    ends.wait()
    assert not first.was_told.is_set()


def test_they_are_not_killed_before_their_runs_are_overdue(processes: dict[int, Process]) -> None:
    process = processes[1] = Process()
    lost = threading.Event()
    ends = lose_a_worker_of(processes, lost=lost.set, overdue_after=5.0)
    (broken,) = _executors._broken_pools.values()
    assert broken.grace == 5.0
    assert lost.wait(SOON)
    assert not ends.futures
    process.end()
    ends.wait()


def test_a_job_that_fails_later_than_others_learns_of_the_long_wait_too(
    processes: dict[int, Process],
) -> None:
    """The pool fails its jobs one by one, and calls the callbacks of each in between."""
    process = processes[1] = Process()
    pool, ends = OfProcesses(), [Ends(), Ends()]
    lost = [threading.Event(), threading.Event()]
    for one, event in zip(ends, lost, strict=True):
        submit(pool, print, (), one, lost=event.set, overdue_after=SOON)
    lose_a_worker(pool, 0)
    assert lost[0].wait(SOON)
    assert not lost[1].is_set()
    lose_a_worker(pool, 1)
    assert lost[1].is_set()
    process.end()
    for one in ends:
        one.wait()


def test_an_error_of_what_is_called_for_a_lost_worker_is_logged(
    processes: dict[int, Process], caplog: pytest.LogCaptureFixture
) -> None:
    """The processes are killed, and the job ends, all the same."""
    process = processes[1] = Process()
    ends = lose_a_worker_of(processes, lost=functools.partial(raise_error, ValueError("boom")))
    assert process.was_told.wait(SOON)
    ends.wait()
    assert caplog.record_tuples == [
        ("namedtasks", logging.ERROR, "what is called when a pool has lost a worker failed")
    ]


def test_a_process_that_is_started_late_is_waited_for(processes: dict[int, Process]) -> None:
    """Its start was under way when the pool broke."""
    first, second = Process(), Process()
    processes[1] = first
    pool, ends = OfProcesses(), Ends()
    submit(pool, print, (), ends, overdue_after=SOON)
    lose_a_worker(pool, 0)
    processes[2] = second
    first.end()
    assert not ends.futures
    second.end()
    ends.wait()


def test_a_process_that_cannot_be_killed_is_waited_for(
    processes: dict[int, Process], caplog: pytest.LogCaptureFixture
) -> None:
    """loky's have no way to be killed in some versions."""
    process = processes[1] = Process()
    process.error = AttributeError("'Popen' object has no attribute 'kill'")
    ends = lose_a_worker_of(processes)
    assert process.was_told.wait(SOON)
    assert not ends.futures
    process.end()
    ends.wait()
    assert caplog.record_tuples == [
        ("namedtasks", logging.ERROR, "a worker process of a broken pool cannot be stopped")
    ]


def test_a_process_is_killed_once() -> None:
    process = Process()
    broken = _executors._BrokenPool(OfProcesses())
    broken._watch([process])
    broken.stop("kill")
    assert process.was_told.is_set()
    process.was_told.clear()
    broken.stop("kill")
    assert not process.was_told.is_set()


def test_a_process_that_ends_as_it_is_killed_is_no_matter(
    processes: dict[int, Process], caplog: pytest.LogCaptureFixture
) -> None:
    process = processes[1] = Process()
    process.error = ProcessLookupError()
    ends = lose_a_worker_of(processes)
    assert process.was_told.wait(SOON)
    process.end()
    ends.wait()
    assert not caplog.records


def test_a_broken_pool_of_the_functions_own_breaks_nothing() -> None:
    pool, ends = OfProcesses(), Ends()
    pool.__dict__["_broken"] = False
    submit(pool, print, (), ends)
    lose_a_worker(pool, 0)
    assert len(ends.futures) == 1
    assert pool.shut_down == 0


def test_a_broken_pool_of_threads_has_only_dropped_what_it_had_not_begun() -> None:
    gate, ends = Gate(), Ends()
    threads: list[str] = []

    def second_fails() -> None:
        threads.append(threading.current_thread().name)
        if len(threads) > 1:
            raise ValueError("boom")

    with ThreadPoolExecutor(2, initializer=second_fails) as pool:
        submit(pool, gate, (), Ends())
        assert gate.running.wait(SOON)
        submit(pool, print, (), ends)
        assert type(ends.wait().exception()) is BrokenThreadPool
        assert not gate.go.is_set()
        with pytest.raises(BrokenThreadPool):
            submit(pool, print, (), ends)
        gate.go.set()
    assert len(ends.futures) == 1


def test_when_no_thread_can_be_started_the_next_one_takes_all_along(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Till then the names stay taken, and the log says why."""
    pool, ends = OfProcesses(), [Ends(), Ends()]
    pool.go.set()
    for one in ends:
        submit(pool, print, (), one)
    with monkeypatch.context() as patch:
        error = RuntimeError("can't start new thread")
        patch.setattr(threading.Thread, "start", functools.partial(raise_error, error))
        lose_a_worker(pool, 0)
    assert ends[0].futures == []
    assert [record.name for record in caplog.records] == ["concurrent.futures"]
    lose_a_worker(pool, 1)
    for one in ends:
        assert type(one.wait().exception()) is BrokenExecutor


def test_nothing_of_a_broken_pool_is_kept() -> None:
    pool, ends = OfProcesses(), Ends()
    pool.go.set()
    submit(pool, print, (), ends)
    lose_a_worker(pool, 0)
    ends.wait()
    assert _executors._broken_pools == {}


# What is no pool


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, int])
def test_a_class_is_no_factory(pool: Any) -> None:
    with pytest.raises(
        TypeError,
        match=rf"^executor must be a pool or a function that returns one, and {pool.__name__} is a "
        rf"class, which would make a new pool for each job: pass one pool, {pool.__name__}"
        r"\(\.\.\.\)$",
    ):
        _executors.check_pool(pool)


async def async_factory() -> Executor:
    raise NotImplementedError


def test_an_async_function_is_no_factory() -> None:
    with pytest.raises(
        TypeError,
        match=r"^executor must be a pool or a plain function that returns one, and <.*> is async$",
    ):
        _executors.check_pool(async_factory)


def test_other_things_are_no_pools() -> None:
    with pytest.raises(
        TypeError,
        match=r"^pool must be a concurrent\.futures\.Executor or a function that returns one, not "
        r"5 \(Dask: client\.get_executor\(\); loky: get_reusable_executor\)$",
    ):
        _executors.check_pool(5, "pool")
