"""Ctrl-C: at any step it leaks no name and holds no lock, and it is never lost."""

import ast
import asyncio
import concurrent.futures
import contextlib
import dis
import linecache
import os
import pathlib
import random
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import attrs
import pytest
import trio

import namedtasks
import namedtasks.asyncio
from namedtasks import (
    BackoffError,
    ClosedError,
    State,
    TaskCancelledError,
    TaskFuture,
    ThreadTaskMap,
    _base,
    current_run,
)
from namedtasks._context import is_sigint_deferred
from namedtasks._scheduler import Scheduler
from namedtasks._thread_pool import MonotonicClock, ThreadPool
from namedtasks._threads import backend as backend_module, future as future_module, task_map
from namedtasks._threads.sigint import (
    PLACES,
    SHARED,
    DeferredSigint,
    Place,
    SigintHandler,
    deferred_sigint,
    get_frame,
)
from namedtasks.instruments import Instrument, TaskEvent
from namedtasks.testing import RecordingInstrument
from tests.threads.helpers import PATIENCE, Gate, HandPool, InThread, boom, reach, run_child

PACKAGE = str(pathlib.Path(namedtasks.__file__).parent)


@attrs.define
class Interrupter:
    """A trace function that sends SIGINT at the given step of the main thread, counted from 0.

    It sends *times* signals in a row.
    """

    at: int
    kind: str = "line"
    times: int = 1
    seen: int = 0
    fired: bool = False

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith((PACKAGE, __file__)):
            return None
        frame.f_trace_opcodes = self.kind == "opcode"
        return self.trace

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if (
            event == self.kind
            and frame.f_lineno
            and not is_block(frame)
            and not leaves_handler(frame)
        ):
            self.seen += 1
            if self.at < self.seen <= self.at + self.times:
                self.fired = True
                signal.raise_signal(signal.SIGINT)
        return self.trace


def is_block(frame: FrameType) -> bool:
    """Whether the ``with`` statement itself is being executed, of a scenario or in the package.

    A Ctrl-C there keeps Python from calling ``__exit__`` at all: any block has that hole. For the
    C code of a lock it has not: a signal is looked for after the call of a function, and the
    block begins before that. Nor does one come at a ``try``, or at the instruction that does
    nothing between the last statement of a block and its end.
    """
    if frame.f_code.co_code[frame.f_lasti] == dis.opmap["NOP"]:
        return True
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return line.startswith(("with ", "try:"))


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


class Scenario:
    """What a scenario made, and what has to be true of it at the end."""

    def __init__(self) -> None:
        self.maps: list[ThreadTaskMap] = []
        self.futures: list[TaskFuture[Any]] = []
        self.used: set[ThreadTaskMap] = set()
        """The maps whose blocks were entered."""

    def open(self, **settings: Any) -> ThreadTaskMap:
        self.maps.append(ThreadTaskMap(**settings))
        return self.maps[-1]

    def submit(self, tasks: ThreadTaskMap, *args: Any, **options: Any) -> TaskFuture[Any]:
        self.used.add(tasks)
        submit: Any = tasks.submit
        future: TaskFuture[Any] | None = submit(*args, **options)
        if future is None:
            return self.futures[-1]  # it was skipped
        self.futures.append(future)
        return future


def one_map(made: Scenario) -> None:
    with made.open(limit=2, instruments=[RecordingInstrument()]) as tasks:
        fine = made.submit(tasks, "fine", int, "7")
        fails = made.submit(tasks, "fails", boom)
        assert fine.result() == 7
        fails.exception()
        heeds = made.submit(tasks, "listens", listens, timeout=50)
        made.submit(tasks, "listens, too", listens)
        waits = made.submit(tasks, "waits for a slot", int)
        made.submit(tasks, "listens", int, if_busy="skip")
        waits.cancel()
        tasks.cancel("listens")
        concurrent.futures.wait([heeds])
        tasks.wait_idle(0)
        tasks.forget("fails")
        tasks.statistics()
        tasks.cancel_all()
        tasks.wait_empty()
        tasks.shutdown(grace=1)


def busy_names(made: Scenario) -> None:
    with made.open(instruments=()) as tasks:
        made.submit(tasks, "a", listens)
        joined = made.submit(tasks, "a", listens, if_busy="join")
        left = made.submit(tasks, "a", listens, if_busy="join")
        left.cancel()
        queued = made.submit(tasks, "a", int, if_busy="queue")
        made.submit(tasks, "a", int, if_busy="replace")
        for future in (joined, queued):
            with contextlib.suppress(TaskCancelledError, concurrent.futures.CancelledError):
                future.result(PATIENCE)
        made.submit(tasks, "b", boom, operation="attach").exception(PATIENCE)
        try:
            made.submit(tasks, "b", int, operation="attach")
        except BackoffError:
            tasks.wait_free("b", operation="detach")
        tasks.cancel_matching(lambda name: name == "a")
        tasks.close()
        done = list(concurrent.futures.as_completed(made.futures, PATIENCE))
        assert done


class Caller(Instrument):
    """An instrument that calls the map of each event."""

    def __init__(self, made: Scenario) -> None:
        self.made = made

    def call(self, event: TaskEvent) -> None:
        tasks = self.made.maps[0]
        tasks.statistics()
        tasks.cancel("nobody")
        if event.name == "a":
            self.made.submit(tasks, "from an instrument", int, if_busy="skip")

    task_started = task_succeeded = task_cancelled = task_queued = call


def callbacks_and_instruments(made: Scenario) -> None:
    with made.open(limit=1, instruments=[Caller(made)]) as tasks:
        made.submit(tasks, "holds the slot", listens)
        future = made.submit(tasks, "a", int)
        future.add_done_callback(lambda _: made.submit(tasks, "from a callback", int))
        future.add_done_callback(lambda _: tasks.forget("nobody"))
        future.cancel()
        made.submit(tasks, "a", int, if_busy="queue")
        tasks.cancel("holds the slot")
        tasks.wait_idle()


def in_place(made: Scenario) -> None:
    """A pool that runs functions in the main thread, and one that refuses them."""
    pool, refuses = HandPool(), HandPool()
    pool.on_submit = lambda job: job.run()
    refuses.raises = RuntimeError("full")
    with made.open(instruments=(), executor=pool) as tasks:
        made.submit(tasks, "a", int).result(PATIENCE)
        try:
            made.submit(tasks, "b", int, executor=lambda: refuses)
        except RuntimeError:
            tasks.wait_free("b")
        with ThreadPoolExecutor(1) as threads:
            made.submit(tasks, "c", boom, executor=threads).exception(PATIENCE)
            threads.shutdown()


def nested_blocks(made: Scenario) -> None:
    with made.open(instruments=()) as outer:
        made.submit(outer, "a", listens)
        with made.open(instruments=()) as inner:
            made.submit(inner, "a", lambda: made.submit(outer, "b", int))
            inner.wait_idle()
            outer.cancel("a")
        outer.wait_idle()


SCENARIOS = [one_map, busy_names, callbacks_and_instruments, in_place, nested_blocks]


@attrs.define
class Outcome:
    reached: bool
    interrupted: bool


def run_with_interrupt(
    scenario: Callable[[Scenario], None], step: int, kind: str = "line", times: int = 1
) -> Outcome:
    """Run the *scenario* with a signal at a step, and check that nothing is left of it."""
    made = Scenario()
    interrupter = Interrupter(step, kind, times)
    interrupted = False
    before = sys.gettrace()
    # Python 3.12 traces no bytecodes unless a frame has asked for them before `settrace`.
    get_frame(0).f_trace_opcodes = kind == "opcode"
    sys.settrace(interrupter)
    try:
        scenario(made)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        sys.settrace(before)
    assert not deferred_sigint.pending
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for tasks in made.maps:
        is_closed = InThread(assert_nothing_leaked, tasks).result()  # another one: no lock is held
        assert is_closed or tasks not in made.used
    if times == 1 or not interrupter.fired:  # a second Ctrl-C leaves a block at once
        for future in made.futures:
            assert future.done()
        assert interrupted == interrupter.fired, "a signal was lost"
    return Outcome(interrupter.fired, interrupted)


def assert_nothing_leaked(tasks: ThreadTaskMap) -> bool:
    tasks.cancel_all()  # what a block has left that was left by a second Ctrl-C
    assert tasks.wait_idle(PATIENCE)
    scheduler = tasks._backend.scheduler
    assert len(tasks) == 0
    assert scheduler.thread_slots.used == scheduler.thread_slots.queued == 0
    assert len(scheduler.timers) == 0
    assert not tasks._backend.waits.ending
    assert not tasks._backend.postponed
    return isinstance(tasks.check("new"), ClosedError)


def stride(kind: str) -> int:
    """Each line; of the many times more bytecodes some, at other places each time."""
    return 1 if kind == "line" else random.randint(19, 31)


BYTECODES = pytest.mark.skipif(
    "NAMEDTASKS_BYTECODES" not in os.environ, reason="takes long: run make interrupts"
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", ["line", pytest.param("opcode", marks=BYTECODES)])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ctrl_c_at_any_step_leaks_no_name_and_is_not_lost(
    scenario: Callable[[Scenario], None], kind: str, times: int
) -> None:
    """No name stays taken, no lock held, no wait hangs, and the handler from before is back."""
    step = interruptions = 0
    while True:
        outcome = run_with_interrupt(scenario, step, kind, times)
        if not outcome.reached:
            break
        interruptions += outcome.interrupted
        step += stride(kind) if times == 1 else 5 * stride(kind)
    assert sys.exc_info() == (None, None, None)
    assert interruptions > 5


def test_every_function_that_takes_the_lock_is_critical() -> None:
    """The source is read: a new function that is forgotten fails here."""
    found = 0
    critical = {code for code, place in PLACES.items() if place is Place.CRITICAL}
    for module in (_base, backend_module, future_module, task_map):
        source = pathlib.Path(module.__file__ or "").read_text(encoding="utf-8")
        for function in ast.walk(ast.parse(source)):
            if not isinstance(function, ast.FunctionDef):
                continue
            taken = [
                item
                for block in ast.walk(function)
                if isinstance(block, ast.With)
                for item in block.items
                if ast.unparse(item.context_expr).endswith("lock")
            ]
            if taken:
                found += 1
                marked = SHARED if module is _base else critical
                lines = {(code.co_name, code.co_filename) for code in marked}
                assert (function.name, module.__file__) in lines
        assert ".acquire(" not in source.replace("wake.acquire(", ""), "locks are taken by `with`"
    assert found > 25


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


@pytest.mark.parametrize("nested", [False, True])
def test_ctrl_c_in_the_last_step_of_a_block(
    monkeypatch: pytest.MonkeyPatch, *, nested: bool
) -> None:
    """It is raised when the block is left."""
    pool_type: Any = ThreadPool
    close = pool_type.close

    def interrupted(pool: ThreadPool[Any]) -> None:
        interrupts()
        close(pool)

    def leave() -> None:
        with pytest.raises(KeyboardInterrupt), ThreadTaskMap(instruments=()) as tasks:
            future = tasks.submit("a", int)
            monkeypatch.setattr(ThreadPool, "close", interrupted)
        monkeypatch.undo()
        assert future.result(0) == 0

    if nested:
        with ThreadTaskMap():
            leave()
    else:
        leave()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_before_and_after_the_handler_goes_is_raised_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first one is deferred by our handler, the second is raised by the one from before."""
    install_handler = signal.signal

    def interrupted(signum: int, handler: Any) -> Any:
        if handler is signal.default_int_handler:
            signal.raise_signal(signal.SIGINT)
            assert deferred_sigint.pending
        before = install_handler(signum, handler)
        if handler is signal.default_int_handler:
            signal.raise_signal(signal.SIGINT)
        return before

    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(instruments=()) as tasks:
        tasks.submit("a", int).result(PATIENCE)
        monkeypatch.setattr(signal, "signal", interrupted)
    monkeypatch.undo()
    assert not deferred_sigint.pending
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_a_future_gets_its_condition() -> None:
    """It is passed on when the lock of the map is free again."""
    told: list[int] = []
    with ThreadTaskMap(instruments=()) as tasks:
        future = tasks.submit("a", int)
        deferred_sigint.pending = SigintHandler(lambda signum, _: told.append(signum))
        assert future._condition is future._condition
    assert told == [signal.SIGINT]


@pytest.mark.parametrize("look", [0, 1])
def test_ctrl_c_around_the_sleep_of_a_wait(monkeypatch: pytest.MonkeyPatch, look: int) -> None:
    """It may come just before the sleep, or when the future is done."""
    told: list[int] = []
    sleep, gate = backend_module._sleep, Gate()

    def defer_one() -> None:
        deferred_sigint.pending = SigintHandler(lambda signum, _: told.append(signum))

    def interrupted(*args: Any) -> None:
        gate.open()
        sleep(*args)
        defer_one()

    with ThreadTaskMap(instruments=()) as tasks:
        future = tasks.submit("a", gate)
        if look:
            monkeypatch.setattr(backend_module, "_sleep", interrupted)
        else:
            gate.open()
            defer_one()
            for _ in range(2):
                backend_module._check_sigint()
            assert told == [signal.SIGINT]
            defer_one()
            backend_module._sleep(MonotonicClock(), threading.Lock(), 0)
        future.result(PATIENCE)
        monkeypatch.undo()
    assert told == [signal.SIGINT] * (1 if look else 2)


def test_a_second_ctrl_c_inside_a_call_is_passed_on_at_once() -> None:
    """A user who presses it twice does not want to wait for a pool that hangs."""
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


def interrupt_in(tasks: ThreadTaskMap, does: Callable[[], object]) -> None:
    """Have *does* done while this thread owns the lock of the map."""
    forget = tasks._backend.scheduler.forget

    def interrupted(_: object, *args: Any) -> Any:
        does()
        return forget(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scheduler, "forget", interrupted)
        tasks.forget("nobody")


def test_while_a_lock_is_held_no_ctrl_c_is_passed_on() -> None:
    reached: list[int] = []

    def thrice() -> None:
        for number in range(3):
            interrupts()
            reached.append(number)

    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(instruments=()) as tasks:
        interrupt_in(tasks, thrice)
        raise AssertionError("never reached")
    assert reached == [0, 1, 2]
    assert InThread(tasks.check, "a").result() is not None


def test_ctrl_c_in_a_callback_or_an_instrument_is_not_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ends the callback, which is logged, and the call that has called it."""
    gate = Gate()
    others: list[str] = []
    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(limit=1, instruments=()) as tasks:
        tasks.submit("holds the slot", gate)
        future = tasks.submit("a", int)
        future.add_done_callback(lambda _: interrupts())
        future.add_done_callback(lambda _: others.append("called"))
        gate.open()
        future.cancel()
        raise AssertionError("never reached")
    assert others == ["called"]
    assert "a callback of the future of task 'a' failed" in caplog.text


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
    (run,) = tasks._backend.scheduler.running.values()
    return run.cancelled_at is not None


def test_the_handler_from_before_is_called_and_comes_back() -> None:
    """One call for each signal, also for those that were deferred."""
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    mine = signal.getsignal(signal.SIGINT)

    def deferred() -> None:
        interrupts()
        assert len(heard) == 1

    try:
        with ThreadTaskMap(instruments=()) as tasks:
            interrupts()
            assert len(heard) == 1
            interrupt_in(tasks, deferred)
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
    with pytest.raises(RuntimeError, match=r"^this call interrupts another call "):
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
            ours: Any = signal.getsignal(signal.SIGINT)
            assert is_sigint_deferred(ours)

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


@pytest.mark.parametrize("disposition", [signal.SIG_IGN, signal.SIG_DFL, None])
def test_a_signal_that_python_does_not_handle_is_left_alone(
    disposition: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None stands for a handler that was not installed by Python."""
    if disposition is None:
        monkeypatch.setattr(signal, "getsignal", {signal.SIGINT: None}.get)
    installed = signal.default_int_handler if disposition is None else disposition
    before = signal.signal(signal.SIGINT, installed)
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
    install: Callable[[DeferredSigint], bool] = DeferredSigint.install

    def install_and_interrupt(state: DeferredSigint) -> bool:
        is_installed = install(state)
        interrupts()
        return is_installed

    monkeypatch.setattr(DeferredSigint, "install", install_and_interrupt)
    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(instruments=()):
        raise AssertionError("never reached")
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_twice_while_the_block_is_entered_is_raised_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install: Callable[[DeferredSigint], bool] = DeferredSigint.install
    uninstall: Callable[[DeferredSigint], None] = DeferredSigint.uninstall

    def install_and_interrupt(state: DeferredSigint) -> bool:
        is_installed = install(state)
        interrupts()
        return is_installed

    def interrupt_and_uninstall(state: DeferredSigint) -> None:
        interrupts()
        uninstall(state)

    monkeypatch.setattr(DeferredSigint, "install", install_and_interrupt)
    monkeypatch.setattr(DeferredSigint, "uninstall", interrupt_and_uninstall)
    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(instruments=()):
        raise AssertionError("never reached")
    assert not deferred_sigint.pending


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_inside_an_event_loop(*, fails: bool) -> None:
    """A loop's own handler gets what a thread map inside it passes on, and comes back."""
    inside: list[object] = []

    async def main() -> None:
        before = signal.getsignal(signal.SIGINT)
        with ThreadTaskMap(instruments=()) as tasks:
            inside.append(signal.getsignal(signal.SIGINT) is not before)
            if fails:
                interrupt_in(tasks, interrupts)
            assert tasks.submit("a", int).result() == 0
        assert signal.getsignal(signal.SIGINT) is before
        await trio.lowlevel.checkpoint()

    async def on_asyncio() -> None:
        with ThreadTaskMap(instruments=()) as tasks:
            inside.append(tasks.submit("a", int).result() == 0)
            if fails:
                interrupt_in(tasks, interrupts)
        await asyncio.sleep(PATIENCE if fails else 0)

    runs: list[Callable[[], object]] = [lambda: trio.run(main), lambda: asyncio.run(on_asyncio())]
    for run in runs:
        if fails:
            with pytest.raises(KeyboardInterrupt):
                run()
        else:
            run()
    assert inside == [True, True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_trio_map_inside_a_thread_maps_block_warns() -> None:
    """Trio installs its own handler only where it finds the default one."""

    async def main() -> None:
        async with namedtasks.open_task_map(instruments=()):
            pass

    with ThreadTaskMap(instruments=()), pytest.warns(RuntimeWarning, match="ThreadTaskMap"):
        trio.run(main)


def test_an_asyncio_map_inside_a_thread_maps_block_warns() -> None:
    """So does asyncio."""

    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(instruments=()):
            pass

    with ThreadTaskMap(instruments=()), pytest.warns(RuntimeWarning, match="ThreadTaskMap"):
        asyncio.run(main())


def test_a_map_may_be_left_that_was_never_entered() -> None:
    tasks = ThreadTaskMap(instruments=())
    future = tasks.submit("a", int)
    tasks.__exit__(None, None, None)
    assert future.done()
    assert isinstance(tasks.check("a"), ClosedError)
    assert deferred_sigint._blocks == 0


def test_refusals_after_an_interrupt_are_as_before() -> None:
    with pytest.raises(KeyboardInterrupt), ThreadTaskMap(instruments=()) as tasks:
        tasks.submit("fails", boom).exception()
        interrupt_in(tasks, interrupts)
    assert tasks.state("fails") is State.WAITING
    assert not isinstance(tasks.check("fails"), BackoffError), "closed comes first"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_that_a_task_has_forked_gets_ctrl_c() -> None:
    """Its main thread is the task's, wherever the parent's main thread was."""
    child = run_child(
        """
        import os
        import signal
        import warnings
        import namedtasks

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
            print(tasks.submit("forks", fork).result())
        """
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "42\n", "")
