"""Draws the states of a name into docs/explanation/states*, from the behaviour of a scheduler.

For each state and each event, it brings a scheduler into that state, lets the event happen, and
writes down the new state. This file contains the layout of the picture, and no rule.

Run it as ``python -m docs.tools.draw_states``.
"""

from __future__ import annotations

import enum
import math
import pathlib
from collections.abc import Callable

import attrs

from benchmarks import svg
from namedtasks import Observation, RefusedError, State
from namedtasks._decisions import refusal
from namedtasks._observations import Mark, check_observation
from namedtasks._scheduler import Scheduler
from namedtasks._state import Run, RunStatus
from namedtasks.abc import FailedRun

FOLDER = pathlib.Path(__file__).parent.parent / "explanation"
PICTURE = "states"
PAGE = FOLDER / "states.md"
MARKS = "<!-- made by docs/tools/draw_states.py -->\n", "<!-- end of what was made -->\n"

WAIT, RETENTION, LONG = 1.0, 10.0, 1e9
FAILURES = 2
"""The number shown as *n*: above 1, so that *n* + 1 cannot be confused with another number."""


# The scheduler behind a cell


@attrs.define
class Policy:
    """The policy that returns `answer`."""

    answer: float | None = WAIT

    def delay(self, failures: int, error: BaseException, run: FailedRun, /) -> float | None:
        """Return the seconds to wait."""
        del failures, error, run
        return self.answer


class Name:
    """One name in a scheduler of its own, at a time of its own."""

    def __init__(self) -> None:
        """Begin free, at time 0, after a run that has succeeded."""
        self.now = 0.0
        self.policy = Policy()
        self.scheduler: Scheduler[Run] = Scheduler(
            backoff=self.policy,
            retention=RETENTION,
            limit=None,
            overdue_after=1.0,
            instruments=(),
            random=lambda: 0.0,
        )
        self.refused: RefusedError | None = None
        look = self.scheduler.observe(lambda _: None)
        self.look: Observation = look
        """An observation that began before the end of a run: each start with it is out of date."""
        self.mark: Mark = check_observation(look, self.scheduler.ends)
        self.start()
        self.succeed()

    def clock(self) -> float:
        """Return its time."""
        return self.now

    @property
    def run(self) -> Run:
        """The run that holds the name."""
        return self.scheduler.running["name"]

    @property
    def state(self) -> State:
        """The state of the name."""
        return self.scheduler.state("name", None, self.now)

    @property
    def failures(self) -> int:
        """The number of failures that count."""
        if self.state is State.RUNNING:
            return self.run.failures
        failure = self.scheduler.failure("name", None, self.now)
        return 0 if failure is None else failure.failures

    @property
    def is_to_retry(self) -> bool:
        """True if a retry waits for the end of the wait."""
        return "name" in self.scheduler.pending

    def start(self, since: Mark | None = None, *, retry: bool = False) -> None:
        """Start it, or note the refusal."""
        conflict = self.scheduler.find_conflict("name", None, self.clock, since)
        if conflict is not None:
            self.refused = refusal(conflict, "name", None, self.now)
            return
        run = Run(None, "name", None, math.inf, self.scheduler.slots)
        run.retry = retry
        self.scheduler.admit(run, self.clock)
        self.scheduler.begin(run, self.now)

    def succeed(self) -> None:
        """Let its run return."""
        self.scheduler.finish(self.run, RunStatus.SUCCEEDED, self.clock)

    def fail(self, answer: float | None = WAIT) -> None:
        """Let its run fail, with *answer* as the answer of the policy."""
        self.policy.answer = answer
        error = ValueError()
        retry = self.scheduler.decide_retry(self.run, error, lambda: self.now)
        self.scheduler.finish(self.run, RunStatus.FAILED, self.clock, error, retry)

    def start_late(self) -> None:
        """Start it because of an old listing."""
        self.start(self.mark)

    def cancel(self) -> None:
        """Let its run, or the retry that waits, be cancelled."""
        if self.is_to_retry:
            self.scheduler.drop(self.scheduler.pending["name"], None, self.now)
            return
        self.scheduler.finish(self.run, RunStatus.CANCELLED, self.clock)

    def forget(self) -> None:
        """Forget its failures."""
        self.scheduler.forget("name", None, self.now)

    def let_time_pass(self) -> None:
        """Move its clock to the next possible change of its state, or very far."""
        failure = self.scheduler.failure("name", None, self.now)
        if failure is None or failure.gave_up or self.state is State.RUNNING:
            self.now += LONG
        else:
            self.now = failure.retry_at + (RETENTION if self.state is State.READY else 0)
        self.scheduler.run_due(self.now)

    def fail_often(self) -> None:
        """Fail *n* times, and be ready again."""
        for _ in range(FAILURES):
            self.start()
            self.fail()
            self.let_time_pass()


class From(enum.Enum):
    """The situations that a name may be in before an event."""

    FREE = "free"
    RUNNING = "running, *n* = 0"
    RUNNING_AGAIN = "running, *n* > 0"
    WAITING = "waiting"
    TO_RETRY = "waiting to retry"
    READY = "ready"
    GAVE_UP = "gave up"


class Event(enum.Enum):
    """The events that may happen to a name."""

    START = "start"
    START_LATE = "start, on an old listing"
    RETURN = "returns"
    FAIL = "fails"
    FAIL_UNCOUNTED = "fails uncounted"
    FAIL_LAST = "fails, gives up"
    CANCEL = "is cancelled"
    FORGET = "forget"
    TIME = "time passes"


WORDS_FOR_TIME = {State.WAITING: "its wait ends", State.READY: "its retention ends"}
ENDS = (Event.RETURN, Event.FAIL, Event.FAIL_UNCOUNTED, Event.FAIL_LAST, Event.CANCEL)
DO: dict[Event, Callable[[Name], None]] = {
    Event.START: Name.start,
    Event.START_LATE: Name.start_late,
    Event.RETURN: Name.succeed,
    Event.FAIL: Name.fail,
    Event.FAIL_UNCOUNTED: lambda name: name.fail(None),
    Event.FAIL_LAST: lambda name: name.fail(math.inf),
    Event.CANCEL: Name.cancel,
    Event.FORGET: Name.forget,
    Event.TIME: Name.let_time_pass,
}


def name_in(before: From) -> Name:
    """Return a name in the situation *before*."""
    name = Name()
    if before is From.FREE:
        return name
    if before is From.RUNNING:
        name.start()
        return name
    name.fail_often()
    if before is From.READY:
        return name
    name.start(retry=before is From.TO_RETRY)
    if before is not From.RUNNING_AGAIN:
        name.fail(math.inf if before is From.GAVE_UP else WAIT)
    return name


@attrs.frozen
class Step:
    """An event, and the change that it made."""

    before: From
    source: State
    event: Event
    target: State
    failures_before: int
    failures: int
    refused: RefusedError | None
    ends_retry: bool
    """True if no retry waits any more, and none has begun."""


def step(before: From, event: Event) -> Step | None:
    """Let *event* happen; None where it cannot."""
    name = name_in(before)
    source, failures = name.state, name.failures
    was_to_retry = name.is_to_retry
    is_possible = source is State.RUNNING or (event is Event.CANCEL and was_to_retry)
    if event in ENDS and not is_possible:
        return None
    DO[event](name)
    ends_retry = was_to_retry and not name.is_to_retry and name.state is not State.RUNNING
    return Step(
        before, source, event, name.state, failures, name.failures, name.refused, ends_retry
    )


def all_steps() -> list[Step]:
    """Return all events in all situations in which they are possible."""
    return [one for before in From for event in Event if (one := step(before, event)) is not None]


# The table


def table(steps: list[Step]) -> str:
    """Return a Markdown table: a row for each event, a column for each situation."""
    found = {(one.before, one.event): one for one in steps}
    lines = [
        "| | " + " | ".join(before.value for before in From) + " |",
        "|---" * (len(From) + 1) + "|",
    ]
    for event in Event:
        cells = [_cell(found.get((before, event))) for before in From]
        lines.append(f"| {event.value} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(one: Step | None) -> str:
    if one is None:
        return ""
    if one.refused is not None:
        return f"`{type(one.refused).__name__}`"
    if one.target is one.source and one.failures == one.failures_before and not one.ends_retry:
        return "—"
    return one.target.value + _count(one) + (", no retry" if one.ends_retry else "")


def _count(one: Step) -> str:
    if one.target is State.FREE:
        return ""
    if one.failures == one.failures_before:
        return ", *n*" if one.failures else ""
    if one.failures == one.failures_before + 1:
        return ", *n* + 1" if one.failures_before else ", *n* = 1"
    return f", *n* = {one.failures}"


# The picture


@attrs.frozen
class Box:
    """The place of a state."""

    x: int
    y: int
    height: int


@attrs.frozen
class Arrow:
    """The path of a transition, and the place of its words."""

    path: str
    x: int
    y: int
    anchor: str = "start"


TITLE = "The states of a name, and the events that lead from one to another"
WIDTH, HEIGHT, BOX_WIDTH, LINE = 640, 486, 142, 17
BOXES = {
    State.FREE: Box(284, 14, 44),
    State.RUNNING: Box(284, 184, 88),
    State.WAITING: Box(284, 380, 70),
    State.READY: Box(22, 206, 44),
    State.GAVE_UP: Box(488, 380, 70),
}
ARROWS = {
    (State.FREE, State.RUNNING): Arrow("M334 58 V182", 325, 125, "end"),
    (State.RUNNING, State.FREE): Arrow("M374 184 V60", 384, 96),
    (State.RUNNING, State.WAITING): Arrow("M355 272 V378", 364, 330),
    (State.WAITING, State.RUNNING): Arrow("M310 380 V274", 301, 324, "end"),
    (State.RUNNING, State.READY): Arrow("M284 239 H166", 224, 258, "middle"),
    (State.RUNNING, State.GAVE_UP): Arrow("M426 228 H526 V378", 517, 330, "end"),
    (State.READY, State.RUNNING): Arrow("M164 217 H282", 224, 210, "middle"),
    (State.READY, State.FREE): Arrow("M93 206 V46 H282", 102, 117),
    (State.WAITING, State.READY): Arrow("M284 402 H93 V252", 102, 330),
    (State.WAITING, State.FREE): Arrow("M284 428 H10 V26 H282", 19, 330),
    (State.GAVE_UP, State.FREE): Arrow("M596 380 V36 H428", 587, 125, "end"),
}


def picture(steps: list[Step], theme: svg.Theme) -> str:
    """Return the states and the transitions between them, as SVG.

    Raises:
        ValueError: the code has a transition that has no place here, or the reverse.
    """
    found: dict[tuple[State, State], list[Step]] = {}
    for one in steps:
        if one.source is not one.target:
            found.setdefault((one.source, one.target), []).append(one)
    if found.keys() != ARROWS.keys():
        raise ValueError(f"not in both the code and ARROWS: {found.keys() ^ ARROWS.keys()}")
    parts = [
        "<defs><marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' "
        "markerHeight='8' markerUnits='userSpaceOnUse' orient='auto'>"
        f"<path d='M0 0 L8 4 L0 8 Z' fill='{theme.quiet}'/></marker></defs>"
    ]
    for ends, arrow in ARROWS.items():
        parts.append(
            f"<path d='{arrow.path}' fill='none' stroke='{theme.quiet}' stroke-width='1.5' "
            "marker-end='url(#head)'/>"
        )
        parts += _lines(_words(found[ends]), arrow.x, arrow.y, arrow.anchor, 14, theme)
    for state, box in BOXES.items():
        parts.append(
            f"<rect x='{box.x}' y='{box.y}' width='{BOX_WIDTH}' height='{box.height}' rx='8' "
            f"fill='{theme.box}' stroke='{theme.quiet}'/>"
        )
        middle, y = box.x + BOX_WIDTH // 2, box.y + 27
        name = svg.text(middle, y, state.value, theme.text, "middle", 16)
        parts.append(f"<g font-weight='600'>{name}</g>")
        parts += _lines(_inside(state, steps), middle, y + LINE, "middle", 13, theme)
    parts += _lines(_everywhere(steps), WIDTH // 2, HEIGHT - 14, "middle", 13, theme)
    return svg.document(
        WIDTH, HEIGHT, TITLE, parts, "The table on its page says the same in words."
    )


def _words(steps: list[Step]) -> list[str]:
    """Return the words of an arrow: its events, each with its condition."""
    words: dict[str, set[From]] = {}
    for one in steps:
        word = WORDS_FOR_TIME[one.source] if one.event is Event.TIME else one.event.value
        words.setdefault(word, set()).add(one.before)
    lines = [word for word, places in words.items() if not _condition(places)]
    for condition in ("n = 0", "n > 0", "a retry waits"):
        bound = [word for word, places in words.items() if _condition(places) == condition]
        if bound:
            lines += [f"if {condition}:", *bound]
    return lines


def _condition(places: set[From]) -> str:
    if places == {From.RUNNING}:
        return "n = 0"
    if places == {From.TO_RETRY}:
        return "a retry waits"
    return "n > 0" if places == {From.RUNNING_AGAIN} else ""


def _inside(state: State, steps: list[Step]) -> list[str]:
    """Return the words of a box: the refusal of a start, and events that change only the count."""
    lines: list[str] = []
    for one in steps:
        if one.source is not state or one.event is Event.START_LATE:
            continue
        if one.refused is not None:
            lines += ["start raises", type(one.refused).__name__]
        elif one.target is state and one.failures != one.failures_before:
            lines.append(f"{one.event.value}: n = {one.failures}")
    return list(dict.fromkeys(lines))


def _everywhere(steps: list[Step]) -> list[str]:
    """Return the words below the picture: the refusals that come in each state."""
    late = [one.refused for one in steps if one.event is Event.START_LATE]
    (kind,) = {type(refused) for refused in late}
    return [f"In each state, a start on an old listing raises {kind.__name__}."]


def _lines(lines: list[str], x: int, y: int, anchor: str, size: int, theme: svg.Theme) -> list[str]:
    return [
        svg.text(x, y + LINE * row, line, theme.text, anchor, size)
        for row, line in enumerate(lines)
    ]


def page_with(table_text: str, page: str) -> str:
    """Return *page* with its table replaced by *table_text*."""
    before, rest = page.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    return f"{before}{MARKS[0]}{table_text}{MARKS[1]}{after}"


def main() -> None:
    """Write the picture, and the table into its page."""
    steps = all_steps()
    svg.write_both(FOLDER, PICTURE, lambda theme: picture(steps, theme))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page_with(table(steps), page), encoding="utf-8")


if __name__ == "__main__":
    main()
