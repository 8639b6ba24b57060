"""Ctrl-C: at any step it leaks no name and holds no lock, and it is never lost."""

import concurrent.futures
import inspect
import linecache
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import attrs
import pytest

import namedtasks
from namedtasks import BackoffError, ClosedError, State, TaskFuture, ThreadTaskMap, current_run
from namedtasks._threads import interrupts as interrupts_module, main_thread
from namedtasks._threads.interrupts import Hook, Interrupts, uninterrupted
from namedtasks.testing import RecordingInstrument
from tests.threads.helpers import PATIENCE, Gate, HandPool, InThread, boom, reach, run_child

PACKAGE = str(pathlib.Path(namedtasks.__file__).parent / "_threads")
CORE = str(pathlib.Path(namedtasks.__file__).parent / "_core")


@attrs.define
class Interrupter:
    """A trace function that sends SIGINT at the given line, counted from 0."""

    at: int
    seen: int = 0
    fired: bool = False

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith((PACKAGE, CORE, __file__)):
            return None
        return self.line

    def line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line" and not is_between_block_and_exit(frame) and not leaves_handler(frame):
            self.seen += 1
            if self.seen == self.at + 1:
                self.fired = True
                signal.raise_signal(signal.SIGINT)
        return self.line


def is_between_block_and_exit(frame: FrameType) -> bool:
    """Whether it is the ``with`` statement itself that is being executed.

    A Ctrl-C there keeps Python from calling ``__exit__`` at all: any block has that hole.
    """
    code = scenario.__code__
    return frame.f_code is code and frame.f_lineno == code.co_firstlineno + 1


def leaves_handler(frame: FrameType) -> bool:
    """Whether it is the end of an ``except`` clause.

    A trace function that raises just there makes Python forget to leave the
    clause: its exception would be the context of all that the thread raises from
    then on. A signal never comes there by itself.
    """
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return sys.exc_info()[0] is not None and line.startswith(("return", "continue", "pass"))


def listens() -> None:
    while True:
        threading.Event().wait(0.0005)
        current_run().check_cancelled()


def scenario(maps: list[ThreadTaskMap], futures: list[TaskFuture[Any]]) -> None:
    with ThreadTaskMap(limit=2, instruments=[RecordingInstrument()]) as tasks:
        maps.append(tasks)
        futures.append(tasks.submit("fine", int, "7"))
        futures.append(tasks.submit("fails", boom))
        assert futures[0].result() == 7
        futures[1].exception()
        futures.append(tasks.submit("listens", listens, timeout=50))
        futures.append(tasks.submit("listens, too", listens))
        futures.append(tasks.submit("waits for a slot", int))
        tasks.submit("listens", int, if_busy="skip")
        futures[4].cancel()
        tasks.cancel("listens")
        concurrent.futures.wait(futures[2:3])
        tasks.wait_idle(0)
        tasks.forget("fails")
        tasks.statistics()
        tasks.cancel_all()
        tasks.wait_empty()
        tasks.shutdown(grace=1)


def run_with_interrupt_at(step: int) -> tuple[bool, bool]:
    """Run the scenario; tell whether the step was reached, and whether it was interrupted."""
    maps: list[ThreadTaskMap] = []
    futures: list[TaskFuture[Any]] = []
    interrupter = Interrupter(step)
    interrupted = False
    before = sys.gettrace()
    sys.settrace(interrupter)
    try:
        scenario(maps, futures)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        sys.settrace(before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for tasks in maps:
        InThread(assert_nothing_leaked, tasks, futures).result()  # another one: no lock is held
    return interrupter.fired, interrupted


def assert_nothing_leaked(tasks: ThreadTaskMap, futures: list[TaskFuture[Any]]) -> None:
    assert len(tasks) == 0
    engine = tasks._shell.engine
    assert (engine.slots.used, engine.slots.in_line, len(engine.timers)) == (0, 0, 0)
    assert all(future.done() for future in futures)
    assert tasks.state("waits for a slot") is State.FREE
    assert isinstance(tasks.check("new"), ClosedError)


@pytest.mark.timeout(600)
def test_ctrl_c_at_any_step_leaks_no_name_and_holds_no_lock() -> None:
    step = interruptions = 0
    while True:
        reached, interrupted = run_with_interrupt_at(step)
        if not reached:
            break
        interruptions += interrupted
        step += 1
    assert sys.exc_info() == (None, None, None)
    assert step > 500, "the scenario has that many lines"
    assert interruptions > 100


def interrupts() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_inside_of_a_call_comes_when_the_call_is_done() -> None:
    """The start has happened: its run goes on, and the block asks it to stop."""
    pool = HandPool()

    def interrupt_and_run(job: Any) -> None:
        interrupts()
        job.run()

    pool.on_submit = interrupt_and_run
    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(executor=pool, instruments=()) as tasks:
        tasks.submit("a", int)
    assert len(pool.jobs) == 1
    assert tasks.state("a") is State.FREE


def test_a_second_ctrl_c_inside_of_a_call_is_passed_on_at_once() -> None:
    """Whoever presses it twice does not want to wait for a pool that hangs."""
    pool = HandPool()
    reached: list[str] = []

    def twice(job: Any) -> None:
        interrupts()
        reached.append("after the first")
        interrupts()
        reached.append("after the second")

    pool.on_submit = twice
    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(executor=pool, instruments=()) as tasks:
        tasks.submit("a", int)
    assert reached == ["after the first"]
    assert len(tasks) == 0


def test_under_the_guard_no_ctrl_c_is_passed_on() -> None:
    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(instruments=()) as tasks:
        with tasks._shell.guard:
            interrupts()
            interrupts()
            interrupts()
        raise AssertionError("never reached")
    assert InThread(tasks.check, "a").result() is not None


def test_ctrl_c_wakes_who_waits_and_the_block_asks_what_runs_to_stop() -> None:
    is_submitted = threading.Event()

    def body() -> None:
        reach(is_submitted)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        listens()

    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(instruments=()) as tasks:
        future = tasks.submit("a", body)
        is_submitted.set()
        tasks.wait_idle()
    assert str(future.exception(0)) == (
        "task 'a' was cancelled: the map's block raised KeyboardInterrupt"
    )


def test_a_second_ctrl_c_leaves_the_block_at_once() -> None:
    gate = Gate()
    main = threading.main_thread().ident or 0

    may_press = threading.Event()

    def presses() -> None:
        gate.wait_begun()
        reach(may_press)
        signal.pthread_kill(main, signal.SIGINT)
        while not is_asked_to_stop(tasks):  # the block has got that far
            threading.Event().wait(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(instruments=()) as tasks:
        future = tasks.submit("deaf", gate)
        presser = InThread(presses)
        may_press.set()
        tasks.wait_idle()
    presser.result()
    assert not future.done()
    gate.open()
    assert future.result(PATIENCE) is None


def is_asked_to_stop(tasks: ThreadTaskMap) -> bool:
    (run,) = tasks._shell.engine.ledger.running.values()
    return run.stop_asked_at is not None


def test_the_handler_from_before_is_called_and_comes_back() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    mine = signal.getsignal(signal.SIGINT)
    try:
        with ThreadTaskMap(instruments=()) as tasks:
            interrupts()
            assert len(heard) == 1
            with tasks._shell.guard:
                interrupts()
                assert len(heard) == 1
            assert len(heard) == 2
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_stays_if_a_block_is_entered_that_could_not_be_left() -> None:
    """Inside of a task of its map, in the main thread: its end would wait for itself."""

    def body() -> None:
        with tasks:
            raise AssertionError("it was entered")

    before = signal.getsignal(signal.SIGINT)
    pool = HandPool()
    pool.on_submit = lambda job: job.run()  # in the calling thread
    tasks = ThreadTaskMap(instruments=(), executor=pool)
    with pytest.raises(RuntimeError, match="called from inside of one of its own calls"):
        tasks.submit("a", body).result()
    assert signal.getsignal(signal.SIGINT) is before
    with tasks:
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("first", [0, 1])
def test_blocks_may_end_in_any_order(first: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    maps = [ThreadTaskMap(instruments=()), ThreadTaskMap(instruments=())]
    for tasks in maps:
        tasks.__enter__()
    maps[first].__exit__(None, None, None)
    with pytest.raises(KeyboardInterrupt):
        interrupts()
    maps[1 - first].__exit__(None, None, None)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_that_somebody_else_puts_there_stays() -> None:
    before = signal.getsignal(signal.SIGINT)
    heard: list[int] = []
    try:
        with ThreadTaskMap(instruments=()):
            ours = signal.getsignal(signal.SIGINT)
            assert isinstance(ours, Hook)

            def theirs(number: int, frame: FrameType | None) -> None:
                heard.append(number)
                ours(number, frame)

            signal.signal(signal.SIGINT, theirs)
        assert signal.getsignal(signal.SIGINT) is theirs
        with pytest.raises(KeyboardInterrupt):  # ours still passes it on
            interrupts()
        assert len(heard) == 1
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("disposition", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_signal_that_python_does_not_handle_is_left_alone(disposition: Any) -> None:
    before = signal.signal(signal.SIGINT, disposition)
    try:
        with ThreadTaskMap(instruments=()) as tasks:
            assert signal.getsignal(signal.SIGINT) is disposition
            assert tasks.submit("a", int).result() == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_block_in_another_thread_installs_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)

    def block() -> object:
        with ThreadTaskMap(instruments=()) as tasks:
            tasks.wait_idle()
            return signal.getsignal(signal.SIGINT)

    assert InThread(block).result() is before


def test_where_no_handler_can_be_installed_the_map_goes_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the main interpreter may."""

    def refuses(*args: object) -> None:
        raise ValueError("signal only works in main thread of the main interpreter")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(signal, "signal", refuses)
    with ThreadTaskMap(instruments=()) as tasks:
        assert tasks.submit("a", int).result() == 0
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_the_block_is_entered_leaves_no_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    install: Callable[[Hook], None] = Hook.install

    def install_and_interrupt(hook: Hook) -> None:
        install(hook)
        interrupts()

    monkeypatch.setattr(Hook, "install", install_and_interrupt)
    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(instruments=()):
        raise AssertionError("never reached")
    assert signal.getsignal(signal.SIGINT) is before


def test_the_very_beginning_of_the_end_of_a_block_belongs_to_it_already() -> None:
    """There Python may run a handler before the first step of ``__exit__``."""
    asked: list[bool] = []

    class Block:
        def __enter__(self) -> None: ...

        def __exit__(self, *exc_info: object) -> None:
            asked.append(hook.is_being_left(inspect.currentframe()))

    block = Block()
    hook = Hook(block)
    asked.append(hook.is_being_left(inspect.currentframe()))
    with block:
        pass
    hook.uninstall()
    with block:
        pass
    assert asked == [False, True, False]


def test_a_map_may_be_left_that_was_never_entered() -> None:
    tasks = ThreadTaskMap(instruments=())
    future = tasks.submit("a", int)
    tasks.__exit__(None, None, None)
    assert future.done()
    assert isinstance(tasks.check("a"), ClosedError)
    assert uninterrupted._depth == 0


def test_refusals_after_an_interrupt_are_as_before() -> None:
    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(instruments=()) as tasks:
        tasks.submit("fails", boom).exception()
        with tasks._shell.guard:
            interrupts()
    assert tasks.state("fails") is State.WAITING
    assert not isinstance(tasks.check("fails"), BackoffError), "closed comes first"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_that_a_task_has_forked_hears_ctrl_c() -> None:
    """Its main thread is the task's, wherever the parent's main thread was."""
    child = run_child(
        """
        import os
        import signal
        import warnings
        import namedtasks
        from namedtasks._threads.interrupts import uninterrupted

        def fork():
            child = os.fork()
            if child:
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                os._exit(42)
            os._exit(0)

        warnings.simplefilter("ignore", DeprecationWarning)  # threads, and a fork
        with namedtasks.ThreadTaskMap() as tasks:
            uninterrupted.enter_guard()
            print(tasks.submit("forks", fork).result())
            uninterrupted.leave_guard()
        """
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "42\n", "")


@pytest.mark.parametrize("forks", ["the main thread", "another"])
def test_who_forks_is_inside_of_what_it_was_inside_before(
    forks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here nothing is forked: the child's coverage could not be seen."""
    inside = (1, 0, 1) if forks == "the main thread" else (0, 0, 0)
    monkeypatch.setattr(main_thread._main, "ident", threading.get_ident())
    monkeypatch.setattr(interrupts_module, "uninterrupted", fresh := Interrupts())
    fresh.enter_guard()
    if forks == "another":
        InThread(interrupts_module._after_fork).result()
    else:
        interrupts_module._after_fork()
    assert (fresh._depth, fresh._asleep, fresh._guards) == inside
