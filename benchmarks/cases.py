"""The rows of the table, each with its floor and its target."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from benchmarks import aio, flat, instruments, memory, refusals, starts, threads
from benchmarks.case import Case, Row, Run, Stage, alone, run_asyncio, run_plain, run_trio, together
from benchmarks.imports import importing
from benchmarks.measure import Target, Work
from benchmarks.peers import PEERS
from benchmarks.settings import KINDS

BARE = "bare nursery.start_soon and drain"
RAISED = "call + dict look-up + bare raise and catch"
RETURNED = "call + dict look-up + return"
TO_THREAD = "trio.to_thread.run_sync"
POOL = "ThreadPoolExecutor.submit + result"
SOON = "TrioToken.run_sync_soon for each start"
HANDLE_FLOOR = "bare start + an Event that the parent waits for"
GROUP = "create_task in a TaskGroup + a done-callback that pops a dict"
UNTOLD = "the same, without instruments"
OBSERVE = "one observe() of a histogram"
TUPLE = "a hand-written tuple with the exception"

MILLION = 1_000_000


def idle(
    name: str,
    ours: Callable[[starts.Idle], Work],
    floor: str,
    theirs: Callable[[starts.Idle], Work],
    most: float | None,
    share: float = 1.0,
) -> Case:
    """Return a row of a map on trio in which nothing runs."""
    row = Row(name=name, ours=ours, floor=floor, theirs=theirs, most=most, share=share)
    return alone(row, starts.idle, run_trio)


def busy(
    name: str,
    ours: Callable[[refusals.Busy], Work],
    floor: str,
    theirs: Callable[[refusals.Busy], Work],
    most: float | None,
) -> Case:
    """Return a row of a map on trio in which one name runs and one waits."""
    row = Row(name=name, ours=ours, floor=floor, theirs=theirs, most=most, unit="ns")
    return alone(row, refusals.busy, run_trio)


def pool(
    name: str,
    ours: Callable[[threads.Pools], Work],
    theirs: Callable[[threads.Pools], Work],
    most: float | None,
) -> Case:
    """Return a row of a thread map, compared with a pool."""
    row = Row(name=name, ours=ours, floor=POOL, theirs=theirs, most=most)
    return alone(row, threads.pools, run_plain)


def on_asyncio(
    name: str,
    ours: Callable[[aio.Loop], Work],
    floor: str,
    theirs: Callable[[aio.Loop], Work],
    most: float | None,
) -> Case:
    """Return a row of a map on asyncio in which nothing runs."""
    row = Row(name=name, ours=ours, floor=floor, theirs=theirs, most=most)
    return alone(row, aio.loop, run_asyncio)


def with_instruments(
    dialect: str,
    maps: Callable[[instruments.MakeInstrument], Stage[instruments.Both]],
    batch: instruments.Batch,
    run: Run,
) -> list[Case]:
    """Return rows of runs that succeed, with each instrument."""
    return [
        alone(
            Row(
                name=f"{dialect}, a run with {name}",
                ours=instruments.told(batch),
                floor=UNTOLD,
                theirs=instruments.untold(batch),
                most=None,
                needs=needs,
            ),
            maps(make),
            run,
        )
        for name, (make, needs) in instruments.INSTRUMENTS.items()
    ]


def while_names_wait(count: int) -> list[Case]:
    """Return rows of operations while *count* names wait, each compared with none waiting."""
    told, floor = f"with {spaced(count)} names waiting", "the same, with none waiting"
    rows = [
        flat.grown(f"wait_idle() on an idle map, {told}", flat.wait_idle, floor, 2.0),
        flat.grown(f"statistics(), {told}", flat.statistics, floor, 2.0),
        flat.grown(f"start, {told}", flat.start, floor, 2.0),
        flat.grown(f"settle, {told}", flat.settle, floor, 2.0),
        flat.grown(
            f"for comparison: a dict look-up, {spaced(count)} names",
            flat.look_up_waiting,
            "the same, with 10 names",
            None,
            "ns",
        ),
    ]
    return together(rows, flat.waiting(count), run_trio)


def list_of_failures(count: int) -> Case:
    """Return a row of the snapshot that `failures` takes of *count* names that wait."""
    row = Row(
        name=f"failures(), with {spaced(count)} names waiting",
        ours=flat.failures,
        floor="list() of the items of a dict of the same length",
        theirs=flat.items,
        most=1.5,
    )
    return alone(row, flat.waiting(count), run_trio)


def while_names_lapse(count: int) -> Case:
    """Return a row of the removal of expired records."""
    told = f"sweep, with {spaced(count)} expired"
    row = flat.grown(told, flat.sweep, "the same, with 1 000 expired", 2.0)
    return alone(row, flat.waiting(count, flat.FEW_LAPSED), flat.run_in_mock_time)


def while_names_overlap(count: int) -> list[Case]:
    """Return rows of names that overlap *count* others, each compared with 10."""
    told, floor = f"with {spaced(count)} running", "the same, with 10 running"
    rows = [
        flat.grown(f"start + finish of overlapping names, {told}", flat.start_pods, floor, 1.3),
        flat.grown(f"refuse an overlapping name, {told}", flat.refuse_volume, floor, 1.3),
    ]
    return together(rows, flat.running(count, flat.overlapping), run_trio)


def price_of_any() -> list[Case]:
    """Return rows of tuples in a map with ANY in use, compared with a map without."""
    floor = "(a, b), without ANY"
    rows = [
        flat.grown("start + finish of (a, b), with ANY in use", flat.start_pods, floor, 1.6),
        flat.grown("start + finish of (a, ANY)", flat.start_volumes, floor, None),
    ]
    return together(rows, flat.running(1, flat.overlapping, flat.apart, 1), run_trio)


def spaced(number: int) -> str:
    """Return a number with its thousands apart: 1 000 000."""
    return f"{number:,}".replace(",", " ")


# The rows. A new one is an entry here, and a function for each side.

RUNS = [
    *(
        idle(
            f"start + finish, warm, names as {kind}",
            starts.batch(kind),
            BARE,
            starts.bare_batch,
            0.87,
        )
        for kind in KINDS
    ),
    idle(
        "start + finish, cold: open, 10 000 runs in batches, close",
        starts.cold,
        BARE,
        starts.bare_cold,
        1.15,
        0.5,
    ),
    idle(
        "start + finish, cold: open, 10 000 runs at once, close",
        starts.cold_at_once,
        BARE,
        starts.bare_cold_at_once,
        None,
        0.5,
    ),
    idle(
        "start + finish, warm, compared with a hand-written map",
        starts.batch(),
        "25 lines, one cancel scope per task",
        starts.batch_by_hand,
        0.4,
    ),
    idle(
        "start, then wait for the handle, one by one",
        starts.one_by_one,
        HANDLE_FLOOR,
        starts.bare_one_by_one,
        0.85,
    ),
    idle(
        "a run that fails, contained and recorded",
        starts.failing,
        "bare spawn of a no-op",
        starts.bare_batch,
        1.6,
    ),
    idle(
        "start + finish while an observation is open",
        starts.observed_batch,
        "the same, with none open",
        starts.batch(),
        1.1,
    ),
    idle(
        "from the end of the last of 1 000 runs to the return of wait_idle",
        starts.end_to_wait_idle,
        "an Event set by the last of 1 000 tasks",
        starts.end_to_event,
        1.3,
        0.5,
    ),
    *(
        on_asyncio(
            f"asyncio map, create_task + await, names as {kind}",
            aio.batch(kind),
            GROUP,
            aio.bare_batch(kind),
            0.95,
        )
        for kind in KINDS
    ),
]

REFUSALS = [
    busy("refuse a running name", refusals.refuse("runs"), RAISED, refusals.raise_and_catch, 1.5),
    busy("refuse a waiting name", refusals.refuse("waits"), RAISED, refusals.raise_and_catch, 2.3),
    busy("skip a running name", refusals.skip("runs"), RETURNED, refusals.look_up, 3.5),
    busy("skip a waiting name", refusals.skip("waits"), RETURNED, refusals.look_up, 7.0),
    busy("name in tasks", refusals.contains, RETURNED, refusals.look_up, 1.3),
    busy("tasks.state(name), running", refusals.state("runs"), RETURNED, refusals.look_up, 2.5),
    busy("tasks.state(name), waiting", refusals.state("waits"), RETURNED, refusals.look_up, 6.5),
    busy("join a running name", refusals.join, RETURNED, refusals.look_up, None),
    busy("queue a running name, superseding", refusals.queue, BARE, refusals.bare_starts, None),
    busy(
        "thread map, a refusal",
        threads.refuse,
        "the trio map's refusal",
        refusals.refuse("runs"),
        1.3,
    ),
]

THREADS = [
    *(
        pool(
            f"thread map, submit + result, batches of 500, names as {kind}",
            threads.submit("tasks", kind),
            threads.bare_submit,
            0.8,
        )
        for kind in KINDS
    ),
    pool(
        "thread map, submit + result, one by one",
        threads.submit_one_by_one("tasks"),
        threads.bare_submit_one_by_one,
        1.2,
    ),
    pool(
        "thread map on a foreign executor, batches of 500",
        threads.submit("on_pool"),
        threads.bare_submit,
        2.5,
    ),
    idle(
        "start_thread_soon, bursts of 500", threads.burst, TO_THREAD, threads.bare_burst, 1.1, 0.2
    ),
    idle(
        "start_thread_soon, one by one",
        threads.one_by_one,
        TO_THREAD,
        threads.bare_one_by_one,
        0.8,
        0.5,
    ),
    idle(
        "post from another thread, bursts of 5 000: the poster's time",
        threads.posted("poster"),
        SOON,
        threads.bare_posted("poster"),
        0.1,
        0.5,
    ),
    idle(
        "post from another thread, bursts of 5 000: end to end",
        threads.posted("whole"),
        SOON,
        threads.bare_posted("whole"),
        0.75,
        0.5,
    ),
]

INSTRUMENTS = [
    *with_instruments("asyncio", instruments.asyncio_maps, instruments.on_asyncio, run_asyncio),
    *with_instruments("threads", instruments.thread_maps, instruments.in_threads, run_plain),
    *with_instruments("trio", instruments.trio_maps, instruments.on_trio, run_trio),
    alone(
        Row(
            name="the methods of PrometheusInstrument for a run",
            ours=instruments.count_run,
            floor=OBSERVE,
            theirs=instruments.observe,
            most=1.3,
            unit="ns",
            needs="prometheus_client",
        ),
        instruments.methods,
        run_plain,
    ),
]

MEMORY = [
    memory.in_processes(
        "bytes per waiting name, one shared error, 1 000 000 names",
        "bytes",
        memory.shared,
        "the ancestor, in Go (read off)",
        165.0,
        Target(190, "ours"),
        MILLION,
    ),
    memory.in_processes(
        "bytes per waiting name, each with its own error, 1 000 000 names",
        "bytes",
        memory.own,
        TUPLE,
        memory.tuples,
        Target(400, "ours"),
        MILLION,
    ),
    memory.in_processes(
        "bytes per running name, 100 000 blocked on an event",
        "bytes",
        memory.running,
        "a bare trio task blocked on an event",
        memory.bare,
        Target(1.75),
        100_000,
    ),
    memory.in_processes(
        "one full garbage collection, 1 000 000 waiting names",
        "collection",
        memory.shared,
        TUPLE,
        memory.tuples,
        Target(0.3),
        MILLION,
        "ms",
    ),
    importing("from namedtasks import ThreadTaskMap", "import trio", 0.5),
    importing("from namedtasks.asyncio import open_task_map", "import trio", 0.65),
    importing("from namedtasks import open_task_map", "import trio", 1.2),
]

FLATNESS = [
    *while_names_wait(1_000),
    *while_names_wait(100_000),
    *while_names_wait(MILLION),
    list_of_failures(100_000),
    while_names_lapse(100_000),
    while_names_lapse(MILLION),
    *while_names_overlap(1_000),
    *while_names_overlap(100_000),
    *price_of_any(),
]

SECTIONS: dict[str, list[Case]] = {
    "Runs": RUNS,
    "Refusals and looks": REFUSALS,
    "Threads": THREADS,
    "Instruments": INSTRUMENTS,
    "Memory and import": MEMORY,
    "Cost with very many names": FLATNESS,
    "Packages that users could choose instead": PEERS,
}

CASES = [attrs.evolve(case, section=name) for name, cases in SECTIONS.items() for case in cases]
"""All rows, in the order in which they are measured and shown."""
