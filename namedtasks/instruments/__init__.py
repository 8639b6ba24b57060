"""Instruments, which are called with the events of a map, and the events.

`Instrument` is the base class; `LoggingInstrument` is every map's default. Each
event is the argument of one method of `Instrument`.

`PrometheusInstrument` needs ``pip install 'namedtasks[prometheus]'``, and
`OpenTelemetryInstrument` needs ``pip install 'namedtasks[opentelemetry]'``.
Each is imported when it is first used.
"""

from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING as _TYPE_CHECKING, Any as _Any

from namedtasks._events import (
    Instrument as Instrument,
    TaskCancelled as TaskCancelled,
    TaskEvent as TaskEvent,
    TaskExpired as TaskExpired,
    TaskFailed as TaskFailed,
    TaskForgotten as TaskForgotten,
    TaskGaveUp as TaskGaveUp,
    TaskJoined as TaskJoined,
    TaskOverdue as TaskOverdue,
    TaskQueued as TaskQueued,
    TaskRefused as TaskRefused,
    TaskStarted as TaskStarted,
    TaskSucceeded as TaskSucceeded,
    TaskSuperseded as TaskSuperseded,
)
from namedtasks.instruments.logging import LoggingInstrument as LoggingInstrument

if _TYPE_CHECKING:
    from namedtasks.instruments.opentelemetry import (
        OpenTelemetryInstrument as OpenTelemetryInstrument,
    )
    from namedtasks.instruments.prometheus import PrometheusInstrument as PrometheusInstrument

_EXTRAS = {
    "OpenTelemetryInstrument": ("opentelemetry", "opentelemetry.trace"),
    "PrometheusInstrument": ("prometheus", "prometheus_client"),
}
"""Instruments that need another package, imported when they are first used: their module, which
is named as their extra, and that package. Other packages may share the first part of its name."""


def __getattr__(name: str) -> _Any:
    if name not in _EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    extra, package = _EXTRAS[name]
    try:
        module = _import_module(f"{__name__}.{extra}")
    except ImportError as error:
        package = package.partition(".")[0]
        if error.name != package:
            raise
        cure = f"pip install 'namedtasks[{extra}]'"
        raise ImportError(f"{__name__}.{name} needs {package}: {cure}") from error
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    # Without those whose package is missing: `inspect.getmembers` would raise the error.
    extras = [name for name, (_, package) in _EXTRAS.items() if _is_there(package)]
    return sorted({*globals(), *extras})


def _is_there(package: str) -> bool:
    try:
        return _find_spec(package) is not None
    except ModuleNotFoundError:  # there is not even the first part of its name
        return False
