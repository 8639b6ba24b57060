"""A keyed task map: named tasks, one run of a name at a time, with backoff after failures.

Two concepts are all there is to learn. A name that is *running* is taken: a
second start of it is refused. A name whose last run failed is *waiting*, longer
after each failure in a row: a start is refused until the wait is over.
"""

from types import FunctionType as _FunctionType

from namedtasks._core.backoff import Backoff as Backoff
from namedtasks._core.errors import (
    AlreadyRunningError as AlreadyRunningError,
    BackoffError as BackoffError,
    ClosedError as ClosedError,
    GaveUpError as GaveUpError,
    NamedTasksError as NamedTasksError,
    RecordedError as RecordedError,
    RefusedError as RefusedError,
    TaskCancelledError as TaskCancelledError,
    TaskFailedError as TaskFailedError,
)
from namedtasks._core.ledger import State as State
from namedtasks._core.names import ANY as ANY
from namedtasks._core.pending import IfBusy as IfBusy
from namedtasks._core.records import Failure as Failure
from namedtasks._core.statistics import TaskMapStatistics as TaskMapStatistics
from namedtasks._current import CurrentRun as CurrentRun, current_run as current_run
from namedtasks._threads.future import TaskFuture as TaskFuture
from namedtasks._threads.task_map import ThreadTaskMap as ThreadTaskMap
from namedtasks._trio.handle import TaskHandle as TaskHandle
from namedtasks._trio.opening import open_task_map as open_task_map
from namedtasks._trio.task_map import TaskMap as TaskMap
from namedtasks._version import __version__ as __version__
from namedtasks.instruments.logging import LoggingInstrument as LoggingInstrument


def _claim_names(names: dict[str, object]) -> None:
    """Make tracebacks and docs say ``namedtasks.BackoffError``, not where it is written."""
    for name, value in names.items():
        if not name.startswith("_") and isinstance(value, type | _FunctionType):
            value.__module__ = __name__


_claim_names(dict(globals()))
