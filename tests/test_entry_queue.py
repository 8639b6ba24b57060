"""The queue of the starts that other threads request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import attrs
import pytest

from namedtasks import AlreadyRunningError
from namedtasks._entry_queue import EntryQueue, affinity_error

KWARGS: dict[str, Any] = {"operation": None}


@attrs.define
class Loop:
    """An event loop that makes its calls when a test says so."""

    todo: list[Callable[[], None]] = attrs.Factory(list[Callable[[], None]])
    started: list[Any] = attrs.Factory(list[Any])
    propagated: list[str] = attrs.Factory(list[str])
    error: BaseException | None = None
    raises: bool = False

    def wake(self, look: Callable[[], None]) -> None:
        if self.error is not None:
            raise self.error
        self.todo.append(look)

    def run(self) -> None:
        while self.todo:
            self.todo.pop(0)()

    def propagate(self, error: BaseException, text: str) -> None:
        self.propagated.append(text)
        if self.raises:
            raise error

    def start(self, name: Any, error: BaseException | None = None, *, operation: Any) -> None:
        self.started.append(name)
        if error is not None:
            raise error


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def entries(loop: Loop) -> EntryQueue:
    return EntryQueue(loop.wake, loop.propagate)


def test_a_burst_wakes_the_loop_once(loop: Loop, entries: EntryQueue) -> None:
    for number in range(100):
        entries.add(loop.start, (number,), KWARGS)
    assert len(loop.todo) == 1
    loop.run()
    assert loop.started == list(range(100))
    entries.add(loop.start, ("later",), KWARGS)
    assert len(loop.todo) == 1
    loop.run()
    assert loop.started[-1] == "later"


def test_a_long_queue_is_worked_off_in_several_steps(loop: Loop, entries: EntryQueue) -> None:
    for number in range(2_500):
        entries.add(loop.start, (number,), KWARGS)
    steps: list[int] = []
    while loop.todo:
        loop.todo.pop(0)()
        steps.append(len(loop.started))
    assert steps == [1_000, 2_000, 2_500]
    assert loop.started == list(range(2_500))


def test_a_start_may_queue_another_one(loop: Loop, entries: EntryQueue) -> None:
    def start(name: str, *, operation: Any) -> None:
        loop.started.append(name)
        if len(name) < 3:
            entries.add(start, (name + "a",), KWARGS)

    entries.add(start, ("a",), KWARGS)
    loop.run()
    assert loop.started == ["a", "aa", "aaa"]


def test_a_refusal_and_a_failure_stop_nothing(
    loop: Loop, entries: EntryQueue, caplog: pytest.LogCaptureFixture
) -> None:
    refused, failure = AlreadyRunningError("a", None, None, ("a",)), ValueError()
    for name, error in (("a", refused), ("b", failure), ("c", None)):
        entries.add(loop.start, (name, error), {"operation": "mount"})
    loop.run()
    assert loop.started == ["a", "b", "c"]
    text = "the posted start of task 'b' (operation 'mount') failed"
    (logged,) = caplog.records
    assert logged.getMessage() == text
    assert logged.exc_info is not None
    assert logged.exc_info[1] is failure


@pytest.mark.parametrize("raises", [False, True])
def test_an_error_that_propagates_loses_no_start(
    loop: Loop, entries: EntryQueue, raises: bool
) -> None:
    loop.raises = raises
    entries.add(loop.start, ("a", KeyboardInterrupt()), KWARGS)
    entries.add(loop.start, ("b", None), KWARGS)
    if raises:
        with pytest.raises(KeyboardInterrupt):
            loop.run()
    loop.run()
    assert loop.started == ["a", "b"]
    assert loop.propagated == ["task 'a'"]


def test_where_the_loop_is_over_the_caller_is_told_and_nothing_is_kept(
    loop: Loop, entries: EntryQueue
) -> None:
    loop.error = RuntimeError("over")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="over"):
            entries.add(loop.start, ("a",), KWARGS)
    loop.error = None
    entries.add(loop.start, ("b",), KWARGS)
    loop.run()
    assert loop.started == ["b"]


def test_a_wake_up_that_is_interrupted_is_made_up_for_by_the_next(
    loop: Loop, entries: EntryQueue
) -> None:
    loop.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        entries.add(loop.start, ("a",), KWARGS)
    loop.error = None
    entries.add(loop.start, ("b",), KWARGS)
    loop.run()
    assert loop.started == ["a", "b"]


def test_no_start_is_lost_between_threads() -> None:
    """Many threads queue starts while another one makes them."""
    woken = threading.Semaphore(0)
    todo: list[Callable[[], None]] = []
    started: list[tuple[int, int]] = []

    def wake(look: Callable[[], None]) -> None:
        todo.append(look)
        woken.release()

    def start(name: tuple[int, int], *, operation: Any) -> None:
        started.append(name)

    def post(thread: int) -> None:
        for number in range(5_000):
            queue.add(start, ((thread, number),), KWARGS)

    def nothing(*_: object) -> None:
        raise AssertionError

    queue = EntryQueue(wake, nothing)
    threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(started) < 20_000:
        assert woken.acquire(timeout=30), "a start was lost"
        todo.pop(0)()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert [one for thread, one in started if thread == number] == list(range(5_000))


def test_a_start_is_made_in_the_context_of_its_caller(loop: Loop, entries: EntryQueue) -> None:
    variable: ContextVar[str] = ContextVar("variable")

    def start(_: str, *, operation: Any) -> None:
        loop.started.append(variable.get())

    variable.set("of the caller")
    entries.add(start, ("a",), KWARGS)
    variable.set("later")
    loop.run()
    assert loop.started == ["of the caller"]


def test_the_error_of_a_call_outside_the_loop_names_the_cure() -> None:
    assert str(affinity_error("call post()")) == (
        "a task map may be used only in the event loop run that opened it: from another thread "
        "call post(); in another run open a new map"
    )
