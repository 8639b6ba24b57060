"""A body that runs in a task used before behaves as in a task of its own.

Each test of a behaviour runs both ways: with workers and without.
"""

from __future__ import annotations

import contextvars
import gc
import queue
import signal
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sniffio
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import IfBusy, TaskCancelledError, TaskFailedError, current_run
from namedtasks._state import RunStatus

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="nothing")

both_ways = pytest.mark.parametrize("workers", [True, False], ids=["workers", "own tasks"])


def open_map(workers: bool = True) -> Any:
    return namedtasks.open_task_map(instruments=(), workers=workers)


def idle(tasks: namedtasks.TaskMap) -> int:
    """How many tasks there are that nothing runs in."""
    return len(tasks._backend.nursery.child_tasks) - len(tasks)


async def task_of(tasks: namedtasks.TaskMap, name: str) -> trio.lowlevel.Task:
    """The trio task that a run of *name* gets now."""

    async def tell() -> trio.lowlevel.Task:
        return trio.lowlevel.current_task()

    return await tasks.start_soon(name, tell).wait()


async def test_a_task_is_used_again() -> None:
    async with open_map() as tasks:
        first = await task_of(tasks, "a")
        assert await task_of(tasks, "b") is first
        assert idle(tasks) == 1


async def test_without_workers_each_run_has_a_task_of_its_own() -> None:
    async with open_map(workers=False) as tasks:
        first = await task_of(tasks, "a")
        assert await task_of(tasks, "b") is not first
        assert idle(tasks) == 0


def test_the_switch_is_true_or_false() -> None:
    wrong: Any = "no"
    with pytest.raises(TypeError, match="workers must be True or False, not 'no'"):
        namedtasks.open_task_map(workers=wrong)


# What a run sees of its surroundings


@both_ways
async def test_a_run_has_a_copy_of_its_starters_context(workers: bool) -> None:
    async def change(to: str) -> str:
        before = VAR.get()
        VAR.set(to)
        await trio.lowlevel.checkpoint()
        assert VAR.get() == to
        return before

    async with open_map(workers) as tasks:
        assert await tasks.start_soon("a", change, "a's").wait() == "nothing"
        assert await tasks.start_soon("b", change, "b's").wait() == "nothing", "nothing leaks"
        VAR.set("the starter's")
        handle = tasks.start_soon("c", change, "c's")
        VAR.set("later")
        assert await handle.wait() == "the starter's", "as it was at the start"
        assert VAR.get() == "later"


@both_ways
async def test_a_run_that_waited_for_a_slot_has_its_starters_context(workers: bool) -> None:
    async def tell() -> str:
        return VAR.get()

    async with namedtasks.open_task_map(limit=1, workers=workers) as tasks:
        tasks.start_soon("first", trio.lowlevel.checkpoint)
        VAR.set("the starter's")
        handle = tasks.start_soon("second", tell)
        VAR.set("later")
        assert await handle.wait() == "the starter's"


@both_ways
async def test_a_run_knows_which_it_is(workers: bool) -> None:
    async def tell() -> object:
        async def inner() -> None:
            found.append(current_run().name)

        found: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inner)
        found.append(await trio.to_thread.run_sync(lambda: current_run().name))
        await trio.lowlevel.checkpoint()
        return [*found, current_run().name]

    async with open_map(workers) as tasks:
        for name in ("a", "b"):
            assert await tasks.start_soon(name, tell).wait() == [name] * 3
    with pytest.raises(RuntimeError, match="from inside a task"):
        current_run()


@both_ways
async def test_the_tasks_name_is_the_runs(workers: bool) -> None:
    async with open_map(workers) as tasks:
        assert (await task_of(tasks, "a")).name == "a"
        named: list[str] = []

        async def tell() -> None:
            named.append(trio.lowlevel.current_task().name)

        await tasks.start_soon("b", tell).wait()
        await tasks.start_soon(("v", 1), tell).wait()
        assert named == ["b", "('v', 1)"]


@both_ways
async def test_sniffio_knows_trio(workers: bool) -> None:
    async def tell() -> str:
        return sniffio.current_async_library()

    async with open_map(workers) as tasks:
        for _ in range(2):
            assert await tasks.start_soon("a", tell).wait() == "trio"


# Cancellation

Meddle = Callable[["namedtasks.TaskHandle[None]"], Awaitable[None]]


async def before_the_first_step(handle: namedtasks.TaskHandle[None]) -> None:
    handle.cancel()


async def at_a_checkpoint(handle: namedtasks.TaskHandle[None]) -> None:
    await wait_all_tasks_blocked()
    handle.cancel()


@both_ways
@pytest.mark.parametrize("meddle", [before_the_first_step, at_a_checkpoint])
async def test_a_cancelled_run_spoils_nothing_for_the_next(workers: bool, meddle: Meddle) -> None:
    async with open_map(workers) as tasks:
        before = await task_of(tasks, "a")
        handle = tasks.start_soon("b", trio.sleep_forever)
        await meddle(handle)
        with pytest.raises(TaskCancelledError):
            await handle.wait()
        for name in ("c", "d"):
            task = await task_of(tasks, name)
            assert task is not before, "its scope is cancelled for ever"
            await tasks.start_soon(name, trio.lowlevel.checkpoint).wait()


@both_ways
async def test_a_run_cancelled_by_its_own_last_step_has_returned(workers: bool) -> None:
    async def body() -> str:
        tasks.cancel("a")
        return "value"

    async with open_map(workers) as tasks:
        assert await tasks.start_soon("a", body).wait() == "value"
        await tasks.start_soon("a", trio.lowlevel.checkpoint).wait()


@both_ways
async def test_to_cancel_a_run_after_its_end_is_nothing_to_the_next(workers: bool) -> None:
    async with open_map(workers) as tasks:
        old = tasks.start_soon("a", trio.lowlevel.checkpoint)
        await old.wait()
        new = tasks.start_soon("b", trio.lowlevel.checkpoint)
        assert not old.cancel()
        await wait_all_tasks_blocked()
        assert not old.cancel()
        await new.wait()


@both_ways
async def test_a_shielded_run_ends_as_it_likes(workers: bool) -> None:
    async def shielded() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        return "done"

    async with open_map(workers) as tasks:
        await task_of(tasks, "a")
        handle = tasks.start_soon("a", shielded)
        await wait_all_tasks_blocked()
        handle.cancel()
        assert await handle.wait() == "done"
        await tasks.start_soon("a", trio.lowlevel.checkpoint).wait()


@both_ways
async def test_a_nursery_inside_of_a_run_is_cancelled_with_it(workers: bool) -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("child")

    async def parent() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    async with open_map(workers) as tasks:
        await task_of(tasks, "a")
        handle = tasks.start_soon("a", parent)
        await wait_all_tasks_blocked()
        handle.cancel()
        with pytest.raises(TaskCancelledError):
            await handle.wait()
    assert ended == ["child"]


@both_ways
async def test_a_deadline_is_its_own_runs(workers: bool, autojump_clock: MockClock) -> None:
    async with open_map(workers) as tasks:
        await tasks.start_soon("a", trio.sleep, 1, timeout=2).wait()
        await tasks.start_soon("b", trio.sleep, 10).wait()
        late = tasks.start_soon("c", trio.sleep, 10, timeout=2)
        with pytest.raises(TaskFailedError) as failed:
            await late.wait()
        assert isinstance(failed.value.__cause__, trio.TooSlowError)
        await tasks.start_soon("d", trio.sleep, 10).wait()


@both_ways
async def test_a_body_that_outstays_its_deadline_leaves_it_behind(
    workers: bool, autojump_clock: MockClock
) -> None:
    async def stubborn() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return "late"

    async with open_map(workers) as tasks:
        assert await tasks.start_soon("a", stubborn, timeout=1).wait() == "late"
        await tasks.start_soon("b", trio.sleep, 1).wait()


@both_ways
async def test_a_body_that_leaves_a_scope_open_fails_alone(workers: bool) -> None:
    """Trio tells of it; the next run is not inside of that scope."""

    async def careless(cancel: bool, error: bool) -> None:
        scope = trio.CancelScope()
        scope.__enter__()
        if cancel:
            scope.cancel()
        if error:
            raise ValueError("and this")

    async with namedtasks.open_task_map(backoff=None, workers=workers) as tasks:
        for cancel in (True, False):
            for error in (True, False):
                await task_of(tasks, "a")
                with pytest.raises(TaskFailedError) as failed:
                    await tasks.start_soon("b", careless, cancel, error).wait()
                cause = failed.value.__cause__
                assert isinstance(cause, RuntimeError)
                assert "Cancel scope stack corrupted" in str(cause)
                assert isinstance(cause.__context__, ValueError) == error
                await tasks.start_soon("c", trio.lowlevel.checkpoint).wait()


# Errors


class Odd(BaseException):
    """Neither an Exception nor one that Python knows."""


@both_ways
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, Odd])
async def test_what_is_no_exception_goes_up(workers: bool, kind: type[BaseException]) -> None:
    async def body() -> None:
        await trio.lowlevel.checkpoint()
        raise kind

    with pytest.raises(kind):
        async with open_map(workers) as tasks:
            await task_of(tasks, "a")
            tasks.start_soon("a", body)
            await trio.sleep_forever()
    assert len(tasks) == 0


@both_ways
async def test_a_failure_is_recorded_and_the_next_run_is_untouched(workers: bool) -> None:
    async def boom() -> None:
        raise ValueError("boom")

    async def tell() -> BaseException | None:
        try:
            raise KeyError
        except KeyError as error:
            return error.__context__

    async with namedtasks.open_task_map(backoff=None, workers=workers) as tasks:
        for _ in range(3):
            handle = tasks.start_soon("a", boom)
            with pytest.raises(TaskFailedError) as failed:
                await handle.wait()
            cause = failed.value.__cause__
            assert isinstance(cause, ValueError)
            assert cause.__traceback__ is not None
            assert cause.__traceback__.tb_frame.f_code is boom.__code__, "no frame of ours"
            assert await tasks.start_soon("a", tell).wait() is None


async def test_a_failure_keeps_its_worker() -> None:
    async def boom() -> trio.lowlevel.Task:
        failed_in.append(trio.lowlevel.current_task())
        raise ValueError

    failed_in: list[trio.lowlevel.Task] = []
    async with open_map() as tasks:
        first = await task_of(tasks, "a")
        with pytest.raises(TaskFailedError):
            await tasks.start_soon("b", boom).wait()
        assert failed_in == [first]
        assert await task_of(tasks, "a") is first


@both_ways
async def test_a_mixed_group_is_parted(workers: bool) -> None:
    async def body() -> None:
        raise BaseExceptionGroup("both", [ValueError("its own"), KeyboardInterrupt()])

    handle: namedtasks.TaskHandle[None] | None = None
    with pytest.raises(BaseExceptionGroup) as raised:
        async with open_map(workers) as tasks:
            handle = tasks.start_soon("a", body)
            await trio.sleep_forever()
    assert raised.group_contains(KeyboardInterrupt)
    assert handle is not None
    with pytest.raises(TaskFailedError):
        await handle.wait()


# Idle workers


async def test_idle_workers_are_bounded() -> None:
    async with open_map() as tasks:
        for number in range(1200):
            tasks.start_soon(str(number), trio.lowlevel.checkpoint)
        await tasks.wait_idle()
        await wait_all_tasks_blocked()
        assert idle(tasks) == 1000


async def test_idle_workers_leave_when_they_are_not_needed(autojump_clock: MockClock) -> None:
    async with open_map() as tasks:
        for number in range(100):
            tasks.start_soon(str(number), trio.lowlevel.checkpoint)
        await tasks.wait_idle()
        for _ in range(50):
            await tasks.start_soon("one", trio.lowlevel.checkpoint).wait()
        assert idle(tasks) == 100, "they were needed just now"
        await trio.sleep(11)
        for _ in range(120):
            await tasks.start_soon("one", trio.lowlevel.checkpoint).wait()
        await wait_all_tasks_blocked()
        assert idle(tasks) == 1


async def test_idle_workers_do_not_hold_the_block_open() -> None:
    async with open_map() as tasks:
        await task_of(tasks, "a")
        assert idle(tasks) == 1
    assert idle(tasks) == 0
    with pytest.raises(ValueError, match="of the block's own"):
        async with open_map() as tasks:
            await task_of(tasks, "a")
            raise ValueError("of the block's own")
    assert idle(tasks) == 0


async def test_idle_workers_do_not_hold_virtual_time(autojump_clock: MockClock) -> None:
    async with open_map() as tasks:
        await task_of(tasks, "a")
        await trio.sleep(100)
        assert trio.current_time() == 100


@both_ways
async def test_the_surroundings_are_cancelled_while_nothing_runs(workers: bool) -> None:
    """What a shielded block starts then is cancelled, as in a nursery; idle workers just leave."""
    with trio.CancelScope() as around:
        async with open_map(workers) as tasks:
            await task_of(tasks, "a")
            around.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
                assert idle(tasks) == 0
                handle = tasks.start_soon("a", trio.sleep_forever)
                await wait_all_tasks_blocked()
                assert handle.done
            with pytest.raises(TaskCancelledError):
                await handle.wait()


@both_ways
async def test_an_idle_worker_keeps_nothing_of_its_last_run_alive(workers: bool) -> None:
    class Big:
        pass

    async def make(argument: Big) -> Big:
        VAR_OF_OBJECTS.set(argument)
        return Big()

    async with open_map(workers) as tasks:
        argument = Big()
        handle = tasks.start_soon("a", make, argument)
        result = await handle.wait()
        alive = weakref.ref(argument), weakref.ref(result)
        del argument, handle, result
        gc.collect()
        assert [ref() for ref in alive] == [None, None]


VAR_OF_OBJECTS: contextvars.ContextVar[object] = contextvars.ContextVar("VAR_OF_OBJECTS")


async def test_trios_own_instruments_see_one_spawn_for_many_runs() -> None:
    """A declared difference."""

    class Count(trio.abc.Instrument):
        spawned = 0

        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            self.spawned += 1

    count = Count()
    trio.lowlevel.add_instrument(count)
    async with open_map() as tasks:
        for _ in range(10):
            await tasks.start_soon("a", trio.lowlevel.checkpoint).wait()
        assert count.spawned == 1
    trio.lowlevel.remove_instrument(count)


def test_what_goes_wrong_between_two_runs_goes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C, say, that comes when a worker is about to park."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        async with open_map() as tasks:
            monkeypatch.setattr("namedtasks._trio.workers._sleep_request", interrupt)
            handles.append(tasks.start_soon("a", trio.lowlevel.checkpoint))
            await trio.sleep_forever()

    handles: list[namedtasks.TaskHandle[None]] = []
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert handles[0]._run.status is RunStatus.SUCCEEDED


# Names, and refusals at a glance


async def test_what_cannot_be_hashed_is_refused_in_words() -> None:
    async with open_map() as tasks:
        name: Any = ["a"]
        with pytest.raises(TypeError, match=r"^a task's name must be hashable, and "):
            tasks.start_soon(name, trio.lowlevel.checkpoint)


async def test_a_refusal_at_a_glance_is_of_the_maps_own_thread() -> None:
    def start(name: str, if_busy: IfBusy) -> None:
        tasks.start_soon(name, trio.lowlevel.checkpoint, if_busy=if_busy)

    how: tuple[IfBusy, ...] = ("refuse", "skip")
    async with open_map() as tasks:
        tasks.start_soon("a", trio.sleep_forever)
        for if_busy in how:
            for name in ("a", "b"):
                with pytest.raises(
                    RuntimeError, match=r"^a task map may be used only in the event loop run"
                ):
                    await trio.to_thread.run_sync(start, name, if_busy)
        tasks.cancel_all()


# Other ways to run trio


@both_ways
def test_in_guest_mode(workers: bool) -> None:
    async def main() -> list[str]:
        async with open_map(workers) as tasks:
            return [(await task_of(tasks, name)).name for name in "abc"]

    todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    outcomes: list[Any] = []
    trio.lowlevel.start_guest_run(
        main, run_sync_soon_threadsafe=todo.put, done_callback=outcomes.append
    )
    while not outcomes:
        todo.get(timeout=10)()
    assert len(outcomes[0].unwrap()) == 3


@both_ways
def test_ctrl_c_arrives_in_a_body(workers: bool) -> None:
    async def body() -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it arrives where it was sent")

    async def main() -> None:
        async with open_map(workers) as tasks:
            await task_of(tasks, "a")
            handles.append(tasks.start_soon("a", body))
            await trio.sleep_forever()

    handles: list[namedtasks.TaskHandle[None]] = []
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert handles[0].done


class StartsWhenDropped:
    """A value whose finalizer starts a task."""

    def __init__(self, start: Callable[[], object]) -> None:
        self.start = start

    def __del__(self) -> None:
        self.start()


@both_ways
async def test_a_start_while_the_last_run_of_a_worker_is_dropped(
    workers: bool, autojump_clock: MockClock
) -> None:
    """The worker is idle already, and not asleep yet: its next body must not wake too early."""

    async def gives() -> StartsWhenDropped:
        return StartsWhenDropped(lambda: tasks.start_soon("next", trio.sleep, 5))

    async with open_map(workers) as tasks:
        tasks.start_soon("a", gives)
        await tasks.wait_free("a")
        await wait_all_tasks_blocked()
        await tasks.wait_idle()
        assert trio.current_time() == 5
