"""Writes the tables of busy names into docs/explanation/states.md, from the behaviour of a map.

For each situation of a name and each value of ``if_busy``, it brings a map into that situation,
makes a start, and writes down the outcome. It does the same for each event that can end or begin
a pending run. This file contains no outcome of any cell.

Run it as ``python docs/tools/busy_tables.py``.
"""

from __future__ import annotations

import contextlib
import enum
import math
import pathlib
import typing
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import namedtasks
from namedtasks import ANY, IfBusy, Observation, State, TaskHandle, TaskMap
from namedtasks.abc import FailedRun

PAGE = pathlib.Path(__file__).parent.parent / "explanation" / "states.md"
BEGIN = "<!-- made by docs/tools/busy_tables.py: {} -->\n"
END = "<!-- end of what was made: {} -->\n"

NAME, SIBLING, WHOLE = ("v", "a"), ("v", "b"), ("v", ANY)
POLICIES: tuple[IfBusy, ...] = typing.get_args(IfBusy)
WAIT = 1.0


# The map behind a cell


class PlannedError(Exception):
    """A failure that states its own wait, in seconds."""

    def __init__(self, delay: float | None) -> None:
        super().__init__()
        self.delay = delay


class Policy:
    """The policy that returns the wait of the error."""

    def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float | None:
        """Return the seconds to wait."""
        del failures, run
        assert isinstance(error, PlannedError)
        return error.delay


@attrs.define
class Body:
    """The body of a run: it ends when `end` is called, and nothing stops it before."""

    go: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None

    async def run(self) -> None:
        """Wait for `end`; only then react to a cancellation."""
        with trio.CancelScope(shield=True):
            await self.go.wait()
        if self.error is not None:
            raise self.error
        await trio.lowlevel.checkpoint_if_cancelled()

    async def end(self, error: Exception | None = None) -> None:
        """End the body, and wait until all consequences have happened."""
        self.error = error
        self.go.set()
        await wait_all_tasks_blocked()


@attrs.define
class World:
    """A map, with its running and its pending run."""

    tasks: TaskMap
    body: Body = attrs.field(factory=Body)
    running: TaskHandle[Any] | None = None
    pending: TaskHandle[Any] | None = None
    later: list[Body] = attrs.field(factory=list[Body])
    look: Observation | None = None
    leave: trio.Event = attrs.field(factory=trio.Event)
    """Set to leave the map's block."""

    def start(self, name: object, if_busy: IfBusy = "refuse") -> TaskHandle[Any] | None:
        """Start another run."""
        self.later.append(Body())
        return self.tasks.start_soon(name, self.later[-1].run, if_busy=if_busy, since=self.look)

    async def runs(self, name: object = NAME) -> None:
        """Bring *name* into the state running."""
        self.running = self.tasks.start_soon(name, self.body.run)
        await wait_all_tasks_blocked()

    async def fails(self, delay: float = WAIT) -> None:
        """Let a run of the name fail."""
        await self.runs()
        await self.body.end(PlannedError(delay))
        self.running, self.body = None, Body()

    async def is_to_retry(self) -> None:
        """Let a run with ``retry=True`` fail, so that it waits for its next attempt."""
        body = Body()
        self.later.append(body)

        async def fail_first() -> None:
            if namedtasks.current_run().attempts == 1:
                raise PlannedError(WAIT)
            await body.run()

        self.pending = self.tasks.start_soon(NAME, fail_first, retry=True)
        await wait_all_tasks_blocked()

    async def is_out_of_date(self) -> None:
        """Begin an observation, and let a run of the name end after it."""
        self.look = self.tasks.observe()
        await self.runs()
        await self.body.end()
        self.body = Body()

    async def is_put_off(self, how: IfBusy, name: object = NAME) -> None:
        """Start a run of *name* that becomes pending."""
        self.pending = self.start(name, how)
        await wait_all_tasks_blocked()

    async def goes_by(self) -> None:
        """Move the clock to the end of the wait."""
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(WAIT)
        await wait_all_tasks_blocked()

    async def shut_down(self) -> None:
        """Shut down, and move the clock past the grace."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: self.tasks.shutdown(grace=WAIT / 2))
            await wait_all_tasks_blocked()
            await self.goes_by()
            await self.goes_by()

    def end(self) -> None:
        """End all runs, and leave the block."""
        self.tasks.cancel_all()
        for body in (self.body, *self.later):
            body.go.set()
        self.leave.set()


async def _keep_open(task_status: trio.TaskStatus[World]) -> None:
    """Open a map, and keep it open until `World.leave` is set."""
    async with namedtasks.open_task_map(backoff=Policy(), instruments=()) as tasks:
        world = World(tasks)
        task_status.started(world)
        await world.leave.wait()


async def _in_a_world(ask: Callable[[World], Awaitable[str]]) -> str:
    async with trio.open_nursery() as nursery:
        world: World = await nursery.start(_keep_open)
        try:
            return await ask(world)
        finally:
            world.end()


def asked(ask: Callable[[World], Awaitable[str]]) -> str:
    """Return the answer of *ask*, which gets a map and a clock of its own."""
    return trio.run(_in_a_world, ask, clock=MockClock())


# The outcome of a start


class Place(enum.Enum):
    """The situations that a name may be in before a start."""

    FREE = "free"
    RUNNING = "running"
    STOPPING = "running, asked to stop"
    QUEUED = "running, with a pending run"
    WAITING = "waiting"
    WAITING_QUEUED = "waiting, with a pending run"
    WAITING_TO_RETRY = "waiting to retry"
    READY = "ready"
    GAVE_UP = "gave up"
    OVERLAPPED = "free, while an overlapping name runs"
    WAITING_OVERLAPPED = "waiting, while an overlapping name runs"
    READY_OVERLAPPED = "ready, while an overlapping name runs"
    GAVE_UP_OVERLAPPED = "gave up, while an overlapping name runs"
    CLAIMED = "free, while an overlapping replacement is pending"
    CLAIMS = "free, while its own replacement waits for an overlapping run"
    OUT_OF_DATE = "any state, on an old listing (`since=`)"
    CLOSED = "any state, in a closed map"


Step = Callable[[World], Awaitable[None]]


async def _whole_runs(world: World) -> None:
    await world.runs(WHOLE)


async def _whole_claims(world: World) -> None:
    await world.runs(SIBLING)
    await world.is_put_off("replace", WHOLE)


async def _is_queued(world: World) -> None:
    await world.is_put_off("queue")


async def _gives_up(world: World) -> None:
    await world.fails(math.inf)


async def _is_asked_to_stop(world: World) -> None:
    world.tasks.cancel(NAME)


async def _is_closed(world: World) -> None:
    world.tasks.close()
    await wait_all_tasks_blocked()


WAY_TO: dict[Place, tuple[Step, ...]] = {
    Place.FREE: (),
    Place.RUNNING: (World.runs,),
    Place.STOPPING: (World.runs, _is_asked_to_stop),
    Place.QUEUED: (World.runs, _is_queued),
    Place.WAITING: (World.fails,),
    Place.WAITING_QUEUED: (World.fails, _is_queued),
    Place.WAITING_TO_RETRY: (World.is_to_retry,),
    Place.READY: (World.fails, World.goes_by),
    Place.GAVE_UP: (_gives_up,),
    Place.OVERLAPPED: (_whole_runs,),
    Place.WAITING_OVERLAPPED: (World.fails, _whole_runs),
    Place.READY_OVERLAPPED: (World.fails, World.goes_by, _whole_runs),
    Place.GAVE_UP_OVERLAPPED: (_gives_up, _whole_runs),
    Place.CLAIMED: (_whole_claims,),
    Place.CLAIMS: (_whole_claims,),
    Place.OUT_OF_DATE: (World.is_out_of_date, World.runs),
    Place.CLOSED: (World.runs, _is_closed),
}


def start(place: Place, if_busy: IfBusy) -> str:
    """Return the outcome of a start, in words."""

    async def ask(world: World) -> str:
        for step in WAY_TO[place]:
            await step(world)
        name = WHOLE if place is Place.CLAIMS else NAME
        try:
            handle = world.start(name, if_busy)
        except namedtasks.RefusedError as refusal:
            return f"`{type(refusal).__name__}`"
        if handle is None:
            return "`None`"
        if handle is world.running:
            return "joins the run in progress"
        if handle is world.pending:
            return "joins the retry"
        what = "runs" if world.tasks.get(name) is handle else "pending"
        if world.pending is not None and world.pending.done:
            what += ", superseding the pending run"
        return what

    return asked(ask)


def starts() -> str:
    """Return a Markdown table: a row for each situation, a column for each value of if_busy."""
    lines = [
        "| | " + " | ".join(f"`{policy!r}`".replace("'", '"') for policy in POLICIES) + " |",
        "|---" * (len(POLICIES) + 1) + "|",
    ]
    for place in Place:
        cells = [start(place, policy) for policy in POLICIES]
        lines.append(f"| {place.value} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


# The outcome of a pending run


class Kind(enum.Enum):
    """The kinds of pending runs, each with the event that it waits for."""

    REPLACES = "`replace`, until a run ends"
    COMES_AFTER = "`queue`, until a run ends"
    SITS_OUT = "`queue`, until a wait ends"
    RETRIES = "`retry=True`, until a wait ends"


class Event(enum.Enum):
    """The events that a pending run may meet."""

    RETURN = "the earlier run returns"
    FAIL = "… fails"
    FAIL_UNCOUNTED = "… fails uncounted"
    FAIL_LAST = "… fails, and the name gives up"
    CANCEL = "… is cancelled, and stops"
    TIME = "the wait ends"
    FORGET = "`forget(name)`"
    REPLACE = "a newer start with `replace`"
    QUEUE = "a newer start with `queue`"
    OWN_CANCEL = "its own handle is cancelled"
    CANCEL_NAME = "`cancel(name)`"
    LEAVE = "the block ends"
    CLOSE = "`close()`"
    CLOSE_RETURN = "… then the earlier run returns"
    CLOSE_FAIL = "… then it fails"
    GRACE = "`shutdown(grace)`, when the grace is over"


async def _close_and_end(world: World, error: Exception | None = None) -> None:
    await _is_closed(world)
    await world.body.end(error)


async def _leave(world: World) -> None:
    world.leave.set()
    await wait_all_tasks_blocked()


async def _cancelled(world: World) -> None:
    assert world.running is not None
    world.running.cancel()
    await world.body.end()


async def _called(call: Callable[[], object]) -> None:
    with contextlib.suppress(namedtasks.RefusedError):
        call()
    await wait_all_tasks_blocked()


DO: dict[Event, Step] = {
    Event.RETURN: lambda world: world.body.end(),
    Event.FAIL: lambda world: world.body.end(PlannedError(WAIT)),
    Event.FAIL_UNCOUNTED: lambda world: world.body.end(PlannedError(None)),
    Event.FAIL_LAST: lambda world: world.body.end(PlannedError(math.inf)),
    Event.CANCEL: _cancelled,
    Event.TIME: World.goes_by,
    Event.FORGET: lambda world: _called(lambda: world.tasks.forget(NAME)),
    Event.REPLACE: lambda world: _called(lambda: world.start(NAME, "replace")),
    Event.QUEUE: lambda world: _called(lambda: world.start(NAME, "queue")),
    Event.OWN_CANCEL: lambda world: _called(lambda: world.pending and world.pending.cancel("…")),
    Event.CANCEL_NAME: lambda world: _called(lambda: world.tasks.cancel(NAME, reason="…")),
    Event.LEAVE: _leave,
    Event.CLOSE: _is_closed,
    Event.CLOSE_RETURN: _close_and_end,
    Event.CLOSE_FAIL: lambda world: _close_and_end(world, PlannedError(WAIT)),
    Event.GRACE: World.shut_down,
}
ENDS = (Event.RETURN, Event.FAIL, Event.FAIL_UNCOUNTED, Event.FAIL_LAST, Event.CANCEL)
AFTER_CLOSE = (Event.CLOSE_RETURN, Event.CLOSE_FAIL)


def happens(kind: Kind, event: Event) -> str:
    """Return the outcome of a pending run, in words."""
    sits_out = kind in (Kind.SITS_OUT, Kind.RETRIES)
    if (sits_out and event in (*ENDS, *AFTER_CLOSE)) or (event is Event.TIME and not sits_out):
        return ""

    async def ask(world: World) -> str:
        if kind is Kind.RETRIES:
            await world.is_to_retry()
        else:
            await (world.fails() if sits_out else world.runs())
            await world.is_put_off("replace" if kind is Kind.REPLACES else "queue")
        assert world.pending is not None
        attempts = world.pending.attempts
        await DO[event](world)
        if world.pending.done:
            return await _why(world.pending)
        if world.pending.attempts > attempts:
            return "begins"
        is_new = not sits_out and world.tasks.state(NAME) is State.WAITING
        return "begins after the wait" if is_new else "—"

    return asked(ask)


async def _why(handle: TaskHandle[Any]) -> str:
    try:
        await handle.wait()
    except namedtasks.TaskCancelledError as error:
        return "ends" if error.reason in (None, "…") else f"ends: {error.reason}"
    raise AssertionError("the pending run returned a value")


def endings() -> str:
    """Return a Markdown table: a row for each event, a column for each kind of pending run."""
    lines = [
        "| | " + " | ".join(kind.value for kind in Kind) + " |",
        "|---" * (len(Kind) + 1) + "|",
    ]
    for event in Event:
        cells = [happens(kind, event) for kind in Kind]
        lines.append(f"| {event.value} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


# The page

TABLES = {"starts": starts, "pending runs": endings}


def page_with(tables: dict[str, str], page: str) -> str:
    """Return *page* with its tables replaced by *tables*."""
    for what, table in tables.items():
        before, rest = page.split(BEGIN.format(what))
        after = rest.split(END.format(what))[1]
        page = f"{before}{BEGIN.format(what)}{table}{END.format(what)}{after}"
    return page


def all_tables() -> dict[str, str]:
    """Return both tables, newly made."""
    return {what: make() for what, make in TABLES.items()}


def main() -> None:
    """Write the tables into their page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page_with(all_tables(), page), encoding="utf-8")


if __name__ == "__main__":
    main()
