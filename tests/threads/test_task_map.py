"""What a thread map does for who uses it plainly."""

import threading

import pytest

from namedtasks import (
    AlreadyRunningError,
    Backoff,
    BackoffError,
    ClosedError,
    GaveUpError,
    State,
    TaskCancelledError,
    ThreadTaskMap,
    current_run,
)
from namedtasks.instruments import TaskSucceeded
from namedtasks.testing import ManualClock, RecordingInstrument
from tests.threads.helpers import PATIENCE, Gate, HandPool, InThread, boom


def test_a_result_comes_back() -> None:
    """`submit` gives a future, and with it what the function returned."""
    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", divmod, 7, 2, operation="divide")
        assert future.result() == (3, 1)
        assert (future.name, future.operation, future.failures) == ("a", "divide", 0)
        assert future.started_at is not None
        assert not future.overdue
        assert tasks.state("a") is State.FREE


def test_a_failure_comes_back_and_its_name_waits_longer_each_time() -> None:
    """0.5, 1, 2 seconds on the map's clock; a start at exactly `retry_at` is admitted."""
    clock = ManualClock(100.0)
    with ThreadTaskMap(clock=clock, instruments=()) as tasks:
        for failures, wait in enumerate((0.5, 1.0, 2.0)):
            future = tasks.submit("a", boom)
            with pytest.raises(ValueError, match=r"^boom$"):
                future.result()
            assert future.failures == failures
            with pytest.raises(BackoffError) as caught:
                tasks.submit("a", boom)
            assert caught.value.retry_in == wait
            assert isinstance(caught.value.__cause__, ValueError)
            clock.advance(wait)
            assert tasks.state("a") is State.READY
        tasks.submit("a", int).result()
        assert tasks.state("a") is State.FREE
        assert tasks.failure("a") is None


def test_a_running_name_is_refused_or_skipped() -> None:
    gate = Gate()
    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", gate)
        with pytest.raises(AlreadyRunningError):
            tasks.submit("a", gate)
        assert tasks.submit("a", gate, if_busy="skip") is None
        gate.open()
        assert future.result() is None


def test_who_is_given_up_stays_so_until_forgotten() -> None:
    with ThreadTaskMap(backoff=Backoff(give_up_after=1), instruments=()) as tasks:
        tasks.submit("a", boom).exception()
        with pytest.raises(GaveUpError):
            tasks.submit("a", boom)
        with pytest.raises(GaveUpError):
            tasks.wait_free("a")
        assert tasks.forget("a")
        assert not tasks.forget("a")
        assert tasks.submit("a", int).result() == 0


def test_a_map_is_the_mapping_of_what_runs() -> None:
    gate = Gate()
    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", gate)
        assert tasks["a"] is future
        assert "a" in tasks
        assert list(tasks) == list(tasks.keys()) == ["a"]
        assert list(tasks.values()) == [future]
        assert dict(tasks.items()) == {"a": future}
        assert tasks.get("b") is None
        assert len(tasks) == 1
        gate.open()
        future.result()
        assert len(tasks) == 0
        assert tasks
        assert repr(tasks) == "<namedtasks.ThreadTaskMap running=0 waiting=0>"
    assert repr(tasks) == "<namedtasks.ThreadTaskMap running=0 waiting=0 closed>"


def test_the_task_knows_its_run_and_sees_its_starters_context() -> None:
    with ThreadTaskMap() as tasks:
        assert tasks.submit("a", lambda: current_run().name, operation="o").result() == "a"
    with pytest.raises(RuntimeError, match=r"^current_run\(\) must be called from inside a task$"):
        current_run()


def test_a_closed_map_starts_nothing_and_lets_end_what_runs() -> None:
    gate = Gate()
    with ThreadTaskMap() as tasks:
        future = tasks.submit("a", gate, "done")
        tasks.close()
        tasks.close()
        with pytest.raises(ClosedError):
            tasks.submit("b", int)
        with pytest.raises(ClosedError):
            tasks.submit("b", int, if_busy="skip")
        gate.open()
        assert future.result() == "done"


def test_at_most_so_many_bodies_run_at_once_and_the_others_wait_in_order() -> None:
    """A slot goes to who was admitted first; one that is cancelled gives up its place."""
    order: list[str] = []
    gate = Gate()
    with ThreadTaskMap(limit=1) as tasks:
        tasks.submit("first", gate)
        futures = {name: tasks.submit(name, order.append, name) for name in "abcd"}
        assert tasks.statistics().waiting_for_slot == 4
        assert futures["b"].cancel()
        assert futures["b"].started_at is None
        assert tasks.statistics().waiting_for_slot == 3
        gate.open()
        for name in "acd":
            futures[name].result()
    assert order == ["a", "c", "d"]


def test_a_slot_goes_on_when_its_run_is_cancelled() -> None:
    """A run that has a slot, but has not begun, hands it to the next."""
    pool = HandPool()
    with ThreadTaskMap(limit=1, executor=pool) as tasks:
        gate = Gate()
        held = tasks.submit("held", gate)
        pool.jobs[0].future.cancel()  # the pool's own user
        assert held.cancelled()
        other = tasks.submit("other", int)
        pool.jobs[1].run()
        assert other.result() == 0


def test_two_threads_that_start_one_name_at_once_get_one_run() -> None:
    rounds, threads = 200, 2
    barrier = threading.Barrier(threads)
    won: list[int] = []

    def start(tasks: ThreadTaskMap) -> None:
        for number in range(rounds):
            gate = gates[number]
            barrier.wait(PATIENCE)
            if tasks.submit("a", gate, if_busy="skip") is not None:
                won.append(number)
            barrier.wait(PATIENCE)
            gate.open()
            assert tasks.wait_free("a", PATIENCE)

    gates = [Gate() for _ in range(rounds)]
    with ThreadTaskMap() as tasks:
        both = [InThread(start, tasks) for _ in range(threads)]
        for one in both:
            one.result()
    assert won == list(range(rounds))


def test_every_verb_may_be_called_from_inside_a_task() -> None:
    def body() -> str:
        assert "a" in tasks
        assert tasks.state("a") is State.RUNNING
        assert tasks.statistics().running == 1
        with pytest.raises(AlreadyRunningError):
            tasks.submit("a", body)
        assert not tasks.forget("a")
        assert isinstance(tasks.check("a"), AlreadyRunningError)
        inner = tasks.submit("b", str, 5)
        assert inner.result() == "5"
        assert tasks.cancel("a", reason="my own")
        current_run().check_cancelled()
        return "not reached"

    with ThreadTaskMap() as tasks:
        with pytest.raises(TaskCancelledError, match="my own"):
            tasks.submit("a", body).result()


def test_a_map_has_as_many_names_as_anybody_wants() -> None:
    """Thousands wait for a slot, and each ends once."""
    heard = RecordingInstrument()
    with ThreadTaskMap(limit=4, instruments=[heard]) as tasks:
        futures = [tasks.submit(number, abs, -number) for number in range(5_000)]
        assert [future.result() for future in futures] == list(range(5_000))
    assert len(heard.of(TaskSucceeded)) == 5_000


def test_a_map_without_a_block_is_shut_down() -> None:
    tasks = ThreadTaskMap()
    tasks.submit("a", int)
    assert tasks.shutdown() == ()
    with pytest.raises(ClosedError):
        tasks.submit("a", int)


def test_a_map_is_entered_only_once() -> None:
    with ThreadTaskMap() as tasks:
        with pytest.raises(
            RuntimeError, match=r"^a task map can be entered only once: make a new ThreadTaskMap$"
        ):
            tasks.__enter__()


def test_cancelling_what_matches() -> None:
    gates = {name: Gate() for name in ("x1", "x2", "y")}
    with ThreadTaskMap(limit=2) as tasks:
        futures = {name: tasks.submit(name, gate) for name, gate in gates.items()}
        assert tasks.cancel_matching(lambda name: str(name).startswith("y"), reason="y") == 1
        assert futures["y"].cancelled()
        assert tasks.cancel_all() == 2
        assert not tasks.cancel("z")
        for gate in gates.values():
            gate.open()
        assert futures["x1"].result() is None, "it did not listen: a value is a success"
