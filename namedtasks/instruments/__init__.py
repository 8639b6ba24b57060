"""Instruments, which are called with the events of a map, and the events.

`Instrument` is the base class; `LoggingInstrument` is every map's default. Each
event is the argument of one method of `Instrument`.
"""

from namedtasks._events import (
    Instrument as Instrument,
    TaskCancelled as TaskCancelled,
    TaskEvent as TaskEvent,
    TaskExpired as TaskExpired,
    TaskFailed as TaskFailed,
    TaskForgotten as TaskForgotten,
    TaskGaveUp as TaskGaveUp,
    TaskOverdue as TaskOverdue,
    TaskQueued as TaskQueued,
    TaskRefused as TaskRefused,
    TaskStarted as TaskStarted,
    TaskSucceeded as TaskSucceeded,
    TaskSuperseded as TaskSuperseded,
)
from namedtasks.instruments.logging import LoggingInstrument as LoggingInstrument
