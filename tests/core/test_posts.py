"""The line of what other threads ask to be started."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from namedtasks import AlreadyRunningError
from namedtasks._core.posts import Posts

KWARGS: dict[str, Any] = {"operation": None}


@attrs.define
class Loop:
    """Keeps what it is to call, until it is told to."""

    todo: list[Callable[[], None]] = attrs.Factory(list[Callable[[], None]])
    started: list[Any] = attrs.Factory(list[Any])
    complaints: list[tuple[str, BaseException]] = attrs.Factory(list[tuple[str, BaseException]])
    gone_up: list[str] = attrs.Factory(list[str])
    error: BaseException | None = None
    raises: bool = False

    def wake(self, look: Callable[[], None]) -> None:
        if self.error is not None:
            raise self.error
        self.todo.append(look)

    def run(self) -> None:
        while self.todo:
            self.todo.pop(0)()

    def complain(self, text: str, error: BaseException) -> None:
        self.complaints.append((text, error))

    def let_out(self, error: BaseException, text: str) -> None:
        self.gone_up.append(text)
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
def posts(loop: Loop) -> Posts:
    return Posts(wake=loop.wake, complain=loop.complain, let_out=loop.let_out)


def test_a_burst_wakes_the_loop_once(loop: Loop, posts: Posts) -> None:
    for number in range(100):
        posts.add(loop.start, (number,), KWARGS)
    assert len(loop.todo) == 1
    loop.run()
    assert loop.started == list(range(100))
    posts.add(loop.start, ("later",), KWARGS)
    assert len(loop.todo) == 1
    loop.run()
    assert loop.started[-1] == "later"


def test_a_long_line_is_worked_off_in_several_steps(loop: Loop, posts: Posts) -> None:
    for number in range(2_500):
        posts.add(loop.start, (number,), KWARGS)
    steps: list[int] = []
    while loop.todo:
        loop.todo.pop(0)()
        steps.append(len(loop.started))
    assert steps == [1_000, 2_000, 2_500]
    assert loop.started == list(range(2_500))


def test_a_start_may_post(loop: Loop, posts: Posts) -> None:
    def start(name: str, *, operation: Any) -> None:
        loop.started.append(name)
        if len(name) < 3:
            posts.add(start, (name + "a",), KWARGS)

    posts.add(start, ("a",), KWARGS)
    loop.run()
    assert loop.started == ["a", "aa", "aaa"]


def test_a_refusal_and_a_failure_stop_nothing(loop: Loop, posts: Posts) -> None:
    refused, failure = AlreadyRunningError("a", None, None, ("a",)), ValueError()
    for name, error in (("a", refused), ("b", failure), ("c", None)):
        posts.add(loop.start, (name, error), {"operation": "mount"})
    loop.run()
    assert loop.started == ["a", "b", "c"]
    text = "the posted start of task 'b' (operation 'mount') failed"
    assert loop.complaints == [(text, failure)]


@pytest.mark.parametrize("raises", [False, True])
def test_nor_does_what_goes_up(loop: Loop, posts: Posts, raises: bool) -> None:
    loop.raises = raises
    posts.add(loop.start, ("a", KeyboardInterrupt()), KWARGS)
    posts.add(loop.start, ("b", None), KWARGS)
    if raises:
        with pytest.raises(KeyboardInterrupt):
            loop.run()
    loop.run()
    assert loop.started == ["a", "b"]
    assert loop.gone_up == ["task 'a'"]


def test_a_loop_that_is_over_is_told_and_nothing_is_kept(loop: Loop, posts: Posts) -> None:
    loop.error = RuntimeError("over")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="over"):
            posts.add(loop.start, ("a",), KWARGS)
    loop.error = None
    posts.add(loop.start, ("b",), KWARGS)
    loop.run()
    assert loop.started == ["b"]


def test_a_wake_up_that_is_interrupted_is_made_up_for_by_the_next(loop: Loop, posts: Posts) -> None:
    loop.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        posts.add(loop.start, ("a",), KWARGS)
    loop.error = None
    posts.add(loop.start, ("b",), KWARGS)
    loop.run()
    assert loop.started == ["a", "b"]


def test_no_post_is_lost_between_threads() -> None:
    """Many threads post while another one looks."""
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
            line.add(start, ((thread, number),), KWARGS)

    def nothing(*_: object) -> None:
        raise AssertionError

    line = Posts(wake=wake, complain=nothing, let_out=nothing)
    threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(started) < 20_000:
        assert woken.acquire(timeout=30), "a post was lost"
        todo.pop(0)()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert [one for thread, one in started if thread == number] == list(range(5_000))
