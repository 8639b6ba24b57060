"""A keyed task map: named tasks, one run of a name at a time, with backoff after failures.

There are two concepts to learn. A name that is *running* is taken: a second start
of it is refused. A name whose last run failed is *waiting*, longer after each
failure in a row: a start is refused until the wait is over.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any as _Any

# Imported now, before freezegun can replace the functions of `time`.
from namedtasks._thread_pool import MonotonicClock as _MonotonicClock  # noqa: F401 # pyright: ignore[reportUnusedImport]
from namedtasks._version import __version__ as __version__

if TYPE_CHECKING:
    from namedtasks import (
        abc as abc,
        asyncio as asyncio,
        executors as executors,
        instruments as instruments,
        testing as testing,
    )
    from namedtasks._backoff import Backoff as Backoff
    from namedtasks._context import CurrentRun as CurrentRun, current_run as current_run
    from namedtasks._decisions import IfBusy as IfBusy
    from namedtasks._errors import (
        AlreadyRunningError as AlreadyRunningError,
        BackoffError as BackoffError,
        ClosedError as ClosedError,
        GaveUpError as GaveUpError,
        NamedTasksError as NamedTasksError,
        RecordedError as RecordedError,
        RefusedError as RefusedError,
        StaleLookError as StaleLookError,
        TaskCancelledError as TaskCancelledError,
        TaskFailedError as TaskFailedError,
    )
    from namedtasks._names import ANY as ANY
    from namedtasks._observations import Observation as Observation
    from namedtasks._state import (
        Failure as Failure,
        Outcome as Outcome,
        PendingRun as PendingRun,
        State as State,
        TaskMapStatistics as TaskMapStatistics,
    )
    from namedtasks._threads.future import TaskFuture as TaskFuture
    from namedtasks._threads.task_map import ThreadTaskMap as ThreadTaskMap
    from namedtasks._trio.task_map import (
        TaskHandle as TaskHandle,
        TaskMap as TaskMap,
        open_task_map as open_task_map,
    )
    from namedtasks.instruments import LoggingInstrument as LoggingInstrument

# Imported when first used: so a program without trio does not import trio.
_HOMES = {
    "_backoff": "Backoff",
    "_context": "CurrentRun current_run",
    "_decisions": "IfBusy",
    "_errors": "AlreadyRunningError BackoffError ClosedError GaveUpError NamedTasksError "
    "RecordedError RefusedError StaleLookError TaskCancelledError TaskFailedError",
    "_names": "ANY",
    "_observations": "Observation",
    "_state": "Failure Outcome PendingRun State TaskMapStatistics",
    "_threads.future": "TaskFuture",
    "_threads.task_map": "ThreadTaskMap",
    "_trio.task_map": "TaskHandle TaskMap open_task_map",
    "instruments": "LoggingInstrument",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 # pyright: ignore[reportUnsupportedDunderAll]


_MODULES = ("abc", "asyncio", "executors", "instruments", "testing")
"""The public modules. No star import brings them: one of them would hide the real `asyncio`."""

_DIALECTS = {
    "threads": "the map for threads is namedtasks.ThreadTaskMap",
    "trio": "the map for trio is in namedtasks itself: use namedtasks.open_task_map()",
}


if not TYPE_CHECKING:  # pragma: no branch - to type checkers, a misspelt name is none

    def __getattr__(name: str) -> _Any:
        if name in _MODULES:
            return _import_module(f"{__name__}.{name}")
        home = _HOME_OF.get(name)
        if home is None:
            cure = f"; {_DIALECTS[name]}" if name in _DIALECTS else ""
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}{cure}")
        value = globals()[name] = getattr(_import_module(f"{__name__}.{home}"), name)
        return value


def __dir__() -> list[str]:
    return [*__all__, *_MODULES, "__version__"]
